"""The smallest file of each network at each level, and its spread: `python benchmarks/smallest.py lenet5_tanh --level 1 --within 1 --draws 5`.

A row for each draw of calibration images: bytes of the file as written, losses on validation, which chooses lambda, and on test, seconds.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from nncodec_peer import SINGLE
from safetensors.torch import load_file

from weightlab import backend, data, models, packing, training
from weightlab.tuning import rate_distortion

ROUNDED = 0.005  # pp: losses are rounded, and a bisection stays below its limit


def measure(network: str, weights: str | None, level: int, within: float, draw: int) -> dict:
    """One compression, written and read back."""
    model, dataset = models.load(network), training.dataset_of(network)
    if weights:
        model.load_state_dict(load_file(weights))
    train, validation, test = (data.load(dataset, name) for name in data.SPLITS)
    started = time.perf_counter()
    images, example = (train.images if level else None), train.images[:1].float() / 255
    classes = train.labels if level == 2 else None
    found = rate_distortion.compress(
        model, images, within=within, validation=validation, level=level, classes=classes, example=example, seed=draw
    )
    seconds = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        packed = packing.write_compressed(Path(folder, "file"), model, found.compressed, version=2)
    small = packed.load(model)
    losses = {
        f"loss_{name}_pp": round(100 * (training.accuracy(model, split) - training.accuracy(small, split)), 2)
        for name, split in (("val", validation), ("test", test))
    }
    sizes = {"file_bytes": len(packed.content), "header_bytes": packed.header_bytes, "rest_bytes": packed.rest_bytes}
    tried = [[int(row.bytes), round(row.loss_pp, 2)] for row in found.trials.itertuples()]  # losses on validation
    trials = {"trials": tried, "price": found.price, "seconds": round(seconds, 1)}
    return {"network": network, "weights": weights, "level": level, "within": within, "draw": draw} | sizes | losses | trials


def beside(network: str, within: float, peer: dict | str, tell: Callable[[str], None]) -> dict[int, dict]:
    """By level, one draw beside nncodec's smallest file: that of one number at level 0, which uses no data, else of any search.

    `peer` has the smallest by kind of search, or says why there is none; see `nncodec_peer.sizes`. `file_bytes_at_nncodec_loss` is the
    smallest of our trials that loses no more on validation than that file; where none of them is smaller than it, of another bisection.
    """
    made = {}
    for level in rate_distortion.LEVELS:
        found = measure(network, None, level, within, draw=1)
        theirs = [] if isinstance(peer, str) else [row for search, row in peer.items() if row and (level or search == SINGLE)]
        least = min(theirs, key=lambda row: row["bytes"], default={})
        made[level] = {key: found[key] for key in ("file_bytes", "loss_val_pp", "loss_test_pp", "seconds")}
        made[level] |= {"nncodec_bytes": least.get("bytes"), "nncodec_loss_val_pp": least.get("loss_val_pp")}
        made[level] |= {"file_bytes_at_nncodec_loss": _at_loss(network, level, found["trials"], least) if least else None}
        tell(f"{network} level {level}: {made[level]}")
    return made


def _at_loss(network: str, level: int, trials: list, theirs: dict) -> int | None:
    def smallest(trials: list) -> int | None:
        return min((size for size, loss in trials if loss <= theirs["loss_val_pp"]), default=None)

    if (size := smallest(trials)) and size < theirs["bytes"]:
        return size
    return smallest(measure(network, None, level, theirs["loss_val_pp"] + ROUNDED, draw=1)["trials"])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=list(training.CHECKPOINTS))
    parser.add_argument("--weights", help="a safetensors file with a state dict of another training run of this network")
    parser.add_argument("--level", type=int, default=1)
    parser.add_argument("--within", type=float, default=1.0)
    parser.add_argument("--draws", type=int, default=1, help="seeds from 1")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with backend.threads(arguments.threads):
        for draw in range(1, arguments.draws + 1):
            row = measure(arguments.network, arguments.weights, arguments.level, arguments.within, draw)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
