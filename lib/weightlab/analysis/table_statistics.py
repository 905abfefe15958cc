"""Statistics of claims about scans, fitted curves, fine-tuning and times: each takes saved tables and returns a `Finding`."""

import numpy as np
import pandas as pd
from scipy import stats

from weightlab.analysis.findings import Finding, fewest, need, pick, rates_by_run
from weightlab.errors import UserError


def decades_removed(scan: pd.DataFrame) -> Finding:
    """log10 of (full space / reduced space) of a range scan with column `allowed`; n is the number of k tried in a layer."""
    need(scan, "layer", "k", "allowed")
    shares = scan.groupby("layer")["allowed"].mean()
    removed = -np.log10(shares[shares > 0]).sum() if (shares > 0).all() else np.inf
    return Finding(float(abs(removed)), scan["k"].nunique(), f"{1 - 10.0**-removed:.1%} of the space")


def emptied_layers(scan: pd.DataFrame) -> Finding:
    """Number of layers for which a range scan leaves no k; n is the number of k tried in a layer."""
    need(scan, "layer", "k", "allowed")
    left = scan.groupby("layer")["allowed"].sum()
    return Finding(int((left == 0).sum()), scan["k"].nunique(), f"layers {', '.join(map(str, left.index[left == 0])) or 'none'}")


def most_sensitive(scan: pd.DataFrame, layers: list[int]) -> Finding:
    """How many of `layers` are among as many layers of lowest mean accuracy in a range scan; n is the number of k tried."""
    need(scan, "layer", "k", "validation_accuracy")
    lowest = scan.groupby("layer")["validation_accuracy"].mean().nsmallest(len(layers)).index
    return Finding(len(set(layers) & set(lowest)), scan["k"].nunique(), f"lowest: layers {', '.join(map(str, lowest))}")


def passing_despite_scan(scan: pd.DataFrame, results: pd.DataFrame, threshold: float) -> Finding:
    """How many single ks that the scan refuses for at least one layer reach the threshold when every layer has them.

    n is the number of such ks.
    """
    need(scan, "k", "allowed")
    refused = set(scan.loc[~scan["allowed"].astype(bool), "k"])
    rows = results[results["k"].isin(refused)]
    need(rows, "validation_accuracy")
    passing = sorted(rows.loc[rows["validation_accuracy"] >= threshold, "k"])
    return Finding(len(passing), rows["k"].nunique(), f"k {', '.join(map(str, passing)) or 'none'}")


def fitted_gap(curves: pd.DataFrame, points: pd.DataFrame, of: str, to: str, at: float | None = None) -> Finding:
    """Loss (pp) on the curve of one group less that of another, at a rate, or at the highest that both reach; n: points a group."""
    both = [pick(curves, {"group": group}) for group in (of, to)]
    at = min(rows["rate"].max() for rows in both) if at is None else at
    gap = np.subtract(*(np.interp(at, rows["rate"], rows["loss"], left=np.nan, right=np.nan) for rows in both))
    note = f"the curves do not both reach rate {at:g}" if np.isnan(gap) else f"at rate {at:.2f}"
    return Finding(float(gap), fewest(points, "group", [of, to]), note)


def lowest_fitted_loss(curves: pd.DataFrame, points: pd.DataFrame, group: str) -> Finding:
    """The lowest loss (pp) on a group's curve over its own rates; n: its points."""
    return Finding(float(pick(curves, {"group": group})["loss"].min()), fewest(points, "group", [group]))


def coefficient_p(coefficients: pd.DataFrame, points: pd.DataFrame, parameter: str, groups: list[str]) -> Finding:
    """The smallest p with which a coefficient of these groups differs from zero (t test); n: points of the smallest group."""
    rows = pick(coefficients, {"parameter": parameter, "group": groups})
    note = ", ".join(f"{row.group} {row.p:.2g}" for row in rows.itertuples())
    return Finding(float(rows["p"].min()), fewest(points, "group", groups), note)


def p_of_test(tests: pd.DataFrame, points: pd.DataFrame, test: str) -> Finding:
    """p of a named test of the fitted curves; n: points of the smallest group."""
    row = pick(tests, {"test": test}).iloc[0]
    note = f"F({row['df']}, {row['residual_df']}) = {row['F']:.1f}"
    return Finding(float(row["p"]), fewest(points, "group", points["group"].unique()), note)


def f_ratio_of_test(tests: pd.DataFrame, points: pd.DataFrame, test: str, of: dict, to: dict) -> Finding:
    """F of a named test among the rows `of` over that among the rows `to`; n: points of the smallest group."""
    values = [float(pick(tests, {"test": test} | where)["F"].iloc[0]) for where in (of, to)]
    n = min(fewest(pick(points, where), "group", points["group"].unique()) for where in (of, to))
    return Finding(values[0] / values[1], n, f"F = {values[0]:.1f} and {values[1]:.1f}")


def scatter_growth_p(residuals: pd.DataFrame) -> Finding:
    """p of a rank correlation between the size of a residual and the rate, 1 if it is not positive; n: points."""
    need(residuals, "residual", "rate")
    rank, p = stats.spearmanr(residuals["residual"].abs(), residuals["rate"])
    return Finding(float(p) if rank > 0 else 1.0, len(residuals), f"rank correlation {rank:+.2f}")


def explained_gap(influence: pd.DataFrame, of: str, to: str) -> Finding:
    """Share of the variance that factor `of` explains less that which `to` explains (`influence`): median over layers; n: layers."""
    need(influence, "network", "format", "layer", "factor", "omega_squared")
    shares = influence.pivot(index=["network", "format", "layer"], columns="factor", values="omega_squared")
    need(shares, of, to)
    shares = shares[[of, to]].dropna()
    note = f"medians {shares[of].median():.2f} and {shares[to].median():.2f}"
    return Finding(float((shares[of] - shares[to]).median()), len(shares), note)


def relative_gain(tuned: pd.DataFrame, loss: str, which: str) -> Finding:
    """Share of a plan's loss that fine-tuning takes away, `highest` or `median` over plans; n: plans with a loss to take from.

    `tuned` has columns {loss}_before and {loss}_after.
    """
    before, after = f"{loss}_before", f"{loss}_after"
    need(tuned, before, after)
    rows = tuned[tuned[before] > 0]
    gains = 1 - rows[after] / rows[before]
    return Finding(float(gains.max() if which == "highest" else gains.median()), len(rows))


def gain_difference(tuned: pd.DataFrame, of: str, to: str) -> Finding:
    """Median over plans of the loss (pp) in column `to` less that in column `of`: positive if `of` loses less; n: plans."""
    need(tuned, of, to)
    rows = tuned.dropna(subset=[of, to])
    return Finding(float((rows[to] - rows[of]).median()), len(rows))


def sign_agreement(correlations: pd.DataFrame, predictor: str) -> Finding:
    """Share of layers whose correlation of a predictor with accuracy has the commoner sign, lowest over the plans; n: layers a plan."""
    need(correlations, "network", "format", predictor)
    plans = correlations.dropna(subset=predictor).groupby(["network", "format"])[predictor]
    if not len(plans):
        raise UserError(f"no correlation with {predictor} is known")
    shares = plans.apply(lambda r: max((r > 0).mean(), (r < 0).mean()))
    return Finding(float(shares.min()), int(plans.size().min()))


def time_ratio(times: pd.DataFrame, of: str, to: str, parts: list[str]) -> Finding:
    """Mean time a plan of one clustering method over that of another, `parts` (columns in s) added up; n: plans a method."""
    need(times, *parts)
    means = [float(pick(times, {"method": method})[parts].sum(axis=1).mean()) for method in (of, to)]
    return Finding(means[0] / means[1], fewest(times, "method", [of, to]), f"{1000 * means[0]:.3g} and {1000 * means[1]:.3g} ms")


def least_time_share(times: pd.DataFrame, part: str, parts: list[str], methods: list[str]) -> Finding:
    """Share of column `part` in the time of `parts`, of the method where it is least; n: plans a method."""
    need(times, *parts)
    means = pick(times, {"method": methods}).groupby("method")[parts].mean()
    shares = means[part] / means.sum(axis=1)
    return Finding(float(shares.min()), fewest(times, "method", methods), ", ".join(f"{k} {v:.2f}" for k, v in shares.items()))


def quality_to_time(records: pd.DataFrame, times: pd.DataFrame, methods: list[str], rate: str) -> Finding:
    """How much the methods differ in median best rate of a run, (highest / lowest − 1), over the same of their mean clustering times.

    n: runs of the method that has fewest.
    """
    rates = {method: rates_by_run(pick(records, {"method": method}), rate) for method in methods}
    medians = [values.median() for values in rates.values()]
    seconds = pick(times, {"method": methods}).groupby("method")["clustering_s"].mean()
    value = (max(medians) / min(medians) - 1) / (seconds.max() / seconds.min() - 1)
    return Finding(float(value), min(map(len, rates.values())))


def improved_share(tuned: pd.DataFrame, before: str, after: str) -> Finding:
    """Share of rows whose loss fine-tuning lowers; n: rows."""
    need(tuned, before, after)
    return Finding(float((tuned[after] < tuned[before]).mean()), len(tuned))


def largest_shift(tuned: pd.DataFrame, loss: str, of: str, to: str) -> Finding:
    """Largest loss (pp) on data set `of` less the largest on `to`; n: rows of the smaller."""
    need(tuned, loss)
    largest = [pick(tuned, {"dataset": dataset})[loss].max() for dataset in (of, to)]
    return Finding(float(largest[0] - largest[1]), fewest(tuned, "dataset", [of, to]))


def unmeasured(reason: str) -> Finding:
    """For a claim that no notebook can decide: no value, and why."""
    return Finding(np.nan, 0, reason)
