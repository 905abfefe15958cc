"""The size of a traced network as a Core ML package, palettized with one number of clusters for all weights.

Run by `benchmarks/coremltools_peer.py` in an environment of its own, which has coremltools and torch, not weightlab:
`coremltools_size.py TRACED SHAPE BITS FOLDER`, where TRACED is a file of `torch.jit.save`, SHAPE that of one input, as 1,1,32,32, and BITS
numbers of bits of a label, as 2,4. The last line is one JSON object: bytes of all files of the package before (float16 throughout), and after
by number of bits. Core ML runs on macOS alone, so the weights are read back: FOLDER/before.npz and FOLDER/4.npz are of `numpy.savez`.
"""

import json
import sys
from pathlib import Path

import coremltools as ct
import numpy as np
import torch
from coremltools.optimize import coreml


def saved_bytes(model: ct.models.MLModel, folder: Path) -> int:
    model.save(str(folder))
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def keep(model: ct.models.MLModel, file: Path) -> None:
    """All constant tensors of a model, by name."""
    constants = coreml.get_weights_metadata(model, weight_threshold=0)
    np.savez(file, **{name: np.asarray(constant.val) for name, constant in constants.items()})


def main() -> None:
    traced, shape, bits, folder = sys.argv[1], [int(n) for n in sys.argv[2].split(",")], sys.argv[3].split(","), Path(sys.argv[4])
    model = ct.convert(
        torch.jit.load(traced),
        inputs=[ct.TensorType(name="images", shape=shape)],
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS18,
    )
    before = saved_bytes(model, folder / "before.mlpackage")
    keep(model, folder / "before.npz")
    after = {}
    for each in bits:
        layers = coreml.OpPalettizerConfig(mode="kmeans", nbits=int(each), weight_threshold=0)
        palettized = coreml.palettize_weights(model, coreml.OptimizationConfig(global_config=layers))
        after[each] = saved_bytes(palettized, folder / f"{each}.mlpackage")
        keep(coreml.decompress_weights(palettized), folder / f"{each}.npz")
    print(json.dumps({"before_bytes": before, "after_bytes": after}))


if __name__ == "__main__":
    main()
