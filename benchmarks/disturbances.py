"""Ways to disturb a grid of searches at work, in real processes: used by `make bench-faults` and, a little, by the tests.

A grid runs in a child process, its messages go to a file. `Grid.check` holds what lies in its folder against the undisturbed run.
"""

import asyncio
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from joblib.externals.loky import get_reusable_executor

from weightlab import errors, runs
from weightlab.fitness import TargetRule

SPECIFICATIONS = runs.grid(
    ["lenet5_tanh"], [TargetRule(0.99, 18.0, "batch")], ["genetic", "black_hole"], range(2), k_max=20, threshold=0.9, images=300
)
PATIENCE_S = 300  # after which something hangs
processes = multiprocessing.get_context("forkserver")  # children start at once, with everything imported
processes.set_forkserver_preload(["warm", "sklearn.cluster", "distributed"])


def run_grid(folder: Path, messages: Path, workers: int = 1, scheduler: str | None = None) -> None:
    """What a child does: the whole grid, as a notebook's command would, messages of all its processes into a file."""
    os.setpgrp()  # so that Ctrl-C can be sent to it and its workers, as a terminal does
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


@dataclass
class Grid:
    """A folder with the grid, and what an undisturbed run has left in another."""

    folder: Path
    undisturbed: Path

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

    def renew(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.messages.unlink(missing_ok=True)


# --- kills: each disturbs once and returns the number of processes killed at work ----------------------------------------------


def kill_the_process(grid: Grid, chance: random.Random) -> int:
    """The one process that does everything."""
    child = grid.start()
    time.sleep(chance.uniform(0.3, 5))
    child.kill()
    return end(child).count(-signal.SIGKILL)


def kill_a_worker(grid: Grid, chance: random.Random) -> int:
    """One of two worker processes, then another; the grid must go on by itself to its end, and say that a worker died."""
    child, killed = grid.start(workers=2), 0
    for _ in range(2):
        workers = _wait_for(lambda: child.is_alive() and _workers_at_work(child.pid, grid), child)
        time.sleep(chance.uniform(0, 3))
        if workers and child.is_alive():
            with suppress(psutil.NoSuchProcess):
                chance.choice(workers).kill()
                killed += 1
    if end(child) != [0] or grid.text().count("a worker died") > killed:
        raise RuntimeError(grid.text()[-2000:])
    return grid.text().count("a worker died")  # a kill in the moment of the end is not noticed, and not counted


def kill_the_scheduler(grid: Grid, chance: random.Random) -> int:
    """A dask scheduler with two workers: the grid must end by itself with a sentence, and its workers too."""
    beside = grid.folder.with_suffix(".dask")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    scheduler = start(schedule, beside / "address")
    _wait_for((beside / "address").exists, scheduler)
    address = (beside / "address").read_text()
    workers = [start(work_for, address, beside / f"worker-{i}") for i in range(2)]
    for i in range(2):
        _wait_for((beside / f"worker-{i}").exists, workers[i])
    child = grid.start(scheduler=address)
    time.sleep(chance.uniform(0.3, 4))
    scheduler.kill()
    code, *_ = end(child, *workers, scheduler)
    if code == 0:
        return 0  # it was done before
    if "is gone" not in grid.text() and "no dask scheduler answers" not in grid.text():
        raise RuntimeError(f"no sentence about the scheduler: {grid.text()[-2000:]}")
    return 1


def kill_one_of_two(grid: Grid, chance: random.Random) -> int:
    """One of two invocations on the same folder; the other must go on to the end of the grid."""
    children = [grid.start(), grid.start()]
    time.sleep(chance.uniform(0.3, 5))
    victim = chance.randrange(2)
    children[victim].kill()
    codes = end(*children)
    if codes[1 - victim] != 0:
        raise RuntimeError(grid.text()[-2000:])
    return int(codes[victim] == -signal.SIGKILL)


KILLS = {
    "process": kill_the_process,
    "worker": kill_a_worker,
    "scheduler": kill_the_scheduler,
    "one of two invocations": kill_one_of_two,
}


def kill(kind: str, times: int, grid: Grid, chance: random.Random) -> tuple[int, int]:
    """Kill at least `times` times; returns how many kills were survived and tried.

    After each nothing complete may be lost or differ from the undisturbed run. A grid that is killed up to three times is then
    finished and must be the same byte for byte; then a new one begins. A kill counts as survived if all checks up to the end of its
    grid hold.
    """
    tried = survived = 0
    while tried < times:
        grid.renew()
        here = 0
        try:
            while here < min(3, times - tried) and len(grid.complete()) < len(SPECIFICATIONS):
                before = grid.complete()
                here += KILLS[kind](grid, chance)
                assert set(before) <= set(grid.complete()), "something complete was lost"
                grid.check()
            grid.finish()
            grid.check_whole()
            survived += here
        except Exception as error:
            here += 1  # the one that was not survived
            print(f"NOT SURVIVED ({kind}): {type(error).__name__}: {error}", file=sys.stderr)
        tried += here
    return survived, tried


def interrupt(grid: Grid, chance: random.Random, workers: int) -> bool:
    """Ctrl-C, to the process and its workers as a terminal sends it: whether it ends with its sentence and status 130."""
    child = grid.start(workers)
    _wait_for(lambda: list(grid.folder.glob("*/.lock")), child)
    time.sleep(chance.uniform(0, 2))
    os.killpg(child.pid, signal.SIGINT)
    return end(child) == [130] and "interrupted: what is complete is kept" in grid.text()


def _wait_for(condition: Callable, child: multiprocessing.Process):
    limit = time.monotonic() + PATIENCE_S
    while not (found := condition()) and child.is_alive():
        if time.monotonic() > limit:
            raise TimeoutError("nothing happened")
        time.sleep(0.05)
    return found


def _workers_at_work(parent: int, grid: Grid) -> list[psutil.Process]:
    """Worker processes of a grid, once they hold folders of searches."""
    found = []
    with suppress(psutil.Error):
        for child in psutil.Process(parent).children():
            with suppress(psutil.Error):
                # Below the folder: the messages beside it are open in workers that have only just started.
                found += [child] if any(file.path.startswith(f"{grid.folder}{os.sep}") for file in child.open_files()) else []
    return found
