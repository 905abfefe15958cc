"""Approximate multipliers as a method: the variants of a convolution are the multipliers of a library."""

from collections import Counter
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import nn

from weightlab import formats, models
from weightlab.compression import contract
from weightlab.compression.contract import Stored
from weightlab.compression.multipliers.layer import ApproximateConv2d
from weightlab.compression.multipliers.tables import Library
from weightlab.errors import UserError
from weightlab.formats import Affine
from weightlab.networks import own as own_networks
from weightlab.networks import sequences

CHUNK = 100  # calibration images at a time
CODE_BITS, RANGE_BITS = 8, 64  # of a weight; of a layer's lowest weight and step


class Multipliers:
    """A network's convolutions, each a group of its own; variant i of all of them is the i-th multiplier of the library.

    Linear layers stay as they are. Activations have the range that they have in the unchanged network on the calibration images, uint8
    (n, channels, height, width). `tune` and `signed` as in `ApproximateConv2d`. Raises `UserError` for a network without plain 2-d
    convolutions, and for activations that are not finite.
    """

    together = 1000  # images: rows of a table are made anew for each chunk of them

    def __init__(
        self,
        model: nn.Module,
        library: Library,
        images: torch.Tensor,
        tune: bool = False,
        signed: bool = False,
        example: torch.Tensor | None = None,
    ):
        self.library, self.tune, self.signed = library, tune, signed
        self.layers = convolutions(model, images[:1].float() / 255 if example is None else example)
        self._modules = {layer.name: cast(nn.Conv2d, models.copied(model.get_submodule(layer.name))) for layer in self.layers}
        self.ranges, self.multiplications = _calibrate(model, self.names, images)
        self._weights = own_networks.digest(model)
        self._made: dict[tuple[int, int], ApproximateConv2d] = {}

    @property
    def names(self) -> list[str]:
        return [layer.name for layer in self.layers]

    @property
    def groups(self) -> np.ndarray:
        return np.arange(len(self.layers))

    def count(self, group: int) -> int:
        return len(self.library.multipliers)

    def weight(self, layer: int, variant: int) -> ApproximateConv2d:
        if (layer, variant) not in self._made:
            name, multiplier = self.layers[layer].name, self.library.multipliers[variant - 1]
            module = ApproximateConv2d(self._modules[name], multiplier, self.ranges[name], self.tune, self.signed)
            self._made[layer, variant] = module.eval()
        return self._made[layer, variant]

    def bits(self, plans: np.ndarray) -> np.ndarray:
        """Weights are codes of 8 bits, whatever multiplies them."""
        each = [layer.weights * CODE_BITS + RANGE_BITS for layer in self.layers]
        return np.broadcast_to(np.array(each), np.shape(plans)).copy()

    thesis_bits = bits

    def energy(self, plans: np.ndarray) -> np.ndarray:
        """Energy of the multiplications of convolutions per image, relative to exact 8-bit multipliers everywhere, float64 (...,).

        Σ_l N_l·P[x_l] / Σ_l N_l·P[exact]: N_l multiplications of layer l, P the power of a multiplier. All of them run at one clock.
        """
        power = self.library.power_mw / self.library.power_mw[self.library.exact]
        shares = self.multiplications / self.multiplications.sum()
        return (power[np.asarray(plans) - 1] * shares).sum(-1)  # a product of matrices would round by the number of plans

    def describe(self) -> dict:
        ranges = {name: [each.scale, each.zero] for name, each in self.ranges.items()}
        own = {"ranges": ranges, "tune": self.tune, "signed": self.signed, "weights": self._weights}
        return {"library": self.library.describe()} | own

    def stored(self, group: int, variant: int) -> Stored:
        raise UserError("a file holds weights, and multipliers are circuits: a plan of multipliers cannot be packed")

    def in_batches(self, model: nn.Module, plan: Sequence[int]) -> nn.Module:
        """A copy of the network under a plan whose activations have the range of each batch, as in tf-approximate.

        An answer then depends on the other images of its batch, so no evaluator takes it.
        """
        copy = models.copied(model).eval()
        for name, variant in zip(self.names, plan, strict=True):
            multiplier = self.library.multipliers[variant - 1]
            contract.put(copy, name, ApproximateConv2d(self._modules[name], multiplier, None, self.tune, self.signed))
        return copy

    def stage(self, module: nn.Module, layers: Sequence[int], shape: torch.Size) -> "ConvolutionStage | None":
        """Many multipliers in one convolution of a module that calls its parts one after the other; None for any other module."""
        parts = sequences.flat([module])
        places = [place for place, part in enumerate(parts) if isinstance(part, nn.Conv2d)]
        if len(layers) != 1 or len(places) != 1 or not all(map(sequences.is_bare, parts)):
            return None
        return ConvolutionStage(parts[: places[0]], parts[places[0] + 1 :])


class ConvolutionStage:
    """A module with one convolution: what comes before it, and the codes of its activations, are computed once for all multipliers."""

    def __init__(self, before: Sequence[nn.Module], after: Sequence[nn.Module]):
        self._before, self._after = nn.Sequential(*before), nn.Sequential(*after)

    def __call__(self, x: torch.Tensor, variants: Sequence[tuple[nn.Module, ...]]) -> list[torch.Tensor]:
        x = self._before(x)
        codes = None if x.is_cuda else variants[0][0].coded(x)  # type: ignore[operator]  # an ApproximateConv2d
        outputs = []
        for (layer,) in variants:
            y = layer(x) if codes is None else layer.of_codes(codes)  # type: ignore[operator]
            outputs.append(self._after(y))
        return outputs


def convolutions(model: nn.Module, example: torch.Tensor | None = None) -> list[models.Layer]:
    """The plain 2-d convolutions of a network, in the order of `models.layers`; raises `UserError` if there is none."""
    found = [layer for layer in models.layers(model, example) if type(model.get_submodule(layer.name)) is nn.Conv2d]
    if not found:
        raise UserError(f"{type(model).__name__} has no plain 2-d convolution, whose multiplications could be approximated")
    uses = Counter(id(module.weight) for module in model.modules() if isinstance(module, nn.Conv2d))
    for layer in found:
        if uses[id(models.weight(model, layer.name))] > 1:
            raise UserError(
                f"layer {layer.name} shares its weight with another convolution, so it cannot have a multiplier of its own"
            )
    return found


def _calibrate(model: nn.Module, names: Sequence[str], images: torch.Tensor) -> tuple[dict[str, Affine], np.ndarray]:
    """The range of the activations before each convolution, by name, and the multiplications of each per image, int64 (layers,)."""
    lowest, highest, products, calls = (dict.fromkeys(names, 0.0) for _ in range(4))

    def look(name: str, layer: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
        if not torch.isfinite(x).all():
            raise UserError(f"activations before {name} are not finite on the calibration images")
        lowest[name], highest[name] = min(lowest[name], float(x.min())), max(highest[name], float(x.max()))
        calls[name] += len(x)
        products[name] = y[0].numel() * models.weight(layer, "")[0].numel()

    copy = models.copied(model).cpu().eval()
    for name in names:
        hook = lambda layer, inputs, output, name=name: look(name, layer, inputs[0], output)  # noqa: E731
        copy.get_submodule(name).register_forward_hook(hook)
    with torch.inference_mode():
        for part in images.split(CHUNK):
            copy(part.float() / 255)
    if several := [name for name in names if calls[name] != len(images)]:
        raise UserError(f"layer {several[0]} must be called once for an image, got {calls[several[0]] / len(images):g} calls")
    ranges = {name: formats.affine(lowest[name], highest[name]) for name in names}
    return ranges, np.array([int(products[name]) for name in names])
