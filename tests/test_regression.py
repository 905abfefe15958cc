"""Quadratic curves per group: against numpy's least squares and scipy's F distribution, and what they refuse."""

import re
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from weightlab import analysis, figures
from weightlab.errors import UserError

KNOWN = {"float16": (-0.56, 0.08, -0.0006), "float32": (-0.55, 0.081, -0.0003), "float8_thesis": (0.1, -0.015, 0.0077)}


def design(points, by_group):
    """Columns 1, rate, rate², for all points together or for each group by itself in turn (patsy is not involved)."""
    powers = np.stack([points["rate"] ** power for power in range(3)], axis=1)
    if not by_group:
        return powers
    groups = sorted(points["group"].unique())
    return np.hstack([powers[:, [power]] * (points["group"].to_numpy()[:, None] == groups) for power in range(3)])


def squares(matrix, loss):
    return ((loss - matrix @ np.linalg.lstsq(matrix, loss, rcond=None)[0]) ** 2).sum()


@pytest.fixture
def points():
    """Unbalanced groups around known curves; the scatter grows with the rate and differs between groups."""
    rng = np.random.default_rng(5)
    tables = []
    for (name, (a, b, c)), n in zip(KNOWN.items(), (60, 17, 143), strict=True):
        rate = rng.uniform(4, 20, n)
        tables.append(
            pd.DataFrame({"group": name, "rate": rate, "loss": a + b * rate + c * rate**2 + rng.normal(0, 0.02 * rate)})
        )
    return pd.concat(tables).sample(frac=1, random_state=1).reset_index(drop=True)


def known_loss(points):
    return np.polynomial.polynomial.polyval(points["rate"], np.array([KNOWN[group] for group in points["group"]]).T, tensor=False)


@pytest.fixture
def exact(points):
    """The same rates; scatter without any component along the model, so that least squares must return the known coefficients."""
    full, noise = design(points, True), np.random.default_rng(6).normal(0, 0.1, len(points))
    noise -= full @ np.linalg.lstsq(full, noise, rcond=None)[0]
    return points.assign(loss=known_loss(points) + noise)


def test_known_coefficients_come_back(exact):
    table = analysis.coefficients(analysis.fit_curves(exact))
    for row in table.itertuples():
        assert row.coefficient == pytest.approx(
            KNOWN[row.group][("intercept", "x", "x^2").index(row.parameter)], rel=1e-6, abs=1e-9
        )


def test_coefficients_and_errors_equal_numpys(points):
    full, loss = design(points, True), points["loss"].to_numpy()
    solution = np.linalg.lstsq(full, loss, rcond=None)[0]
    inverse, residual = np.linalg.inv(full.T @ full), loss - full @ solution
    df = len(points) - 9
    se = np.sqrt(np.diag(inverse) * (residual**2).sum() / df)
    hat = np.einsum("ij,jk,ik->i", full, inverse, full)
    hc3 = np.sqrt(np.diag(inverse @ (full.T * (residual / (1 - hat)) ** 2) @ full @ inverse))
    table = analysis.coefficients(analysis.fit_curves(points))
    assert table["coefficient"].to_numpy() == pytest.approx(solution, rel=1e-6)
    assert table["se"].to_numpy() == pytest.approx(se, rel=1e-6)
    assert table["p"].to_numpy() == pytest.approx(2 * stats.t.sf(abs(solution / se), df), rel=1e-6)
    assert table["robust_se"].to_numpy() == pytest.approx(hc3, rel=1e-6)
    assert table["robust_p"].to_numpy() == pytest.approx(2 * stats.t.sf(abs(solution / hc3), df), rel=1e-6)


def test_sequential_test_equals_nested_least_squares(points):
    """Each term's F is the squares it takes away after those before it, over the residual mean square of the full model."""
    full, loss = design(points, True), points["loss"].to_numpy()
    left = [(loss**2).sum(), *(squares(full[:, : 3 * terms], loss) for terms in (1, 2, 3))]
    df = len(points) - 9
    f = -np.diff(left) / 3 / (left[-1] / df)
    table = analysis.sequential_test(analysis.fit_curves(points))
    assert table["F"].to_numpy() == pytest.approx(f, rel=1e-6)
    assert table["p"].to_numpy() == pytest.approx(stats.f.sf(f, 3, df), rel=1e-6)
    assert table["df"].tolist() == [3, 3, 3] and set(table["residual_df"]) == {df}


def test_common_curve_test_equals_two_least_squares(points):
    full, common, loss = design(points, True), design(points, False), points["loss"].to_numpy()
    one, each = squares(common, loss), squares(full, loss)
    df = len(points) - 9
    f = ((one - each) / 6) / (each / df)
    table = analysis.common_curve_test(analysis.fit_curves(points))
    plain, robust = table.iloc[0], table.iloc[1]
    assert (plain["F"], plain["p"]) == pytest.approx((f, stats.f.sf(f, 6, df)), rel=1e-6)
    assert (plain["df"], plain["residual_df"]) == (6, df)
    solution, inverse = np.linalg.lstsq(full, loss, rcond=None)[0], np.linalg.inv(full.T @ full)
    residual, hat = loss - full @ solution, np.einsum("ij,jk,ik->i", full, inverse, full)
    covariance = inverse @ (full.T * (residual / (1 - hat)) ** 2) @ full @ inverse
    contrast = np.zeros((6, 9))
    for row, (power, group) in enumerate([(power, group) for power in range(3) for group in (1, 2)]):
        contrast[row, 3 * power], contrast[row, 3 * power + group] = -1, 1
    off = contrast @ solution
    wald = off @ np.linalg.solve(contrast @ covariance @ contrast.T, off) / 6
    assert (robust["F"], robust["p"]) == pytest.approx((wald, stats.f.sf(wald, 6, df)), rel=1e-6)


def test_the_two_tests_are_named_and_answer_different_questions(exact):
    """Groups of one and the same steep curve: the thesis's test is sure of its terms, the comparison of groups finds nothing."""
    fit = analysis.fit_curves(exact.assign(loss=exact["loss"] - known_loss(exact) + 0.1 + 0.04 * exact["rate"]))
    sequential, common = analysis.sequential_test(fit), analysis.common_curve_test(fit)
    assert sequential["p"].iloc[1] < 1e-9 and (common["p"] > 0.99).all()
    assert not set(sequential["test"]) & set(common["test"]) and not set(sequential["hypothesis"]) & set(common["hypothesis"])
    assert (
        sequential["hypothesis"].str.contains("zero in every group").all()
        and common["hypothesis"].str.contains("one curve").all()
    )


def test_heteroscedasticity_is_found_where_it_is(points, exact):
    """The F form of Breusch and Pagan's test, squared residuals regressed on the model's terms."""
    full, fit = design(points, True), analysis.fit_curves(points)
    squared = (points["loss"] - full @ np.linalg.lstsq(full, points["loss"], rcond=None)[0]).to_numpy() ** 2
    left, df = squares(full, squared), len(points) - 9
    f = ((((squared - squared.mean()) ** 2).sum() - left) / 8) / (left / df)
    table = analysis.heteroscedasticity_test(fit).iloc[0]
    assert (table["F"], table["p"]) == pytest.approx((f, stats.f.sf(f, 8, df)), rel=1e-6)
    assert table["p"] < 0.01 < analysis.heteroscedasticity_test(analysis.fit_curves(exact))["p"].item()


def test_fitted_curves_lie_on_the_curves_over_each_groups_own_rates(exact):
    curves = analysis.fitted_curves(analysis.fit_curves(exact), steps=7)
    for name, rows in curves.groupby("group"):
        own = exact.loc[exact["group"] == name, "rate"]
        assert (rows["rate"].min(), rows["rate"].max()) == pytest.approx((own.min(), own.max()))
        assert rows["loss"].to_numpy() == pytest.approx(np.polynomial.polynomial.polyval(rows["rate"], KNOWN[name]))
        assert (rows["lower"] < rows["loss"]).all() and (rows["loss"] < rows["upper"]).all()


def test_residuals_are_what_the_curves_leave(points):
    table = analysis.residuals(analysis.fit_curves(points))
    full = design(points, True)
    left = points["loss"] - full @ np.linalg.lstsq(full, points["loss"], rcond=None)[0]
    assert table["residual"].to_numpy() == pytest.approx(left.to_numpy())
    assert (table["fitted"] + table["residual"]).to_numpy() == pytest.approx(points["loss"].to_numpy())
    ordered = table.sort_values("studentized")
    assert ordered["quantile"].is_monotonic_increasing and ordered["quantile"].iloc[0] == pytest.approx(
        -ordered["quantile"].iloc[-1]
    )


def test_robust_errors_are_not_invented_for_a_group_without_scatter(points):
    """A group whose points all lose the same has errors of zero by HC3, and would differ from any other beyond all doubt."""
    flat = points.assign(loss=points["loss"].where(points["group"] != "float16", 0.5))
    fit = analysis.fit_curves(flat)
    table, tests = analysis.coefficients(fit), analysis.common_curve_test(fit)
    assert table[["robust_se", "robust_p"]].isna().all(axis=None) and table[["coefficient", "se", "p"]].notna().all(axis=None)
    assert tests["F"].notna().tolist() == [True, False] and tests["p"].notna().tolist() == [True, False]
    assert analysis.fitted_curves(fit)[["lower", "upper"]].isna().all(axis=None)


def test_curves_are_found_in_files_not_made_here(points, tmp_path):
    points.to_csv(tmp_path / "points.csv", index=False)
    points.to_parquet(tmp_path / "points.parquet")
    fits = [analysis.fit_curves(analysis.read_points(tmp_path / f"points.{kind}")).params for kind in ("csv", "parquet")]
    assert fits[0].to_numpy() == pytest.approx(analysis.fit_curves(points).params.to_numpy()) and (fits[0] == fits[1]).all()


def several(n=20, **columns):
    rate = np.linspace(5, 12, n)
    table = pd.DataFrame({"group": np.where(np.arange(n) % 2, "a", "b"), "rate": rate, "loss": np.sin(7 * rate)})
    return table.assign(**columns)


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (several(40).drop(columns="rate"), "points need the columns group, rate, loss; rate missing, got group, loss"),
        (several(40, group="a"), "at least two groups in column 'group', got ['a']"),
        (several(40, loss=[np.nan, *range(39)]), "1 of 40 values in column 'loss' are not finite numbers, the first is 'nan'"),
        (several(40, rate=[np.inf, *range(39)]), "1 of 40 values in column 'rate' are not finite numbers, the first is 'inf'"),
        (several(40, rate=["much", *range(39)]), "1 of 40 values in column 'rate' are not finite numbers, the first is 'much'"),
        (several(40, group=[None, *"ab" * 19, "a"]), "1 of 40 values in column 'group' are not names of groups"),
        (several(40, group=[" ", *"ab" * 19, "a"]), "1 of 40 values in column 'group' are not names of groups, the first is ' '"),
        (
            several(40, rate=1000 + np.arange(40) * 1e-6),
            "of group 'a' run from 1000.000001 to 1000.000039, too large or too close",
        ),
        (
            several(40, rate=[*range(5, 44), 1e9]),
            "the rates of group 'a' run from 6 to 1000000000, too large or too close together",
        ),
        (several(40, rate=1e9 * np.arange(1, 41)), "run from 2000000000 to 4e+10, too large or too close together"),
        (several(40, rate=[*range(5, 44), 1e200]), "run from 6 to 1e+200, too large or too close together"),
        (several(5), "group 'a' has 2 points; a curve of 3 coefficients needs at least 12"),
        (several(40, rate=[5, 6, 7, 8] * 10), "group 'a' has 2 different rates; a curve of 3 coefficients needs at least 4"),
        (several(40, loss=0.5), "the curves pass through every point"),
        (pd.DataFrame(columns=["group", "rate", "loss"]), "at least two groups in column 'group', got []"),
    ],
)
def test_points_that_cannot_answer_are_refused_in_one_sentence(points, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)) as refused:
        analysis.fit_curves(points)
    assert "\n" not in str(refused.value)


def test_fewer_points_than_coefficients_are_refused_whatever_is_asked():
    with pytest.raises(UserError, match="group 'a' has 3 points; a curve of 3 coefficients needs at least 4"):
        analysis.fit_curves(several(7), least=1)


@pytest.mark.parametrize(
    ("content", "name", "sentence"),
    [
        ("group,rate\na,1\n", "points.csv", "loss missing"),
        ("group,rate,loss\na,1,0.2\nb,2,\n", "points.csv", "1 of 2 values in column 'loss'"),
        ("group,rate,loss\na,1,0.2\n", "points.csv", "at least two groups"),
        (
            "group,rate,loss\na,1,0.2\n,2,0.3\n",
            "points.csv",
            "1 of 2 values in column 'group' are not names of groups, the first is ''",
        ),
        (
            "network,group,rate,loss\nn,a,1,0.2\n,b,2,0.3\n",
            "points.csv",
            "1 of 2 values in column 'network' are not names of networks",
        ),
        ("run,group,rate,loss\nn,a,1,0.2\n,b,2,0.3\n", "points.csv", "1 of 2 values in column 'run' are not names of runs"),
        (
            "test_loss_pp,group,rate,loss\nx,a,1,0.2\n2,b,2,0.3\n",
            "points.csv",
            "1 of 2 values in column 'test_loss_pp' are not finite",
        ),
        (
            "group,rate,loss\na,1,0.2\nb,NA,0.3\n",
            "points.csv",
            "1 of 2 values in column 'rate' are not finite numbers, the first is 'NA'",
        ),
        ("", "points.csv", "is not a readable table"),
        ("not parquet", "points.parquet", "is not a readable table"),
        ("a", "points.xlsx", "unknown kind of table file '.xlsx'; allowed: .parquet, .csv"),
    ],
)
def test_files_that_cannot_answer_are_refused_in_one_sentence(content, name, sentence, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(sentence)):
        analysis.read_points(tmp_path / name)


@pytest.mark.parametrize("names", [["C", "I", "Q"], ["np", "rate_name", "network_"], ["loss_pp", "data", "published"]])
def test_columns_of_any_name_do_no_harm(names, points, tmp_path):
    """A formula knows functions called C, I and Q; a column of that name must not take their place."""
    points.assign(**dict.fromkeys(names, 1.5)).to_csv(tmp_path / "points.csv", index=False)
    without = analysis.fit_curves(points)
    for table in (analysis.read_points(tmp_path / "points.csv"), points.assign(**dict.fromkeys(names, 1.5))):
        fit = analysis.fit_curves(table)
        assert fit.params.to_numpy() == pytest.approx(without.params.to_numpy())
        tests = [analysis.sequential_test, analysis.common_curve_test, analysis.heteroscedasticity_test]
        assert all(test(fit)["p"].to_numpy() == pytest.approx(test(without)["p"].to_numpy()) for test in tests)


@pytest.mark.parametrize("names", [["08", "8", "16"], ["None", "NA", "null"], [1, 2, 3], [1.0, 1.5, 2.0], ["true", "1e3", "nan"]])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_names_of_groups_and_networks_are_text_as_written(names, kind, points, tmp_path):
    renamed = points.assign(group=points["group"].map(dict(zip(KNOWN, names, strict=True))), network=names[0], run=names[1])
    renamed.to_csv(tmp_path / "points.csv", index=False) if kind == "csv" else renamed.to_parquet(tmp_path / "points.parquet")
    table = analysis.read_points(tmp_path / f"points.{kind}")
    assert set(table["group"]) == set(map(str, names)) and set(table["network"]) == {str(names[0])} and len(table) == len(points)
    fitted = analysis.coefficients(analysis.fit_curves(table)).set_index(["group", "parameter"])["coefficient"]
    own = analysis.coefficients(analysis.fit_curves(points)).set_index(["group", "parameter"])["coefficient"]
    for group, name in zip(KNOWN, names, strict=True):
        assert fitted[str(name)].to_dict() == pytest.approx(own[group].to_dict())


def test_a_network_with_one_group_is_left_out_with_a_sentence(points, tmp_path):
    alone = points[points["group"] == "float32"].assign(network="second")
    pd.concat([points.assign(network="first"), alone]).assign(run=range(len(points) + len(alone))).to_csv(tmp_path / "points.csv")
    table = analysis.read_points(tmp_path / "points.csv")
    fits, summary = analysis.fit_sets(analysis.point_sets(table, "group", ["rate"]))
    assert ("first", "rate", "all") in fits and {network for network, *_ in fits} == {"first"}
    outcomes = summary.set_index(["network", "data"])["outcome"]
    assert "needs at least two groups in column 'group', got ['float32']" in outcomes["second", "all"]
    compared, refused = analysis.compare_sets(analysis.rates_of_runs(table, "group", ["rate"]))
    assert set(compared) == {("first", "rate")} and len(refused) == 1
    assert refused[0].startswith("second is left out of the comparison of runs: ") and "got ['float32']" in refused[0]


def test_a_relative_path_means_the_working_directory(points, tmp_path, monkeypatch):
    points.to_csv(tmp_path / "mine.csv", index=False)
    monkeypatch.chdir(tmp_path)
    assert len(analysis.read_points("mine.csv")) == len(points)


@pytest.mark.parametrize(("count", "said", "drawn"), [(220, "220 points", 220), (20000, "20000 points, 1 of 10 drawn", 2000)])
def test_curves_lie_over_points_and_many_points_are_thinned_and_said(count, said, drawn, points):
    """Every stroke of a curve lies over every dot, whichever group is drawn last."""
    table = points.sample(count, replace=count > len(points), random_state=1).assign(network="n", rate_name="rate", data="all")
    fits, _ = analysis.fit_sets(table)
    ax = figures.quadratic_curves(table, analysis.of_sets(analysis.fitted_curves, fits)).axes[0]
    dots = [line for line in ax.lines if line.get_linestyle() == "None" and len(line.get_xdata())]
    curves = [line for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xdata())]
    assert len(dots) == 3 and len(curves) >= 3
    assert max(line.get_zorder() for line in dots) < min(line.get_zorder() for line in curves)
    assert ax.get_legend().get_title().get_text() == said
    assert abs(sum(len(line.get_xdata()) for line in dots) - drawn) <= 2
    left = figures.residuals(analysis.of_sets(analysis.residuals, fits)).axes[0]
    assert left.get_legend().get_title().get_text() == said


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="none.csv is not a readable table"):
        analysis.read_points(tmp_path / "none.csv")
    with pytest.raises(UserError, match="run `make experiment NB=04_quantization PROFILE=smoke` first"):
        analysis.read_output(tmp_path / "smoke", "04_quantization", "records")


def test_published_curves_of_k_means_and_gmm_cross_where_the_text_says():
    """Section 5.6: K-Means better at low rates, GMM above about 16; only with the nets of table B.3 the right way round."""
    table = analysis.published_coefficients("table_B_3_regression_clustering").rename(columns={"published": "coefficient"})
    crossings = analysis.crossings(table[table["network"] == "lenet5_tanh"], "kmeans", "gmm")
    assert crossings == pytest.approx([2.88, 16.10], abs=0.01)
    other = analysis.crossings(table[table["network"] == "lenet5_relu"], "kmeans", "gmm")
    assert not [rate for rate in other if 15 < rate < 17]
    with pytest.raises(UserError, match="unknown group 'kmean'"):
        analysis.crossings(table[table["network"] == "lenet5_tanh"], "kmean", "gmm")


TIED = pd.DataFrame(
    [(9.0, 0.8), (8.0, 0.8), (8.0, 0.5), (8.0, 0.7), (7.0, 0.6), (6.0, 0.5), (6.0, 0.5), (5.0, 0.2), (4.0, 0.3), (3.0, 0.2)],
    columns=["rate", "loss_pp"],
)


def test_the_thesis_front_keeps_ties_and_the_strict_one_does_not():
    """By descending rate, equal rates as given, what loses at most the least so far: the order of equal rates decides about (8, 0.7)."""
    kept = [tuple(row) for row in analysis.front(TIED, kind="thesis").to_numpy()]
    assert kept == [(3, 0.2), (5, 0.2), (6, 0.5), (6, 0.5), (8, 0.8), (8, 0.5), (9, 0.8)]
    other = analysis.front(TIED.iloc[[0, 3, 1, 2, *range(4, 10)]], kind="thesis")
    assert [tuple(row) for row in other.to_numpy()] == [(3, 0.2), (5, 0.2), (6, 0.5), (6, 0.5), (8, 0.7), (8, 0.5), (9, 0.8)]
    assert [tuple(row) for row in analysis.front(TIED).to_numpy()] == [(5, 0.2), (8, 0.5), (9, 0.8)]
    with pytest.raises(UserError, match="unknown kind of front 'loose'; allowed: strict, thesis"):
        analysis.front(TIED, kind="loose")


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5)), min_size=1, max_size=25))
def test_the_thesis_front_follows_its_rule(pairs):
    """Against the rule taken word by word; no point of the strict front is wanting."""
    points = pd.DataFrame(pairs, columns=["rate", "loss_pp"])
    least, kept = np.inf, []
    for index in sorted(points.index, key=lambda index: (-points["rate"][index], index)):
        if points["loss_pp"][index] <= least:
            least = points["loss_pp"][index]
            kept.append(index)
    found = analysis.front(points, kind="thesis")
    assert sorted(found.index) == sorted(kept) and found["rate"].is_monotonic_increasing
    pairs_of = [set(zip(table["rate"], table["loss_pp"], strict=True)) for table in (analysis.front(points), found)]
    assert pairs_of[0] <= pairs_of[1]


def test_printed_rows_lie_where_the_order_of_ties_allows(published):
    """Of the thesis's own points the front with ties holds 24; table B.2 prints the curve through them without two of the tied ones.

    The thesis's program sorted by loss with an unstable sort, so of points of equal loss it kept all or dropped some.
    """
    log = published("log_relu_float8").rename(columns={"layer_mean_rate": "rate"})
    kept, strict = analysis.front(log, kind="thesis"), analysis.front(log)
    assert (len(kept), len(strict)) == (24, 20)
    printed = analysis.published_coefficients("table_B_2_regression_quantization").set_index(
        ["network", "data", "group", "parameter"]
    )
    printed = (
        printed.sort_index().loc[("lenet5_relu", "Pareto", "float8_thesis"), "published"][["x^2", "x", "intercept"]].to_numpy()
    )
    ties = [list(rows.index) for _, rows in kept.groupby("loss_pp") if len(rows) > 1]
    assert [len(rows) for rows in ties] == [2] * 4
    curves = [
        np.polyfit(*kept.drop(index=[row for row in dropped if row is not None])[["rate", "loss_pp"]].to_numpy().T, 2)
        for dropped in product(*([None, *rows] for rows in ties))
    ]
    assert (np.min(curves, axis=0) < printed).all() and (printed < np.max(curves, axis=0)).all()
    assert min(np.abs(curve - printed).max() for curve in curves) < 5e-7  # one of them is the printed one, to its last digit
    assert np.abs(np.polyfit(strict["rate"], strict["loss_pp"], 2) - printed).max() > 0.05


def test_sets_of_points_take_the_front_and_the_limit_asked_for():
    """Of run c the plan of 1 pp counts where the limit is included, and dominates none, but is dominated by none."""
    tied = records(loss_pp=[0.2, 0.2, 0.4, 0.6, 0.3, 1.0, 0.9])
    sizes = {
        (kind, limit): analysis.point_sets(tied, "format", ["layer_mean_rate"], kind, limit).groupby("data").size().to_dict()
        for kind in ("strict", "thesis") for limit in ("below", "included")
    }  # fmt: skip
    assert {key: size["all"] for key, size in sizes.items()} == {
        ("strict", "below"): 4, ("thesis", "below"): 5, ("strict", "included"): 5, ("thesis", "included"): 6,
    }  # fmt: skip
    assert sizes["thesis", "below"]["Pareto"] == 3 and sizes["strict", "below"]["Pareto"] == 2
    with pytest.raises(UserError, match="unknown limit of the loss 'over'; allowed: below, included"):
        analysis.point_sets(tied, "format", ["layer_mean_rate"], limit="over")


def test_printed_rows_say_which_front_they_were_fitted_to():
    quantization, clustering = (
        analysis.published_coefficients(table)
        for table in ("table_B_2_regression_quantization", "table_B_3_regression_clustering")
    )
    assert set(clustering["published_front"]) == {"with ties of each group; loss <= 1 pp"}
    assert quantization.groupby("data")["published_front"].unique().map(list).to_dict() == {
        "all": ["with ties of each run; loss < 1 pp"], "Pareto": ["with ties of each group; loss < 1 pp"],
    }  # fmt: skip


def test_given_points_have_the_rate_that_they_are_said_to_have(points, tmp_path):
    points.to_csv(tmp_path / "points.csv", index=False)
    table = analysis.read_points(tmp_path / "points.csv", "layer_mean_rate")
    assert set(analysis.point_sets(table, "group", ["layer_mean_rate"])["rate_name"]) == {"layer_mean_rate"}
    with pytest.raises(UserError, match="unknown rate of given records 'mean'; allowed: rate, layer_mean_rate, storage_rate"):
        analysis.read_points(tmp_path / "points.csv", "mean")


@pytest.mark.parametrize(
    ("network", "points", "f", "p"), [("lenet5_relu", 1203, 204.6, 2e-179), ("lenet5_tanh", 1622, 5.9, 4e-6)]
)
def test_degrees_of_freedom_are_those_of_the_published_points(network, points, f, p):
    """With as many points as the thesis had, our test has the degrees of freedom at which its F gives the known p."""
    table = analysis.published_coefficients("table_B_2_regression_quantization")
    table = table[(table["network"] == network) & (table["data"] == "all")].pivot(
        index="group", columns="parameter", values="published"
    )
    rng = np.random.default_rng(2)
    group = rng.choice(table.index, points)
    rate = rng.uniform(5, 14, points)
    curves = table.loc[group]
    loss = curves["intercept"].to_numpy() + curves["x"].to_numpy() * rate + curves["x^2"].to_numpy() * rate**2
    fit = analysis.fit_curves(pd.DataFrame({"group": group, "rate": rate, "loss": loss + rng.normal(0, 0.2, points)}))
    test = analysis.common_curve_test(fit).iloc[0]
    assert stats.f.sf(f, test["df"], test["residual_df"]) == pytest.approx(p, rel=0.5)
    assert set(analysis.sequential_test(fit)["residual_df"]) == {points - 9}


def records(**columns):
    table = pd.DataFrame({
        "network": "lenet5_tanh", "format": ["float32"] * 4 + ["float16"] * 3, "run": ["a"] * 2 + ["b"] * 2 + ["c"] * 3,
        "layer_mean_rate": [10.0, 12, 11, 12, 13, 14, 9], "loss_pp": [0.2, 0.5, 0.4, 0.6, 0.3, 1.0, 0.9],
        "test_loss_pp": [0.3, 1.2, 0.1, 0.5, 0.4, 0.2, 0.9],
    })  # fmt: skip
    return table.assign(**columns)


def test_points_are_the_fronts_of_runs_and_pareto_points_the_fronts_of_groups():
    """Of run c only (13, 0.3) is left: 1.0 is not below 1, (9, 0.9) is dominated. (12, 0.6) of run b falls to (12, 0.5) of run a."""
    sets = analysis.point_sets(records(), "format", ["layer_mean_rate"])
    rows = {name: set(zip(points["rate"], points["loss"], strict=True)) for name, points in sets.groupby("data")}
    assert rows["all"] == {(10, 0.2), (12, 0.5), (11, 0.4), (12, 0.6), (13, 0.3)}
    assert rows["Pareto"] == {(10, 0.2), (11, 0.4), (12, 0.5), (13, 0.3)}
    assert rows["all, loss on test"] == {(10, 0.3), (12, 1.2), (11, 0.1), (12, 0.5), (13, 0.4)}
    assert set(sets["network"]) == {"lenet5_tanh"} and set(sets["rate_name"]) == {"layer_mean_rate"}


def test_points_given_from_outside_are_all_kept(tmp_path):
    several(30).to_csv(tmp_path / "points.csv", index=False)
    sets = analysis.point_sets(analysis.read_points(tmp_path / "points.csv"), "group", ["rate"])
    assert sets.groupby("data").size()["all"] == 30 and set(sets["network"]) == {"given records"}


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (records().drop(columns="run"), "unknown column 'run'"),
        (records(loss_pp=np.nan), "7 of 7 values in column 'loss_pp' are not known"),
        (records(loss_pp=1.0), "none of 7 plans loses less than 1 pp"),
    ],
)
def test_records_without_points_are_refused(table, sentence):
    with pytest.raises(UserError, match=sentence):
        analysis.points_of_runs(table, "format", "layer_mean_rate")


def test_a_run_without_an_acceptable_plan_counts_as_rate_one():
    table = analysis.best_rates(records(loss_pp=[0.2, 0.5, 0.4, 0.6, 1.3, 1.0, 2.9]), ["format"], "layer_mean_rate")
    assert table.set_index("run")["layer_mean_rate"].to_dict() == {"a": 12, "b": 12, "c": 1}
