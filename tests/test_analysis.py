"""Answers from records: bests, fronts, comparisons of runs."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from weightlab import analysis
from weightlab.errors import UserError


def test_acceptable_is_strictly_below_one_point():
    table = pd.DataFrame({"loss_pp": [0.99, 1.0, -0.2, np.nan]})
    assert analysis.acceptable(table)["loss_pp"].tolist() == [0.99, -0.2]


def test_best_takes_the_highest_acceptable_row_and_keeps_groups_without_one():
    records = pd.DataFrame({
        "run": ["a", "a", "a", "b", "b"],
        "fitness": [5.0, 9.0, 7.0, 8.0, 3.0],
        "loss_pp": [0.1, 1.5, 0.9, 2.0, 1.0],
    })  # fmt: skip
    best = analysis.best(records, ["run"], "fitness").set_index("run")
    assert best.loc["a", "fitness"] == 7.0
    assert np.isnan(best.loc["b", "fitness"]) and len(best) == 2


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30))
def test_front_is_what_nothing_dominates(points):
    table = pd.DataFrame(points, columns=["loss_pp", "rate"])
    front = analysis.front(table)
    expected = {
        (loss, rate)
        for loss, rate in points
        if not any(a <= loss and b >= rate and (a < loss or b > rate) for a, b in points)
    }  # fmt: skip
    assert set(zip(front["loss_pp"], front["rate"], strict=True)) == expected and len(front) == len(expected)
    assert front["rate"].is_monotonic_increasing


def test_best_so_far_never_falls_and_keeps_runs_apart():
    records = pd.DataFrame({"run": ["b", "a", "a", "b"], "evaluation": [1, 1, 0, 0], "fitness": [1.0, 2.0, 5.0, 3.0]})
    assert analysis.best_so_far(records)["best"].tolist() == [5.0, 5.0, 3.0, 3.0]


def test_comparison_equals_scipy_and_holm_by_hand():
    rng = np.random.default_rng(3)
    samples = {name: rng.normal(shift, size=n) for name, shift, n in (("a", 0, 8), ("b", 1.5, 9), ("c", 1.4, 11))}
    runs = pd.DataFrame([{"search": name, "best": value} for name, values in samples.items() for value in values])
    groups, pairs = analysis.compare_runs(runs, "search", "best")
    assert groups["n"].to_dict() == {"a": 8, "b": 9, "c": 11}
    assert groups.attrs["kruskal_p"] == pytest.approx(stats.kruskal(*samples.values()).pvalue)
    expected = [stats.mannwhitneyu(samples[a], samples[b]).pvalue for a, b in zip(pairs["a"], pairs["b"], strict=True)]
    assert pairs["p"].tolist() == pytest.approx(expected)
    ranked = np.argsort(expected)
    holm = np.maximum.accumulate([min(1, (3 - i) * expected[j]) for i, j in enumerate(ranked)])
    assert pairs["p_holm"].to_numpy()[ranked] == pytest.approx(holm)
    first = pairs.iloc[0]
    x, y = samples[first["a"]], samples[first["b"]]
    assert first["effect"] == pytest.approx(np.mean([(a > b) + (a == b) / 2 for a in x for b in y]))


def test_comparison_of_equal_values_finds_nothing():
    runs = pd.DataFrame({"search": ["a", "a", "b", "b"], "best": [2.0] * 4})
    groups, pairs = analysis.compare_runs(runs, "search", "best")
    assert groups.attrs["kruskal_p"] == 1 and pairs["p_holm"].item() == 1 and pairs["effect"].item() == 0.5


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        (pd.DataFrame({"search": ["a", "b"]}), "unknown column 'best'"),
        (pd.DataFrame({"search": ["a", "b"], "best": [1, np.nan]}), "1 of 2 values in column 'best' are missing"),
        (pd.DataFrame({"search": ["a", "a"], "best": [1, 2]}), "at least two groups"),
    ],
)
def test_records_that_cannot_answer_are_refused(runs, sentence):
    with pytest.raises(UserError, match=sentence):
        analysis.compare_runs(runs, "search", "best")


def test_published_tables_speak_our_names():
    table = analysis.published("table_5_5_optimizers_best")
    assert set(table["network"]) == {"lenet5_tanh", "lenet5_relu"}
    assert set(table["search"]) == {"random", "genetic", "particle_swarm", "black_hole"}
    with pytest.raises(UserError, match="table_5_5"):
        analysis.published("table_9")


def test_rates_of_the_released_plan_follow_from_the_numbers_of_weights():
    """64 clusters: 6 bits an index and 64 values of 32 bits in each of the 53 layers."""
    table = analysis.rates_of_released_plan(64)
    weights = analysis.published("table_B_4_mobilenet_layers")["weights_count"].to_numpy()
    assert len(weights) == 53
    assert table.at["64 in every layer", "storage_rate"] == pytest.approx(32 * weights.sum() / (6 * weights + 64 * 32).sum())
    assert np.isnan(table.at["64 in every layer", "printed_rate"])
    released = table.loc["released plan"]
    assert abs(released["layer_mean_rate"] - released["printed_rate"]) > 0.01  # the plan is not the one of table 5.11


def test_gains_by_arm_compare_every_spread_and_the_swarm_with_the_loss_before():
    sweep = pd.DataFrame({"plan": "p", "spread": [0.5, 2.0], "loss_pp_before": 1.0, "loss_pp_after": [0.9, 0.5],
                          "test_loss_pp_before": 1.5, "test_loss_pp_after": [1.5, 1.75]})  # fmt: skip
    tuned = sweep[sweep["spread"] == 2].assign(swarm_loss_pp=0.25, swarm_test_loss_pp=1.25)
    arms = analysis.gains_by_arm(sweep, tuned).set_index("arm")
    assert arms["gain_pp"].to_dict() == pytest.approx({"spread 0.5": 0.1, "spread 2": 0.5, "swarm": 0.75})
    assert arms["test_gain_pp"].to_dict() == pytest.approx({"spread 0.5": 0, "spread 2": -0.25, "swarm": 0.25})
