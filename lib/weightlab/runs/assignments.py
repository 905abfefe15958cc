"""One network whose convolutions multiply with the circuits of a library: every assignment measured, chosen ones confirmed on test."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from weightlab import data, models, training
from weightlab.compression.multipliers.method import Multipliers
from weightlab.compression.multipliers.settings import Multiplying
from weightlab.evaluation import Evaluator
from weightlab.runs import enumeration
from weightlab.search import space

MEASURED_ON = ("validation", "test")


class Assignments:
    """A network of this library under assignments of multipliers, one number from 1 for each convolution.

    `images` limits validation and test to their first images. Every table has the columns plan, energy (relative to exact multipliers
    everywhere), and for each split measured its accuracy (fraction) and loss_pp (points below the float network).
    """

    def __init__(
        self, network: str, compression: Multiplying, images: int | None = None, threads: int | None = None, device: str = "auto"
    ):
        self.network, self.compression, self._threads, self._device = network, compression, threads, device
        self.dataset = training.dataset_of(network)
        self.splits = {name: data.load(self.dataset, name).first(images) for name in MEASURED_ON}
        self.model = models.load(network)
        self.method: Multipliers = compression.make(self.model, training_images=lambda: data.load(self.dataset, "train").images)

    @property
    def layers(self) -> pd.DataFrame:
        """A row for each convolution: layer, weights, multiplications per image, and their share in percent."""
        products = self.method.multiplications
        columns = {"layer": self.method.names, "weights": [layer.weights for layer in self.method.layers]}
        return pd.DataFrame(columns | {"multiplications": products, "share_pct": 100 * products / products.sum()})

    @cached_property
    def chooser(self) -> Evaluator[Multipliers]:
        """Measures validation alone: what searches and choices see."""
        return Evaluator(self.model, self.method, [self.splits["validation"]], self._device, self._threads)

    @cached_property
    def judge(self) -> Evaluator[Multipliers]:
        """Measures both splits: for what was chosen."""
        return Evaluator(self.model, self.method, list(self.splits.values()), self._device, self._threads)

    def every(self, folder: str | Path, progress: bool = True) -> pd.DataFrame:
        """Every assignment on validation, with objectives accuracy and rate (1 / energy); kept below the folder, resumed there."""
        belongs = json.dumps(self.chooser.describe(), sort_keys=True).encode()
        own = Path(folder) / f"box-{hashlib.sha256(belongs).hexdigest()[:16]}"
        box = space.full(len(self.method.names), self.compression.candidates)
        table = pd.concat(enumeration.measure(self.chooser, box, own, progress=progress), ignore_index=True)
        self.chooser.release()
        return self._with_energy(table).assign(accuracy=table["validation_accuracy"], rate=table["energy_rate"])

    def confirmed(self, plans: Sequence[Sequence[int]]) -> pd.DataFrame:
        """Some assignments on validation and test."""
        rows = np.array([list(map(int, plan)) for plan in plans], dtype=np.int64).reshape(-1, len(self.method.names))
        return self._with_energy(self.judge.measure(rows).assign(plan=list(rows)))

    def named(self, plan: Sequence[int]) -> str:
        """An assignment by the names of its multipliers, such as 1AGV/185Q/17KS."""
        return "/".join(self.method.library.names[number - 1] for number in plan)

    def _with_energy(self, table: pd.DataFrame) -> pd.DataFrame:
        plans = np.stack(table["plan"])
        measures = [column for column in table if str(column).startswith(MEASURED_ON)]
        front = pd.DataFrame({"plan": list(plans), "energy": self.method.energy(plans)})
        return pd.concat([front, table[measures].reset_index(drop=True)], axis=1)
