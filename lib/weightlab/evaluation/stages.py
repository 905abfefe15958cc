"""One stage of a network under many variants of its weights.

A stage has fast kernels for modules whose every option it knows; its maker compares them with the module itself (`agrees`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from weightlab import backend, models
from weightlab.compression import contract
from weightlab.errors import UserError, in_a_line
from weightlab.evaluation import kernels
from weightlab.networks import answers, sequences

LARGEST_KERNEL = 49  # weights; a compiled convolution grows with them
ACTIVATIONS = {nn.Tanh: "tanh", nn.ReLU: "relu"}  # those of compiled kernels
# Modules that treat every channel alike, so that variants may be concatenated as channels; subclasses are not included.
PER_CHANNEL = {
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
}


Variant = tuple[contract.Replacement, ...]  # of a stage: the replacement of each of its layers


class Stage:
    """A module with the names of its shareable weights, called with activations and variants of those weights.

    `shape` is that of an image's input; `images_last` says whether inputs on a CPU are laid out with the images last. Without
    `fast` the module itself does all the work. If modules replace its layers, a method's `own` stage computes them, if it has one.
    """

    def __init__(
        self,
        module: nn.Module,
        weights: tuple[str, ...],
        shape: torch.Size,
        images_last: bool = False,
        fast: bool = True,
        own: contract.Stage | None = None,
    ):
        self.module, self.weights, self._own = module, weights, own
        parts = sequences.flat([module])
        self.layer: Any = parts[0]  # that a convolution or a linear layer has a weight, torch does not type
        self.tail = [part for part in parts[1:] if type(part) not in (nn.Dropout, nn.Identity)]
        convolution = type(self.layer) is nn.Conv2d and self.layer.groups == 1 and self.layer.padding_mode == "zeros"
        flat = type(self.layer) is nn.Linear and len(shape) == 1
        self.linear = flat or (convolution and _covers(self.layer, shape))
        known = all(type(part) in PER_CHANNEL for part in self.tail) and all(map(sequences.is_bare, parts))
        self.one_layer = fast and len(weights) == 1 and (self.linear or convolution) and known
        self.activation = ACTIVATIONS.get(type(self.tail[0]), "") if self.tail else ""
        # Whether a compiled kernel does this stage on a CPU; its output then lies images last too.
        self.compiled = self.one_layer and images_last and self._has_kernel()
        # Whether the module may write into its input; these two do not.
        self.careful = not (type(self.layer) in (nn.Conv2d, nn.Linear) and sequences.is_bare(self.layer))

    def _has_kernel(self) -> bool:
        rest = self.tail[1:] if self.activation else self.tail
        if self.linear:
            return all(type(part) is nn.Flatten for part in rest)
        return bool(self.activation) and _halves(self.layer, rest)

    def agrees(self, x: torch.Tensor, variants: list[Variant]) -> bool:
        """Whether the fast kernels give the module's outputs for activations x (n, ...), by `answers.alike`."""
        if not self.one_layer:
            return True
        expected = [self._call(x, variant) for variant in variants]
        try:
            outs = [self.output(x, variant, each.shape[1:]) for variant, each in zip(variants, expected, strict=True)]
            if expected[0].ndim == 2:
                outs += torch.from_numpy(self.logits(self._laid_out(x), variants)).movedim(-1, 1)
        except Exception:  # a failure is a disagreement
            return False
        return all(answers.alike(out.cpu(), expected[i % len(expected)].cpu()) for i, out in enumerate(outs))

    def output(self, x: torch.Tensor, variant: Variant, shape: torch.Size) -> torch.Tensor:
        """The output of a call for activations x (n, ...) in any layout, of a `shape` for each image."""
        out = self.empty(len(x), shape, x.device)
        self(self._laid_out(x), [variant], [out])
        return out

    def _laid_out(self, x: torch.Tensor) -> torch.Tensor:
        return images_last(x) if self.compiled and not x.is_cuda else x

    def inside_bytes(self, x: torch.Tensor, variant: Variant) -> int:
        """Bytes of an image's largest tensor inside, given some activations x (n, ...): a compiled kernel writes its output only."""
        inside = 0 if self.compiled and not x.is_cuda else answers.inside_bytes(self.module, lambda: self._call(x[:1], variant))
        return inside // 2  # one image goes in twice

    def empty(self, n: int, shape: torch.Size, device: torch.device) -> torch.Tensor:
        """Memory for an output float32 (n, *shape), laid out as this stage writes it."""
        if self.compiled and device.type == "cpu":
            return torch.empty(*shape, n).movedim(-1, 0)
        return torch.empty(n, *shape, device=device)

    def __call__(self, x: torch.Tensor, variants: list[Variant], outs: list[torch.Tensor]) -> None:
        """Fill `outs`, one (n, ...) for each variant, from activations x (n, ...); a variant gives a tensor for each of `weights`.

        On a GPU variants of one layer run as one product, and so do those of a linear layer without a compiled kernel. A stage of
        several layers runs one variant after the other.
        """
        if any(map(_replaces, variants)):
            for y, out in zip(self._one_by_one(x, variants), outs, strict=True):
                out.copy_(y)
        elif self.compiled and not x.is_cuda:
            for weight, out in zip(_weights(variants), outs, strict=True):
                self._compute(x, weight, self._bias(1), out)
        elif self.one_layer and (self.linear or x.is_cuda):
            for part, out in zip(self._side_by_side(x, variants).chunk(len(variants), dim=1), outs, strict=True):
                out.copy_(part)
        else:
            for variant, out in zip(variants, outs, strict=True):
                out.copy_(self._call(x, variant))

    def logits(self, x: torch.Tensor, variants: list[Variant]) -> np.ndarray:
        """As a call, for the last stage: float32 (variants, classes, n)."""
        if any(map(_replaces, variants)):
            return torch.stack([y.t() for y in self._one_by_one(x, variants)]).cpu().numpy()
        if self.one_layer and self.linear and not self.tail:
            if self.compiled and not x.is_cuda:
                weight = torch.cat(_weights(variants))
                y = self.empty(len(x), weight.shape[:1], x.device)
                self._compute(x, weight, self._bias(len(variants)), y)
            else:
                y = self._side_by_side(x, variants).flatten(1)
            return y.t().contiguous().cpu().numpy().reshape(len(variants), -1, len(x))
        return torch.stack([self._call(x, variant).t() for variant in variants]).cpu().numpy()

    def _one_by_one(self, x: torch.Tensor, variants: list[Variant]) -> list[torch.Tensor]:
        """Outputs for variants of which some replace layers by modules, (n, ...) each."""
        own = {i: variant for i, variant in enumerate(variants) if _all_modules(variant)}
        together = dict(zip(own, self._own(x, list(own.values())), strict=True)) if self._own and own else {}
        return [together[i] if i in together else self._call(x, variant) for i, variant in enumerate(variants)]

    def _call(self, x: torch.Tensor, variant: Variant) -> torch.Tensor:
        """The module itself, under one variant; like the whole network, it gets a single image twice."""
        n, replacements = len(x), dict(zip(self.weights, variant, strict=True))
        x = torch.cat([x, x]) if n == 1 else x.clone() if self.careful or _replaces(variant) else x
        weights = {name: each for name, each in replacements.items() if isinstance(each, torch.Tensor)}
        modules = {
            name.removesuffix("weight").removesuffix("."): each
            for name, each in replacements.items()
            if isinstance(each, nn.Module)
        }
        if "" in modules:  # the module is the layer itself
            return modules[""](x)[:n]
        with contract.replaced(self.module, modules):
            return torch.func.functional_call(self.module, weights, (x,))[:n]

    def _compute(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, out: torch.Tensor) -> None:
        """The stage on a CPU, compiled; x and out are laid out with the images last."""
        x, out = x.movedim(0, -1), out.movedim(0, -1)
        if self.linear:
            x, weight, out = x.flatten(0, -2), weight.flatten(1), out.flatten(0, -2)  # views: images last, they are contiguous
        compute = kernels.linear if self.linear else kernels.convolve
        compute(x.numpy(), weight.numpy(), bias.numpy(), self.activation, out.numpy())

    def _bias(self, variants: int) -> torch.Tensor:
        """The bias of the layer, zero if it has none, repeated for all variants."""
        outputs = self.layer.weight.shape[0]
        return (self.layer.weight.new_zeros(outputs) if self.layer.bias is None else self.layer.bias).repeat(variants)

    def _side_by_side(self, x: torch.Tensor, variants: list[Variant]) -> torch.Tensor:
        """The stage of one layer under all variants together: (n, variants·channels, ...)."""
        layer, weight, bias = self.layer, torch.cat(_weights(variants)), self._bias(len(variants))
        if isinstance(layer, nn.Linear):
            y = F.linear(x, weight, bias)
        elif self.linear:
            y = F.linear(x.flatten(1), weight.flatten(1), bias)[..., None, None]
        else:
            y = F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation)
        for part in self.tail:
            y = part(y)
        return y


@dataclass(frozen=True)
class Cut:
    """A network as stages.

    For each stage: the layers it holds (columns of a plan), the shape of an image's output, and the bytes of an image's largest
    tensor that its modules write to memory. `why` says why a network that names a sequence is nevertheless a single stage.
    """

    stages: list[Stage]
    columns: list[list[int]]
    shapes: list[torch.Size]
    inside: list[int]
    why: str = ""


def cut(
    model: nn.Module,
    names: Sequence[str],
    images: torch.Tensor,
    others: Sequence[torch.Tensor],
    own: Callable[[nn.Module, Sequence[int], torch.Size], contract.Stage | None] = lambda module, layers, shape: None,
) -> Cut:
    """Cut a network in evaluation mode into stages, given its layers' names, a few images, float (n, ...), and other weights for them.

    `own` is the `stage` of a method that replaces operations.

    A stage uses its fast kernels only if they agree with its module on these images, with its weights and with the others.
    If the stages in order do not give the network's answers, or several use one weight, the whole network is one stage.
    """
    originals = [models.weight(model, name) for name in names]
    with answers.probing(), backend.threads(1):
        try:
            result = _in_sequence(model, originals, images, others, own)
        except UserError:
            raise
        except Exception as error:  # modules of a user's own, called one by one
            result = f"its modules cannot be called one after the other ({in_a_line(error)})"
        return result if isinstance(result, Cut) else whole(model, names, images, result)


def whole(model: nn.Module, names: Sequence[str], images: torch.Tensor, why: str) -> Cut:
    """A network as a single stage that its modules compute."""
    originals = tuple(models.weight(model, name) for name in names)
    stage = Stage(model, tuple(f"{name}.weight" for name in names), images.shape[1:], fast=False)
    with answers.probing():
        shape = answers.forward(model, images.clone()).shape[1:]
    return Cut([stage], [list(range(len(names)))], [shape], [stage.inside_bytes(images, originals)], why)


def _in_sequence(
    model: nn.Module, originals: Sequence[torch.Tensor], images: torch.Tensor, others: Sequence[torch.Tensor], own: Callable
) -> Cut | str:
    """The stages of a network, or why there are none: "" if it names no sequence, or no cut is safe."""
    modules, result = sequences.stages(model), Cut([], [], [], [])
    column = {id(weight): place for place, weight in enumerate(originals)}
    inside = [{name: column[id(value)] for name, value in module.named_parameters() if id(value) in column} for module in modules]
    if len(modules) == 1 or sorted(each for columns in inside for each in columns.values()) != list(range(len(originals))):
        return ""
    expected, x = answers.forward(model, images.clone()), images
    for module, columns in zip(modules, inside, strict=True):
        variants: list[Variant] = [tuple(weights[place] for place in columns.values()) for weights in (originals, others)]
        arguments = module, tuple(columns), x.shape[1:]
        ours = own(module, list(columns.values()), x.shape[1:]) if columns else None
        stage = Stage(*arguments, images_last=all(each.compiled for each in result.stages), own=ours)
        if not stage.agrees(x, variants):
            stage = Stage(*arguments, fast=False, own=ours)
        y = module(x.clone())
        if not isinstance(y, torch.Tensor) or y.dtype != torch.float32 or len(y) != len(x):
            got = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, torch.Tensor) else type(y).__name__
            return f"{type(module).__name__} in its sequence gives {got} for {len(x)} images"
        result.stages.append(stage)
        result.columns.append(list(columns.values()))
        result.shapes.append(y.shape[1:])
        result.inside.append(stage.inside_bytes(x, variants[0]))
        x = y
    if x.shape != expected.shape or not answers.alike(x, expected):
        return "the modules of its sequence, called in order, give other answers than the network"
    return result


def _replaces(variant: Variant) -> bool:
    return any(isinstance(each, nn.Module) for each in variant)


def _all_modules(variant: Variant) -> TypeGuard[tuple[nn.Module, ...]]:
    return all(isinstance(each, nn.Module) for each in variant)


def _weights(variants: list[Variant]) -> list[torch.Tensor]:
    """The weights of a stage's one layer, which no module replaces."""
    return [weight for (weight,) in variants if isinstance(weight, torch.Tensor)]


def images_last(x: torch.Tensor) -> torch.Tensor:
    """The same activations (n, ...) with those of different images next to each other in memory; a copy only where they are not."""
    return x.movedim(0, -1).contiguous().movedim(-1, 0)


def _covers(layer: nn.Module, shape: torch.Size) -> bool:
    """Whether a convolution's kernel is as large as its input, which makes it a linear layer."""
    return tuple(shape[1:]) == layer.kernel_size and layer.padding == (0, 0) and layer.dilation == (1, 1)


def _halves(layer: nn.Conv2d, rest: list[nn.Module]) -> bool:
    """Whether the convolution is one the compiled kernel knows, and what follows its activation the mean over 2x2 windows."""
    plain = layer.stride == (1, 1) and layer.padding == (0, 0) and layer.dilation == (1, 1)
    if not plain or np.prod(layer.kernel_size) > LARGEST_KERNEL or len(rest) != 1 or type(rest[0]) is not nn.AvgPool2d:
        return False
    pool, twos = rest[0], (2, (2, 2))
    halving = pool.kernel_size in twos and pool.stride in twos and pool.padding in (0, (0, 0)) and not pool.ceil_mode
    return halving and pool.divisor_override is None
