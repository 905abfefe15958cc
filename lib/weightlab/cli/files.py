"""`weightlab inspect` and `weightlab unpack`: what a packed file holds; neither needs data or a network."""

import io
import json
from typing import TYPE_CHECKING

from weightlab.cli import options, output
from weightlab.errors import plain

if TYPE_CHECKING:
    from weightlab.packing import Packed

SHOWN = {"network", "format", "method", "plan", "accuracy"}  # of a file's metadata


def inspect(file: options.Packed, as_json: options.Json = False, limit_bytes: options.Limit = None) -> None:
    """Print what a packed file holds, layer by layer."""
    from weightlab import packing

    packed = packing.read(file, limit_bytes)
    if as_json:
        layers = packed.report().to_dict("records")
        print(json.dumps(packed.summary() | packed.details.model_dump(include=SHOWN) | {"layers": layers}, indent=1))
    else:
        _print(packed)


def unpack(
    file: options.Packed, output_file: options.Output, force: options.Force = False, limit_bytes: options.Limit = None
) -> None:
    """Write a packed file's weights as a plain state dict."""
    import torch
    from safetensors.torch import save

    from weightlab import packing
    from weightlab.networks import own as own_networks

    output.check(output_file, force, own_networks.KINDS)
    state = packing.read(file, limit_bytes).state_dict()
    if output_file.suffix == ".safetensors":
        content = save({name: value.clone() for name, value in state.items()})  # it refuses one tensor under two names
    else:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
    output.write(output_file, content)
    print(f"{output_file}: {len(state)} tensors, {len(content)} bytes")


def _print(packed: "Packed") -> None:
    details, summary = packed.details, packed.summary()
    network = details.network or "not named"
    print(plain(f"network {network}, format {details.format}, method {details.method}"))
    output.table(packed.report().rename(columns={"bits": "bits a label", "stored_bits": "stored bits", "rms_error": "rms error"}))
    print(
        f"storage rate {summary['storage_rate']:.3f}, layer-mean rate {summary['layer_mean_rate']:.3f}, file rate {summary['file_rate']:.3f}"
    )
    print(
        f"{summary['file_bytes']} bytes, {summary['header_bytes']} of them header, {summary['rest_bytes']} of what is not shared; "
        f"predicted without header {summary['predicted_bytes']}; original {summary['original_bytes']}"
    )
    output.accuracies(details.accuracy)
