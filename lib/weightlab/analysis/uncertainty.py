"""The uncertainty of a claim's statistic: its interval over resampled runs, layers, plans or images."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from weightlab.analysis.findings import Finding
from weightlab.errors import UserError
from weightlab.rng import derive

RESAMPLES = 400
LEVEL = 0.95
LEAST_UNITS = 3  # of fewer, resamples hardly differ
ROW = "row"  # every row of a table is a unit
COLUMNS = {"run", "group", "network", "format", "method", "layer", "factor", "rate", "loss", "loss_pp", "test_loss_pp", "fitness",
           "omega_squared"}  # fmt: skip
KEYS = {"over", "within", "images"}


def check_uncertainty(name: str, uncertainty: Mapping | None) -> None:
    """Raise `UserError` unless `uncertainty` is empty, {over: columns or row, within: columns}, or {images: how many}."""
    if not uncertainty:
        return
    known = isinstance(uncertainty, Mapping) and set(uncertainty) <= KEYS and ("over" in uncertainty) != ("images" in uncertainty)
    if not known or ("within" in uncertainty and "over" not in uncertainty):
        raise UserError(
            f"unknown uncertainty of {name} {uncertainty!r}; allowed: {{over: columns, within: columns}} or {{images: number}}"
        )


def interval(
    statistic: Callable[..., Finding], tables: Sequence[pd.DataFrame], arguments: Mapping, uncertainty: Mapping
) -> tuple[float, float]:
    """The 95 % percentile interval (Efron 1979) of a statistic of tables.

    `uncertainty` says what is resampled. `over` names the columns that identify a unit ("row": every row is one); from each group
    `within`, as many units are drawn as it has, and a table without these columns stays as it is. `images` is the number of images behind
    an accuracy; the number of correct ones is drawn from a binomial distribution. Both ends are NaN if there are fewer than 3 units, or if
    more than one resample in twenty has no value.
    """
    draws = _of_images(tables, uncertainty["images"]) if "images" in uncertainty else _of_units(tables, arguments, uncertainty)
    values = []
    for drawn in draws:
        try:
            values.append(statistic(*drawn, **arguments).value)
        except UserError:  # no acceptable plan, a curve through too few rates: no value
            values.append(np.nan)
    known = np.array(values)[np.isfinite(values)]
    if len(known) < LEVEL * RESAMPLES:
        return np.nan, np.nan
    tail = 50 * (1 - LEVEL)
    lower, upper = np.percentile(known, [tail, 100 - tail])
    return float(lower), float(upper)


def _of_units(tables: Sequence[pd.DataFrame], arguments: Mapping, uncertainty: Mapping) -> Iterator[list[pd.DataFrame]]:
    over, within = (uncertainty.get(key) or [] for key in ("over", "within"))
    over, within = ([each] if isinstance(each, str) else list(each) for each in (over, within))
    slim = [_slim(table, str((arguments, over, within))) for table in tables]
    strata = [_units(table, over, within) for table in slim]
    if not any(strata) or any(len(units) < LEAST_UNITS for groups in strata for units in groups.values()):
        return
    streams = {group: derive(0, "bootstrap", *group) for groups in strata for group in groups}  # another group changes no stream
    for _ in range(RESAMPLES):
        yield [_draw(table, groups, over, streams) for table, groups in zip(slim, strata, strict=True)]


def _slim(table: pd.DataFrame, named: str) -> pd.DataFrame:
    """The columns that a statistic may use, `named` by its arguments or common to all; texts are categories, which are quick to copy."""
    kept = [column for column in table if column in COLUMNS or column in named]
    texts = [column for column in kept if not pd.api.types.is_numeric_dtype(table[column])]
    return table[kept].reset_index(drop=True).astype(dict.fromkeys(texts, "category"))


def _units(table: pd.DataFrame, over: list[str], within: list[str]) -> dict[tuple, list[np.ndarray]]:
    """The row numbers of each unit, by the group `within` of the unit; empty for a table without units."""
    if over == [ROW]:
        units = [np.array([row]) for row in range(len(table))]
    elif set(over) <= set(table.columns):
        units = list(table.groupby([*within, *over], sort=True).indices.values())
    else:
        return {}
    groups: dict[tuple, list[np.ndarray]] = {}
    for rows in units:
        groups.setdefault(tuple(table[column].iat[rows[0]] for column in within), []).append(rows)
    return groups


def _draw(
    table: pd.DataFrame, groups: dict[tuple, list], over: list[str], streams: dict[tuple, np.random.Generator]
) -> pd.DataFrame:
    """As many units of each group as it has, drawn with replacement; a unit drawn twice counts as two."""
    if not groups:
        return table
    drawn = [units[place] for group, units in groups.items() for place in streams[group].integers(len(units), size=len(units))]
    rows = table.iloc[np.concatenate(drawn)].reset_index(drop=True)
    return rows if over == [ROW] else rows.assign(**{over[-1]: np.repeat(np.arange(len(drawn)), [len(unit) for unit in drawn])})


def _of_images(tables: Sequence[pd.DataFrame], images: int) -> Iterator[list[pd.DataFrame]]:
    """Accuracies on as many other images, and the losses that follow from them."""
    rng = derive(0, "images")
    for _ in range(RESAMPLES):
        yield [_other_images(table, images, rng) for table in tables]


def _other_images(table: pd.DataFrame, images: int, rng: np.random.Generator) -> pd.DataFrame:
    if "loss_pp" not in table:  # a scan, whose verdicts stand
        return table
    change = {
        split: rng.binomial(images, table[f"{split}_accuracy"]) / images - table[f"{split}_accuracy"]
        for split in ("validation", "test")
    }
    chooser = "test" if (table["loss_pp"] == table["test_loss_pp"]).all() else "validation"
    other = table.assign(loss_pp=table["loss_pp"] - 100 * change[chooser])
    return other.assign(**{f"{split}_accuracy": table[f"{split}_accuracy"] + each for split, each in change.items()})
