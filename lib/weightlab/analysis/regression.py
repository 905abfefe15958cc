"""Loss as a quadratic curve of the rate, one per group, and tests of the curves (section 5.4, tables B.2 and B.3).

The thesis's "ANOVA p" answers whether the coefficients of a term are all zero; whether groups differ is another test.
"""

from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from numpy.typing import ArrayLike
from scipy import stats
from statsmodels.regression.linear_model import RegressionResults
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.diagnostic import het_breuschpagan

from weightlab.analysis.records import POINTS, check_points, published
from weightlab.errors import UserError

ONE_CURVE_PER_GROUP = "loss ~ 0 + C(group) + C(group):rate + C(group):I(rate**2)"
ONE_COMMON_CURVE = "loss ~ rate + I(rate**2)"
PARAMETERS = ("intercept", "x", "x^2")  # a, b and c of loss = a + b·rate + c·rate², as tables B.2 and B.3 name them
LEAST_POINTS = 12  # a group
WORST_CONDITION = 1e10  # of the terms of the model: beyond it rounding errors reach the printed digits of coefficients and tests
SET = ["network", "rate_name", "data"]  # columns that identify a set of points


def fit_curves(points: pd.DataFrame, least: int = LEAST_POINTS) -> RegressionResults:
    """Ordinary least squares of `ONE_CURVE_PER_GROUP` on columns group, rate and loss (pp): three coefficients a group.

    Raises `UserError` if `check_points` does, or if a group has fewer than `least` points, fewer than four different rates
    (three make any curve fit), rates so large or so close together that rounding errors would decide, or if the curves leave no
    residual to test with.
    """
    points = check_points(points[[column for column in POINTS if column in points]])  # a formula could refer to any other column
    least = max(least, len(PARAMETERS) + 1)
    for name, rows in points.groupby("group"):
        if len(rows) < least:
            raise UserError(
                f"group {name!r} has {len(rows)} points; a curve of {len(PARAMETERS)} coefficients needs at least {least}"
            )
        if rows["rate"].nunique() <= len(PARAMETERS):
            raise UserError(
                f"group {name!r} has {rows['rate'].nunique()} different rates; "
                f"a curve of {len(PARAMETERS)} coefficients needs at least {len(PARAMETERS) + 1}"
            )
    _refuse_unstable(points)
    fit = smf.ols(ONE_CURVE_PER_GROUP, points.assign(name=points["group"], group=_codes(points["group"]))).fit()
    if fit.ssr <= 1e-20 * (points["loss"] ** 2).sum():
        raise UserError("the curves pass through every point, so there is no scatter to test their differences against")
    return fit


def _refuse_unstable(points: pd.DataFrame) -> None:
    """Raise `UserError` where the terms 1, rate and rate² of all groups cannot be told apart in double precision."""
    largest = 1e100  # whose square is still a number
    powers = {name: np.vander(rows["rate"].clip(-largest, largest), len(PARAMETERS)) for name, rows in points.groupby("group")}
    scales = [np.linalg.svd(matrix, compute_uv=False) for matrix in powers.values()]
    if max(each.max() for each in scales) > WORST_CONDITION * min(each.min() for each in scales):
        name = max(powers, key=lambda group: np.linalg.cond(powers[group]))
        rates = points.loc[points["group"] == name, "rate"]
        raise UserError(
            f"the rates of group {name!r} run from {rates.min():.10g} to {rates.max():.10g}, too large or too close together for a "
            "curve through them to be computed"
        )


def fit_sets(sets: pd.DataFrame, least: int = LEAST_POINTS) -> tuple[dict[tuple, RegressionResults], pd.DataFrame]:
    """`fit_curves` for each network, rate and kind of data of `point_sets`; the second table has the outcome of each set.

    Raises `UserError` with the first reason if no set can be fitted.
    """
    fits, rows = {}, []
    for key, points in sets.groupby(SET, sort=False):
        try:
            fits[key] = fit_curves(points, least)
            outcome = "fitted"
        except UserError as error:
            outcome = f"could not be fitted because {error}"
        rows.append([*key, len(points), outcome])
    summary = pd.DataFrame(rows, columns=[*SET, "points", "outcome"])
    if not fits:
        raise UserError(f"none of {len(summary)} sets of points can be fitted; the first {summary['outcome'].iloc[0]}")
    return fits, summary


def of_sets(function: Callable[[RegressionResults], pd.DataFrame], fits: dict[tuple, RegressionResults]) -> pd.DataFrame:
    """The tables that `function` makes of each fit, one below the other, with columns network, rate_name and data before them."""
    return pd.concat({key: function(fit) for key, fit in fits.items()}, names=SET).reset_index(level=SET).reset_index(drop=True)


def coefficients(fit: RegressionResults) -> pd.DataFrame:
    """A row per coefficient: group, parameter, coefficient, se and p (t test of zero), robust_se and robust_p (HC3).

    Robust values are missing where the curve of a group passes through all its points: its own errors would be zero.
    """
    robust, known = _robust(fit)
    rows = pd.DataFrame(list(product(PARAMETERS, _groups(fit))), columns=["parameter", "group"])
    return rows.assign(
        coefficient=fit.params.to_numpy(),
        se=fit.bse.to_numpy(),
        p=fit.pvalues.to_numpy(),
        robust_se=known * robust.bse.to_numpy(),
        robust_p=known * robust.pvalues.to_numpy(),
    )


def sequential_test(fit: RegressionResults) -> pd.DataFrame:
    """The F test printed as "ANOVA" in tables B.2 and B.3: `anova_lm(fit, typ=1)`, which adds one term after the other.

    It tests whether the coefficients of a term are zero in all groups. It does not compare groups.
    """
    table = anova_lm(fit, typ=1).drop(index="Residual")
    return _tests(
        "sequential F (the thesis's ANOVA)",
        [f"{parameter} is zero in every group" for parameter in PARAMETERS],
        table["F"], table["df"], fit.df_resid, table["PR(>F)"],
    )  # fmt: skip


def common_curve_test(fit: RegressionResults) -> pd.DataFrame:
    """Do the groups differ? F test of `ONE_COMMON_CURVE` against `ONE_CURVE_PER_GROUP`, and its Wald form with HC3 errors.

    The robust form is valid where residuals scatter unequally, but finds too many differences where a group has few points; it is
    missing where the curve of a group passes through all its points.
    """
    common = smf.ols(ONE_COMMON_CURVE, _points(fit)).fit()
    f, p, df = fit.compare_f_test(common)
    groups = len(_groups(fit))
    differences = np.eye(groups)[1:] - np.eye(groups)[0]  # of every group from the first, (groups - 1, groups)
    robust, known = _robust(fit)
    wald = robust.f_test(np.kron(np.eye(len(PARAMETERS)), differences))
    hypothesis = ["one curve describes all groups"]
    return pd.concat(
        [
            _tests("one common curve against one per group, F", hypothesis, [f], [df], fit.df_resid, [p]),
            _tests("one common curve against one per group, robust F (HC3)", hypothesis, [known * float(wald.fvalue)], [df],
                   fit.df_resid, [known * float(wald.pvalue)]),
        ],
        ignore_index=True,
    )  # fmt: skip


def heteroscedasticity_test(fit: RegressionResults) -> pd.DataFrame:
    """Breusch-Pagan test (F form) of residuals whose variance is a linear function of the model's terms."""
    _, _, f, p = het_breuschpagan(fit.resid, np.column_stack([np.ones(int(fit.nobs)), fit.model.exog[:, 1:]]))
    hypothesis = ["residuals scatter alike at every rate and in every group"]
    return _tests("Breusch-Pagan F", hypothesis, [f], [fit.model.exog.shape[1] - 1], fit.df_resid, [p])


def fitted_curves(fit: RegressionResults, steps: int = 100) -> pd.DataFrame:
    """Each group's curve over its own rates: columns group, rate, loss, lower and upper (pointwise 95 % interval, HC3).

    The interval is missing where the curve of a group passes through all its points.
    """
    spans = _points(fit).groupby("group")["rate"].agg(["min", "max"])
    grids = [pd.DataFrame({"group": name, "rate": np.linspace(low, high, steps)}) for name, low, high in spans.itertuples()]
    grid = pd.concat(grids, ignore_index=True)
    robust, known = _robust(fit)
    band = robust.get_prediction(grid.assign(group=_codes(grid["group"]))).summary_frame()
    return grid.assign(loss=band["mean"], lower=known * band["mean_ci_lower"], upper=known * band["mean_ci_upper"])


def at_common_rate(curves: pd.DataFrame) -> tuple[float, pd.Series]:
    """The highest rate that all groups of `fitted_curves` reach, and each group's loss there (NaN if its curve starts above it)."""
    rate = float(curves.groupby("group")["rate"].max().min())
    losses = {name: np.interp(rate, rows["rate"], rows["loss"], left=np.nan) for name, rows in curves.groupby("group")}
    return rate, pd.Series(losses, name="loss")


def residuals(fit: RegressionResults) -> pd.DataFrame:
    """A row per point: group, rate, loss, fitted, residual (pp), studentized, and the normal quantile of its rank."""
    studentized = fit.get_influence().resid_studentized_internal
    quantile = stats.norm.ppf((stats.rankdata(studentized, method="ordinal") - 0.5) / len(studentized))
    points = _points(fit)
    return points.assign(fitted=fit.fittedvalues, residual=fit.resid, studentized=studentized, quantile=quantile)


def crossings(curves: pd.DataFrame, a: str, b: str) -> list[float]:
    """The rates at which the curves of two groups cross, ascending; `curves` has columns group, parameter and coefficient."""
    table = curves.pivot(index="parameter", columns="group", values="coefficient")
    for group in (a, b):
        if group not in table:
            raise UserError(f"unknown group {group!r}; allowed: {', '.join(map(str, table.columns))}")
    roots = np.roots((table[a] - table[b])[list(PARAMETERS[::-1])])
    return sorted(float(root.real) for root in roots if abs(root.imag) < 1e-9)


def crossings_within(coefficients: pd.DataFrame, curves: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """Where the curves of two groups cross, for each set of points that has both.

    Columns network, rate_name, data, from_rate and to_rate (the rates that both groups reach), crossings (lists of rates in between)
    and published_crossings (of all printed coefficients in column `published`, an empty list where they are not printed).
    """
    rows = []
    for key, own in coefficients[coefficients["group"].isin([a, b])].groupby(SET, sort=False):
        if own["group"].nunique() < 2:
            continue
        reached = curves[(curves[SET] == list(key)).all(axis=1) & curves["group"].isin([a, b])].groupby("group")["rate"]
        low, high = reached.min().max(), reached.max().min()
        theirs = crossings(own.assign(coefficient=own["published"]), a, b) if own["published"].notna().all() else []
        rows.append([*key, low, high, [rate for rate in crossings(own, a, b) if low <= rate <= high], theirs])
    return pd.DataFrame(rows, columns=[*SET, "from_rate", "to_rate", "crossings", "published_crossings"])


def published_coefficients(table: str) -> pd.DataFrame:
    """Table B.2 or B.3 under the names used here: network, rate_name, data, group, parameter, published, published_p (text, as printed).

    `published_front` says which points they were fitted to. Table B.3 prints the two networks swapped; here they are in the right place,
    as a refit of the thesis's own points shows.
    """
    printed = published(table).rename(
        columns={"coefficient_pp": "published", "anova_p": "published_p", "front": "published_front"}
    )
    clusterings = {"K-Means": "kmeans", "Mini-Batch K-Means": "minibatch", "GMM": "gmm"}
    columns = ["network", "data", "group", "parameter", "published", "published_p", "published_front"]
    return printed[columns].replace({"group": clusterings}).assign(rate_name="layer_mean_rate")


def _robust(fit: RegressionResults) -> tuple[RegressionResults, float]:
    """The same fit with errors that hold when residuals scatter unequally (HC3); and 1, or NaN if a group has no scatter at all."""
    left = (fit.resid**2).groupby(_points(fit)["group"]).sum()
    return fit.model.fit(cov_type="HC3", use_t=True), 1.0 if left.min() > 1e-20 * fit.ssr else np.nan


def _groups(fit: RegressionResults) -> list:
    return sorted(_points(fit)["group"].unique())


def _points(fit: RegressionResults) -> pd.DataFrame:
    """The points behind a fit: group, rate, loss."""
    frame = fit.model.data.frame
    return frame[["rate", "loss"]].assign(group=frame["name"])[[*POINTS]]


def _codes(groups: pd.Series) -> np.ndarray:
    """Numbers in place of names, because a formula takes a group called nan as missing."""
    return np.unique(groups.astype(str), return_inverse=True)[1]


def _tests(test: str, hypotheses: list[str], f: ArrayLike, df: ArrayLike, residual_df: float, p: ArrayLike) -> pd.DataFrame:
    table = pd.DataFrame({"test": test, "hypothesis": hypotheses, "F": np.asarray(f), "df": np.asarray(df, dtype=int)})
    return table.assign(residual_df=int(residual_df), p=np.asarray(p))
