"""The result of a claim's statistic, and how a statistic selects its rows."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from weightlab.analysis.records import ACCEPTABLE_LOSS_PP, NO_PLAN_RATE
from weightlab.errors import UserError


class Finding(NamedTuple):
    """A statistic's value (NaN if the tables do not give one), its n, and a note for the reader."""

    value: float
    n: int
    note: str = ""


def pick(table: pd.DataFrame, where: Mapping) -> pd.DataFrame:
    """The rows whose columns have the values of `where` (or one of a list of values); `UserError` if there is none."""
    rows = table
    for column, wanted in where.items():
        need(rows, column)
        one = isinstance(wanted, str)  # which is compared faster than looked up
        chosen = rows[column] == wanted if one else rows[column].isin(wanted if isinstance(wanted, list) else [wanted])
        before, rows = rows, rows[chosen]
        if rows.empty:
            present = ", ".join(sorted(map(str, before[column].dropna().unique()))) or "none"
            raise UserError(
                f"no rows with {', '.join(f'{key} {value}' for key, value in where.items())} ({column} found: {present})"
            )
    return rows


def need(table: pd.DataFrame, *columns: str) -> None:
    """Raise `UserError` if the table lacks one of the columns."""
    for column in columns:
        if column not in table:
            raise UserError(f"no column {column} (found: {', '.join(map(str, table.columns))})")


def best_row(table: pd.DataFrame, rate: str, limit_pp: float = ACCEPTABLE_LOSS_PP) -> tuple[float, str]:
    """The highest rate with a loss below `limit_pp` on the split that plans were chosen on, and a note with the plan's losses.

    Raises `UserError` if there is no such plan: nothing can be said about its rate.
    """
    need(table, rate, "loss_pp")
    rows = table[table["loss_pp"] < limit_pp]
    if rows.empty:
        raise UserError(f"no acceptable plan: none of {len(table)} {_of(table)}loses less than {limit_pp:g} pp")
    row = rows.loc[rows[rate].idxmax()]
    return float(
        row[rate]
    ), f"loss {row['loss_pp']:.2f} pp, on test {row['test_loss_pp']:.2f} pp" if "test_loss_pp" in row else ""


def rates_by_run(table: pd.DataFrame, rate: str) -> pd.Series:
    """The best acceptable rate of each run, by run; 1 for a run without an acceptable plan; `UserError` if all are without."""
    need(table, rate, "loss_pp", "run")
    rates = table[rate].where(table["loss_pp"] < ACCEPTABLE_LOSS_PP)
    best = rates.groupby(table["run"]).max()
    if best.isna().all():
        raise UserError(f"no acceptable plan: none of {len(table)} {_of(table)}loses less than {ACCEPTABLE_LOSS_PP:g} pp")
    return best.fillna(NO_PLAN_RATE)


def _of(table: pd.DataFrame) -> str:
    """What the rows of one side of a claim have in common, for a sentence."""
    columns = [column for column in ("network", "arm", "format", "search", "method", "target_type", "group") if column in table]
    common = [str(table[column].iloc[0]) for column in columns if len(table) and table[column].nunique() == 1]
    return f"plans of {', '.join(common)} " if common else "plans "


def front_area(table: pd.DataFrame, rate: str) -> float:
    """The area (pp times rate) that the acceptable plans dominate between a rate of 1 and their highest; `UserError` if there is none."""
    need(table, rate, "loss_pp", "run")
    points = table.loc[table["loss_pp"] < ACCEPTABLE_LOSS_PP, [rate, "loss_pp"]].to_numpy()
    if not len(points):
        raise UserError(f"no acceptable plan: none of {len(table)} {_of(table)}loses less than {ACCEPTABLE_LOSS_PP:g} pp")
    rates, losses = points[np.argsort(points[:, 0], kind="stable")].T
    least = np.minimum.accumulate(losses[::-1])[::-1]  # at this rate or a higher one
    return float((np.diff(rates, prepend=NO_PLAN_RATE) * (ACCEPTABLE_LOSS_PP - least)).sum())


def fewest(table: pd.DataFrame, column: str, groups: Sequence) -> int:
    """The number of rows of the smallest of the groups named."""
    need(table, column)
    counts = [int((table[column] == group).sum()) for group in groups]
    if not any(counts):
        pick(table, {column: list(groups)})  # says what there is
    return min(counts)
