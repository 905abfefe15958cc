"""Changes of the parts and tensors of a packed file of version 2 (see `compact_pieces`), and of its metadata together with them; a part of `mutations`."""

import copy
import math
import random
import struct
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from compact_pieces import DATA, any_coded, any_labels, every_coded, resize, values_part, weights
from json_mutations import hostile
from label_mutations import certain_adaptive, certain_stream, lying_adaptive, lying_frame, lying_stream, stream
from tensor_mutations import other_shape, regrouped

from weightlab import formats
from weightlab.packing import compact_metadata, label_coding, parts

FEW = 5000  # labels that are written as a stream of its own
NUMBERS = [0.0, -0.0, 1e-320, 1e30, -1e30, 3.4028235e38, 3.4028236e38, 1e39, -1e39, 1e308, -1e308, 0, 1, True, "0.5", 10**30]
KS = [0, 1, 2, 3, 255, 65_535, 65_536, 65_537, 1 << 31, 1 << 63, 1 << 64, 10**400, -1, 3.0, True, "3"]


def edit_consistently(values: dict, others: dict, chance: random.Random) -> None:
    """One change after which metadata and data still go together in part; `others` are the metadata of another file."""
    with suppress(Exception):  # an earlier change may have made nonsense of what it is about
        chance.choice(CONSISTENT)(values, others, chance)


# --- labels ---------------------------------------------------------------------------------------------------------------------


def _other_coding(values: dict, others: dict, chance: random.Random) -> None:
    """The labels in another coding or with other bits, some of them wrong, or too few or too many."""
    coded, name, labels = any_labels(values, chance)
    bits = coded["parts"][name]["bits"]
    if chance.random() < 0.4:
        n = len(labels)
        most = int(labels.max())
        labels = labels.copy()
        if chance.random() < 0.5:
            labels[chance.randrange(n)] = chance.choice([most + 1, (1 << bits) - 1, 1 << bits, 65_535]) % 65_536
        else:
            labels = chance.choice([labels[:-1], np.append(labels, labels[:1]), labels * 0, labels[:1], labels % (most or 1)])
    bits = chance.choice([bits, bits, bits, bits + 1, bits - 1, 1, 8, 9, 16, 17, 0])
    coding = chance.choice(list(parts.CODINGS))
    made = parts.CODINGS[coding](labels, min(max(bits, 1), 16), chance.choice([0, 0, 1, 30, len(labels)]))
    packed = chance.randbytes(40) if made is None else made.tobytes()
    _put(coded, name, {"bits": bits, "coding": coding}, packed, chance)


def _lying_labels(values: dict, others: dict, chance: random.Random) -> None:
    """Labels in bytes that are not what they say."""
    coded, name, labels = any_labels(values, chance)
    bits = coded["parts"][name]["bits"]
    kind = chance.choice(
        ["frame", "stream", "stream", "stream", "written", "written", "packed", "adaptive", "adaptive", "adaptive"]
    )
    if kind == "adaptive":
        good = parts.CODINGS["adaptive"](labels, bits, chance.choice([0, 1, 30, len(labels)]))
        return _put(coded, name, {"bits": bits, "coding": "adaptive"}, lying_adaptive(good, chance), chance)
    if kind == "frame":
        frame = lying_frame(len(labels) * (2 if bits > 8 else 1), chance)
        return _put(coded, name, {"bits": bits, "coding": "zstd"}, frame, chance)
    if kind == "packed":
        raw = bytearray(label_coding.pack(labels, bits).tobytes())
        raw[-1] |= 128
        raw = chance.choice([raw, raw[:-1], raw + b"\0", raw[:1], raw * 2])
        return _put(coded, name, {"bits": bits, "coding": "packed"}, bytes(raw), chance)
    different = len(np.unique(labels))
    if kind == "written" and len(labels) <= FEW and 2 <= different <= 1 << 12:
        made = stream(labels, chance.choice([12, 13, 14, 15, 16]), chance)
    else:
        old = coded["parts"][name]
        made = old[DATA] if old["coding"] == "range" else parts.CODINGS["range"](labels, bits, 0).tobytes()
        made = lying_stream(made, chance)
    _put(coded, name, {"bits": bits, "coding": "range"}, made, chance)


def _certain(values: dict, others: dict, chance: random.Random) -> None:
    """Very many labels in very few bytes, declared as so many, or as more or fewer."""
    coded, name, _ = any_labels(values, chance)
    n = chance.choice([1000, 1 << 16, 1 << 20])
    coding, made = chance.choice([("range", certain_stream), ("adaptive", certain_adaptive)])
    _put(coded, name, {"bits": chance.choice([1, 2, 16]), "coding": coding}, made(n), chance)
    resize(coded, chance.choice([n, n, n + 1, n - 1, 64 * n, 1 << 40]))


def _put(coded: dict, name: str, said: dict, made: bytes, chance: random.Random) -> None:
    """A part of such bytes, mostly with their length."""
    length = len(made) if chance.random() < 0.9 else chance.choice([len(made) + 1, len(made) - 1, 0, 1 << 40])
    coded["parts"][name] = said | {"length": length, DATA: made}


# --- kinds, settings and parts --------------------------------------------------------------------------------------------------


def _other_kind(values: dict, others: dict, chance: random.Random) -> None:
    """The same weights, or nearly, as another kind; or another kind in name alone."""
    coded = any_coded(values, chance)
    kind = chance.choice(["codebook", "grid", "values"])
    if chance.random() < 0.3:
        coded["kind"] = kind
        return
    made = weights(coded)
    if kind == "values":
        coded |= {"kind": kind, "settings": {}, "parts": {"values": values_part(made, chance.choice(list(formats.FORMATS)))}}
    elif kind == "codebook":
        centroids, labels = np.unique(made, return_inverse=True)
        coded |= {"kind": kind, "settings": {"k": len(centroids)}, "parts": {"centroids": values_part(centroids, "float32")}}
        if len(centroids) > 1 or chance.random() < 0.5:
            bits = max(1, int(len(centroids) - 1).bit_length())
            packed = label_coding.pack(labels.astype(np.uint16), bits).tobytes()
            _put(coded, "labels", {"bits": bits, "coding": "packed"}, packed, chance)
    else:
        name = next(name for name, part in coded["parts"].items() if "bits" in part)
        settings = {"low": float(made.min()), "step": float(np.ptp(made)) / 10}
        coded |= {"kind": kind, "settings": settings, "parts": {"labels": coded["parts"][name]}}


def _other_settings(values: dict, others: dict, chance: random.Random) -> None:
    """Settings that cannot be, or at the edge of what can be; settings too many, or of another kind."""
    coded = any_coded(values, chance)
    settings = coded.setdefault("settings", {})
    name = chance.choice([*settings, *settings, "k", "low", "step"])
    kind = chance.choice(["number", "number", "number", "hostile", "more", "many", "none", "other"])
    if kind == "number":
        settings[name] = chance.choice(KS if name == "k" else NUMBERS)
    elif kind == "hostile":
        settings[name] = hostile(chance)
    elif kind == "more":
        settings[chance.choice(["", "x", "low ", "K"])] = chance.choice([*NUMBERS, "text", True])
    elif kind == "many":
        settings |= {f"s{number}": number for number in range(chance.choice([15, 16, 17]))}
    else:
        coded["settings"] = {} if kind == "none" else copy.deepcopy(any_coded(others, chance).get("settings", {}))


def _other_values(values: dict, others: dict, chance: random.Random) -> None:
    """Values in another format, too few or too many, or not finite."""
    found = [coded for coded in every_coded(values) if any("n" in part for part in coded["parts"].values())]
    coded = chance.choice(found)
    part = next(part for part in coded["parts"].values() if "n" in part)
    width = formats.get(part["format"]).bits // 8
    kind = chance.choice(["format", "format", "count", "infinite", "random", "claim"])
    if kind == "format":  # with the same bytes, or as many as it takes
        part["format"] = chance.choice(list(formats.FORMATS))
        if chance.random() < 0.7:
            part[DATA] = (part[DATA] * 4)[: part["n"] * formats.get(part["format"]).bits // 8]
    elif kind == "count":
        part["n"] = n = max(0, chance.choice([part["n"] + 1, part["n"] - 1, 2 * part["n"], 1, 0, 65_537]))
        part[DATA] = (part[DATA] * (n + 1))[: n * width]
    elif kind == "claim":
        part["n"] = chance.choice([part["n"] + 1, 0, 1 << 20, 1 << 40, (1 << 63) - 1])
    else:
        not_finite = {"float32": struct.pack("<f", chance.choice([np.nan, np.inf])), "float16": b"\0\x7c"}
        pattern = not_finite.get(part["format"], b"\x7f") if kind == "infinite" else chance.randbytes(width)
        at = width * chance.randrange(part["n"])
        part[DATA] = part[DATA][:at] + pattern + part[DATA][at + width :]


def _other_parts(values: dict, others: dict, chance: random.Random) -> None:
    """A part lost, renamed, put in twice or taken from another file; parts in another order, or far too many."""
    own = any_coded(values, chance)["parts"]
    name = chance.choice(list(own))
    kind = chance.choice(["lose", "rename", "twice", "other", "order", "swap", "many"])
    if kind == "lose":
        del own[name]
    elif kind == "rename":
        own[chance.choice(["labels", "centroids", "values", "", "x", hostile(chance)])] = own.pop(name)
    elif kind == "twice":
        own[f"{name}2"] = own[name] | {}
    elif kind == "other":
        own[name] = chance.choice(list(any_coded(others, chance)["parts"].values())) | {}
    elif kind == "order":
        own[name] = own.pop(name)
    elif kind == "swap":
        other = chance.choice(list(own))
        own[name], own[other] = own[other], own[name]
    else:
        own |= {f"{name}.{number}": own[name] | {} for number in range(chance.choice([14, 15, 16, 40]))}


# --- tensors and groups ---------------------------------------------------------------------------------------------------------


def _other_tensor(values: dict, others: dict, chance: random.Random) -> None:
    """A tensor of other type, shape, value or bytes; made constant, raw or coded; lost, put in twice or taken from another file."""
    tensors = values.setdefault("tensors", [])
    place = chance.randrange(len(tensors))
    tensor = tensors[place]
    own = {"name": tensor["name"], "shape": tensor["shape"]}
    type_name, width = chance.choice(list(compact_metadata.TYPES.items()))
    match chance.choice(
        ["constant", "constant", "constant", "raw", "raw", "coded", "shape", "shape", "lose", "twice", "other", "name"]
    ):
        case "constant":
            value = chance.choice([0, 1, -1, 127, 128, -129, 255, 256, 1 << 31, (1 << 63) - 1, 1 << 63, *NUMBERS, 65_504.0, 0.1])
            tensors[place] = own | {"type": type_name, "value": value}
        case "raw":
            size = math.prod(own["shape"]) * width
            raw = chance.choice([bytes(size), b"\x01" * size, b"\xff" * size, b"\x02" * size, bytes(size + 1), bytes(size)[1:]])
            tensors[place] = own | {"type": type_name, DATA: raw}
        case "coded":
            tensors[place] = own | {
                key: copy.deepcopy(any_coded(others, chance).get(key, {})) for key in ("kind", "settings", "parts")
            }
        case "shape":
            shape, huge = tensor["shape"], [1 << 62] * 2
            shapes = [[], [0], [*shape, 0], [0, *huge], [*shape, 1], shape[::-1], [1] * 9, [1 << 40], huge, [-1], shape * 2]
            tensor["shape"] = chance.choice(shapes)
        case "lose":
            del tensors[place]
        case "twice":
            tensors.append(tensor | chance.choice([{}, {"name": "more"}]))
        case "other":
            tensors[place] = copy.deepcopy(chance.choice(others["tensors"]))
        case "name":
            first = values["groups"][0]["weights"][0][0]
            name = chance.choice([first, "", "more", tensors[0]["name"], hostile(chance)])
            if chance.random() < 0.5:
                tensor["name"] = name
            else:
                values["same"] = {name: tensor["name"], "again": chance.choice([name, first, "nothing"])}


def _other_group(values: dict, others: dict, chance: random.Random) -> None:
    """A group taken from another file, with its own weights or with those that were here."""
    groups = values["groups"]
    place, taken = chance.randrange(len(groups)), copy.deepcopy(chance.choice(others["groups"]))
    groups[place] = taken if chance.random() < 0.5 else taken | {"weights": groups[place]["weights"]}


CONSISTENT: list[Callable] = [
    _other_coding,
    _other_coding,
    _lying_labels,
    _lying_labels,
    _lying_labels,
    _certain,
    _other_kind,
    _other_settings,
    _other_settings,
    _other_values,
    _other_values,
    _other_parts,
    _other_tensor,
    _other_tensor,
    _other_group,
    lambda values, others, chance: other_shape(values, chance),
    lambda values, others, chance: regrouped(values, chance),
]
