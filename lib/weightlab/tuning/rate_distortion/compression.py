"""A network compressed at one price of a bit, or as far as its loss on validation images allows.

Level 0 needs no data: a network without batch norm is calibrated on random images, in one with batch norm the error of every layer counts
in proportion to its weights' variance. Level 1 is calibrated on unlabelled images. Level 2 then trains centroids, biases and batch norm with the
classes of these images. At each, the classes of validation images choose the price where a loss is given.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from weightlab import data, models, packing, training
from weightlab.compression.compressed import Compressed
from weightlab.errors import UserError
from weightlab.tuning.rate_distortion import assignment, calibrated, cells, hooks, storing, tuned
from weightlab.tuning.rate_distortion.assignment import Assigned
from weightlab.tuning.rate_distortion.tuned import Lessons

LEVELS = {0: "data-free", 1: "calibrated", 2: "tuned"}
METHOD = "rate-distortion sharing, level {level} ({name})"
CALIBRATION = {0: 1500, 1: 1500, 2: 20_000}  # images, at most, by level
MEMORY = {0: 5 << 28, 1: 5 << 28, 2: 5 << 27}  # bytes: of the largest activation for all of them
PRICE = 0.01  # where no loss is given
FIRST = 0.04  # that is tried where one is given: networks trained well keep a point at 0.03 to 0.2
# By which prices are divided where errors count in proportion to variances: it makes the same price about as safe.
RELATIVE_UNIT = 0.4
CODING_IMAGES = 64  # that decide how biases and batch norm are coded
CELL, CONTRAST = 4, 4.0  # pixels of a spot of random images, and how many times brightness is spread before it is cut off
EVALUATIONS = 12  # of the network, at most, to find a price
FACTOR, NARROW = 4.0, 1.04  # of prices: between two while a bracket is looked for, and where the search of it ends
Progress = Callable[[dict], None]


@dataclass(frozen=True)
class Found:
    """A compressed network, the price it was found at, its level, and `trials`: a row for each price with bytes and the loss in pp.

    `plainly` names layers whose inputs could not be had from the images, or are too many; their weights count alike.
    """

    compressed: Compressed
    price: float
    level: int
    trials: pd.DataFrame
    plainly: Sequence[str] = ()


def compress(
    model: nn.Module,
    images: torch.Tensor | None = None,
    *,
    within: float | None = None,
    validation: data.Split | None = None,
    price: float | None = None,
    level: int | None = None,
    classes: torch.Tensor | None = None,
    example: torch.Tensor | None = None,
    seed: int = 1,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Found:
    """The smallest network that loses less than `within` percentage points on `validation`, or the one at a price.

    `images`, uint8 (n, channels, height, width), calibrate levels 1 (up to 1 500 of them, drawn from `seed`) and 2 (up to 20 000), which
    trains with their `classes`, int64 (n,), as well; the default is the highest level for which all is given. `price` is the loss (nats)
    that one bit for every weight is worth. `example`, one input batch, is needed at level 0 for the order of layers and the size of random
    images. Raises `UserError` for settings that contradict each other, and if no price keeps the loss.
    """
    level = _highest(images, classes) if level is None else level
    _check(level, images, classes, within, validation, price, example)
    model = models.copied(model).eval()  # in training mode batch norm would follow the images
    at = _prepared(model, level, images, classes, example, seed)
    if within is None:
        price = PRICE if price is None else price
        found, plainly = at(price)
        return Found(found, price, level, pd.DataFrame(), plainly)
    assert validation is not None
    baseline = training.accuracy(model, validation, device)
    rows, best = [], None

    def loses(price: float) -> bool:
        nonlocal best
        found, plainly = at(price)
        content = packing.pack_compressed(model, found, version=2)
        accuracy = training.accuracy(found.apply(model), validation, device)
        row = {"price": price, "bytes": len(content), "loss_pp": 100 * (baseline - accuracy)}
        rows.append(row)
        if progress is not None:
            progress(row)
        good = row["loss_pp"] < within
        if good and (best is None or row["bytes"] < best[0]):
            best = (row["bytes"], price, found, plainly)
        return not good

    _bisect(loses, FIRST)
    if best is None:
        least = min(row["loss_pp"] for row in rows)
        raise UserError(
            f"no price was found that loses less than {within:g} pp on validation; the least loss of {len(rows)} is {least:.2f} pp"
        )
    return Found(best[2], best[1], level, pd.DataFrame(rows), best[3])


def at_price(
    model: nn.Module,
    images: torch.Tensor | None = None,
    *,
    level: int | None = None,
    classes: torch.Tensor | None = None,
    example: torch.Tensor | None = None,
    seed: int = 1,
    steps: int = tuned.STEPS,
) -> Callable[[float], Found]:
    """What `compress` finds at a price, for any number of prices: all that does not depend on the price is computed once, at this call.

    `steps` are those of training at level 2; with 0 of them its images calibrate and their classes are not used.
    """
    level = _highest(images, classes) if level is None else level
    _check(level, images, classes, None, None, None, example)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise UserError(f"steps must be a whole number, at least 0, got {steps!r}")
    at = _prepared(models.copied(model).eval(), level, images, classes, example, seed, steps)

    def found(price: float) -> Found:
        _check_positive("price", price)
        compressed, plainly = at(price)
        return Found(compressed, price, level, pd.DataFrame(), plainly)

    return found


def _highest(images: torch.Tensor | None, classes: torch.Tensor | None) -> int:
    """The highest level for which all is given."""
    return 0 if images is None else 1 if classes is None else 2


def _bisect(loses: Callable[[float], bool], price: float) -> None:
    """Try prices until the highest that does not lose is known, as far as few trials tell; cautiously, as losses rise steeply."""
    low, high = 0.0, math.inf
    for _ in range(EVALUATIONS):
        if loses(price):
            high = price
        else:
            low = price
        if low and high < math.inf:
            if high / low <= NARROW:
                return
            price = math.sqrt(low * high)
        else:
            price = price * FACTOR if low else price / FACTOR


def _prepared(
    model: nn.Module,
    level: int,
    images: torch.Tensor | None,
    classes: torch.Tensor | None,
    example: torch.Tensor | None,
    seed: int,
    steps: int = tuned.STEPS,
) -> Callable[[float], tuple[Compressed, list[str]]]:
    """What compresses the network at a price."""
    name = METHOD.format(level=level, name=LEVELS[level])
    normed = any(isinstance(module, _BatchNorm) for module in model.modules())
    if images is not None and level > 0:
        most = _fitting(model, images[:1].float() / 255, level)
        drawn = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:most]].float() / 255
        lessons = None if classes is None or level == 1 else Lessons(model, images, classes, steps, seed)
        return _calibrated(model, models.layers(model, drawn[:2]), drawn, seed, name, lessons)
    assert example is not None
    layers, most = models.layers(model, example), _fitting(model, example[:1], level)
    drawn = random_images(example, min(most, CODING_IMAGES) if normed else most, seed)
    if normed:
        coding = storing.coding(model, layers, drawn)
        return lambda price: (_relative(model, layers, price / RELATIVE_UNIT, name, coding), [])
    return _calibrated(model, layers, drawn, seed, name)


def _fitting(model: nn.Module, image: torch.Tensor, level: int) -> int:
    """How many images a network is calibrated on, at most: fewer where activations are large."""
    return min(CALIBRATION[level], max(1, MEMORY[level] // hooks.largest_activation(model, image)))


def random_images(example: torch.Tensor, n: int, seed: int) -> torch.Tensor:
    """Images like the example in size and number of channels: smooth spots, most of them black or white, float32 from 0 to 1."""
    channels, *size = example.shape[1:]
    if len(size) != 2:
        return torch.rand(n, channels, *size, generator=torch.Generator().manual_seed(seed))
    cells = [max(2, side // CELL) for side in size]
    coarse = torch.rand(n, channels, *cells, generator=torch.Generator().manual_seed(seed))
    return ((functional.interpolate(coarse, size, mode="bilinear") - 0.5) * CONTRAST).clamp(0, 1)


def _calibrated(
    model: nn.Module, layers: Sequence[models.Layer], images: torch.Tensor, seed: int, method: str, lessons: Lessons | None = None
) -> Callable[[float], tuple[Compressed, list[str]]]:
    weights, coding = sum(layer.weights for layer in layers), storing.coding(model, layers, images[:CODING_IMAGES])
    calibration = calibrated.calibrate(model, [layer.name for layer in layers], images, seed)

    def at(price: float) -> tuple[Compressed, list[str]]:
        curvatures: list[float] = []

        def assign(name: str, matrix: np.ndarray, moments: np.ndarray) -> Assigned:
            slopes = calibration.slopes[name].numpy().reshape(matrix.shape[:2])
            curvatures.append(float(slopes.mean() * np.diagonal(moments, axis1=1, axis2=2).mean()))
            return assignment.assign(matrix, moments, slopes, price / weights)

        changed, done = calibrated.compress(model, calibration, assign, seed)
        if lessons is not None:
            done = tuned.tune(changed, done, storing.shared(model, layers), lessons)
        typical = max(float(np.median(curvatures)) if curvatures else 1.0, 1e-12)
        stored, plainly = [], []
        for layer in layers:
            if layer.name in done:
                stored.append(storing.stored(done[layer.name], changed.get_submodule(layer.name)))
            else:
                book = cells.cheapest(models.weight(model, layer.name).detach().numpy(), typical, price / weights)
                stored.append(storing.codebook(book.labels, book.centroids))
                plainly.append(layer.name)
        return storing.with_others(model, changed, layers, stored, method, coding), plainly

    return at


def _relative(model: nn.Module, layers: Sequence[models.Layer], price: float, method: str, coding: str) -> Compressed:
    """Every layer's error counts in proportion to the variance of all its weights together; `price` is that of a bit for each of them."""
    total, stored = sum(layer.weights for layer in layers), []
    for layer in layers:
        weights = models.weight(model, layer.name).detach().numpy()
        slope = 1 / max(layer.weights * float(weights.var(dtype=np.float64)), 1e-30)
        book = cells.cheapest(weights, slope, price * len(layers) / total)
        stored.append(storing.codebook(book.labels, book.centroids))
    return storing.with_others(model, model, layers, stored, method, coding)


def _check(
    level: int,
    images: torch.Tensor | None,
    classes: torch.Tensor | None,
    within: float | None,
    validation: data.Split | None,
    price: float | None,
    example: torch.Tensor | None,
) -> None:
    if level not in LEVELS:
        raise UserError(f"level must be {', '.join(f'{number} ({name})' for number, name in LEVELS.items())}, got {level!r}")
    if level > 0 and images is None:
        raise UserError(f"level {level} needs images to calibrate on; level 0 needs none")
    if level == 2 and (classes is None or images is None or len(classes) != len(images)):
        given = "none" if classes is None else f"{len(classes)} for {len(images)} images" if images is not None else "no images"
        raise UserError(f"level 2 needs the class of every image to train with, got {given}; level 1 needs no classes")
    if level == 0 and example is None:
        raise UserError("level 0 needs an example, one input batch, for the order of layers and the size of random images")
    if within is not None and price is not None:
        raise UserError(f"give a loss to stay within ({within!r}) or a price ({price!r}), not both")
    if within is not None and validation is None:
        raise UserError("without validation images no loss can be measured; give a price instead")
    _check_positive("within", within)
    _check_positive("price", price)


def _check_positive(name: str, number: float | None) -> None:
    if number is not None and not (math.isfinite(number) and number > 0):
        raise UserError(f"{name} must be a positive number, got {number!r}")
