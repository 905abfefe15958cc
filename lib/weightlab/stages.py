"""One stage of a network under many variants of its weights: the inner loops of the evaluation engine.

Stock CPU kernels are slow at what LeNet-5 spends its time on, a tanh and a 2x2 mean over large feature maps, so that pair is one
compiled loop here. Its results differ from torch's in the last bits; `evaluation` sees to it that no count does.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import nn

PIECE = 64  # images a convolution takes at a time on a CPU: its output is still in cache when it is pooled
TAPS = 5  # weights of a kernel that one pass over an image applies
# Modules that treat every channel alike, so that variants may stand side by side as channels.
PER_CHANNEL = (
    nn.Tanh,
    nn.ReLU,
    nn.ReLU6,
    nn.Sigmoid,
    nn.AvgPool2d,
    nn.MaxPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
    nn.Dropout,
    nn.Identity,
)


class Stage:
    """A module with the names of its shareable weights, called with activations and variants of those weights."""

    def __init__(self, module: nn.Module, weights: tuple[str, ...]):
        self.module, self.weights = module, weights
        parts = list(module) if isinstance(module, nn.Sequential) else [module]
        self.layer, self.tail = parts[0], parts[1:]
        linear = isinstance(self.layer, nn.Linear)
        convolution = isinstance(self.layer, nn.Conv2d) and self.layer.groups == 1 and self.layer.padding_mode == "zeros"
        self.one_layer = (
            len(weights) == 1 and (linear or convolution) and all(isinstance(part, PER_CHANNEL) for part in self.tail)
        )
        self.fused = convolution and len(self.tail) == 2 and isinstance(self.tail[0], nn.Tanh | nn.ReLU) and _halves(self.tail[1])

    def __call__(self, x: torch.Tensor, variants: list[tuple[torch.Tensor, ...]]) -> list[torch.Tensor]:
        """Outputs, one (n, ...) for each variant, of activations x (n, ...); a variant gives a tensor for each of `weights`.

        Variants of a linear layer run as one matrix product, on a GPU those of a convolution too; on a CPU a convolution gains
        nothing from that. A stage of several layers runs one variant after the other.
        """
        if not self.one_layer:
            named = [dict(zip(self.weights, variant, strict=True)) for variant in variants]
            return [torch.func.functional_call(self.module, weights, (x,)) for weights in named]
        if self._is_linear(x) or x.is_cuda:
            y = self._finish(self._side_by_side(x, variants))
            return [part.contiguous() for part in y.chunk(len(variants), dim=1)]
        return [self._convolve(x, weight) for (weight,) in variants]

    def logits(self, x: torch.Tensor, variants: list[tuple[torch.Tensor, ...]]) -> torch.Tensor:
        """As a call, for the last stage: (n, variants, classes)."""
        if self.one_layer and not self.tail and isinstance(self.layer, nn.Linear):
            return self._side_by_side(x, variants).view(len(x), len(variants), -1)
        return torch.stack(self(x, variants), dim=1)

    def _is_linear(self, x: torch.Tensor) -> bool:
        """Whether the layer is a linear one for this input: a kernel as large as its input is."""
        layer = self.layer
        return isinstance(layer, nn.Linear) or (
            x.shape[2:] == layer.kernel_size and layer.padding == (0, 0) and layer.dilation == (1, 1)
        )

    def _side_by_side(self, x: torch.Tensor, variants: list[tuple[torch.Tensor, ...]]) -> torch.Tensor:
        """The layer under all variants at once: (n, variants·channels, ...)."""
        layer, weight = self.layer, torch.cat([weight for (weight,) in variants])
        bias = None if layer.bias is None else layer.bias.repeat(len(variants))
        if isinstance(layer, nn.Linear):
            return F.linear(x, weight, bias)
        if self._is_linear(x):
            return F.linear(x.flatten(1), weight.flatten(1), bias)[..., None, None]
        return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation)

    def _convolve(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The stage on a CPU under one variant, a few images at a time."""
        layer, pieces = self.layer, []
        tanh = self.fused and isinstance(self.tail[0], nn.Tanh)
        if (
            self.fused
            and weight.shape[1] == 1
            and layer.stride == (1, 1)
            and layer.padding == (0, 0)
            and x.dtype == torch.float32
        ):
            return self._one_channel(x, weight, tanh)
        weight = weight.contiguous(memory_format=torch.channels_last)
        for images in x.contiguous(memory_format=torch.channels_last).split(PIECE):
            y = F.conv2d(images, weight, layer.bias, layer.stride, layer.padding, layer.dilation)
            if self.fused and y.dtype == torch.float32:
                halved = torch.empty(*y.shape[:2], y.shape[2] // 2, y.shape[3] // 2)
                _activate_and_halve(y.permute(0, 2, 3, 1).contiguous().numpy(), tanh, halved.numpy())
                pieces.append(halved)
            else:
                pieces.append(self._finish(y))
        return torch.cat(pieces)

    def _one_channel(self, x: torch.Tensor, weight: torch.Tensor, tanh: bool) -> torch.Tensor:
        """A convolution of one input channel, stride 1, with its activation and halving."""
        channels, (rows, columns), (row_step, column_step) = len(weight), weight.shape[2:], self.layer.dilation
        height, width = x.shape[2:]
        taps = np.add.outer(np.arange(rows) * row_step * width, np.arange(columns) * column_step).ravel()
        padding = -len(taps) % TAPS
        bias = self.layer.bias if self.layer.bias is not None else torch.zeros(channels)
        shape = len(x), channels, (height - row_step * (rows - 1)) // 2, (width - column_step * (columns - 1)) // 2
        halved = torch.empty(shape, memory_format=torch.channels_last)  # as the next convolution likes it
        weights = F.pad(weight.reshape(channels, -1), (0, padding))
        _convolve_activate_and_halve(
            x.reshape(len(x), -1).numpy(), np.pad(taps, (0, padding)), weights.numpy(), bias.numpy(), width, tanh, halved.numpy()
        )
        return halved

    def _finish(self, y: torch.Tensor) -> torch.Tensor:
        """What follows the layer."""
        for part in self.tail:
            if isinstance(part, nn.Tanh) and not y.is_cuda and y.dtype == torch.float32 and y.is_contiguous():
                _tanh_in_place(y.view(-1).numpy())
            else:
                y = part(y)
        return y


def _halves(part: nn.Module) -> bool:
    """Whether a module is the mean over 2x2 windows."""
    if not isinstance(part, nn.AvgPool2d):
        return False
    return part.kernel_size in (2, (2, 2)) and part.stride in (2, (2, 2)) and part.padding in (0, (0, 0)) and not part.ceil_mode


# tanh(x) ~ x·P(x²)/Q(x²), fitted to tanh on |x| <= 7.9 by reweighted least squares; error below 3e-7 in float32 arithmetic
_LIMIT, _QUARTER, _ZERO = np.float32(7.9), np.float32(0.25), np.float32(0)
_P0, _P1, _P2, _P3, _P4 = map(np.float32, (1, 0.13444452, 0.00357169588, 2.19034173e-05, 1.52596833e-08))
_Q0, _Q1, _Q2, _Q3, _Q4 = map(np.float32, (1, 0.467777729, 0.0261644125, 0.000341174309, 8.53054814e-07))


@njit(inline="always", error_model="numpy")
def _tanh(x):
    x = min(max(x, -_LIMIT), _LIMIT)
    t = x * x
    return x * (_P0 + t * (_P1 + t * (_P2 + t * (_P3 + t * _P4)))) / (_Q0 + t * (_Q1 + t * (_Q2 + t * (_Q3 + t * _Q4))))


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _tanh_in_place(y):
    for i in range(len(y)):
        y[i] = _tanh(y[i])


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _activate_and_halve(y, tanh, out):
    """y (n, h, w, channels), overwritten, through tanh or ReLU and the mean over 2x2 windows, into out (n, channels, h/2, w/2)."""
    flat = y.reshape(y.size)
    if tanh:
        for i in range(len(flat)):
            flat[i] = _tanh(flat[i])
    else:
        for i in range(len(flat)):
            flat[i] = max(flat[i], _ZERO)
    for image in range(len(out)):
        for row in range(out.shape[2]):
            for column in range(out.shape[3]):
                above, below = y[image, 2 * row], y[image, 2 * row + 1]
                for channel in range(out.shape[1]):
                    left, right = above[2 * column, channel] + below[2 * column, channel], above[2 * column + 1, channel]
                    out[image, channel, row, column] = _QUARTER * (left + (right + below[2 * column + 1, channel]))


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _convolve_activate_and_halve(x, taps, weights, bias, width, tanh, out):
    """x (n, height·width) convolved with weights (channels, taps), activated, and halved into out (n, channels, h/2, w/2).

    `taps` are the places of the kernel's weights in an image, flat; the output is made at the width of the input, in one long loop
    for every five taps, and what hangs over at the right is not read.
    """
    n, channels, rows, columns = out.shape
    length = (2 * rows - 1) * width + 2 * columns
    plane = np.empty(length, np.float32)
    for image in range(n):
        for channel in range(channels):
            for i in range(length):
                plane[i] = bias[channel]
            for tap in range(0, len(taps), 5):
                a, b, c, d, e = weights[channel, tap : tap + 5]
                p = x[image, taps[tap] : taps[tap] + length]
                q = x[image, taps[tap + 1] : taps[tap + 1] + length]
                r = x[image, taps[tap + 2] : taps[tap + 2] + length]
                s = x[image, taps[tap + 3] : taps[tap + 3] + length]
                t = x[image, taps[tap + 4] : taps[tap + 4] + length]
                for i in range(length):
                    plane[i] += (a * p[i] + b * q[i]) + (c * r[i] + d * s[i]) + e * t[i]
            if tanh:
                for i in range(length):
                    plane[i] = _tanh(plane[i])
            else:
                for i in range(length):
                    plane[i] = max(plane[i], _ZERO)
            for row in range(rows):
                for column in range(columns):
                    i = 2 * row * width + 2 * column
                    mean = _QUARTER * ((plane[i] + plane[i + 1]) + (plane[i + width] + plane[i + width + 1]))
                    out[image, channel, row, column] = mean


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
