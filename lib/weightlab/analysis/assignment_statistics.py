"""Statistics of claims about assignments of multipliers: each takes saved tables and returns a `Finding`."""

import numpy as np
import pandas as pd

from weightlab.analysis.assignments import shares_of_settings
from weightlab.analysis.findings import Finding, need, pick

NORMAL = 1.96  # standard errors to either side of a 95 % interval


def mean_difference(table: pd.DataFrame, column: str, of: dict, to: dict) -> Finding:
    """Mean of a column over the rows `of`, less that over the rows `to`; n: rows of the smaller group."""
    need(table, column)
    one, other = (pick(table, where)[column] for where in (of, to))
    return Finding(float(one.mean() - other.mean()), min(len(one), len(other)), f"means {one.mean():.4g} and {other.mean():.4g}")


def saved_energy(chosen: pd.DataFrame, limit_pp: float) -> Finding:
    """Energy saved (percent) by the chosen assignments, of which those that lose more than `limit_pp` on test count 0; mean over rows.

    n: test images.
    """
    need(chosen, "saved_pct", "test_loss_pp", "test_images")
    kept = chosen["saved_pct"].where(chosen["test_loss_pp"] <= limit_pp, 0.0)
    losses = ", ".join(f"{each:.2f}" for each in chosen["test_loss_pp"])
    return Finding(float(kept.mean()), int(chosen["test_images"].min()), f"losses on test {losses} pp")


def share_reaching(runs: pd.DataFrame, column: str, least: float) -> Finding:
    """Share of runs whose value in a column is at least `least`; n: runs."""
    need(runs, column)
    return Finding(float((runs[column] >= least).mean()), len(runs), f"median {runs[column].median():.4g}")


def resolved_loss(paired: pd.DataFrame) -> Finding:
    """Half the width (pp) of the 95 % interval of a loss between two networks on the same images, the mean of all rows; n: images.

    The variance is that of the difference of paired answers, ((b + c) - (b - c)² / n) / n², with half an image added to each of the four
    counts, so that networks which happen to agree have a width too (Agresti and Min 2005).
    """
    need(paired, "lost", "gained", "images")
    lost, gained, n = paired["lost"] + 0.5, paired["gained"] + 0.5, paired["images"] + 2.0
    widths = 100 * NORMAL * np.sqrt(lost + gained - (lost - gained) ** 2 / n) / n
    return Finding(float(widths.mean()), int(paired["images"].min()), f"{widths.min():.2f} to {widths.max():.2f} pp")


def share_of_variance_gap(runs: pd.DataFrame, column: str, of: str, to: list[str], settings: list[str]) -> Finding:
    """Share of a column's variance between runs that setting `of` explains, less the largest share of `to`; n: runs of a combination.

    All `settings` are in the analysis of variance.
    """
    shares = shares_of_settings(runs, column, settings)
    least = int(runs.groupby(settings).size().min())
    note = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
    return Finding(float(shares[of] - shares[to].max()), least, note)
