"""The contents of a packed file (docs/format.md), and how bytes of any origin are checked before they are used.

Nothing in a file is executed. Before memory is allocated, lengths, names, shapes and numbers are compared with the bytes of the file, and
the size of the unpacked network with a limit; a mismatch raises `UserError`.
"""

import hashlib
import math
from collections import Counter

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load

from weightlab import accounting, formats
from weightlab.compression import kinds
from weightlab.compression.contract import Labels, Stored, Values
from weightlab.errors import UserError, flat
from weightlab.packing import label_coding, range_coding
from weightlab.packing.metadata import Details, Group, LabelsPart, StoredDetails, StoredGroup, parse

UNSEALED = "0" * 64  # stands for the file's own SHA-256 while it is computed
UNPACKED_FLOOR, UNPACKED_TIMES = 64 << 20, 256  # a network may unpack to so many bytes, or so many times its file
REST = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}  # bytes a value

STORABLE = {
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
    torch.bool,
}  # fmt: skip


def check(content: bytes, limit_bytes: int | None = None) -> tuple[Details | StoredDetails, list[Stored], dict]:
    """The checked contents of a file: metadata, the stored parts of each group, and all other tensors by name.

    `limit_bytes` is what the unpacked network may take (default: 64 MiB, or 256 times the file where that is more).
    """
    details, table = parse(content)
    _check_seal(content, details)
    _check_names(details, table)
    for name, entry in table.items():
        _check_entry(name, entry, details)
    rest_bytes = sum(end - start for start, end in (entry["data_offsets"] for entry in table.values()))
    unpacked = rest_bytes + 4 * sum(group.size for group in details.groups)
    if isinstance(details, StoredDetails):
        unpacked += sum(2 * part.n for group in details.groups for part in group.parts.values() if isinstance(part, LabelsPart))
    limit = max(UNPACKED_FLOOR, UNPACKED_TIMES * len(content)) if limit_bytes is None else limit_bytes
    if unpacked > limit:
        raise UserError(
            f"it would unpack to {unpacked} bytes, and {limit} are allowed; a larger limit can be given (limit_bytes, or --limit-bytes)"
        )
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"its tensors do not fit the file ({flat(error)[:200]})") from None
    if odd := [name for name, value in tensors.items() if value.dtype == torch.bool and value.view(torch.uint8).gt(1).any()]:
        raise UserError(f"its tensor {odd[0]!r} of BOOL holds bytes other than 0 and 1")
    if isinstance(details, StoredDetails):
        stored = [_stored(name, group, tensors) for name, group in zip(details.names, details.groups, strict=True)]
    else:
        stored = [_codebook(details, name, group, tensors) for name, group in zip(details.names, details.groups, strict=True)]
    return details, stored, tensors


def seal(content: bytes) -> bytes:
    """A file whose metadata say `UNSEALED`, with its SHA-256 there instead."""
    place = rb"\"sha256\":\""  # as it stands in a JSON text within a JSON text
    return content.replace(place + UNSEALED.encode(), place + hashlib.sha256(content).hexdigest().encode(), 1)


def _check_seal(content: bytes, details: Details | StoredDetails) -> None:
    whole = content.replace(details.sha256.encode(), UNSEALED.encode(), 1)
    if hashlib.sha256(whole).hexdigest() != details.sha256:
        raise UserError("its checksum is wrong: it was damaged or changed since it was written")


def _check_names(details: Details | StoredDetails, table: dict[str, dict]) -> None:
    """Every tensor has one place in the network, every group its tensors, and the plan is that of the groups."""
    if isinstance(details, StoredDetails):
        if len(details.plan) != len(details.groups):
            raise UserError(f"its plan has {len(details.plan)} numbers for {len(details.groups)} groups")
    else:
        ks = [group.k for group in details.groups]
        if ([details.plan] if isinstance(details.plan, int) else details.plan) != ks:
            raise UserError(f"its plan {str(details.plan)[:100]} is not that of its groups, {str(ks)[:100]}")
    group_weights = [weight for group in details.groups for weight, _ in group.weights]
    needed = [f"{name}:{part}" for name, group in details.named for part in group.parts]
    if missing := [name for name in needed if name not in table]:
        raise UserError(f"its tensor {missing[0]!r} is missing")
    own = [*group_weights, *(set(table) - set(needed))]
    for name, times in Counter([*own, *details.same]).items():
        if name.endswith((":labels", ":centroids")) or times > 1:
            raise UserError(f"it holds a tensor {name!r} that has no place in its network")
    places = set(own)
    if unknown := [name for name, first in details.same.items() if first not in places]:
        raise UserError(f"its tensor {unknown[0]!r} is stored as {details.same[unknown[0]]!r}, which is missing")


def _check_entry(name: str, entry: dict, details: Details | StoredDetails) -> None:
    """Check an entry of the safetensors table: a known type, and a shape with as many bytes as the file has for it."""
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        whole = len(shape) <= 8 and all(type(number) is int and 0 <= number < 1 << 63 for number in [*shape, start, end])
        width = 1 if dtype == "F8_E4M3" else REST[dtype]
        fits = whole and len(entry) == 3 and math.prod(shape) * width == end - start
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"its tensor {name!r} has no valid safetensors entry ({type(error).__name__}: {error})") from None
    if not fits:
        raise UserError(f"its tensor {name!r} of shape {shape} does not fit {end - start if whole else 'its'} bytes")


def _codebook(details: Details, name: str, group: Group, tensors: dict) -> Stored:
    """Remove a group's tensors from `tensors` and check them; the labels of version 1 are checked against k."""
    most = min(group.k, group.size)
    centroids = _numbers(tensors.pop(f"{name}:centroids"), details.format, f"the codebook of {name!r}", most)
    if group.bits != accounting.key_bits(group.k) or (group.bits == 0) != (group.coding == "none"):
        raise UserError(f"labels of {name!r} need {accounting.key_bits(group.k)} bits at k = {group.k}, got {group.bits}")
    parts: dict[str, Values | Labels] = {"centroids": Values(centroids, details.format)}
    if group.coding != "none":
        labels = _labels(tensors.pop(f"{name}:labels"), group.size, group.bits, group.coding, f"the labels of {name!r}")
        if labels.max() >= len(centroids):
            raise UserError(f"a label of {name!r} is {labels.max()}, its codebook has {len(centroids)} centroids")
        parts["labels"] = Labels(labels, group.bits)
    return Stored("codebook", parts, {"k": group.k})


def _stored(name: str, group: StoredGroup, tensors: dict) -> Stored:
    """Remove a group's tensors from `tensors`, and check that they can be decoded."""
    parts: dict[str, Values | Labels] = {}
    for part, description in group.parts.items():
        stored, what = tensors.pop(f"{name}:{part}"), f"the {part} of {name!r}"
        if isinstance(description, LabelsPart):
            parts[part] = Labels(_labels(stored, description.n, description.bits, description.coding, what), description.bits)
        else:
            parts[part] = Values(_numbers(stored, description.format, what), description.format)
    result = Stored(group.kind, parts, group.settings)
    try:
        kinds.weights(result, group.size)
    except UserError as error:
        raise UserError(f"the parts of {name!r} cannot be decoded: {error}") from None
    return result


def _numbers(stored: torch.Tensor, name: str, what: str, most: int | None = None) -> np.ndarray:
    """The numbers of a tensor in a format, float32 (n,), all of them finite; at most so many."""
    format = formats.get(name)
    if stored.dtype != format.dtype or stored.dim() != 1 or not 1 <= len(stored) <= (len(stored) if most is None else most):
        raise UserError(f"{what} must be 1 to {'any number of' if most is None else most} values of {format.name}")
    numbers = format.decode(stored)
    if not np.isfinite(numbers).all():
        raise UserError(f"{what} holds NaN or infinity")
    return numbers


def _labels(stored: torch.Tensor, n: int, bits: int, coding: str, what: str) -> np.ndarray:
    """The n whole numbers that a tensor codes, unsigned (n,)."""
    if stored.dtype != torch.uint8 or stored.dim() != 1:
        raise UserError(f"{what} must be bytes")
    if coding == "range":
        labels = range_coding.decode(stored.numpy(), n)
    else:
        labels = (label_coding.unpack if coding == "packed" else label_coding.expand)(stored.numpy(), n, bits)
    if labels is None or labels.max() >> bits:
        raise UserError(f"{what} are not {n} labels, coded as {coding}")
    return labels
