"""Write compressed networks as packed files; `packed_file` reads them."""

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors.torch import save
from torch import nn

from weightlab import formats, sharing, storage
from weightlab.compression import kinds
from weightlab.compression.compressed import Compressed
from weightlab.compression.contract import Labels, Stored, Values
from weightlab.compression.sharing.clustering import Lift
from weightlab.compression.sharing.codebooks import Codebooks
from weightlab.errors import UserError, choose
from weightlab.packing import label_coding, metadata, packed_format, range_coding
from weightlab.packing.metadata import Details, Measured, StoredDetails
from weightlab.packing.packed_file import Packed

RESTS = ("as it was", "float16")
CODINGS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {  # the first of equally small ones is taken
    "packed": label_coding.pack,
    "zstd": label_coding.compress,
    "range": lambda labels, bits: range_coding.encode(labels),
}
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
) -> bytes:
    """A network compressed by any method as the bytes of a packed file; `model` is the original, the options are those of `pack`.

    Other changed tensors are stored with their new values. Raises `UserError` for weights that are not float32, and for other tensors
    that the file cannot hold or the network does not have.
    """
    choose("storage of the rest", rest, RESTS)
    shared = [f"{layer.name}.weight" for layers in compressed.layers for layer in layers]
    state, same = _once(_storable(model.state_dict(), rest), shared)
    if wrong := [name for name in shared if state[name].dtype != torch.float32]:
        raise UserError(
            f"{wrong[0]} is {state[wrong[0]].dtype}; rates are relative to float32, so only float32 weights are packed"
        )
    plan = compressed.plan if isinstance(compressed.plan, int) else list(compressed.plan)
    format = _one_format(compressed.stored)
    codings = ["packed"] if not entropy_coded else ["packed", "zstd"] if format else list(CODINGS)
    tensors: dict[str, torch.Tensor] = {}
    groups = []
    for layers, stored in zip(compressed.layers, compressed.stored, strict=True):
        weights = {f"{layer.name}.weight": list(layer.shape) for layer in layers}
        parts, own = _parts(stored, codings)
        prefix = sharing.WHOLE_NET if isinstance(plan, int) else next(iter(weights))
        tensors |= {f"{prefix}:{part}": tensor for part, tensor in own.items()}
        original = np.concatenate([state[name].numpy().ravel() for name in weights]).astype(np.float64)
        error = math.sqrt(float(((original - kinds.weights(stored, len(original))) ** 2).sum()) / len(original))
        group = {"weights": list(weights.items()), "kind": stored.kind, "settings": dict(stored.settings), "parts": parts}
        groups.append(group | {"error": float(f"{error:.4g}")})
    others = {name: value for name, value in state.items() if name not in shared} | _changed(compressed, state, shared, same)
    tensors |= {name: _rest(value, rest) for name, value in others.items()}
    details = _details(
        groups,
        format,
        written_by=f"weightlab {version('weightlab')}",
        load=LOAD,
        network=network,
        method=compressed.method,
        plan=plan,
        same=same,
        rest=rest,
        accuracy=[_measured(each) for each in accuracy],
        original_bytes=sum(value.nbytes for value in state.values()),
        source_sha256=hashlib.sha256(save(state)).hexdigest(),
        sha256=packed_format.UNSEALED,
    )
    text = json.dumps(details.model_dump(), separators=(",", ":"))
    return packed_format.seal(save(tensors, {metadata.KEY: text}))


def _parts(stored: Stored, codings: Sequence[str]) -> tuple[dict[str, dict], dict[str, torch.Tensor]]:
    """The metadata of each part, as in version 2, and the tensors."""
    descriptions: dict[str, dict] = {}
    tensors = {}
    for name, part in stored.parts.items():
        if isinstance(part, Labels):
            coding, coded = _coded(part.numbers, part.width, codings)
            descriptions[name], tensors[name] = (
                {"n": len(part.numbers), "bits": part.width, "coding": coding},
                torch.from_numpy(coded.copy()),
            )
        else:
            descriptions[name], tensors[name] = {"format": part.format}, formats.get(part.format).encode(part.numbers)
    return descriptions, tensors


def _one_format(groups: Sequence[Stored]) -> str | None:
    """The format of all groups, if they are codebooks in one format, which files of version 1 hold."""
    used = {part.format for stored in groups for part in stored.parts.values() if isinstance(part, Values)}
    return used.pop() if len(used) == 1 and all(stored.kind == "codebook" for stored in groups) else None


def _details(groups: list[dict], format: str | None, **values: Any) -> Details | StoredDetails:
    """The metadata: of version 1, whose readers are older, where all groups are codebooks in one format."""
    if format is None:
        return StoredDetails.model_validate(values | {"version": 2, "format": "mixed", "groups": groups})
    books = []
    for group in groups:
        labels = group["parts"].get("labels", {"bits": 0, "coding": "none"})
        coding = {"k": group["settings"]["k"], "bits": labels["bits"], "coding": labels["coding"]}
        books.append({"weights": group["weights"], **coding, "error": group["error"]})
    plan = values["plan"] if isinstance(values["plan"], int) else [book["k"] for book in books]
    return Details.model_validate(values | {"version": 1, "format": format, "groups": books, "plan": plan})


def _changed(compressed: Compressed, state: Mapping, shared: list[str], same: Mapping) -> dict[str, torch.Tensor]:
    """The changed tensors, after a check that the file may hold them instead of those of the network."""
    for name, tensor in compressed.tensors.items():
        first = same.get(name, name)
        if first in shared or first not in state or (tensor.shape, tensor.dtype) != (state[first].shape, state[first].dtype):
            raise UserError(f"{name} must be another tensor of the network, of shape {tuple(tensor.shape)} and {tensor.dtype}")
    return {same.get(name, name): tensor.detach().cpu().contiguous() for name, tensor in compressed.tensors.items()}


def write(file: str | Path, model: nn.Module, plan: int | Iterable[int], *arguments: Any, **options: Any) -> Packed:
    """Write the bytes of `pack`, whole or not at all, after they were checked like any other file."""
    file, content = Path(file), pack(model, plan, *arguments, **options)
    packed = Packed(*packed_format.check(content, limit_bytes=sys.maxsize), content)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        storage.write_whole(file, content)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error}") from error
    return packed


def _coded(labels: np.ndarray, bits: int, codings: Sequence[str]) -> tuple[str, np.ndarray]:
    """The smallest of some codings of labels, and its bytes."""
    if labels.min() == labels.max():
        codings = [coding for coding in codings if coding != "range"]
    return min(((coding, CODINGS[coding](labels, bits)) for coding in codings), key=lambda coded: len(coded[1]))


def _storable(state: Mapping, rest: str) -> Mapping[str, torch.Tensor]:
    """A state dict, if a packed file can hold it."""
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(f"{name} of the network's state is {type(value).__name__}; only tensors can be packed")
        if value.dtype not in packed_format.STORABLE:
            allowed = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in packed_format.STORABLE))
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


def _rest(value: torch.Tensor, rest: str) -> torch.Tensor:
    # A running variance may lie beyond what float16 holds.
    return value.clamp(-65504, 65504).half() if rest == "float16" and value.dtype == torch.float32 else value


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
