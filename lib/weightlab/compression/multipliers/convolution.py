"""Convolutions whose products are looked up in a table: sums of T[activation, weight], exact, on a CPU and on a GPU.

Codes of activations and weights are uint8. Zero padding is padding by the code of 0, which goes through the table like any other
code (tf-approximate, ehw-fit).
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import nn

from weightlab.errors import UserError

BLOCK = 4096  # patches at a time: their sums stay in the second cache
FEW = 1024  # patches: with fewer, only the rows of codes that occur are made
MOST_TAPS = 16_448  # products a sum may have: with the terms of zero points each takes up to 65 535 + 65 025 of int32


@dataclass(frozen=True)
class Geometry:
    """Where a convolution's kernels lie; `padding` is left, right, top, bottom, in pixels."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]
    groups: int

    @classmethod
    def of(cls, layer: nn.Conv2d) -> "Geometry":
        """Of a layer; what it pads with something else than zeros is left out. Raises `UserError` for kernels that are too large."""
        if (taps := layer.weight[0].numel()) > MOST_TAPS:
            raise UserError(f"a sum of products must have at most {MOST_TAPS} terms, got a convolution with {taps}")
        pads = list(layer._reversed_padding_repeated_twice) if layer.padding_mode == "zeros" else [0, 0, 0, 0]
        kernel, stride, dilation = (cast(tuple[int, int], each) for each in (layer.kernel_size, layer.stride, layer.dilation))
        return cls(kernel, stride, dilation, (pads[0], pads[1], pads[2], pads[3]), layer.groups)


def patches(codes: np.ndarray, geometry: Geometry, padding: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Codes (n, channels, height, width), padded by a code, as columns (taps, h·w·n), and the output's h and w.

    Taps are numbered as in a weight: channel, row, column. Images come last, so that every copy is of neighbouring bytes.
    """
    left, right, top, bottom = geometry.padding
    last = np.ascontiguousarray(codes.transpose(1, 2, 3, 0))  # (channels, height, width, n)
    last = np.pad(last, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=padding)
    reach = [1 + (size - 1) * step for size, step in zip(geometry.kernel, geometry.dilation, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(last, reach, (1, 2))
    windows = windows[:, :: geometry.stride[0], :: geometry.stride[1], :, :: geometry.dilation[0], :: geometry.dilation[1]]
    channels, h, w, n, rows, columns = windows.shape
    return windows.transpose(0, 4, 5, 1, 2, 3).reshape(channels * rows * columns, h * w * n), (h, w)


def row_add(columns: np.ndarray, weights: np.ndarray, signs: np.ndarray | None, table: np.ndarray) -> np.ndarray:
    """Σ_k sign · T[columns[k, p], weights[k, o]], int32 (patches, outputs).

    columns, uint8 (taps, patches); weights, uint8 (taps, outputs), whose signs, int8, are +1 or -1 (None: all +1); table, uint16
    (256, 256). One tap at a time: the rows of the table that its weights make are put side by side, (256, outputs), so that the products
    of an activation with all outputs are neighbours and are added at once. Its time does not depend on the table.
    """
    sums = np.empty((columns.shape[1], weights.shape[1]), np.int32)
    _row_add(columns, weights, signs, table if signs is None else table.astype(np.int32), sums)
    return sums


@njit(cache=True, nogil=True, error_model="numpy")
def _row_add(columns: np.ndarray, weights: np.ndarray, signs: Any, table: np.ndarray, sums: np.ndarray) -> None:
    taps, n = columns.shape
    outputs = weights.shape[1]
    rows, occurs = np.empty((256, outputs), table.dtype), np.empty(256, np.bool_)
    for first in range(0, n, BLOCK):
        last = min(n, first + BLOCK)
        sums[first:last] = 0
        for k in range(taps):
            occurs[:] = last - first >= FEW
            if last - first < FEW:
                for p in range(first, last):
                    occurs[columns[k, p]] = True
            for code in range(256):
                if not occurs[code]:
                    continue
                for o in range(outputs):
                    if signs is None:
                        rows[code, o] = table[code, weights[k, o]]
                    else:
                        rows[code, o] = signs[k, o] * table[code, weights[k, o]]
            for p in range(first, last):
                row, total = rows[columns[k, p]], sums[p]
                for o in range(outputs):
                    total[o] += row[o]


def oracle(columns: np.ndarray, weights: np.ndarray, signs: np.ndarray | None, table: np.ndarray) -> np.ndarray:
    """As `row_add`, int64, product by product: slow, and plain enough to be believed."""
    sums = np.zeros((columns.shape[1], weights.shape[1]), np.int64)
    for k, row in enumerate(columns):
        products = table.astype(np.int64)[row[:, None], weights[k]]
        sums += products if signs is None else products * signs[k]
    return sums


def low_rank(
    codes: torch.Tensor,
    weights: torch.Tensor,
    signs: torch.Tensor | None,
    factors: tuple[np.ndarray, np.ndarray],
    geometry: Geometry,
    padding: int,
) -> torch.Tensor:
    """The same sums, int64 (n, outputs, h, w), as one convolution: T[a, b] = a·b + Σ_i u_i(a)·v_i(b), i up to the rank of the error.

    codes, uint8 (n, channels, height, width), and weights, uint8 (outputs, channels / groups, rows, columns), on any device; `factors` are
    those of `metrics.factors`, float64 (256, rank). Each channel becomes 1 + rank channels. Factors are off by about 1e-10, so sums in double precision are off by far less than ½, and rounding makes
    them exact; a test has 9 999 taps at rank 247.
    """
    left, right = (
        torch.from_numpy(np.column_stack([np.arange(256.0), each])).to(codes.device) for each in factors
    )  # (256, 1 + rank)
    x = F.pad(codes, geometry.padding, value=padding).long()
    inputs = left[x].movedim(-1, 2).flatten(1, 2)  # (n, channels·(1 + rank), height, width)
    kernels = right[weights.long()]
    if signs is not None:
        kernels = kernels * signs[..., None]
    kernels = kernels.movedim(-1, 2).flatten(1, 2)
    sums = F.conv2d(inputs, kernels, stride=geometry.stride, dilation=geometry.dilation, groups=geometry.groups)
    return sums.round().long()


def window_sums(codes: torch.Tensor, taps: int, outputs: int, geometry: Geometry, padding: int) -> torch.Tensor:
    """Σ_k of the codes (n, channels, height, width) below each kernel, int64 (n, outputs, h, w)."""
    x = F.pad(codes, geometry.padding, value=padding).double()
    ones = torch.ones(
        outputs, taps // (geometry.kernel[0] * geometry.kernel[1]), *geometry.kernel, dtype=x.dtype, device=x.device
    )
    return F.conv2d(x, ones, stride=geometry.stride, dilation=geometry.dilation, groups=geometry.groups).long()
