"""Run one search to its budget: the loop between search and evaluation, recorded, checkpointed and resumed exactly."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from weightlab.errors import UserError
from weightlab.runs import records
from weightlab.runs.folder import RunFolder
from weightlab.search import Search
from weightlab.search.fitness import Target
from weightlab.search.space import IntegerSpace

SLICE_S = 10  # a generation that takes longer is measured in slices of about this length
KEPT_S = 1  # the least time between two checkpoints
SPENT = ("seconds", "evaluating_seconds")  # the recorded times of a generation


class Stopped(Exception):
    """A search was stopped by its caller; another call resumes it from its checkpoint."""


class Pace:
    """How many plans to measure in one call: as many as `SLICE_S` allows, `most` at most.

    The first plan is measured by itself, to learn how long one takes. Plans that are measured together share work, so a generation
    that is fast is not cut further.
    """

    def __init__(self, most: int | None = None):
        self._most = most
        self._seconds_each: float | None = None

    def next(self, left: int) -> int:
        """The number of plans of the next call, of those that are left."""
        if self._seconds_each is None:
            return 1
        fitting = max(1, int(SLICE_S / max(self._seconds_each, 1e-9)))
        return min(left, fitting, self._most or left)

    def took(self, seconds: float, new: int) -> None:
        """Learn how long a call took; `new` of its plans were not measured before (the others take no time)."""
        if new:
            self._seconds_each = seconds / new


def run(
    search: Search,
    target: Target,
    measure: Callable[[np.ndarray], pd.DataFrame],
    budget: int,
    folder: Path,
    identity: Mapping = MappingProxyType({}),
    progress: Callable[[pd.DataFrame], object] = lambda records: None,
    stop: Callable[[], bool] = lambda: False,
) -> pd.DataFrame:
    """Generations until the next no longer fits the budget (in evaluations).

    `measure` takes plans (n, d) and returns a row for each, among its columns `accuracy` (fraction) and `rate`, the objectives. It is
    called once for a generation, several times where that takes longer than `SLICE_S`, and once for the first plan (see `Pace`).
    `progress` is given the records as they come: first those of a checkpoint, then those of each generation. Where a generation is
    slow, `progress` is given parts of it, whose fitness is NaN until the whole is measured. Once `stop` is true, what is measured is
    checkpointed and `Stopped` raised.

    Records go to `folder` (see `runs.folder`), at most one checkpoint every `KEPT_S` seconds, between generations or inside a slow one.
    A call on a folder with a checkpoint resumes there, and ends with the same file, byte for byte, as a call that was never
    interrupted.
    """
    course = _Course(search, target, RunFolder(folder), budget, progress, stop)
    while search.evaluations + search.size <= budget:
        course.generation(measure)
    if not course.records:
        raise UserError(f"a budget of {budget} evaluations is too small for the first generation of {search.size}")
    return course.complete(identity)


class _Course:
    """What a search has done so far: records and times of whole generations, and the measured part of the current one."""

    def __init__(self, search: Search, target: Target, folder: RunFolder, budget: int, progress: Callable, stop: Callable):
        self._search, self._target, self._folder, self._budget = search, target, folder, budget
        self._progress, self._stop, self._pace = progress, stop, Pace()
        self.records: list[pd.DataFrame] = []
        self._times: list[dict] = []
        self._measured: list[pd.DataFrame] = []  # what `measure` gave for the current generation
        self._begun: dict = {}  # of a generation that a checkpoint was in: when it began, and the seconds spent on it until then
        self._begun_plans: np.ndarray | None = None  # its plans that were measured by then
        self._shown = 0  # how many rows of the current generation `progress` has been given
        self._resume()
        self._evaluated_plans = {tuple(plan) for table in self.records for plan in table["plan"]}
        self._saved = time.monotonic()

    def generation(self, measure: Callable[[np.ndarray], pd.DataFrame]) -> None:
        """Measure a generation, or the rest of one, and learn from it."""
        search, target = self._search, self._target
        before = {"search": search.state(), "target": target.now.tolist()}
        here, evaluated = time.time(), 0.0
        begun = self._begun or {"started": here} | dict.fromkeys(SPENT, 0.0)
        plans = search.ask()
        if self._begun_plans is not None and not np.array_equal(plans[: len(self._begun_plans)], self._begun_plans):
            raise self._foreign("the plans of its last generation differ")
        self._begun_plans = None
        head = self._head(plans)

        def times() -> dict:
            spent = (time.time() - here, evaluated)
            return begun | {name: begun[name] + seconds for name, seconds in zip(SPENT, spent, strict=True)}

        while (done := sum(map(len, self._measured))) < len(plans):
            began, until = time.perf_counter(), done + self._pace.next(len(plans) - done)
            self._measured.append(measure(plans[done:until]))
            seconds = time.perf_counter() - began
            evaluated += seconds
            self._pace.took(seconds, int((~head["repeated"][done:until]).sum()))
            if until < len(plans):
                self._between(_joined(head[:until], self._measured, np.nan, target.now), before | {"begun": times()})

        objectives = pd.concat(self._measured, ignore_index=True)[["accuracy", "rate"]].to_numpy()
        target.update(objectives)
        table = _joined(head, self._measured, target.fitness(objectives), target.now)
        search.tell(objectives, target.fitness)
        self._evaluated_plans.update(map(tuple, plans))
        self.records.append(table)
        self._times.append({"generation": search.generation - 1} | times() | {"host": platform.node(), "process": os.getpid()})
        shown, self._shown, self._measured, self._begun = self._shown, 0, [], {}
        self._progress(table[shown:])
        self._keep(self.records, {"search": search.state(), "target": target.now.tolist()}, search.evaluations, self._stop())

    def complete(self, identity: Mapping) -> pd.DataFrame:
        """Write the final records, with columns `identity` before the others, and return them as they are read."""
        table = pd.concat(self.records, ignore_index=True)
        for column, value in reversed(list(identity.items())):
            table.insert(0, column, value)
        self._folder.complete(table, pd.DataFrame(self._times))
        return self._folder.records()

    def _head(self, plans: np.ndarray) -> pd.DataFrame:
        """The columns of a generation that are known before it is measured."""
        keys, first = [tuple(plan) for plan in plans], self._search.evaluations
        head = {"evaluation": np.arange(first, first + len(plans)), "generation": self._search.generation, "plan": list(plans)}
        head["repeated"] = [key in self._evaluated_plans or key in keys[:i] for i, key in enumerate(keys)]
        if self._search.uniform_start and isinstance(self._search.space, IntegerSpace):
            head["uniform"] = self._search.space.is_uniform(plans)
        return pd.DataFrame(head)

    def _between(self, rows: pd.DataFrame, state: dict) -> None:
        """Report and checkpoint the measured part of a generation, if the last checkpoint is long enough ago."""
        if time.monotonic() - self._saved < KEPT_S:
            return
        self._progress(rows[self._shown :])
        self._shown = len(rows)
        self._keep([*self.records, rows], state, self._search.evaluations + len(rows), self._stop())

    def _keep(self, records: list[pd.DataFrame], state: dict, evaluations: int, stopped: bool) -> None:
        """Checkpoint records and their state, if the last checkpoint is long enough ago or the search stops here."""
        if stopped or time.monotonic() - self._saved >= KEPT_S:
            self._folder.checkpoint(pd.concat(records, ignore_index=True), state | {"times": self._times})
            self._saved = time.monotonic()
        if stopped:
            raise Stopped(f"stopped after {evaluations} of {self._budget} evaluations, all of them kept in {self._folder.path}")

    def _resume(self) -> None:
        """Resume from the folder's checkpoint if there is one; raises `UserError` for that of another search."""
        if (checkpoint := self._folder.resume()) is None:
            return
        table, state = checkpoint
        try:
            self._search.restore(state["search"])
            self._target.now = np.array(state["target"], dtype=float)
            self._times, begun = state["times"], state.get("begun")
            self._begun = {name: begun[name] for name in ("started", *SPENT)} if begun else {}
            whole, rest = table[: self._search.evaluations], table[self._search.evaluations :].reset_index(drop=True)
            if len(whole) != self._search.evaluations or bool(len(rest)) != bool(self._begun):
                raise ValueError(f"{len(table)} records for {self._search.evaluations} evaluations")
            if len(rest):
                self._begun_plans, self._shown = np.stack(rest["plan"]), len(rest)
                self._measured = [
                    rest.drop(columns=[*records.names(records.PLAN), *records.names(records.SCORE)], errors="ignore")
                ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._foreign(str(error)) from error
        self.records = [whole] if len(whole) else []
        self._progress(table)

    def _foreign(self, why: str) -> UserError:
        return UserError(f"the checkpoint in {self._folder.path} is of another search ({why}); delete that folder")


def _joined(head: pd.DataFrame, measured: list[pd.DataFrame], fitness: np.ndarray | float, target: np.ndarray) -> pd.DataFrame:
    """Records: the columns known before, the measured ones, and the scores."""
    table = pd.concat([head, pd.concat(measured, ignore_index=True)], axis=1)
    table["fitness"] = fitness
    table["target_accuracy"], table["target_rate"] = target
    return table
