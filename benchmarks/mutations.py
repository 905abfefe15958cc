"""Packed files with faults in them, each made by its seed alone: what `make bench-files` reads.

A fault is put into the metadata, the table of tensors, the tensors, the JSON text, or any bytes; most files get several. Most then get
the checksum that belongs to them, as only an attacker would do, so that what is checked after it is reached.
"""

import json
import random
import re
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache

from large_mutations import enlarge
from tensor_mutations import TYPES, Tensors, edit_consistently, edit_tensors

from weightlab import formats
from weightlab.packing import metadata, packed_format

HOSTILE = [  # JSON texts that take the place of any value
    "0", "-1", "1", "2", "255", "256", "65536", "65537", str(1 << 31), str((1 << 63) - 1), str(1 << 63), str(1 << 64),
    "9" * 400, "9" * 5000, "1.5", "3.0", "1e400", "-1e400", "1e-400", "NaN", "Infinity", "-Infinity", "null", "true", "false",
    '""', '"3"', r'"\u0000"', r'"\ud800"', '"../../etc/passwd"', '"' + "x" * 100_000 + '"', '"' + "0" * 64 + '"',
    "[]", "{}", "[[]]", "[1,2,3]", '{"k":1}', "[" * 3000 + "]" * 3000, '{"a":' * 3000 + "1" + "}" * 3000, "[1,", "", "'1'",
]  # fmt: skip
WORDS = [*formats.FORMATS, "none", "packed", "zstd", "as it was", "float16", "whole net"]
SHA = re.compile(rb'\\"sha256\\":\\"([0-9a-f]{64})\\"')
LARGE = 0.004  # of those with other metadata or tensors are long, because they take a hundred times as long
MENDED = 0.85  # of all files get the checksum that belongs to them


def mutated(originals: Sequence[bytes], seed: int) -> bytes:
    """One of the packed files `originals`, changed; small ones are taken more often, because they are read sooner."""
    chance = random.Random(seed)
    content, other = chance.choices(originals, [len(each) ** -0.5 for each in originals], k=2)
    restructured = chance.random() < 0.75
    if restructured:
        content = _restructured(content, other, chance)
    if not restructured or chance.random() < 0.15:
        raw = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            chance.choice(RAW)(raw, other, chance)
        content = bytes(raw)
    return _mended(content) if chance.random() < MENDED else content


def _mended(content: bytes) -> bytes:
    if not (found := SHA.search(content)):
        return content
    start, end = found.span(1)
    return packed_format.seal(content[:start] + packed_format.UNSEALED.encode() + content[end:])


# --- the file as a structure ----------------------------------------------------------------------------------------------------


def _restructured(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """A file with faults in its metadata, tensors, table of tensors or JSON text."""
    values, tensors = _parts(content)
    table_edits = text_edits = 0
    large = chance.random() < LARGE
    if large:
        enlarge(values, tensors, chance)
    for _ in range(0 if large else chance.choice([1, 1, 1, 2, 3])):  # another change might multiply what is long
        kind = chance.choices(["metadata", "consistent", "tensors", "table", "text"], [3, 4, 4, 2, 1])[0]
        if kind == "metadata":
            _edit(values, chance)
        elif kind == "consistent":
            edit_consistently(values, tensors, chance)
        elif kind == "tensors":
            edit_tensors(tensors, _parts(other)[1], chance)
        table_edits += kind == "table"
        text_edits += kind == "text"
    text = _json(values)
    if text_edits and chance.random() < 0.5:
        text, text_edits = _edit_text(text, chance), text_edits - 1
    table, data = {"__metadata__": {metadata.KEY: text}}, b""
    for name, (dtype, shape, part) in tensors.items():
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    for _ in range(table_edits):
        _edit(table, chance)
    header = _json(table)
    if text_edits:
        header = _edit_text(header, chance)
    encoded = header.encode(errors="surrogatepass")
    return struct.pack("<Q", len(encoded)) + encoded + data


@lru_cache(maxsize=8)
def _sections(content: bytes) -> tuple[str, bytes]:
    start = 8 + int.from_bytes(content[:8], "little")
    return content[8:start].decode(), content[start:]


def _parts(content: bytes) -> tuple[dict, Tensors]:
    """Metadata and tensors of a good file, free to be changed."""
    header, data = _sections(content)
    table = json.loads(header)
    values = json.loads(table.pop("__metadata__")[metadata.KEY])
    return values, {name: (each["dtype"], each["shape"], data[slice(*each["data_offsets"])]) for name, each in table.items()}


def _json(tree) -> str:
    """JSON of a tree in which strings `@i@` stand for the text HOSTILE[i]."""
    text = json.dumps(tree, separators=(",", ":"))
    return re.sub(r'"@(\d+)@"', lambda found: HOSTILE[int(found[1])], text)


def _hostile(chance: random.Random) -> str:
    return f"@{chance.randrange(len(HOSTILE))}@"


def _places(tree) -> list[tuple[dict | list, str | int]]:
    """Every container in a tree with every key or index of it."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else []
    return [place for key in keys for place in [(tree, key), *_places(tree[key])]]


def _edit(tree: dict, chance: random.Random) -> None:
    """One change anywhere in metadata or the table of tensors."""
    places = _places(tree)
    if not places:
        return
    (into, key), (source, its_key) = chance.choice(places), chance.choice(places)
    kind = chance.choice(["hostile", "hostile", "near", "near", "drop", "rename", "copy", "add", "word"])
    if kind == "near" and type(into[key]) is int:
        into[key] = chance.choice(
            [into[key] + 1, into[key] - 1, 2 * into[key], into[key] // 2, -into[key], 1, 0, float(into[key])]
        )
    elif kind == "drop":
        del into[key]
    elif kind == "rename" and isinstance(into, dict):
        into[chance.choice([str(its_key), f"{key} ", "", "__metadata__", "k", f"{key}:labels", "\ud800", "a\nb"])] = into.pop(key)
    elif kind == "copy":
        into[key] = json.loads(json.dumps(source[its_key]))
    elif kind == "add" and isinstance(into, list):
        into.insert(key, json.loads(json.dumps(into[key])))
    elif kind == "add":
        into[f"{key}:more"] = json.loads(json.dumps(into[key]))
    elif kind in ("near", "word"):
        into[key] = chance.choice(WORDS + TYPES)
    else:
        into[key] = _hostile(chance)


def _edit_text(text: str, chance: random.Random) -> str:
    """One change of JSON as it is written: a name twice, spaces, something lost or put in."""
    names = [found.start() for found in re.finditer(r'\\?"[\w.: ]+\\?":', text)]
    kind, place = chance.choice(["twice", "twice", "spaces", "cut", "insert", "tail"]), chance.randrange(len(text) + 1)
    if kind == "twice" and names:
        at = chance.choice(names)
        name = re.compile(r'\\?"[\w.: ]+\\?":').match(text, at)[0]
        return f"{text[:at]}{name}{chance.choice(HOSTILE)},{text[at:]}"
    if kind == "spaces":
        return text + " " * chance.choice([1, 8, 5000])
    if kind == "cut":
        return text[:place] + text[place + chance.choice([1, 1, 10]) :]
    if kind == "tail":
        return text + chance.choice(HOSTILE)
    return text[:place] + chance.choice([*'\0{}[],:"\\1-\n', "\ufeff", "//", '"']) + text[place:]


# --- the file as bytes ----------------------------------------------------------------------------------------------------------


def _place(raw: bytearray, chance: random.Random) -> int:
    """Anywhere, but more often in the header than its length would give it."""
    return chance.randrange(min(len(raw), chance.choice([16, 3000, len(raw)]))) if raw else 0


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
    now = int.from_bytes(raw[:8], "little")
    sizes = [
        now + 1,
        now - 1,
        now + 8,
        0,
        2,
        len(raw),
        len(raw) - 8,
        1 << 24,
        1 << 40,
        (1 << 63) - 1,
        1 << 63,
        (1 << 64) - 1,
        now << 8,
    ]
    raw[:8] = struct.pack("<Q", chance.choice(sizes) % (1 << 64))


RAW: list[Callable] = [_flip, _flip, _set, _set, _cut, _insert, _repeat, _splice, _length_field]
