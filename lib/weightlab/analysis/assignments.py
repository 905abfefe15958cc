"""Assignments of multipliers to convolutions: standard errors, pairs of networks, what settings of a search do."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from weightlab.analysis.findings import need
from weightlab.errors import UserError


def standard_error_pp(accuracy: float | pd.Series, images: int | pd.Series) -> float | pd.Series:
    """Standard error of an accuracy (fraction) on so many images, in percentage points.

    >>> round(standard_error_pp(0.707, 500), 2)
    2.04
    """
    return 100 * (accuracy * (1 - accuracy) / images) ** 0.5


def mcnemar_p(lost: int, gained: int) -> float:
    """Exact p that two networks are equally often right, given the images that only the first and only the second gets right.

    McNemar 1947; binomial, two-sided.

    >>> mcnemar_p(5, 5), mcnemar_p(0, 0), round(mcnemar_p(10, 1), 4)
    (1.0, 1.0, 0.0117)
    """
    return float(stats.binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0


def with_errors(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with energy and saved energy in percent, standard errors of its accuracies, and McNemar's p of its pairs on test."""
    more = {"energy_pct": 100 * table["energy"], "saved_pct": 100 * (1 - table["energy"])}
    for split in ("validation", "test"):
        more[f"{split}_se_pp"] = standard_error_pp(table[f"{split}_accuracy"], table[f"{split}_images"])
    pairs = zip(table["test_lost"], table["test_gained"], strict=True)
    more["mcnemar_p"] = [mcnemar_p(int(lost), int(gained)) for lost, gained in pairs]
    return table.assign(**more)


def shares_of_settings(runs: pd.DataFrame, column: str, settings: Sequence[str]) -> pd.Series:
    """The share of a column's variance between runs that each setting explains, by setting: omega squared, main effects only.

    (SS - df·MSE) / (SST + MSE) of an analysis of variance of type II (Hays 1963): about 0, and perhaps below, where a setting does nothing,
    however many values it has. Raises `UserError` for a setting with one value.
    """
    need(runs, column, *settings)
    if alone := [name for name in settings if runs[name].nunique() < 2]:
        raise UserError(f"a setting explains variance only if it has several values, and {', '.join(alone)} has one")
    frame = pd.DataFrame({f"s{place}": runs[name].astype(str) for place, name in enumerate(settings)})
    frame["value"] = runs[column].astype(float)
    if not frame["value"].var() > 0:
        raise UserError(f"all runs have the same {column}, so nothing explains its variance")
    fit = ols("value ~ " + " + ".join(f"C(s{place})" for place in range(len(settings))), frame).fit()
    table, error = anova_lm(fit, typ=2).iloc[: len(settings)], float(fit.mse_resid)
    total = float(((frame["value"] - frame["value"].mean()) ** 2).sum())
    return pd.Series(((table["sum_sq"] - table["df"] * error) / (total + error)).to_numpy(), index=list(settings))


def influence_of_settings(runs: pd.DataFrame, measures: Sequence[str], settings: Sequence[str]) -> pd.DataFrame:
    """`shares_of_settings` of each measure and order: columns network, measure, order, setting and share.

    A setting with one value, and a measure that does not vary, are left out.
    """
    varied = [name for name in settings if runs[name].nunique() > 1]
    rows = []
    for (network, order), part in runs.groupby(["network", "order"], sort=False):
        for measure in measures:
            if varied and part[measure].nunique() > 1:
                shares = shares_of_settings(part, measure, varied)
                rows += [(network, measure, order, name, share) for name, share in shares.items()]
    return pd.DataFrame(rows, columns=["network", "measure", "order", "setting", "share"])


def quality_of_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds of the hypervolume ratio and the size of the front, a row per network, order, search and run."""
    measures = ["hypervolume_ratio", "final_front", "front_size", "usable", "distinct"]
    by = ["network", "run", "order", "search"]
    grouped = runs.groupby(by, sort=False)
    table = grouped[measures].mean().join(grouped[measures].std().add_suffix("_sd"))
    return table.assign(evaluations=grouped["evaluations"].first(), n=grouped.size()).reset_index()


def gap_to_random(runs: pd.DataFrame) -> pd.DataFrame:
    """By network, run and order: hypervolume ratio of NSGA-II less that of random search at equal evaluations, and p (Mann-Whitney).

    Random search has no order: the same runs stand beside each.
    """
    rows = []
    for (network, run), part in runs.groupby(["network", "run"], sort=False):
        chance = part.loc[part["search"] == "random", "hypervolume_ratio"]
        for (order, search), own in part[part["search"] != "random"].groupby(["order", "search"], sort=False):
            values = own["hypervolume_ratio"]
            p = stats.mannwhitneyu(values, chance).pvalue if len(values) and len(chance) else np.nan
            gap = values.mean() - chance.mean()
            rows.append(
                {"network": network, "run": run, "order": order, "search": search, "gap": gap, "p": float(p), "n": len(values)}
            )
    return pd.DataFrame(rows)
