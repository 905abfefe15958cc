"""The kinds of `Stored`: how their parts are decoded to weights, and the bits they are counted with.

A method whose weights are neither of the two kinds here adds a kind of its own. A reader relies only on the types of the parts.
"""

import math
from collections.abc import Callable
from typing import cast

import numpy as np

from weightlab import accounting, formats
from weightlab.compression.contract import Labels, Stored, Values
from weightlab.errors import UserError, choose

K_MAX = 65_536  # clusters of a codebook, as labels have at most 16 bits


def weights(stored: Stored, n: int) -> np.ndarray:
    """The n weights of a group, float32 (n,); raises `UserError` for an unknown kind, and for parts or settings that do not fit."""
    choose("kind of stored weights", stored.kind, READERS)
    return READERS[stored.kind](stored, n)


def bits(stored: Stored) -> int:
    """Bits as `storage_rate` counts them, labels at equal width: all k of a codebook, even if there are fewer distinct weights."""
    charged = {name: part.bits for name, part in stored.parts.items()}
    if stored.kind == "codebook":
        charged["centroids"] = stored.settings["k"] * formats.get(_centroids(stored).format).bits
    if stored.kind == "grid":
        charged["grid"] = 2 * formats.get("float32").bits
    return sum(charged.values())


def thesis_bits(stored: Stored, n: int) -> int:
    """Bits of n weights by the denominator of equation 3.2 for a codebook, else as `bits`."""
    if stored.kind != "codebook":
        return bits(stored)
    return int(accounting.thesis_bits(n, stored.settings["k"], _centroids(stored).format))


def centroids(stored: Stored) -> np.ndarray:
    """The values that labels number, float32 (n,), of a codebook or a grid; of a grid up to its highest label."""
    if stored.kind == "codebook":
        return stored.parts["centroids"].numbers
    labels = np.arange(int(stored.parts["labels"].numbers.max()) + 1, dtype=np.uint16)
    return on_grid(labels, stored.settings["low"], stored.settings["step"])


def on_grid(labels: np.ndarray, low: float, step: float) -> np.ndarray:
    """low + step · labels, computed in double precision, as float32."""
    with np.errstate(over="ignore"):
        return (low + step * labels.astype(np.float64)).astype(np.float32)


def _centroids(stored: Stored) -> Values:
    """The centroids of a codebook, which are `Values` wherever it has been read."""
    return cast(Values, stored.parts["centroids"])


def _codebook(stored: Stored, n: int) -> np.ndarray:
    """`centroids` and, unless there is only one cluster, `labels`: weight i is centroids[labels[i]]; `k` is the number counted."""
    _need(stored, {"centroids": Values, "labels": Labels} if "labels" in stored.parts else {"centroids": Values}, ("k",))
    centroids, k = stored.parts["centroids"].numbers, stored.settings["k"]
    if type(k) is not int or not 1 <= len(centroids) <= min(k, n) or k > K_MAX:
        raise UserError(
            f"a codebook of {n} weights has 1 to {n} centroids and k from their number to {K_MAX}, got {len(centroids)} at k = {k!r}"
        )
    if "labels" not in stored.parts:
        if len(centroids) > 1:
            raise UserError(f"a codebook without labels has one centroid, got {len(centroids)}")
        return np.full(n, centroids[0], dtype=np.float32)
    labels = stored.parts["labels"].numbers
    if len(labels) != n or labels.max() >= len(centroids):
        raise UserError(f"{n} weights need {n} labels below {len(centroids)}, got {len(labels)} up to {labels.max()}")
    return centroids[labels]


def _values(stored: Stored, n: int) -> np.ndarray:
    """`values`: every weight by itself."""
    _need(stored, {"values": Values})
    if len(stored.parts["values"].numbers) != n:
        raise UserError(f"{n} weights need {n} values, got {len(stored.parts['values'].numbers)}")
    return stored.parts["values"].numbers


def _grid(stored: Stored, n: int) -> np.ndarray:
    """`labels` on a grid of equal steps: weight i is low + step · labels[i], in double precision and then rounded to float32."""
    _need(stored, {"labels": Labels}, ("low", "step"))
    labels, low, step = stored.parts["labels"].numbers, stored.settings["low"], stored.settings["step"]
    if not all(type(number) is float and math.isfinite(number) for number in (low, step)):
        raise UserError(f"a grid needs finite numbers low and step, got {low!r} and {step!r}")
    if len(labels) != n:
        raise UserError(f"{n} weights need {n} labels, got {len(labels)}")
    weights = on_grid(labels, low, step)
    if not np.isfinite(weights).all():
        raise UserError("a grid holds numbers beyond float32")
    return weights


def _need(stored: Stored, parts: dict[str, type], settings: tuple[str, ...] = ()) -> None:
    """Raise `UserError` unless there are exactly these parts and settings."""
    if {name: type(part) for name, part in stored.parts.items()} != parts or set(stored.settings) != set(settings):
        raise UserError(
            f"weights stored as {stored.kind} have the parts {', '.join(parts)} and the settings {', '.join(settings) or 'none'}, "
            f"got {', '.join(stored.parts)} and {', '.join(stored.settings) or 'none'}"
        )


READERS: dict[str, Callable[[Stored, int], np.ndarray]] = {"codebook": _codebook, "grid": _grid, "values": _values}
