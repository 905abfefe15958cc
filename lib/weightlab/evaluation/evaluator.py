"""Accuracy of many plans; work that several plans need is done once.

The network is cut into stages, and plans with the same first stages share their activations (see `prefix_tree`).

The count of a plan depends on the plan alone: an image whose class is within a margin of the highest other logit is decided by the
reference path, the plain forward pass of the whole network on fixed chunks of images, for any kernel. Before the first count a few
plans are compared with that path (see `proof`); if they differ, it decides every image.
"""

import copy
import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from queue import SimpleQueue
from typing import Generic, TypeVar, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import nn

from weightlab import backend, models
from weightlab.compression import contract
from weightlab.compression.contract import Method, Operations, Replacement
from weightlab.data import Split
from weightlab.errors import UserError, in_a_line
from weightlab.evaluation import activation_cache, prefix_tree, proof, stages
from weightlab.evaluation.activation_cache import Chunk
from weightlab.evaluation.kernels import tally
from weightlab.evaluation.stages import Cut, Stage
from weightlab.networks import answers

MARGIN = 1e-5  # of the largest logit of the proof, or more where it shows larger differences
SAFETY = 8  # times the largest difference that the proof shows
REMEMBERED = 1_000_000  # plans whose counts are kept
SIBLINGS_BYTES = 32 << 20  # the activations of variants of a stage that are computed together
WEIGHTS_BYTES = 256 << 20  # shared weights in memory at a time


Variants = TypeVar("Variants", bound=Method)
Others = TypeVar("Others", bound=Method)


class Evaluator(Generic[Variants]):
    """Numbers of correctly classified images of one network under many plans, on one or more splits.

    `threads` (all cores by default) work on different images, `chunk` images at a time, and at most `memory` bytes of activations
    are kept for later calls; none of the three changes a count. `model` is not changed. Raises `UserError` if network, variants
    and images do not fit, and for a network whose answer to an image depends on more than the image (see `answers.check`).
    """

    def __init__(
        self,
        model: nn.Module,
        variants: Variants,
        splits: Sequence[Split],
        device: str = "auto",
        threads: int | None = None,
        chunk: int | None = None,
        memory: int = activation_cache.KEPT_BYTES,
    ):
        self.variants, self.splits = variants, list(splits)
        self.device = backend.device(device)
        self.threads = backend.check_threads(threads) or (1 if self.device.type == "cuda" else backend.cores())
        self._model = models.copied(model).to(self.device).eval().requires_grad_(False)
        self._names = [layer.name for layer in variants.layers]
        self._margin, self._part, self._lock = 0.0, 0.0, threading.Lock()
        self._relative = isinstance(variants, Operations)  # whether the margin is at least a part of the largest logit
        self._known: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._asked = self._repeated = self._referred = 0
        with backend.full_precision():
            self._prepare(chunk, memory)

    @property
    def images(self) -> np.ndarray:
        """Number of images of each split, int64 (splits,)."""
        return np.array([len(split) for split in self.splits])

    def correct(self, plans: ArrayLike, partial: bool = False) -> np.ndarray:
        """Correctly classified images, int64 (n, splits), for plans (n, groups).

        With `partial` a 0 in a plan leaves that group unshared, as the range scan needs. Raises `UserError` for a wrong plan.
        """
        plans = contract.check(self.variants, plans, least=0 if partial else 1)
        keys = [tuple(plan) for plan in plans.tolist()]
        new = sorted({key for key in keys if key not in self._known})
        self._asked += len(keys)
        self._repeated += len(keys) - len(new)
        if len(self._known) > REMEMBERED:
            self._known.clear()
            new = sorted(set(keys))
        if new:
            with backend.full_precision():
                self._known |= zip(new, map(tuple, self._evaluate(np.array(new)).tolist()), strict=True)
        return np.array([self._known[key] for key in keys], dtype=np.int64).reshape(len(keys), len(self.splits))

    def accuracy(self, plans: ArrayLike, partial: bool = False) -> np.ndarray:
        """Fractions of correctly classified images, float64 (n, splits)."""
        return self.correct(plans, partial) / self.images

    def baseline(self) -> np.ndarray:
        """Accuracy of the original network, float64 (splits,)."""
        return self.accuracy([[0] * len(self.variants.names)], partial=True)[0]

    def measure(self, plans: ArrayLike) -> pd.DataFrame:
        """A row per plan: every rate, and for each split `<split>_accuracy` (fraction) and `<split>_loss_pp` (percentage points)."""
        correct, original = self.correct(plans), self.correct([[0] * len(self.variants.names)], partial=True)
        table = pd.DataFrame(contract.rates(self.variants, contract.check(self.variants, plans)))
        for column, split in enumerate(self.splits):
            table[f"{split.name}_accuracy"] = correct[:, column] / len(split)
            # From counts, so that a loss of exactly 1 pp is exactly 1.
            table[f"{split.name}_loss_pp"] = 100 * (original[0, column] - correct[:, column]) / len(split)
        return table

    def describe(self) -> dict:
        """What its counts depend on besides the plan, JSON-ready."""
        splits = [[split.dataset, split.name, len(split)] for split in self.splits]
        return self.variants.describe() | {"splits": splits}

    def under(self, variants: Others) -> "Evaluator[Others]":
        """An evaluator like this one for other variants of the same layers; the proof is not repeated, and no plan is known yet.

        The two must not work at the same time. Raises `UserError` for variants of other layers, and for a method that may replace
        operations, which a proof of its own is needed for.
        """
        if isinstance(variants, Operations):
            raise UserError(f"{type(variants).__name__} may replace operations, so it needs an evaluator of its own")
        if list(variants.layers) != list(self.variants.layers):
            raise UserError(f"variants must have the layers {', '.join(self._names)}, got others")
        other = cast("Evaluator[Others]", copy.copy(self))
        other.variants, other._known, other._work = variants, {}, np.zeros_like(self._work)
        other._asked = other._repeated = other._referred = 0
        other._chunks = other._divided(self.splits)
        return other

    @property
    def kept_bytes(self) -> int:
        """Memory that kept activations take now."""
        return sum(shelf.nbytes for chunk in self._chunks for shelf in chunk.shelves)

    def release(self) -> None:
        """Free the memory of kept activations; the known counts of plans stay."""
        if self.kept_bytes:
            for chunk in self._chunks:
                for shelf in chunk.shelves:
                    shelf.clear()
            backend.return_memory()

    @property
    def computed(self) -> np.ndarray:
        """Images that went through each stage so far, int64 (stages,)."""
        return self._work[:, 0].copy()

    def explain(self) -> str:
        """What has been computed so far, what was reused, and why, a line each."""
        images = int(self.images.sum())
        lines = [
            f"{self._asked} plans asked for, {self._repeated} of them asked before",
            f"{images} images in {len(self._chunks)} chunks on {self.threads} thread(s) of {self.device}, {len(self._stages)} stages:",
        ]
        for columns, (computed, reused) in zip(self._columns, self._work, strict=True):
            names = ", ".join(self.variants.layers[column].name for column in columns)
            lines.append(
                f"  {names}: computed {computed / images:.1f} times, taken from what earlier calls left {reused / images:.1f} times"
            )
        lines.append(
            f"most recent activations kept, by stage: {', '.join(str(shelf.slots) for shelf in self._chunks[0].shelves)}"
        )
        lines.append(f"{self._referred} images too close to call, decided by the plain forward pass")
        return "\n".join(lines)

    # --- preparation ------------------------------------------------------------------------------------------------------------

    def _prepare(self, chunk: int | None, memory: int) -> None:
        """Cut the network into stages that are proven to agree with it, or use its plain forward pass."""
        answers.fitting_images(self._model, self.splits)
        some = self.splits[0].images[: answers.PROBED].to(self.device).float() / 255
        proof.refuse_idle_weights(self._model, self._names, some[:2])
        self._together = answers.together(self._model, some)
        own = [self.variants.stage] if isinstance(self.variants, Operations) else []
        cut = stages.cut(self._model, self._names, some, proof.others(self._model, self._names, 1), *own)
        self._arrange(cut, chunk, memory)
        self._plain = bool(why := cut.why or self._disagreement())
        self._work[:] = 0
        if self._plain:
            self._arrange(stages.whole(self._model, self._names, some, why), chunk, memory)
            warnings.warn(
                f"{type(self._model).__name__} is measured by its plain forward pass, which is slower: {why}", stacklevel=4
            )

    def _arrange(self, cut: Cut, chunk: int | None, memory: int) -> None:
        """Make everything that depends on how the network is cut."""
        self._stages, self._columns, self._shapes = cut.stages, cut.columns, cut.shapes
        self._order = [column for columns in self._columns for column in columns]
        self._ends = np.cumsum([len(columns) for columns in self._columns]).tolist()
        sizes = [4 * shape.numel() for shape in self._shapes]  # bytes of the activation of an image
        total = int(self.images.sum())
        self._chunk = (
            activation_cache.size(total, sizes, cut.inside, self.threads, self.device, getattr(self.variants, "together", None))
            if chunk is None
            else max(1, chunk)
        )
        self._slots = activation_cache.share_out(memory, sizes, total)
        self._chunks = self._divided(self.splits)
        self._siblings = max(
            1, min(prefix_tree.BRANCHES, SIBLINGS_BYTES // (self._chunk * max(sizes)), *filter(None, self._slots))
        )
        # Each thread takes one, because a module holds the weights that it is called with.
        self._replicas: SimpleQueue[tuple[nn.Module, list[Stage]]] = SimpleQueue()
        for _ in range(self.threads):
            self._replicas.put(copy.deepcopy((self._model, self._stages)))
        self._work = np.zeros((len(self._stages), 2), dtype=np.int64)  # images through each stage: computed, kept from earlier

    def _divided(self, splits: Sequence[Split]) -> list[Chunk]:
        return activation_cache.divide(splits, self._chunk, self._stages, self._shapes, self._slots, self.device)

    def _disagreement(self) -> str:
        """Why the stages do not agree with the network, "" if they do. Sets the margin from their differences."""
        columns = [self._names[layer] for layer in self._order]
        weights: dict[tuple[int, int], Replacement] = {**proof.weights(self._model, columns)}
        if isinstance(self.variants, Operations):  # its first and last variants
            for column, layer in enumerate(self._order):
                last = self.variants.count(int(self.variants.groups[layer]))
                weights |= {(column, -1): self.variants.weight(layer, 1), (column, -2): self.variants.weight(layer, last)}
        parts = self._divided(proof.parts(self.splits[0], self._chunk))
        stage_logits: dict[tuple[int, tuple[int, ...]], list[torch.Tensor]] = defaultdict(list)  # by part and plan
        with self._replica() as (copy, stages), answers.probing(), backend.threads(1):
            try:
                for rows, part in product(proof.rows(len(columns)), range(len(parts))):

                    def keep(group: list[int], logits: np.ndarray, rows: np.ndarray = rows, part: int = part) -> None:
                        for row, each in zip(group, logits, strict=True):
                            stage_logits[part, tuple(rows[row].tolist())].append(torch.from_numpy(each.T))

                    self._walk(parts[part], rows, weights, stages, keep)
            except Exception as error:  # stages that work for a few images may fail for others
                return f"its stages fail ({in_a_line(error)})"
            for (part, row), by_stages in stage_logits.items():
                images = parts[part].images.float() / 255
                expected = proof.plain(copy, columns, [weights[each] for each in enumerate(row)], images)
                if not all(answers.alike(logits, expected) for logits in by_stages):
                    variants = [
                        tuple(weights[c, row[c]] for c in range(end - len(stage_columns), end))
                        for stage_columns, end in zip(self._columns, self._ends, strict=True)
                    ]
                    with contract.replaced(
                        copy, {name: weights[each] for name, each in zip(columns, enumerate(row), strict=True)}
                    ):
                        return proof.blame(copy, self._stages, variants, images)
                differences = [float((logits - expected).abs().nan_to_num().max()) for logits in by_stages]
                largest = answers.largest(expected)
                margin = max(MARGIN * largest, SAFETY * max(differences))
                if not self._relative or not any(row):  # of operations: what the original weights show is the least margin
                    self._margin = max(self._margin, margin)
                self._part = max(self._part, margin / max(largest, 1e-12))
        return ""

    # --- the walk ---------------------------------------------------------------------------------------------------------------

    def _evaluate(self, plans: np.ndarray) -> np.ndarray:
        """Correct images, int64 (n, splits), of distinct, sorted plans (n, groups)."""
        rows = plans[:, self.variants.groups[self._order]]  # a column per layer, in the order of the stages
        order = np.lexsort(rows.T[::-1])
        correct = np.zeros((len(plans), len(self.splits)), dtype=np.int64)
        for part in self._portions(rows[order]):
            correct[order[part]] = self._count(rows[order[part]])
        return correct

    def _portions(self, rows: np.ndarray) -> Iterator[slice]:
        """Sorted rows in as few portions as possible, each with at most `WEIGHTS_BYTES` of weights."""
        sizes = [self.variants.layers[layer].weights * 4 for layer in self._order]
        start, needed = 0, set[tuple[int, int]]()
        for row, plan in enumerate(rows.tolist()):
            added = set(enumerate(plan))
            if row > start and sum(sizes[column] for column, _ in needed | added) > WEIGHTS_BYTES:
                yield slice(start, row)
                start, needed = row, set()
            needed |= added
        yield slice(start, len(rows))

    def _count(self, rows: np.ndarray) -> np.ndarray:
        """Correct images, int64 (n, splits), of distinct, sorted rows (n, layers)."""
        weights = self._weights(rows)
        correct = np.zeros((len(rows), len(self.splits)), dtype=np.int64)
        close: dict[tuple[int, int], list[int]] = defaultdict(list)  # images by plan and split

        def through(chunk: Chunk) -> None:
            counts, near = np.zeros(len(rows), dtype=np.int64), list[tuple[int, int]]()

            def take(group: list[int], logits: np.ndarray) -> None:
                right, unclear = tally(logits, chunk.labels, self._margins(logits))
                counts[group] = right
                near.extend((group[variant], int(image)) for variant, image in np.argwhere(unclear))

            with self._replica() as (_, stages):
                self._walk(chunk, rows, weights, stages, take)
            with self._lock:
                correct[:, chunk.split] += counts
                for row, image in near:
                    close[row, chunk.split].append(chunk.start + image)

        def decide(case: tuple[tuple[int, int], list[int]]) -> None:
            (plan, split), images = case
            with self._replica() as (model, _):
                correct[plan, split] += self._decide(rows[plan], split, images, weights, model)

        # By default a new thread has as many torch threads as there are cores.
        with ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            if self._plain:
                close |= {
                    (row, split): list(range(len(each))) for row in range(len(rows)) for split, each in enumerate(self.splits)
                }
                self._work[0, 0] += len(rows) * int(self.images.sum())
            else:
                list(pool.map(torch.inference_mode()(through), self._chunks))
                self._referred += sum(map(len, close.values()))
            list(pool.map(torch.inference_mode()(decide), close.items()))
        return correct

    def _margins(self, logits: np.ndarray) -> np.ndarray:
        """The margin of each variant, float64 (variants,), given logits (variants, classes, n).

        Operations may change the size of logits by orders of magnitude: their margin grows with the largest logit.
        """
        margins = np.full(len(logits), self._margin)
        return np.maximum(margins, self._part * np.abs(logits).max(axis=(1, 2))) if self._relative else margins

    @contextmanager
    def _replica(self) -> Iterator[tuple[nn.Module, list[Stage]]]:
        replica = self._replicas.get()
        try:
            yield replica
        finally:
            self._replicas.put(replica)

    def _walk(
        self, chunk: Chunk, rows: np.ndarray, weights: dict, stages: list[Stage], take: Callable[[list[int], np.ndarray], None]
    ) -> None:
        work = prefix_tree.walk(chunk, rows, weights, stages, self._ends, self._siblings, take)
        with self._lock:
            self._work += work * len(chunk.labels)

    def _weights(self, rows: np.ndarray) -> dict[tuple[int, int], Replacement]:
        """The replacements of every layer under the variants that occur in rows, by (column of rows, variant)."""
        weights: dict[tuple[int, int], Replacement] = {}
        for column, layer in enumerate(self._order):
            original = models.weight(self._model, self.variants.layers[layer].name)
            for variant in np.unique(rows[:, column]).tolist():
                replacement = original if variant == 0 else self.variants.weight(layer, variant)
                weights[column, variant] = replacement.to(original) if isinstance(replacement, torch.Tensor) else replacement
        return weights

    def _decide(self, row: np.ndarray, split: int, images: list[int], weights: dict, model: nn.Module) -> int:
        """How many of some images are classified correctly by the plain forward pass of `model`, a copy of the whole network."""
        data, right, chunk = self.splits[split], 0, self._together
        replacements = {self._names[self._order[column]]: weights[column, variant] for column, variant in enumerate(row.tolist())}
        with contract.replaced(model, replacements):
            for start in sorted({image - image % chunk for image in images}):
                x = data.images[start : start + chunk].to(self.device).float() / 255
                hits = answers.forward(model, x).argmax(1).cpu() == data.labels[start : start + chunk]
                right += int(hits[[image - start for image in images if start <= image < start + chunk]].sum())
        return right
