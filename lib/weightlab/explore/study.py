"""The explorer without its widgets: one network, format and method under plans, searched plans, the packed file."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import pandas as pd
from torch import nn

from weightlab import accounting, analysis, data, models, packing, paths, sharing, training
from weightlab.compression.sharing.settings import Sharing
from weightlab.errors import UserError
from weightlab.evaluation import Evaluator
from weightlab.evaluation.activation_cache import KEPT_BYTES
from weightlab.networks import answers
from weightlab.runs import Runner, Specification
from weightlab.runs.folder import RunFolder
from weightlab.runs.setting import RECORDED_SPLITS, Setting
from weightlab.search.fitness import TargetRule
from weightlab.settings import names

FIRST_RATE = 10  # where the target of a small search starts
# Fields that are equal in comparable searches; the checkpoint stands for the weights.
SAME = {*names(Setting, "measured"), "checkpoint", "data", "schema"} - {"weights", *names(Setting, "tried")}
POINTS = ["search", "plan", "storage_rate", "validation_loss_pp"]


class Study:
    """One network, format and method: the rates and losses of plans, and the plans of searches.

    Plans are lists of k, one per layer in `names` (of one k for the whole net). `measure` uses validation only; test is measured
    only by `reported` and `write`. Searches and codebooks are kept in `searches_folder`.
    Only one thread may call `measure`; `search` and `write` may run in other threads at the same time. `splits` that are
    already loaded are not loaded again.
    Raises `UserError` if network, weights or data are not available or do not fit each other.
    """

    def __init__(
        self,
        setting: Setting,
        searches_folder: str | Path,
        threads: int | None = None,
        splits: Sequence[data.Split] | None = None,
    ):
        self.setting, self.folder, self.threads = setting, paths.resolve(searches_folder), threads
        self.model = models.load(setting.network, weights=setting.weights)
        self.splits = splits or [data.load(setting.dataset, name).first(setting.images) for name in RECORDED_SPLITS]
        self.example = answers.fitting_images(self.model, self.splits)
        self.codebooks = cast(Sharing, setting.compression).make(self.model, self.example, self.folder / "codebooks")
        self._coded: dict[tuple[int, int], int] = {}  # bytes by group and k
        # Searches, which measure both splits, have an evaluator of their own: one evaluator is not to be used by two threads.
        half = KEPT_BYTES // len(RECORDED_SPLITS)
        self._evaluator = Evaluator(self.model, self.codebooks, [self.validation], threads=threads, memory=half)
        self.original_accuracy = float(self._evaluator.baseline()[0])  # on validation

    def changed(self, **choices: Any) -> "Study":
        """The study of another network, dataset, format or method."""
        setting = replace(self.setting, **choices)
        same = (setting.dataset, setting.images) == (self.setting.dataset, self.setting.images)
        return Study(setting, self.folder, self.threads, self.splits if same else None)

    @property
    def names(self) -> list[str]:
        """Names of the layers, or of the whole net."""
        return self.codebooks.names

    @property
    def validation(self) -> data.Split:
        return self.splits[RECORDED_SPLITS.index("validation")]

    def check(self, plan: Sequence[int]) -> list[int]:
        """The plan; raises `UserError` unless it fits the network."""
        return sharing.check_plan(self.codebooks, plan)

    def report(self, plan: Sequence[int]) -> pd.DataFrame:
        """`sharing.report` of a plan, with a column bits: those of a label."""
        table = sharing.report(self.codebooks, plan, sharing.choose_books(self.codebooks, plan))
        table.insert(3, "bits", accounting.key_bits(table["k"].to_numpy()))
        return table

    def measure(self, plan: Sequence[int]) -> pd.Series:
        """`Evaluator.measure` of a plan on validation: every rate, `validation_accuracy` and `validation_loss_pp`."""
        return self._evaluator.measure([plan]).iloc[0]

    def rates(self, plan: Sequence[int]) -> dict[str, float]:
        """Every rate of a plan by name, which needs no images."""
        return {name: float(rate) for name, rate in self.codebooks.rates(self.codebooks.check(plan)[0]).items()}

    def reported(self, plan: Sequence[int]) -> pd.DataFrame:
        """Accuracy of the original and of the plan on validation, which chooses, and on test, which reports.

        Columns split, images, original, packed (fractions) and loss_pp.
        """
        shared = models.copied(self.model)
        for group, book in enumerate(sharing.choose_books(self.codebooks, plan)):
            self.codebooks.apply(shared, group, book)
        return compared(self.model, shared, self.splits, self.threads)

    def coded_rates(self, plans: Iterable[Sequence[int]]) -> list[float]:
        """The coded rate of each plan in a file of version 2; what a layer takes at a k is computed once. For one thread at a time."""
        return [4 * int(self.codebooks.weights.sum()) / sum(map(self._coded_bytes, range(len(plan)), plan)) for plan in plans]

    def _coded_bytes(self, group: int, k: int) -> int:
        if (group, k) not in self._coded:
            layers = [layer for layer, its in zip(self.codebooks.layers, self.codebooks.groups, strict=True) if its == group]
            self._coded[group, k] = packing.coded_bytes(self._coded_books.stored(group, k), layers)
        return self._coded[group, k]

    @cached_property
    def _coded_books(self) -> sharing.Codebooks:
        """Codebooks of their own, as those that are measured belong to another thread."""
        return cast(Sharing, self.setting.compression).make(self.model, self.example, self.folder / "codebooks")

    def write(self, file: str | Path, plan: Sequence[int]) -> packing.Packed:
        """Write the plan as a packed file, with the accuracies of `reported`."""
        measured = self.reported(plan).drop(columns="loss_pp").to_dict("records")
        options = {"network": self.setting.network, "accuracy": measured, "codebooks": self.codebooks}
        return packing.write(file, self.model, plan, self.setting.format, self.setting.method, **options)

    def searched(self) -> pd.DataFrame:
        """The plans of all complete searches in the folder on the same network, images, method and format: columns `POINTS`."""
        tables = [pd.DataFrame(columns=POINTS)]
        description = self.setting.describe()
        for file in sorted(self.folder.glob("*/specification.json")):
            try:
                described = json.loads(file.read_bytes())
                same = all(described.get(name) == description.get(name) for name in SAME)
            except (OSError, ValueError, AttributeError):  # somebody else's file: nothing to show of it
                continue
            if same and (records := RunFolder(file.parent).records()) is not None:
                tables.append(records[POINTS])
        return pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]

    def search(
        self,
        search: str,
        budget: int,
        seed: int = 1,
        progress: Callable[[pd.DataFrame], object] = lambda records: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> pd.DataFrame:
        """The records of a small search over all k that are tried; `progress` and `stop` are those of `loop.run`.

        Some plans of the first generation have one k in all layers.
        The target starts at the accuracy of the original and moves with the plans that lose less than 1 pp on validation. Raises
        `loop.Stopped` once `stop` is true; the same call then resumes.
        """
        acceptable = round(self.original_accuracy - analysis.ACCEPTABLE_LOSS_PP / 100, 6)
        target = TargetRule(self.original_accuracy, FIRST_RATE, "batch", limit_accuracy=acceptable)
        rest = {"threshold": None, "uniform_start": True} | {
            each.name: getattr(self.setting, each.name) for each in fields(self.setting)
        }
        spec = Specification(target=target, search=search, seed=seed, budget=budget, **rest)
        runner = Runner(self.folder, threads=self.threads, progress=False, workers=1)  # its evaluator's memory goes with it
        records = runner.run(spec, wait=False, progress=progress, stop=stop)
        if records is None:
            raise UserError(f"another process is running this search in {self.folder / spec.hash}; wait until it has finished")
        return records


def compared(original: nn.Module, other: nn.Module, splits: Sequence[data.Split], threads: int | None) -> pd.DataFrame:
    """Accuracies of two networks: columns split, images, original, packed (fractions) and loss_pp."""
    before, after = (training.accuracies(each, splits, (1,), threads=threads) for each in (original, other))
    table = before[["split", "images"]].assign(original=before["accuracy"], packed=after["accuracy"])
    return table.assign(loss_pp=100 * (table["original"] - table["packed"]))


def best(records: pd.DataFrame) -> pd.Series | None:
    """The plan of highest storage rate that loses less than 1 pp on validation, if there is one."""
    rows = records[records["validation_loss_pp"] < analysis.ACCEPTABLE_LOSS_PP]
    return None if rows.empty else rows.loc[rows["storage_rate"].astype(float).idxmax()]


def blocks(names: Sequence[str], few: int = 12) -> dict[str, list[int]]:
    """The numbers of layers by the name of their block; each layer is a block of its own if there are only a few.

    >>> blocks(["features.1.conv.0.0", "features.1.conv.1", "classifier.1"], few=2)
    {'features.1': [0, 1], 'classifier.1': [2]}
    """
    members: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        members.setdefault(name if len(names) <= few else ".".join(name.split(".")[:2]), []).append(number)
    return members
