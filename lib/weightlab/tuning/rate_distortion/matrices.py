"""Convolution and linear layers as matrices: every output is a row of weights times a column of inputs."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

PART = 1 << 26  # numbers of columns that are copied at a time, unless one group has more


def of(layer: Any, weights: torch.Tensor) -> torch.Tensor:
    """Weights of a layer, in its shape, as matrices (groups, rows, inputs)."""
    if not isinstance(layer, _ConvTransposeNd):
        return weights.reshape(getattr(layer, "groups", 1), -1, math.prod(weights.shape[1:]))
    inward, outward = layer.in_channels // layer.groups, layer.out_channels // layer.groups  # shape (in, out / groups, *kernel)
    kernels = weights.flip(list(range(2, weights.dim()))).reshape(layer.groups, inward, outward, -1)
    return kernels.transpose(1, 2).reshape(layer.groups, outward, -1)


def back(layer: Any, matrices: torch.Tensor) -> torch.Tensor:
    """Matrices that `of` made, in the shape of the layer's weight."""
    shape = layer.weight.shape
    if not isinstance(layer, _ConvTransposeNd):
        return matrices.reshape(shape)
    inward, outward = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    kernels = matrices.reshape(layer.groups, outward, inward, -1).transpose(1, 2).reshape(shape)
    return kernels.flip(list(range(2, len(shape))))


def inputs(layer: Any, x: torch.Tensor, columns: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """At most so many columns that the rows of a layer are multiplied with for inputs x, drawn at random: parts (groups, inputs, columns)."""
    if not isinstance(layer, _ConvNd):
        rows = x.reshape(-1, x.shape[-1])
        yield rows[_drawn(len(rows), columns, generator)].T[None]
        return
    axes = len(layer.kernel_size)
    x = _padded(layer, x if x.dim() == 2 + axes else x[None])
    stride = (1,) * axes if isinstance(layer, _ConvTransposeNd) else layer.stride
    for axis, (size, dilation) in enumerate(zip(layer.kernel_size, layer.dilation, strict=True)):
        x = x.unfold(2 + axis, dilation * (size - 1) + 1, stride[axis])[..., ::dilation]
    images, channels, *places = x.shape[: 2 + axes]
    drawn = np.unravel_index(_drawn(images * math.prod(places), columns, generator).numpy(), (images, *places))
    image, *place = (torch.from_numpy(each) for each in drawn)
    of_one = channels // layer.groups * math.prod(layer.kernel_size) * len(image)
    groups = max(1, PART // of_one)
    for part in x.split(groups * channels // layer.groups, dim=1):
        patches = part.movedim(1, 1 + axes)[(image, *place)]  # (columns, channels, *kernel): only these are copied
        yield patches.reshape(len(image), part.shape[1] * layer.groups // channels, -1).permute(1, 2, 0)


def _padded(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """The input with its padding; of a transposed convolution, with zeros between as well, so that it becomes a plain one."""
    if isinstance(layer, _ConvTransposeNd):
        sides: list[int] = []
        for axis, step in enumerate(layer.stride):
            apart = x.new_zeros(*x.shape[: 2 + axis], (x.shape[2 + axis] - 1) * step + 1, *x.shape[3 + axis :])
            apart.movedim(2 + axis, 0)[::step] = x.movedim(2 + axis, 0)
            x, side = apart, layer.dilation[axis] * (layer.kernel_size[axis] - 1) - int(layer.padding[axis])
            sides = [side, side + layer.output_padding[axis], *sides]  # the last axis comes first
        return functional.pad(x, sides)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return functional.pad(x, layer._reversed_padding_repeated_twice, mode)


def _drawn(n: int, most: int, generator: torch.Generator) -> torch.Tensor:
    return torch.arange(n) if n <= most else torch.randperm(n, generator=generator)[:most]
