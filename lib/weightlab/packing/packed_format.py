"""The contents of a packed file (docs/format.md), and how bytes of any origin are checked before they are used.

Nothing in a file is executed. Before memory is allocated, lengths, names, shapes and numbers are compared with the bytes of the file, and
the size of the unpacked network with a limit; a mismatch raises `UserError`.
"""

import hashlib
import math
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from weightlab import accounting
from weightlab.compression.contract import Labels, Stored, Values
from weightlab.errors import UserError, flat
from weightlab.packing import compact_format, parts
from weightlab.packing.compact_metadata import TYPES, CompactDetails
from weightlab.packing.metadata import Details, Group, check_places, header_bytes, parse

UNSEALED = "0" * 64  # stands for the file's own SHA-256 while it is computed
UNPACKED_FLOOR, UNPACKED_TIMES = 64 << 20, 256  # a network may unpack to so many bytes, or so many times its file


class Contents(NamedTuple):
    """What a file holds: metadata, the stored parts of each group, all other tensors by name, and where its bytes went."""

    details: Details | CompactDetails
    stored: list[Stored]
    rest: dict[str, torch.Tensor]
    header_bytes: int
    group_bytes: list[int]
    rest_bytes: int


def check(content: bytes, limit_bytes: int | None = None) -> Contents:
    """The checked contents of a file of either version.

    `limit_bytes` is what the unpacked network may take (default: 64 MiB, or 256 times the file where that is more).
    """
    return (_second if content.startswith(compact_format.MAGIC) else _first)(content, limit_bytes)


def _first(content: bytes, limit_bytes: int | None) -> Contents:
    details, table = parse(content)
    _check_seal(content, details)
    _check_names(details, table)
    for name, entry in table.items():
        _check_entry(name, entry)
    sizes = {name: entry["data_offsets"][1] - entry["data_offsets"][0] for name, entry in table.items()}
    _check_limit(sum(sizes.values()) + 4 * sum(group.size for group in details.groups), content, limit_bytes)
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"its tensors do not fit the file ({flat(error)[:200]})") from None
    if odd := [name for name, value in tensors.items() if value.dtype == torch.bool and value.view(torch.uint8).gt(1).any()]:
        raise UserError(f"its tensor {odd[0]!r} of BOOL holds bytes other than 0 and 1")
    stored = [_codebook(details, name, group, tensors) for name, group in zip(details.names, details.groups, strict=True)]
    group_bytes = [
        sum(sizes[f"{name}:{part}"] for part in group.parts) for name, group in zip(details.names, details.groups, strict=True)
    ]
    halved = details.rest == "float16"
    rest = {name: value.float() if halved and value.dtype == torch.float16 else value for name, value in tensors.items()}
    return Contents(details, stored, rest, header_bytes(content), group_bytes, sum(sizes[name] for name in rest))


def _second(content: bytes, limit_bytes: int | None) -> Contents:
    details, start = compact_format.parse(content)
    compact_format.check(content, details, start)
    _check_limit(compact_format.unpacked_bytes(details), content, limit_bytes)
    stored, rest = compact_format.read(content, details, start)
    rest_bytes = sum(tensor.length for tensor in details.tensors)
    return Contents(details, stored, rest, start, [group.length for group in details.groups], rest_bytes)


def _check_limit(unpacked: int, content: bytes, limit_bytes: int | None) -> None:
    limit = max(UNPACKED_FLOOR, UNPACKED_TIMES * len(content)) if limit_bytes is None else limit_bytes
    if unpacked > limit:
        raise UserError(
            f"it would unpack to {unpacked} bytes, and {limit} are allowed; a larger limit can be given (limit_bytes, or --limit-bytes)"
        )


def seal(content: bytes) -> bytes:
    """A file whose metadata say `UNSEALED`, with its SHA-256 there instead."""
    place = rb"\"sha256\":\""  # as it stands in a JSON text within a JSON text
    return content.replace(place + UNSEALED.encode(), place + hashlib.sha256(content).hexdigest().encode(), 1)


def _check_seal(content: bytes, details: Details) -> None:
    whole = content.replace(details.sha256.encode(), UNSEALED.encode(), 1)
    if hashlib.sha256(whole).hexdigest() != details.sha256:
        raise UserError("its checksum is wrong: it was damaged or changed since it was written")


def _check_names(details: Details, table: dict[str, dict]) -> None:
    """Every tensor has one place in the network, every group its tensors, and the plan is that of the groups."""
    ks = [group.k for group in details.groups]
    if ([details.plan] if isinstance(details.plan, int) else details.plan) != ks:
        raise UserError(f"its plan {str(details.plan)[:100]} is not that of its groups, {str(ks)[:100]}")
    needed = [f"{name}:{part}" for name, group in zip(details.names, details.groups, strict=True) for part in group.parts]
    if missing := [name for name in needed if name not in table]:
        raise UserError(f"its tensor {missing[0]!r} is missing")
    others = set(table) - set(needed)
    weights = [weight for group in details.groups for weight, _ in group.weights]
    if odd := [name for name in [*weights, *others, *details.same] if name.endswith((":labels", ":centroids"))]:
        raise UserError(f"it holds a tensor {odd[0]!r} that has no place in its network")
    check_places(details.groups, others, details.same)


def _check_entry(name: str, entry: dict) -> None:
    """Check an entry of the safetensors table: a known type, and a shape with as many bytes as the file has for it."""
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        whole = len(shape) <= 8 and all(type(number) is int and 0 <= number < 1 << 63 for number in [*shape, start, end])
        width = 1 if dtype == "F8_E4M3" else TYPES[dtype]
        fits = whole and len(entry) == 3 and math.prod(shape) * width == end - start
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"its tensor {name!r} has no valid safetensors entry ({type(error).__name__}: {error})") from None
    if not fits:
        raise UserError(f"its tensor {name!r} of shape {shape} does not fit {end - start if whole else 'its'} bytes")


def _codebook(details: Details, name: str, group: Group, tensors: dict) -> Stored:
    """Remove a group's tensors from `tensors` and check them; the labels of version 1 are checked against k."""
    most = min(group.k, group.size)
    centroids = parts.read_values(tensors.pop(f"{name}:centroids"), details.format, f"the codebook of {name!r}", most)
    if group.bits != accounting.key_bits(group.k) or (group.bits == 0) != (group.coding == "none"):
        raise UserError(f"labels of {name!r} need {accounting.key_bits(group.k)} bits at k = {group.k}, got {group.bits}")
    book: dict[str, Values | Labels] = {"centroids": Values(centroids, details.format)}
    if group.coding != "none":
        stored, what = tensors.pop(f"{name}:labels"), f"the labels of {name!r}"
        if stored.dtype != torch.uint8 or stored.dim() != 1:
            raise UserError(f"{what} must be bytes")
        labels = parts.read_labels(stored.numpy(), group.size, group.bits, group.coding, what)
        if labels.max() >= len(centroids):
            raise UserError(f"a label of {name!r} is {labels.max()}, its codebook has {len(centroids)} centroids")
        book["labels"] = Labels(labels, group.bits)
    return Stored("codebook", book, {"k": group.k})
