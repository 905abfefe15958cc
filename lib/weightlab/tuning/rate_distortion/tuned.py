"""Level 2: centroids, biases and batch norm of a compressed network trained with the classes of images; no weight by itself is.

Every weight keeps its label, so a layer has as few trained numbers as it has centroids, or two if they are on a grid: their gradient is
summed over the weights.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from weightlab import models
from weightlab.compression import kinds
from weightlab.tuning.rate_distortion import assignment, matrices
from weightlab.tuning.rate_distortion.assignment import Assigned

BATCH, STEPS = 64, 200
KEPT = 512  # images that do not train, at most
RATES = (1.0, 0.1)  # of these learning rates: the first with which the loss of other images falls
CENTROIDS, OTHERS = 0.01, 1e-3  # learning rates: of centroids in distances between two of them, and of biases and batch norm
CLASSES = 0.1  # of the loss, for the images' own classes; the rest is the distance to the answers of the original network
DIGITS = 5  # of the lowest value and the step of a grid
Batch = tuple[torch.Tensor, torch.Tensor]  # images, float32, and their classes


class _Trained:
    """The few trained numbers of a layer's weights."""

    def __init__(self, assigned: Assigned):
        self.labels, self.on_grid = torch.from_numpy(assigned.labels), assigned.grid is not None
        self.numbers = nn.Parameter(torch.from_numpy(np.array(assigned.grid or assigned.centroids, dtype=np.float32)))
        self.steps = torch.arange(len(assigned.centroids), dtype=torch.float32)
        distances = np.diff(assigned.centroids) if len(assigned.centroids) > 1 else assigned.centroids
        self.rate = CENTROIDS * float(np.median(abs(distances))) / (max(float(self.steps[-1]), 1.0) if self.on_grid else 1)

    def weights(self) -> torch.Tensor:
        """Float32 (groups, rows, inputs)."""
        numbers = self.numbers.detach()
        return (numbers[0] + numbers[1] * self.steps if self.on_grid else numbers)[self.labels]

    def take(self, gradient: torch.Tensor) -> None:
        """Sum up the gradient of the weights."""
        sums = torch.bincount(self.labels.ravel(), gradient.ravel(), len(self.steps)).float()
        self.numbers.grad = torch.stack([sums.sum(), (self.steps * sums).sum()]) if self.on_grid else sums

    def assigned(self, before: Assigned) -> Assigned:
        """As it is stored."""
        numbers = self.numbers.detach().numpy()
        if not self.on_grid:
            return assignment.with_centroids(before.labels, numbers)
        low, step = (float(f"{number:.{DIGITS}g}") for number in numbers)
        return replace(before, centroids=kinds.on_grid(np.arange(len(self.steps)), low, step), grid=(low, step))


@dataclass(frozen=True)
class Lessons:
    """Images, uint8 (n, channels, height, width), with their classes, int64 (n,), and in how many steps these train; 0 trains nothing."""

    images: torch.Tensor
    classes: torch.Tensor
    steps: int = STEPS

    def batch(self, places: torch.Tensor) -> Batch:
        """Images as the network takes them, and their classes."""
        return self.images[places].float() / 255, self.classes[places]


def tune(
    model: nn.Module, changed: nn.Module, done: Mapping[str, Assigned], shared: set[str], lessons: Lessons, seed: int
) -> dict[str, Assigned]:
    """New centroids for labels; the biases and batch norm of `changed`, the compressed network, are trained in place.

    `shared` names the weights that are stored as labels; of all others those with one axis are trained. The loss is the divergence from
    the answers of `model`, logits divided by their standard deviation over classes, with a part of the cross entropy of the classes. Some of
    the images are kept to see whether it falls: if it does not, nothing is changed.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(lessons.classes), generator=generator)
    n = min(KEPT, len(order) // 2)
    if not lessons.steps or not n:
        return dict(done)
    kept, used = [lessons.batch(places) for places in order[:n].split(BATCH)], order[n:]
    before = _mean_loss(model, changed, kept)
    for rate in RATES:
        batches = (lessons.batch(used[torch.randint(len(used), (BATCH,), generator=generator)]) for _ in range(lessons.steps))
        copy = models.copied(changed)
        found = _train(model, copy, done, shared, batches, lessons.steps, rate)
        if _mean_loss(model, copy, kept) < before:
            changed.load_state_dict(copy.state_dict())
            return found
    return dict(done)


def _train(
    model: nn.Module,
    changed: nn.Module,
    done: Mapping[str, Assigned],
    shared: set[str],
    batches: Iterable[Batch],
    steps: int,
    rate: float,
) -> dict[str, Assigned]:
    trained = {name: _Trained(assigned) for name, assigned in done.items()}
    layers: dict[str, Any] = {name: changed.get_submodule(name) for name in done}
    others = [value for name, value in changed.named_parameters() if name not in shared and value.dim() <= 1]
    changed.requires_grad_(True)
    groups = [{"params": [each.numbers], "lr": rate * each.rate} for each in trained.values()]
    optimizer = torch.optim.Adam([*groups, {"params": others, "lr": rate * OTHERS}])
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    for images, classes in batches:
        loss = _loss(model, changed, images, classes)
        gradients = torch.autograd.grad(loss, [*(layer.weight for layer in layers.values()), *others], allow_unused=True)
        for each, layer, gradient in zip(trained.values(), layers.values(), gradients, strict=False):
            each.take(matrices.of(layer, torch.zeros_like(layer.weight) if gradient is None else gradient))
        for value, gradient in zip(others, gradients[len(layers) :], strict=True):
            value.grad = gradient
        optimizer.step()
        falling.step()
        with torch.no_grad():
            for each, layer in zip(trained.values(), layers.values(), strict=True):
                layer.weight.copy_(matrices.back(layer, each.weights()))
    changed.requires_grad_(False)
    return {name: each.assigned(done[name]) for name, each in trained.items()}


@torch.no_grad()
def _mean_loss(model: nn.Module, changed: nn.Module, batches: Sequence[Batch]) -> float:
    return float(torch.stack([_loss(model, changed, images, classes) for images, classes in batches]).mean())


def _loss(model: nn.Module, changed: nn.Module, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        expected = model(images.clone())
    spread = expected.std(1).mean().clamp_min(1e-30)
    answers = changed(images.clone().requires_grad_().clone())
    soft, wanted = (torch.log_softmax(logits / spread, 1) for logits in (answers, expected))
    distance = functional.kl_div(soft, wanted, log_target=True, reduction="batchmean")
    return (1 - CLASSES) * distance + CLASSES * functional.cross_entropy(answers, classes)
