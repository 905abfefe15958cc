"""A network's answers: the plain forward pass, how many images it takes at a time, and whether an answer depends on its image only."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from weightlab.data import Split
from weightlab.errors import UserError, in_a_line

TOGETHER = 100  # images of a forward pass: about the fastest for LeNet-5 on a CPU
INSIDE_BYTES = 16 << 20  # the largest tensor inside a forward pass: beyond that, a CPU spends its time on page faults
PROBED = 4  # images
TOLERANCE = 1e-4  # of the largest absolute logit: more than rounding changes


def forward(model: nn.Module, images: torch.Tensor, source: str = "") -> torch.Tensor:
    """Logits, float (n, classes), for images as networks take them, float (n, channels, height, width).

    A single image is passed twice, because some networks drop every axis of length one. Raises `UserError` if the network cannot
    take the images (the message names their `source`), or gives anything but logits.
    """
    name, batch = type(model).__name__, torch.cat([images, images]) if len(images) == 1 else images
    try:
        logits = model(batch)
    except Exception as error:  # a user's own network may raise anything
        shape = f"{tuple(images.shape[1:])}{f', those of {source}' if source else ''}"
        raise UserError(f"{name} cannot take images of shape {shape} ({in_a_line(error)})") from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != len(batch):
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise UserError(f"{name} must give logits of shape ({len(batch)}, classes) for {len(batch)} images, got {got}")
    if not logits.is_floating_point():
        raise UserError(f"{name} must give logits that are real numbers, got {logits.dtype}")
    return logits[: len(images)]


def together(model: nn.Module, images: torch.Tensor) -> int:
    """How many images a plain forward pass takes at a time, 2 to `TOGETHER`, given one or more (n, channels, height, width)."""
    inside = inside_bytes(model, lambda: forward(model, images[:1])) // 2  # one image goes in twice
    return max(2, min(TOGETHER, INSIDE_BYTES // max(inside, 1)))


def inside_bytes(model: nn.Module, run: Callable[[], object]) -> int:
    """Bytes of the largest tensor that any module of a network gives while `run` runs it."""
    sizes = [0]

    def look(module: nn.Module, inputs: tuple, output: object) -> None:
        tensors = output if isinstance(output, tuple | list) else [output]
        sizes.extend(each.nbytes for each in tensors if isinstance(each, torch.Tensor))

    hooks = [module.register_forward_hook(look) for module in model.modules()]
    try:
        with probing():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return max(sizes)


@contextmanager
def probing() -> Iterator[None]:
    """Run the body without gradients, and put the global random generator back after it."""
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        yield


def fitting_images(model: nn.Module, splits: Sequence[Split]) -> torch.Tensor:
    """The first images as networks take them, float32 (1 or 2, channels, height, width), after a check that network and splits fit.

    Raises `UserError` if the splits' images differ in shape, the network cannot take them, does not give a logit per class, or
    fails `check`.
    """
    name, shapes = type(model).__name__, [tuple(split.images.shape[1:]) for split in splits]
    if other := [shape for shape in shapes if shape != shapes[0]]:
        raise UserError(f"images of {splits[0].dataset} must have one shape in all splits, got {shapes[0]} and {other[0]}")
    images = splits[0].images[:2].float() / 255
    with probing():
        classes = forward(model, images.to(_place(model, images)), splits[0].dataset).shape[1]
    if (highest := max(int(split.labels.max()) for split in splits)) >= classes:
        raise UserError(f"{name} has {classes} outputs, but {splits[0].dataset} has images of class {highest}")
    check(model, splits[0].images)
    return images


def check(model: nn.Module, images: torch.Tensor) -> None:
    """Raise `UserError` if answers to a few of the images, uint8 (n, channels, height, width), depend on more than the image.

    An answer must not depend on random numbers, on earlier calls, or on the rest of the batch.
    """
    name = type(model).__name__
    probed = (
        images[torch.linspace(0, len(images) - 1, min(2 * PROBED, len(images))).long()].to(_place(model, images)).float() / 255
    )
    some, others = probed[:PROBED], probed[PROBED:] if len(probed) > PROBED else 1 - probed
    with probing():
        first = forward(model, some.clone())
        again = forward(model, some.clone())
        forward(model, others.clone())
        for answers in (again, forward(model, some.clone())):
            if not alike(answers, first):
                raise UserError(
                    f"{name} gives other answers to the same images when it is called again (random numbers in its forward, or "
                    "a state that it keeps), so its accuracy cannot be measured"
                )
        mixed = [some[:1], torch.cat([others[:2], some[:1]]), some.flip(0)]
        for batch, row in zip(mixed, (0, -1, -1), strict=True):
            if not alike(forward(model, batch.clone())[row], first[0]):
                raise UserError(
                    f"{name} gives another answer to an image in another batch (statistics of the batch?), so its accuracy cannot "
                    "be measured; an answer must depend on the image alone"
                )


def _place(model: nn.Module, images: torch.Tensor) -> torch.device:
    return next((each.device for each in model.parameters()), images.device)


def alike(logits: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether logits differ by no more than rounding, `TOLERANCE` of the largest expected one."""
    return torch.allclose(logits, expected, rtol=0, atol=max(TOLERANCE * largest(expected), 1e-12), equal_nan=True)


def largest(logits: torch.Tensor) -> float:
    """The largest absolute value of logits that are finite, 0 where none is."""
    finite = logits[logits.isfinite()]
    return finite.abs().max().item() if len(finite) else 0.0
