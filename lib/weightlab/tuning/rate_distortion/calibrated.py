"""Level 1: a network is compressed layer by layer on unlabelled images, each layer on what the compressed layers before it give.

One forward pass over all images does it: when a layer is called, its inputs are those that the compressed network gives, its weights are
replaced, and the pass goes on. Means of outputs are corrected in the bias, and the statistics of batch norm are estimated anew.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from weightlab import models
from weightlab.tuning.rate_distortion import curvature, matrices
from weightlab.tuning.rate_distortion.assignment import Assigned
from weightlab.tuning.rate_distortion.hooks import called_once

COLUMNS = 60_000  # of a layer's inputs, at most
INPUTS = 8192  # of a row, beyond which their second moments would take gigabytes
LEAST_CHANGE = (
    0.01  # of a variance: a channel that is constant now would be divided by nearly nothing as soon as another image moves it
)
Assign = Callable[[str, np.ndarray, np.ndarray], Assigned]  # of a layer: its name, weights and second moments as matrices


@dataclass(frozen=True)
class Calibration:
    """What is known of the original network from some images, whatever the price, by layer.

    `means` of the output channels and `slopes` of the rows, and for batch norms the mean and variance of the inputs (`statistics`).
    """

    images: torch.Tensor
    means: Mapping[str, torch.Tensor]
    slopes: Mapping[str, torch.Tensor]
    statistics: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


@torch.no_grad()
def calibrate(model: nn.Module, names: list[str], images: torch.Tensor, seed: int) -> Calibration:
    """See `Calibration`; images are float32 as the network takes them."""
    means: dict[str, torch.Tensor] = {}
    statistics: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def mean(layer: Any, _: tuple, output: torch.Tensor, name: str) -> None:
        means[name] = curvature.means(layer, output)

    def observe(_: nn.Module, given: tuple, name: str) -> None:
        statistics[name] = _mean_and_variance(given[0])

    hooks: dict[nn.Module, tuple[Callable | None, Callable | None]] = {model.get_submodule(name): (None, mean) for name in names}
    with called_once(model, hooks | {norm: (observe, None) for norm in _norms(model)}):
        model(images.clone())
    generator = torch.Generator().manual_seed(seed)
    return Calibration(images, means, curvature.rows(model, names, images, generator), statistics)


@torch.no_grad()
def compress(
    model: nn.Module, calibration: Calibration, assign: Assign, seed: int, statistics: bool = True
) -> tuple[nn.Module, dict[str, Assigned]]:
    """A compressed copy of the network, and what was assigned to each layer whose inputs can be had."""
    copy, done = models.copied(model).eval(), {}
    generator = torch.Generator().manual_seed(seed)

    def before(layer: Any, given: tuple, name: str) -> None:
        if not given or math.prod(layer.weight.shape[1:]) > INPUTS:
            return
        parts = matrices.inputs(layer, given[0], COLUMNS, generator)
        moments = np.concatenate([(drawn @ drawn.transpose(1, 2)).double().numpy() / drawn.shape[2] for drawn in parts])
        done[name] = assign(name, matrices.of(layer, layer.weight).double().numpy(), moments)
        layer.weight.copy_(matrices.back(layer, torch.from_numpy(done[name].values)))

    def after(layer: Any, _: tuple, output: torch.Tensor, name: str) -> torch.Tensor | None:
        if layer.bias is None:
            return None
        shift = (calibration.means[name] - curvature.means(layer, output)).to(layer.bias.dtype)
        layer.bias += shift
        return output + (shift if isinstance(layer, nn.Linear) else shift.reshape(-1, *(1,) * len(layer.kernel_size)))

    def adjust(norm: Any, given: tuple, name: str) -> None:
        """Statistics change as much as on these images, which say more of the change than of the statistics themselves."""
        (mean, variance), (old_mean, old_variance) = _mean_and_variance(given[0]), calibration.statistics[name]
        norm.running_mean += mean - old_mean
        norm.running_var *= (variance / old_variance.clamp_min(1e-12)).clamp(LEAST_CHANGE, 1 / LEAST_CHANGE)

    hooks = {copy.get_submodule(name): (before, after) for name in calibration.slopes}
    norms = _norms(copy) if statistics else []
    with called_once(copy, hooks | {norm: (adjust, None) for norm in norms}):
        copy(calibration.images.clone())
    return copy, done


def _norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None]


def _mean_and_variance(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every channel of activations (n, channels, ...)."""
    channels = x.transpose(0, 1).flatten(1)
    return channels.mean(1), channels.var(1, unbiased=False)
