"""What each part of the way to the smallest file saves: `python benchmarks/ablation.py lenet5_tanh`.

The first row rounds every weight to the nearest of equal steps, the same for all layers, and packs labels in whole bits; biases and batch
norm are float16. Each row after it has one part more, up to level 2; then each row of level 1 lacks one part alone. In every row bisection
looks for the price at which validation loses less than a limit; a row is run for several draws of calibration images. Parts are switched off
from outside.
"""

import argparse
import itertools
import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import peers
import smallest
from torch import nn

from weightlab import backend, training
from weightlab.packing import parts
from weightlab.tuning.rate_distortion import assignment, calibrated, remainder, tuned

# Where layers are not told apart, of all of them: the curvature times `assignment.STEP`. At the prices that LeNet-5 ends at, its steps are then
# about those that it has otherwise.
ALIKE = 7e-5


def all_packed() -> AbstractContextManager:
    """Labels have as many bits as the number of centroids asks for."""
    coded = parts.coded
    return mock.patch.object(parts, "coded", lambda labels, bits, codings, columns=0: coded(labels, bits, ["packed"]))


def one_table() -> AbstractContextManager:
    """Labels are coded, and charged, with one frequency for the whole layer."""
    stack = ExitStack()
    stack.enter_context(mock.patch.dict(parts.CODINGS, clear=False))
    parts.CODINGS.pop("adaptive")
    stack.enter_context(mock.patch.object(assignment, "INERTIA", 1e12))
    return stack


def nothing() -> AbstractContextManager:
    """What comes with the level itself."""
    return ExitStack()


def untrained() -> AbstractContextManager:
    """Level 2 without its training."""
    return mock.patch.object(tuned, "RATES", ())


def one_step() -> AbstractContextManager:
    """At one price every layer has the same step."""
    assign = assignment.assign

    def alike(weights: np.ndarray, moments: np.ndarray, slopes: np.ndarray, price: float, **options: int) -> assignment.Assigned:
        power = np.diagonal(moments, axis1=1, axis2=2)  # the curvature as `assign` computes it, to be cancelled
        damped = moments + np.eye(moments.shape[1]) * np.maximum(assignment.DAMPING * power.mean(1), 1e-12)[:, None, None]
        curvature = max(slopes.mean() * math.exp(np.linalg.slogdet(damped)[1].mean() / moments.shape[1]), 1e-30)
        with mock.patch.object(assignment, "STEP", ALIKE / curvature):
            return assign(weights, moments, slopes, price, **options)

    return mock.patch.object(assignment, "assign", alike)


def nearest() -> AbstractContextManager:
    """Weights are rounded, and no error is passed on."""

    def rounded(weights: np.ndarray, _: np.ndarray, __: np.ndarray, step: float, reach: int) -> np.ndarray:
        return np.clip(np.rint(weights / step), -reach, reach).astype(np.int64)

    return mock.patch.object(assignment, "_fed_back", rounded)


def no_sweeps() -> AbstractContextManager:
    """Labels stay as they were rounded."""
    return mock.patch.object(assignment, "assign", partial(assignment.assign, sweeps=0))


@contextmanager
def uncorrected() -> Iterator[None]:
    """Biases and the statistics of batch norm are what they were."""
    compress, called_once = calibrated.compress, calibrated.called_once

    def only_before(model: nn.Module, hooks: dict) -> AbstractContextManager:
        return called_once(model, {layer: (before, None) for layer, (before, _) in hooks.items()})

    def plainly(*given: object, **named: object) -> object:
        with mock.patch.object(calibrated, "called_once", only_before):
            return compress(*given, **named | {"statistics": False})

    with mock.patch.object(calibrated, "compress", plainly):
        yield


def no_bytes() -> AbstractContextManager:
    """Biases and batch norm have 16 bits or more."""
    wider = {name: coding for name, coding in remainder.CODINGS.items() if not name.endswith(" bits")}
    return mock.patch.object(remainder, "CODINGS", wider)


@dataclass(frozen=True)
class Part:
    """Its name, what switches it off, and the level at which it is there."""

    name: str
    off: Callable[[], AbstractContextManager]
    level: int = 1


PLAIN = "one step, nearest, labels in whole bits"
PARTS = [
    Part("entropy coding of labels", all_packed),
    Part("a step for each layer's curvature", one_step),
    Part("errors passed on", nearest),
    Part("labels that change for error and bits", no_sweeps),
    Part("biases and batch norm corrected", uncorrected),
    Part("biases in 4 to 8 bits", no_bytes),
    Part("frequencies learnt in columns", one_table),
    Part("images of level 2", nothing, level=2),
    Part("training with classes", untrained, level=2),
]


def rows() -> dict[str, tuple[list[Part], int]]:
    """By the name of a row, the parts that it lacks and its level."""
    added = {f"+ {part.name}": (PARTS[place + 1 :], part.level) for place, part in enumerate(PARTS)}
    lacking = {f"all but {part.name}": ([part], part.level) for part in PARTS if part.level == 1}
    return {PLAIN: (PARTS, 1)} | added | lacking


def measure(network: str, row: str, within: float, draw: int) -> dict:
    """One draw of one row."""
    lacking, level = rows()[row]
    with ExitStack() as stack:
        for part in lacking:
            stack.enter_context(part.off())
        return {"row": row} | smallest.measure(network, None, level, within, draw)


def summary(measured: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over draws of each network and row."""
    groups = measured.groupby(["network", "row"], sort=False)
    found = groups[["file_bytes", "loss_val_pp", "loss_test_pp", "seconds"]].agg(["mean", "std"])
    found.columns = ["_".join(column) for column in found.columns]
    return found.assign(draws=groups.size()).round(2).reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", choices=list(training.CHECKPOINTS))
    parser.add_argument("--within", type=float, default=1.0)
    parser.add_argument("--draws", type=int, default=5, help="seeds from 1")
    parser.add_argument("--rows", nargs="+", choices=list(rows()), default=list(rows()), metavar="ROW", help="by name")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--csv", type=Path, help="where to write the table, in place of the rows of the same networks")
    arguments = parser.parse_args()
    for network in arguments.networks:
        measured = []
        with backend.threads(arguments.threads):
            for row, draw in itertools.product(arguments.rows, range(1, arguments.draws + 1)):
                measured.append(measure(network, row, arguments.within, draw))
                print(json.dumps(measured[-1]), flush=True)
        table = summary(pd.DataFrame(measured))
        print(table.to_string(index=False), flush=True)
        if arguments.csv:
            peers.rewrite(arguments.csv, table)


if __name__ == "__main__":
    main()
