"""What a statistic of a claim hands back, and how it picks the rows it is about."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from weightlab.analysis.records import ACCEPTABLE_LOSS_PP, NO_PLAN_RATE
from weightlab.errors import UserError


class Finding(NamedTuple):
    """A statistic's value (NaN if the tables hold none), the n it rests on, and what else a reader should know."""

    value: float
    n: int
    note: str = ""


def pick(table: pd.DataFrame, where: Mapping) -> pd.DataFrame:
    """The rows whose columns have the values of `where` (or one of a list of values); `UserError` if there is none."""
    rows = table
    for column, wanted in where.items():
        need(rows, column)
        before, rows = rows, rows[rows[column].isin(wanted if isinstance(wanted, list) else [wanted])]
        if rows.empty:
            found = ", ".join(sorted(map(str, before[column].dropna().unique()))) or "none"
            raise UserError(
                f"no rows with {', '.join(f'{key} {value}' for key, value in where.items())} ({column} found: {found})"
            )
    return rows


def need(table: pd.DataFrame, *columns: str) -> None:
    """Raise `UserError` if the table lacks one of the columns."""
    for column in columns:
        if column not in table:
            raise UserError(f"no column {column} (found: {', '.join(map(str, table.columns))})")


def best_row(table: pd.DataFrame, rate: str, limit_pp: float = ACCEPTABLE_LOSS_PP) -> tuple[float, str]:
    """The highest rate below a loss of `limit_pp` where it was chosen (1 if there is none), and what the plan loses on test."""
    need(table, rate, "loss_pp")
    rows = table[table["loss_pp"] < limit_pp]
    if rows.empty:
        return NO_PLAN_RATE, "no plan within the limit"
    row = rows.loc[rows[rate].idxmax()]
    return float(
        row[rate]
    ), f"loss {row['loss_pp']:.2f} pp, on test {row['test_loss_pp']:.2f} pp" if "test_loss_pp" in row else ""


def rates_by_run(table: pd.DataFrame, rate: str) -> pd.Series:
    """The best acceptable rate of each run, by run; 1 for a run without an acceptable plan."""
    need(table, rate, "loss_pp", "run")
    rates = table[rate].where(table["loss_pp"] < ACCEPTABLE_LOSS_PP)
    return rates.groupby(table["run"]).max().fillna(NO_PLAN_RATE)


def fewest(table: pd.DataFrame, column: str, groups: Sequence) -> int:
    """The number of rows of the smallest of the groups named."""
    return int(pick(table, {column: list(groups)})[column].value_counts().reindex(list(groups), fill_value=0).min())
