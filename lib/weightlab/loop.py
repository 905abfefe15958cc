"""One search run to a budget: the one loop between search and evaluation, recorded, checkpointed and resumed exactly."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from weightlab.errors import UserError
from weightlab.fitness import Target
from weightlab.run_folder import RunFolder
from weightlab.search import Search


class Stopped(Exception):
    """A search has ended early because its caller wished so; another call goes on from its checkpoint."""


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

    `measure` takes plans (n, d) and returns a row for each, among its columns `accuracy` (fraction) and `rate`, the objectives.
    `progress` is given the records of each generation, and first those of a checkpoint. Once `stop` is true the generation at hand
    is checkpointed and `Stopped` raised. Records go to `folder` (see `run_folder`), at most one checkpoint a second, after a whole
    generation; a call on a folder with a checkpoint goes on from there, and ends with the same file, byte for byte, as a call that
    was never interrupted.
    """
    folder = RunFolder(folder)
    records, times = _resume(search, target, folder)
    for table in records:
        progress(table)
    seen = {tuple(plan) for table in records for plan in table["plan"]}
    saved = time.monotonic()
    while search.evaluations + search.size <= budget:
        started = time.time()
        plans = search.ask()
        table = measure(plans)
        evaluated = time.time() - started
        objectives = table[["accuracy", "rate"]].to_numpy()
        target.update(objectives)
        table["fitness"] = target.fitness(objectives)
        table["target_accuracy"], table["target_rate"] = target.now
        first = search.evaluations
        search.tell(objectives, target.fitness)
        table.insert(0, "evaluation", np.arange(first, search.evaluations))
        table.insert(1, "generation", search.generation - 1)
        table.insert(2, "plan", list(plans))
        keys = [tuple(plan) for plan in plans]
        table.insert(3, "repeated", [key in seen or key in keys[:i] for i, key in enumerate(keys)])
        seen.update(keys)
        records.append(table)
        times.append({"generation": search.generation - 1, "started": started, "seconds": time.time() - started,
                      "evaluating_seconds": evaluated, "host": platform.node(), "process": os.getpid()})  # fmt: skip
        progress(table)
        stopped = stop()
        if stopped or time.monotonic() - saved >= 1:
            state = {"search": search.state(), "target": target.now.tolist(), "times": times}
            folder.checkpoint(pd.concat(records, ignore_index=True), state)
            saved = time.monotonic()
        if stopped:
            raise Stopped(f"stopped after {search.evaluations} of {budget} evaluations, all of them kept in {folder.path}")
    if not records:
        raise UserError(f"a budget of {budget} evaluations does not hold the first generation of {search.size}")
    table = pd.concat(records, ignore_index=True)
    for column, value in reversed(identity.items()):
        table.insert(0, column, value)
    folder.complete(table, pd.DataFrame(times))
    return folder.records()


def _resume(search: Search, target: Target, folder: RunFolder) -> tuple[list[pd.DataFrame], list[dict]]:
    if (found := folder.resume()) is None:
        return [], []
    table, state = found
    try:
        search.restore(state["search"])
        target.now = np.array(state["target"], dtype=float)
        if len(table) != search.evaluations:
            raise ValueError(f"{len(table)} records for {search.evaluations} evaluations")
        return [table], state["times"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the checkpoint in {folder.path} is not one of this search ({error}); delete that folder") from error
