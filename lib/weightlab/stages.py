"""One stage of a network under many variants of its weights."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from weightlab import kernels

LARGEST_KERNEL = 49  # weights; a compiled convolution grows with them
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
        self.compiled = convolution and _compiled(self.layer, self.tail)  # on a CPU; then activations lie images last

    def empty(self, n: int, shape: torch.Size, device: torch.device) -> torch.Tensor:
        """Memory for an output float32 (n, *shape), laid out as this stage writes it."""
        if self.compiled and device.type == "cpu":
            return torch.empty(*shape, n).movedim(-1, 0)
        return torch.empty(n, *shape, device=device)

    def __call__(self, x: torch.Tensor, variants: list[tuple[torch.Tensor, ...]], outs: list[torch.Tensor]) -> None:
        """Fill `outs`, one (n, ...) for each variant, from activations x (n, ...); a variant gives a tensor for each of `weights`.

        Variants of a linear layer run as one matrix product, on a GPU those of a convolution too; on a CPU a convolution gains
        nothing from that. A stage of several layers runs one variant after the other.
        """
        if not self.one_layer:
            for variant, out in zip(variants, outs, strict=True):
                out.copy_(torch.func.functional_call(self.module, dict(zip(self.weights, variant, strict=True)), (x,)))
        elif self.compiled and x.dtype == torch.float32 and not x.is_cuda:
            for (weight,), out in zip(variants, outs, strict=True):
                self._convolve(x, weight, out)
        elif self._is_linear(x) or x.is_cuda:
            for part, out in zip(self._finish(self._side_by_side(x, variants)).chunk(len(variants), dim=1), outs, strict=True):
                out.copy_(part)
        else:
            for variant, out in zip(variants, outs, strict=True):
                out.copy_(self._finish(self._side_by_side(x, [variant])))

    def logits(self, x: torch.Tensor, variants: list[tuple[torch.Tensor, ...]]) -> torch.Tensor:
        """As a call, for the last stage: (n, variants, classes)."""
        if self.one_layer and not self.tail and isinstance(self.layer, nn.Linear):
            return self._side_by_side(x, variants).view(len(x), len(variants), -1)
        named = [dict(zip(self.weights, variant, strict=True)) for variant in variants]
        return torch.stack([torch.func.functional_call(self.module, weights, (x,)) for weights in named], dim=1)

    def _is_linear(self, x: torch.Tensor) -> bool:
        """Whether the layer is a linear one for this input: a kernel as large as its input is."""
        layer = self.layer
        return isinstance(layer, nn.Linear) or (
            x.shape[2:] == layer.kernel_size and layer.padding == (0, 0) and layer.dilation == (1, 1)
        )

    def _side_by_side(self, x: torch.Tensor, variants: list[tuple[torch.Tensor, ...]]) -> torch.Tensor:
        """The layer under all variants at once: (n, variants·channels, ...)."""
        layer = self.layer
        weight = torch.cat([weight for (weight,) in variants]) if len(variants) > 1 else variants[0][0]
        bias = None if layer.bias is None else layer.bias.repeat(len(variants))
        if isinstance(layer, nn.Linear):
            return F.linear(x, weight, bias)
        if self._is_linear(x):
            return F.linear(x.flatten(1), weight.flatten(1), bias)[..., None, None]
        return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation)

    def _convolve(self, x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
        """The stage on a CPU under one variant, compiled."""
        bias = torch.zeros(len(weight)) if self.layer.bias is None else self.layer.bias
        odd = len(weight) % 2  # channels are taken two by two
        kernels.convolution(*self.layer.kernel_size)(
            images_last(x).movedim(0, -1).reshape(-1).numpy(),
            *x.shape[2:],
            F.pad(weight.reshape(-1), (0, odd * weight[0].numel())).numpy(),
            F.pad(bias, (0, odd)).numpy(),
            isinstance(self.tail[0], nn.Tanh),
            out.movedim(0, -1).numpy(),
        )

    def _finish(self, y: torch.Tensor) -> torch.Tensor:
        """What follows the layer."""
        for part in self.tail:
            if isinstance(part, nn.Tanh) and not y.is_cuda and y.dtype == torch.float32 and y.is_contiguous():
                kernels.tanh_in_place(y.view(-1).numpy())
            else:
                y = part(y)
        return y


def images_last(x: torch.Tensor) -> torch.Tensor:
    """The same activations (n, ...) with those of different images next to each other in memory; a copy only where they are not."""
    return x.movedim(0, -1).contiguous().movedim(-1, 0)


def _compiled(layer: nn.Conv2d, tail: list[nn.Module]) -> bool:
    """Whether a compiled kernel does a convolution with what follows it."""
    plain = layer.stride == (1, 1) and layer.padding == (0, 0) and layer.dilation == (1, 1)
    return (
        plain
        and np.prod(layer.kernel_size) <= LARGEST_KERNEL
        and len(tail) == 2
        and isinstance(tail[0], nn.Tanh | nn.ReLU)
        and _halves(tail[1])
    )


def _halves(part: nn.Module) -> bool:
    """Whether a module is the mean over 2x2 windows."""
    if not isinstance(part, nn.AvgPool2d):
        return False
    return part.kernel_size in (2, (2, 2)) and part.stride in (2, (2, 2)) and part.padding in (0, (0, 0)) and not part.ceil_mode
