"""What other programs make of our networks is measured by us; each program lives in an environment of its own, made on demand."""

import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import pandas as pd
import torch
from torch import nn

from weightlab import data, models, paths, storage, training

VERSIONS = {"coremltools": "9.0", "nncodec": "2.1.3"}
PATIENCE_S = 600  # for a peer to be installed, or to answer
SPLITS = {"val": "validation", "test": "test"}
Result = TypeVar("Result")


class Unavailable(Exception):
    """A peer that cannot be had, or not as it is known."""


def _steps(peer: str) -> list[list[str]]:
    """What pip installs, one list after the other; torch in the version of this environment, as networks go from one to the other."""
    ours = [f"{name}=={version(name).split('+')[0]}" for name in ("torch", "torchvision")]
    this = f"{peer}=={VERSIONS[peer]}"
    if peer == "coremltools":
        return [[this, ours[0], "scikit-learn", "setuptools"]]
    # nncodec asks for numpy < 2, which this torch does not have, but runs with later ones. It is built here, by g++.
    needed = ["numpy", "opencv-python-headless", "h5py", "pandas", "pybind11", "scikit-learn", "setuptools", "tqdm", "wheel"]
    return [[*ours, *needed], ["--no-deps", "--no-build-isolation", this]]


def environment(peer: str) -> Path:
    """The Python of a peer's environment in build/; raises `OSError` or `subprocess.SubprocessError` where it cannot be made."""
    folder = paths.root() / "build" / f"{peer}-venv"
    python, complete = folder / "bin" / "python", folder / ".complete"
    if not complete.exists():
        run(sys.executable, "-m", "venv", "--clear", folder)
        for step in _steps(peer):
            run(python, "-m", "pip", "install", "--quiet", *step)
        complete.touch()
    return python


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S).stdout


def or_why(measure: Callable[[], Result]) -> Result | str:
    """What a function measures, or in a sentence why its peer cannot be had."""
    try:
        return measure()
    except (Unavailable, OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", None) or str(error)
        return f"not measured: {' '.join(told.split())[-300:]}"


class Judge:
    """Losses of a network's other weights on validation and test images, in percentage points."""

    def __init__(self, network: str, model: nn.Module | None = None) -> None:
        """`model` answers as the network does but may have other tensors."""
        original, dataset = models.load(network), training.dataset_of(network)
        self.model = original if model is None else model
        self.splits = {short: data.load(dataset, name) for short, name in SPLITS.items()}
        self.original = {short: training.accuracy(original, split) for short, split in self.splits.items()}

    def losses(self, tensors: Mapping[str, torch.Tensor], splits: Iterable[str] = tuple(SPLITS)) -> dict[str, float]:
        """By `loss_val_pp` and `loss_test_pp`; tensors that are not given stay as they were."""
        changed = models.copied(self.model)
        changed.load_state_dict(changed.state_dict() | dict(tensors))
        now = {short: training.accuracy(changed, self.splits[short]) for short in splits}
        return {f"loss_{short}_pp": round(100 * (self.original[short] - accuracy), 2) for short, accuracy in now.items()}


def smallest(rows: pd.DataFrame, within: float) -> dict | None:
    """Of the rows that lose less on validation the one of fewest bytes."""
    good = rows[rows["loss_val_pp"] < within]
    return None if good.empty else good.loc[good["bytes"].astype(int).idxmin()].to_dict()


def front(rows: pd.DataFrame) -> pd.DataFrame:
    """Those rows than which no smaller one loses less or as much on validation, the largest first."""
    least, kept = math.inf, []
    for row in rows.sort_values(["bytes", "loss_val_pp"]).itertuples():
        if row.loss_val_pp < least:
            least = row.loss_val_pp
            kept.append(row.Index)
    return rows.loc[kept[::-1]]


def rewrite(file: Path, rows: pd.DataFrame) -> None:
    """Put rows into a CSV file in place of those of the same networks."""
    rows = rows.astype(str)
    if file.exists():
        before = pd.read_csv(file, dtype=str)
        rows = pd.concat([before[~before["network"].isin(rows["network"])], rows])
    storage.write_whole(file, rows.to_csv(index=False, lineterminator="\n").encode())
