"""Biases and batch norm in few bits: on a grid of equal steps for each tensor, or as float16."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch

from weightlab import formats
from weightlab.compression.contract import Labels, Stored, Values

BITS = (4, 5, 6, 8)  # of a value on a grid
FEW = 12  # values of a tensor, below which float16 takes no more than a grid with its two numbers


def stored(tensors: Mapping[str, torch.Tensor], coding: str) -> dict[str, tuple[Stored, tuple[int, ...]]]:
    """Float32 tensors with finite values, coded, with their shapes; others are left out, as are constant ones."""
    coded = {}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.float32 and tensor.numel() and bool(tensor.isfinite().all()) and tensor.min() < tensor.max():
            coded[name] = (CODINGS[coding](tensor.numpy().ravel()), tuple(tensor.shape))
    return coded


def _grid(values: np.ndarray, bits: int) -> Stored:
    if len(values) < FEW:
        return _plain(values, "float16")
    low, high, steps = float(values.min()), float(values.max()), (1 << bits) - 1
    low, step = (float(f"{number:.3g}") for number in (low, (high - low) / steps))  # with few digits, which take bytes as well
    labels = np.clip(np.rint((values - low) / max(step, 1e-300)), 0, steps).astype(np.uint8)
    return Stored("grid", {"labels": Labels(labels, bits)}, {"low": low, "step": step})


def _plain(values: np.ndarray, format: str) -> Stored:
    return Stored("values", {"values": Values(formats.get(format).round(values), format)})


CODINGS: dict[str, Callable[[np.ndarray], Stored]] = {  # from the smallest to the most exact
    **{f"{bits} bits": partial(_grid, bits=bits) for bits in BITS},
    "float16": lambda values: _plain(values, "float16"),
    "float32": lambda values: _plain(values, "float32"),
}
