"""Which quantities correlate with a measured value, and which factors influence it (section 5.5)."""

import warnings

import pandas as pd
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.anova import anova_lm

from weightlab.errors import choose


def correlations(table: pd.DataFrame, by: list[str], predictors: list[str], response: str) -> pd.DataFrame:
    """Pearson's r of every predictor with the response in each group `by`, as the titles of figure 5.12 give it.

    A row per group: the columns of `by`, n (points), and for each predictor its r under its own name and its p (two-sided, of
    r = 0, for independent points) as `<predictor>_p`; missing where either column is constant. Raises `UserError` for an unknown column.
    """
    for column in (*by, *predictors, response):
        choose("column", column, table.columns)
    rows = []
    for group, points in table.groupby(by, sort=False):
        row = dict(zip(by, group, strict=True)) | {"n": len(points)}
        for predictor in predictors:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", stats.ConstantInputWarning)
                correlation = stats.pearsonr(points[predictor], points[response])
            row |= {predictor: correlation.statistic, f"{predictor}_p": correlation.pvalue}
        rows.append(row)
    return pd.DataFrame(rows)


def influence(table: pd.DataFrame, by: list[str], factors: list[str], response: str) -> pd.DataFrame:
    """How much of the variance of the response each factor explains in each group `by` (a full factorial design).

    Analysis of variance of the main effects; every value of a factor is a level. Columns: those of `by`, factor,
    df, f, p, and omega_squared, the share of the variance explained, minus what pure noise with as many levels would explain (it may be
    negative; missing where the response is constant). Raises `UserError` for an unknown column.
    """
    for column in (*by, *factors, response):
        choose("column", column, table.columns)
    rows = []
    for group, points in table.groupby(by, sort=False):
        named = dict(zip(by, group, strict=True))
        data = points.set_axis([f"column_{i}" for i in range(points.shape[1])], axis=1)  # names that a formula can hold
        code = dict(zip(points.columns, data.columns, strict=True))
        if points[response].nunique() == 1:
            rows += [named | {"factor": factor, "df": points[factor].nunique() - 1} for factor in factors]
            continue
        terms = {f"C({code[factor]})": factor for factor in factors}
        squares = anova_lm(smf.ols(f"{code[response]} ~ {' + '.join(terms)}", data).fit(), typ=1)
        noise = squares.loc["Residual", "mean_sq"]
        for term, factor in terms.items():
            row = squares.loc[term]
            explained = (row["sum_sq"] - row["df"] * noise) / (squares["sum_sq"].sum() + noise)
            rows.append(
                named | {"factor": factor, "df": row["df"], "f": row["F"], "p": row["PR(>F)"], "omega_squared": explained}
            )
    return pd.DataFrame(rows).reindex(columns=[*by, "factor", "df", "f", "p", "omega_squared"]).astype({"df": int})


def gains_of_guesses(table: pd.DataFrame, by: list[str], guesses: list[str], response: str) -> pd.DataFrame:
    """The gain in each group `by` from taking, for each of `guesses`, the row with its lowest value instead of the first row.

    A row per group: the columns of `by`, and for each guess the response of that row minus that of the first row, in percentage points
    (the response is a fraction). Column `measuring` is the gain from taking the row with the highest response.
    """
    rows = []
    for group, points in table.groupby(by, sort=False):
        taken = {guess: points.loc[points[guess].idxmin(), response] for guess in guesses} | {"measuring": points[response].max()}
        gains = {name: 100 * (value - points[response].iloc[0]) for name, value in taken.items()}
        rows.append(dict(zip(by, group, strict=True)) | gains)
    return pd.DataFrame(rows)


def gains_by_arm(sweep: pd.DataFrame, tuned: pd.DataFrame) -> pd.DataFrame:
    """How much each way of tuning reduces a plan's loss, in percentage points: gain_pp on the split that chose, and test_gain_pp.

    `sweep` has a row per plan and spread with the losses before and after the grid; `tuned` the rows of one spread, with the losses that
    the swarm reached (swarm_loss_pp, swarm_test_loss_pp). Column arm is "spread 2" or "swarm".
    """
    swarm = tuned.assign(arm="swarm", loss_pp_after=tuned["swarm_loss_pp"], test_loss_pp_after=tuned["swarm_test_loss_pp"])
    arms = pd.concat([sweep.assign(arm="spread " + sweep["spread"].map("{:g}".format)), swarm], ignore_index=True)
    return arms.assign(
        gain_pp=arms["loss_pp_before"] - arms["loss_pp_after"],
        test_gain_pp=arms["test_loss_pp_before"] - arms["test_loss_pp_after"],
    )
