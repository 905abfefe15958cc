"""The thesis's claims: what is asked of each, every statistic on small tables with each verdict, and notebooks on doctored records."""

import inspect
import os
import re
import subprocess
from itertools import product

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import notebooks_before, stand_in_root
from scipy import stats
from warm_python import PLAIN, kernels, python

from weightlab import analysis, experiments, paths, storage
from weightlab.analysis import uncertainty
from weightlab.analysis.claims import STATISTICS
from weightlab.analysis.findings import Finding
from weightlab.errors import UserError

CLAIMS = analysis.read_claims()
OF_MULTIPLIERS = analysis.read_claims(paths.published() / "claims_multipliers.csv")
EVERY = {f"{name}{row.claim}{row.part}": row for name, table in (("", CLAIMS), ("multipliers ", OF_MULTIPLIERS)) for row in table.itertuples()}  # fmt: skip


def test_all_42_claims_are_asked():
    assert list(dict.fromkeys(CLAIMS["claim"])) == list(range(1, 43))
    assert not CLAIMS.duplicated(["claim", "part"]).any() and CLAIMS["statement"].str.len().gt(20).all()


def test_the_claims_about_multipliers_are_asked_of_the_tables_of_their_notebook():
    assert list(dict.fromkeys(OF_MULTIPLIERS["claim"])) == [1, 2, 3]
    assert not OF_MULTIPLIERS.duplicated(["claim", "part"]).any() and OF_MULTIPLIERS["statement"].str.len().gt(20).all()
    assert OF_MULTIPLIERS["tables"].str.fullmatch("31_approximate_multipliers/(runs|chosen|settings|batches)").all()


@pytest.mark.parametrize("row", list(EVERY.values()), ids=list(EVERY))
def test_every_claim_says_what_decides_it(row):
    """An existing statistic that takes just these arguments and as many tables as are named, of notebooks that exist."""
    assert np.isfinite(row.threshold) and row.least_n >= 1 and row.n_of
    tables, arguments = row.tables.split(), yaml.safe_load(row.arguments) or {}
    inspect.signature(STATISTICS[row.statistic]).bind(*tables, **arguments)
    for table in tables:
        assert re.fullmatch(r"\d\d_\w+/\w+", table) and table.split("/")[0] in experiments.names()
    assert isinstance(yaml.safe_load(row.where) or {}, dict)
    assert (row.statistic == "unmeasured") == (not tables)


def test_every_statistic_is_used_and_tested():
    assert {row.statistic for row in EVERY.values()} == set(STATISTICS) == {case[0] for case in CASES}


def test_what_claims_read_is_read_after_it_was_written():
    """make runs the notebooks that the replication table reads before it, and the analyses after the searches they analyse."""
    read = {table.split("/")[0] for tables in CLAIMS["tables"] for table in tables.split()}
    assert read <= set(notebooks_before("13_replication_table"))
    assert "04_quantization" in notebooks_before("11_anova_quantization") and "06_clustering" in notebooks_before(
        "12_anova_clustering"
    )


def searches(**columns):
    """Two runs in each of groups a and b, two plans each; group a reaches a rate of 12 and 11, group b of 10 and 8."""
    return pd.DataFrame({
        "group": ["a"] * 4 + ["b"] * 4, "run": list("ssttuuvv"), "fitness": [1.0, 5, 2, 6, 3, 4, 1, 2],
        "rate": [12.0, 9, 11, 20, 10, 7, 8, 30], "loss_pp": [0.9, 0.1, 0.5, 1.0, 0.3, -0.2, 0.4, 5.0],
        "test_loss_pp": [1.1, -0.1, 0.5, 1.0, 0.3, -0.3, 0.2, 5.0],
    }).assign(**columns)  # fmt: skip


def runs(a, b):
    """One acceptable plan a run."""
    rates = [*a, *b]
    return pd.DataFrame({"group": ["a"] * len(a) + ["b"] * len(b), "run": range(len(rates)), "rate": rates, "loss_pp": 0.5})


def by_k(tanh, relu):
    """Losses by k from 1 on, one k for the whole net."""
    rows = [(network, k, loss) for network, losses in (("tanh", tanh), ("relu", relu)) for k, loss in enumerate(losses, 1)]
    return pd.DataFrame(rows, columns=["network", "k", "loss_pp"])


def scan(*allowed):
    """Ten k in each layer, of which the first so many are refused."""
    rows = [(layer, k, k > refused, 0.9 + 0.01 * (k > refused)) for layer, refused in enumerate(allowed) for k in range(1, 11)]
    return pd.DataFrame(rows, columns=["layer", "k", "allowed", "validation_accuracy"])


def lines(a, b):
    """Points on straight lines over rates 0 to 10, four of group a and five of group b."""
    rows = [
        (group, rate, slope * rate + 0.1)
        for group, slope, rates in (("a", a, (0, 4, 7, 10)), ("b", b, (0, 3, 5, 8, 10)))
        for rate in rates
    ]
    return pd.DataFrame(rows, columns=["group", "rate", "loss"]).astype({"rate": float})


def bent(shift, bend, groups="abc", n=20):
    """Points of three groups around one curve in two networks, the first group `shift` pp higher and more bent, half as much in tanh."""
    rng, tables = np.random.default_rng(4), []
    for network, size in (("relu", 1), ("tanh", 0.5)):
        for group in groups:
            rate, first = np.linspace(5, 12, n), size * (group == groups[0])
            loss = 0.05 * rate + first * (shift + bend * (rate - 8) ** 2) + rng.normal(0, 0.1, n)
            tables.append(pd.DataFrame({"network": network, "group": group, "run": [f"{network}{group}{i % 10}" for i in range(n)], "rate": rate, "loss": loss}))  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def rss(points):
    design = np.vander(points["rate"], 3)
    return float(((points["loss"] - design @ np.linalg.lstsq(design, points["loss"], rcond=None)[0]) ** 2).sum())


def f_of(points):
    """F and p of one common curve against one for each group, from two least squares."""
    groups = [rows for _, rows in points.groupby("group")]
    df = len(points) - 3 * len(groups)
    f = ((rss(points) - sum(map(rss, groups))) / (3 * len(groups) - 3)) / (sum(map(rss, groups)) / df)
    return f, stats.f.sf(f, 3 * len(groups) - 3, df)


def bend_p(points, group):
    """p of the squared coefficient of a group's curve, with the scatter of all groups."""
    rows, df = points[points["group"] == group], len(points) - 3 * points["group"].nunique()
    design = np.vander(rows["rate"], 3)
    coefficient = np.linalg.lstsq(design, rows["loss"], rcond=None)[0][0]
    variance = sum(rss(each) for _, each in points.groupby("group")) / df * np.linalg.inv(design.T @ design)[0, 0]
    return 2 * stats.t.sf(abs(coefficient) / np.sqrt(variance), df)


def relu(points):
    return points[points["network"] == "relu"].reset_index(drop=True)


def scattered(signs):
    return pd.DataFrame({"rate": range(9), "residual": [(-1) ** i * i**signs for i in range(1, 10)]})


def influence(focus, spread):
    rows = [("n", "f", layer, factor, share) for layer in range(3) for factor, share in (("focus", focus), ("spread", spread))]
    return pd.DataFrame(rows, columns=["network", "format", "layer", "factor", "omega_squared"])


def tuned(*after):
    return pd.DataFrame({"loss_pp_before": 0.8, "loss_pp_after": after, "swarm_loss_pp": 0.5})


def signs(*correlations):
    return pd.DataFrame({"network": "n", "format": "f", "inertia": correlations})


def times(a, b):
    return pd.DataFrame({"method": ["a", "a", "b", "b"], "clustering_s": [a, a, b, b], "accuracy_s": 1.0})


def splits(*wang):
    return pd.DataFrame({"dataset": ["nette", "nette", "wang", "wang"], "before": [1.0, 2, *wang], "after": [0.5, 2.5, 3, 4]})


def chosen(*losses):
    return pd.DataFrame({"saved_pct": [40.0, 50.0], "test_loss_pp": losses, "test_images": [100, 90]})


def pairs(lost, gained):
    return pd.DataFrame({"lost": lost, "gained": gained, "images": 500})


def designed(population, mutation):
    """Two runs of each combination, 1 apart; the value rises by so much from one value of a setting to the other."""
    rows = [(p, m, population * p + mutation * m + seed) for p in (0, 1) for m in (0, 1) for seed in (0, 1)]
    return pd.DataFrame(rows, columns=["population", "mutation", "usable"])


PARTS = {"parts": ["clustering_s", "accuracy_s"]}
both = {"of": {"group": "a"}, "to": {"group": "b"}}
far, near = runs(range(20, 31), range(1, 12)), runs(range(20, 31), range(19, 30))
# statistic, tables in which the claim holds, tables in which it does not, arguments, relation and threshold, value and n of the first
CASES = [
    ("best_rate", [searches()], [searches(rate=3)], {"rate": "rate"}, ">=", 11, 12, 8),
    ("best_rate_ratio", [searches()], [searches(rate=3)], {"rate": "rate", **both}, ">", 1.1, 1.2, 2),
    ("best_rate_range", [searches(rate=3)], [searches()], {"rate": "rate", "column": "group", "groups": ["a", "b"]}, "<=", 1.1, 1, 2),
    ("beaten_p", [far], [runs(range(1, 12), range(20, 31))], {"column": "group", "better": ["a"], "worse": ["b"], "value": "rate"},
     "<", 0.05, 8.15e-05, 11),
    ("median_gap", [near], [far], {"rate": "rate", **both}, "<=", 0.1, 1 / 24, 11),
    ("spread_ratio", [runs([1, 11, 21], [1, 2, 3])], [runs([1, 2, 3], [1, 2, 3])], {"rate": "rate", **both}, ">", 1, 10, 3),
    ("near_best_gap", [runs([10, 9.9], [10, 1])], [runs([10, 1], [9.9, 10])], {"rate": "rate", "within": 0.05, **both}, ">", 0, 0.5, 2),
    ("most_accurate_on_test", [searches()], [searches(test_loss_pp=0.1)], {}, "<", 0.1, 0.05, 4),
    ("dominating_but_less_fit", [runs([12, 10], [9]).assign(loss_pp=[0.2, 0.4, 0.5], fitness=[1, 3, 2])],
     [runs([12, 10], [9]).assign(loss_pp=[0.2, 0.4, 0.5], fitness=[3, 2, 1])], {"rate": "rate"}, ">", 0, 1, 3),
    ("smallest_k_difference", [by_k([2, 0.5, 0.5], [2, 2, 0.5])], [by_k([2, 2, 0.5], [2, 2, 0.5])], {"of": "relu", "to": "tanh"},
     ">", 0, 1, 3),
    ("raggedness_ratio", [by_k([9, 2, 3, 1], [0, 1, 2, 4])], [by_k([9, 2, 3, 1], [5, 1, 2, 1])],
     {"of": "relu", "to": "tanh", "from_k": 2}, ">", 2, 3, 4),
    ("decades_removed", [scan(5, 0)], [scan(0, 0)], {}, ">=", 0.3, np.log10(2), 10),
    ("emptied_layers", [scan(10, 0)], [scan(9, 0)], {}, ">=", 1, 1, 10),
    ("most_sensitive", [scan(1, 7, 0)], [scan(0, 2, 3)], {"layers": [0, 1]}, ">=", 2, 2, 10),
    ("passing_despite_scan", [scan(2, 0), pd.DataFrame({"k": [1, 2, 3], "validation_accuracy": [0.5, 0.6, 0.99]})],
     [scan(2, 0), pd.DataFrame({"k": [1, 2, 3], "validation_accuracy": [0.5, 0.97, 0.99]})], {"threshold": 0.97}, "<=", 0, 0, 2),
    ("front_area_ratio", [searches()], [searches(loss_pp=[0.9, 0.8, 0.9, 1, 0, -0.2, 0, 5])], {"rate": "rate", "column": "group", "of": "a", "to": ["b"]},
     ">", 0.8, (8 * 0.9 + 2 * 0.5 + 1 * 0.1) / (6 * 1.2 + 1 * 0.7 + 2 * 0.7), 2),
    ("fitted_gap", [lines(0.1, 0.2)], [lines(0.2, 0.1)], {"of": "a", "to": "b"}, "<", 0, -1, 4),
    ("lowest_fitted_loss", [lines(0.1, 0.2)], [lines(-0.1, 0.2)], {"group": "a"}, ">", 0, 0.1, 4),
    ("coefficient_p", [relu(bent(0, 0.05))], [relu(bent(0, 0))], {"parameter": "x^2", "of": ["a"], "groups": ["a", "b", "c"]}, "<", 0.05,
     bend_p(relu(bent(0, 0.05)), "a"), 20),
    ("curves_differ_p", [relu(bent(0.2, 0))], [relu(bent(0, 0))], {"groups": ["a", "b", "c"]}, "<", 0.05, f_of(relu(bent(0.2, 0)))[1], 20),
    ("curves_differ_f_ratio", [bent(0.4, 0)], [bent(0.4, 0).replace({"relu": "tanh", "tanh": "relu"})],
     {"groups": ["a", "b", "c"], "of": {"network": "relu"}, "to": {"network": "tanh"}}, ">", 1,
     f_of(relu(bent(0.4, 0)))[0] / f_of(bent(0.4, 0)[60:])[0], 20),
    ("scatter_growth_p", [scattered(2)], [scattered(-1)], {}, "<", 0.05, 0, 9),
    ("explained_gap", [influence(0.5, 0.2)], [influence(0.2, 0.5)], {"of": "focus", "to": "spread"}, ">", 0, 0.3, 3),
    ("relative_gain", [tuned(0.4, 0.8)], [tuned(0.7, 0.8)], {"loss": "loss_pp", "which": "highest"}, ">=", 0.3, 0.5, 2),
    ("gain_difference", [tuned(0.2, 0.4)], [tuned(0.7, 0.8)], {"of": "loss_pp_after", "to": "swarm_loss_pp"}, ">", 0, 0.2, 2),
    ("sign_agreement", [signs(-1, -0.5, 0.2, 0.9)], [signs(-1, -0.5, -0.2, -0.9)], {"predictor": "inertia"}, "<", 1, 0.5, 4),
    ("time_share_ratio", [times(3, 1)], [times(1, 3)], {"of": "a", "to": "b", "part": "clustering_s", **PARTS}, ">", 1, 0.75 / 0.5, 2),
    ("least_time_share", [times(0.2, 0.25)], [times(3, 0.25)], {"part": "accuracy_s", **PARTS, "methods": ["a", "b"]}, ">", 0.5, 0.8, 2),
    ("quality_to_time", [searches().rename(columns={"group": "method"}), times(9, 0.1)],
     [searches().rename(columns={"group": "method"}), times(1.1, 1)], {"methods": ["a", "b"], "rate": "rate", "part": "clustering_s", **PARTS},
     "<", 0.5, (9.3 / 8.3 - 1) / (0.9 * 11 - 1), 2),
    ("improved_share", [splits(4, 5)], [splits(3, 1)], {"before": "before", "after": "after"}, ">", 0.5, 0.75, 4),
    ("largest_shift", [splits(4, 8)], [splits(2, 3)], {"loss": "before", "of": "wang", "to": "nette"}, ">=", 5, 6, 2),
    ("mean_difference", [runs([12, 10], [9, 7])], [runs([9, 7], [12, 10])], {"column": "rate", **both}, ">", 0, 3, 2),
    ("saved_energy", [chosen(0.6, 0.7)], [chosen(0.61, 0.7)], {"limit_pp": 0.6}, ">=", 20, 20, 90),
    ("share_reaching", [runs([0, 1], [3, 2])], [runs([0, 0], [3, 0.9])], {"column": "rate", "least": 1}, ">=", 0.75, 0.75, 4),
    ("resolved_loss", [pairs([10, 4], [6, 0])], [pairs([10, 9], [6, 9])], {}, "<=", 1.3,
     98 * ((17 - 16 / 502) ** 0.5 + (5 - 16 / 502) ** 0.5) / 502, 500),
    ("share_of_variance_gap", [designed(2, 1)], [designed(1, 2)],
     {"column": "usable", "of": "population", "to": ["mutation"], "settings": ["population", "mutation"]}, ">", 0, (8 - 2) / 12.4, 2),
    ("unmeasured", [], [], {"reason": "because"}, ">", 0, np.nan, 0),
]  # fmt: skip


def judge(folder, statistic, tables, arguments, relation, threshold, least_n, where=None, uncertainty=None):
    """The row of one claim held against tables saved in `folder`."""
    names = [f"01_made/table{number}" for number in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        storage.write_table(table, folder / "01_made", name.split("/")[1])
    row = {
        "claim": 1, "part": "a", "section": "5.1", "statement": "it is so", "tables": " ".join(names), "where": yaml.safe_dump(where or {}),
        "statistic": statistic, "arguments": yaml.safe_dump(arguments), "relation": relation, "threshold": threshold,
        "uncertainty": yaml.safe_dump(uncertainty or {}), "least_n": least_n, "n_of": "runs", "published": 1.0,
    }  # fmt: skip
    return analysis.replicate(pd.DataFrame([row]), folder, "held_out").iloc[0]


def test_points_that_beat_one_of_higher_fitness_are_counted_as_by_comparing_all_pairs():
    rng = np.random.default_rng(0)
    for n in rng.integers(1, 60, 300):
        points = pd.DataFrame(
            {"rate": rng.integers(0, 20, n), "loss_pp": rng.integers(0, 20, n) / 20, "fitness": rng.permutation(n)}
        )
        points = points.drop_duplicates(["rate", "loss_pp"])
        better = [
            ((points["fitness"] > each.fitness) & (points["rate"] < each.rate) & (points["loss_pp"] > each.loss_pp)).any()
            for each in points.itertuples()
        ]
        assert STATISTICS["dominating_but_less_fit"](points, "rate")[:2] == (sum(better), len(points))


@pytest.mark.parametrize(
    ("statistic", "holds", "fails", "arguments", "relation", "threshold", "value", "n"), CASES, ids=[case[0] for case in CASES]
)
def test_each_statistic_leads_to_each_verdict(statistic, holds, fails, arguments, relation, threshold, value, n, tmp_path):
    found = judge(tmp_path, statistic, holds, arguments, relation, threshold, n)
    assert (found["value"], found["n"]) == (pytest.approx(value, rel=1e-3, abs=1e-12, nan_ok=True), n)
    if statistic == "unmeasured":
        assert (found["verdict"], found["reason"]) == ("undecided", "because")
        return
    assert found["verdict"] == "replicated"
    assert judge(tmp_path, statistic, fails, arguments, relation, threshold, 1)["verdict"] == "not replicated"
    short = judge(tmp_path, statistic, holds, arguments, relation, threshold, n + 1)
    assert short["verdict"] == "undecided" and short["reason"].startswith(f"n = {n} runs, {n + 1} asked for")
    bare = judge(tmp_path, statistic, [table[[]].assign(other=1) for table in holds], arguments, relation, threshold, n)
    assert bare["verdict"] == "undecided" and "no " in bare["reason"] and np.isnan(bare["value"])


def test_beaten_p_is_the_worst_pair_after_holm(tmp_path):
    """Group c beats b by nothing: one pair that is not sure makes the whole claim fail."""
    rates = {"a": range(30, 41), "b": range(1, 12), "c": range(1, 12)}
    table = pd.concat([runs(values, []).assign(group=name, run=lambda t, n=name: t["run"].map(n.__add__(":{}").format)) for name, values in rates.items()])  # fmt: skip
    arguments = {"column": "group", "better": ["a", "c"], "worse": ["b"], "value": "rate"}
    assert judge(tmp_path, "beaten_p", [table], arguments, "<", 0.05, 11)["value"] == 1
    arguments["better"] = ["a"]
    assert judge(tmp_path, "beaten_p", [table], arguments, "<", 0.05, 11)["verdict"] == "replicated"
    assert "no rows with group d" in judge(tmp_path, "beaten_p", [table], arguments | {"worse": ["d"]}, "<", 0.05, 11)["reason"]


def test_rates_are_those_of_plans_chosen_below_one_point(tmp_path):
    """Neither the rate of 30 at 5 pp nor that of 20 at 1 pp counts, and a run without an acceptable plan counts as rate 1."""
    found = judge(tmp_path, "best_rate", [searches()], {"rate": "rate"}, ">", 1, 1)
    assert found["value"] == 12 and found["reason"] == "loss 0.90 pp, on test 1.10 pp"
    lost = searches().assign(loss_pp=lambda t: t["loss_pp"].where(t["run"] != "s", 2.0))
    assert (
        "shares 0.50 and 0.00"
        in judge(tmp_path, "near_best_gap", [lost], {"rate": "rate", "within": 0, **both}, ">", 0, 2)["reason"]
    )


RATE = {"rate": "rate"}
SIDES = {"column": "group", "groups": ["a", "b"]}


@pytest.mark.parametrize("lost", ["a", "b"])
@pytest.mark.parametrize(
    ("statistic", "arguments", "relation", "threshold"),
    [
        ("best_rate_ratio", RATE | both, ">", 0.001),
        ("best_rate_ratio", RATE | both, "<", 1000),
        ("best_rate_range", RATE | SIDES, "<", 1000),
        ("beaten_p", {"column": "group", "better": ["a"], "worse": ["b"], "value": "rate"}, "<", 2),
        ("median_gap", RATE | both, "<", 1000),
        ("spread_ratio", RATE | both, ">", -1),
        ("near_best_gap", RATE | both | {"within": 0.05}, ">", -2),
        ("front_area_ratio", RATE | {"column": "group", "of": "a", "to": ["b"]}, ">", -1),
    ],
)
def test_a_claim_is_undecided_where_one_side_has_no_acceptable_plan(statistic, arguments, relation, threshold, lost, tmp_path):
    table = searches()
    holds = judge(tmp_path, statistic, [table], arguments, relation, threshold, 2)
    assert holds["verdict"] == "replicated"
    table["loss_pp"] = table["loss_pp"].where(table["group"] != lost, 1.0)
    found = judge(tmp_path, statistic, [table], arguments, relation, threshold, 2)
    assert found["verdict"] == "undecided" and np.isnan(found["value"])
    assert f"no acceptable plan: none of 4 plans of {lost} loses less than 1 pp" in found["reason"]


def test_a_rate_without_any_acceptable_plan_is_undecided_too(tmp_path):
    found = judge(tmp_path, "best_rate", [searches(loss_pp=1.0)], RATE, "<=", 10, 1)
    assert found["verdict"] == "undecided" and "none of 8 plans loses less than 1 pp" in found["reason"]


def two_groups(gap, spread, n=20):
    rng = np.random.default_rng(11)
    return runs(10 + gap + rng.normal(0, spread, n), 10 + rng.normal(0, spread, n))


def test_a_difference_is_replicated_not_replicated_or_held_by_its_interval(tmp_path):
    asked = {"over": "run", "within": "group"}
    arguments = {"rate": "rate", "column": "group", "of": "a", "to": ["b"]}
    verdicts = {}
    for gap in (3, -3, 0):
        found = judge(tmp_path, "front_area_ratio", [two_groups(gap, 0.5)], arguments, ">", 1, 20, uncertainty=asked)
        assert found["lower"] <= found["value"] <= found["upper"]
        verdicts[gap] = found["verdict"]
        assert f"{found['lower']:.3g} to {found['upper']:.3g}" in found["reason"] and ("holds 1" in found["reason"]) == (gap == 0)
    assert verdicts == {3: "replicated", -3: "not replicated", 0: "undecided"}
    again = judge(tmp_path, "front_area_ratio", [two_groups(0, 0.5)], arguments, ">", 1, 20, uncertainty=asked)
    assert again.equals(found)


def test_an_interval_has_the_width_that_theory_says():
    """The mean of 60 independent runs of three rows each: 1.96 standard errors to each side, however many rows a run has."""
    values = np.random.default_rng(3).normal(5, 2, 60)
    table = pd.DataFrame({"run": np.repeat(np.arange(60), 3), "x": np.repeat(values, 3)})
    ends = uncertainty.interval(lambda table, x: Finding(table[x].mean(), 60), [table], {"x": "x"}, {"over": "run"})
    error = values.std(ddof=1) / np.sqrt(60)
    assert ends == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.4 * error)
    rows = uncertainty.interval(lambda table, x: Finding(table[x].mean(), 60), [table], {"x": "x"}, {"over": "row"})
    assert np.ptp(rows) == pytest.approx(np.ptp(ends) / np.sqrt(3), rel=0.25)


def test_a_unit_drawn_twice_counts_as_two_and_groups_keep_their_sizes():
    table = pd.DataFrame({"group": ["a"] * 8 + ["b"] * 12, "run": np.repeat(list("stuvwxyzäö"), 2), "x": range(20)})
    seen = []
    ends = uncertainty.interval(
        lambda drawn, x: Finding(float(seen.append(drawn) or 1), 0), [table], {"x": "x"}, {"over": "run", "within": "group"}
    )
    assert ends == (1, 1) and len(seen) == uncertainty.RESAMPLES
    for drawn in seen:
        assert drawn.groupby("group")["run"].nunique().to_dict() == {"a": 4, "b": 6} and (drawn.groupby("run").size() == 2).all()
        assert drawn["x"].sort_values().is_unique is False or sorted(drawn["x"]) == list(range(20))
    assert any(drawn["x"].duplicated().any() for drawn in seen)


def test_too_few_runs_to_resample_decide_nothing(tmp_path):
    found = judge(
        tmp_path,
        "best_rate_ratio",
        [searches()],
        {"rate": "rate", **both},
        ">",
        1,
        2,
        uncertainty={"over": "run", "within": "group"},
    )
    assert found["verdict"] == "undecided" and found["reason"].startswith("no interval: too few to resample")


@pytest.mark.parametrize(("images", "verdict"), [(20_000_000, "replicated"), (2000, "undecided")])
def test_accuracies_are_known_as_well_as_the_images_allow(images, verdict, tmp_path):
    """The k of one network is acceptable by 0.05 pp: sure with many images, not with few."""
    table = by_k([0.95, 0.2, 0.2], [3, 0.95, 0.2]).assign(validation_accuracy=lambda t: 0.98 - t["loss_pp"] / 100)
    table = table.assign(test_accuracy=0.9, test_loss_pp=0.3)
    found = judge(
        tmp_path, "smallest_k_difference", [table], {"of": "relu", "to": "tanh"}, ">", 0, 3, uncertainty={"images": images}
    )
    assert found["verdict"] == verdict and found["value"] == 1


NO_DIFFERENCE = {
    key: row for key, row in EVERY.items() if row.threshold == 0 or (row.threshold == 1 and "ratio" in row.statistic)
}


@pytest.mark.parametrize("row", list(NO_DIFFERENCE.values()), ids=list(NO_DIFFERENCE))
def test_whatever_is_held_against_no_difference_has_an_uncertainty(row):
    assert row.uncertainty or row.statistic == "unmeasured"


def thesis_rows(*claims):
    return CLAIMS[CLAIMS["claim"].isin(claims)]


@pytest.mark.parametrize(
    ("notebook", "groups", "ours", "claims"),
    [
        ("11_anova_quantization", ("float8_thesis", "float16", "float32"), "float8_e4m3", (21, 22, 23, 24)),
        ("12_anova_clustering", ("kmeans", "minibatch", "gmm"), "exact", (32,)),
    ],
)
def test_groups_that_the_thesis_does_not_have_decide_nothing(notebook, groups, ours, claims, tmp_path, monkeypatch):
    """The same verdicts, values and intervals with and without a wild group of ours among the points."""
    monkeypatch.setattr(uncertainty, "RESAMPLES", 60)  # a group too many would show in each
    points = bent(0.1, 0.001, groups, 240).replace({"relu": "lenet5_relu", "tanh": "lenet5_tanh"})
    wild = points[points["group"] == groups[0]].assign(
        group=ours, run=lambda t: "o" + t["run"], loss=lambda t: 50 - 3 * t["rate"]
    )
    found = {}
    for name, table in {"without": points, "with": pd.concat([points, wild], ignore_index=True)}.items():
        kinds = [
            table.assign(rate_name=rate, data=data) for rate in ("layer_mean_rate", "storage_rate") for data in ("all", "Pareto")
        ]
        saved = pd.concat(kinds, ignore_index=True)
        storage.write_table(saved, tmp_path / name / notebook, "points")
        fits, _ = analysis.fit_sets(saved)
        storage.write_table(analysis.of_sets(analysis.residuals, fits), tmp_path / name / notebook, "residuals")
        found[name] = analysis.replicate(thesis_rows(*claims), tmp_path / name, "held_out")
    pd.testing.assert_frame_equal(found["with"], found["without"])
    decided = found["with"][found["with"]["rate_name"].isin(["", "layer_mean_rate"])].set_index(["claim", "part"])["verdict"]
    assert (decided != "undecided").sum() >= 3


def test_published_values_are_those_of_the_statistics():
    """Points on the printed curves up to the highest rates of the thesis's log, and the printed times, give the values of claims.csv."""
    log = {"float32": (4.69, 12.752979), "float16": (5.1, 14.108368), "float8_thesis": (4.9649873, 12.72919)}
    table = analysis.published_coefficients("table_B_2_regression_quantization")
    table = table[(table["network"] == "lenet5_relu") & (table["data"] == "all")]
    clustering = analysis.published_coefficients("table_B_3_regression_clustering")
    curves = {name: on_curves(rows, log) for name, rows in (("21", table),)}
    spans = {"kmeans": (5, 13), "minibatch": (5, 13), "gmm": (5, 13)}
    spans_tanh = {name: (5, 19) for name in spans}
    curves["32a"] = on_curves(clustering[clustering["network"] == "lenet5_relu"], spans)
    curves["32c"] = curves["32d"] = on_curves(clustering[clustering["network"] == "lenet5_tanh"], spans_tanh)
    curves |= {f"21{part}": curves["21"] for part in "abc"}
    printed = analysis.published("table_5_10_clustering_times")
    times = pd.DataFrame({
        "network": printed["network"], "method": printed["clustering"].map({"K-Means": "kmeans", "Mini-Batch K-Means": "minibatch", "GMM": "gmm"}),
        "clustering_s": printed["sharing_time_log_without_elites_ms"], "accuracy_s": printed["accuracy_time_log_without_elites_ms"],
    })  # fmt: skip
    for part in "abcdef":
        curves[f"30{part}"] = times[times["network"] == ("lenet5_tanh", "lenet5_relu")["abcdef".index(part) % 2]]
    checked = 0
    for row in CLAIMS.itertuples():
        if (name := f"{row.claim}{row.part}") in curves:
            value = STATISTICS[row.statistic](curves[name], **yaml.safe_load(row.arguments)).value
            assert value == pytest.approx(row.published, abs=0.0006 if name in ("32d",) or row.claim != 32 else 0.006), name
            checked += 1
    assert checked == 12


def on_curves(coefficients, spans):
    """Points on printed curves over the rates given."""
    table = coefficients.pivot(index="group", columns="parameter", values="published")
    rows = []
    for group, (low, high) in spans.items():
        rate, (intercept, x, squared) = np.linspace(low, high, 30), table.loc[group, ["intercept", "x", "x^2"]]
        rows.append(pd.DataFrame({"group": group, "rate": rate, "loss": intercept + x * rate + squared * rate**2}))
    return pd.concat(rows, ignore_index=True)


def test_a_question_about_the_layer_mean_rate_is_put_to_the_storage_rate_too(tmp_path):
    table = searches(layer_mean_rate=lambda t: t["rate"], storage_rate=5.0).drop(columns="rate")
    storage.write_table(table, tmp_path / "01_made", "table0")
    row = {"claim": 1, "part": "a", "tables": "01_made/table0", "where": "", "statistic": "best_rate", "arguments": "{rate: layer_mean_rate}",
           "relation": ">", "threshold": 10, "uncertainty": "", "least_n": 1, "n_of": "plans", "published": np.nan}  # fmt: skip
    found = analysis.replicate(pd.DataFrame([row]), tmp_path, "held_out").set_index("rate_name")
    assert found["value"].to_dict() == {"layer_mean_rate": 12, "storage_rate": 5}
    assert analysis.verdicts(found.reset_index()).item() == "replicated"
    assert analysis.verdicts(found.reset_index(), "storage_rate").item() == "not replicated"


def test_only_rows_of_the_protocol_count(tmp_path):
    table = searches(protocol=["published"] * 4 + ["held_out"] * 4)
    assert judge(tmp_path, "best_rate", [table], {"rate": "rate"}, ">", 1, 1)["value"] == 10


def test_tables_in_memory_are_judged_as_saved_ones(tmp_path):
    """By the rows of the protocol as well; a table that is not there leaves its claim undecided."""
    table = searches(layer_mean_rate=lambda table: table["rate"], storage_rate=5.0, protocol=["published"] * 4 + ["held_out"] * 4)
    rows = [{"claim": claim, "part": "", "tables": f"01_made/{name}", "where": "", "statistic": "best_rate", "relation": ">",
             "arguments": f"{{rate: {rate}}}", "threshold": 9, "uncertainty": "", "least_n": 1, "n_of": "plans", "published": np.nan}
            for claim, (name, rate) in enumerate((("table0", "layer_mean_rate"), ("table1", "rate"), ("table0", "rate")))]  # fmt: skip
    storage.write_table(table, tmp_path / "01_made", "table0")
    saved = analysis.replicate(pd.DataFrame(rows), tmp_path)
    pd.testing.assert_frame_equal(analysis.replicate(pd.DataFrame(rows), {"01_made/table0": table}), saved)
    assert saved["verdict"].tolist() == ["replicated", "not replicated", "undecided", "replicated"]
    assert saved["value"].fillna(0).tolist() == [10, 5, 0, 10] and saved["reason"][2] == "01_made/table1 is missing"


def test_a_stand_in_is_shown_but_decides_nothing(tmp_path):
    where = {"network": "mobilenet_v2"}
    found = judge(tmp_path, "best_rate", [searches(network="mobilenet_v2_fashion")], {"rate": "rate"}, ">", 1, 1, where)
    assert found["verdict"] == "undecided" and found["value"] == 12 and "stand-in" in found["reason"]
    found = judge(tmp_path, "best_rate", [searches(network="mobilenet_v2")], {"rate": "rate"}, ">", 1, 1, where)
    assert found["verdict"] == "replicated"


def test_a_claim_holds_if_all_its_parts_do():
    parts = pd.DataFrame({"claim": [1, 1, 2, 2, 3, 3], "rate_name": "",
                          "verdict": ["replicated", "replicated", "undecided", "replicated", "not replicated", "undecided"]})  # fmt: skip
    assert analysis.verdicts(parts).to_dict() == {1: "replicated", 2: "undecided", 3: "not replicated"}


def test_missing_tables_leave_claims_undecided(tmp_path):
    found = analysis.replicate(CLAIMS, tmp_path, "held_out")
    assert set(found["verdict"]) == {"undecided"} and set(found["claim"]) == set(range(1, 43))
    assert found.loc[found["claim"] == 9, "reason"].eq("02_optimizers/records is missing").all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"statistic": "beaten_q"}, "unknown statistic of claim 1a 'beaten_q'; allowed: "),
        ({"relation": "="}, "unknown relation of claim 1a '='; allowed: <, <=, >, >="),
        ({"threshold": "much"}, "every claim needs a number in column threshold"),
        ({"least_n": np.nan}, "every claim needs a number in column least_n"),
        (
            {"uncertainty": "{draw: run}"},
            "unknown uncertainty of claim 1a {'draw': 'run'}; allowed: {over: columns, within: columns}",
        ),
        ({"uncertainty": "bootstrap"}, "unknown uncertainty of claim 1a 'bootstrap'; allowed: "),
        ({"uncertainty": "{within: run}"}, "unknown uncertainty of claim 1a {'within': 'run'}; allowed: "),
    ],
)
def test_claims_that_cannot_be_checked_are_refused(change, sentence, tmp_path):
    CLAIMS.head(1).assign(**change).to_csv(tmp_path / "claims.csv", index=False)
    with pytest.raises(UserError, match=re.escape(sentence)):
        analysis.read_claims(tmp_path / "claims.csv")
    CLAIMS.drop(columns="where").to_csv(tmp_path / "claims.csv", index=False)
    with pytest.raises(UserError, match="where missing"):
        analysis.read_claims(tmp_path / "claims.csv")


def made_records(column, groups, shift):
    """Records as the notebooks write them: four runs in each group of each network, whose loss grows with the rate and is
    `shift` pp higher in the last group."""
    rng, tables = np.random.default_rng(7), []
    for network, (place, group), run in product(("lenet5_tanh", "lenet5_relu"), enumerate(groups), range(4)):
        rate = np.sort(rng.uniform(6, 18, 25))
        loss = 0.06 * (rate - 6) + rng.uniform(0, 0.05, 25) + shift * (place == len(groups) - 1)
        tables.append(pd.DataFrame({
            "network": network, column: group, "run": f"{network}{group}{run}", "search": "genetic", "seed": run, "protocol": "held_out",
            "evaluation": range(25), "fitness": rate, "loss_pp": loss, "test_loss_pp": loss + 0.02,
            "layer_mean_rate": rate, "storage_rate": rate + 1,
        }))  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def newest(outputs, name):
    """The folder of the last run of a notebook, wherever below the outputs it is."""
    return max(outputs.rglob(f"{name}*/notebook.ipynb"), key=lambda file: file.stat().st_mtime).parent


@pytest.fixture
def without_torch(tmp_path):
    """A stand-in repository in which importing torch fails, and a way to run a notebook there: its answers, or its error."""
    root, environment = tmp_path, stand_in_root(tmp_path) | kernels(PLAIN)
    (tmp_path / "forbidden" / "torch").mkdir(parents=True)
    (tmp_path / "forbidden" / "torch" / "__init__.py").write_text("raise ImportError('this notebook only reads records')")
    before = os.pathsep.join(filter(None, [str(tmp_path / "forbidden"), os.environ.get("PYTHONPATH")]))
    environment |= {"PYTHONPATH": before, "OMP_NUM_THREADS": "1"}

    def run(name, *settings):
        given = [word for setting in settings for word in ("--set", setting)]
        command = [*python(), "-m", "weightlab", "run", name, "--profile", "smoke", *given]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=paths.root())
        if done.returncode:
            return done.stderr.strip().splitlines()[-1]
        cells = nbformat.read(newest(root / "outputs" / "smoke", name) / "notebook.ipynb", as_version=4).cells
        answer = cells[[cell.source for cell in cells].index("## Answer") + 1]
        return "\n".join(output.data["text/markdown"] for output in answer.outputs if "text/markdown" in output.get("data", {}))

    return root / "outputs" / "smoke", run


@pytest.mark.parametrize(
    ("name", "source", "column", "groups"),
    [
        ("11_anova_quantization", "04_quantization", "format", ("float32", "float16", "float8_thesis")),
        ("12_anova_clustering", "06_clustering", "method", ("exact", "kmeans", "minibatch", "gmm")),
    ],
)
def test_answers_of_the_analyses_follow_the_records(name, source, column, groups, without_torch):
    """The same notebook on records in which a group is shifted, and on records in which none is; neither run can import torch."""
    outputs, run = without_torch
    told = {}
    for shift in (0.2, 0.0):
        records = made_records(column, groups, shift)
        storage.write_table(records[records["network"] == "lenet5_tanh"], outputs / source, "records")
        told[shift] = run(name)
    shifted, alike = told.values()
    assert "One common curve does not describe all groups" in shifted and "One common curve would describe all groups" in alike
    assert "significant differences (Holm p < 0.05): none" in alike and alike != shifted
    tests = pd.read_parquet(outputs / name / "tests.parquet")
    row = tests[(tests["network"] == "lenet5_tanh") & (tests["rate_name"] == "layer_mean_rate") & (tests["data"] == "all")]
    row = row[row["test"] == "one common curve against one per group, F"].iloc[0]
    assert f"F({row['df']}, {row['residual_df']}) = {row['F']:.1f}, p = {row['p']:.2g}" in alike
    points = pd.read_parquet(outputs / name / "points.parquet").groupby(["network", "rate_name", "data", "group"]).size()
    assert points.xs("all", level="data").min() >= 12


def test_analyses_refuse_records_that_cannot_answer(without_torch, tmp_path):
    _, run = without_torch
    missing = run("11_anova_quantization")
    assert missing.startswith("error: ") and "run `make experiment NB=04_quantization PROFILE=smoke` first" in missing
    (tmp_path / "few.csv").write_text("group,rate,loss\n" + "".join(f"{g},{r},0.{r}\n" for g in "ab" for r in range(1, 5)))
    few = run("11_anova_quantization", f"records={tmp_path / 'few.csv'}")
    assert "none of 2 sets of points can be fitted" in few and "group 'a' has 4 points" in few
    (tmp_path / "one.csv").write_text("group,rate,loss\na,1,0.1\na,2,0.3\n")
    assert "at least two groups in column 'group', got ['a']" in run("12_anova_clustering", f"records={tmp_path / 'one.csv'}")


def test_analyses_take_points_not_made_here(without_torch, tmp_path):
    _, run = without_torch
    rng = np.random.default_rng(3)
    rate = rng.uniform(5, 15, 60)
    pd.DataFrame({"group": np.repeat(["mine", "theirs"], 30), "rate": rate, "loss": 0.01 * rate + np.repeat([0, 1], 30) + rng.normal(0, 0.02, 60)}).to_csv(tmp_path / "mine.csv", index=False)  # fmt: skip
    answer = run("11_anova_quantization", f"records={tmp_path / 'mine.csv'}", "least_points=5")
    assert "given records" in answer and "does not describe all groups: F(3, 54)" in answer and "theirs 1." in answer


@pytest.mark.parametrize("name", ["11_anova_quantization", "12_anova_clustering"])
def test_analyses_take_points_with_odd_names_and_leave_out_a_network_of_one_group(name, without_torch, tmp_path):
    """Columns called C, I and Q, groups called 08, 8 and None, runs, and a second network with one group only."""
    _, run = without_torch
    rng = np.random.default_rng(0)
    rate = rng.uniform(5, 15, 90)
    table = pd.DataFrame(
        {"group": np.repeat(["08", "8", "None"], 30), "rate": rate, "loss": 0.001 * rate**2 + rng.normal(0, 0.05, 90)}
    )
    table = table.assign(network="first", run=np.tile(range(10), 9), C=1.5, I="x", Q=None)
    odd = pd.concat([table, table[table["group"] == "8"].assign(network="second")])
    odd.to_csv(tmp_path / "odd.csv", index=False)
    answer = run(name, f"records={tmp_path / 'odd.csv'}")
    assert "**first, rate** (90 given points" in answer and "would describe all groups: F(6, 81)" in answer
    assert "**second, rate** (30 points) could not be fitted because a comparison of groups needs at least two groups" in answer
    assert all(f"{group} " in answer for group in ("08", "8", "None"))


@pytest.mark.parametrize(
    ("name", "table", "groups"),
    [
        ("11_anova_quantization", "table_B_2_regression_quantization", ["float32", "float16", "float8_thesis"]),
        ("12_anova_clustering", "table_B_3_regression_clustering", ["kmeans", "minibatch", "gmm"]),
    ],
)
def test_printed_coefficients_stand_beside_given_records_of_the_same_names_and_rate(name, table, groups, without_torch, tmp_path):
    """Points on the printed curves give the printed coefficients back, side by side, with all digits that are printed."""
    outputs, run = without_torch
    printed = analysis.published_coefficients(table)
    data = "Pareto" if name.startswith("12") else "all"
    curves = printed[printed["data"] == data].pivot(index=["network", "group"], columns="parameter", values="published")
    rates, noise = np.linspace(6, 13, 40), 1e-9 * np.cos(np.arange(40))
    rows = [pd.DataFrame({"network": network, "group": group, "rate": rates, "loss": row["intercept"] + row["x"] * rates + row["x^2"] * rates**2 + noise})
            for (network, group), row in curves.iterrows()]  # fmt: skip
    pd.concat(rows).to_csv(tmp_path / "theirs.csv", index=False)
    answer = run(name, f"records={tmp_path / 'theirs.csv'}", "records_rate=layer_mean_rate")
    assert "(120 given points)" in answer and "fronts" not in answer
    folder = newest(outputs, name)
    found = pd.read_parquet(folder / "coefficients.parquet")
    found = found[(found["data"] == "all") & found["group"].isin(groups)]
    assert len(found) == 18
    if data == "all":
        assert found["published"].notna().all() and found["coefficient"].to_numpy() == pytest.approx(
            found["published"].to_numpy(), abs=1e-6
        )
    shown = "".join(
        output.data.get("text/html", "") for cell in nbformat.read(folder / "notebook.ipynb", as_version=4).cells
        for output in cell.get("outputs", []) if "data" in output
    )  # fmt: skip
    for value in found["coefficient"]:
        assert f"{value:.7g}" in shown
    pd.concat(rows[:2]).to_csv(tmp_path / "theirs.csv")
    run(name, f"records={tmp_path / 'theirs.csv'}")
    assert pd.read_parquet(newest(outputs, name) / "coefficients.parquet")["published"].isna().all()


def test_the_example_file_is_analysed_as_its_description_says(without_torch, tmp_path):
    """Both networks and the runs of docs/points.csv are compared, every row counts, and the description names what is read."""
    outputs, run = without_torch
    example, described = pd.read_csv(paths.root() / "docs" / "points.csv"), (paths.root() / "docs" / "points.md").read_text()
    answer = run("11_anova_quantization", f"records={paths.root() / 'docs' / 'points.csv'}", "records_rate=layer_mean_rate")
    for network in ("LeNet-5 tanh", "LeNet-5 ReLU"):
        assert f"**{network}, layer-mean rate** ({len(example) // 2} given points)" in answer
    assert answer.count("Run by run (at least 4 a group)") == 2
    assert pd.read_parquet(newest(outputs, "11_anova_quantization") / "coefficients.parquet")["published"].notna().any()
    for column in (*analysis.records.POINTS, *analysis.records.GIVEN):
        assert f"| `{column}` | {'yes' if column in analysis.records.POINTS else 'no'} |" in described
    for name in (*analysis.records.RATE_NAMES, *analysis.records.FRONTS):
        assert f"`{name}`" in described


def test_the_replication_table_follows_the_records(without_torch):
    """Claim 9 on runs in which every search beats random search, on runs in which random search wins, and on too few runs."""
    outputs, run = without_torch
    searches = ["random", "genetic", "particle_swarm", "black_hole"]

    def write(better, count):
        rows = [{"network": network, "search": search, "run": f"{network}{search}{seed}", "protocol": "held_out", "evaluation": 0,
                 "fitness": seed + 100.0 * (search in better), "loss_pp": 0.5, "test_loss_pp": 0.5, "layer_mean_rate": 10.0, "storage_rate": 9.0}
                for network, search, seed in product(("lenet5_tanh", "lenet5_relu"), searches, range(count))]  # fmt: skip
        storage.write_table(pd.DataFrame(rows).assign(format="float32"), outputs / "02_optimizers", "records")
        return run("13_replication_table")

    assert "- replicated, claim 9:" in write(searches[1:], 11)
    assert "- not replicated, claim 9:" in write(searches[:1], 11)
    few = write(searches[1:], 5)
    assert "claim 9:" not in few and re.search(r"Undecided claims: .*\b9,", few)


def test_the_tables_of_a_smoke_run_hold_what_claims_ask_for(smoke_outputs):
    """Too little of everything, but no table and no column is wanting."""
    parts = pd.read_parquet(smoke_outputs("13_replication_table") / "parts.parquet")
    assert not parts["reason"].str.contains("no column|is missing|unknown column").any()


@pytest.mark.parametrize("name", ["11_anova_quantization", "12_anova_clustering"])
def test_smoke_runs_have_points_enough_for_their_curves(name, smoke_outputs):
    """At least 12 a group in what the thesis calls all data, and a curve through them for each network and rate."""
    points, sets = (pd.read_parquet(smoke_outputs(name) / f"{table}.parquet") for table in ("points", "sets"))
    assert points[points["data"] == "all"].groupby(["network", "rate_name", "group"]).size().min() >= 12
    assert (sets.loc[sets["data"] != "Pareto", "outcome"] == "fitted").all()


def multiplier_tables(more_for, usable, saved, images):
    """Tables as those of the notebook: the front grows by 3 with the larger value of `more_for` and 1 with that of any other setting."""
    chance = np.random.default_rng(6)
    sizes = {"20x20": 0, "40x20": 5, "20x40": 8 if more_for == "mutation" else 4, "100x5": 2, "70x10": 2, "9x9": 0}
    runs = [("lenet5_fashion", run, search, order, seed, 20 + size + seed / 10, usable if run != "9x9" else 0)
            for run, size in sizes.items() for search, order in (("nsga2", "alphabetical"), ("nsga2", "power"), ("random", "")) for seed in range(10)]  # fmt: skip
    settings = list(product((20, 40, 100), (3.0, 30.0), (0.5, 1.0), (0.2, 0.5), range(10)))
    table = pd.DataFrame(settings, columns=["population", "eta", "crossover_probability", "mutation", "seed"])
    effect = sum((3 if name == more_for else 1) * (table[name] == table[name].max()) for name in table.columns[:4])
    chosen = [("lenet5_fashion", "assignment", saved), ("alexnet_fashion", "assignment", saved), ("lenet5_fashion", "exact", 0.0)]
    return {
        "runs": pd.DataFrame(runs, columns=["network", "run", "search", "order", "seed", "final_front", "usable"]),
        "settings": table.assign(network="lenet5_fashion", usable=effect + chance.normal(0, 0.5, len(table))),
        "chosen": pd.DataFrame(chosen, columns=["network", "kind", "saved_pct"]).assign(
            coding="affine", test_loss_pp=0.5, test_images=images
        ),
        "batches": pd.DataFrame(
            {
                "network": "lenet5_fashion",
                "arm": ["assignment", "exact"],
                "ranges": "batch",
                "lost": [9, 0],
                "gained": [3, 0],
                "images": 500,
            }
        ),
    }


@pytest.mark.parametrize(
    ("tables", "verdict"),
    [
        (multiplier_tables("population", 3, 35.0, 10_000), {"1a": 1, "1b": 1, "2a": 1, "2b": 1, "2c": 1, "2d": 0, "3a": 1}),
        (
            multiplier_tables("mutation", 0, 29.0, 10_000),
            {"1a": 1, "1b": 0, "2a": 0, "2b": 0, "2c": 0, "2d": 0, "3a": 0, "3b": 0},
        ),
        (multiplier_tables("eta", 3, 35.0, 4000), {"2a": None, "2b": None, "2c": 1, "3b": 1}),
    ],
    ids=["population", "mutation", "few test images"],
)
def test_the_claims_about_multipliers_follow_the_tables_of_the_notebook(tables, verdict, monkeypatch):
    monkeypatch.setattr(uncertainty, "RESAMPLES", 8)  # fits of the analysis of variance
    named = {f"31_approximate_multipliers/{name}": table for name, table in tables.items()}
    claims = OF_MULTIPLIERS[(OF_MULTIPLIERS["claim"].astype(str) + OF_MULTIPLIERS["part"]).isin(verdict)]
    parts = analysis.replicate(claims, named)
    found = dict(zip(parts["claim"].astype(str) + parts["part"], parts["verdict"], strict=True))
    words = {1: "replicated", 0: "not replicated", None: "undecided"}
    assert found == {part: words[each] for part, each in verdict.items()}, parts.to_string()
