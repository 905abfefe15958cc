"""Comparisons of independent runs, with one value per run, because the points of one run are not independent."""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from weightlab.errors import UserError, choose


def compare_runs(runs: pd.DataFrame, group: str, value: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Do independent runs of several groups differ in `value`? A row per group, and a row per pair of groups.

    Groups: n, median, quartiles. Pairs: two-sided Mann-Whitney test (U, p, p corrected after Holm 1979) and the effect
    P(X > Y) + P(X = Y)/2. The Kruskal-Wallis test over all groups is in the first table's attrs (`kruskal_h`, `kruskal_p`).
    Raises `UserError` for a missing column, missing values or fewer than two groups.

    >>> rates = [11.0, 12.0, 11.5, 12.5, 13.0, 9.0, 9.5, 10.0, 8.5, 9.2]
    >>> runs = pd.DataFrame({"search": ["genetic"] * 5 + ["random"] * 5, "rate": rates})
    >>> groups, pairs = compare_runs(runs, "search", "rate")
    >>> groups["median"].to_dict()
    {'genetic': 12.0, 'random': 9.2}
    >>> pairs[["a", "b", "p_holm", "effect"]].round(3)
             a       b  p_holm  effect
    0  genetic  random   0.008     1.0
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


def compare_sets(runs: pd.DataFrame) -> tuple[dict[tuple, tuple], list[str]]:
    """`compare_runs` of the groups for each network and rate of `rates_of_runs`; and a sentence for each that has no two groups."""
    compared, refused = {}, []
    for (network, rate), rows in runs.groupby(["network", "rate_name"], sort=False):
        try:
            compared[network, rate] = compare_runs(rows, "group", "rate")
        except UserError as error:
            refused.append(f"{network} is left out of the comparison of runs: {error}")
    return compared, refused


def compare_networks(runs: pd.DataFrame, group: str, value: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`compare_runs` network by network: both tables with a column network, one below the other.

    Groups also have sd (standard deviation) and kruskal_p, pairs p_spread (equal spread, after Brown and Forsythe 1974).
    """
    tables, all_pairs = [], []
    for network, rows in runs.groupby("network", sort=False):
        groups, pairs = compare_runs(rows, group, value)
        samples = {name: part[value].to_numpy() for name, part in rows.groupby(group)}
        groups = groups.assign(sd=rows.groupby(group)[value].std(), kruskal_p=groups.attrs["kruskal_p"]).reset_index()
        spreads = [_equal_spread(samples[a], samples[b]) for a, b in zip(pairs["a"], pairs["b"], strict=True)]
        tables.append(groups.assign(network=network))
        all_pairs.append(pairs.assign(p_spread=spreads, network=network))
    return tuple(pd.concat(each, ignore_index=True).set_index("network").reset_index() for each in (tables, all_pairs))


def _equal_spread(x: np.ndarray, y: np.ndarray) -> float:
    distances = [np.abs(each - np.median(each)) for each in (x, y)]
    constant = all(np.ptp(each) == 0 for each in distances)
    return 1.0 if constant else float(stats.levene(x, y, center="median").pvalue)
