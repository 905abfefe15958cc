"""Compiled inner loops of the evaluation engine.

Stock CPU kernels are slow at what LeNet-5 spends its time on: convolutions of few channels, tanh and 2x2 means over large feature
maps. Here activations lie in memory with the images last, (channels, height, width, images), so that every operation runs over
neighbouring numbers whatever the shape of the map. Results differ from torch's in the last bits; `evaluation` sees to it that no
count does.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from numba import njit

LANES = 512  # images that a convolution takes at a time
COMPILE = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
_U = np.uintp  # an index that cannot be negative: numba then leaves out the test for it, and LLVM vectorises

# tanh(x) ~ x·P(x²)/Q(x²), fitted to tanh on |x| <= 7.9 by reweighted least squares; error below 3e-7 in float32 arithmetic
_LIMIT, _QUARTER, _ZERO = np.float32(7.9), np.float32(0.25), np.float32(0)
_P0, _P1, _P2, _P3, _P4 = map(np.float32, (1, 0.13444452, 0.00357169588, 2.19034173e-05, 1.52596833e-08))
_Q0, _Q1, _Q2, _Q3, _Q4 = map(np.float32, (1, 0.467777729, 0.0261644125, 0.000341174309, 8.53054814e-07))


@njit(inline="always", error_model="numpy")
def _tanh(x):
    x = min(max(x, -_LIMIT), _LIMIT)
    t = x * x
    return x * (_P0 + t * (_P1 + t * (_P2 + t * (_P3 + t * _P4)))) / (_Q0 + t * (_Q1 + t * (_Q2 + t * (_Q3 + t * _Q4))))


@njit(**COMPILE)
def tanh_in_place(y):
    """tanh of every number of y, float32 (n,)."""
    for i in range(len(y)):
        y[i] = _tanh(y[i])


@cache
def convolution(rows: int, columns: int) -> Callable:
    """A compiled convolution of kernels (rows, columns), stride 1, no padding, with tanh or ReLU and the mean over 2x2 windows.

    Called with x float32, flat (in·height·width·n); height; width; weights, flat (out·in·rows·columns) with out even; bias (out,);
    whether tanh; and the result, written in place, (channels, h, w, n) with channels = out or out - 1.
    """
    taps = rows * columns
    accumulate = _accumulate(rows, columns)

    @njit(**COMPILE)
    def convolve_activate_and_halve(x, height, width, weights, bias, tanh, out):
        channels, h, w, n = out.shape
        inputs = len(weights) // (len(bias) * taps)
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
                            one, other = (channel * inputs + each) * taps, ((channel + 1) * inputs + each) * taps
                            accumulate(flat, x, _U(corner), _U(width * n), _U(n), weights, _U(one), _U(other), lanes)
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

    return convolve_activate_and_halve


def _accumulate(rows: int, columns: int) -> Callable:
    """The products of one input channel under two kernels, at the four places of a 2x2 window, added to `sums`, flat (8·LANES).

    The function is written out here, input number by input number, each read once and used up to eight times: numba does not
    unroll such a loop, and with a loop inside the one over images nothing is vectorised.
    """
    lines = [
        f"def accumulate_{rows}x{columns}(sums, x, corner, row, step, w, one, other, lanes):",
        "    for lane in range(lanes):",
        "        i = U(lane)",
        *(f"        s{each} = sums[U({each * LANES}) + i]" for each in range(8)),
    ]
    for y in range(rows + 1):
        for z in range(columns + 1):
            lines.append(f"        v = x[corner + U({y}) * row + U({z}) * step + i]")
            for place, (down, right) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
                if 0 <= y - down < rows and 0 <= z - right < columns:
                    tap = (y - down) * columns + z - right
                    lines.append(f"        s{place} += w[one + U({tap})] * v")
                    lines.append(f"        s{4 + place} += w[other + U({tap})] * v")
    lines += [f"        sums[U({each * LANES}) + i] = s{each}" for each in range(8)]
    names = {"__name__": __name__, "U": _U}
    exec(compile("\n".join(lines), __file__, "exec"), names)  # with a file of its own numba can keep what it compiled
    return njit(**COMPILE)(names[f"accumulate_{rows}x{columns}"])


@njit(cache=True, nogil=True)
def tally(logits, labels, margin):
    """Correct images, int64 (variants,), of logits (n, variants, classes), and which images are too close to call, bool (variants, n).

    An image is too close to call, and not counted, if the logit of its class and the highest other differ by less than `margin`.
    """
    n, variants, classes = logits.shape
    correct, close = np.zeros(variants, np.int64), np.zeros((variants, n), np.bool_)
    for image in range(n):
        label = labels[image]
        for variant in range(variants):
            row, highest = logits[image, variant], -np.inf
            for other in range(classes):
                if other != label and row[other] > highest:
                    highest = row[other]
            gap = row[label] - highest
            if gap >= margin:
                correct[variant] += 1
            elif not gap <= -margin:  # NaN is close too
                close[variant, image] = True
    return correct, close
