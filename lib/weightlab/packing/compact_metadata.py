"""The metadata of version 2 of a packed file (docs/format.md), not yet compared with the data."""

import math
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from weightlab import formats
from weightlab.packing.metadata import Count, Counts, Format, Kind, Measured, Strict, Texts, Weights

FEW = 16  # parts or settings of a tensor, at most
TYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}  # bytes a value
Type: TypeAlias = Literal[tuple(TYPES)]  # type: ignore[valid-type]


def _few(values: Any) -> Any:
    if isinstance(values, dict) and len(values) > FEW:
        raise ValueError(f"more than {FEW} entries")
    return values


class ValuesPart(Strict):
    """`n` numbers in a format."""

    n: Count
    format: Format

    @property
    def length(self) -> int:
        """Bytes in the file."""
        return self.n * formats.get(self.format).bits // 8


class LabelsPart(Strict):
    """Whole numbers of `bits` bits, one for each weight, coded in so many bytes."""

    bits: int = Field(ge=1, le=16)
    coding: Literal["packed", "zstd", "range", "adaptive"]
    length: Count


class Coded(Strict):
    """What a reader decodes from parts and settings."""

    kind: Kind
    settings: Annotated[dict[str, int | float | str | bool], BeforeValidator(_few)] = Field({})
    parts: Annotated[dict[str, ValuesPart | LabelsPart], BeforeValidator(_few)]

    @property
    def label_coding(self) -> str:
        """How its labels are stored, `none` where it has none."""
        labels = self.parts.get("labels")
        return labels.coding if isinstance(labels, LabelsPart) else "none"

    @property
    def length(self) -> int:
        """Bytes in the file."""
        return sum(part.length for part in self.parts.values())


class StoredGroup(Weights, Coded):
    """Weights that are compressed."""

    error: float = Field(ge=0)  # root mean square difference to the original weights


class _Tensor(Strict):
    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 63)]], Field(max_length=8, fail_fast=True)]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


class RawTensor(_Tensor):
    """Another tensor of the network, its values as they are."""

    type: Type

    @property
    def length(self) -> int:
        """Bytes in the file."""
        return self.size * TYPES[self.type]


class ConstantTensor(_Tensor):
    """Another tensor of the network, all values of which are the same number."""

    type: Type
    value: int | float
    length: ClassVar[int] = 0


class CodedTensor(_Tensor, Coded):
    """Another tensor of the network, float32, decoded as weights are."""


class CompactDetails(Strict):
    """The metadata of version 2."""

    written_by: str
    network: str = ""
    method: str
    plan: Counts = Field([])
    groups: list[StoredGroup] = Field(min_length=1, fail_fast=True)
    tensors: list[RawTensor | ConstantTensor | CodedTensor] = Field([], fail_fast=True)
    same: Texts = Field({})  # names of tensors that are another one under a second name
    accuracy: list[Measured] = Field([], fail_fast=True)
    original_bytes: Count
    source: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]  # the first digits of the original's SHA-256

    @property
    def names(self) -> list[str]:
        """The names of the groups."""
        return [group.weights[0][0] for group in self.groups]

    @property
    def format(self) -> str:
        """The formats of its numbers."""
        used = {part.format for group in self.groups for part in group.parts.values() if isinstance(part, ValuesPart)}
        return ", ".join(name for name in formats.FORMATS if name in used)
