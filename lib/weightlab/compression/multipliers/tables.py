"""Libraries of unsigned 8-bit multipliers: generated ones, and folders of tables such as those of EvoApprox8b."""

import csv
import hashlib
import io
import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from weightlab.compression.multipliers import designs
from weightlab.errors import UserError, choose, flat

SHAPE = (256, 256)
BYTES = 2 * 256 * 256
PREFIX = "mul8u_"
SOURCES = ("model", "pdk45")  # of powers: the model of `designs`, or synthesis for a 45 nm process as EvoApprox8b states it
ORDERS = ("power", "alphabetical")
CIRCUITS = "circuits.csv"
VARIABLE = "WEIGHTLAB_MULTIPLIERS"
EVOAPPROX = (
    "the tables of EvoApprox8b are in the folder tf2/examples/axmul_8x8 of a clone of ehw-fit/tf-approximate on GitHub, "
    f"and {CIRCUITS} beside them lists id and power_mw (in mW, from the headers of the C models there)"
)


@dataclass(frozen=True, eq=False)
class Multiplier:
    """A multiplier of two unsigned 8-bit numbers.

    `table` is uint16 (256, 256), row = first operand (activation), column = second (weight); what is kept is a read-only copy. Area and
    delay are nan where they are not known. Raises `UserError` if anything is not what it should be.
    """

    name: str
    table: np.ndarray
    power_mw: float
    power_source: str
    area_um2: float = math.nan
    delay_ns: float = math.nan

    def __post_init__(self) -> None:
        if not self.name or not self.name.isprintable():
            raise UserError(f"the name of a multiplier must be printable text, got {self.name!r}")
        shape, dtype = np.shape(self.table), getattr(self.table, "dtype", type(self.table).__name__)
        if shape != SHAPE or dtype != np.uint16:
            raise UserError(f"the table of multiplier {self.name} must be uint16 of shape {SHAPE}, got {dtype} of shape {shape}")
        choose("source of power", self.power_source, SOURCES)
        object.__setattr__(self, "power_mw", _number(f"power_mw of multiplier {self.name}", self.power_mw))
        for name in ("area_um2", "delay_ns"):
            value = getattr(self, name)
            unknown = isinstance(value, float) and math.isnan(value)
            object.__setattr__(self, name, math.nan if unknown else _number(f"{name} of multiplier {self.name}", value))
        table = np.array(self.table, np.uint16, order="C")
        table.flags.writeable = False
        object.__setattr__(self, "table", table)

    @property
    def is_exact(self) -> bool:
        """True if every product is right."""
        return np.array_equal(self.table, np.outer(np.arange(256), np.arange(256)))


@dataclass(frozen=True, eq=False)
class Library:
    """Multipliers in an order, which a search sees as numbers from 0; their powers have one source.

    >>> library = generated().ordered("power")
    >>> library.names[0], library.names[library.exact], library.power_source
    ('operand5', 'exact', 'model')
    """

    multipliers: tuple[Multiplier, ...]
    power_source: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "multipliers", tuple(self.multipliers))
        if not self.multipliers:
            raise UserError("a library must hold at least one multiplier, got none")
        if twice := [name for name in dict.fromkeys(self.names) if self.names.count(name) > 1]:
            raise UserError(f"names of multipliers must differ, got twice: {', '.join(twice)}")
        sources = sorted({each.power_source for each in self.multipliers})
        if len(sources) > 1:
            raise UserError(f"power from a model is never mixed with measured power, got a library of {' and '.join(sources)}")
        object.__setattr__(self, "power_source", sources[0])

    @property
    def names(self) -> list[str]:
        """Names, in order."""
        return [each.name for each in self.multipliers]

    @cached_property
    def power_mw(self) -> np.ndarray:
        """Powers in mW, float64 (n,)."""
        return _read_only(np.array([each.power_mw for each in self.multipliers]))

    @cached_property
    def tables(self) -> np.ndarray:
        """All tables, uint16 (n, 256, 256)."""
        return _read_only(np.stack([each.table for each in self.multipliers]))

    @cached_property
    def exact(self) -> int:
        """The place of the exact multiplier with the least power, to which energies are relative; raises `UserError` without one."""
        exact = [place for place, each in enumerate(self.multipliers) if each.is_exact]
        if not exact:
            raise UserError(f"energies are relative to an exact multiplier, but there is none among {', '.join(self.names)}")
        least = min(exact, key=lambda place: self.multipliers[place].power_mw)
        if not self.power_mw[least]:
            raise UserError(f"energies are relative to the exact multiplier {self.names[least]}, whose power must be above 0 mW")
        return least

    def spelled(self, plan: Sequence[int]) -> str:
        """An assignment by the names of its multipliers, which a plan numbers from 1, such as 1AGV/185Q/17KS."""
        return "/".join(self.names[number - 1] for number in plan)

    def ordered(self, order: str) -> "Library":
        """The same multipliers by ascending "power" (equal powers by name), or "alphabetical" by name."""
        choose("order of multipliers", order, ORDERS)
        by_name = sorted(self.multipliers, key=lambda each: each.name)
        return Library(tuple(by_name if order == "alphabetical" else sorted(by_name, key=lambda each: each.power_mw)))

    def only(self, names: Collection[str]) -> "Library":
        """The multipliers with these names, in the library's order."""
        self._check(names)
        return Library(tuple(each for each in self.multipliers if each.name in names))

    def without(self, names: Collection[str]) -> "Library":
        """All multipliers but those with these names."""
        self._check(names)
        return Library(tuple(each for each in self.multipliers if each.name not in names))

    @cached_property
    def identity(self) -> str:
        """SHA-256 over names, powers, their source and the tables, in order, in hexadecimal digits."""
        digest = hashlib.sha256()
        for each in self.multipliers:
            digest.update(f"{each.name}\0{each.power_mw!r}\0{each.power_source}\0".encode())
            digest.update(each.table.astype("<u2").tobytes())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """What the library is, JSON-ready: names, powers in mW, their source, and `identity`."""
        return {
            "names": self.names,
            "power_mw": self.power_mw.tolist(),
            "power_source": self.power_source,
            "identity": self.identity,
        }

    def _check(self, names: Collection[str]) -> None:
        if isinstance(names, str):  # whose letters would be taken for names
            raise UserError(f"names of multipliers must be a list, got the text {names!r}")
        for name in names:
            choose("multiplier", name, self.names)


def library(source: str | Path | None = None) -> Library:
    """The multipliers of "generated" or of a folder; of None, those of the folder that `$WEIGHTLAB_MULTIPLIERS` names, else generated ones."""
    if source is None:
        source = os.environ.get(VARIABLE) or "generated"
    return generated() if source == "generated" else load(source)


@cache
def generated() -> Library:
    """The multipliers of `designs`, which need no file; their powers are those of a model."""
    return Library(tuple(Multiplier(name, each.table, each.gates.power_mw, "model") for name, each in designs.designs().items()))


def load(folder: str | Path) -> Library:
    """Read a folder of tables: `mul8u_<id>.bin`, 65 536 little-endian uint16, first operand by second, and `circuits.csv`.

    The CSV has a row for each table, with the columns id and power_mw, and area_um2 and delay_ns where they are known. Multipliers are in
    alphabetical order. Raises `UserError` with a sentence that says what is wrong, and where tables are to be had if there are none.
    """
    folder = Path(folder)
    files = {file.stem.removeprefix(PREFIX): file for file in sorted(folder.glob(f"{PREFIX}*.bin"))}
    if not files:
        reason = "holds no table" if folder.is_dir() else "is no folder with tables"
        raise UserError(f"{folder} {reason} {PREFIX}<id>.bin of multipliers, and is not 'generated' either; {EVOAPPROX}")
    circuits = _circuits(folder / CIRCUITS)
    if missing := [name for name in circuits if name not in files]:
        raise UserError(f"{folder / CIRCUITS} lists {_some(missing)}, but {folder} has no table {PREFIX}{missing[0]}.bin")
    if unlisted := [name for name in files if name not in circuits]:
        raise UserError(f"{folder / CIRCUITS} must list every table of its folder, and does not list {_some(unlisted)}")
    return Library(tuple(Multiplier(name, _table(files[name]), power_source="pdk45", **circuits[name]) for name in sorted(files)))


def _table(file: Path) -> np.ndarray:
    content = _bytes(file)
    if len(content) != BYTES:
        raise UserError(f"{file} must have {BYTES} bytes, 256 x 256 little-endian uint16, got {len(content)}")
    return np.frombuffer(content, "<u2").astype(np.uint16).reshape(SHAPE)


def _circuits(file: Path) -> dict[str, dict[str, float]]:
    """Of each id in the CSV: power_mw, and area_um2 and delay_ns if they are given."""
    if not file.is_file():
        raise UserError(f"{file} is missing, which must list id and power_mw of every table; {EVOAPPROX}")
    try:
        rows = csv.DictReader(io.StringIO(_bytes(file).decode("utf-8-sig"), newline=""))
        columns, listed = rows.fieldnames or [], [*rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} must be a table of comma-separated values in UTF-8: {flat(error)}") from error
    if lacking := {"id", "power_mw"} - {*columns}:
        raise UserError(f"{file} must have the columns id and power_mw, and lacks {' and '.join(sorted(lacking))}")
    circuits: dict[str, dict[str, float]] = {}
    for row in listed:
        name = (row["id"] or "").strip()
        if name in circuits:
            raise UserError(f"{file} must list every table once, and lists {name!r} twice")
        given = ["power_mw", *(key for key in ("area_um2", "delay_ns") if row.get(key))]
        circuits[name] = {key: _number(f"{key} of {name} in {file}", row[key]) for key in given}
    return circuits


def _number(what: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise UserError(f"{what} must be a number of at least 0, got {value!r}")
    return number


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _some(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
