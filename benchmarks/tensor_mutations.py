"""Changes of the tensors of a packed file of version 1, and of metadata together with them; a part of `mutations`."""

import math
import random
import struct
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from json_mutations import TYPES
from label_mutations import lying_frame

from weightlab import accounting, formats
from weightlab.packing import compact_metadata, label_coding

Tensors = dict[str, tuple[str, list[int], bytes]]  # by name: type, shape, content
WIDTHS = compact_metadata.TYPES | {"F8_E4M3": 1}
LARGEST = 1 << 22  # labels of one group, beyond those of the networks here


# --- changes after which a file agrees with itself, or nearly: it gets far, or is a good one -----------------------------------


def edit_consistently(values: dict, tensors: Tensors, chance: random.Random) -> None:
    """One change after which metadata and tensors still go together in part: such files get far, or are good ones."""
    with suppress(Exception):  # an earlier change may have made nonsense of what it is about
        chance.choice(CONSISTENT)(values, tensors, chance)


def _other_k(values: dict, tensors: Tensors, chance: random.Random) -> None:
    """Another number of clusters, with the bits that belong to it, and mostly with labels of so many bits."""
    number = chance.randrange(len(values["groups"]))
    group, old = values["groups"][number], values["groups"][number]["bits"]
    group["k"] = k = chance.choice([1, 2, 3, group["k"] + 1, 16, 17, 256, 257, 65_536, chance.randint(1, 65_536)])
    group["bits"] = int(accounting.key_bits(k))
    if isinstance(values["plan"], list):
        values["plan"][number] = k
    else:
        values["plan"] = k
    name, n = _name(values, number), _size(group)
    if chance.random() < 0.7:
        labels = _labels(tensors, name, group["coding"], n, old)
        coding = "none" if k == 1 else chance.choice(["packed", "zstd"])
        _store(tensors, name, group, labels if k > 1 else None, coding)


def _other_coding(values: dict, tensors: Tensors, chance: random.Random) -> None:
    number = chance.randrange(len(values["groups"]))
    group, name = values["groups"][number], _name(values, number)
    coding = chance.choice(["packed", "zstd", "none"])
    if chance.random() < 0.5:
        labels = _labels(tensors, name, group["coding"], _size(group), group["bits"])
        if chance.random() < 0.3:
            labels[chance.randrange(len(labels))] = chance.choice([labels.max() + 1, (1 << group["bits"]) - 1])
        _store(tensors, name, group, labels, coding)
    group["coding"] = coding


def _other_format(values: dict, tensors: Tensors, chance: random.Random) -> None:
    """Another number format, mostly with centroids of so many bytes: their bits as they fall, NaN among them."""
    values["format"] = chance.choice(list(formats.FORMATS))
    if chance.random() < 0.7:
        dtype = {"float32": "F32", "float16": "F16", "float8_e4m3": "F8_E4M3", "float8_thesis": "U8"}[values["format"]]
        width = formats.get(values["format"]).bits // 8
        for name, (_, shape, part) in list(tensors.items()):
            if name.endswith(":centroids"):
                stretched = (part * 4)[: shape[0] * width]
                tensors[name] = dtype, shape, stretched


def other_shape(values: dict, chance: random.Random) -> None:
    """A weight of another shape: of the same size, of nearly the same, or so large that it must not be believed."""
    weights = chance.choice(values["groups"])["weights"]
    entry = chance.choice(weights)
    n = math.prod(entry[1])
    same_size = [[n], [1, n], [n, 1, 1], entry[1][::-1]]
    entry[1] = chance.choice([*same_size, [n + 1], [n - 1], [n, 2], [10**6, 15], [1 << 20, 1 << 20], [1 << 62] * 8])


def regrouped(values: dict, chance: random.Random) -> None:
    """Groups in another order, one lost, one twice, or two made one."""
    groups, plan = values["groups"], values["plan"] if isinstance(values["plan"], list) else [values["plan"]]
    order = list(range(len(groups)))
    kind = chance.choice(["shuffle", "lose", "twice", "join"])
    if kind == "shuffle":
        chance.shuffle(order)
    elif kind == "lose":
        order.pop(chance.randrange(len(order)))
    elif kind == "twice":
        order.append(chance.choice(order))
    else:
        first, second = groups[chance.choice(order)], groups[chance.choice(order)]
        first["weights"] = first["weights"] + second["weights"]
    values["groups"] = [groups[i] for i in order]
    if isinstance(values["plan"], list):
        values["plan"] = [plan[i] for i in order]


def _lying_frame(values: dict, tensors: Tensors, chance: random.Random) -> None:
    """Labels as a zstandard frame that is not what it says."""
    number = chance.randrange(len(values["groups"]))
    group = values["groups"][number]
    frame = lying_frame(_size(group) * (2 if group["bits"] > 8 else 1), chance)
    group["coding"] = "zstd"
    tensors[f"{_name(values, number)}:labels"] = "U8", [len(frame)], frame


CONSISTENT: list[Callable] = [
    _other_k,
    _other_coding,
    _other_format,
    lambda values, tensors, chance: other_shape(values, chance),
    lambda values, tensors, chance: regrouped(values, chance),
    _lying_frame,
]


def _name(values: dict, number: int) -> str:
    return "whole net" if isinstance(values["plan"], int) else values["groups"][number]["weights"][0][0]


def _size(group: dict) -> int:
    """Number of labels, but no more than a mutation should take memory for."""
    return min(sum(math.prod(shape) for _, shape in group["weights"]), LARGEST)


def _labels(tensors: Tensors, name: str, coding: str, n: int, bits: int) -> np.ndarray:
    if coding == "none":
        return np.zeros(n, dtype=np.uint16)
    decode = label_coding.unpack if coding == "packed" else label_coding.expand
    return decode(np.frombuffer(tensors[f"{name}:labels"][2], dtype=np.uint8), n, bits).astype(np.uint16)


def _store(tensors: Tensors, name: str, group: dict, labels: np.ndarray | None, coding: str) -> None:
    group["coding"] = coding
    tensors.pop(f"{name}:labels", None)
    if labels is not None and coding != "none":
        encode = label_coding.pack if coding == "packed" else label_coding.compress
        stored = encode(labels, group["bits"]).tobytes()
        tensors[f"{name}:labels"] = "U8", [len(stored)], stored


# --- tensors --------------------------------------------------------------------------------------------------------------------


def edit_tensors(tensors: Tensors, others: Tensors, chance: random.Random) -> None:
    """One tensor lost, renamed, put in twice, taken from `others`, or of other bytes, shape or type."""
    if not tensors:
        return
    name = chance.choice(list(tensors))
    kind = chance.choice(["values", "values", "described", "described", "other", "lose", "rename", "stray"])
    if kind == "values":
        tensors[name] = _other_values(*tensors[name], chance)
    elif kind == "described":
        tensors[name] = _other_description(*tensors[name], chance)
    elif kind == "other" and others:
        tensors[name] = others[chance.choice(list(others))]
    elif kind == "rename":
        tensors[chance.choice([f"{name}:labels", name.split(":")[0], f"{name}x", "whole net:labels", ""])] = tensors.pop(name)
    elif kind == "stray":
        tensors[f"{name}{chance.choice(['.more', ':labels', ':centroids'])}"] = tensors[name]
    else:
        del tensors[name]


def _other_values(dtype: str, shape: list[int], part: bytes, chance: random.Random) -> tuple[str, list[int], bytes]:
    """Some bytes changed, all of them, or another number of them with the shape that belongs to it."""
    kind = chance.choice(["some", "all", "length"])
    if kind == "some" and part:
        raw = bytearray(part)
        for _ in range(chance.randint(1, 8)):
            raw[chance.randrange(min(len(raw), chance.choice([16, len(raw)])))] = chance.randrange(256)
        return dtype, shape, bytes(raw)
    if kind == "length":
        part = chance.choice([part[:-1], part + b"\0", part * 2, part[: len(part) // 2], b"", part[:-4]])
        return dtype, [len(part) // WIDTHS.get(dtype, 1)], part
    nan, infinity = struct.pack("<f", np.nan), struct.pack("<e", np.inf)
    pattern = chance.choice([b"\0", b"\xff", b"\x7f", nan, infinity, chance.randbytes(97)])
    return dtype, shape, (pattern * len(part))[: len(part)]


def _other_description(dtype: str, shape: list[int], part: bytes, chance: random.Random) -> tuple[str, list[int], bytes]:
    """The same bytes as another type or in another shape."""
    if chance.random() < 0.5:
        dtype = chance.choice(TYPES)
        return dtype, chance.choice([shape, [len(part) // WIDTHS.get(dtype, 1)]]), part
    shapes = [[1, *shape], [*shape, 1], shape[::-1], [], [*shape, 0], [1] * 9, [-1, *shape], shape * 2]
    return dtype, chance.choice(shapes), part
