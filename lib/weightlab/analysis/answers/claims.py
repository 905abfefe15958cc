"""The answer about the thesis's claims (notebook 13)."""

from collections.abc import Hashable
from typing import Any

import pandas as pd

from weightlab.analysis.claims import NOT_REPLICATED, RATES, REPLICATED, UNDECIDED
from weightlab.analysis.labels import label
from weightlab.analysis.records import ACCEPTABLE_LOSS_PP


def claims(parts: pd.DataFrame, by_rate: pd.DataFrame) -> list[str]:
    """How many claims hold, those decided one by one, and why the others are open.

    `parts` is what `replicate` returns, with a column statement; `by_rate` has a row per claim and its verdict by each of the two rates.
    """
    verdicts = by_rate[RATES[0]]
    paragraphs = [_counts(rate, by_rate[rate]) for rate in RATES]
    differ = by_rate.index[verdicts != by_rate[RATES[1]]]
    paragraphs.append(f"Claims whose verdict depends on which rate is meant: {', '.join(map(str, differ)) or 'none'}.")
    meant = parts[parts["rate_name"].isin(["", RATES[0]])]
    for verdict in (REPLICATED, NOT_REPLICATED):
        for claim, rows in meant[meant["verdict"] == verdict].groupby("claim"):
            if verdicts[claim] == verdict:
                paragraphs.append(f"- {verdict}, claim {claim}: {'; '.join(map(_part, rows.to_dict('records')))}.")
    return [*paragraphs, _open(parts.loc[parts["verdict"] == UNDECIDED, "reason"], by_rate.index[verdicts == UNDECIDED])]


def _counts(rate: str, verdicts: pd.Series) -> str:
    counts = verdicts.value_counts()
    numbers = ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in (REPLICATED, NOT_REPLICATED, UNDECIDED))
    return f"**{label(rate)}**: of {len(verdicts)} claims {numbers} (rates are those of plans that lose less than {ACCEPTABLE_LOSS_PP:g} pp)."


def _part(row: dict[Hashable, Any]) -> str:
    published = "" if pd.isna(row["published"]) else f"published: {row['published']:g}, "
    required = f"required: {row['relation']} {row['threshold']:g}"
    return f"{row['statement']}: {row['value']:.4g} ({required}, {published}n = {row['n']} {row['n_of']})"


def _open(reasons: pd.Series, undecided: pd.Index) -> str:
    few, without = reasons.str.startswith("n = "), reasons.str.endswith(" is missing")
    missing = sorted(set(reasons[without].str.removesuffix(" is missing")))
    return (
        f"Undecided claims: {', '.join(map(str, undecided)) or 'none'}; of {len(reasons)} undecided parts, {few.sum()} have too small an n, and for "
        f"{without.sum()} a table is missing ({', '.join(missing) or 'none'})."
    )
