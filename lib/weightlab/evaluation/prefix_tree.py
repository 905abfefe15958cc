"""Plans as a tree: plans with the same first stages share a branch, so that an activation is computed once for all of them.

The tree is walked depth first, chunk of images by chunk; the most recent activations are kept for later calls.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from weightlab.compression.contract import Replacement
from weightlab.evaluation.activation_cache import Chunk
from weightlab.evaluation.stages import Stage

BRANCHES = 64  # variants of a stage that are computed together, at most


def walk(
    chunk: Chunk,
    rows: np.ndarray,
    weights: dict[tuple[int, int], Replacement],
    stages: Sequence[Stage],
    ends: Sequence[int],
    siblings: int,
    take: Callable[[list[int], np.ndarray], None],
) -> np.ndarray:
    """One chunk of images through all plans, distinct sorted rows, int64 (n, layers), a column per layer in the order of the stages.

    `weights` holds the replacement of a layer by column and number, `ends` the number of columns up to the end of each stage; at most `siblings`
    variants of a stage are computed together. `take` is given the numbers of some rows and their logits, float32 (rows, classes,
    images). Returns how often each stage was computed, and how often reused from earlier calls, int64 (stages, 2).
    """
    work = np.zeros((len(stages), 2), dtype=np.int64)
    last = len(stages) - 1
    begins = [0, *ends[:-1]]

    def descend(stage: int, low: int, high: int, x: Callable[[], torch.Tensor]) -> None:
        """Rows low to high, which agree on all stages before this one, where their activation is x()."""
        begin, end = begins[stage], ends[stage]
        here = rows[low:high, begin:end]
        starts = (low + np.flatnonzero(np.r_[True, (here[1:] != here[:-1]).any(axis=1)])).tolist()
        untils = [*starts[1:], high]
        step = BRANCHES if stage == last else siblings
        for at in range(0, len(starts), step):
            group = starts[at : at + step]
            variants = [tuple(weights[begin + i, k] for i, k in enumerate(rows[row, begin:end].tolist())) for row in group]
            if stage == last:
                work[stage, 0] += len(group)
                take(group, stages[stage].logits(x(), variants))
                continue
            shelf, prefixes = chunk.shelves[stage], [tuple(rows[row, :end].tolist()) for row in group]
            outputs = {i: activation for i, prefix in enumerate(prefixes) if (activation := shelf.get(prefix)) is not None}
            missing = [i for i in range(len(group)) if i not in outputs]
            work[stage] += len(missing), len(group) - len(missing)
            if missing:
                buffers = [shelf.take() for _ in missing]
                stages[stage](x(), [variants[i] for i in missing], buffers)
                for i, output in zip(missing, buffers, strict=True):
                    outputs[i] = shelf.keep(prefixes[i], output)
            for i, (row, until) in enumerate(zip(group, untils[at : at + step], strict=True)):
                descend(stage + 1, row, until, partial(outputs.__getitem__, i))

    descend(0, 0, len(rows), lambda: chunk.images.float() / 255)
    return work
