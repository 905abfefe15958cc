"""Ways to disturb a grid of searches at work, in real processes: used by `make bench-faults` and, a little, by the tests."""

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
from grids import SPECIFICATIONS, Grid, end, schedule, start, wait_for, work_for

# --- kills: each disturbs once and returns the number of processes killed at work ----------------------------------------------


def kill_the_process(grid: Grid, chance: random.Random) -> int:
    """The one process that does everything."""
    child = grid.start()
    _wait_a_while(grid, chance, child)
    child.kill()
    return end(child).count(-signal.SIGKILL)


def kill_a_worker(grid: Grid, chance: random.Random) -> int:
    """One of two worker processes, then one of those that replace them; now and then a worker of dask.

    The grid must go on by itself to its end, and say that a worker died.
    """
    if chance.randrange(3) == 0:
        return _kill_a_dask_worker(grid, chance)
    child, killed, seen = grid.start(workers=2), 0, []

    def fresh() -> list[psutil.Process]:
        """None of the old ones: joblib ends the sibling of a worker that died, soon after the death is told."""
        return _at_work(_below(child, seen), grid) if _deaths(grid) == killed else []

    for _ in range(2):
        workers = wait_for(fresh, child)
        _wait_a_while(grid, chance, child)
        if workers and child.is_alive():
            seen += _below(child)
            with suppress(psutil.NoSuchProcess):
                chance.choice(workers).kill()
                killed += 1
            grid.note()
    if end(child) != [0] or _deaths(grid) > killed:
        raise RuntimeError(grid.text()[-2000:])
    return _deaths(grid)  # a kill in the moment of the end is not noticed, and not counted


def _kill_a_dask_worker(grid: Grid, chance: random.Random) -> int:
    """One of two, at work; dask gives its search to the other without a word."""
    with _on_dask(grid) as (child, _, workers):
        _wait_a_while(grid, chance, child)
        victims = _at_work([psutil.Process(worker.pid) for worker in workers], grid)
        if victims:
            chance.choice(victims).kill()
            grid.note()
        if end(child) != [0]:
            raise RuntimeError(grid.text()[-2000:])
    return int(bool(victims))


def kill_the_scheduler(grid: Grid, chance: random.Random) -> int:
    """A dask scheduler with two workers: the grid must end by itself with a sentence, and its workers too.

    Those complete the search they are at before they leave; so every second time they are killed as well, as when a machine is lost.
    """
    told = grid.text().count("is gone")
    with _on_dask(grid) as (child, scheduler, workers):
        _wait_a_while(grid, chance, child)
        lost = [scheduler, *workers] if chance.random() < 0.5 else [scheduler]
        for process in lost:
            process.kill()
        grid.note()
        code, *_ = end(child, *workers, scheduler)
    if code == 0:
        return 0  # it was done before
    if grid.text().count("is gone") == told:
        raise RuntimeError(f"no sentence about the scheduler: {grid.text()[-2000:]}")
    return 1


@contextmanager
def _on_dask(grid: Grid) -> Iterator[tuple[multiprocessing.Process, multiprocessing.Process, list[multiprocessing.Process]]]:
    """The grid, a dask scheduler and its two workers, once a worker is at work."""
    beside = grid.folder.with_suffix(".dask")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    started = [start(schedule, beside / "address")]
    try:
        wait_for((beside / "address").exists, started[0])
        address = (beside / "address").read_text()
        started += [start(work_for, address, beside / f"worker-{i}") for i in range(2)]
        scheduler, *workers = started
        for i in range(2):
            wait_for((beside / f"worker-{i}").exists, workers[i])
        started.append(child := grid.start(scheduler=address))
        wait_for(lambda: _at_work([psutil.Process(worker.pid) for worker in workers], grid), child)
        yield child, scheduler, workers
    finally:
        for process in started:
            process.kill()
            process.join()


def kill_one_of_two(grid: Grid, chance: random.Random) -> int:
    """One of two invocations on the same folder; the other must go on to the end of the grid."""
    children = [grid.start(), grid.start()]
    _wait_a_while(grid, chance, children[0])
    victim = chance.randrange(2)
    children[victim].kill()
    grid.note()
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
    finished and must be the same byte for byte, with nothing damaged and every checkpoint gone on from; then a new one begins. A kill
    counts as survived if all checks up to the end of its grid hold.
    """
    tried = survived = 0
    while tried < times:
        grid.renew()
        here = 0
        try:
            while here < min(3, times - tried) and len(grid.complete()) < len(SPECIFICATIONS):
                before = grid.complete()
                here += KILLS[kind](grid, chance)
                grid.note()
                assert set(before) <= set(grid.complete()), "something complete was lost"
                grid.check()
            grid.finish()
            grid.check_whole()
            grid.check_resumed()
            survived += here
        except Exception as error:
            here += 1  # the one that was not survived
            print(f"NOT SURVIVED ({kind}): {type(error).__name__}: {error}", file=sys.stderr)
        tried += here
    return survived, tried


def interrupt(grid: Grid, chance: random.Random, workers: int) -> bool:
    """Ctrl-C, to the process and its workers as a terminal sends it: whether it ends with its sentence and status 130."""
    child = grid.start(workers)
    wait_for(lambda: list(grid.folder.glob("*/.lock")), child)
    time.sleep(chance.uniform(0, 2))
    os.killpg(child.pid, signal.SIGINT)
    return end(child) == [130] and "interrupted: complete results are kept" in grid.text()


def _wait_a_while(grid: Grid, chance: random.Random, child: multiprocessing.Process) -> None:
    """Up to a random moment; every second time one soon after a checkpoint, of which these short searches write few."""
    if chance.random() < 0.5:
        before = _checkpoints(grid)
        wait_for(lambda: _checkpoints(grid) - before, child)
        time.sleep(chance.uniform(0, 0.3))
    else:
        time.sleep(chance.uniform(0.3, 4))


def _checkpoints(grid: Grid) -> set[tuple[str, int]]:
    """Those that lie there, and when they were written."""
    found = set()
    for file in grid.folder.glob("*/checkpoint.parquet"):
        with suppress(FileNotFoundError):  # its search has just ended
            found.add((str(file), file.stat().st_mtime_ns))
    return found


def workers_at_work(child: multiprocessing.Process, grid: Grid) -> list[psutil.Process]:
    """Worker processes of a grid, once they hold folders of searches."""
    return _at_work(_below(child), grid)


def _below(parent: multiprocessing.Process, without: list[psutil.Process] = ()) -> list[psutil.Process]:
    try:
        return [child for child in psutil.Process(parent.pid).children() if child not in without]
    except psutil.Error:  # it has ended
        return []


def _at_work(candidates: list[psutil.Process], grid: Grid) -> list[psutil.Process]:
    found = []
    for process in candidates:
        with suppress(psutil.Error):
            # Below the folder: the messages beside it are open in workers that have only just started.
            found += [process] if any(file.path.startswith(f"{grid.folder}{os.sep}") for file in process.open_files()) else []
    return found


def _deaths(grid: Grid) -> int:
    return grid.text().count("a worker died")
