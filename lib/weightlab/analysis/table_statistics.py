"""Statistics of claims about scans, fine-tuning and times: each takes saved tables and returns a `Finding`."""

import numpy as np
import pandas as pd

from weightlab.analysis.findings import Finding, fewest, front_area, need, pick
from weightlab.errors import UserError


def decades_removed(scan: pd.DataFrame) -> Finding:
    """log10 of (full space / reduced space) of a range scan with column `allowed`; n is the number of k tried in a layer."""
    need(scan, "layer", "k", "allowed")
    shares = scan.groupby("layer")["allowed"].mean()
    removed = -np.log10(shares[shares > 0]).sum() if (shares > 0).all() else np.inf
    return Finding(float(abs(removed)), scan["k"].nunique(), f"{1 - 10.0**-removed:.1%} of the space")


def emptied_layers(scan: pd.DataFrame) -> Finding:
    """Number of layers for which no k passes a range scan; n is the number of k tried in a layer."""
    need(scan, "layer", "k", "allowed")
    left = scan.groupby("layer")["allowed"].sum()
    return Finding(int((left == 0).sum()), scan["k"].nunique(), f"layers {', '.join(map(str, left.index[left == 0])) or 'none'}")


def most_sensitive(scan: pd.DataFrame, layers: list[int]) -> Finding:
    """How many of `layers` are among the equally many layers with the lowest mean accuracy in a range scan; n is the number of k tried."""
    need(scan, "layer", "k", "validation_accuracy")
    lowest = scan.groupby("layer")["validation_accuracy"].mean().nsmallest(len(layers)).index
    return Finding(len(set(layers) & set(lowest)), scan["k"].nunique(), f"lowest: layers {', '.join(map(str, lowest))}")


def passing_despite_scan(scan: pd.DataFrame, results: pd.DataFrame, threshold: float) -> Finding:
    """How many k fail the scan of at least one layer, but reach the threshold when every layer has this k.

    n is the number of such ks.
    """
    need(scan, "k", "allowed")
    refused = set(scan.loc[~scan["allowed"].astype(bool), "k"])
    rows = results[results["k"].isin(refused)]
    need(rows, "validation_accuracy")
    passing = sorted(rows.loc[rows["validation_accuracy"] >= threshold, "k"])
    return Finding(len(passing), rows["k"].nunique(), f"k {', '.join(map(str, passing)) or 'none'}")


def explained_gap(influence: pd.DataFrame, of: str, to: str) -> Finding:
    """Share of the variance that factor `of` explains, minus the share that `to` explains (`influence`): median over layers; n: layers."""
    need(influence, "network", "format", "layer", "factor", "omega_squared")
    shares = influence.pivot(index=["network", "format", "layer"], columns="factor", values="omega_squared")
    need(shares, of, to)
    shares = shares[[of, to]].dropna()
    note = f"medians {shares[of].median():.2f} and {shares[to].median():.2f}"
    return Finding(float((shares[of] - shares[to]).median()), len(shares), note)


def relative_gain(tuned: pd.DataFrame, loss: str, which: str) -> Finding:
    """Share of a plan's loss that fine-tuning removes, `highest` or `median` over plans; n: plans with a positive loss.

    `tuned` has columns {loss}_before and {loss}_after.
    """
    before, after = f"{loss}_before", f"{loss}_after"
    need(tuned, before, after)
    rows = tuned[tuned[before] > 0]
    gains = 1 - rows[after] / rows[before]
    return Finding(float(gains.max() if which == "highest" else gains.median()), len(rows))


def gain_difference(tuned: pd.DataFrame, of: str, to: str) -> Finding:
    """Median over plans of the loss (pp) in column `to` minus that in column `of`: positive if `of` loses less; n: plans."""
    need(tuned, of, to)
    rows = tuned.dropna(subset=[of, to])
    return Finding(float((rows[to] - rows[of]).median()), len(rows))


def sign_agreement(correlations: pd.DataFrame, predictor: str) -> Finding:
    """Share of layers whose correlation of a predictor with accuracy has the more frequent sign; lowest of all plans; n: layers a plan."""
    need(correlations, "network", "format", predictor)
    plans = correlations.dropna(subset=predictor).groupby(["network", "format"])[predictor]
    if not len(plans):
        raise UserError(f"no correlation with {predictor} is known")
    shares = plans.apply(lambda r: max((r > 0).mean(), (r < 0).mean()))
    return Finding(float(shares.min()), int(plans.size().min()))


def time_share_ratio(times: pd.DataFrame, of: str, to: str, part: str, parts: list[str]) -> Finding:
    """Share of column `part` in the time of `parts` (s) with one clustering method over that with another; n: plans a method."""
    shares = _time_shares(times, part, parts, [of, to])
    note = f"shares {shares[of]:.3f} and {shares[to]:.3f}"
    return Finding(float(shares[of] / shares[to]), fewest(times, "method", [of, to]), note)


def least_time_share(times: pd.DataFrame, part: str, parts: list[str], methods: list[str]) -> Finding:
    """Share of column `part` in the time of `parts`, for the method with the lowest share; n: plans a method."""
    shares = _time_shares(times, part, parts, methods)
    return Finding(float(shares.min()), fewest(times, "method", methods), ", ".join(f"{k} {v:.2f}" for k, v in shares.items()))


def quality_to_time(
    records: pd.DataFrame, times: pd.DataFrame, methods: list[str], rate: str, part: str, parts: list[str]
) -> Finding:
    """How much the methods differ in the area that their fronts dominate (highest / lowest − 1), divided by the same for shares of time.

    The share is that of column `part` in `parts` (s). n: runs of the method with the fewest.
    """
    areas = [front_area(pick(records, {"method": method}), rate) for method in methods]
    shares = _time_shares(times, part, parts, methods)
    value = (max(areas) / min(areas) - 1) / (shares.max() / shares.min() - 1)
    runs = pick(records, {"method": methods}).groupby("method")["run"].nunique()
    return Finding(float(value), int(runs.min()), "areas " + ", ".join(f"{area:.2f}" for area in areas))


def _time_shares(times: pd.DataFrame, part: str, parts: list[str], methods: list[str]) -> pd.Series:
    need(times, part, *parts)
    means = pick(times, {"method": methods}).groupby("method")[parts].mean()
    return means[part] / means.sum(axis=1)


def improved_share(tuned: pd.DataFrame, before: str, after: str) -> Finding:
    """Share of rows whose loss fine-tuning lowers; n: rows."""
    need(tuned, before, after)
    return Finding(float((tuned[after] < tuned[before]).mean()), len(tuned))


def largest_shift(tuned: pd.DataFrame, loss: str, of: str, to: str) -> Finding:
    """Largest loss (pp) on data set `of` minus the largest on `to`; n: rows of the smaller data set."""
    need(tuned, loss)
    largest = [pick(tuned, {"dataset": dataset})[loss].max() for dataset in (of, to)]
    return Finding(float(largest[0] - largest[1]), fewest(tuned, "dataset", [of, to]))


def unmeasured(reason: str) -> Finding:
    """For a claim that no notebook can decide: no value, and the reason."""
    return Finding(np.nan, 0, reason)
