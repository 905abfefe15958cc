"""Accuracy of many plans."""

import copy
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from weightlab import backend
from weightlab.data import Split
from weightlab.sharing import Codebooks
from weightlab.training import CHUNK, correct


class Evaluator:
    """Numbers of correctly classified images of one network under many plans, on one or more splits.

    The count of a plan depends on the plan alone: images always come in the same chunks, and a plan met before is answered from
    memory. `model` is left as it is.
    """

    def __init__(
        self,
        model: nn.Module,
        codebooks: Codebooks,
        splits: Sequence[Split],
        device: str = "auto",
        threads: int | None = None,
        chunk: int = CHUNK,
    ):
        self.codebooks, self.splits, self.chunk = codebooks, list(splits), chunk
        self.device, self.threads = backend.device(device), threads
        self._model = copy.deepcopy(model).to(self.device).eval()
        self._weights = {name: value.clone() for name, value in self._model.state_dict().items()}
        self._known: dict[tuple[int, ...], tuple[int, ...]] = {}

    @property
    def images(self) -> np.ndarray:
        """Number of images of each split, int64 (splits,)."""
        return np.array([len(split) for split in self.splits])

    def correct(self, plans: np.ndarray, partial: bool = False) -> np.ndarray:
        """Correctly classified images, int64 (n, splits), for plans (n, groups).

        With `partial` a 0 in a plan leaves that group unshared, as the range scan needs. Raises `UserError` for a wrong plan.
        """
        plans = self.codebooks.check(plans, least=0 if partial else 1)
        with backend.threads(self.threads):
            counts = [self._count(tuple(map(int, plan))) for plan in plans]
        return np.array(counts, dtype=np.int64).reshape(len(plans), len(self.splits))

    def accuracy(self, plans: np.ndarray, partial: bool = False) -> np.ndarray:
        """Fractions of correctly classified images, float64 (n, splits)."""
        return self.correct(plans, partial) / self.images

    def baseline(self) -> np.ndarray:
        """Accuracy of the original network, float64 (splits,)."""
        return self.accuracy([[0] * len(self.codebooks.names)], partial=True)[0]

    def measure(self, plans: np.ndarray) -> pd.DataFrame:
        """A row per plan: every rate, and for each split `<split>_accuracy` (fraction) and `<split>_loss_pp` (percentage points)."""
        accuracy, baseline = self.accuracy(plans), self.baseline()
        table = pd.DataFrame(self.codebooks.rates(self.codebooks.check(plans)))
        for column, split in enumerate(self.splits):
            table[f"{split.name}_accuracy"] = accuracy[:, column]
            table[f"{split.name}_loss_pp"] = 100 * (baseline[column] - accuracy[:, column])
        return table

    def _count(self, plan: tuple[int, ...]) -> tuple[int, ...]:
        if plan not in self._known:
            self._model.load_state_dict(self._weights)
            for group, k in enumerate(plan):
                if k:
                    self.codebooks.apply(self._model, group, self.codebooks.get(group, k))
            with torch.inference_mode():
                self._known[plan] = tuple(correct(self._model, split, str(self.device), self.chunk) for split in self.splits)
        return self._known[plan]
