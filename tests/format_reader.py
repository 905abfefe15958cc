"""Reader of the packed file, versions 1 and 2: written from docs/format.md alone, with numpy and the standard library."""

import contextlib
import hashlib
import itertools
import json
import math
import re
import zlib
from collections.abc import Callable

import numpy as np

TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "F8_E4M3": "u1",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "u1",
}
LARGEST_BF16 = (2 - 2**-7) * 2.0**127
CENTROIDS = {"float32": "F32", "float16": "F16", "float8_e4m3": "F8_E4M3", "float8_thesis": "U8"}


def _float8(first: int, step: float, unused: slice) -> np.ndarray:
    """The 256 values of an 8-bit float: exponent e > 0 starts at 2^(e - 1 + first), exponent 0 counts in steps."""
    exponent, mantissa = np.arange(128) // 8, np.arange(128) % 8
    size = np.where(exponent > 0, (1 + mantissa / 8) * 2.0 ** (exponent - 1 + first), mantissa * step)
    size[unused] = np.nan
    return np.concatenate([size, -size]).astype(np.float32)


E4M3, THESIS = _float8(-6, 2**-9, slice(127, None)), _float8(0, 1 / 16, slice(120, None))


def _need(condition: bool, text: str) -> None:
    """Refuse the file unless the condition holds."""
    if not condition:
        raise ValueError(text)


@contextlib.contextmanager
def _refusing():
    """Turn what missing keys and values of the wrong kind raise into ValueError."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a packed file: {error!r}") from error


def _object(text: str) -> dict:
    """Parse a JSON object in which no name occurs twice."""

    def once(pairs):
        _need(len(dict(pairs)) == len(pairs), "a name occurs twice")
        return dict(pairs)

    value = json.loads(text, object_pairs_hook=once, parse_constant=lambda name: _need(False, f"{name} is not JSON"))
    _need(type(value) is dict, "not a JSON object")
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # a ValueError for half a surrogate pair
    return value


def _size(shape: list) -> int:
    """Number of values of a shape."""
    # these limits (numpy has at most 64 axes) keep the product of a hostile shape cheap
    _need(type(shape) is list and len(shape) <= 64 and all(type(n) is int and 0 <= n < 2**63 for n in shape), "bad shape")
    return math.prod(shape)


def _open(content: bytes) -> tuple[dict, dict, bytes]:
    """The metadata, the header's entries of all tensors, and the data, once they fit the file."""
    length = int.from_bytes(content[:8], "little")
    _need(len(content) >= 8 and length <= len(content) - 8, "the header is longer than the file")
    header, data = content[8 : 8 + length], content[8 + length :]
    tensors = _object(header.decode("utf-8"))
    outer = tensors.pop("__metadata__")
    _need(list(outer) == ["weightlab"], "no packed network")
    meta = _object(outer["weightlab"])
    _need(meta["version"] == 1, "another version")
    digits = meta["sha256"].encode()
    _need(re.fullmatch(rb"[0-9a-f]{64}", digits) is not None and header.count(digits) == 1, "no usable checksum")
    zeroed = content[:8] + header.replace(digits, b"0" * 64) + data
    _need(hashlib.sha256(zeroed).hexdigest().encode() == digits, "the checksum differs: the file is damaged")
    place = 0
    for name, entry in sorted(tensors.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = entry["data_offsets"]
        _need(type(start) is type(end) is int and start == place, f"{name}: gap or overlap in the data")
        _need(end - start == _size(entry["shape"]) * np.dtype(TYPES[entry["dtype"]]).itemsize, f"{name}: wrong size")
        place = end
    _need(place == len(data), "the tensors do not end where the file ends")
    return meta, tensors, data


def _values(entry: dict, data: bytes) -> np.ndarray:
    """A stored tensor; the floats that numpy lacks become float32."""
    return _typed(data[slice(*entry["data_offsets"])], entry["dtype"]).reshape(entry["shape"])


def _typed(data: bytes, dtype: str) -> np.ndarray:
    values = np.frombuffer(data, TYPES[dtype])
    if dtype == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    elif dtype in ("F8_E4M3", "BOOL"):
        values = E4M3[values] if dtype == "F8_E4M3" else values != 0
    return values.astype(values.dtype.newbyteorder("="))


def _frame_size(frame: bytes) -> int:
    """The content size that a zstandard frame without a dictionary states (RFC 8878, section 3.1.1.1)."""
    _need(frame[:4] == b"\x28\xb5\x2f\xfd" and len(frame) > 5 and frame[4] & 0b1011 == 0, "no suitable zstandard frame")
    single = frame[4] >> 5 & 1
    width = (single, 2, 4, 8)[frame[4] >> 6]
    _need(width > 0, "a zstandard frame without its content size")
    return int.from_bytes(frame[6 - single : 6 - single + width], "little") + 256 * (width == 2)


def _count(group: dict, labels: dict | None, data: bytes) -> int:
    """The number of labels of a group, once its k, bits, coding, shapes and labels fit each other."""
    k, bits, coding = group["k"], group["bits"], group["coding"]
    n = sum(_size(shape) for _, shape in group["weights"])
    _need(type(k) is type(bits) is int and 1 <= k <= 65536 and bits == (k - 1).bit_length(), "k and bits do not fit")
    _need(coding in (["none"] if k == 1 else ["packed", "zstd"]) and (labels is None) == (k == 1), "coding does not fit")
    if labels is not None:
        _need(labels["dtype"] == "U8" and len(labels["shape"]) == 1, "labels are not a row of bytes")
        stored = labels["shape"][0] if coding == "packed" else _frame_size(data[slice(*labels["data_offsets"])])
        _need(stored == ((n * bits + 7) // 8 if coding == "packed" else n * (1 + (bits > 8))), "labels do not fit the shapes")
    return n


def _labels(bits: int, coding: str, stored: bytes, n: int, decompress: Callable[[bytes], bytes]) -> np.ndarray:
    """The n labels of a group, from its stored bytes."""
    labels = np.zeros(n, np.uint16)
    if coding == "packed":
        flags = np.unpackbits(np.frombuffer(stored, np.uint8), bitorder="little")
        _need(not flags[n * bits :].any(), "unused bits of the labels are set")
        for bit in range(bits):
            labels |= flags[bit : n * bits : bits].astype(np.uint16) << bit
    elif coding == "zstd":
        try:
            plain = np.frombuffer(decompress(stored), np.uint8).astype(np.uint16)
        except Exception as error:  # every zstandard package raises an error of its own
            raise ValueError(f"the labels do not decompress: {error!r}") from error
        _need(plain.size == n * (1 + (bits > 8)), "a zstandard frame of another size than it states")
        labels = plain[:n] | plain[n:] << 8 if bits > 8 else plain
    return labels


@_refusing()
def metadata(content: bytes) -> dict:
    """The metadata of a packed file, once its container, version and checksum are right."""
    return _open(content)[0]


def range_labels(stored: bytes, n: int) -> np.ndarray:
    """The n labels of a range-coded stream."""
    _need(len(stored) >= 7, "a stream that is too short")
    scale, k = stored[0], int.from_bytes(stored[1:3], "little") + 1
    _need(12 <= scale <= 16, "another scale")
    at = 3 + (k * scale + 7) // 8
    table, stream = np.unpackbits(np.frombuffer(stored[3:at], np.uint8), bitorder="little"), stored[at:]
    _need(len(stream) >= 4 and not table[k * scale :].any(), "a table or stream that does not fit")
    counts = [int(count) for count in table[: k * scale].reshape(k, scale) @ (1 << np.arange(scale))]
    _need(sum(counts) == 1 << scale, "counts that do not add up")
    slots = [label for label, count in enumerate(counts) for _ in range(count)]
    starts = [0, *itertools.accumulate(counts)]
    x, place, labels = int.from_bytes(stream[:4], "big"), 4, []
    _need(1 << 23 <= x < 1 << 31, "another first state")
    for _ in range(n):
        r = x % (1 << scale)
        label = slots[r]
        labels.append(label)
        x = counts[label] * (x >> scale) + r - starts[label]
        while x < 1 << 23:
            _need(place < len(stream), "a stream that ends early")
            x, place = 256 * x + stream[place], place + 1
    _need(x == 1 << 23 and place == len(stream), "a stream that goes on")
    return np.array(labels, np.uint16)


def adaptive_labels(stored: bytes, n: int) -> np.ndarray:
    """The n labels of an adaptive stream."""
    _need(len(stored) >= 4 and n <= 1 << 24, "a stream that is too short, or too many labels")
    k, w, c = stored[0] + 1, stored[1], int.from_bytes(stored[2:4], "little")
    _need((w == 0) == (c == 0) and w <= 12, "columns that cannot be")
    _need(n * k <= 1 << 30, "too many labels of too many kinds")
    _need(w == 0 or (n % c == 0 and n // c << 16 - w <= 1 << 27), "columns that do not fit")
    seen, columns, written, y = [0] * k, [[0] * k for _ in range(max(c, 1))], 0, 0
    stream = stored[4:]
    x, v, place, labels = int.from_bytes(stream[:5].ljust(5, b"\0"), "big"), 1 << 40, 5, []
    for i in range(n):
        share, own = (1 << 48) // (8 * i + k), columns[i % max(c, 1)]
        f = [1 + ((8 * seen[j] + 1) * share >> 32) + (own[j] << 16 - w if w else 0) for j in range(k)]
        q, b, label = v // sum(f), 0, 0
        while label < k and (b + f[label]) * q <= x:
            b, label = b + f[label], label + 1
        _need(label < k, "a code beyond all labels")
        x, v, y = x - b * q, f[label] * q, y + b * q
        while v < 1 << 32:
            x, v, y = 256 * x + (stream[place] if place < len(stream) else 0), 256 * v, 256 * y
            place, written = place + 1, written + 1
        labels.append(label)
        seen[label] += 1
        own[label] += 1
    size = next(size for size in range(6) if -(-y >> 40 - 8 * size) << 40 - 8 * size < y + v)
    again = (-(-y >> 40 - 8 * size)).to_bytes(written + size, "big") if written + size else b""
    _need(again.rstrip(b"\0") == stream, "another stream than a writer's")
    return np.array(labels, np.uint16)


def _part(said: dict, n: int, take: Callable[[int], bytes], decompress: Callable[[bytes], bytes] | None) -> np.ndarray:
    """The numbers of a part of version 2, for n weights."""
    if set(said) == {"n", "format"}:
        kind = TYPES[CENTROIDS[said["format"]]]
        _need(type(said["n"]) is int and said["n"] > 0, "an empty part")
        values = _typed(take(said["n"] * np.dtype(kind).itemsize), CENTROIDS[said["format"]])
        values = THESIS[values] if said["format"] == "float8_thesis" else values.astype(np.float32)
        _need(bool(np.isfinite(values).all()), "a part that is not finite")
        return values
    _need(set(said) == {"bits", "coding", "length"}, "a part that is not described")
    bits, coding, stored = said["bits"], said["coding"], take(said["length"])
    _need(type(bits) is int and 1 <= bits <= 16, "bits that cannot be")
    if coding in ("range", "adaptive"):
        labels = (range_labels if coding == "range" else adaptive_labels)(stored, n)
    else:
        _need(coding == "packed" or (coding == "zstd" and decompress is not None), "a coding that cannot be read")
        size = len(stored) if coding == "packed" else _frame_size(stored)
        _need(size == ((n * bits + 7) // 8 if coding == "packed" else n * (1 + (bits > 8))), "labels of another length")
        labels = _labels(bits, coding, stored, n, decompress)
    _need(int(labels.max()) < 1 << bits, "a label of more bits")
    return labels


def _weights(said: dict, parts: dict[str, np.ndarray], n: int) -> np.ndarray:
    """The n weights that parts of version 2 make."""
    settings, centroids, labels = said.get("settings", {}), parts.get("centroids"), parts.get("labels")
    if said["kind"] == "values":
        _need(set(parts) == {"values"} and not settings and len(parts["values"]) == n, "values that do not fit")
        _need(parts["values"].dtype == np.float32, "labels where values should be")
        return parts["values"]
    if said["kind"] == "grid":
        _need(set(parts) == {"labels"} and set(settings) == {"low", "step"}, "an unknown grid")
        _need(all(type(number) is float and math.isfinite(number) for number in settings.values()), "no grid")
        with np.errstate(over="ignore"):
            values = (settings["low"] + settings["step"] * labels.astype(np.float64)).astype(np.float32)
        _need(bool(np.isfinite(values).all()), "a grid beyond float32")
        return values
    _need(said["kind"] == "codebook" and set(parts) <= {"centroids", "labels"} and set(settings) == {"k"}, "an unknown kind")
    _need(type(settings["k"]) is int and settings["k"] <= 65_536, "another k")
    _need(1 <= len(centroids) <= min(n, settings["k"]), "centroids that do not fit")
    if labels is None:
        labels = np.zeros(n, np.uint16)
        _need(len(centroids) == 1, "no labels")
    _need(int(labels.max()) < len(centroids), "labels that do not fit")
    return centroids[labels]


def _constant(value: int | float, dtype: str, n: int) -> np.ndarray:
    """n times one number that the type can hold, rounded to it."""
    floating = dtype == "BF16" or TYPES[dtype][1] == "f"
    _need(dtype != "BOOL" and type(value) is (float if floating else int), "a number of another type")
    plain = np.dtype(np.float32 if dtype == "BF16" else TYPES[dtype])
    limits = np.finfo(plain) if floating else np.iinfo(plain)
    most = LARGEST_BF16 if dtype == "BF16" else type(value)(limits.max)
    _need((-most if floating else int(limits.min)) <= value <= most, "a number beyond its type")
    if dtype == "BF16":
        bits = int(np.float32(value).view(np.uint32))
        return _typed(np.full(n, bits + 0x7FFF + (bits >> 16 & 1) >> 16, TYPES[dtype]).tobytes(), dtype)
    return np.full(n, value, plain)


def dictionary(page: str) -> bytes:
    """The dictionary that the document holds."""
    block = page.split("deflateSetDictionary", 1)[1].split("```")[1]
    return "".join(block.strip("\n").split("\n")).encode()


@_refusing()
def read_second(content: bytes, dictionary: bytes, decompress: Callable[[bytes], bytes] | None = None) -> dict[str, np.ndarray]:
    """All tensors of the network in a file of version 2 by name."""
    _need(content[:5] == b"WLAB\x02" and len(content) >= 17, "another version")
    whole = content[:5] + bytes(8) + content[13:]
    _need(hashlib.sha256(whole).digest()[:8] == content[5:13], "the checksum differs: the file is damaged")
    at = 17 + int.from_bytes(content[13:17], "little")
    inflate = zlib.decompressobj(wbits=-15, zdict=dictionary)
    try:
        text = inflate.decompress(content[17:at], 1 << 21)
    except zlib.error as error:
        raise ValueError(f"metadata that do not inflate: {error}") from error
    _need(at <= len(content) and inflate.eof and not inflate.unused_data, "metadata that do not fit")
    meta, network = _object(text.decode("utf-8")), {}

    def take(size: int) -> bytes:
        nonlocal at
        _need(type(size) is int and 0 <= size <= len(content) - at, "the data end early")
        at += size
        return content[at - size : at]

    def made(said: dict, n: int) -> np.ndarray:
        return _weights(said, {name: _part(part, n, take, decompress) for name, part in said["parts"].items()}, n)

    groups, plan, same = meta["groups"], meta.get("plan", []), meta.get("same", {})
    _need(bool(groups) and (not plan or len(plan) == len(groups)), "another plan")
    for group in groups:
        sizes = [_size(shape) for _, shape in group["weights"]]
        _need(0 not in sizes, "an empty weight")
        values = made(group, sum(sizes))
        for (name, shape), part in zip(group["weights"], np.split(values, np.cumsum(sizes)[:-1]), strict=True):
            _need(name not in network, "a weight twice")
            network[name] = part.reshape(shape)
    for tensor in meta.get("tensors", []):
        n = _size(tensor["shape"])
        if "kind" in tensor:
            _need(n > 0, "an empty tensor that is coded")
            values = made(tensor, n)
        elif "value" in tensor:
            values = _constant(tensor["value"], tensor["type"], n)
        else:
            values = _typed(take(n * np.dtype(TYPES[tensor["type"]]).itemsize), tensor["type"])
        _need(tensor["name"] not in network, "a tensor twice")
        network[tensor["name"]] = values.reshape(tensor["shape"])
    _need(at == len(content) and not set(same) & set(network), "data that are left, or names that do not fit")
    return network | {name: network[target] for name, target in same.items()}


@_refusing()
def read(content: bytes, decompress: Callable[[bytes], bytes] | None = None) -> dict[str, np.ndarray]:
    """All tensors of the network by name; decompress turns one zstandard frame into its bytes."""
    meta, tensors, data = _open(content)
    groups, plan, same, books, counts = meta["groups"], meta["plan"], meta["same"], [], []
    _need(plan == [g["k"] for g in groups] if type(plan) is list else [plan] == [g["k"] for g in groups], "another plan")
    _need(meta["rest"] in ("as it was", "float16"), "unknown rest")
    # everything but the labels' values is checked before memory for the network is taken
    for group in groups:
        prefix = group["weights"][0][0] if type(plan) is list else "whole net"
        book, labels = tensors.pop(f"{prefix}:centroids"), tensors.pop(f"{prefix}:labels", None)
        _need(book["dtype"] == CENTROIDS[meta["format"]] and len(book["shape"]) == 1, f"{prefix}: unfit centroids")
        values = _values(book, data)
        values = THESIS[values] if meta["format"] == "float8_thesis" else values.astype(np.float32)
        _need(1 <= values.size <= group["k"] and bool(np.isfinite(values).all()), f"{prefix}: refused centroids")
        _need(group["coding"] != "zstd" or decompress is not None, f"{prefix}: coded as zstd, which needs decompress")
        counts.append(_count(group, labels, data))
        _need(values.size <= counts[-1], f"{prefix}: more centroids than weights")
        books.append((values, b"" if labels is None else data[slice(*labels["data_offsets"])]))
    names = [*tensors, *(name for group in groups for name, _ in group["weights"]), *same]
    _need(len(set(names)) == len(names) and set(same.values()) <= set(names) - set(same), "names that do not fit")
    wide = {"BF16": 4, "F8_E4M3": 4, "F16": 4 if meta["rest"] == "float16" else 2}
    rest = sum(_size(t["shape"]) * wide.get(t["dtype"], np.dtype(TYPES[t["dtype"]]).itemsize) for t in tensors.values())
    _need(4 * sum(counts) + rest <= max(64 * 2**20, 256 * len(content)), "far more weights than the file can mean")
    network = {name: _values(entry, data) for name, entry in tensors.items()}
    if meta["rest"] == "float16":
        network = {name: value.astype(np.float32) if value.dtype == np.float16 else value for name, value in network.items()}
    for group, (values, stored), n in zip(groups, books, counts, strict=True):
        labels = _labels(group["bits"], group["coding"], stored, n, decompress)
        _need(n == 0 or int(labels.max()) < values.size, "a label beyond the codebook")
        for name, shape in group["weights"]:
            part, labels = labels[: _size(shape)], labels[_size(shape) :]
            network[name] = values[part].reshape(shape)
    return network | {name: network[target] for name, target in same.items()}
