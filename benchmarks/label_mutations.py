"""Labels in bytes that are not what they say, a part of `mutations`: zstandard frames, range-coded and adaptive streams."""

import random
import struct
from functools import lru_cache

import numpy as np
import zstandard

from weightlab.packing import adaptive_coding, label_coding, range_coding

BOMB = 64 << 20  # bytes of zeros in a frame of a few kilobytes
SKIPPED = struct.pack("<II", 0x184D2A50, 4) + bytes(4)  # a frame that a reader passes over (RFC 8878, 3.1.2)
LOW = 1 << 23  # the least state of a range coder


def lying_frame(size: int, chance: random.Random) -> bytes:
    """A zstandard frame that should hold so many bytes: of another length, cut, followed by more, or a bomb; sometimes a good one."""
    good = zstandard.ZstdCompressor(level=1, write_checksum=chance.random() < 0.5).compress(bytes(size))
    unsaid = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(bytes(size))
    more = zstandard.ZstdCompressor(level=1).compress(bytes(size + chance.choice([-1, 1]) if size else 1))
    bomb = bytearray(_bomb())
    single = bomb[4] >> 5 & 1  # without a byte for the window the size follows at once (RFC 8878, 3.1.1.1)
    bomb[6 - single : 10 - single] = struct.pack("<I", size % (1 << 32))
    cut = [good[:-1], good[:-4], good[:4]]
    return chance.choice(
        [good, unsaid, more, _bomb(), bytes(bomb), *cut, good + b"\0", good * 2, good[:5] + good, SKIPPED + good]
    )


@lru_cache(maxsize=1)
def _bomb() -> bytes:
    stream = zstandard.ZstdCompressor(level=1).compressobj(size=BOMB)
    return b"".join(stream.compress(bytes(1 << 20)) for _ in range(BOMB >> 20)) + stream.flush()


def lying_stream(good: bytes, chance: random.Random) -> bytes:
    """A range-coded stream with a fault in its scale, counts, first state or bytes."""
    scale, k = good[0], 1 + int.from_bytes(good[1:3], "little")
    at = 3 + -(-k * scale // 8)
    counts = label_coding.unpack(np.frombuffer(good[3:at], np.uint8), k, scale).astype(np.int64)
    state, stream, one, other = good[at : at + 4], good[at + 4 :], chance.randrange(k), chance.randrange(k)
    match chance.choice(["sum", "move", "unused", "scale", "k", "state", "short", "long", "padding", "unnamed", "single"]):
        case "sum":
            counts[one] = (counts[one] + chance.choice([-1, 1, int(counts[one]), -int(counts[one])])) % (1 << scale)
        case "move":  # the sum stays, but what is read does not
            moved = chance.choice([1, int(counts[one]) // 2])
            counts[one], counts[other] = counts[one] - moved, counts[other] + moved
        case "unused":  # a label that occurs has no count
            counts[other], counts[one] = counts[other] + counts[one] * (one != other), 0
        case "scale":
            scale = chance.choice([0, 1, 11, 12, 13, 14, 15, 16, 17, 32, 255])
        case "k":
            head = bytes([scale]) + (chance.choice([0, k - 2, k, 255, 256, 65_535]) % 65_536).to_bytes(2, "little")
            return head + good[3:]
        case "state":
            state = struct.pack(">I", chance.choice([0, 1, LOW - 1, LOW, (LOW << 8) - 1, LOW << 8, (1 << 32) - 1]))
        case "short":
            return good[: len(good) - chance.choice([1, 1, 2, len(stream), len(stream) + 1, len(good) - at + 1, len(good) - 3])]
        case "long":
            stream += chance.choice([b"\0", b"\xff", chance.randbytes(chance.randint(1, 50))])
        case "padding":
            return good[: at - 1] + bytes([good[at - 1] | 128]) + good[at:]
        case "unnamed":  # counts of zero for labels that do not occur, which is allowed
            counts = np.append(counts, np.zeros(chance.choice([1, 300, 65_536 - k]), np.int64))
        case "single":  # one label with all counts, which have no place in the table
            counts = np.array([0])
    return _stream(scale, counts, state + stream)


def lying_adaptive(good: np.ndarray | None, chance: random.Random) -> bytes:
    """An adaptive stream with a fault in its head or bytes; any bytes where there is no good one."""
    if good is None:
        return chance.randbytes(chance.randint(0, 60))
    k, inertia, columns, rest = good[0], good[1], good[2:4].tobytes(), good[4:].tobytes()
    match chance.choice(["k", "inertia", "columns", "flip", "short", "long", "any"]):
        case "k":
            k = chance.choice([0, 1, int(k) - 1, int(k) + 1, 254, 255]) % 256
        case "inertia":
            inertia = chance.choice([0, 1, 2, 4, 6, 12, 13, 16, 63, 64, 255])
        case "columns":
            columns = chance.choice([0, 1, 2, 7, 30, 600, 65_535]).to_bytes(2, "little")
        case "flip":
            changed = bytearray(rest or b"\0")
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
            rest = bytes(changed)
        case "short":
            return good.tobytes()[: chance.choice([0, 1, 3, 4, 5, max(len(good) - 1, 0)])]
        case "long":
            rest += chance.choice([b"\0", b"\xff", chance.randbytes(chance.randint(1, 50))])
        case "any":
            rest = chance.choice([b"", b"\xff" * 40, bytes(40), chance.randbytes(len(rest))])
    return bytes([k, inertia]) + columns + rest


def stream(labels: np.ndarray, scale: int, chance: random.Random) -> bytes:
    """Labels in a range-coded stream with other counts than a writer takes, written as docs/format.md says; sometimes from another end."""
    used = np.bincount(labels)
    counts = range_coding.scaled(used ** chance.choice([0, 1, 2]) * (used > 0) + (used > 0), scale)
    starts, state = np.cumsum(counts) - counts, chance.choice([LOW, LOW, LOW + 1, (LOW << 8) - 1])
    written = bytearray()
    for label in labels[::-1].tolist():
        count = int(counts[label])
        while state >= (1 << 31 - scale) * count:
            written.append(state & 255)
            state >>= 8
        state = (state // count << scale) + state % count + int(starts[label])
    return _stream(scale, counts, struct.pack(">I", state) + bytes(written[::-1]))


def _stream(scale: int, counts: np.ndarray, rest: bytes) -> bytes:
    width = min(scale, 16)  # of a count, also where the scale cannot be
    table = label_coding.pack((counts % (1 << width)).astype(np.uint64), width)
    return bytes([scale]) + (len(counts) - 1).to_bytes(2, "little") + table.tobytes() + rest


@lru_cache(maxsize=4)
def certain_stream(n: int) -> bytes:
    """So many labels, all but one of them 0, in a few hundred bytes."""
    labels = np.zeros(n, dtype=np.uint8)
    labels[n // 2] = 1
    return range_coding.encode(labels).tobytes()


@lru_cache(maxsize=4)
def certain_adaptive(n: int) -> bytes:
    """As `certain_stream`, in an adaptive stream that tells 256 labels apart."""
    labels = np.zeros(n, dtype=np.uint8)
    labels[n // 2] = 255
    return adaptive_coding.encode(labels, n // 8).tobytes()
