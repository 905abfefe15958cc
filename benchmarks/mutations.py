"""Packed files of both versions with faults in them, each made by its seed alone: what `make bench-files` reads.

A fault is put into the metadata, the tensors or parts, their table, the JSON text, the container, or any bytes; most files get several. Most then
get the checksum that belongs to them, as only an attacker would do, so that what is checked after it is reached.
"""

import hashlib
import json
import random
import re
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache

import compact_mutations
from json_mutations import edit, edit_text, written
from large_mutations import enlarge
from tensor_mutations import Tensors, edit_consistently, edit_tensors

from weightlab.packing import compact_format, metadata, packed_format

SHA = re.compile(rb'\\"sha256\\":\\"([0-9a-f]{64})\\"')
LARGE = 0.004  # of those with other metadata or tensors are long, because they take a hundred times as long
RESTRUCTURED = (0.75, 0.85)  # of files of either version; of version 2 other bytes seldom get past the stream of its metadata
MENDED = 0.85  # of all files get the checksum that belongs to them


def mutated(originals: Sequence[bytes], seed: int) -> bytes:
    """One of the packed files `originals`, changed: of either version as often, and small ones more often, because they are read sooner."""
    chance = random.Random(seed)
    second = [each for each in originals if of_second(each)]
    first = [each for each in originals if not of_second(each)]
    found = chance.choice([each for each in (first, second) if each])
    content, other = chance.choices(found, [len(each) ** -0.5 for each in found], k=2)
    restructured = chance.random() < RESTRUCTURED[of_second(content)]
    if restructured:
        change = compact_mutations.restructured if of_second(content) else _restructured
        content = change(content, other, chance, chance.random() < LARGE)
    if not restructured or chance.random() < 0.15:
        raw = bytearray(content)
        stranger = chance.choice([other, other, chance.choice(originals)])
        for _ in range(chance.randint(1, 4)):
            chance.choice(RAW)(raw, stranger, chance)
        content = bytes(raw)
    return _mended(content) if chance.random() < MENDED else content


def of_second(content: bytes) -> bool:
    """Whether a file is of version 2, or says so."""
    return content.startswith(compact_format.MAGIC)


def _mended(content: bytes) -> bytes:
    if of_second(content):
        start, end = compact_format.SEAL.start, compact_format.SEAL.stop
        blank = content[:start] + bytes(end - start) + content[end:]
        return content[:start] + hashlib.sha256(blank).digest()[: end - start] + content[end:]
    if not (found := SHA.search(content)):
        return content
    start, end = found.span(1)
    return packed_format.seal(content[:start] + packed_format.UNSEALED.encode() + content[end:])


# --- version 1 as a structure --------------------------------------------------------------------------------------------------


def _restructured(content: bytes, other: bytes, chance: random.Random, large: bool) -> bytes:
    """A file of version 1 with faults in its metadata, tensors, table of tensors or JSON text."""
    values, tensors = _parts(content)
    table_edits = text_edits = 0
    if large:
        enlarge(values, chance, lambda names: tensors.update((name, ("U8", [chance.choice([0, 0, 1])], b"")) for name in names))
    for _ in range(0 if large else chance.choice([1, 1, 1, 2, 3])):  # another change might multiply what is long
        kind = chance.choices(["metadata", "consistent", "tensors", "table", "text"], [3, 4, 4, 2, 1])[0]
        if kind == "metadata":
            edit(values, chance)
        elif kind == "consistent":
            edit_consistently(values, tensors, chance)
        elif kind == "tensors":
            edit_tensors(tensors, _parts(other)[1], chance)
        table_edits += kind == "table"
        text_edits += kind == "text"
    text = written(values)
    if text_edits and chance.random() < 0.5:
        text, text_edits = edit_text(text, chance), text_edits - 1
    table, data = {"__metadata__": {metadata.KEY: text}}, b""
    for name, (dtype, shape, part) in tensors.items():
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    for _ in range(table_edits):
        edit(table, chance)
    header = written(table)
    if text_edits:
        header = edit_text(header, chance)
    encoded = header.encode(errors="surrogatepass")
    return struct.pack("<Q", len(encoded)) + encoded + data


@lru_cache(maxsize=64)
def _sections(content: bytes) -> tuple[str, bytes]:
    start = 8 + int.from_bytes(content[:8], "little")
    return content[8:start].decode(), content[start:]


def _parts(content: bytes) -> tuple[dict, Tensors]:
    """Metadata and tensors of a good file, free to be changed."""
    header, data = _sections(content)
    table = json.loads(header)
    values = json.loads(table.pop("__metadata__")[metadata.KEY])
    return values, {name: (each["dtype"], each["shape"], data[slice(*each["data_offsets"])]) for name, each in table.items()}


# --- the file as bytes ----------------------------------------------------------------------------------------------------------


def _place(raw: bytearray, chance: random.Random) -> int:
    """Anywhere, but more often in the header than its length would give it; seldom in the head of version 2, where one change ends all."""
    least = compact_format.HEAD if of_second(raw) and chance.random() < 0.9 else 0
    last = min(len(raw), least + chance.choice([16, 3000, len(raw)])) - 1
    return chance.randint(min(least, last), last) if raw else 0


def _flip(raw: bytearray, other: bytes, chance: random.Random) -> None:
    if raw:
        raw[_place(raw, chance)] ^= 1 << chance.randrange(8)


def _set(raw: bytearray, other: bytes, chance: random.Random) -> None:
    if raw:
        raw[_place(raw, chance)] = chance.choice([0, 255, *b'0198,:"{}[]', chance.randrange(256)])


def _cut(raw: bytearray, other: bytes, chance: random.Random) -> None:
    place = _place(raw, chance)
    del raw[place : place + chance.choice([1, chance.randint(1, 100), len(raw)])]


def _insert(raw: bytearray, other: bytes, chance: random.Random) -> None:
    place = _place(raw, chance)
    raw[place:place] = chance.randbytes(chance.choice([1, chance.randint(1, 100)]))


def _repeat(raw: bytearray, other: bytes, chance: random.Random) -> None:
    """A span put in once more, there or elsewhere."""
    start, place = _place(raw, chance), _place(raw, chance)
    raw[place:place] = raw[start : start + chance.choice([1, chance.randint(1, 100), 5000])]


def _splice(raw: bytearray, other: bytes, chance: random.Random) -> None:
    """The beginning of this file and the end of another."""
    place = _place(raw, chance)
    raw[place:] = other[chance.choice([place, chance.randrange(len(other))]) :]


def _length_field(raw: bytearray, other: bytes, chance: random.Random) -> None:
    """Another length of the header or the metadata."""
    place, kind = (slice(13, 17), "<I") if of_second(raw) else (slice(0, 8), "<Q")
    now, whole = int.from_bytes(raw[place], "little"), 8 * struct.calcsize(kind)
    near = [now + 1, now - 1, now + 8, 0, 2, len(raw), len(raw) - 8, len(raw) - 17, now << 8]
    sizes = [*near, 1 << 24, 1 << 31, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
    raw[place] = struct.pack(kind, chance.choice(sizes) % (1 << whole))


RAW: list[Callable] = [_flip, _flip, _set, _set, _cut, _insert, _repeat, _splice, _length_field]
