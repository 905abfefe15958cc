"""What lies in a packed file (docs/format.md), and how bytes from anywhere are checked before any of it is believed.

Nothing in a file is executed. Lengths, names, shapes and numbers are held against what the file itself really holds, and what the network
would take against a limit, before memory is allocated for it; what does not fit raises `UserError`.
"""

import hashlib
import json
import math
from collections import Counter
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load

from weightlab import accounting, formats
from weightlab.compression.sharing import clustering
from weightlab.compression.sharing.clustering import Codebook
from weightlab.errors import UserError
from weightlab.packing import label_coding

KEY = "weightlab"  # of the metadata, a JSON text, in the safetensors header
VERSION = 1
UNSEALED = "0" * 64  # in the place of the file's own SHA-256 while it is taken
LARGEST_HEADER = 2 << 20  # bytes: fifty times that of MobileNet_v2's 367 tensors
UNPACKED_FLOOR, UNPACKED_TIMES = 64 << 20, 256  # a network may unpack to so many bytes, or so many times its file
REST = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}  # bytes a value

STORABLE = {
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
    torch.bool,
}  # fmt: skip


def _texts(values: dict) -> dict:
    if not all(isinstance(value, str) for value in values.values()):
        raise ValueError("all of its values must be texts")
    return values


# The first mistake ends a list or an object: an error for each of many would take far more memory than the file.
Count = Annotated[int, Field(ge=1, lt=1 << 63)]
Counts = Annotated[list[Count], Field(fail_fast=True)]
Shape = Annotated[list[Count], Field(min_length=1, max_length=8, fail_fast=True)]
Weight = Annotated[tuple[str, Shape], Field(strict=False)]  # JSON knows lists only
Texts = Annotated[dict[str, Any], AfterValidator(_texts)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        if isinstance(values, dict) and (odd := set(values) - set(cls.model_fields)):
            raise ValueError(f"unknown entry {min(odd)!r}")
        return values


class Group(_Strict):
    """Weights that share one codebook: `weights` are their names and shapes, in the order of the labels."""

    weights: list[Weight] = Field(min_length=1, fail_fast=True)
    k: int = Field(ge=1, le=clustering.K_MAX)
    bits: int = Field(ge=0, le=16)  # of a label: ceil(log2 k)
    coding: Literal["none", "packed", "zstd"]  # of the labels
    error: float = Field(ge=0)  # root mean square difference to the original weights

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(math.prod(shape) for _, shape in self.weights)


class Measured(_Strict):
    """Accuracy on one split (fractions), of the original network and of this one."""

    split: str
    images: Count
    original: Fraction
    packed: Fraction


class Details(_Strict):
    """The metadata of a packed file; a plan that is one int has one codebook for the whole net."""

    version: Literal[1]
    written_by: str
    load: str
    network: str
    format: Literal[tuple(formats.FORMATS)]
    method: str
    plan: Counts | Count
    groups: list[Group] = Field(min_length=1, fail_fast=True)
    same: Texts  # names of tensors that are another one under a second name
    rest: Literal["as it was", "float16"]  # how all that is not shared is stored
    accuracy: list[Measured] = Field(fail_fast=True)
    original_bytes: Count
    source_sha256: Digest
    sha256: Digest

    @property
    def names(self) -> list[str]:
        """What the tensors of each group are called, before `:labels` and `:centroids`."""
        return ["whole net"] if isinstance(self.plan, int) else [group.weights[0][0] for group in self.groups]


def header_bytes(content: bytes, size: int | None = None) -> int:
    """The length field and the header together: what precedes the tensors of a file of `size` bytes (default: the content's).

    Raises `UserError` if the file cannot hold it, or if it is beyond 2 MiB.
    """
    length, size = int.from_bytes(content[:8], "little"), len(content) if size is None else size
    if not 2 <= length <= min(size - 8, LARGEST_HEADER):
        raise UserError(f"it declares a header of {length} bytes in a file of {size}, where {LARGEST_HEADER} is the most")
    return 8 + length


def parse(content: bytes) -> tuple[Details, dict[str, dict]]:
    """The metadata of a file and its table of tensors (name: dtype, shape, data_offsets); neither has met the data yet."""
    try:
        table = json.loads(content[8 : header_bytes(content)], object_pairs_hook=_once, parse_constant=_no_constant)
        ((key, text),) = table.pop("__metadata__").items()
        if key != KEY:
            raise KeyError(KEY)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"it has no metadata of weightlab ({type(error).__name__}: {error})") from None
    try:
        values = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
        version = values["version"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise UserError(f"its metadata cannot be read ({type(error).__name__}: {error})") from None
    if type(version) is not int or version < 1:
        raise UserError("its version is no whole number from 1")
    if version > VERSION:
        raise UserError(f"it has version {version} of the format, this weightlab reads up to {VERSION}; update weightlab")
    try:
        return Details.model_validate(values), table
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"its metadata is wrong: {place and f'{place}: '}{first['msg']}") from None


def check(content: bytes, limit_bytes: int | None = None) -> tuple[Details, list[Codebook], dict]:
    """Everything in a file, believed at last: metadata, a codebook per group, and all other tensors by name.

    `limit_bytes` is what the unpacked network may take (default: 64 MiB, or 256 times the file where that is more).
    """
    details, table = parse(content)
    _check_seal(content, details)
    _check_names(details, table)
    for name, entry in table.items():
        _check_entry(name, entry, details)
    rest_bytes = sum(end - start for start, end in (entry["data_offsets"] for entry in table.values()))
    unpacked = rest_bytes + 4 * sum(group.size for group in details.groups)
    limit = max(UNPACKED_FLOOR, UNPACKED_TIMES * len(content)) if limit_bytes is None else limit_bytes
    if unpacked > limit:
        raise UserError(
            f"it would unpack to {unpacked} bytes, allowed are {limit}; a larger limit can be given (limit_bytes, or --limit-bytes)"
        )
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"its tensors do not fit the file ({' '.join(str(error).split())[:200]})") from None
    if odd := [name for name, value in tensors.items() if value.dtype == torch.bool and value.view(torch.uint8).gt(1).any()]:
        raise UserError(f"its tensor {odd[0]!r} of BOOL holds bytes other than 0 and 1")
    books = [_codebook(details, name, group, tensors) for name, group in zip(details.names, details.groups, strict=True)]
    return details, books, tensors


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
    shared = [weight for group in details.groups for weight, _ in group.weights]
    needed = [f"{name}:centroids" for name in details.names]
    needed += [f"{name}:labels" for name, group in zip(details.names, details.groups, strict=True) if group.coding != "none"]
    if missing := [name for name in needed if name not in table]:
        raise UserError(f"it lacks the tensor {missing[0]!r}")
    own = [*shared, *(set(table) - set(needed))]
    for name, times in Counter([*own, *details.same]).items():
        if name.endswith((":labels", ":centroids")) or times > 1:
            raise UserError(f"it holds a tensor {name!r} that has no place in its network")
    places = set(own)
    if lost := [name for name, first in details.same.items() if first not in places]:
        raise UserError(f"its tensor {lost[0]!r} is said to be {details.same[lost[0]]!r}, which it lacks")


def _check_entry(name: str, entry: dict, details: Details) -> None:
    """A line of the safetensors table: a type we know, a shape that has as many bytes as the file gives it."""
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        whole = len(shape) <= 8 and all(type(number) is int and 0 <= number < 1 << 63 for number in [*shape, start, end])
        width = 1 if name.endswith(":labels") or dtype == "F8_E4M3" else REST[dtype]
        fits = whole and len(entry) == 3 and math.prod(shape) * width == end - start
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"its tensor {name!r} is not described as safetensors does ({type(error).__name__}: {error})") from None
    if not fits:
        raise UserError(f"its tensor {name!r} of shape {shape} does not fit {end - start if whole else 'its'} bytes")


def _codebook(details: Details, name: str, group: Group, tensors: dict) -> Codebook:
    """Takes a group's two tensors out of `tensors`."""
    stored, format = tensors.pop(f"{name}:centroids"), formats.get(details.format)
    if stored.dtype != format.dtype or stored.dim() != 1 or not 1 <= len(stored) <= min(group.k, group.size):
        raise UserError(f"the codebook of {name!r} must be 1 to {min(group.k, group.size)} values of {format.name}")
    centroids = format.decode(stored)
    if not np.isfinite(centroids).all():
        raise UserError(f"the codebook of {name!r} holds NaN or infinity")
    if group.bits != accounting.key_bits(group.k) or (group.bits == 0) != (group.coding == "none"):
        raise UserError(f"labels of {name!r} need {accounting.key_bits(group.k)} bits at k = {group.k}, said are {group.bits}")
    if group.coding == "none":
        return Codebook(centroids, np.zeros(group.size, dtype=np.uint8))
    stored = tensors.pop(f"{name}:labels")
    if stored.dtype != torch.uint8 or stored.dim() != 1:
        raise UserError(f"the labels of {name!r} must be bytes")
    decode = label_coding.unpack if group.coding == "packed" else label_coding.expand
    labels = decode(stored.numpy(), group.size, group.bits)
    if labels is None:
        raise UserError(f"the labels of {name!r} are not {group.size} labels, coded as {group.coding}")
    if labels.max() >= len(centroids):
        raise UserError(f"a label of {name!r} is {labels.max()}, its codebook has {len(centroids)} centroids")
    return Codebook(centroids, labels)


def _once(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object whose names are all different."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")
