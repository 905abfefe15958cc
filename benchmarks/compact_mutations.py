"""Packed files of version 2 with faults in their structure; a part of `mutations`.

A fault is put into parts and tensors, the metadata, their JSON text, the stream that they are deflated in, or the head of the file.
"""

import random
import zlib
from functools import lru_cache

import compact_pieces
import json_mutations
from large_mutations import enlarge
from part_mutations import edit_consistently

from weightlab.packing import compact_format, metadata

KINDS = {"parts": 14, "together": 2, "metadata": 6, "bytes": 3, "text": 2, "container": 2}  # of changes, and how often each
BOMB = 64 << 20  # bytes of spaces in a stream of 64 kilobytes


def restructured(content: bytes, other: bytes, chance: random.Random, large: bool) -> bytes:
    """A file with faults; `other` is another file of version 2, `large` asks for long metadata."""
    values, others = compact_pieces.opened(content), compact_pieces.opened(other)
    kinds = [] if large else chance.choices(list(KINDS), KINDS.values(), k=chance.choice([1, 1, 1, 2, 3]))
    if large:
        enlarge(values, chance, lambda names: values.setdefault("tensors", []).extend(_tensor(name, chance) for name in names))
    for kind in kinds:
        if kind == "parts":
            edit_consistently(values, others, chance)
        elif kind == "together":  # data go where their metadata go
            json_mutations.edit(values, chance)
    data = bytearray(b"".join(compact_pieces.taken(values)))
    for _ in range(chance.randint(1, 8) if data and "bytes" in kinds else 0):
        data[chance.randrange(min(len(data), chance.choice([60, len(data)])))] ^= 1 << chance.randrange(8)
    for _ in range(kinds.count("metadata")):
        json_mutations.edit(values, chance)
    text = json_mutations.written(values)
    for _ in range(kinds.count("text")):
        text = json_mutations.edit_text(text, chance)
    encoded = text.encode(errors="surrogatepass")
    return _contained(encoded, bytes(data), content, chance) if "container" in kinds else joined(deflated(encoded), data)


def _tensor(name: str, chance: random.Random) -> dict:
    """One of very many tensors."""
    return {"name": name, "shape": [chance.choice([0, 0, 1])], "type": "U8"} | chance.choice([{}, {"value": 0}])


def deflated(text: bytes, dictionary: bytes = compact_format.DICTIONARY, level: int = 1) -> bytes:
    """The stream that metadata are in."""
    deflater = zlib.compressobj(level, wbits=-zlib.MAX_WBITS, zdict=dictionary)
    return deflater.compress(text) + deflater.flush()


def joined(stream: bytes, data: bytes, length: int | None = None, head: bytes = b"WLAB\x02") -> bytes:
    """A file without its seal, in which zeros stand."""
    said = (len(stream) if length is None else length) % (1 << 32)
    return head + bytes(8) + said.to_bytes(4, "little") + stream + data


def _contained(text: bytes, data: bytes, content: bytes, chance: random.Random) -> bytes:
    """A file whose stream, length or head is wrong, or whose text is in another encoding; or one that is good after all."""
    stream, length, head = deflated(text), None, b"WLAB\x02"
    match chance.choice(
        ["head", "length", "length", "dictionary", "wrapped", "cut", "more", "unfinished", "bomb", "encoding", "data"]
    ):
        case "head":
            heads = [b"WLAB\x01", b"WLAB\x00", b"WLAB\x03", b"WLAB\xff", b"wlab\x02", b"WLAC\x02", b"WLAB", b"\0WLAB\x02", b""]
            head = chance.choice(heads)
        case "length":
            n = len(stream)
            beyond = [n + len(data), n + len(data) + 1, metadata.LARGEST_HEADER, metadata.LARGEST_HEADER + 1, (1 << 32) - 1]
            length = chance.choice([0, 1, 2, n - 1, n + 1, n + 2, n // 2, *beyond])
        case "dictionary":
            known = compact_format.DICTIONARY
            dictionary = chance.choice([b" ", known[:-1], known[1:], known[::-1], known.upper(), b"x" + known, known * 2])
            stream = deflated(text, dictionary)
        case "wrapped":
            stream = chance.choice(
                [zlib.compress(text), zlib.compress(text, wbits=31), text, deflated(text, level=0), deflated(stream)]
            )
        case "cut":
            stream = stream[: max(0, len(stream) - chance.choice([1, 1, 2, 4, len(stream) // 2]))]
        case "more":
            stream += chance.choice([b"\0", b"\xff" * 9, stream, chance.randbytes(20)])
        case "unfinished":
            deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS, zdict=compact_format.DICTIONARY)
            stream = deflater.compress(text) + deflater.flush(chance.choice([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH]))
        case "bomb":
            room = metadata.LARGEST_HEADER - len(text)
            padded = (deflated(text + b" " * max(0, spaces)) for spaces in (room, room + 1, 2 * room))
            stream = chance.choice([*padded, _bomb()])
        case "encoding":
            encoding = chance.choice(["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-16-be", "cp037", "utf-7"])
            stream = deflated(text.decode(errors="replace").encode(encoding, errors="replace"))
        case "data":  # those of the file as it was, or none, or too many
            old = content[compact_format.start(content, len(content)) :]
            data = chance.choice([old, b"", old + b"\0", data + data, data[:-1], data[1:]])
    return joined(stream, data, length, head)


@lru_cache(maxsize=1)
def _bomb() -> bytes:
    return deflated(b" " * BOMB)
