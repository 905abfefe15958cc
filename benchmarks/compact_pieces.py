"""A packed file of version 2 taken apart, free to be changed, and put together; a part of `mutations`.

In the metadata whatever has bytes in the data holds them itself, under DATA: each part, and each tensor that is neither constant nor coded.
"""

import json
import math
import random
import zlib
from functools import lru_cache

import numpy as np
import torch

from weightlab import formats
from weightlab.compression import kinds
from weightlab.compression.contract import Labels, Stored, Values
from weightlab.packing import compact_format, compact_metadata, parts

DATA = "data"  # no key of the format
LARGEST = 1 << 20  # weights that are decoded for a change


def opened(content: bytes) -> dict:
    """The metadata of a good file with its data."""
    text, data = sections(content)
    values, at = json.loads(text), 0
    for each in [*values["groups"], *values.get("tensors", [])]:
        for held in each["parts"].values() if "parts" in each else [] if "value" in each else [each]:
            if "n" in held:
                length = held["n"] * formats.get(held["format"]).bits // 8
            else:
                length = held["length"] if "bits" in held else math.prod(held["shape"]) * compact_metadata.TYPES[held["type"]]
            held[DATA], at = data[at : at + length], at + length
    return values


@lru_cache(maxsize=64)
def sections(content: bytes) -> tuple[bytes, bytes]:
    """The text of the metadata, and the data."""
    start = compact_format.start(content, len(content))
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS, zdict=compact_format.DICTIONARY)
    return inflater.decompress(content[compact_format.HEAD : start]), content[start:]


def taken(tree: object) -> list[bytes]:
    """All data in a tree, in their order; the tree loses them."""
    if isinstance(tree, dict):
        own = tree.pop(DATA, b"")
        return [own if isinstance(own, bytes) else b"", *(part for value in tree.values() for part in taken(value))]
    return [part for value in tree for part in taken(value)] if isinstance(tree, list) else []


def every_coded(values: dict) -> list[dict]:
    """Groups, and tensors that are made of parts."""
    return [each for each in [*values["groups"], *values.get("tensors", [])] if "parts" in each]


def any_coded(values: dict, chance: random.Random) -> dict:
    """One of them, as often a group as any."""
    return chance.choice(values["groups"] if chance.random() < 0.5 else every_coded(values))


def any_labels(values: dict, chance: random.Random) -> tuple[dict, str, np.ndarray]:
    """Something made of parts, the name of a part of labels, and what they are, uint16 (n,)."""
    found = [(each, name) for each in every_coded(values) for name, part in each["parts"].items() if "bits" in part]
    coded, name = chance.choice(found)
    return coded, name, _numbers(coded["parts"][name], size(coded)).numbers.astype(np.uint16)


def weights(coded: dict) -> np.ndarray:
    """What parts make, float32 (n,)."""
    n = size(coded)
    stored = {name: _numbers(part, n) for name, part in coded["parts"].items()}
    return kinds.weights(Stored(coded["kind"], stored, coded.get("settings", {})), n)


def _numbers(part: dict, n: int) -> Labels | Values:
    if "bits" in part:
        stored = np.frombuffer(part[DATA], np.uint8)
        return Labels(parts.read_labels(stored, n, part["bits"], part["coding"], "labels"), part["bits"])
    format = formats.get(part["format"])
    return Values(format.decode(torch.frombuffer(bytearray(part[DATA]), dtype=format.dtype)), format.name)


def size(coded: dict) -> int:
    """Number of weights; raises `ValueError` if they are more than a change should take memory for."""
    n = sum(math.prod(shape) for _, shape in coded["weights"]) if "weights" in coded else math.prod(coded["shape"])
    if not 0 < n <= 4 * LARGEST:
        raise ValueError(f"{n} weights")
    return n


def resize(coded: dict, n: int) -> None:
    """Declare n weights."""
    if "weights" in coded:
        coded["weights"] = [[coded["weights"][0][0], [n]]]
    else:
        coded["shape"] = [n]


def values_part(numbers: np.ndarray, name: str) -> dict:
    """A part of numbers, float32 (n,), rounded to a format."""
    format = formats.get(name)
    return {"n": len(numbers), "format": name, DATA: compact_format.raw(format.encode(format.round(numbers)))}
