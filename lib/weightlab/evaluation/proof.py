"""The proof that the engine agrees with the network, on a few plans before the first count.

These plans need no clustering: 0 stands for the original weights, -1 and -2 for weights rounded to a few of their own values. Methods
that replace operations are tried with their own variants instead.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from weightlab import models, rng
from weightlab.compression import contract
from weightlab.data import Split
from weightlab.errors import UserError
from weightlab.evaluation.stages import Stage, Variant
from weightlab.networks import answers, sequences

SEED = 0
LEVELS = (2, 16)  # of rounded weights, at least and at most
CHUNK = 100  # images, or fewer
SHARE = 100  # one image in so many makes a chunk: the proof is small beside a search


def rounded(weight: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """A weight rounded to some of its own values."""
    values = weight.detach().cpu().numpy().ravel()
    levels = np.unique(generator.choice(values, int(generator.integers(*LEVELS, endpoint=True))))
    return torch.from_numpy(levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, values)]).reshape(weight.shape).to(weight)


def others(model: nn.Module, names: Sequence[str], which: int) -> list[torch.Tensor]:
    """Rounded weights of the layers called `names`; the same at every call with the same `which`."""
    generator = rng.derive(SEED, "proof", which)
    return [rounded(models.weight(model, name), generator) for name in names]


def weights(model: nn.Module, names: Sequence[str]) -> dict[tuple[int, int], torch.Tensor]:
    """The weights that the numbers of plans stand for, by column and number; the columns are the layers called `names`."""
    by_number = {0: [models.weight(model, name) for name in names]} | {-which: others(model, names, which) for which in (1, 2)}
    return {(column, number): each for number, tensors in by_number.items() for column, each in enumerate(tensors)}


def rows(columns: int) -> list[np.ndarray]:
    """Sorted plans (n, columns) in two groups, one call each: plans of the first come again beside others."""
    original, first = np.zeros(columns, np.int64), np.full(columns, -1)
    second = np.where(np.arange(columns) < columns // 2, -1, -2)  # begins as the first does
    return [np.stack([second, original]), np.stack([second, first, original])]


def parts(split: Split, chunk: int) -> list[Split]:
    """The images of the proof: two chunks and a last short one, or fewer; chunks are small, so that it costs little."""
    size = max(2, min(chunk, CHUNK, len(split) // SHARE))
    places = [slice(0, size), slice(size, 2 * size), slice(2 * size, 2 * size + 1)]
    return [Split(split.dataset, split.name, split.images[at], split.labels[at]) for at in places if len(split.labels[at])]


def plain(model: nn.Module, names: Sequence[str], weights: Sequence[contract.Replacement], images: torch.Tensor) -> torch.Tensor:
    """Logits (n, classes), on the CPU, of a network with replaced layers, for images, float (n, ...)."""
    with contract.replaced(model, dict(zip(names, weights, strict=True))):
        return answers.forward(model, images).cpu()


def refuse_idle_weights(model: nn.Module, names: Sequence[str], images: torch.Tensor) -> None:
    """Raise `UserError` if a network gives the same answers for all weights: it computes with others than those it names."""
    copy, generator = models.copied(model), torch.Generator().manual_seed(SEED)
    with answers.probing():
        before = answers.forward(copy, images.clone()).cpu()
        noise = [torch.randn(models.weight(copy, name).shape, generator=generator) for name in names]
        if torch.equal(plain(copy, names, noise, images.clone()), before):
            raise UserError(
                f"{type(model).__name__} gives the same answers for all weights of {', '.join(names[:3])}, so it computes with "
                "other weights (kept from an earlier pass, or those of another network)"
            )


def blame(model: nn.Module, stages: Sequence[Stage], variants: Sequence[Variant], images: torch.Tensor) -> str:
    """The first stage that disagrees with its module on images, float (n, ...); the network has the variants' weights."""
    if len(stages) == 1:
        return "it gives other answers with weights that are passed to it than with the same weights written into it"
    x = images
    for stage, module, variant in zip(stages, sequences.stages(model), variants, strict=True):
        y = module(x.clone())
        if not answers.alike(stage.output(x, variant, y.shape[1:]), y):
            first = f", which holds {stage.weights[0].removesuffix('.weight')}" if stage.weights else ""
            return f"{type(module).__name__}{first}, gives other answers as a separate stage"
        x = y
    return "its stages, called in order, give other answers for many images or plans at a time"
