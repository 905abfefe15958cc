"""The smallest files that nncodec (ISO/IEC 15938-17) makes of our networks: `python benchmarks/nncodec_peer.py lenet5_tanh --csv curve.csv`.

It has one number, qp, for the steps of all weights, or one for each tensor; a number for biases and batch norm; and dependent quantization,
on or off. First every number of a range is tried, then, from the best, one number for each weight tensor is changed while the file gets
smaller and loses less than a limit on validation. Test images are looked at afterwards.
"""

import argparse
import itertools
import json
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import peers
import torch

from weightlab.tuning.rate_distortion import batch_norm

COLUMNS = [
    "network", "search", "merged", "qp", "nonweight_qp", "dependent", "bytes", "loss_val_pp", "loss_test_pp", "version"
]  # fmt: skip
SINGLE = "single"
WITHIN = (1.0, 0.3)
# Of a percentage point, in files: a high price first finds where bits are cheapest to save; at none the limit alone counts.
PRICES = (1.0, 0.3, 0.1, 0.0)
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Point:
    """Parameters of the coder: a number for each group of weight tensors, one for all else, and whether quantization is dependent."""

    qps: tuple[int, ...]
    others: int
    dependent: bool

    def moved(self, *moves: tuple[int, int]) -> "Point":
        """With numbers added at places, the one behind all groups being that of all else."""
        numbers = [*self.qps, self.others]
        for place, added in moves:
            numbers[place] += added
        return replace(self, qps=tuple(numbers[:-1]), others=numbers[-1])


@dataclass(frozen=True)
class Run:
    """What is tried: single numbers with numbers of all else, and then so many changes of one number for each group."""

    qps: Sequence[int]
    others: Sequence[int]
    evaluations: int
    merged: bool = False


FINE, COARSE = -75, -24  # of all else: nncodec's default, and about the coarsest that adds no loss to LeNet-5
LENET5 = [Run(range(-38, -7), (FINE, COARSE), 400)]
# Variances of batch norm are small numbers whose steps must be fine: -60 is the coarsest that adds no loss. Merged, it takes far larger ones.
MOBILENET = [Run(range(-28, -19), (FINE, -60), 0), Run(range(-28, -19), (-36, -30), 40, merged=True)]
RUNS = {"lenet5_tanh": LENET5, "lenet5_relu": LENET5, "mobilenet_v2_fashion": MOBILENET}
FEW = {
    "lenet5_tanh": Run(range(-18, -11), (COARSE,), 120),
    "lenet5_relu": Run(range(-20, -13), (COARSE,), 120),
    "mobilenet_v2_fashion": Run((-24, -23), (-30,), 0, merged=True),
}


class Codec:
    """nncodec in a process of its own, for one network; `trials` has what was measured, by point."""

    def __init__(self, network: str, process: subprocess.Popen, judge: peers.Judge, decoded: Path, merged: bool = False) -> None:
        self.network, self.process, self.judge, self.decoded, self.merged = network, process, judge, decoded, merged
        self.groups = groups(judge.model.state_dict())
        self.trials: dict[Point, dict] = {}

    def single(self, qp: int, others: int, dependent: bool) -> Point:
        return Point((qp,) * len(self.groups), others, dependent)

    def trial(self, point: Point) -> dict:
        """Bytes and the loss on validation."""
        if point not in self.trials:
            n, tensors = self._coded(point)
            self.trials[point] = {"bytes": n} | self.judge.losses(tensors, ["val"])
        return self.trials[point]

    def best(self, within: float, dependent: Sequence[bool] = (True, False)) -> Point | None:
        """The smallest that loses less, of these kinds of quantization."""
        good = [point for point, row in self.trials.items() if row["loss_val_pp"] < within and point.dependent in dependent]
        return min(good, key=lambda point: self.trials[point]["bytes"], default=None)

    def rows(self, points: Iterable[Point]) -> pd.DataFrame:
        """With the loss on test as well."""
        rows = []
        for point in points:
            named = self._named(point)
            single = len(set(named.values())) == 1
            several = "per layer" if len(self.groups) == len(named) else "per group"
            parameters = {
                "network": self.network,
                "search": SINGLE if single else several,
                "merged": int(self.merged),
                "qp": " ".join(map(str, list(named.values())[: 1 if single else None])),
                "nonweight_qp": point.others,
                "dependent": int(point.dependent),
            }
            losses = self.judge.losses(self._coded(point)[1], ["test"])
            rows.append(parameters | self.trial(point) | losses | {"version": peers.VERSIONS["nncodec"]})
        return pd.DataFrame(rows, columns=COLUMNS)

    def _named(self, point: Point) -> dict[str, int]:
        """The number of each weight tensor, in the order of the network."""
        of = {name: qp for names, qp in zip(self.groups, point.qps, strict=True) for name in names}
        return {name: of[name] for name in self.judge.model.state_dict() if name in of}

    def _coded(self, point: Point) -> tuple[int, dict[str, torch.Tensor]]:
        named = self._named(point)
        settings = {
            "qp": max(point.qps),
            "nonweight_qp": point.others,
            "qp_per_tensor": named,
            "use_dq": point.dependent,
        }
        n = self._answer(settings)["bytes"]
        with np.load(self.decoded) as file:
            return n, {name: torch.from_numpy(value) for name, value in file.items()}

    def _answer(self, settings: dict) -> dict:
        assert self.process.stdin is not None and self.process.stdout is not None
        late = threading.Timer(peers.PATIENCE_S, self.process.kill)
        late.start()
        try:
            print(json.dumps(settings), file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        except ValueError as error:
            raise peers.Unavailable(f"nncodec ended without an answer to {settings}") from error
        finally:
            late.cancel()


def groups(state: dict[str, torch.Tensor]) -> list[list[str]]:
    """Names of weight tensors that share a number: each by itself, or kinds of layers where there are many."""
    weights = {name: value for name, value in state.items() if value.dim() > 1}
    if len(weights) < 10:
        return [[name] for name in weights]
    middle, kinds = len(weights) // 2, {}
    for place, (name, value) in enumerate(weights.items()):
        kind = "depthwise" if value.shape[1] == 1 and value.dim() > 2 else "early" if place < middle else "late"
        kinds.setdefault("ends" if place in (0, len(weights) - 1) else kind, []).append(name)
    return list(kinds.values())


@contextmanager
def codec(network: str, merged: bool = False) -> Iterator[Codec]:
    """Raises what `peers.or_why` tells where nncodec cannot be installed or ends early.

    `merged` batch norm has two numbers a channel instead of four, as in our files, and costs nncodec less.
    """
    python, judge = peers.environment("nncodec"), peers.Judge(network)
    if merged:
        judge.model.load_state_dict(judge.model.state_dict() | batch_norm.merged(judge.model))
    with tempfile.TemporaryDirectory() as name:
        weights, decoded = Path(name, "weights.npz"), Path(name, "decoded.npz")
        np.savez(weights, **{name: v.numpy() for name, v in judge.model.state_dict().items() if v.is_floating_point()})
        command = [python, Path(__file__).with_name("nncodec_size.py"), weights, decoded]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, text=True, **pipes) as process:
            try:
                yield Codec(network, process, judge, decoded, merged)
            finally:
                process.kill()


def curve(codec: Codec, qps: Iterable[int], others: Sequence[int]) -> list[Point]:
    """One number for all weights, with dependent quantization and without."""
    points = [codec.single(*each) for each in itertools.product(qps, others, (True, False))]
    for point in points:
        codec.trial(point)
    return points


def descend(codec: Codec, start: Point, within: float, evaluations: int) -> None:
    """Change one number after the other, and at last two at once, as long as the cost falls; `start` must keep the limit."""
    unit, last = codec.trial(start)["bytes"], len(codec.trials) + evaluations

    def cost(point: Point, price: float) -> float:
        row = codec.trial(point)
        return row["bytes"] + price * unit * max(row["loss_val_pp"], 0) if row["loss_val_pp"] < within else np.inf

    places, point = range(len(start.qps) + 1), start
    one = [((place, added),) for place in places for added in (1, -1, 2, -2)]
    two = [((a, up), (b, down)) for a, b in itertools.permutations(places, 2) for up, down in ((1, -1), (2, -1), (1, -2))]
    for price in PRICES:
        before = None
        while point != before:
            before = point
            for moves in one if price else one + two:
                if len(codec.trials) >= last:
                    return
                if cost(point.moved(*moves), price) < cost(point, price):
                    point = point.moved(*moves)


def measure(network: str, run: Run, tell: Tell, within: Sequence[float] = WITHIN, both: bool = False) -> pd.DataFrame:
    """All single numbers, and those searched for that no smaller file beats.

    The search begins at the smallest file of one number within each loss, or at that of `both` kinds of quantization.
    """
    with codec(network, run.merged) as coder:
        singles = curve(coder, run.qps, run.others)
        tell(f"{network}: nncodec with one number: {_told(coder, within)}")
        starts = [coder.best(limit, of) for limit in within for of in ([True], [False])] if both else map(coder.best, within)
        for limit, start in zip(np.repeat(within, 1 + both), list(starts), strict=True):
            if start is not None and run.evaluations:
                descend(coder, start, float(limit), run.evaluations)
        tell(f"{network}: nncodec after {len(coder.trials)} trials: {_told(coder, within)}")
        table = pd.DataFrame(coder.trials.values(), index=range(len(coder.trials)))
        searched = [list(coder.trials)[place] for place in peers.front(table).index]
        return coder.rows([*singles, *(point for point in searched if point not in singles)])


def sizes(network: str, within: float, tell: Tell) -> dict | str:
    """The smallest file within a loss by kind of search, looked for with few trials; or why there are none."""
    rows = peers.or_why(lambda: measure(network, FEW[network], tell, [within]))
    return rows if isinstance(rows, str) else {search: peers.smallest(part, within) for search, part in rows.groupby("search")}


def _told(codec: Codec, within: Sequence[float]) -> str:
    best = {limit: codec.best(limit) for limit in within}
    return "; ".join(f"< {limit:g} pp {codec.trials[point]} at {point}" for limit, point in best.items() if point is not None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", choices=list(RUNS))
    parser.add_argument("--csv", type=Path, help="where to write the rows, in place of those of the same networks")
    arguments = parser.parse_args()
    for network in arguments.networks:
        rows = pd.concat([measure(network, run, print, both=not run.merged) for run in RUNS[network]], ignore_index=True)
        if arguments.csv:
            peers.rewrite(arguments.csv, rows)
        for within, search in itertools.product(WITHIN, rows["search"].unique()):
            print(within, json.dumps(peers.smallest(rows[rows["search"] == search], within)), flush=True)


if __name__ == "__main__":
    main()
