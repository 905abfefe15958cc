"""One network whose convolutions multiply with the circuits of a library: every assignment measured, chosen ones confirmed on test."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from weightlab import backend, data, models, training
from weightlab.compression import contract
from weightlab.compression.multipliers.method import Multipliers
from weightlab.compression.multipliers.settings import Multiplying
from weightlab.evaluation import Evaluator
from weightlab.networks import answers
from weightlab.runs import enumeration
from weightlab.runs.setting import RECORDED_SPLITS
from weightlab.search import pareto, space
from weightlab.search.greedy import greedy
from weightlab.search.space import IntegerSpace


class Assignments:
    """A network of this library under assignments of multipliers, a number from 1 for each convolution.

    `images` limits validation and test to their first images. Tables have the columns plan and energy (relative to exact multipliers
    everywhere), and for each split that was measured its accuracy (fraction) and loss_pp (points below the float network).
    """

    def __init__(
        self, network: str, compression: Multiplying, images: int | None = None, threads: int | None = None, device: str = "auto"
    ):
        self.network, self.compression, self._threads, self._device = network, compression, threads, device
        self.dataset = training.dataset_of(network)
        self.splits = {name: data.load(self.dataset, name).first(images) for name in RECORDED_SPLITS}
        self.model = models.load(network)
        self.method: Multipliers = compression.make(
            self.model, training_images=lambda n: data.load(self.dataset, "train", first=n).images
        )

    @property
    def layers(self) -> pd.DataFrame:
        """A row for each convolution: layer, weights, multiplications per image, and their share in percent."""
        products = self.method.multiplications
        columns = {"layer": self.method.names, "weights": [layer.weights for layer in self.method.layers]}
        return pd.DataFrame(columns | {"multiplications": products, "share_pct": 100 * products / products.sum()})

    @property
    def exact(self) -> np.ndarray:
        """The assignment of the exact multiplier to every convolution, (d,)."""
        return np.full(len(self.method.names), self.method.library.exact + 1)

    @property
    def uniform(self) -> np.ndarray:
        """Every assignment of one multiplier to all convolutions, (n, d)."""
        return np.repeat(np.array(self.compression.candidates)[:, None], len(self.method.names), axis=1)

    def space(self, order: str = "power") -> IntegerSpace:
        """All assignments, in which a search sees the multipliers by ascending "power", or "alphabetical"."""
        library = self.method.library
        numbers = [library.names.index(name) + 1 for name in library.ordered(order).names]
        return space.full(len(self.method.names), numbers)

    @cached_property
    def chooser(self) -> Evaluator[Multipliers]:
        """Measures validation alone, which is all that searches and choices see."""
        return Evaluator(self.model, self.method, [self.splits["validation"]], self._device, self._threads)

    def every(self, folder: str | Path, progress: bool = True) -> pd.DataFrame:
        """Every assignment on validation, with the objectives accuracy and rate (1 / energy); kept below the folder, resumed there."""
        belongs = json.dumps(self.chooser.describe(), sort_keys=True).encode()
        own = Path(folder) / f"box-{hashlib.sha256(belongs).hexdigest()[:16]}"
        parts = enumeration.measure(self.chooser, self.space(), own, progress=progress)
        table = pd.concat(parts, ignore_index=True)
        self.chooser.release()
        return self._with_energy(table).assign(accuracy=table["validation_accuracy"], rate=table["energy_rate"])

    def on_validation(self, plans: Iterable[Sequence[int] | np.ndarray]) -> pd.DataFrame:
        """Some assignments on validation, as fast as a search measures them."""
        rows = self._rows(plans)
        return self._with_energy(self.chooser.measure(rows).assign(plan=list(rows)))

    def front(self, measured: pd.DataFrame, highest_pp: float = 5.0) -> pd.DataFrame:
        """The front of `measured` assignments (plan, energy, validation_loss_pp) up to a loss on validation, confirmed."""
        rows = measured.assign(key=measured["plan"].map(tuple)).drop_duplicates("key")
        costs = rows[["validation_loss_pp", "energy"]].to_numpy(float)
        kept = pareto.non_dominated(costs) & (costs[:, 0] <= highest_pp)
        return self.confirmed(rows.loc[kept, "plan"]) if kept.any() else self.confirmed([self.exact])

    def chosen(self, front: pd.DataFrame, evaluations: int, within: float) -> pd.DataFrame:
        """What loses at most `within` pp on validation at the least energy, confirmed, a row per way of choosing (kind).

        "assignment": of a confirmed front, which took so many evaluations; "uniform": one multiplier everywhere; "greedy": layer by layer
        the cheapest that keeps the accuracy; and "exact", whatever it loses. A way that finds none has no row.
        """
        uniform, limit = self.on_validation(self.uniform), self.chooser.baseline()[0] - within / 100 - 1e-9
        found = {
            "assignment": (least_energy(front, within), evaluations),
            "uniform": (least_energy(uniform, within), len(uniform)),
        }
        ways = {kind: (rows["plan"].iloc[0], count) for kind, (rows, count) in found.items() if len(rows)}
        if self.chooser.accuracy(self.exact[None])[0, 0] >= limit:
            by_power = list(self.space("power").lists)
            ways["greedy"] = greedy(lambda plans: self.chooser.accuracy(plans)[:, 0], self.exact, by_power, limit)
        ways["exact"] = self.exact, 1
        table = self.confirmed([plan for plan, _ in ways.values()])
        names = [self.named(plan) for plan in table["plan"]]
        counts = {"kind": list(ways), "named": names, "evaluations": [count for _, count in ways.values()]}
        return table.assign(**counts, chosen_on=len(self.splits["validation"]))

    def confirmed(self, plans: Iterable[Sequence[int] | np.ndarray]) -> pd.DataFrame:
        """Some assignments on validation and test, by the plain forward pass.

        For each split also its images, and how many the float network alone (lost) and the assignment alone (gained) gets right.
        """
        before = {name: self._right(self.model, name) for name in RECORDED_SPLITS}
        rows = []
        for plan in self._rows(plans):
            network, row = models.copied(self.model), {"plan": plan, "energy": float(self.method.energy(plan))}
            contract.apply(self.method, network, plan.tolist())
            for name in RECORDED_SPLITS:
                row |= _paired(before[name], self._right(network, name), f"{name}_")
            rows.append(row)
        return pd.DataFrame(rows)

    def in_batches(self, plans: Iterable[Sequence[int] | np.ndarray], images: int, batch: int = 32) -> pd.DataFrame:
        """Some assignments on the first test images, a row with the ranges of each batch (as tf-approximate) and one with calibrated ones.

        A range of its batch makes an answer depend on the batch, so no search here sees it.
        """
        split, rows = self.splits["test"].first(images), []
        before = self._right(self.model, "test")[:images]
        for plan in self._rows(plans):
            calibrated = models.copied(self.model)
            contract.apply(self.method, calibrated, plan.tolist())
            networks = {"batch": self.method.in_batches(self.model, plan.tolist()), "calibrated": calibrated}
            for ranges, network in networks.items():
                with torch.inference_mode(), backend.threads(self._threads):
                    parts = [network(part.float() / 255).argmax(1) for part in split.images.split(batch)]
                right = (torch.cat(parts) == split.labels).numpy()
                row = {"ranges": ranges, "plan": plan, "energy": float(self.method.energy(plan))}
                rows.append(row | _paired(before, right))
        return pd.DataFrame(rows)

    def named(self, plan: Sequence[int]) -> str:
        """An assignment by the names of its multipliers, such as 1AGV/185Q/17KS."""
        return self.method.library.spelled(plan)

    def _rows(self, plans: Iterable[Sequence[int] | np.ndarray]) -> np.ndarray:
        return contract.check(self.method, np.array([list(map(int, plan)) for plan in plans]))

    def _right(self, network: nn.Module, split: str) -> np.ndarray:
        """Which images of a split a network classifies correctly, bool (n,); threads have copies, and whole chunks of a plain pass."""
        images, labels = self.splits[split].images, self.splits[split].labels
        threads = 1 if self.chooser.device.type == "cuda" else self.chooser.threads
        parts = images.split(answers.TOGETHER * max(1, -(-len(images) // (answers.TOGETHER * threads))))
        tasks = [(models.copied(network), part) for part in parts]
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            outputs = list(pool.map(lambda task: training.logits(task[0], task[1], self._device), tasks))
        return (torch.cat(outputs).argmax(1) == labels).numpy()

    def _with_energy(self, table: pd.DataFrame) -> pd.DataFrame:
        plans = np.stack(table["plan"])
        measures = [column for column in table if str(column).startswith(RECORDED_SPLITS)]
        front = pd.DataFrame({"plan": list(plans), "energy": self.method.energy(plans)})
        return pd.concat([front, table[measures].reset_index(drop=True)], axis=1)


def least_energy(table: pd.DataFrame, within: float) -> pd.DataFrame:
    """The row of least energy that loses at most `within` pp on validation, of equals the one that loses less; no row if there is none."""
    rows = table[table["validation_loss_pp"] <= within + 1e-9]
    return rows.sort_values(["energy", "validation_loss_pp"], kind="stable").head(1)


def _paired(before: np.ndarray, after: np.ndarray, prefix: str = "") -> dict[str, float | int]:
    """Accuracy, loss, and numbers of images, of those that only the first and only the second network gets right."""
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    values = {"accuracy": float(after.mean()), "loss_pp": 100 * (lost - gained) / len(after), "images": len(after)}
    return {prefix + name: value for name, value in {**values, "lost": lost, "gained": gained}.items()}
