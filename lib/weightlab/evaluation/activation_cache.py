"""Where the evaluation engine keeps images and activations: chunks of images, each with the activations last made of it."""

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
SMALLEST = 112  # images of a chunk, where they fit: fewer are not worth the calls
GPU_BYTES = 1 << 30  # the largest tensor inside a stage on a GPU
LARGEST = {"cpu": 2000, "cuda": 10_000}  # images of a chunk
LINE = 16  # float32 numbers of a cache line


class Shelf:
    """Activations of one chunk after one stage by their prefix: at most `slots`, the least recently used written over.

    Memory is used again, because touching new memory can cost more than computing what goes there.
    """

    def __init__(self, slots: int, empty: Callable[[], torch.Tensor]):
        self.slots, self._empty, self._made = slots, empty, 0
        self._kept: OrderedDict[tuple[int, ...], torch.Tensor] = OrderedDict()

    @property
    def nbytes(self) -> int:
        return sum(activation.nbytes for activation in self._kept.values())

    def get(self, prefix: tuple[int, ...]) -> torch.Tensor | None:
        if prefix in self._kept:
            self._kept.move_to_end(prefix)
        return self._kept.get(prefix)

    def take(self) -> torch.Tensor:
        """Memory to write an activation to."""
        if self._kept and self._made >= self.slots:
            return self._kept.popitem(last=False)[1]
        self._made += 1
        return self._empty()

    def clear(self) -> None:
        self._kept.clear()
        self._made = 0

    def keep(self, prefix: tuple[int, ...], activation: torch.Tensor) -> torch.Tensor:
        """Keep what was written to memory that was taken, and return it."""
        if self.slots:
            self._kept[prefix] = activation
        return activation


@dataclass(frozen=True)
class Chunk:
    """Some neighbouring images of a split, of which `start` is the first one's place, and a shelf for each stage but the last."""

    split: int
    start: int
    images: torch.Tensor  # uint8, on the device
    labels: np.ndarray
    shelves: list[Shelf]


def size(images: int, sizes: Sequence[int], inside: Sequence[int], threads: int, device: torch.device) -> int:
    """Images a chunk, given the bytes of each stage's output for an image and of the largest tensor inside it.

    Threads are evenly busy and activations fit. On a CPU tensors inside are small enough to be made in memory that is used again.
    On a CPU an odd number of cache lines: with images last, numbers of neighbouring places lie a chunk apart, and at an even
    number of lines they would drive each other out of the cache.
    """
    even = max(images // (CHUNKS_A_THREAD * threads), SMALLEST)
    fitting = answers.INSIDE_BYTES if device.type == "cpu" else GPU_BYTES
    chunk = max(2, min(even, CHUNK_BYTES // max(sizes), fitting // max(1, *inside), LARGEST[device.type]))
    return chunk if chunk < 2 * LINE else chunk - (chunk - LINE) % (2 * LINE)


def share_out(memory: int, sizes: Sequence[int], images: int) -> list[int]:
    """How many activations of each stage but the last to keep in `memory` bytes, given the bytes of an image's.

    Shares go by the square root of the size: large activations cost more to make, small ones are worth more a byte. Those
    before the last stage are cheap to make and hardly ever asked for again, so none is kept.
    """
    kept = np.array(sizes[:-2], dtype=float)
    shares = memory * np.sqrt(kept) / np.sqrt(kept).sum()
    return [*(shares // (kept * images)).astype(int).tolist(), *([0] * len(sizes[-2:-1]))]


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
