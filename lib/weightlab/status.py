"""What state a grid of searches is in, read from its folders alone: whoever works on it, wherever, may go on meanwhile."""

import argparse
import fcntl
import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from weightlab import errors, paths
from weightlab.errors import UserError, choose
from weightlab.fitness import fitness

STATES = ("complete", "running", "partial", "waiting", "failed", "damaged")
GROUP = ["network", "dataset", "method", "format", "target", "search"]
ALIKE = (["network", "dataset", "method", "format", "images", "search"], ["network", "dataset", "images"], [])  # in speed
BEST = ["best_accuracy", "best_rate", "target_accuracy", "target_rate"]
FIELDS = ["run", "state", *GROUP, "images", "seed", "budget", "evaluations", "seconds", *BEST, "error"]


class Survey:
    """A look at the searches below a folder, as often as one likes: only files that have changed are read again.

    `runs` are specification hashes; by default all that lie there.
    """

    def __init__(self, folder: str | Path, runs: Iterable[str] | None = None):
        self.folder, self._runs = paths.resolve(folder), None if runs is None else list(runs)
        self._seen: dict[Path, tuple] = {}  # file: its version, what was read of it

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
        if done := self._read(folder / "evaluations.parquet", _progress):
            return row | (
                done if "error" in done else done | {"state": "complete"} | (self._read(folder / "times.parquet", _time) or {})
            )
        if begun := self._read(folder / "checkpoint.parquet", _progress):
            row |= {"state": "partial"} | begun
        if failure := self._read(folder / "failed.json", _failure):
            row |= {"state": "failed"} | failure
        return row | ({"state": "running", "error": ""} if _is_locked(folder / ".lock") else {})

    def _read(self, file: Path, reader) -> dict | None:
        """What a reader makes of a file, or an error; None if there is no such file."""
        try:
            stat = file.stat()
            version = stat.st_ino, stat.st_mtime_ns, stat.st_size
            if self._seen.get(file, (None,))[0] != version:
                self._seen[file] = version, reader(file)
            return self._seen[file][1]
        except FileNotFoundError:
            return None
        except (OSError, UserError, ValueError, KeyError, TypeError) as error:
            if isinstance(error.__cause__, FileNotFoundError):  # completed, or begun anew, while it was looked at
                return None
            found = {"state": "damaged", "error": " ".join(str(error).split())}
            self._seen[file] = version, found
            return found


def _specification(file: Path) -> dict:
    values = json.loads(file.read_bytes())
    return {name: values[name] for name in FIELDS if name in values} | {
        "target": values["target"]["form"],
        "images": str(values["images"]),
    }


def _progress(file: Path) -> dict:
    table, notes = paths.read_table(file)
    target = table[["target_accuracy", "target_rate"]].to_numpy()[-1]
    best = table.loc[fitness(table[["accuracy", "rate"]].to_numpy(), target).argmax()]
    times = json.loads(notes["state"])["times"] if "state" in notes else []
    found = {"evaluations": len(table), "seconds": sum(each["seconds"] for each in times)}
    return found | dict(zip(BEST, (best["accuracy"], best["rate"], *target), strict=True))


def _time(file: Path) -> dict:
    return {"seconds": paths.read_table(file)[0]["seconds"].sum()}


def _failure(file: Path) -> dict:
    return {"error": str(json.loads(file.read_bytes())["error"])}


def _is_locked(file: Path) -> bool:
    """Whether some process holds the lock; asked without creating anything, so that it works in a read-only folder."""
    try:
        with open(file) as held:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except FileNotFoundError:
        return False
    except OSError:
        return True


def remaining_seconds(table: pd.DataFrame, workers: int = 1) -> float | None:
    """About how long what is not complete will take, from the seconds recorded per evaluation of searches that are most alike.

    None where nothing was measured yet. At least as long as the longest single search.
    """
    left = table[table["state"] != "complete"]
    measured = table[table["seconds"] > 0]
    if not len(left):
        return 0.0
    if not len(measured):
        return None
    rest = []
    for row in left.to_dict("records"):
        for names in ALIKE:
            alike = measured[(measured[names] == pd.Series({name: row[name] for name in names})).all(axis=1)]
            if len(alike):
                break
        rest.append(max(0, row["budget"] - row["evaluations"]) * alike["seconds"].sum() / alike["evaluations"].sum())
    return max(sum(rest) / workers, *rest)


def groups(table: pd.DataFrame) -> pd.DataFrame:
    """Searches complete and in all, and the best accuracy and rate so far, for each group of those that the table tells apart."""
    by = [name for name in GROUP if table[name].nunique() > 1] or ["network"]
    rows = []
    for key, part in table.groupby(by, sort=False):
        # A group's targets may have moved apart: each run's best is held against what they have reached together.
        scores = fitness(
            part[["best_accuracy", "best_rate"]].to_numpy(), part[["target_accuracy", "target_rate"]].max().to_numpy()
        )
        best = part.iloc[0 if np.isnan(scores).all() else np.nanargmax(scores)]
        complete = (part["state"] == "complete").sum()
        rows.append([" ".join(map(str, key)), complete, len(part), best["best_accuracy"], best["best_rate"]])
    return pd.DataFrame(rows, columns=["group", "complete", "of", "accuracy", "rate"])


def line(table: pd.DataFrame) -> str:
    """Such as '13 of 24 searches complete, 2 running, 1 failed'."""
    counts = table["state"].value_counts()
    others = [f"{counts[state]} {state}" for state in STATES[1:] if counts.get(state)]
    return ", ".join([f"{counts.get('complete', 0)} of {len(table)} searches complete", *others])


def duration(seconds: float | None) -> str:
    """Such as '12 min' or '2 h 05 min'."""
    if seconds is None:
        return "unknown, nothing measured yet"
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def summary(table: pd.DataFrame, workers: int = 1) -> str:
    """All of it as text."""
    lines = [line(table)]
    if (table["state"] != "complete").any():
        rest = remaining_seconds(table, workers)
        lines.append(f"left: {'' if rest is None else 'about '}{duration(rest)} with {workers} worker{'s' * (workers > 1)}")
    shown = groups(table).rename(columns={"accuracy": "best accuracy", "rate": "at rate"})
    lines += ["", shown.to_string(index=False, float_format="{:.4f}".format, na_rep="-")]
    for row in table[table["error"] != ""].to_dict("records"):
        lines.append(f"{row['state']}: {row['run']} ({row['network']} {row['search']}, seed {row['seed']}): {row['error']}")
    return "\n".join(lines)


def main() -> None:
    """`python -m weightlab.status`: what is complete, partial or failed in the searches of a profile."""
    parser = argparse.ArgumentParser(
        prog="python -m weightlab.status", description="Tell the state of a profile's searches. Failed searches do not fail it."
    )
    known = sorted(folder.name for folder in paths.outputs().glob("*") if folder.is_dir())
    parser.add_argument("--profile", default="quick", help="the folder of outputs/ to look at (default: quick)")
    parser.add_argument("--workers", type=int, default=1, help="how many processes will do the rest (for the time it takes)")
    parser.add_argument("--json", action="store_true", help="a row per search, as JSON")
    arguments = parser.parse_args()
    if arguments.profile not in known and arguments.profile not in ("smoke", "quick", "full"):
        choose("profile", arguments.profile, known)
    if arguments.workers < 1:
        raise UserError(f"workers must be a whole number of at least 1, got {arguments.workers}")
    table = Survey(paths.outputs() / arguments.profile / "searches").now()
    if arguments.json:
        print(table.to_json(orient="records", indent=1))
    elif len(table):
        print(summary(table, arguments.workers))
    else:
        print(f"no search of profile {arguments.profile} has been begun")


if __name__ == "__main__":
    errors.run(main)
