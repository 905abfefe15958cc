"""Level 2: centroids, biases and batch norm of a compressed network trained with the classes of images; no weight by itself is.

Every weight keeps its label, so the weights of a layer have two trained numbers, the lowest centroid and the step: their gradient is summed over
the weights.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from weightlab import models
from weightlab.tuning.rate_distortion import matrices
from weightlab.tuning.rate_distortion.assignment import Assigned

BATCH, STEPS = 64, 200
KEPT = 512  # images that do not train, at most
RATES = (1.0, 0.1)  # of these learning rates: the first with which the loss of other images falls
CENTROIDS, OTHERS = 0.01, 1e-3  # learning rates: of centroids in distances between two of them, and of biases and batch norm
CLASSES = 0.1  # of the loss, for the images' own classes; the rest is the distance to the answers of the original network
DIGITS = 5  # of the lowest value and the step of a grid
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # images, float32, their classes, and answers


class _Trained:
    """The two trained numbers of a layer's weights: the lowest centroid and the step."""

    def __init__(self, assigned: Assigned):
        self.labels = torch.from_numpy(assigned.labels)
        self.numbers = nn.Parameter(torch.tensor([assigned.low, assigned.step]))
        self.rate = CENTROIDS * assigned.step / max(assigned.k - 1, 1)

    def weights(self) -> torch.Tensor:
        """Float32 (groups, rows, inputs)."""
        low, step = self.numbers.detach()
        return low + step * self.labels

    def take(self, gradient: torch.Tensor) -> None:
        """Sum up the gradient of the weights."""
        self.numbers.grad = torch.stack([gradient.sum(), (gradient * self.labels).sum()])

    def assigned(self, before: Assigned) -> Assigned:
        """As it is stored."""
        low, step = (float(f"{number:.{DIGITS}g}") for number in self.numbers.tolist())
        return replace(before, low=low, step=step)


class Lessons:
    """Batches of images with their classes and the original network's answers, which are computed once for all prices.

    `images` are uint8 (n, channels, height, width), `classes` int64 (n,). Batches of kind 0 are kept back, those of the other kinds, `steps`
    each, train at one of `RATES`.
    """

    def __init__(self, model: nn.Module, images: torch.Tensor, classes: torch.Tensor, steps: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(classes), generator=generator)
        kept, used = order.tensor_split([min(KEPT, len(order) // 2)])
        drawn = [[used[torch.randint(len(used), (BATCH,), generator=generator)] for _ in range(steps)] for _ in RATES]
        self.empty, self.steps = not steps or not len(kept), steps
        self._model, self._images, self._classes = model, images, classes
        self._places = [kept.split(BATCH), *drawn]
        self._answers: list[list[torch.Tensor]] = [[] for _ in self._places]

    def batches(self, kind: int) -> Iterator[Batch]:
        """Images as the network takes them, their classes and the original network's answers."""
        answers = self._answers[kind]
        for number, places in enumerate(self._places[kind]):
            images = self._images[places].float() / 255
            if number == len(answers):
                with torch.no_grad():
                    answers.append(self._model(images.clone()))
            yield images, self._classes[places], answers[number]


def tune(changed: nn.Module, done: Mapping[str, Assigned], shared: set[str], lessons: Lessons) -> dict[str, Assigned]:
    """New centroids for labels; the biases and batch norm of `changed`, the compressed network, are trained in place.

    `shared` names the weights that are stored as labels; of all others those with one axis are trained. The loss is the divergence from
    the original network's answers, logits divided by their standard deviation over classes, with a part of the cross entropy of the
    classes. The images that are kept back tell whether it falls: if it does not, nothing is changed.
    """
    if lessons.empty:
        return dict(done)
    before = _mean_loss(changed, lessons)
    for kind, rate in enumerate(RATES, 1):
        copy = models.copied(changed)
        found = _train(copy, done, shared, lessons.batches(kind), lessons.steps, rate)
        if _mean_loss(copy, lessons) < before:
            changed.load_state_dict(copy.state_dict())
            return found
    return dict(done)


def _train(
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
    for batch in batches:
        loss = _loss(changed, *batch)
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
def _mean_loss(changed: nn.Module, lessons: Lessons) -> float:
    return float(torch.stack([_loss(changed, *batch) for batch in lessons.batches(0)]).mean())


def _loss(changed: nn.Module, images: torch.Tensor, classes: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    spread = expected.std(1).mean().clamp_min(1e-30)
    answers = changed(images.clone().requires_grad_().clone())
    soft, wanted = (torch.log_softmax(logits / spread, 1) for logits in (answers, expected))
    distance = functional.kl_div(soft, wanted, log_target=True, reduction="batchmean")
    return (1 - CLASSES) * distance + CLASSES * functional.cross_entropy(answers, classes)
