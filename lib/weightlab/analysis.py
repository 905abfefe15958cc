"""Questions to records: DataFrame in, DataFrame out. Losses are in percentage points (pp), rates dimensionless."""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from weightlab import paths
from weightlab.errors import UserError, choose

ACCEPTABLE_LOSS_PP = 1.0  # strictly below (section 5)

_PUBLISHED_NAMES = {  # as printed -> as named here
    "Tanh": "lenet5_tanh", "ReLU": "lenet5_relu", "float8": "float8_thesis",
    "RND": "random", "GA": "genetic", "PSO": "particle_swarm", "BH": "black_hole",
}  # fmt: skip
_PUBLISHED_COLUMNS = {"net": "network", "quantization": "format", "optimizer": "search", "algorithm": "search", "clusters": "k"}


def published(table: str) -> pd.DataFrame:
    """A table of `published/` (the thesis's printed figures), with networks, formats and searches under the names used here."""
    choose("published table", table, sorted(file.stem for file in paths.published().glob("*.csv")))
    return pd.read_csv(paths.published() / f"{table}.csv").rename(columns=_PUBLISHED_COLUMNS).replace(_PUBLISHED_NAMES)


def acceptable(records: pd.DataFrame, loss: str = "loss_pp") -> pd.DataFrame:
    """The rows whose loss is strictly below 1 pp, judged on the split that chose them (or on column `loss`)."""
    return records[records[loss] < ACCEPTABLE_LOSS_PP]


def best(records: pd.DataFrame, by: list[str], highest: str) -> pd.DataFrame:
    """Of each group `by`, the acceptable row with the highest value of column `highest` (the first of equals).

    Groups without an acceptable row stay, with missing values, so that they are counted.
    """
    groups = records[by].drop_duplicates()
    chosen = acceptable(records).sort_values(highest, ascending=False, kind="stable").drop_duplicates(by)
    return groups.merge(chosen, on=by, how="left", validate="one_to_one")


def front(points: pd.DataFrame, loss: str = "loss_pp", rate: str = "rate") -> pd.DataFrame:
    """The non-dominated rows (lower loss, higher rate) after dropping duplicates, by ascending rate."""
    ordered = points.drop_duplicates([loss, rate]).sort_values([rate, loss], ascending=[False, True], kind="stable")
    lowest = ordered[loss].cummin()
    keep = (ordered[loss] == lowest) & ~lowest.duplicated()
    return ordered[keep].iloc[::-1]


def best_so_far(records: pd.DataFrame, column: str = "fitness") -> pd.DataFrame:
    """Records ordered by run and evaluation, with a column `best` = highest `column` of the run up to there."""
    ordered = records.sort_values(["run", "evaluation"], kind="stable")
    return ordered.assign(best=ordered.groupby("run")[column].cummax())


def compare_runs(runs: pd.DataFrame, group: str, value: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Do independent runs of several groups differ in `value`? A row per group, and a row per pair of groups.

    Groups: n, median, quartiles. Pairs: two-sided Mann-Whitney test (U, p, p corrected after Holm 1979) and the effect
    P(X > Y) + P(X = Y)/2. The Kruskal-Wallis test over all groups is in the first table's attrs (`kruskal_h`, `kruskal_p`).
    Raises `UserError` for a missing column, missing values or fewer than two groups.
    """
    for column in (group, value):
        choose("column", column, list(runs.columns))
    if runs[value].isna().any():
        raise UserError(
            f"{runs[value].isna().sum()} of {len(runs)} values in column {value!r} are missing; fill or drop them first"
        )
    samples = {name: rows[value].to_numpy() for name, rows in runs.groupby(group, sort=True)}
    if len(samples) < 2:
        raise UserError(f"a comparison needs at least two groups in column {group!r}, got {list(samples)}")
    groups = runs.groupby(group)[value].describe()[["count", "50%", "25%", "75%"]]
    groups.columns = ["n", "median", "lower_quartile", "upper_quartile"]
    alike = len(np.unique(np.concatenate(list(samples.values())))) == 1
    h, p = (0.0, 1.0) if alike else stats.kruskal(*samples.values())
    groups.attrs |= {"kruskal_h": float(h), "kruskal_p": float(p)}
    rows = []
    for a, b in combinations(samples, 2):
        u, p = stats.mannwhitneyu(samples[a], samples[b], alternative="two-sided")
        rows.append({"a": a, "b": b, "u": u, "p": p, "effect": u / (len(samples[a]) * len(samples[b]))})
    pairs = pd.DataFrame(rows)
    pairs.insert(4, "p_holm", multipletests(pairs["p"], method="holm")[1])
    return groups.astype({"n": int}), pairs
