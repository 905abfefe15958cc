"""A network's tensors coded by nncodec (ISO/IEC 15938-17), and what they are after decoding.

Run by `benchmarks/peers.py` in an environment of its own, which has nncodec and torch, not weightlab: `nncodec_size.py WEIGHTS DECODED`,
both files of `numpy.savez`. Every line that it reads is a JSON object, settings of nncodec's encoder. It answers each with a line: the
number of bytes, as {"bytes": n}, and writes the decoded tensors to DECODED.
"""

import json
import sys
import tempfile
from contextlib import redirect_stdout

import numpy as np
import torch

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def declare() -> torch.library.Library | None:
    """Declare the two operators that the import of torchvision looks for, where its compiled ones do not load beside this torch."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # what the failed import left half-made
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(operator + SCHEMA)
        return library
    return None


def main() -> None:
    weights, decoded = sys.argv[1:]
    answers = sys.stdout
    with redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder, np.load(weights) as file:
        _library = declare()  # its schemas vanish with it
        from nncodec.nn import decode, encode

        tensors = dict(file)
        for line in sys.stdin:
            settings = {"use_dq": True, "verbose": False, "results": folder} | json.loads(line)
            content = encode(dict(tensors), settings)
            np.savez(decoded, **decode(content))
            print(json.dumps({"bytes": len(content)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
