"""The state of a grid of searches, read from its folders only, while processes on any machine go on with it."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from weightlab import paths, storage
from weightlab.errors import UserError, check_whole, choose, flat
from weightlab.runs.setting import Setting
from weightlab.runs.specifications import Specification
from weightlab.search.fitness import fitness
from weightlab.settings import names

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # a module that may be missing has no type of its own

STATES = ("complete", "running", "partial", "waiting", "failed", "damaged")
COLUMNS, MEASURED = (names(Specification, role) for role in ("column", "measured"))
OTHERS = [name for name in names(Setting, "column") if name not in MEASURED]  # how plans are chosen
GROUP = [*(name for name in COLUMNS if name in MEASURED), "target", "search", *OTHERS]
BEST = ["best_accuracy", "best_rate", "target_accuracy", "target_rate"]
FIELDS = ["run", "state", *GROUP, "images", "threshold", "seed", "budget", "evaluations", "seconds", *BEST, "error"]
ALIKE: tuple[list[str], ...] = (
    [*(name for name in FIELDS if name in MEASURED), "search"],
    ["network", "dataset", "images"],
    [],
)  # in speed
DIGITS = 16  # of a hash, enough to compare by eye


class Survey:
    """The states of the searches below a folder; only files that have changed are read again.

    `runs` are specification hashes; by default all of the folder.
    """

    def __init__(self, folder: str | Path, runs: Iterable[str] | None = None):
        self.folder, self._runs = paths.resolve(folder), None if runs is None else list(dict.fromkeys(runs))
        self._versions: dict[Path, tuple] = {}  # by file: its version, what was read

    def now(self) -> pd.DataFrame:
        """A row per search: run, state (of `STATES`), what it is, evaluations and seconds recorded, best so far, error."""
        runs = self._runs
        if runs is None:
            runs = sorted(file.parent.name for file in self.folder.glob("*/specification.json"))
        return pd.DataFrame([self._row(self.folder / run) for run in runs], columns=FIELDS)

    def _row(self, folder: Path) -> dict:
        row = dict.fromkeys(FIELDS, "") | {"run": folder.name, "state": "waiting", "evaluations": 0, "seconds": 0.0}
        row |= {"budget": 0} | dict.fromkeys(BEST, math.nan)
        row |= self._read(folder / "specification.json", _specification) or {}
        begun = self._read(folder / "checkpoint.parquet", _progress)  # read before the records, which replace it
        done = self._read(folder / "evaluations.parquet", _progress)
        if done and "error" not in done:  # a search without its times is complete too
            return row | done | (self._read(folder / "times.parquet", _time) or {}) | {"state": "complete"}
        if begun:
            row |= {"state": "partial"} | begun
        if failure := self._read(folder / "failed.json", _failure):
            row |= {"state": "failed"} | failure
        row |= done or {}
        return row | ({"state": "running", "error": ""} if _is_locked(folder / ".lock") else {})

    def _read(self, file: Path, reader: Callable[[Path], dict]) -> dict | None:
        """What a reader returns for a file, or an error (which may pass, so it is not remembered); None if there is no file."""
        try:
            stat = file.stat()
            version = stat.st_ino, stat.st_mtime_ns, stat.st_size
            if self._versions.get(file, (None,))[0] != version:
                self._versions[file] = version, reader(file)
            return self._versions[file][1]
        except FileNotFoundError:
            return None
        except (OSError, UserError) as error:
            if isinstance(error.__cause__, FileNotFoundError):  # completed, or begun anew, while it was looked at
                return None
            return {"state": "damaged", "error": flat(error)}
        except (ValueError, LookupError, TypeError) as error:
            return {"state": "damaged", "error": f"{file} is damaged or was not written by weightlab ({error!r})"}


def survey(folder: str | Path, runs: Iterable[str] | None = None) -> pd.DataFrame:
    """One look, as `Survey.now` gives it."""
    return Survey(folder, runs).now()


def records_hash(folder: str | Path, runs: Iterable[str]) -> str:
    """SHA-256 over the names and records of complete searches (`runs`) below a folder, in the order of their names.

    It is the same for the same grid, for any number of processes and interruptions.
    """
    digest = hashlib.sha256()
    for run in sorted(runs):
        digest.update(run.encode() + (Path(folder) / run / "evaluations.parquet").read_bytes())
    return digest.hexdigest()


def _specification(file: Path) -> dict:
    values = json.loads(file.read_bytes())
    return {name: values[name] for name in FIELDS if name in values} | {
        "target": values["target"]["form"],
        **{name: str(values[name]) for name in ("images", "threshold")},
    }


def _progress(file: Path) -> dict:
    table, notes = storage.read_table(file)
    target = table[["target_accuracy", "target_rate"]].to_numpy()[-1]
    measured = table[["accuracy", "rate"]].dropna().to_numpy()  # (n, 2)
    best = measured[fitness(measured, target).argmax()] if len(measured) else (math.nan, math.nan)
    state = json.loads(notes["state"]) if "state" in notes else {"times": []}
    times = [*state["times"], *filter(None, [state.get("begun")])]  # of whole generations, and of what there is of one
    totals = {"evaluations": len(table), "seconds": sum(each["seconds"] for each in times)}
    return totals | dict(zip(BEST, (*best, *target), strict=True))


def _time(file: Path) -> dict:
    return {"seconds": storage.read_table(file)[0]["seconds"].sum()}


def _failure(file: Path) -> dict:
    return {"error": str(json.loads(file.read_bytes())["error"])}


def _is_locked(file: Path) -> bool:
    """Whether some process holds the lock. It creates nothing, so it works in a read-only folder.

    It takes a lock itself for a moment, a shared one if possible; a worker that tries then finds the folder busy and returns to it
    later.
    """
    try:
        if fcntl is None:
            if not file.exists():
                return False
            with storage.lock(file, wait=False) as free:
                return not free
        with open(file) as lock_file:
            fcntl.flock(lock_file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, UserError):  # no such file, or none that may be read: then nothing is known of a holder
        return False
    return False


def remaining_seconds(table: pd.DataFrame, workers: int = 1) -> float | None:
    """Estimated seconds that incomplete searches will take, from the recorded seconds per evaluation of the most similar searches.

    None if nothing was measured yet. At least the time of the longest single search. Only generations are recorded, in the process
    that computed them; scans and codebooks take additional time.
    """
    left = table[table["state"] != "complete"]
    measured = table[table["seconds"] > 0]
    if not len(left):
        return 0.0
    if not len(measured):
        return None
    each, rest = {}, []  # seconds an evaluation of searches that are alike; seconds of each search
    for row in left.to_dict("records"):
        key = tuple(row[name] for name in ALIKE[0])
        if key not in each:
            each[key] = _seconds_each(measured, row)
        rest.append(max(0, row["budget"] - row["evaluations"]) * each[key])
    return max(sum(rest) / workers, *rest)


def _seconds_each(measured: pd.DataFrame, row: dict) -> float:
    for same in ALIKE:
        alike = measured[(measured[same] == pd.Series({name: row[name] for name in same})).all(axis=1)]
        if len(alike):
            break
    return alike["seconds"].sum() / alike["evaluations"].sum()


def groups(table: pd.DataFrame) -> pd.DataFrame:
    """Searches that are complete, all searches, and the best accuracy and rate so far, for each group of searches in the table."""
    by = [name for name in GROUP if table[name].nunique() > 1] or ["network"]
    rows = []
    for key, part in table.groupby(by, sort=False):
        # The targets of a group may have moved apart: every run's best is compared with the highest of them.
        scores = fitness(
            part[["best_accuracy", "best_rate"]].to_numpy(), part[["target_accuracy", "target_rate"]].max().to_numpy()
        )
        best = part.iloc[0 if np.isnan(scores).all() else np.nanargmax(scores)]
        complete = (part["state"] == "complete").sum()
        rows.append([" ".join(map(str, key)), complete, len(part), best["best_accuracy"], best["best_rate"]])
    return pd.DataFrame(rows, columns=["group", "complete", "of", "accuracy", "rate"])


def bests(table: pd.DataFrame) -> pd.DataFrame:
    """`groups` as they are shown: text, with the accuracy in percent and the rate by its name."""
    names = table["objective_rate"].unique()
    rate = f"{names[0]} rate".strip() if len(names) == 1 else "objective rate"
    rows = groups(table)
    return pd.DataFrame({
        "group": rows["group"],
        "complete": [f"{complete} of {of}" for complete, of in zip(rows["complete"], rows["of"], strict=True)],
        "best accuracy": [_number(value * 100, " %") for value in rows["accuracy"]],
        f"at {rate}": [_number(value) for value in rows["rate"]],
    })  # fmt: skip


def _number(value: float, unit: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:.2f}{unit}"


def line(table: pd.DataFrame) -> str:
    """Such as '13 of 24 searches complete, 2 running, 1 failed'."""
    counts = table["state"].value_counts()
    others = [f"{counts[state]} {state}" for state in STATES[1:] if counts.get(state)]
    return ", ".join([f"{counts.get('complete', 0)} of {len(table)} searches complete", *others])


def evaluations(table: pd.DataFrame) -> str:
    """Such as '137 of 400 evaluations'; the rest of a budget that is too small for one more generation is not used."""
    return f"{table['evaluations'].sum()} of {table['budget'].sum()} evaluations"


def pace(per_second: float) -> str:
    """Such as '25 evaluations/s', or '4.2 s an evaluation' where they are slow."""
    number, unit = (per_second, "evaluations/s") if per_second >= 1 else (1 / per_second, "s an evaluation")
    return f"{number:.0f} {unit}" if number >= 10 else f"{number:.2g} {unit}"


def duration(seconds: float | None) -> str:
    """Such as '12 min' or '2 h 05 min'."""
    if seconds is None:
        return "unknown: nothing measured yet"
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def summary(table: pd.DataFrame, workers: int = 1) -> str:
    """The whole table as text."""
    if not len(table):
        return line(table)
    lines = [line(table)]
    if (table["state"] != "complete").any():
        rest = remaining_seconds(table, workers)
        by_whom = "" if rest is None else f" with {workers} worker{'s' * (workers > 1)}"
        lines.append(f"time left {'' if rest is None else 'about '}{duration(rest)}{by_whom}")
    lines += ["", bests(table).to_string(index=False)]
    for row in table[table["error"] != ""].to_dict("records"):
        lines.append(f"{row['state']}: {row['run']} ({row['network']} {row['search']}, seed {row['seed']}): {row['error']}")
    return "\n".join(lines)


def folder_of(profile: str) -> Path:
    """Where the searches of a profile are."""
    folders = (folder for base in (paths.params(), paths.outputs()) for folder in base.glob("*/"))
    choose("profile", profile, sorted({folder.name for folder in folders} - {"cluster"}))
    return paths.outputs() / profile / "searches"


def tell(folder: Path, where: str, workers: int = 1, as_json: bool = False) -> str:
    """The text that a command prints on the searches in a folder, called `where`: the `summary`, or a row per search as JSON.

    Both hold the first 16 digits of the `records_hash` of complete searches, JSON for each search by itself.
    """
    check_whole("workers", workers)
    table = survey(folder)
    complete = table["run"][table["state"] == "complete"]
    if as_json:
        table["records"] = complete.map(lambda run: records_hash(folder, [run])[:DIGITS])
        return table.to_json(orient="records", indent=1)
    if not len(table):
        return f"no search {where} has been begun"
    return summary(table, workers) + (f"\nrecords {records_hash(folder, complete)[:DIGITS]}" if len(complete) else "")
