"""The images and activations that the evaluation engine keeps: chunks of images, each with its most recent activations."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from weightlab.data import Split
from weightlab.evaluation.stages import Stage, images_last
from weightlab.networks import answers

KEPT_BYTES = 768 << 20  # activations kept for later calls, by default
CHUNK_BYTES = 64 << 20  # the largest activation of a chunk, by default
CHUNKS_A_THREAD = 5
SMALLEST = 112  # images of a chunk, if they fit: with fewer the calls cost too much
GPU_BYTES = 1 << 30  # the largest tensor inside a stage on a GPU
LARGEST = {"cpu": 2000, "cuda": 10_000}  # images of a chunk
LINE = 16  # float32 numbers of a cache line


class Shelf:
    """Activations of one chunk after one stage by their prefix: at most `slots`; a new one replaces the least recently used.

    Memory is reused, because touching new memory can cost more than computing what is stored there.
    """

    def __init__(self, slots: int, empty: Callable[[], torch.Tensor]):
        self.slots, self._empty, self._allocated = slots, empty, 0
        self._activations: OrderedDict[tuple[int, ...], torch.Tensor] = OrderedDict()

    @property
    def nbytes(self) -> int:
        return sum(activation.nbytes for activation in self._activations.values())

    def get(self, prefix: tuple[int, ...]) -> torch.Tensor | None:
        if prefix in self._activations:
            self._activations.move_to_end(prefix)
        return self._activations.get(prefix)

    def take(self) -> torch.Tensor:
        """Memory to write an activation to."""
        if self._activations and self._allocated >= self.slots:
            return self._activations.popitem(last=False)[1]
        self._allocated += 1
        return self._empty()

    def clear(self) -> None:
        self._activations.clear()
        self._allocated = 0

    def keep(self, prefix: tuple[int, ...], activation: torch.Tensor) -> torch.Tensor:
        """Keep an activation in memory from `take`, and return it."""
        if self.slots:
            self._activations[prefix] = activation
        return activation


@dataclass(frozen=True)
class Chunk:
    """Some neighbouring images of a split, of which `start` is the first one's place, and a shelf for each stage but the last."""

    split: int
    start: int
    images: torch.Tensor  # uint8, on the device
    labels: np.ndarray
    shelves: list[Shelf]


def size(
    images: int, sizes: Sequence[int], inside: Sequence[int], threads: int, device: torch.device, together: int | None = None
) -> int:
    """Images a chunk, given the bytes of each stage's output for an image and of the largest tensor inside it.

    `together` is the number that a method's own stages take best; activations of a chunk still fit.

    Threads are evenly busy and activations fit. On a CPU tensors inside are small enough for memory that is reused.
    On a CPU an odd number of cache lines: with images last, numbers of neighbouring places lie a chunk apart, and at an even
    number of lines they would drive each other out of the cache.
    """
    if together:
        return max(2, min(together, -(-images // threads), CHUNK_BYTES // max(sizes)))
    even = max(images // (CHUNKS_A_THREAD * threads), SMALLEST)
    fitting = answers.INSIDE_BYTES if device.type == "cpu" else GPU_BYTES
    chunk = max(2, min(even, CHUNK_BYTES // max(sizes), fitting // max(1, *inside), LARGEST[device.type]))
    return chunk if chunk < 2 * LINE else chunk - (chunk - LINE) % (2 * LINE)


def share_out(memory: int, sizes: Sequence[int], images: int) -> list[int]:
    """How many activations of each stage but the last to keep in `memory` bytes, given the bytes of an image's.

    Shares are proportional to the square root of the size: large activations cost more to compute, small ones save more per byte.
    Those before the last stage are cheap to compute and hardly ever needed again, so none is kept.
    """
    shareable = np.array(sizes[:-2], dtype=float)
    shares = memory * np.sqrt(shareable) / np.sqrt(shareable).sum()
    return [*(shares // (shareable * images)).astype(int).tolist(), *([0] * len(sizes[-2:-1]))]


def divide(
    splits: Sequence[Split],
    size: int,
    stages: Sequence[Stage],
    shapes: Sequence[torch.Size],
    slots: Sequence[int],
    device: torch.device,
) -> list[Chunk]:
    """Splits cut into chunks of `size` images, with `slots` places for the output, of an image's `shapes`, of each stage but the last."""
    chunks = []
    for number, split in enumerate(splits):
        for start in range(0, len(split), size):
            images, labels = split.images[start : start + size].to(device), split.labels[start : start + size].numpy()
            if stages[0].compiled and device.type == "cpu":
                images = images_last(images)
            shelves = [
                Shelf(each, partial(stage.empty, len(images), shape, device))
                for each, stage, shape in zip(slots, stages[:-1], shapes[:-1], strict=True)
            ]
            chunks.append(Chunk(number, start, images, labels, shelves))
    return chunks
