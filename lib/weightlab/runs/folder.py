"""The folder of one search: its files, how it is checkpointed, resumed and completed, and what happens to damage.

specification.json   what is searched, written when a grid begins
.lock                held (flock) by the process that runs the search; released when that process ends in any way
checkpoint.parquet   the records so far and, noted in the same file, the state to resume from
evaluations.parquet  the records of a complete search, the same bytes with and without interruptions
times.parquet        seconds, host and process of each generation
failed.json          why it stopped, until it is resumed
"""

import itertools
import json
import platform
import re
import time
import traceback
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pandas as pd

from weightlab import storage
from weightlab.errors import UserError, flat

LEFTOVER = re.compile(r"\..+\.(parquet|json)\.[0-9a-f]+")  # what `storage.write_whole` leaves when it is killed


class RunFolder:
    """The files of one search. Only the holder of the lock writes, except for the specification."""

    def __init__(self, path: Path):
        self.path = path
        self._records, self._checkpoint = path / "evaluations.parquet", path / "checkpoint.parquet"

    def begin(self, description: Mapping) -> None:
        """Write the specification; raises `UserError` before any work if the folder cannot be written."""
        content = json.dumps(description, indent=1).encode()
        file = self.path / "specification.json"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for last in (False, False, True):
                try:
                    if not file.exists() or file.read_bytes() != content:
                        storage.write_whole(file, content)
                    return
                except FileNotFoundError:  # the holder of the lock removed the temporary file as a leftover
                    if last:
                        raise
        except OSError as error:
            raise UserError(f"the outputs folder {self.path} cannot be written: {error}") from error

    def lock(self, wait: bool = True) -> AbstractContextManager[bool]:
        """Hold the folder's lock; yields whether it is ours, which without `wait` it may not be (see `storage.lock`)."""
        return storage.lock(self.path / ".lock", wait)

    def records(self) -> pd.DataFrame | None:
        """The records of the complete search; None if it is not complete or they are damaged."""
        try:
            records = storage.read_table(self._records)[0] if self._records.exists() else None
        except UserError:
            return None
        if records is not None and self._checkpoint.exists():  # killed between the two
            with suppress(OSError):
                self._checkpoint.unlink()
        return records

    def tidy(self) -> pd.DataFrame | None:
        """`records`, after damaged files are put aside and leftovers of kills and failures removed; the lock must be held."""
        for file in self.path.iterdir():
            if LEFTOVER.fullmatch(file.name) or file.name == "failed.json":
                file.unlink(missing_ok=True)
        if not self._records.exists():
            return None
        try:
            records = storage.read_table(self._records)[0]
        except storage.Damaged as error:
            self._put_aside(self._records, error)
            return None
        self._checkpoint.unlink(missing_ok=True)
        return records

    def resume(self) -> tuple[pd.DataFrame, dict] | None:
        """The records and the state of the checkpoint; None if there is none or it is damaged (then it is put aside)."""
        if not self._checkpoint.exists():
            return None
        try:
            table, notes = storage.read_table(self._checkpoint)
        except storage.Damaged as error:
            self._put_aside(self._checkpoint, error)
            return None
        return table, json.loads(notes["state"])

    def checkpoint(self, records: pd.DataFrame, state: dict) -> None:
        """Write records and state into one file, so that they always belong together."""
        storage.write_table(records, self.path, "checkpoint", {"state": json.dumps(state)})

    def complete(self, records: pd.DataFrame, times: pd.DataFrame) -> None:
        """Write the final records; the checkpoint is removed last."""
        storage.write_table(times, self.path, "times")
        storage.write_table(records, self.path, "evaluations")
        self._checkpoint.unlink(missing_ok=True)

    def fail(self, error: BaseException) -> None:
        """Note why the search stopped, if that can still be written."""
        failure = {
            "error": flat(error) or type(error).__name__, "kind": type(error).__name__,
            "traceback": "".join(traceback.format_exception(error)), "host": platform.node(),
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }  # fmt: skip
        with suppress(OSError):
            storage.write_whole(self.path / "failed.json", json.dumps(failure, indent=1).encode())

    def _put_aside(self, file: Path, error: Exception) -> None:
        places = (self.path / f"damaged-{number}-{file.name}" for number in itertools.count())
        aside = file.replace(next(place for place in places if not place.exists()))
        warnings.warn(f"{error}; it is kept as {aside.name}, and the search starts again", stacklevel=3)
