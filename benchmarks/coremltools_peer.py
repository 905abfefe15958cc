"""Packages that coremltools palettizes from our networks, and what they lose: `python benchmarks/coremltools_peer.py lenet5_tanh --csv curve.csv`.

Core ML answers on macOS alone. So the palettized weights are read back from the package and put into our network; before, batch norm is
merged into the weights before it, as coremltools does.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import peers
import torch
from torch import nn
from torch.fx.experimental import optimization

from weightlab import models, packing

COLUMNS = ["network", "bits", "bytes", "loss_val_pp", "loss_test_pp", "version"]
BITS = (1, 2, 3, 4, 6, 8)  # all numbers of bits of a label that coremltools has
SHAPES = {"lenet5_tanh": (1, 1, 32, 32), "lenet5_relu": (1, 1, 32, 32), "mobilenet_v2_fashion": (1, 1, 64, 64)}
ONE_K = {"lenet5_tanh": 4, "lenet5_relu": 4, "mobilenet_v2_fashion": 6}  # bits at which our file is held against it
CLOSE = 2e-3  # of the largest weight: float16 and the order of additions differ no more
Tell = Callable[[str], None]


def measure(network: str, tell: Tell, bits: Sequence[int] = BITS) -> tuple[pd.DataFrame, int]:
    """A row for each number of bits, and the bytes of the package in float16; raises what `peers.or_why` tells."""
    python, shape = peers.environment("coremltools"), SHAPES[network]
    original = models.load(network).eval()
    merged = optimization.fuse(original)
    judge, rows = peers.Judge(network, merged), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.jit.trace(original, torch.zeros(shape)).save(folder / "traced.pt")
        script = Path(__file__).with_name("coremltools_size.py")
        listed = (",".join(map(str, each)) for each in (shape, bits))
        told = json.loads(peers.run(python, script, folder / "traced.pt", *listed, folder).splitlines()[-1])
        names = _names(merged, dict(np.load(folder / "before.npz")))
        for each in bits:
            losses = judge.losses(_tensors(names, dict(np.load(folder / f"{each}.npz"))))
            row = {"network": network, "bits": each, "bytes": told["after_bytes"][str(each)]}
            rows.append(row | losses | {"version": peers.VERSIONS["coremltools"]})
            tell(f"{network}: coremltools at {each} bits {rows[-1]['bytes']} bytes, loss {losses}")
    return pd.DataFrame(rows, columns=COLUMNS), told["before_bytes"]


def sizes(network: str, within: float, tell: Tell) -> dict | str:
    """Packages by number of bits, the smallest within a loss, and our file of the same k and number format; or why there are none.

    Both store centroids and all that is not shared as float16.
    """
    measured = peers.or_why(lambda: measure(network, tell))
    if isinstance(measured, str):
        return measured
    (rows, before), model, bits = measured, models.load(network), ONE_K[network]
    by_bits = rows.set_index("bits")[["bytes", "loss_val_pp", "loss_test_pp"]].to_dict("index")
    ours = packing.pack(model, [1 << bits] * len(models.layers(model)), "float16", rest="float16", network=network)
    same = {"k": 1 << bits, "after_bytes": by_bits[bits]["bytes"], "packed_bytes": len(ours)}
    return {"before_bytes": before} | same | {"by_bits": by_bits, "smallest": peers.smallest(rows, within)}


def _names(model: nn.Module, constants: Mapping[str, np.ndarray]) -> dict[str, str]:
    """By our name of each parameter the package's: the constant of the same shape and nearly the same values."""
    names = {}
    for name, parameter in model.named_parameters():
        value = parameter.detach().numpy()
        alike = [each for each, constant in constants.items() if constant.shape == value.shape]
        apart = {each: float(np.abs(constants[each].astype(np.float32) - value).max()) for each in alike}
        names[name] = min(apart, key=apart.__getitem__, default="")
        if not alike or apart[names[name]] > CLOSE * float(np.abs(value).max()):
            raise peers.Unavailable(f"the package of coremltools has no constant like {name}")
    return names


def _tensors(names: Mapping[str, str], constants: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    found = {ours: constants.get(f"{theirs}_palettized", constants.get(theirs)) for ours, theirs in names.items()}
    if missing := [ours for ours, constant in found.items() if constant is None]:
        raise peers.Unavailable(f"coremltools has palettized {missing[0]} under another name")
    return {ours: torch.from_numpy(constant.astype(np.float32)) for ours, constant in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", choices=list(SHAPES))
    parser.add_argument("--csv", type=Path, help="where to write the rows, in place of those of the same networks")
    arguments = parser.parse_args()
    for network in arguments.networks:
        rows, _ = measure(network, print)
        if arguments.csv:
            peers.rewrite(arguments.csv, rows)
        print(rows.to_string(index=False))


if __name__ == "__main__":
    main()
