"""Answers about curves of loss over rate, one per group (notebooks 11 and 12)."""

import pandas as pd
from scipy import stats

from weightlab.analysis.answers.words import SURE, differences, named
from weightlab.analysis.labels import label
from weightlab.analysis.regression import SET, at_common_rate

ALL = "all"  # the data that answers are about


def group_curves(
    summary: pd.DataFrame,
    curves: pd.DataFrame,
    tests: pd.DataFrame,
    residuals: pd.DataFrame,
    compared: dict[tuple[str, str], tuple[pd.DataFrame, pd.DataFrame]],
    points: str,
) -> list[str]:
    """Whether the groups differ, a paragraph for each network and rate; those that could not be fitted come last.

    `summary` is the second table of `fit_sets`; `curves`, `tests` and `residuals` are those of all fits (`of_sets`), `tests` being the
    sequential, the common curve's and the heteroscedasticity test in this order; `compared` has the two tables of `compare_runs` by
    network and rate, where runs are known; `points` says what kind of points they are.
    """
    rows = summary[summary["data"] == ALL]
    fitted = rows["outcome"] == "fitted"
    paragraphs = []
    for row in rows[fitted].itertuples():
        key = (row.network, row.rate_name, ALL)
        curve, tested, left_over = (table.set_index(SET).loc[[key]] for table in (curves, tests, residuals))
        rate, losses = at_common_rate(curve)
        sequential, common, robust, scatter = (
            test.iloc[-1] for _, test in tested.groupby("test", sort=False)
        )  # last: the squares
        sentences = [
            f"**{label(row.network)}, {label(row.rate_name)}** ({row.points} {points}).",
            _common_curve(common, robust),
            f"At the highest rate that all reach, {rate:.2f}, the curves lose {named(losses.sort_values())} pp.",
            f"The thesis's sequential test of the squared terms, p = {sequential['p']:.2g}, says only that they "
            f"{'are not all zero' if sequential['p'] < SURE else 'may all be zero'}.",
            _scatter(scatter, left_over),
        ]
        if key[:2] in compared:
            sentences.append(_runs(*compared[key[:2]]))
        paragraphs.append(" ".join(sentences))
    for row in rows[~fitted].itertuples():
        paragraphs.append(f"**{label(row.network)}, {label(row.rate_name)}** ({row.points} points) {row.outcome}.")
    return paragraphs


def _common_curve(test: pd.Series, robust: pd.Series) -> str:
    """The F test of one common curve, and its robust form, which is missing where the curve of a group passes through all its points."""
    verdict = "does not describe" if test["p"] < SURE else "would describe"
    known = pd.notna(robust["p"])
    robust_p = f"robust p = {robust['p']:.2g}" if known else "no robust p, because one group has no scatter"
    return (
        f"One common curve {verdict} all groups: F({test['df']}, {test['residual_df']}) = {test['F']:.1f}, p = {test['p']:.2g} "
        f"({robust_p})."
    )


def _scatter(test: pd.Series, residuals: pd.DataFrame) -> str:
    growth = stats.spearmanr(residuals["rate"], residuals["residual"].abs()).statistic
    return (
        f"The scatter is {'unequal' if test['p'] < SURE else 'not shown to be unequal'} (Breusch-Pagan p = {test['p']:.2g}; "
        f"rank correlation of its size with the rate {growth:+.2f})."
    )


def _runs(groups: pd.DataFrame, pairs: pd.DataFrame) -> str:
    return (
        f"Run by run (at least {groups['n'].min()} a group), the median best rate is "
        f"{named(groups['median'].sort_values(ascending=False))}; significant differences (Holm p < 0.05): {differences(pairs)} "
        f"(Kruskal-Wallis p = {groups.attrs['kruskal_p']:.2g})."
    )


def crossings(table: pd.DataFrame, a: str, b: str) -> list[str]:
    """Where the curves of groups `a` and `b` cross, a sentence for each row of `crossings_within` about Pareto data."""
    sentences = []
    for row in table[table["data"] == "Pareto"].itertuples():
        rates, printed = (", ".join(f"{rate:.2f}" for rate in each) for each in (row.crossings, row.published_crossings))
        published = f"; printed coefficients: {printed}" if printed else ""
        sentences.append(
            f"{label(row.network)}, {label(row.rate_name)}, Pareto data: the curves of {label(a)} and {label(b)} cross "
            f"{f'at {rates}' if rates else 'nowhere'}{published}."
        )
    return sentences
