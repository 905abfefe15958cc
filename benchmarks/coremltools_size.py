"""The size of a traced network as a Core ML package, palettized with one number of clusters for all weights.

Run by `make bench-files` in an environment of its own, which has coremltools and torch, not weightlab:
`coremltools_size.py TRACED SHAPE BITS FOLDER`, where TRACED is a file of `torch.jit.save` and SHAPE that of one input, as 1,1,32,32. The
last line is one JSON object: bytes of all files of the package before (float16 throughout) and after.
"""

import json
import sys
from pathlib import Path

import coremltools as ct
import torch
from coremltools.optimize import coreml


def saved_bytes(model: ct.models.MLModel, folder: Path) -> int:
    model.save(str(folder))
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    traced, shape, bits, folder = sys.argv[1], [int(n) for n in sys.argv[2].split(",")], int(sys.argv[3]), Path(sys.argv[4])
    model = ct.convert(
        torch.jit.load(traced),
        inputs=[ct.TensorType(name="images", shape=shape)],
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS18,
    )
    before = saved_bytes(model, folder / "before.mlpackage")
    layers = coreml.OpPalettizerConfig(mode="kmeans", nbits=bits, weight_threshold=0)
    palettized = coreml.palettize_weights(model, coreml.OptimizationConfig(global_config=layers))
    print(json.dumps({"before_bytes": before, "after_bytes": saved_bytes(palettized, folder / "after.mlpackage")}))


if __name__ == "__main__":
    main()
