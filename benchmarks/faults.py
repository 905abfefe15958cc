"""Long runs under attack, and what two workers gain: `make bench-faults`.

Kills at random moments (see `disturbances`), a full disk, a folder that turns read-only, damaged files, Ctrl-C; then one grid run by
one worker, two workers and a dask cluster. The last line is one JSON object. Full disk and read-only folder need the right to mount
(root, or user namespaces); where there is none they are not tried, and that is said.
"""

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import disturbances
import pandas as pd
import psutil
from grids import SPECIFICATIONS, Grid, end, start
from joblib.externals.loky import get_reusable_executor

from weightlab import runs
from weightlab.search.fitness import TargetRule

KILLS_EACH = 30
ROUNDS = 2  # of the timed grids
TIMED = runs.grid(
    ["lenet5_tanh", "lenet5_relu"],
    [TargetRule(0.99, 18.0, "batch")],
    ["genetic", "particle_swarm", "black_hole"],
    range(4),
    images=1000,
)
WARM = runs.grid(["lenet5_tanh", "lenet5_relu"], [TargetRule(0.99, 18.0, "batch")], ["random"], range(2), images=1000, budget=20)


# --- faults: each gets a fresh grid and a random generator, raises or returns False if it was not survived ----------------------


@contextmanager
def small_disk(folder: Path, kilobytes: int):
    """A file system of its own below `folder`."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder], check=True, capture_output=True)
    try:
        yield lambda option: subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True, capture_output=True)
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


def full_disk(grid: Grid, chance: random.Random) -> bool:
    """So small that some write fails: codebooks, scan, a checkpoint or records."""
    with small_disk(grid.folder, chance.randrange(16, 180, 4)) as remount:
        ended = end(grid.start())
        grid.check()
        told = (ended == [1] and "No space left" in grid.text()) or ended == [0]  # it may just have fitted
        remount("size=100m")
        grid.finish()
        grid.check_whole()
    return told


def read_only(grid: Grid, chance: random.Random) -> bool:
    """A folder with some work in it that can no longer be written."""
    with small_disk(grid.folder, 100_000) as remount:
        disturbances.kill_the_process(grid, chance)
        before = {file: file.read_bytes() for file in grid.folder.rglob("*") if file.is_file()}
        remount("ro")
        ended = end(grid.start())
        told = ended == [1] and "cannot be written" in grid.text() and "Read-only" in grid.text()
        same = before == {file: file.read_bytes() for file in grid.folder.rglob("*") if file.is_file()}
        remount("rw")
        grid.finish()
        grid.check_whole()
    return told and same


def cut(file: Path, chance: random.Random) -> None:
    file.write_bytes(file.read_bytes()[: chance.randrange(file.stat().st_size)])


def flip(file: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def damaged(spoil: Callable[[Path, random.Random], None], pattern: str) -> Callable[[Grid, random.Random], bool]:
    """A file of the grid, found by a pattern, spoilt before the grid is gone on with."""

    def fault(grid: Grid, chance: random.Random) -> bool:
        if pattern == "*/checkpoint.parquet":
            while not list(grid.folder.glob(pattern)):
                grid.renew()
                disturbances.kill_the_process(grid, chance)
        else:
            shutil.copytree(grid.undisturbed, grid.folder)
        if not pattern.startswith("*/"):  # nothing complete rests on them any more
            for spec in SPECIFICATIONS:
                shutil.rmtree(grid.folder / spec.hash)
        if pattern.startswith("codebooks"):
            for scan in grid.folder.glob("scan-*"):
                scan.unlink()
        file = chance.choice(sorted(grid.folder.glob(pattern)))
        spoil(file, chance)
        grid.finish()
        grid.check_whole()
        return "is damaged" in grid.text() and file.name in grid.text()

    return fault


def interrupted(workers: int) -> Callable[[Grid, random.Random], bool]:
    def fault(grid: Grid, chance: random.Random) -> bool:
        told = disturbances.interrupt(grid, chance, workers)
        grid.note()
        grid.check()
        grid.finish()
        grid.check_whole()
        grid.check_resumed()
        return told

    return fault


FILES = {
    "records": "*/evaluations.parquet",
    "checkpoint": "*/checkpoint.parquet",
    "scan": "scan-*.parquet",
    "codebook": "codebooks/*.safetensors",
}
FAULTS = {f"{name} {spoil.__name__}": (damaged(spoil, pattern), 3) for name, pattern in FILES.items() for spoil in (cut, flip)}
FAULTS |= {"Ctrl-C": (interrupted(1), 3), "Ctrl-C, two workers": (interrupted(2), 3)}
MOUNTED = {"full disk": (full_disk, 8), "read-only folder": (read_only, 2)}


def attack(folder: Path, undisturbed: Path) -> dict:
    names = ("kills_survived", "kills_tried", "checkpoints_resumed", "faults_survived", "faults_tried")
    counts = dict.fromkeys(names, 0)
    for kind in disturbances.KILLS:
        grid = Grid(folder / "killed", undisturbed)
        survived, tried = disturbances.kill(kind, KILLS_EACH, grid, random.Random(kind))
        tell(f"killed {kind}: {survived} of {tried} survived, {grid.resumed} checkpoints gone on from by another process")
        counts["kills_survived"] += survived
        counts["kills_tried"] += tried
        counts["checkpoints_resumed"] += grid.resumed
    not_tried = [] if can_mount() else list(MOUNTED)
    faults = FAULTS if not_tried else FAULTS | MOUNTED
    if not_tried:
        tell(f"NOT TRIED: {' and '.join(not_tried)}, because nothing can be mounted here")
    for name, (fault, times) in faults.items():
        survived = 0
        for number in range(times):
            grid = Grid(folder / "faulty", undisturbed)
            grid.renew()
            try:
                survived += bool(fault(grid, random.Random(f"{name} {number}")))
            except Exception as error:
                tell(f"NOT SURVIVED ({name}): {type(error).__name__}: {error}")
        tell(f"{name}: {survived} of {times} survived")
        counts["faults_survived"] += survived
        counts["faults_tried"] += times
    return counts | {"not_tried": not_tried}


# --- what workers gain ----------------------------------------------------------------------------------------------------------


class PeakMemory(threading.Thread):
    """The highest sum of resident memory of this process and all below it, in GiB; pages that they share count in each."""

    def __init__(self):
        super().__init__(daemon=True)
        self.gib, self._ended = 0.0, threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.2):
            total = 0
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.Error:  # it has just ended
                    continue
            self.gib = max(self.gib, total / 2**30)

    def end(self) -> float:
        self._ended.set()
        self.join()
        return self.gib


def timed(folder: Path, ground: Path, result: Path, **execution) -> None:
    """One run of the grid in a process of its own, with scans and codebooks there already; what it took goes to a file, as JSON.

    Overhead is what workers did besides evaluating while there was work for them: searching, records, locks, being given the next.
    """
    memory = PeakMemory()
    memory.start()
    # Processes start beforehand; evaluators are built in the timed part, by one worker as by two.
    if execution.get("workers") == 2:
        runs.Runner(folder.with_name("start"), threads=1, progress=False, **execution).run_all(WARM)
        shutil.rmtree(folder.with_name("start"))
    shutil.copytree(ground, folder)
    runner = runs.Runner(folder, threads=1, progress=False, **execution)
    started = time.time()
    runner.run_all(TIMED)
    wall = time.time() - started
    times = pd.concat([pd.read_parquet(folder / spec.hash / "times.parquet") for spec in TIMED])
    busy = sum((part["started"] + part["seconds"]).max() - started for _, part in times.groupby(["host", "process"]))
    overhead = 100 * (1 - times["evaluating_seconds"].sum() / busy)
    digest = runs.records_hash(folder, [spec.hash for spec in TIMED])
    shutil.rmtree(folder)
    result.write_text(json.dumps({"wall": wall, "overhead": overhead, "hash": digest, "gib": memory.end()}))
    if execution.get("workers") == 2:  # multiprocessing would wait for them before joblib's own end comes
        get_reusable_executor().shutdown()


def compare(folder: Path) -> dict:
    from distributed import LocalCluster

    warm = runs.Runner(folder / "ground", threads=1, workers=1, progress=False)
    for spec in TIMED:
        warm.scan(spec)
    result = folder / "result.json"

    def measure(what: str, **execution) -> dict:
        child = start(partial(timed, folder / "timed", folder / "ground", result, **execution))
        if end(child, patience_s=1200) != [0]:
            raise RuntimeError(f"{what} failed")
        taken = json.loads(result.read_text())
        tell("{}: {wall:.1f} s, overhead {overhead:.1f} %, {gib:.2f} GiB".format(what, **taken))
        return taken

    one, two = [], []
    for _ in range(ROUNDS):
        one.append(measure("1 worker", workers=1))
        two.append(measure("2 workers", workers=2))
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        dask = measure("dask, 2 workers (not started beforehand, their memory not counted)", scheduler=cluster.scheduler_address)
    hashes = {taken["hash"] for taken in [*one, *two, dask]}
    tell(f"hash of all records: {' '.join(sorted(hashes))}")

    def median(taken: list[dict], what: str) -> float:
        return statistics.median(each[what] for each in taken)

    return {
        "speedup_2_workers": round(median(one, "wall") / median(two, "wall"), 2),
        "overhead_pct": round(median(two, "overhead"), 2),
        "peak_memory_gib": round(max(taken["gib"] for taken in two), 2),
        "records_hash_equal": len(hashes) == 1,
    }


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder) / "disk", 100):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def tell(text: str) -> None:
    print(f"{time.monotonic() - STARTED:6.0f} s  {text}", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        undisturbed = Grid(folder / "undisturbed", folder / "undisturbed")
        undisturbed.finish()
        gained = compare(folder)
        counts = attack(folder, undisturbed.folder)
    print(json.dumps(counts | gained))
    survived = counts["kills_survived"] == counts["kills_tried"] and counts["faults_survived"] == counts["faults_tried"]
    if not (survived and counts["checkpoints_resumed"] and gained["records_hash_equal"]):
        raise SystemExit(1)


def can_unshare() -> bool:
    """Whether user namespaces, in which one may mount, are there and allowed."""
    return bool(shutil.which("unshare")) and subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode == 0


if __name__ == "__main__":
    STARTED = time.monotonic()
    if os.geteuid() != 0 and "IN_NAMESPACE" not in os.environ and can_unshare():
        os.execvpe("unshare", ["unshare", "-rm", sys.executable, *sys.argv], os.environ | {"IN_NAMESPACE": "1"})
    main()
