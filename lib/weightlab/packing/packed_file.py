"""A compressed network as a file whose size is the claim: written whole, read back exactly (docs/format.md).

The file is one safetensors file. `storage_rate` predicts the bytes of its codebooks and labels; biases, batch norm and the header come
on top, and `file_rate` counts everything.
"""

import hashlib
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import ValidationError
from safetensors.torch import save
from torch import nn

from weightlab import accounting, formats, models, sharing, storage
from weightlab.compression.sharing.clustering import Codebook, Lift
from weightlab.compression.sharing.codebooks import Codebooks
from weightlab.errors import UserError, choose, plain
from weightlab.packing import label_coding, packed_format
from weightlab.packing.packed_format import Details, Group, Measured

RESTS = ("as it was", "float16")
LOAD = "weightlab.packing.read(file).load(model), or docs/format.md of weightlab"


@dataclass(frozen=True)
class Packed:
    """A packed file that has been read: `details` (its metadata), a codebook per group, and all tensors that are not shared."""

    details: Details
    books: list[Codebook]
    rest: dict[str, torch.Tensor]
    content: bytes

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Every tensor of the network by its name, shared weights as float32."""
        state = {name: torch.from_numpy(values[labels]) for name, (values, labels) in self.shared().items()}
        halved = self.details.rest == "float16"
        state |= {name: value.float() if halved and value.dtype == torch.float16 else value for name, value in self.rest.items()}
        return state | {name: state[first] for name, first in self.details.same.items()}

    def load(self, model: nn.Module) -> nn.Module:
        """A copy of `model` with the weights of this file, in evaluation mode; raises `UserError` if they do not fit."""
        filled = models.copied(model)
        try:
            filled.load_state_dict(self.state_dict())
        except RuntimeError as error:
            told = " ".join(str(error).split())[:300]
            raise UserError(
                f"the packed weights (network {self.details.network!r}) are not those of this network: {told}"
            ) from None
        return filled.eval()

    def shared(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By name of a shared weight: centroids, float32 (n,), and labels, unsigned, of the weight's shape."""
        found = {}
        for group, book in zip(self.details.groups, self.books, strict=True):
            ends = np.cumsum([math.prod(shape) for _, shape in group.weights])[:-1]
            for (name, shape), labels in zip(group.weights, np.split(book.labels, ends), strict=True):
                found[name] = book.centroids, labels.reshape(shape)
        return found

    def report(self) -> pd.DataFrame:
        """A row per group: layer, weights, k, bits, coding, stored_bits (as `storage_rate` charges it), rate, bytes, rms_error."""
        rows = []
        width, table = formats.get(self.details.format).bits, packed_format.parse(self.content)[1]
        for name, group in zip(self.details.names, self.details.groups, strict=True):
            bits = group.size * group.bits + group.k * width
            stored = [table[f"{name}:{part}"]["data_offsets"] for part in ("labels", "centroids") if f"{name}:{part}" in table]
            rows.append({
                "layer": name.removesuffix(".weight"),
                "weights": group.size,
                "k": group.k,
                "bits": group.bits,
                "coding": group.coding,
                "stored_bits": bits,
                "rate": group.size * accounting.ORIGINAL_BITS / bits,
                "bytes": sum(end - start for start, end in stored),
                "rms_error": group.error,
            })  # fmt: skip
        return pd.DataFrame(rows)

    def summary(self) -> dict:
        """Rates and bytes, JSON-ready.

        `predicted_bytes` is what `storage_rate` says of the shared weights plus `rest_bytes`, all else as it is stored;
        `payload_bytes` what the file has without its header; `file_rate` original_bytes / file_bytes.
        """
        table = self.report()
        header, rest = packed_format.header_bytes(self.content), sum(value.nbytes for value in self.rest.values())
        arguments = table["weights"].to_numpy(), table["k"].to_numpy(), self.details.format
        return {
            "storage_rate": float(accounting.storage_rate(*arguments)),
            "layer_mean_rate": float(accounting.layer_mean_rate(*arguments)),
            "file_rate": self.details.original_bytes / len(self.content),
            "file_bytes": len(self.content),
            "header_bytes": header,
            "payload_bytes": len(self.content) - header,
            "predicted_bytes": -(-int(table["stored_bits"].sum()) // 8) + rest,
            "rest_bytes": rest,
            "original_bytes": self.details.original_bytes,
        }


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
    `entropy_coded` labels are taken layer by layer where they are smaller. `network` names what the weights belong to. `accuracy`
    holds what was measured, mappings with split, images, original and packed. `codebooks`, of the same network, method and format,
    spare clustering. Raises `UserError` as `sharing.share` does, for shared weights that are not float32, for other tensors that the
    file cannot hold, and for codebooks of something else.

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
    chosen, ks = sharing.choose_books(books, plan, lifts), sharing.check_plan(books, plan)
    state, same = _once(_storable(model.state_dict(), rest), [f"{layer.name}.weight" for layer in books.layers])
    tensors, groups, shared = {}, [], set()
    for group, (book, k) in enumerate(zip(chosen, ks, strict=True)):
        layers = books.layers if books.whole_net else [books.layers[group]]
        weights = {f"{layer.name}.weight": list(layer.shape) for layer in layers}
        for name in weights:
            if state[name].dtype != torch.float32:
                raise UserError(f"{name} is {state[name].dtype}; rates are stated against float32, so only that is packed")
        bits = int(accounting.key_bits(k))
        coding, labels = _coded(book.labels, bits, entropy_coded)
        name = sharing.WHOLE_NET if books.whole_net else next(iter(weights))
        tensors[f"{name}:centroids"] = formats.get(books.format).encode(book.centroids)
        if coding != "none":
            tensors[f"{name}:labels"] = torch.from_numpy(labels.copy())
        error = math.sqrt(book.inertia(books.original(group)) / len(book.labels))
        groups.append(Group(weights=list(weights.items()), k=k, bits=bits, coding=coding, error=float(f"{error:.4g}")))
        shared |= set(weights)
    tensors |= {name: _rest(value, rest) for name, value in state.items() if name not in shared}
    details = Details(
        version=packed_format.VERSION,
        written_by=f"weightlab {version('weightlab')}",
        load=LOAD,
        network=network,
        format=books.format,
        method=books.method,
        plan=ks[0] if books.whole_net else ks,
        groups=groups,
        same=same,
        rest=rest,
        accuracy=[_measured(each) for each in accuracy],
        original_bytes=sum(value.nbytes for value in state.values()),
        source_sha256=hashlib.sha256(save(state)).hexdigest(),
        sha256=packed_format.UNSEALED,
    )
    text = json.dumps(details.model_dump(), separators=(",", ":"))
    return packed_format.seal(save(tensors, {packed_format.KEY: text}))


def write(file: str | Path, model: nn.Module, plan: int | Iterable[int], *arguments, **options) -> Packed:
    """Write what `pack` makes, whole or not at all, after it has been read as any other file is."""
    file, content = Path(file), pack(model, plan, *arguments, **options)
    packed = Packed(*packed_format.check(content, limit_bytes=sys.maxsize), content)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        storage.write_whole(file, content)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error}") from error
    return packed


def read(file: str | Path, limit_bytes: int | None = None) -> Packed:
    """A packed file, checked throughout (see `packed_format.check`); raises `UserError`, and nothing else, for any other file.

    >>> import tempfile
    >>> model = models.load("lenet5_tanh")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = write(Path(folder, "small.safetensors"), model, plan=8, format="float16")
    ...     packed = read(Path(folder, "small.safetensors"))
    >>> packed.details.plan, packed.books[0].centroids.size, type(packed.load(model)).__name__
    (8, 8, 'LeNet5')
    """
    try:
        content = _content(Path(file))
        return Packed(*packed_format.check(content, limit_bytes), content)
    except UserError as error:
        told = plain(str(error)[:500])  # names and shapes in it may be of any length
        raise UserError(f"{file} is not a packed network that can be trusted: {told}") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    except MemoryError:
        raise UserError(f"{file} needs more memory than there is") from None


def _content(file: Path) -> bytes:
    """All bytes of a file, once its header is one of ours; a file may be far larger than memory, or have no end."""
    if file.exists() and not file.is_file():
        raise OSError("it is not a file")
    with open(file, "rb") as stream:
        size, head = os.fstat(stream.fileno()).st_size, stream.read(8)
        head += stream.read(packed_format.header_bytes(head, size) - 8)
        packed_format.parse(head)
        return head + stream.read()


def _coded(labels: np.ndarray, bits: int, entropy_coded: bool) -> tuple[str, np.ndarray | None]:
    """The smaller coding of labels, and its bytes."""
    if bits == 0:
        return "none", None
    packed = label_coding.pack(labels, bits)
    compressed = label_coding.compress(labels, bits) if entropy_coded else packed
    return ("zstd", compressed) if len(compressed) < len(packed) else ("packed", packed)


def _storable(state: Mapping, rest: str) -> Mapping[str, torch.Tensor]:
    """A state dict, if a packed file can hold it."""
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(f"{name} of the network's state is {type(value).__name__}; only tensors can be packed")
        if value.dtype not in packed_format.STORABLE:
            allowed = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in packed_format.STORABLE))
            raise UserError(f"{name} is {value.dtype}, which a packed file cannot hold; allowed: {allowed}")
        if rest == "float16" and value.dtype == torch.float16:
            raise UserError(f"{name} is float16 itself, so the rest cannot be stored as float16; it would come back as float32")
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
    """Tensors on the CPU, those that are the same one only under their first name; and which name is another for which.

    All that are named in `shared` stay, before others.
    """
    first, kept, same = {}, {}, {}
    for name in dict.fromkeys([*shared, *state]):
        value = state[name].detach()
        place = value.data_ptr(), value.shape, value.stride(), value.dtype
        if value.nbytes and place in first and name not in shared:
            same[name] = first[place]
        else:
            first.setdefault(place, name)
            kept[name] = value.cpu().clone(memory_format=torch.contiguous_format)  # views may overlap
    return kept, same
