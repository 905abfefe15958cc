"""Analyses and figures of assignments of multipliers, on tables small enough to work out by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from weightlab import analysis, figures
from weightlab.analysis import assignments
from weightlab.analysis.labels import label
from weightlab.compression.multipliers import metrics, tables
from weightlab.errors import UserError

# --- errors of accuracies -----------------------------------------------------------------------------------------------------------


def test_an_accuracy_has_the_standard_error_of_a_proportion():
    assert assignments.standard_error_pp(0.9, 100) == pytest.approx(3)
    assert assignments.standard_error_pp(1.0, 50) == 0
    several = assignments.standard_error_pp(pd.Series([0.5, 0.8]), pd.Series([400, 1600]))
    assert several.tolist() == pytest.approx([2.5, 1.0])
    draws = np.random.default_rng(0).binomial(500, 0.7, 20_000) / 500
    assert assignments.standard_error_pp(0.7, 500) == pytest.approx(100 * draws.std(), rel=0.03)


@pytest.mark.parametrize(
    ("lost", "gained", "p"), [(0, 0, 1), (3, 3, 1), (6, 0, 2 / 64), (1, 5, 14 / 64), (5, 1, 14 / 64), (0, 1, 1)]
)
def test_p_of_pairs_is_exact(lost, gained, p):
    """Twice the tail of so many coin tosses."""
    assert assignments.mcnemar_p(lost, gained) == pytest.approx(p)


def test_many_pairs_have_the_p_of_the_large_sample():
    """McNemar's χ² with the correction for continuity comes near the exact p."""
    for lost, gained in ((130, 100), (240, 260)):
        chi2 = (abs(lost - gained) - 1) ** 2 / (lost + gained)
        assert assignments.mcnemar_p(lost, gained) == pytest.approx(stats.chi2.sf(chi2, 1), rel=0.02)


def test_tables_get_percents_and_errors():
    table = pd.DataFrame({"energy": [0.6, 1.0], "validation_accuracy": [0.9, 0.5], "validation_images": [100, 400],
                          "test_accuracy": [0.8, 0.5], "test_images": [1600, 100], "test_lost": [6, 3], "test_gained": [0, 3]})  # fmt: skip
    got = analysis.with_errors(table)
    assert got[list(table)].equals(table)
    expected = {
        "energy_pct": [60, 100],
        "saved_pct": [40, 0],
        "validation_se_pp": [3, 2.5],
        "test_se_pp": [1, 5],
        "mcnemar_p": [2 / 64, 1],
    }
    for column, values in expected.items():
        assert got[column].tolist() == pytest.approx(values)


# --- what settings do ----------------------------------------------------------------------------------------------------------------


def designed(a, b, noise, seeds=2, **columns):
    """A balanced design of three values of a and two of b: value = a's effect + b's effect ± noise."""
    rows = [
        (x, y, seed, a[x] + b[y] + noise * (-1) ** seed)
        for x, y, seed in itertools.product(range(len(a)), range(len(b)), range(seeds))
    ]
    return pd.DataFrame(rows, columns=["a", "b", "seed", "value"]).assign(**columns)


def test_shares_of_a_balanced_design_are_omega_squared():
    """Effects -3, 0, 3 and -1, 1 with noise ±2: sums of squares of 12 runs are 72, 12 and 48, the last with 8 degrees of freedom."""
    shares = assignments.shares_of_settings(designed([-3, 0, 3], [-1, 1], 2), "value", ["a", "b"])
    assert shares.to_dict() == pytest.approx({"a": (72 - 2 * 6) / 138, "b": (12 - 6) / 138})
    alone = assignments.shares_of_settings(designed([-3, 0, 3], [-1, 1], 2), "value", ["b"])
    assert alone.to_dict() == pytest.approx({"b": 0}, abs=1e-12)  # what a adds counts as scatter: 120, with 10 degrees of freedom


def test_a_setting_that_does_nothing_explains_nothing_however_many_values_it_has():
    chance = np.random.default_rng(1)
    shares = [
        assignments.shares_of_settings(table.assign(value=chance.normal(size=len(table))), "value", ["a", "b"])["a"]
        for table in [designed(range(8), [0, 1], 0)] * 60
    ]
    assert abs(np.mean(shares)) < 3 * np.std(shares) / 60**0.5 and min(shares) < 0 < max(shares)


def test_shares_do_not_depend_on_the_scale_or_on_names():
    table = designed([-3, 0, 3], [-1, 1], 2)
    other = table.assign(value=7 - 2 * table["value"], a=table["a"].map({0: "x", 1: "it's", 2: "y + z"}))
    expected = assignments.shares_of_settings(table, "value", ["a", "b"])
    assert assignments.shares_of_settings(other, "value", ["a", "b"]).tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize(
    ("table", "settings", "sentence"),
    [
        (designed([0, 1], [0], 1), ["a", "b"], "a setting explains variance only if it has several values, and b has one"),
        (designed([0], [0], 1), ["a", "b"], "and a, b has one"),
        (designed([0, 0], [0, 0], 0), ["a", "b"], "all runs have the same value, so nothing explains its variance"),
        (designed([0, 1], [0, 1], 1), ["a", "c"], "no column c"),
    ],
)
def test_shares_of_what_does_not_vary_are_refused(table, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        assignments.shares_of_settings(table, "value", settings)


def test_influence_has_a_row_for_each_setting_and_leaves_out_what_does_not_vary():
    first, second = (
        designed([-3, 0, 3], [-1, 1], 2, network="n", order="power", c=1),
        designed([0, 0, 0], [-1, 1], 1, network="n", order="alphabetical", c=1),
    )
    runs = pd.concat([first, second]).assign(same=5.0)
    shares = analysis.influence_of_settings(runs, ["value", "same"], ["a", "b", "c"])
    assert list(shares) == ["network", "measure", "order", "setting", "share"]
    found = shares.set_index(["network", "measure", "order", "setting"])["share"].to_dict()
    expected = {"power": (60 / 138, 6 / 138), "alphabetical": (-3 / 25.5, 10.5 / 25.5)}
    assert found == pytest.approx(
        {("n", "value", order, name): share for order, both in expected.items() for name, share in zip("ab", both, strict=True)},
        abs=1e-12,
    )
    empty = analysis.influence_of_settings(runs, ["same"], ["a", "b"])
    assert empty.empty and list(empty) == list(shares)
    assert analysis.influence_of_settings(runs, ["value"], ["c"]).empty


def played(**ratios):
    """Runs of one network and run by arm (search_order), a hypervolume ratio for each seed."""
    rows = [(*arm.split("_"), seed, each) for arm, several in ratios.items() for seed, each in enumerate(several)]
    table = pd.DataFrame(rows, columns=["search", "order", "seed", "hypervolume_ratio"])
    return table.assign(network="n", run="4x2", front_size=3, final_front=2, usable=table["seed"], distinct=7, evaluations=8)


RUNS = played(nsga2_power=[0.8, 0.9, 1.0], nsga2_alphabetical=[0.5, 0.6, 0.55], random_=[0.7, 0.75, 0.65])


def test_quality_is_the_mean_and_the_spread_over_seeds():
    quality = analysis.quality_of_runs(pd.concat([RUNS, RUNS.assign(network="m", hypervolume_ratio=0.5)]))
    assert quality[["network", "run", "order", "search"]].values.tolist() == [
        [network, "4x2", order, search] for network in "nm" for search, order in (("nsga2", "power"), ("nsga2", "alphabetical"), ("random", ""))
    ]  # fmt: skip
    assert quality["hypervolume_ratio"].tolist() == pytest.approx([0.9, 0.55, 0.7, 0.5, 0.5, 0.5])
    assert quality["hypervolume_ratio_sd"].tolist() == pytest.approx([0.1, 0.05, 0.05, 0, 0, 0])
    assert (
        (quality["usable"] == 1).all()
        and (quality["usable_sd"] == 1).all()
        and (quality["front_size"] == 3).all()
        and (quality["final_front"] == 2).all()
    )
    assert (quality["n"] == 3).all() and (quality["evaluations"] == 8).all() and (quality["distinct"] == 7).all()


def test_the_gap_to_random_search_has_the_p_of_mann_and_whitney():
    """Of three runs against three that all lie apart, p is 2 in 20."""
    gaps = analysis.gap_to_random(RUNS)
    assert gaps[["network", "run", "order", "search", "n"]].values.tolist() == [
        ["n", "4x2", "power", "nsga2", 3], ["n", "4x2", "alphabetical", "nsga2", 3],
    ]  # fmt: skip
    by_order = gaps.set_index("order")
    assert by_order["gap"].to_dict() == pytest.approx({"power": 0.2, "alphabetical": -0.15})
    assert by_order["p"].tolist() == pytest.approx([0.1, 0.1])
    same = analysis.gap_to_random(played(nsga2_power=[0.1, 0.2, 0.3], random_=[0.1, 0.2, 0.3]))
    assert same["gap"].item() == pytest.approx(0) and same["p"].item() == pytest.approx(1)
    alone = analysis.gap_to_random(played(nsga2_power=[0.1, 0.2]))
    assert np.isnan(alone["gap"].item()) and np.isnan(alone["p"].item())


# --- figures ------------------------------------------------------------------------------------------------------------------------


def lines(ax):
    """What is drawn, by its name in the legend."""
    return {line.get_label(): line.get_xydata().tolist() for line in ax.lines}


def bars(ax):
    """Points with standard errors, by name: places, and the half lengths of their bars."""
    found = {}
    for each in ax.containers:
        (segments,) = [part.get_segments() for part in each.lines[2]]
        found[each.get_label()] = (
            each.lines[0].get_xydata().tolist(), pytest.approx([float(np.ptp(segment[:, 1])) / 2 for segment in segments]),
        )  # fmt: skip
    return found


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_library_is_drawn_by_power():
    table = metrics.metrics(tables.generated().only(["exact", "trunc6", "drum4"]))
    figure = figures.errors_by_power(table)
    assert isinstance(figure, Figure)
    (ax,) = figure.axes
    assert ax.lines[0].get_xydata().tolist() == table[["power_pct", "mae"]].to_numpy().tolist()
    assert [(text.get_text(), text.xy) for text in ax.texts] == [
        (row.name, (row.power_pct, row.mae)) for row in table.itertuples()
    ]
    assert ax.get_title() == "3 multipliers of 8-bit codes, power by a model"
    measured = figures.errors_by_power(table.assign(power_source="pdk45"))
    assert measured.axes[0].get_title() == "3 multipliers of 8-bit codes, power measured (45 nm)"


def front(network, *rows):
    table = pd.DataFrame(rows, columns=["energy_pct", "validation_loss_pp", "test_loss_pp", "test_se_pp"])
    return table.assign(network=network)


FRONTS = pd.concat(
    [
        front("lenet5_relu", (90.0, 0.5, 0.6, 0.1), (60.0, 2.0, 2.5, 0.2), (100.0, 0.1, 0.0, 0.1), (30.0, 7.0, 8.0, 0.3)),
        front("lenet5_fashion", (100.0, 9.0, 8.0, 0.3)),
    ]
)
CHOSEN = pd.concat(
    [
        front("lenet5_relu", (90.0, 0.5, 0.6, 0.1), (100.0, 0.1, 0.0, 0.2)).assign(kind=["assignment", "exact"]),
        front("lenet5_fashion", (100.0, 9.0, 8.0, 0.3)).assign(kind="exact"),
    ]
)


def test_energy_and_loss_of_the_front_and_of_the_chosen():
    figure = figures.energy_by_loss(FRONTS.assign(coding="affine"), CHOSEN.assign(coding="affine"), 0.6)
    assert isinstance(figure, Figure) and len(figure.axes) == 2
    assert [ax.get_title() for ax in figure.axes] == [f"{label(name)}, affine" for name in ("lenet5_relu", "lenet5_fashion")]
    left, right = figure.axes
    assert lines(left)["front on validation"] == [[60, 2], [90, 0.5], [100, 0.1]]  # 7 pp are beyond the figure
    assert bars(left) == {
        "the same on test": ([[60, 2.5], [90, 0.6], [100, 0]], [0.2, 0.1, 0.1]),
        "chosen assignment": ([[90, 0.6]], [0.1]),
        "exact, 8 bits": ([[100, 0]], [0.2]),
    }
    assert lines(right)["front on validation"] == []  # nothing within 5 pp
    assert bars(right)["exact, 8 bits"] == ([[100, 8]], [0.3])
    assert {text.get_text() for text in left.texts} == {"0.6 pp", "30 % saved"}
    assert set(legend(figure)) == {"front on validation", "the same on test", "chosen assignment", "exact, 8 bits"}
    figure.canvas.draw()


def test_energy_and_loss_of_one_network():
    figure = figures.energy_by_loss(FRONTS[:4].assign(coding="affine"), CHOSEN[:2].assign(coding="affine"), 2.5)
    assert len(figure.axes) == 1 and figure.axes[0].texts[0].get_text() == "2.5 pp"


def test_everything_evaluated_and_its_front():
    records = pd.DataFrame({"energy": [0.4, 1.0, 0.7, 0.5], "validation_loss_pp": [80.0, 0.0, 3.0, 90.0]})
    figure = figures.evaluated_assignments(records, records.iloc[[1, 2, 0]])
    (ax,) = figure.axes
    assert lines(ax) == {
        "evaluated (4)": [[40, 80], [100, 0], [70, 3], [50, 90]],
        "front (3)": [[40, 80], [70, 3], [100, 0]],
    }
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["evaluated (4)", "front (3)"]
    assert ax.get_yscale() == "symlog"


@pytest.mark.parametrize("networks", [["lenet5_relu"], ["lenet5_relu", "lenet5_fashion"]])
def test_every_run_is_a_dot_and_every_arm_a_mean(networks):
    runs = pd.concat([RUNS.assign(network=name, hypervolume_ratio=RUNS["hypervolume_ratio"] - 0.1 * place) for place, name in enumerate(networks)])  # fmt: skip
    runs = pd.concat([runs, runs.assign(run="4x9")])
    figure = figures.search_quality(runs)
    assert isinstance(figure, Figure) and [ax.get_title() for ax in figure.axes] == [label(name) for name in networks]
    assert legend(figure) == ["NSGA-II, power", "NSGA-II, alphabetical", "random"]
    for place, ax in enumerate(figure.axes):
        dots = np.concatenate([each.get_offsets() for each in ax.collections])
        shown = sorted(float(y) for x, y in dots)
        assert shown == pytest.approx(sorted([*(RUNS["hypervolume_ratio"] - 0.1 * place)] * 2))
        means = sorted(float(y) for line in ax.lines if line.get_marker() == "_" for y in line.get_ydata() if np.isfinite(y))
        assert means == pytest.approx(sorted([0.9 - 0.1 * place, 0.55 - 0.1 * place, 0.7 - 0.1 * place] * 2))
        assert [text.get_text() for text in ax.get_xticklabels()] == ["4x2", "4x9"]
    assert len(figures.search_quality(runs[runs["search"] == "random"]).axes) == len(networks)  # one arm alone


def test_a_bar_for_each_setting_and_order():
    rows = [(measure, order, setting, share) for measure, first in (("usable", 0.1), ("front_size", 0.3)) for order, more in (("power", 0), ("alphabetical", 0.05))
            for setting, share in (("population", first + more), ("crossover_probability", 0.6 - first))]  # fmt: skip
    shares = pd.DataFrame(rows, columns=["measure", "order", "setting", "share"])
    figure = figures.influence_of_settings(shares)
    assert [ax.get_title() for ax in figure.axes] == [label("usable"), label("front_size")]
    for ax, first in zip(figure.axes, (0.1, 0.3), strict=True):
        heights = [[bar.get_height() for bar in container] for container in ax.containers]
        assert heights == [pytest.approx([first, 0.6 - first]), pytest.approx([first + 0.05, 0.6 - first])]
        assert [text.get_text() for text in ax.get_xticklabels()] == ["population", "crossover\nprobability"]
    assert len(figures.influence_of_settings(shares[:2]).axes) == 1
    assert isinstance(figures.influence_of_settings(shares[:0]), Figure)  # nothing varied
