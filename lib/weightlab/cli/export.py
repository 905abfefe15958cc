"""`weightlab export`: a packed file as an ONNX file."""

import os
from pathlib import Path
from typing import Annotated

from weightlab.cli import choices, options, output
from weightlab.cli.options import option
from weightlab.errors import UserError


def export(
    file: options.Packed,
    output_file: options.Output,
    network: options.OwnNetwork = None,
    check: Annotated[int | None, option("Compare that many validation images with the network's answers.", metavar="N")] = None,
    data: options.Data = None,
    input: options.Input = None,
    limit_bytes: options.Limit = None,
    force: options.Force = False,
    threads: options.Threads = None,
) -> None:
    """Write a packed file as an ONNX file."""
    import torch

    from weightlab import backend, packing
    from weightlab.networks import answers
    from weightlab.packing import onnx_files

    output.check(output_file, force, (".onnx",))
    backend.check_threads(threads)
    if check is not None and input is not None and data is None:
        raise UserError(f"--check {check} needs images, so give --data instead of --input")
    packed = packing.read(file, limit_bytes)
    model = packed.load(choices.network_of(file, packed.details.network, network))
    if input is not None and data is None:
        example = torch.zeros(2, *options.shape(input))
    else:
        splits = choices.splits(data or choices.dataset_of(network or packed.details.network), check)
        example = answers.fitting_images(model, splits)
    notes = {"network": packed.details.network, "plan": str(packed.details.plan), "format": packed.details.format}
    partial = Path(os.path.abspath(output_file)).with_name(f".{output_file.name}.partial")  # a wrong file is not left behind
    try:
        onnx_files.export(model, packed.shared(), example, partial, notes)
        if check is not None:
            comparison = onnx_files.compare(partial, model, splits[0].images, threads)
            print(f"of {comparison.images} images, {comparison.other_class} get another class; "
                  f"logits differ by {comparison.largest_difference:.1e} at most")  # fmt: skip
            if comparison.other_class:
                raise UserError(
                    f"the ONNX file would give {comparison.other_class} of {comparison.images} images another class than the packed network, "
                    f"so {output_file} was not written"
                )
        partial.replace(output_file)
    finally:
        partial.unlink(missing_ok=True)
    print(f"{output_file}: {output_file.stat().st_size} bytes, the packed file has {len(packed.content)}")
