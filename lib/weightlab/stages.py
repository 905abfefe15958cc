"""One stage of a network under many variants of its weights."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from weightlab import kernels

LARGEST_KERNEL = 49  # weights; a compiled convolution grows with them
ACTIVATIONS = {nn.Tanh: "tanh", nn.ReLU: "relu"}  # those that compiled kernels know
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
    """A module with the names of its shareable weights, called with activations and variants of those weights.

    `shape` is that of an image's input; `images_last` says whether inputs on a CPU lie in memory with the images last.
    """

    def __init__(self, module: nn.Module, weights: tuple[str, ...], shape: torch.Size, images_last: bool):
        self.module, self.weights = module, weights
        parts = list(module) if isinstance(module, nn.Sequential) else [module]
        self.layer, self.tail = parts[0], [part for part in parts[1:] if not isinstance(part, nn.Dropout | nn.Identity)]
        convolution = isinstance(self.layer, nn.Conv2d) and self.layer.groups == 1 and self.layer.padding_mode == "zeros"
        flat = isinstance(self.layer, nn.Linear) and len(shape) == 1
        self.linear = flat or (convolution and _covers(self.layer, shape))
        self.one_layer = (
            len(weights) == 1 and (self.linear or convolution) and all(isinstance(part, PER_CHANNEL) for part in self.tail)
        )
        self.activation = ACTIVATIONS.get(type(self.tail[0]), "") if self.tail else ""
        rest = self.tail[1:] if self.activation else self.tail
        halving = not self.linear and self.activation and _halves(self.layer, rest)
        ending = self.linear and all(isinstance(part, nn.Flatten) for part in rest)
        # Whether a compiled kernel does this stage on a CPU; its output then lies images last too.
        self.compiled = bool(self.one_layer and images_last and (halving or ending))

    def empty(self, n: int, shape: torch.Size, device: torch.device) -> torch.Tensor:
        """Memory for an output float32 (n, *shape), laid out as this stage writes it."""
        if self.compiled and device.type == "cpu":
            return torch.empty(*shape, n).movedim(-1, 0)
        return torch.empty(n, *shape, device=device)

    def __call__(self, x: torch.Tensor, variants: list[tuple[torch.Tensor, ...]], outs: list[torch.Tensor]) -> None:
        """Fill `outs`, one (n, ...) for each variant, from activations x (n, ...); a variant gives a tensor for each of `weights`.

        On a GPU variants of one layer run as one product, and so do those of a linear layer without a compiled kernel. A stage of
        several layers runs one variant after the other.
        """
        if self.compiled and not x.is_cuda:
            for (weight,), out in zip(variants, outs, strict=True):
                self._compute(x, weight, self._bias(1), out)
        elif self.one_layer and (self.linear or x.is_cuda):
            for part, out in zip(self._side_by_side(x, variants).chunk(len(variants), dim=1), outs, strict=True):
                out.copy_(part)
        else:
            for variant, out in zip(variants, outs, strict=True):
                out.copy_(self._call(x, variant))

    def logits(self, x: torch.Tensor, variants: list[tuple[torch.Tensor, ...]]) -> np.ndarray:
        """As a call, for the last stage: float32 (variants, classes, n)."""
        if self.linear and not self.tail:
            if self.compiled and not x.is_cuda:
                weight = torch.cat([weight for (weight,) in variants])
                y = self.empty(len(x), weight.shape[:1], x.device)
                self._compute(x, weight, self._bias(len(variants)), y)
            else:
                y = self._side_by_side(x, variants).flatten(1)
            return y.t().contiguous().cpu().numpy().reshape(len(variants), -1, len(x))
        return torch.stack([self._call(x, variant).t() for variant in variants]).cpu().numpy()

    def _call(self, x: torch.Tensor, variant: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """The module as it is, under one variant."""
        return torch.func.functional_call(self.module, dict(zip(self.weights, variant, strict=True)), (x,))

    def _compute(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, out: torch.Tensor) -> None:
        """The stage on a CPU, compiled; x and out lie images last."""
        x, weight, bias, out = x.movedim(0, -1).numpy(), weight.numpy(), bias.numpy(), out.movedim(0, -1).numpy()
        if self.linear:
            kernels.linear(x.reshape(-1, x.shape[-1]), weight.reshape(len(weight), -1), bias, self.activation, out)
        else:
            kernels.convolve(x, weight, bias, self.activation, out)

    def _bias(self, variants: int) -> torch.Tensor:
        """The bias of the layer, zero where it has none, as often as there are variants."""
        outputs = self.layer.weight.shape[0]
        return (self.layer.weight.new_zeros(outputs) if self.layer.bias is None else self.layer.bias).repeat(variants)

    def _side_by_side(self, x: torch.Tensor, variants: list[tuple[torch.Tensor, ...]]) -> torch.Tensor:
        """The stage of one layer under all variants at once: (n, variants·channels, ...)."""
        layer, weight, bias = self.layer, torch.cat([weight for (weight,) in variants]), self._bias(len(variants))
        if isinstance(layer, nn.Linear):
            y = F.linear(x, weight, bias)
        elif self.linear:
            y = F.linear(x.flatten(1), weight.flatten(1), bias)[..., None, None]
        else:
            y = F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation)
        for part in self.tail:
            y = part(y)
        return y


def images_last(x: torch.Tensor) -> torch.Tensor:
    """The same activations (n, ...) with those of different images next to each other in memory; a copy only where they are not."""
    return x.movedim(0, -1).contiguous().movedim(-1, 0)


def _covers(layer: nn.Conv2d, shape: torch.Size) -> bool:
    """Whether a convolution's kernel is as large as its input, which makes it a linear layer."""
    return shape[1:] == layer.kernel_size and layer.padding == (0, 0) and layer.dilation == (1, 1)


def _halves(layer: nn.Conv2d, rest: list[nn.Module]) -> bool:
    """Whether the convolution is one the compiled kernel knows, and what follows its activation the mean over 2x2 windows."""
    plain = layer.stride == (1, 1) and layer.padding == (0, 0) and layer.dilation == (1, 1)
    if not plain or np.prod(layer.kernel_size) > LARGEST_KERNEL or len(rest) != 1 or not isinstance(rest[0], nn.AvgPool2d):
        return False
    pool = rest[0]
    return pool.kernel_size in (2, (2, 2)) and pool.stride in (2, (2, 2)) and pool.padding in (0, (0, 0)) and not pool.ceil_mode
