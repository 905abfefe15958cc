"""Statistics of claims about fitted curves: each takes saved points or residuals and returns a `Finding`; n: points of the smallest group.

The curves are those of `regression`, fitted to the points of the named groups only. Other groups have no influence.
"""

import warnings

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.regression.linear_model import RegressionResults

from weightlab.analysis.findings import Finding, fewest, need, pick
from weightlab.analysis.regression import PARAMETERS, coefficients, common_curve_test, fit_curves
from weightlab.errors import UserError

DEGREE = len(PARAMETERS) - 1


def fitted_gap(points: pd.DataFrame, of: str, to: str, at: float | None = None) -> Finding:
    """Loss (pp) on the curve of one group less that of another, at a rate; by default at the highest that both reach."""
    both = [pick(points, {"group": group}) for group in (of, to)]
    at = min(rows["rate"].max() for rows in both) if at is None else at
    gap = float(np.subtract(*(np.polyval(_curve(rows), at) for rows in both)))
    reached = all(rows["rate"].min() <= at <= rows["rate"].max() for rows in both)
    return Finding(gap if reached else np.nan, fewest(points, "group", [of, to]),
                   f"at rate {at:.2f}" if reached else f"the curves do not both reach rate {at:g}")  # fmt: skip


def lowest_fitted_loss(points: pd.DataFrame, group: str) -> Finding:
    """The lowest loss (pp) on a group's curve over its own rates."""
    rows = pick(points, {"group": group})
    rates = np.linspace(rows["rate"].min(), rows["rate"].max(), 100)
    losses = np.polyval(_curve(rows), rates)
    return Finding(float(losses.min()), fewest(points, "group", [group]), f"at rate {rates[losses.argmin()]:.2f}")


def coefficient_p(points: pd.DataFrame, parameter: str, of: list[str], groups: list[str]) -> Finding:
    """The smallest p with which a coefficient of the groups `of` differs from zero (t test) in the model of `groups`."""
    rows = pick(coefficients(_fit(points, groups)), {"parameter": parameter, "group": of})
    note = ", ".join(f"{row.group} {row.p:.2g}" for row in rows.itertuples())
    return Finding(float(rows["p"].min()), fewest(points, "group", of), note)


def curves_differ_p(points: pd.DataFrame, groups: list[str]) -> Finding:
    """p of one common curve against one for each of `groups` (F test)."""
    row = common_curve_test(_fit(points, groups)).iloc[0]
    return Finding(float(row["p"]), fewest(points, "group", groups), f"F({row['df']}, {row['residual_df']}) = {row['F']:.1f}")


def curves_differ_f_ratio(points: pd.DataFrame, groups: list[str], of: dict, to: dict) -> Finding:
    """F of `curves_differ_p` for the rows `of`, divided by F for the rows `to`."""
    sides = [pick(pick(points, where), {"group": groups}) for where in (of, to)]
    values = [_f(rows, groups) for rows in sides]
    return Finding(values[0] / values[1], min(fewest(rows, "group", groups) for rows in sides),
                   f"F = {values[0]:.1f} and {values[1]:.1f}")  # fmt: skip


def scatter_growth_p(residuals: pd.DataFrame) -> Finding:
    """p of a rank correlation between the size of a residual and the rate, 1 if it is not positive; n: points."""
    need(residuals, "residual", "rate")
    rank, p = stats.spearmanr(residuals["residual"].abs(), residuals["rate"])
    return Finding(float(p) if rank > 0 else 1.0, len(residuals), f"rank correlation {rank:+.2f}")


def _fit(points: pd.DataFrame, groups: list[str]) -> RegressionResults:
    return fit_curves(pick(points, {"group": groups}), least=1)


def _curve(points: pd.DataFrame) -> np.ndarray:
    """Coefficients of a curve by least squares, highest power first; `UserError` for too few rates."""
    need(points, "rate", "loss")
    rates, losses = points["rate"].to_numpy(), points["loss"].to_numpy()
    if (different := len(np.unique(rates))) <= len(PARAMETERS):
        raise UserError(f"no curve: {different} different rates, at least {len(PARAMETERS) + 1} are needed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", np.exceptions.RankWarning)
        return np.polyfit(rates, losses, DEGREE)


def _f(points: pd.DataFrame, groups: list[str]) -> float:
    """F of `common_curve_test`, computed without statsmodels, because hundreds of resamples need it."""
    one, each = (
        sum(_squares(rows) for rows in split) for split in ([points], [points[points["group"] == name] for name in groups])
    )
    df = len(points) - len(groups) * len(PARAMETERS)
    return float(((one - each) / ((len(groups) - 1) * len(PARAMETERS))) / (each / df))


def _squares(points: pd.DataFrame) -> float:
    fitted = np.polyval(_curve(points), points["rate"].to_numpy())
    return float(((points["loss"].to_numpy() - fitted) ** 2).sum())
