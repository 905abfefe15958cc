"""Write compressed networks as packed files; `packed_file` reads them."""

import hashlib
import importlib.metadata
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors.torch import save
from torch import nn

from weightlab import formats, models, sharing, storage
from weightlab.compression import kinds
from weightlab.compression.compressed import Compressed
from weightlab.compression.contract import Labels, Stored, Values
from weightlab.compression.sharing.clustering import Lift
from weightlab.compression.sharing.codebooks import Codebooks
from weightlab.errors import UserError, choose
from weightlab.packing import compact_format, metadata, packed_format, parts
from weightlab.packing.compact_metadata import CompactDetails, RawTensor
from weightlab.packing.metadata import Details, Measured
from weightlab.packing.packed_file import Packed

RESTS = ("as it was", "float16")
LOAD = "weightlab.packing.read(file).load(model), or docs/format.md of weightlab"


def pack(
    model: nn.Module,
    plan: int | Iterable[int],
    format: str = "float32",
    method: str = "exact",
    lifts: Mapping[str, Lift] | None = None,
    example: torch.Tensor | None = None,
    *,
    rest: str = "as it was",
    entropy_coded: bool = True,
    network: str = "",
    accuracy: Iterable[Mapping] = (),
    codebooks: Codebooks | None = None,
) -> bytes:
    """A network under a plan, as the bytes of a packed file; the first six arguments are those of `sharing.share`.

    `rest` is how biases, batch norm and layers that are not shared are stored, "as it was" or with float32 as "float16".
    `entropy_coded` labels are used in the layers where they are smaller. `network` is the name of the network. `accuracy` holds
    measured accuracies, mappings with split, images, original and packed. `codebooks`, of the same network, method and format,
    save the clustering. Raises `UserError` as `sharing.share` and `pack_compressed` do, and for other codebooks.

    >>> from weightlab import models
    >>> model = models.load("lenet5_tanh")
    >>> content = pack(model, plan=[3, 5, 8, 2, 4], format="float16")
    >>> sum(value.nbytes for value in model.state_dict().values()) // len(content)
    10
    """
    choose("storage of the rest", rest, RESTS)
    plan = plan if isinstance(plan, int | np.integer) else list(plan)
    books = sharing.codebooks(model, plan, format, method, example)
    if codebooks is not None:
        if codebooks.describe() != books.describe():
            raise UserError(f"the codebooks are not those of this network, plan, format {format} and method {method}")
        books = codebooks
    compressed = sharing.compressed(books, plan, lifts)
    return pack_compressed(model, compressed, rest=rest, entropy_coded=entropy_coded, network=network, accuracy=accuracy)


def pack_compressed(
    model: nn.Module,
    compressed: Compressed,
    *,
    rest: str = "as it was",
    entropy_coded: bool = True,
    network: str = "",
    accuracy: Iterable[Mapping] = (),
    version: int | None = None,
) -> bytes:
    """A network compressed by any method as the bytes of a packed file; `model` is the original, the options are those of `pack`.

    Other changed tensors are stored with their new values. `version` is that of the format: 2 is smaller; by default 1, whose readers
    are older, for what it can hold. Raises `UserError` for weights that are not float32, for other tensors that the file cannot hold
    or the network does not have, and for another version.
    """
    choose("storage of the rest", rest, RESTS)
    if version not in (None, 1, 2):
        raise UserError(f"version must be None, 1 or 2, got {version!r}")
    shared = [f"{layer.name}.weight" for layers in compressed.layers for layer in layers]
    state, same = _once(_storable(model.state_dict(), rest), shared)
    if wrong := [name for name in shared if state[name].dtype != torch.float32]:
        raise UserError(
            f"{wrong[0]} is {state[wrong[0]].dtype}; rates are relative to float32, so only float32 weights are packed"
        )
    errors = [_error(state, layers, stored) for layers, stored in zip(compressed.layers, compressed.stored, strict=True)]
    others = {name: value for name, value in state.items() if name not in shared} | _changed(compressed, state, shared, same)
    format = _one_format(compressed)
    common = {
        "written_by": f"weightlab {importlib.metadata.version('weightlab')}",
        "network": network,
        "method": compressed.method,
        "same": same,
        "accuracy": [_measured(each) for each in accuracy],
        "original_bytes": sum(value.nbytes for value in state.values()),
    }
    source = hashlib.sha256(save(state)).hexdigest()
    if version == 1 and format is None:
        raise UserError("a file of version 1 holds codebooks in one format and nothing else that is coded")
    if version == 2 or format is None:
        halved = {name: _float16(value) for name, value in others.items() if rest == "float16" and _codable(value)}
        return _second(
            compressed,
            errors,
            others,
            halved | {name: stored for name, (stored, _) in compressed.others.items()},
            entropy_coded,
            common | {"source": source[:16]},
        )
    half = {
        name: value.clamp(-65504, 65504).half()
        for name, value in others.items()
        if rest == "float16" and value.dtype == torch.float32
    }
    return _first(compressed, format, errors, others | half, entropy_coded, common | {"source_sha256": source, "rest": rest})


def _first(compressed: Compressed, format: str, errors: list[float], others: Mapping, entropy_coded: bool, common: dict) -> bytes:
    """A file of version 1, whose groups are codebooks in one format."""
    tensors, groups = dict(others), []
    whole = isinstance(compressed.plan, int)
    for layers, stored, error in zip(compressed.layers, compressed.stored, errors, strict=True):
        weights = _weights(layers)
        prefix = sharing.WHOLE_NET if whole else weights[0][0]
        tensors[f"{prefix}:centroids"] = formats.get(format).encode(stored.parts["centroids"].numbers)
        coding, bits, labels = "none", 0, stored.parts.get("labels")
        if isinstance(labels, Labels):
            bits = labels.width
            coding, coded = parts.coded(labels.numbers, labels.width, ["packed", "zstd"] if entropy_coded else ["packed"])
            tensors[f"{prefix}:labels"] = torch.from_numpy(coded.copy())
        groups.append({"weights": weights, "k": stored.settings["k"], "bits": bits, "coding": coding, "error": error})
    ks = [group["k"] for group in groups]
    made = {
        "version": 1,
        "load": LOAD,
        "format": format,
        "groups": groups,
        "plan": ks[0] if whole else ks,
        "sha256": packed_format.UNSEALED,
    }
    text = json.dumps(Details.model_validate(common | made).model_dump(), separators=(",", ":"))
    return packed_format.seal(save(tensors, {metadata.KEY: text}))


def _second(
    compressed: Compressed, errors: list[float], others: Mapping, coded: Mapping[str, Stored], entropy_coded: bool, common: dict
) -> bytes:
    """A file of version 2; `coded` other tensors are written so."""
    codings = list(parts.CODINGS) if entropy_coded else ["packed"]
    data: list[bytes] = []
    groups = [
        {"weights": _weights(layers), "error": error} | _described(stored, codings, data, _columns(layers))
        for layers, stored, error in zip(compressed.layers, compressed.stored, errors, strict=True)
    ]
    tensors = []
    for name, value in others.items():
        tensor = compact_format.described(name, value)
        if isinstance(tensor, RawTensor) and name in coded:
            tensors.append({"name": name, "shape": list(value.shape)} | _described(coded[name], codings, data, 0))
        else:
            tensors.append(tensor.model_dump())
            data += [compact_format.raw(value)] if isinstance(tensor, RawTensor) else []
    plan = [compressed.plan] if isinstance(compressed.plan, int) else list(compressed.plan)
    made = {"groups": groups, "tensors": tensors, "plan": plan}
    return compact_format.join(CompactDetails.model_validate(common | made), b"".join(data))


def _described(stored: Stored, codings: Sequence[str], data: list[bytes], columns: int) -> dict:
    """What version 2 says of stored weights, whose bytes are added to the data."""
    described: dict[str, dict] = {}
    for name, part in stored.parts.items():
        if isinstance(part, Labels):
            coding, coded = parts.coded(part.numbers, part.width, codings, columns)
            described[name] = {"bits": part.width, "coding": coding, "length": len(coded)}
            data.append(coded.tobytes())
        else:
            described[name] = {"n": len(part.numbers), "format": part.format}
            data.append(compact_format.raw(formats.get(part.format).encode(part.numbers)))
    return {"kind": stored.kind, "settings": dict(stored.settings), "parts": described}


def _columns(layers: Sequence[models.Layer]) -> int:
    """Weights of one output in all layers of a group; 0 where layers differ."""
    columns = {math.prod(layer.shape[1:]) for layer in layers}
    return columns.pop() if len(columns) == 1 else 0


def coded_bytes(stored: Stored, layers: Sequence[models.Layer]) -> int:
    """The bytes of stored weights in a file of version 2, entropy-coded; those of all groups are what `coded_rate` counts."""
    data: list[bytes] = []
    _described(stored, list(parts.CODINGS), data, _columns(layers))
    return sum(map(len, data))


def _weights(layers: Sequence[models.Layer]) -> list[tuple[str, list[int]]]:
    return [(f"{layer.name}.weight", list(layer.shape)) for layer in layers]


def _error(state: Mapping, layers: Sequence[models.Layer], stored: Stored) -> float:
    """Root mean square difference to the original weights, to four digits."""
    original = np.concatenate([state[f"{layer.name}.weight"].numpy().ravel() for layer in layers]).astype(np.float64)
    return float(f"{math.sqrt(float(((original - kinds.weights(stored, len(original))) ** 2).sum()) / len(original)):.4g}")


def _codable(value: torch.Tensor) -> bool:
    """Whether version 2 may code a tensor; others are stored as they are."""
    return value.dtype == torch.float32 and value.numel() > 0 and bool(value.isfinite().all())


def _float16(value: torch.Tensor) -> Stored:
    return Stored("values", {"values": Values(formats.get("float16").round(value.numpy().ravel()), "float16")})


def _one_format(compressed: Compressed) -> str | None:
    """The format of all groups, if they are codebooks in one format, which files of version 1 hold."""
    used = {part.format for stored in compressed.stored for part in stored.parts.values() if isinstance(part, Values)}
    alike = len(used) == 1 and all(stored.kind == "codebook" for stored in compressed.stored)
    return used.pop() if alike and not compressed.others else None


def _changed(compressed: Compressed, state: Mapping, shared: list[str], same: Mapping) -> dict[str, torch.Tensor]:
    """The changed tensors, after a check that the file may hold them instead of those of the network."""
    changed = compressed.changed()
    for name, tensor in changed.items():
        first = same.get(name, name)
        if first in shared or first not in state or (tensor.shape, tensor.dtype) != (state[first].shape, state[first].dtype):
            raise UserError(f"{name} must be another tensor of the network, of shape {tuple(tensor.shape)} and {tensor.dtype}")
    return {same.get(name, name): tensor.detach().cpu().contiguous() for name, tensor in changed.items()}


def write(file: str | Path, model: nn.Module, plan: int | Iterable[int], *arguments: Any, **options: Any) -> Packed:
    """Write the bytes of `pack`, whole or not at all, after they were checked like any other file."""
    return _written(Path(file), pack(model, plan, *arguments, **options))


def write_compressed(file: str | Path, model: nn.Module, compressed: Compressed, **options: Any) -> Packed:
    """Write the bytes of `pack_compressed`, as `write` does."""
    return _written(Path(file), pack_compressed(model, compressed, **options))


def _written(file: Path, content: bytes) -> Packed:
    packed = Packed(*packed_format.check(content, limit_bytes=sys.maxsize), content)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        storage.write_whole(file, content)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error}") from error
    return packed


def _storable(state: Mapping, rest: str) -> Mapping[str, torch.Tensor]:
    """A state dict, if a packed file can hold it."""
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(f"{name} of the network's state is {type(value).__name__}; only tensors can be packed")
        if value.dtype not in compact_format.NAMES:
            allowed = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in compact_format.NAMES))
            raise UserError(f"{name} is {value.dtype}, which a packed file cannot hold; allowed: {allowed}")
        if rest == "float16" and value.dtype == torch.float16:
            raise UserError(f"{name} is float16, so the rest cannot be stored as float16; it would be read as float32")
    return state


def _measured(accuracy: Mapping) -> Measured:
    try:
        return Measured(**{name: getattr(value, "item", lambda value=value: value)() for name, value in accuracy.items()})
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"accuracy is wrong: {'.'.join(map(str, first['loc']))}: {first['msg']}, got {dict(accuracy)}") from None


def _once(state: Mapping[str, torch.Tensor], shared: list[str]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors on the CPU, each once under its first name, and the first names of all further ones.

    All that are named in `shared` stay, before others.
    """
    first: dict[tuple, str] = {}
    tensors: dict[str, torch.Tensor] = {}
    same: dict[str, str] = {}
    for name in dict.fromkeys([*shared, *state]):
        value = state[name].detach()
        place = value.data_ptr(), value.shape, value.stride(), value.dtype
        if value.nbytes and place in first and name not in shared:
            same[name] = first[place]
        else:
            first.setdefault(place, name)
            tensors[name] = value.cpu().clone(memory_format=torch.contiguous_format)  # views may overlap
    return tensors, same
