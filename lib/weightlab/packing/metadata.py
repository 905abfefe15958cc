"""The metadata of version 1 of a packed file (docs/format.md) and its header, from bytes of any origin; not yet compared with the tensors.

What both versions need is here as well.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from weightlab import formats
from weightlab.compression import kinds
from weightlab.errors import UserError

KEY = "weightlab"  # of the metadata, a JSON text, in the safetensors header
VERSION = 2  # the highest that is read
LARGEST_HEADER = 2 << 20  # bytes: fifty times that of MobileNet_v2's 367 tensors


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
Format: TypeAlias = Literal[tuple(formats.FORMATS)]  # type: ignore[valid-type]  # a checker knows no names that are listed at run time
Model = TypeVar("Model", bound=BaseModel)
Kind: TypeAlias = Literal[tuple(kinds.READERS)]  # type: ignore[valid-type]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        if isinstance(values, dict) and (odd := set(values) - set(cls.model_fields)):
            raise ValueError(f"unknown entry {min(odd)!r}")
        return values


class Weights(Strict):
    """A group of weights: their names and shapes, in the order in which their numbers follow each other."""

    weights: list[Weight] = Field(min_length=1, fail_fast=True)

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(math.prod(shape) for _, shape in self.weights)


class Group(Weights):
    """Weights that share one codebook."""

    k: int = Field(ge=1, le=kinds.K_MAX)
    bits: int = Field(ge=0, le=16)  # of a label: ceil(log2 k)
    coding: Literal["none", "packed", "zstd"]  # of the labels
    error: float = Field(ge=0)  # root mean square difference to the original weights

    @property
    def parts(self) -> list[str]:
        """The names of its tensors, after the name of the group."""
        return ["centroids"] if self.coding == "none" else ["centroids", "labels"]

    @property
    def label_coding(self) -> str:
        """How its labels are stored, `none` where it has none."""
        return self.coding


class Measured(Strict):
    """Accuracy on one split (fractions), of the original network and of this one."""

    split: str
    images: Count
    original: Fraction
    packed: Fraction


class Details(Strict):
    """The metadata of version 1, in which all groups are codebooks; a plan that is one int has one for the whole net."""

    version: Literal[1]
    written_by: str
    load: str
    network: str
    format: Format
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
        """The names of the tensors of each group, before a colon and the name of the part."""
        return ["whole net"] if isinstance(self.plan, int) else [group.weights[0][0] for group in self.groups]


def header_bytes(content: bytes, size: int | None = None) -> int:
    """The length field and the header together: what precedes the tensors of a file of `size` bytes (default: the content's).

    Raises `UserError` if the file cannot hold it, or if it is beyond 2 MiB.
    """
    length, size = int.from_bytes(content[:8], "little"), len(content) if size is None else size
    if not 2 <= length <= min(size - 8, LARGEST_HEADER):
        raise UserError(f"it declares a header of {length} bytes in a file of {size}; at most {LARGEST_HEADER} are allowed")
    return 8 + length


def parse(content: bytes) -> tuple[Details, dict[str, dict]]:
    """The metadata of a file and its table of tensors (name: dtype, shape, data_offsets), not yet compared with the data."""
    try:
        table = json.loads(content[8 : header_bytes(content)], object_pairs_hook=_once, parse_constant=_no_constant)
        ((key, text),) = table.pop("__metadata__").items()
        if key != KEY:
            raise KeyError(KEY)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"it has no metadata of weightlab ({type(error).__name__}: {error})") from None
    values = parsed(text)
    if type(version := values.get("version")) is not int or version < 1:
        raise UserError("its version must be a whole number of at least 1")
    if version > VERSION:
        raise UserError(f"it has version {version} of the format, this weightlab reads up to {VERSION}; update weightlab")
    if version > 1:
        raise UserError(f"it says that it has version {version} of the format, which is no safetensors file")
    return validated(Details, values), table


def parsed(text: str | bytes) -> dict:
    """A JSON object without constants beyond JSON, and with different names; raises `UserError` for any other text.

    Bytes are UTF-8: `json` would take UTF-16, UTF-32 and a byte order mark as well. It would take half a surrogate pair, too, which is
    no text that could be written anywhere.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        values = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
        if not isinstance(values, dict):
            raise TypeError("it is no object")
        if "\\ud" in text.lower():
            json.dumps(values, ensure_ascii=False).encode()
    except (ValueError, RecursionError, TypeError) as error:
        raise UserError(f"its metadata cannot be read ({type(error).__name__}: {error})") from None
    return values


def validated(model: type[Model], values: dict) -> Model:
    """An object as metadata of this kind; raises `UserError` that names its first mistake."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"its metadata is wrong: {place and f'{place}: '}{first['msg']}") from None


def check_places(groups: Iterable[Weights], others: Iterable[str], same: Mapping[str, str]) -> None:
    """Raise `UserError` unless every tensor has one place in the network, and every second name a first one."""
    own = [*(weight for group in groups for weight, _ in group.weights), *others]
    for name, times in Counter([*own, *same]).items():
        if times > 1:
            raise UserError(f"it holds a tensor {name!r} that has no place in its network")
    places = set(own)
    if unknown := [name for name, first in same.items() if first not in places]:
        raise UserError(f"its tensor {unknown[0]!r} is stored as {same[unknown[0]]!r}, which is missing")


def _once(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object whose names are all different."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name occurs twice")
    return values


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")
