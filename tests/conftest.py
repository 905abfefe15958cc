"""Shared by all tests: no time limit on a single generated example (machines differ), and where the published tables lie."""

import contextlib
import gc
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
import torch
from filelock import FileLock, Timeout
from hypothesis import settings
from warm_python import kernels, python

import weightlab.notebook_files  # noqa: F401  before a test imports nbformat, which is faster so
from weightlab import paths

WAITING = ("test_job_queues", "test_grid")
settings.register_profile("weightlab", deadline=None, derandomize=True)
settings.load_profile("weightlab")
torch.set_num_threads(1)  # small networks gain nothing from more, and lose much where other work runs beside the tests


def pytest_collection_finish():
    gc.freeze()  # what was imported is not looked through again and again


def pytest_collection_modifyitems(items):
    """First the notebooks, which one process runs while no other has to wait for one, then tests that wait for processes most of the time."""

    def turn(item):
        return 0 if "smoke_outputs" in getattr(item, "fixturenames", ()) else 1 if item.path.stem in WAITING else 2

    items.sort(key=turn)


@pytest.fixture(scope="session")
def published():
    """Read one of the published tables of tests/data by file name, without its ending."""
    return lambda name: pd.read_csv(Path(__file__).parent / "data" / f"{name}.csv")


@pytest.fixture(scope="session")
def smoke_outputs(tmp_path_factory, worker_id):
    """Run a notebook headless at smoke size, after those it reads, once for all test processes, and return its outputs folder.

    The first notebook gets a cold start, as a person's run does; the others get warm ones.
    """
    base = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    environment = stand_in_root(base / "repository")

    def run(name: str, wait: bool = True) -> Path | None:
        """The folder of a notebook's outputs; None, without `wait`, where another process is at it or at one that it reads."""
        folder = base / "repository" / "outputs" / "smoke" / name
        if (folder / "notebook.ipynb").exists():
            return folder
        if not wait and any(run(other, wait) is None for other in notebooks_before(name)):
            return None
        with contextlib.suppress(Timeout), FileLock(base / f"{name}.lock", timeout=-1 if wait else 0):
            if not (folder / "notebook.ipynb").exists():
                start, kernel = ([sys.executable], {}) if name == "00_explore" else (python(), kernels())
                command = [*start, "-m", "weightlab", "run", name, "--profile", "smoke"]
                done = subprocess.run(command, env=environment | kernel, capture_output=True, text=True)
                assert done.returncode == 0, done.stderr[-2000:]
            return folder

    def outputs(name: str) -> Path:
        for wait in (False, True):  # first what no other process is at
            for other in notebooks_before(name):
                run(other, wait)
        return run(name)

    return outputs


@cache
def notebooks_before(name: str) -> list[str]:
    """The notebooks that make runs before a notebook, in its order."""
    make = ["make", "-nB", "PYTHON=python", "PROFILE=smoke", f"outputs/smoke/{name}/notebook.ipynb"]
    plan = subprocess.run(make, cwd=paths.root(), capture_output=True, text=True, check=True).stdout
    return [other for other in re.findall(r"-m weightlab run (\S+) --profile", plan) if other != name]


def stand_in_root(folder: Path) -> dict:
    """A process environment in which the repository is `folder`: the same notebooks, models, data and docs, its own outputs."""
    folder.mkdir(exist_ok=True)
    for name in ("notebooks", "params", "models", "published", "data", "docs", "README.md"):
        with contextlib.suppress(FileExistsError):
            (folder / name).symlink_to(paths.root() / name)
    return os.environ | {"WEIGHTLAB_ROOT": str(folder)}


@pytest.fixture(scope="session")
def report_root(smoke_outputs, tmp_path_factory):
    """A stand-in repository with smoke outputs of two notebooks and its own copy of the notebooks: its folder, and the environment."""
    root = tmp_path_factory.mktemp("root")
    shutil.copytree(paths.notebooks(), root / "notebooks", ignore=shutil.ignore_patterns(".*", "__pycache__"))
    for name in ("00_explore", "01_total_vs_layerwise"):
        shutil.copytree(smoke_outputs(name), root / "outputs" / "smoke" / name)
    (root / "outputs" / "full").symlink_to(paths.outputs() / "full")  # the README shows a figure of it
    return root, stand_in_root(root)


@pytest.fixture
def own_root(tmp_path):
    """A stand-in repository of a test's own: its folder, and the environment for processes, whose kernels are warm."""
    return tmp_path, stand_in_root(tmp_path) | kernels()


def tracebacks(text: str) -> list[str]:
    """Tracebacks in what a notebook's run printed, but those of zmq: a busy kernel may log one of its own when it is shut down."""
    found = text.split("Traceback (most recent call last):")[1:]
    return [each for each in found if "zmqstream.py" not in each.strip().split("\n")[0]]
