"""Statistics of claims about searches: each takes records (a row per evaluation) and returns a `Finding`.

Losses are those on the split that plans were chosen on. n is the number of runs in the smallest group, unless a docstring says otherwise.
"""

from bisect import bisect_left, bisect_right

import numpy as np
import pandas as pd

from weightlab.analysis.comparisons import compare_runs
from weightlab.analysis.findings import Finding, best_row, front_area, need, pick, rates_by_run
from weightlab.analysis.records import ACCEPTABLE_LOSS_PP, acceptable
from weightlab.errors import UserError


def best_rate(table: pd.DataFrame, rate: str, limit_pp: float = ACCEPTABLE_LOSS_PP) -> Finding:
    """The highest rate below a loss; n is the number of plans measured."""
    return Finding(*_with_n(best_row(table, rate, limit_pp), len(table)))


def best_rate_ratio(
    *tables: pd.DataFrame, rate: str, of: dict | None = None, to: dict | None = None, limit_pp: float = ACCEPTABLE_LOSS_PP
) -> Finding:
    """Highest rate below a loss among the rows `of` over that among the rows `to`, which may come from a second table.

    n: runs, or plans where a table has no runs.
    """
    numerator, denominator = pick(tables[0], of or {}), pick(tables[-1], to or {})
    (above, note), (below, other) = (best_row(rows, rate, limit_pp) for rows in (numerator, denominator))
    n = min(rows["run"].nunique() if "run" in rows else len(rows) for rows in (numerator, denominator))
    return Finding(above / below, n, f"{above:.2f} ({note}) to {below:.2f} ({other})")


def best_rate_range(table: pd.DataFrame, rate: str, column: str, groups: list) -> Finding:
    """Highest over lowest of the groups' best acceptable rates."""
    rows = {group: pick(table, {column: group}) for group in groups}
    rates = {group: best_row(each, rate)[0] for group, each in rows.items()}
    n = min(each["run"].nunique() for each in rows.values())
    return Finding(
        max(rates.values()) / min(rates.values()), n, ", ".join(f"{group} {value:.2f}" for group, value in rates.items())
    )


def beaten_p(table: pd.DataFrame, column: str, better: list, worse: list, value: str) -> Finding:
    """Do the runs of every group of `better` reach more than those of every group of `worse`?

    The largest p of the pairs (two-sided Mann-Whitney, Holm over all pairs of these groups); 1 if a pair differs in the other direction.
    `value` is `fitness` (the final best of a run) or a rate (the best acceptable of a run).
    """
    need(table, "run", column)
    sides = {group: pick(table, {column: group}) for group in better + worse}
    values = {group: rows.groupby("run")["fitness"].max() if value == "fitness" else rates_by_run(rows, value)
              for group, rows in sides.items()}  # fmt: skip
    runs = pd.concat(values, names=["group", "run"]).rename("value").reset_index()
    groups, pairs = compare_runs(runs, "group", "value")
    largest = 0.0
    for pair in pairs.itertuples():
        if {pair.a, pair.b} & set(better) and {pair.a, pair.b} & set(worse):
            effect = pair.effect if pair.a in better else 1 - pair.effect
            largest = max(largest, pair.p_holm if effect > 0.5 else 1.0)
    medians = ", ".join(f"{name} {median:.2f}" for name, median in groups["median"].items())
    return Finding(largest, int(groups["n"].min()), f"medians {medians}")


def median_gap(table: pd.DataFrame, rate: str, of: dict, to: dict) -> Finding:
    """|median / median − 1| of the runs' best acceptable rates in two groups."""
    a, b = _rates_of_two(table, rate, of, to)
    return Finding(abs(a.median() / b.median() - 1), min(len(a), len(b)), f"medians {a.median():.2f} and {b.median():.2f}")


def spread_ratio(table: pd.DataFrame, rate: str, of: dict, to: dict) -> Finding:
    """Interquartile range of the runs' best acceptable rates in group `of`, over that in group `to`."""
    a, b = _rates_of_two(table, rate, of, to)
    wide, narrow = (float(np.subtract(*np.percentile(values, [75, 25]))) for values in (a, b))
    return Finding(wide / narrow if narrow > 0 else np.nan, min(len(a), len(b)), f"ranges {wide:.2f} and {narrow:.2f}")


def near_best_gap(table: pd.DataFrame, rate: str, of: dict, to: dict, within: float) -> Finding:
    """Share of runs whose best acceptable rate comes `within` (a fraction) of the best of all runs: group `of` less group `to`."""
    a, b = _rates_of_two(table, rate, of, to)
    bar = (1 - within) * max(a.max(), b.max())
    shares = [float((values >= bar).mean()) for values in (a, b)]
    return Finding(shares[0] - shares[1], min(len(a), len(b)), f"shares {shares[0]:.2f} and {shares[1]:.2f}")


def front_area_ratio(table: pd.DataFrame, rate: str, column: str, of: str, to: list[str]) -> Finding:
    """The area that the front of all acceptable plans of `of` dominates, divided by that of each of `to`: the lowest of these ratios.

    The area lies below a loss of 1 pp and above a rate of 1 (hypervolume, Zitzler and Thiele 1998).
    """
    areas = {group: front_area(pick(table, {column: group}), rate) for group in (of, *to)}
    runs = pick(table, {column: list(areas)}).groupby(column)["run"].nunique()
    note = "areas " + ", ".join(f"{group} {area:.2f}" for group, area in areas.items())
    return Finding(min(areas[of] / areas[group] for group in to), int(runs.min()), note)


def most_accurate_on_test(table: pd.DataFrame) -> Finding:
    """Median over runs of the test loss (pp) of the plan with the lowest loss on the split that plans were chosen on."""
    need(table, "run", "loss_pp", "test_loss_pp")
    rows = table.loc[table.groupby("run")["loss_pp"].idxmin()]
    return Finding(rows["test_loss_pp"].median(), len(rows), f"where chosen {rows['loss_pp'].median():.2f} pp")


def dominating_but_less_fit(table: pd.DataFrame, rate: str) -> Finding:
    """How many acceptable points are better in both rate and loss than a point of higher fitness; n is the number of distinct points."""
    need(table, rate, "loss_pp", "fitness")
    points = acceptable(table[[rate, "loss_pp", "fitness"]]).drop_duplicates([rate, "loss_pp"])
    points = points.sort_values("fitness", ascending=False)
    return Finding(_better_than_an_earlier(points[rate].tolist(), points["loss_pp"].tolist()), len(points))


def _better_than_an_earlier(rates: list[float], losses: list[float]) -> int:
    """How many points have a higher rate and a lower loss than a point before them; there are thousands, in each of many resamples."""
    count = 0
    lowest: list[float] = []  # rates, rising, of the worst earlier points: no other has a rate as low and a loss as high
    worst: list[float] = []  # their losses, which rise too
    for rate, loss in zip(rates, losses, strict=True):
        place = bisect_left(lowest, rate)
        count += bool(place) and worst[place - 1] > loss
        behind = bisect_right(lowest, rate)
        if not behind or worst[behind - 1] < loss:
            while behind < len(worst) and worst[behind] <= loss:
                behind += 1
            lowest[place:behind], worst[place:behind] = [rate], [loss]
    return count


def smallest_k_difference(table: pd.DataFrame, of: str, to: str) -> Finding:
    """Smallest acceptable k for the whole net of one network, minus that of another; n is the number of k tried."""
    smallest = {}
    for network in (of, to):
        rows = acceptable(pick(table, {"network": network}))
        if rows.empty:
            raise UserError(f"no k of {network} loses less than {ACCEPTABLE_LOSS_PP:g} pp")
        smallest[network] = int(rows["k"].min())
    return Finding(smallest[of] - smallest[to], _fewest_k(table, of, to), f"k {smallest[of]} and {smallest[to]}")


def raggedness_ratio(table: pd.DataFrame, of: str, to: str, from_k: int) -> Finding:
    """Sum of all rises of the loss (pp) from one k to the next, from `from_k` on: one network over another; n: k tried."""
    rises = []
    for network in (of, to):
        rows = pick(table, {"network": network}).sort_values("k")
        rises.append(float(rows.loc[rows["k"] >= from_k, "loss_pp"].diff().clip(lower=0).sum()))
    return Finding(rises[0] / rises[1] if rises[1] else np.nan, _fewest_k(table, of, to), f"{rises[0]:.2f} and {rises[1]:.2f} pp")


def _rates_of_two(table: pd.DataFrame, rate: str, of: dict, to: dict) -> tuple[pd.Series, pd.Series]:
    return rates_by_run(pick(table, of), rate), rates_by_run(pick(table, to), rate)


def _with_n(best: tuple[float, str], n: int) -> tuple[float, int, str]:
    return best[0], n, best[1]


def _fewest_k(table: pd.DataFrame, *networks: str) -> int:
    return min(pick(table, {"network": network})["k"].nunique() for network in networks)
