"""Records and published tables: read them, pick the best rows, the fronts, and one figure per run."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from weightlab import paths
from weightlab.errors import UserError, choose, flat

ACCEPTABLE_LOSS_PP = 1.0  # strictly below (section 5)
NO_PLAN_RATE = 1.0  # of a run without an acceptable plan: the unshared network
POINTS = ("group", "rate", "loss")
FRONTS = ("strict", "thesis")
LIMITS = ("below", "included")  # of `ACCEPTABLE_LOSS_PP`
GIVEN = ("network", "run", "test_loss_pp")  # what given points may have besides
RATE_NAMES = ("rate", "layer_mean_rate", "storage_rate", "thesis_model_rate")  # which rate given points have; "rate": not said

_PUBLISHED_NAMES = {  # as printed -> as named here
    "Tanh": "lenet5_tanh", "ReLU": "lenet5_relu", "float8": "float8_thesis",
    "RND": "random", "GA": "genetic", "PSO": "particle_swarm", "BH": "black_hole",
}  # fmt: skip
_PUBLISHED_COLUMNS = {"net": "network", "quantization": "format", "optimizer": "search", "algorithm": "search", "clusters": "k"}


def published(table: str) -> pd.DataFrame:
    """A table of `published/` (the thesis's printed figures), with networks, formats and searches under the names used here."""
    choose("published table", table, sorted(file.stem for file in paths.published().glob("*.csv")))
    return pd.read_csv(paths.published() / f"{table}.csv").rename(columns=_PUBLISHED_COLUMNS).replace(_PUBLISHED_NAMES)


def read_table(file: str | Path, text: bool = False) -> pd.DataFrame:
    """A table from a parquet or CSV file. With `text`, the values of a CSV stay as written: 08 is not 8, and None and NA are words.

    Raises `UserError` if the file is missing, unreadable or of another kind.
    """
    file = paths.resolve(file)
    choose("kind of table file", file.suffix, (".parquet", ".csv"))
    as_written = {"dtype": str, "keep_default_na": False} if text else {}
    try:
        return pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file, **as_written)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not a readable table ({flat(error)})") from None


def read_output(outputs_folder: str | Path, notebook: str, table: str) -> pd.DataFrame:
    """A table that a notebook has saved.

    Raises `UserError` if it has not (with the command to run), and for a table made from given records, which says nothing about a profile.
    """
    file = paths.resolve(outputs_folder) / notebook / f"{table}.parquet"
    if not file.exists():
        raise UserError(
            f"{file} is missing; run `make experiment NB={notebook} PROFILE={file.parent.parent.name}` first, which writes it"
        )
    if (given := _given_records(file.parent)) is not None:
        raise UserError(f"{notebook}/{table} was made from given records ({given}), not from those of its profile")
    return read_table(file)


def _given_records(folder: Path) -> str | None:
    """The file of points that a notebook was given, as its run.json says."""
    try:
        return json.loads((folder / "run.json").read_text())["parameters"].get("records")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def read_points(file: str | Path, rate_name: str = "rate") -> pd.DataFrame:
    """Points from elsewhere: a parquet or CSV file with the columns `group` (text), `rate` (dimensionless), `loss` (pp).

    A relative path means the working directory. One row is one compressed network, and every row is used. The names of groups, networks
    and runs are text as written. A column `run` may say which points come from one search, a column `network` what was compressed, a
    column `test_loss_pp` the loss on held-out test images that were never used to choose a row; other columns are left out. `rate_name`,
    one of `RATE_NAMES`, says which rate it is; the rate is repeated under that name and the loss as `loss_pp`, the names that records
    use. Raises `UserError` for a file that `check_points` refuses and for an unknown rate.
    """
    choose("rate of given records", rate_name, RATE_NAMES)
    table = read_table(Path(file).absolute(), text=True)
    points = check_points(table[[column for column in (*POINTS, *GIVEN) if column in table]])
    points = pd.DataFrame({"network": "given records", "run": None, **points})
    return points.assign(loss_pp=points["loss"], **{rate_name: points["rate"]})


def check_points(points: pd.DataFrame) -> pd.DataFrame:
    """The points with rate and losses as numbers and names as text.

    Raises `UserError` for a missing column, a missing value, a name that is empty, or a single group.
    """
    missing = [column for column in POINTS if column not in points]
    if missing:
        raise UserError(
            f"points need the columns {', '.join(POINTS)}; {', '.join(missing)} missing, got {', '.join(map(str, points.columns))}"
        )
    names = {column: _names(points, column) for column in ("group", "network", "run") if column in points}
    columns = [column for column in ("rate", "loss", "test_loss_pp") if column in points]
    numbers = {column: pd.to_numeric(points[column], errors="coerce").astype(float) for column in columns}
    for column, values in numbers.items():
        _refuse_where(~np.isfinite(values), points, column, "finite numbers")
    groups = names["group"].unique().tolist()
    if len(groups) < 2:
        raise UserError(f"a comparison of groups needs at least two groups in column 'group', got {groups}")
    return points.assign(**names, **numbers)


def _names(points: pd.DataFrame, column: str) -> pd.Series:
    """A column of names as text. A column of runs may be empty throughout: then the runs are not known."""
    given = points[column]
    empty = given.isna() | (given.astype(str).str.strip() == "")
    if column == "run" and empty.all():
        return pd.Series([None] * len(given), given.index, dtype=object)
    _refuse_where(empty, points, column, f"names of {column}s")
    return given.astype(str)


def _refuse_where(wrong: pd.Series, table: pd.DataFrame, column: str, kind: str) -> None:
    if wrong.any():
        raise UserError(
            f"{wrong.sum()} of {len(table)} values in column {column!r} are not {kind}, the first is '{table.loc[wrong, column].iloc[0]}'"
        )


def acceptable(records: pd.DataFrame, loss: str = "loss_pp") -> pd.DataFrame:
    """The rows whose loss is strictly below 1 pp on the split that chose them (or in column `loss`).

    >>> acceptable(pd.DataFrame({"rate": [9.0, 10.0, 11.0], "loss_pp": [0.2, 0.9, 1.0]}))
       rate  loss_pp
    0   9.0      0.2
    1  10.0      0.9
    """
    return records[records[loss] < ACCEPTABLE_LOSS_PP]


def best(records: pd.DataFrame, by: list[str], highest: str) -> pd.DataFrame:
    """Of each group `by`, the acceptable row with the highest value of column `highest` (the first of equals).

    Groups without an acceptable row stay, with missing values, so that they are counted.
    """
    groups = records[by].drop_duplicates()
    chosen = acceptable(records).sort_values(highest, ascending=False, kind="stable").drop_duplicates(by)
    return groups.merge(chosen, on=by, how="left", validate="one_to_one")


def best_rates(records: pd.DataFrame, by: list[str], rate: str) -> pd.DataFrame:
    """The highest acceptable rate of every run: columns `by`, run and `rate`; a run without an acceptable plan counts as rate 1."""
    table = best(records, [*by, "run"], rate)[[*by, "run", rate]]
    return table.fillna({rate: NO_PLAN_RATE})


def front(points: pd.DataFrame, loss: str = "loss_pp", rate: str = "rate", kind: str = "strict") -> pd.DataFrame:
    """The rows on the front (lower loss, higher rate), by ascending rate; `kind` is one of `FRONTS`.

    strict: the non-dominated rows after dropping duplicates. thesis: the front with ties behind tables B.2 and B.3: by descending
    rate, equal rates in the given order, a row stays if its loss is at most the lowest so far. Dominated rows of equal loss and rows of
    equal rate may stay, so the order of equal rates matters.

    >>> points = pd.DataFrame({"rate": [8.0, 9.0, 10.0, 11.0], "loss_pp": [0.3, 0.2, 0.9, 0.8]})
    >>> front(points)
       rate  loss_pp
    1   9.0      0.2
    3  11.0      0.8
    """
    choose("kind of front", kind, FRONTS)
    if kind == "thesis":
        ordered = points.sort_values(rate, ascending=False, kind="stable")
        return ordered[ordered[loss] <= ordered[loss].cummin()].sort_values(rate, kind="stable")  # equal rates as they came
    ordered = points.drop_duplicates([loss, rate]).sort_values([rate, loss], ascending=[False, True], kind="stable")
    lowest = ordered[loss].cummin()
    keep = (ordered[loss] == lowest) & ~lowest.duplicated()
    return ordered[keep].iloc[::-1]


def fronts(
    points: pd.DataFrame, by: str | list[str], loss: str = "loss", rate: str = "rate", kind: str = "strict"
) -> pd.DataFrame:
    """The rows of `points` on the front of their group `by`."""
    edges = [front(rows, loss, rate, kind) for _, rows in points.groupby(by, sort=False)]
    return pd.concat(edges or [points], ignore_index=True)


def points_of_runs(records: pd.DataFrame, group: str, rate: str, kind: str = "strict", limit: str = "below") -> pd.DataFrame:
    """The points that section 5.4 calls all data: the fronts (`kind`) of single runs, loss below 1 pp, put together.

    With `limit` "included" a loss of 1 pp counts too. Adds columns `group` and `rate` (copies of the columns named) and `loss` (pp, on
    the split that chose) to the records' own. Raises `UserError` for a missing column, a missing value, or no acceptable plan.
    """
    choose("limit of the loss", limit, LIMITS)
    for column in (group, rate, "loss_pp", "run"):
        choose("column", column, list(records.columns))
        _refuse_where(records[column].isna(), records, column, "known")
    points = acceptable(records) if limit == "below" else records[records["loss_pp"] <= ACCEPTABLE_LOSS_PP]
    points = points.assign(group=points[group], rate=points[rate], loss=points["loss_pp"])
    if points.empty:
        raise UserError(
            f"none of {len(records)} plans loses less than {ACCEPTABLE_LOSS_PP:g} pp, so there is no point to compare"
        )
    return fronts(points, "run", kind=kind)


def point_sets(records: pd.DataFrame, group: str, rates: list[str], kind: str = "strict", limit: str = "below") -> pd.DataFrame:
    """The points behind tables B.2 and B.3, for each network and rate: columns network, rate_name, data and those of the points.

    `data` is "all" (`points_of_runs`; of `read_points` every point), "Pareto" (the front per group of those), and, if test losses
    are known, "all, loss on test" (the same plans with their loss on held-out test images). `kind` is that of all fronts, `limit` as in
    `points_of_runs`.
    """
    choose("limit of the loss", limit, LIMITS)
    sets = []
    for network, rows in records.groupby("network", sort=False):
        for rate in rates:
            given = set(POINTS) <= set(rows.columns)
            points = rows if given else points_of_runs(rows, group, rate, kind, limit)
            kinds = {"all": points, "Pareto": fronts(points, "group", kind=kind)}
            if "test_loss_pp" in points:
                kinds["all, loss on test"] = points.assign(loss=points["test_loss_pp"])
            sets += [points.assign(network=network, rate_name=rate, data=name) for name, points in kinds.items()]
    return pd.concat(sets, ignore_index=True)


def best_so_far(records: pd.DataFrame, column: str = "fitness") -> pd.DataFrame:
    """Records ordered by run and evaluation, with a column `best` = highest `column` of the run up to there.

    >>> records = pd.DataFrame({"run": ["a"] * 4, "evaluation": [0, 1, 2, 3], "fitness": [2.0, 5.0, 3.0, 7.0]})
    >>> best_so_far(records)["best"].tolist()
    [2.0, 5.0, 5.0, 7.0]
    """
    ordered = records.sort_values(["run", "evaluation"], kind="stable")
    return ordered.assign(best=ordered.groupby("run")[column].cummax())
