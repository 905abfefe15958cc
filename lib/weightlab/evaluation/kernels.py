"""Compiled inner loops of the evaluation engine.

Stock CPU kernels are slow at what LeNet-5 spends its time on: convolutions of few channels, tanh and 2x2 means over large feature
maps. Here activations are laid out with the images last, (channels, height, width, images), so that every operation runs over
neighbouring numbers for any shape of the map. Results differ from torch's in the last bits; `evaluation` makes sure that no
count does.
"""

from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import numpy as np
from numba import njit

LANES = 512  # images at a time
ROWS, TAPS = 10, 10  # of a linear layer at a time: beyond 100 weights LLVM gives up proving that results do not overwrite them
COMPILE: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
_U = np.uintp  # an index that cannot be negative: numba then leaves out the test for it, and LLVM vectorises

# tanh(x) ~ x·P(x²)/Q(x²), fitted to tanh on |x| <= 7.9 by reweighted least squares; error below 3e-7 in float32 arithmetic
_LIMIT, _QUARTER, _ZERO = np.float32(7.9), np.float32(0.25), np.float32(0)
_P0, _P1, _P2, _P3, _P4 = map(np.float32, (1, 0.13444452, 0.00357169588, 2.19034173e-05, 1.52596833e-08))
_Q0, _Q1, _Q2, _Q3, _Q4 = map(np.float32, (1, 0.467777729, 0.0261644125, 0.000341174309, 8.53054814e-07))


@njit(inline="always", error_model="numpy")
def _tanh(x: np.float32) -> np.float32:
    x = min(max(x, -_LIMIT), _LIMIT)
    t = x * x
    return x * (_P0 + t * (_P1 + t * (_P2 + t * (_P3 + t * _P4)))) / (_Q0 + t * (_Q1 + t * (_Q2 + t * (_Q3 + t * _Q4))))


def convolve(x: np.ndarray, weights: np.ndarray, bias: np.ndarray, activation: str, out: np.ndarray) -> None:
    """A convolution, stride 1, no padding, its activation (tanh, relu), and the mean over 2x2 windows, into `out`.

    x (inputs, height, width, n), weights (channels, inputs, rows, columns), bias (channels,), out (channels, h, w, n), all float32.
    """
    weights, bias = _filled_up(weights, 2), _filled_up(bias, 2)
    kernel = _convolution(*weights.shape[2:])
    kernel(x.reshape(-1), *x.shape[1:3], weights.reshape(-1), bias, activation == "tanh", out)


def _filled_up(array: np.ndarray, step: int) -> np.ndarray:
    """With zeros at the end, so that its length is a multiple of `step`."""
    missing = -len(array) % step
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)]) if missing else array


@cache
def _convolution(rows: int, columns: int) -> Callable:
    """`convolve` for kernels of one shape, x and weights flat, with an even number of kernels."""
    names = globals() | {"_taps": rows * columns, "_add_products": _accumulate(rows, columns)}
    return _compiled(_convolve, f"convolve_{rows}x{columns}", names)


def _compiled(function: Callable, name: str, names: dict) -> Callable:
    """A function compiled under another name, with `names` in place of its module's.

    What it takes from `names` is compiled in. numba keeps what it compiled under the function's own name, and finds it again in a
    later process. A closure would not be found: its contents are part of the key, and a compiled function is a new object each time.
    """
    code = function.__code__.replace(co_name=name, co_qualname=name)
    return njit(**COMPILE)(FunctionType(code, names, name))


# Of one shape of kernels: `_convolution` compiles `_convolve` with that shape's in their place.
_taps = 0
_add_products: Any = None


def _convolve(x: np.ndarray, height: int, width: int, weights: np.ndarray, bias: np.ndarray, tanh: bool, out: np.ndarray) -> None:
    channels, h, w, n = out.shape
    inputs = len(weights) // (len(bias) * _taps)
    sums = np.empty((8, LANES), np.float32)  # of two channels at the four places of a window
    flat = sums.reshape(sums.size)
    for first in range(0, n, LANES):
        lanes = min(LANES, n - first)
        for row in range(h):
            for column in range(w):
                for channel in range(0, channels, 2):
                    sums[:4], sums[4:] = bias[channel], bias[channel + 1]
                    for each in range(inputs):
                        corner = ((each * height + 2 * row) * width + 2 * column) * n + first
                        one, other = (channel * inputs + each) * _taps, ((channel + 1) * inputs + each) * _taps
                        _add_products(flat, x, _U(corner), _U(width * n), _U(n), weights, _U(one), _U(other), lanes)
                    for half in range(min(2, channels - channel)):
                        a, b, c, d = sums[4 * half], sums[4 * half + 1], sums[4 * half + 2], sums[4 * half + 3]
                        mean = out[channel + half, row, column, first : first + lanes]
                        if tanh:
                            for i in range(lanes):
                                mean[i] = _QUARTER * ((_tanh(a[i]) + _tanh(b[i])) + (_tanh(c[i]) + _tanh(d[i])))
                        else:
                            for i in range(lanes):
                                left, right = max(a[i], _ZERO) + max(c[i], _ZERO), max(b[i], _ZERO) + max(d[i], _ZERO)
                                mean[i] = _QUARTER * (left + right)


def _accumulate(rows: int, columns: int) -> Callable:
    """The products of one input channel under two kernels, at the four places of a 2x2 window, added to `sums`, flat (8·LANES)."""
    body = []
    for y in range(rows + 1):
        for z in range(columns + 1):
            body.append(f"v = x[corner + U({y}) * row + U({z}) * step + i]")
            for place, (down, right) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
                if 0 <= y - down < rows and 0 <= z - right < columns:
                    tap = (y - down) * columns + z - right
                    body += [f"s{place} += w[one + U({tap})] * v", f"s{4 + place} += w[other + U({tap})] * v"]
    return _written_out(f"accumulate_{rows}x{columns}", "sums, x, corner, row, step, w, one, other, lanes", [], body, 8)


def _accumulate_linear(taps: int) -> Callable:
    """The products of `taps` inputs with their weights in ROWS rows, added to `sums`, flat (ROWS·LANES)."""
    starts = [f"k{row} = start + U({row}) * inputs" for row in range(ROWS)]
    body = []
    for tap in range(taps):
        body.append(f"v = x[corner + U({tap}) * step + i]")
        body += [f"s{row} += w[k{row} + U({tap})] * v" for row in range(ROWS)]
    return _written_out(f"accumulate_{taps}", "sums, x, corner, step, w, start, inputs, lanes", starts, body, ROWS)


def _written_out(name: str, arguments: str, starts: list[str], body: list[str], count: int) -> Callable:
    """A compiled loop over images in which `count` sums s0, s1, … stay in registers.

    The body is written out term by term, each input number read once and used for several sums: numba does not unroll such a
    loop, and with a loop inside the one over images nothing is vectorised.
    """
    lines = [
        f"def {name}({arguments}):",
        *(f"    {line}" for line in starts),
        "    for lane in range(lanes):",
        "        i = U(lane)",
        *(f"        s{each} = sums[U({each * LANES}) + i]" for each in range(count)),
        *(f"        {line}" for line in body),
        *(f"        sums[U({each * LANES}) + i] = s{each}" for each in range(count)),
    ]
    names: dict[str, Any] = {"__name__": __name__, "U": _U}
    exec(compile("\n".join(lines), __file__, "exec"), names)  # with a file of its own numba can keep what it compiled
    return njit(**COMPILE)(names[name])


def linear(x: np.ndarray, weights: np.ndarray, bias: np.ndarray, activation: str, out: np.ndarray) -> None:
    """A linear layer, out = activation(weights·x + bias): x (inputs, n), weights (outputs, inputs), out (outputs, n), all float32.

    `activation`: tanh, relu, or anything else for none.
    """
    weights, bias = _filled_up(weights, ROWS), _filled_up(bias, ROWS)
    _linear(x.reshape(-1), weights.reshape(-1), bias, activation == "tanh", activation == "relu", out)


_accumulate_many, _accumulate_one = _accumulate_linear(TAPS), _accumulate_linear(1)


@njit(**COMPILE)
def _linear(x: np.ndarray, weights: np.ndarray, bias: np.ndarray, tanh: bool, relu: bool, out: np.ndarray) -> None:
    outputs, n = out.shape
    inputs = len(weights) // len(bias)
    sums = np.empty((ROWS, LANES), np.float32)
    flat = sums.reshape(sums.size)
    for first in range(0, n, LANES):
        lanes = min(LANES, n - first)
        for row in range(0, outputs, ROWS):
            for r in range(ROWS):
                sums[r] = bias[row + r]
            at = 0
            while at < inputs:
                if at + TAPS <= inputs:
                    _accumulate_many(flat, x, _U(at * n + first), _U(n), weights, _U(row * inputs + at), _U(inputs), lanes)
                    at += TAPS
                else:
                    _accumulate_one(flat, x, _U(at * n + first), _U(n), weights, _U(row * inputs + at), _U(inputs), lanes)
                    at += 1
            for r in range(min(ROWS, outputs - row)):
                y, result = sums[r], out[row + r, first : first + lanes]
                if tanh:
                    for i in range(lanes):
                        result[i] = _tanh(y[i])
                elif relu:
                    for i in range(lanes):
                        result[i] = max(y[i], _ZERO)
                else:
                    result[:] = y[:lanes]


@njit(cache=True, nogil=True)
def tally(logits: np.ndarray, labels: np.ndarray, margins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correct images, int64 (variants,), of logits (variants, classes, n), and which are too close to call, bool (variants, n).

    An image is too close to call, and not counted, if the logit of its class and the highest other differ by less than the margin of
    its variant, float64 (variants,).
    """
    variants, classes, n = logits.shape
    correct, close = np.zeros(variants, np.int64), np.zeros((variants, n), np.bool_)
    own, highest = np.empty(n, np.float32), np.empty(n, np.float32)
    for variant in range(variants):
        highest[:], margin = -np.inf, margins[variant]
        for each in range(classes):
            row = logits[variant, each]
            for image in range(n):
                mine = labels[image] == each
                own[image] = row[image] if mine else own[image]
                above = row[image] > highest[image] or row[image] != row[image]  # NaN is above all, as in argmax
                highest[image] = row[image] if not mine and above else highest[image]
        for image in range(n):
            gap = own[image] - highest[image]
            correct[variant] += gap >= margin
            close[variant, image] = not (gap >= margin or gap <= -margin)  # NaN is close too
    return correct, close
