"""A grid of searches in real processes, to be disturbed: the processes, and what must be true of the grid's folder afterwards.

A grid runs in a child process, its messages go to a file. `Grid` holds what lies in its folder against an undisturbed run.
"""

import asyncio
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from joblib.externals.loky import get_reusable_executor

from weightlab import errors, runs, storage
from weightlab.search.fitness import TargetRule

SPECIFICATIONS = runs.grid(
    ["lenet5_tanh"], [TargetRule(0.99, 18.0, "batch")], ["genetic", "black_hole"], range(2), k_max=20, threshold=0.9, images=450
)
PATIENCE_S = 300  # after which something hangs
os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")  # not a line for every connection
processes = multiprocessing.get_context("forkserver")  # children start at once, with everything imported
processes.set_forkserver_preload(["warm", "sklearn.cluster", "distributed"])
# Its server looks for them where Python does, not where the main program does (before Python 3.13).
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])


def run_grid(folder: Path, messages: Path, workers: int = 1, scheduler: str | None = None) -> None:
    """What a child does: the whole grid, as a notebook's command would, messages of all its processes into a file."""
    os.setpgrp()  # so that Ctrl-C can be sent to it and its workers, as a terminal does
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which what runs in a shell's background is not told of
    with open(messages, "ab") as file:
        os.dup2(file.fileno(), 2)
    runner = runs.Runner(folder, threads=1, workers=workers, scheduler=scheduler)
    try:
        errors.run(lambda: runner.run_all(SPECIFICATIONS))
    finally:
        if workers > 1:  # multiprocessing would wait for them before joblib's own end comes
            get_reusable_executor().shutdown(kill_workers=True)


def schedule(address: Path) -> None:
    """A dask scheduler, its address written to a file."""
    from distributed import Scheduler

    async def live() -> None:
        async with Scheduler(host="127.0.0.1", port=0, dashboard=False) as scheduler:
            address.with_suffix(".new").write_text(scheduler.address)
            address.with_suffix(".new").rename(address)
            await scheduler.finished()

    asyncio.run(live())


def work_for(scheduler: str, ready: Path) -> None:
    """A dask worker of one thread; touches a file when the scheduler knows it."""
    from distributed import Worker

    async def live() -> None:
        async with Worker(scheduler, nthreads=1, dashboard=False) as worker:
            ready.touch()
            await worker.finished()

    asyncio.run(live())


def start(function: Callable, *arguments) -> multiprocessing.Process:
    process = processes.Process(target=function, args=arguments)
    process.start()
    return process


def end(*children: multiprocessing.Process, patience_s: float = PATIENCE_S) -> list[int]:
    """Wait for processes to end by themselves and return their exit codes; raises `TimeoutError` if one does not."""
    limit = time.monotonic() + patience_s
    for child in children:
        child.join(max(0, limit - time.monotonic()))
        if child.is_alive():
            child.kill()
            raise TimeoutError(f"a process still ran after {patience_s} s")
    return [child.exitcode for child in children]


def wait_for(condition: Callable, child: multiprocessing.Process):
    limit = time.monotonic() + PATIENCE_S
    while not (found := condition()) and child.is_alive():
        if time.monotonic() > limit:
            raise TimeoutError("nothing happened")
        time.sleep(0.05)
    return found


@dataclass
class Grid:
    """A folder with the grid, and what an undisturbed run has left in another."""

    folder: Path
    undisturbed: Path
    resumed: int = 0  # checkpoints from which another process went on, counted by `check_resumed`
    _noted: dict[tuple[str, float], list[dict]] = field(default_factory=dict)  # of a run: times of its generations

    @property
    def messages(self) -> Path:
        return self.folder.with_suffix(".messages")

    def text(self) -> str:
        return self.messages.read_text(errors="replace") if self.messages.exists() else ""

    def start(self, workers: int = 1, scheduler: str | None = None) -> multiprocessing.Process:
        return start(run_grid, self.folder, self.messages, workers, scheduler)

    def finish(self) -> None:
        """Run what is left to the end."""
        if end(self.start()) != [0]:
            raise RuntimeError(self.text()[-2000:])

    def complete(self) -> list[str]:
        return sorted(file.parent.name for file in self.folder.glob("*/evaluations.parquet"))

    def check(self) -> None:
        """Raise `AssertionError` unless every complete search has the bytes of the undisturbed run."""
        for run in self.complete():
            ours, theirs = (each / run / "evaluations.parquet" for each in (self.folder, self.undisturbed))
            assert ours.read_bytes() == theirs.read_bytes(), f"{ours} is not as it should be"

    def check_whole(self) -> None:
        self.check()
        assert self.complete() == sorted(spec.hash for spec in SPECIFICATIONS), f"{self.folder} is not complete"
        for run in self.complete():
            left = {file.name for file in (self.folder / run).iterdir() if not file.name.startswith("damaged-")}
            assert left == {"specification.json", "evaluations.parquet", "times.parquet", ".lock"}, left

    def note(self) -> None:
        """Remember the checkpoints that lie there now, for `check_resumed`."""
        for file in self.folder.glob("*/checkpoint.parquet"):
            with suppress(errors.UserError, OSError):  # its search may end meanwhile; a damaged one will be told
                times = json.loads(storage.read_table(file)[1]["state"])["times"]
                self._noted[file.parent.name, times[-1]["started"]] = times

    def check_resumed(self) -> None:
        """Raise `AssertionError` if anything was damaged, or a search did not go on from a checkpoint noted before.

        The records are the same if it began anew, but the times at which its generations started are not.
        """
        aside = [str(file) for file in self.folder.rglob("damaged-*")]
        assert not aside and "is damaged" not in self.text(), f"damaged: {aside or self.text()[-2000:]}"
        for (run, _), before in self._noted.items():
            times = storage.read_table(self.folder / run / "times.parquet")[0].to_dict("records")
            assert times[: len(before)] == before, f"{run} was begun anew in spite of its checkpoint"
            self.resumed += any(each["process"] != before[-1]["process"] for each in times[len(before) :])
        self._noted.clear()

    def renew(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.messages.unlink(missing_ok=True)
        self._noted.clear()
