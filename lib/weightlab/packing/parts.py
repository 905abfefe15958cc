"""The parts of stored weights as bytes of a file, and back; see `docs/format.md`. What is read may be of any origin."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from weightlab import formats
from weightlab.errors import UserError
from weightlab.packing import adaptive_coding, label_coding, range_coding

# Each takes labels, their bits and the number of columns of their layer; the first of equally small ones is taken.
CODINGS: dict[str, Callable[[np.ndarray, int, int], np.ndarray | None]] = {
    "packed": lambda labels, bits, _: label_coding.pack(labels, bits),
    "zstd": lambda labels, bits, _: label_coding.compress(labels, bits),
    "range": lambda labels, *_: range_coding.encode(labels) if labels.min() < labels.max() else None,
    "adaptive": lambda labels, _, columns: adaptive_coding.encode(labels, columns),
}


def coded(labels: np.ndarray, bits: int, codings: Sequence[str], columns: int = 0) -> tuple[str, np.ndarray]:
    """The smallest of some codings of labels, unsigned (n,), and its bytes; label i is in column i mod `columns`, if there are any."""
    found = {coding: CODINGS[coding](labels, bits, columns) for coding in codings}
    return min(((coding, stored) for coding, stored in found.items() if stored is not None), key=lambda coded: len(coded[1]))


def read_labels(stored: np.ndarray, n: int, bits: int, coding: str, what: str) -> np.ndarray:
    """The n whole numbers, unsigned (n,), that some bytes code; raises `UserError` if they are not n ≥ 1 numbers of so many bits."""
    if coding in ("range", "adaptive"):
        numbers = (range_coding if coding == "range" else adaptive_coding).decode(stored, n)
    else:
        numbers = (label_coding.unpack if coding == "packed" else label_coding.expand)(stored, n, bits)
    if numbers is None or len(numbers) == 0 or numbers.max() >> bits:
        raise UserError(f"{what} are not {n} labels, coded as {coding}")
    return numbers


def read_values(stored: torch.Tensor, name: str, what: str, most: int | None = None) -> np.ndarray:
    """The numbers of a tensor in the format called `name`, float32 (n,); raises `UserError` unless there is one, and at most so many.

    NaN and infinity are refused as well.
    """
    format = formats.get(name)
    if stored.dtype != format.dtype or stored.dim() != 1 or not 1 <= len(stored) <= (len(stored) if most is None else most):
        raise UserError(f"{what} must be 1 to {'any number of' if most is None else most} values of {format.name}")
    numbers = format.decode(stored)
    if not np.isfinite(numbers).all():
        raise UserError(f"{what} holds NaN or infinity")
    return numbers
