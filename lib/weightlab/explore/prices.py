"""A study's network without a plan, compressed at prices of a bit (see `tuning.rate_distortion`); without widgets."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from weightlab import backend, data, packing, training
from weightlab.errors import UserError
from weightlab.explore.study import Study, compared
from weightlab.packing import packed_format
from weightlab.runs.setting import Setting
from weightlab.tuning import rate_distortion
from weightlab.tuning.rate_distortion import CALIBRATION, Found

LEVELS = (0, 1)  # those that answer in seconds
POINTS = ["level", "price", "file_bytes", "coded_rate", "file_rate", "validation_accuracy", "validation_loss_pp"]
ABOUT = (
    "network",
    "checkpoint",
    "dataset",
    "data",
    "images",
)  # what the numbers depend on, whatever the format and method of plans
_compressing = threading.Lock()  # numba's threads are not safe everywhere when two threads start them at the same time


class Prices:
    """One network compressed at prices of a bit: each price once, and what does not depend on the price once for each level.

    `measure` uses the classes of validation only, and no test image; test is measured only by `write`. Only one thread may call
    `measure`; `write` may run in another one at the same time.
    """

    def __init__(self, study: Study):
        self.model, self.splits, self.validation, self.example = study.model, study.splits, study.validation, study.example
        self.original_accuracy, self.threads, self.network = study.original_accuracy, study.threads, study.setting.network
        self._dataset, self._about = study.setting.dataset, _about(study.setting)
        self._at: dict[int, Callable[[float], Found]] = {}
        self._found: dict[tuple[int, float], Found] = {}
        self._measured: dict[tuple[int, float], pd.Series] = {}
        self._calibrated_on = "training"

    def fits(self, study: Study) -> bool:
        """Whether the study is of the same network and images."""
        return self._about == _about(study.setting)

    @property
    def points(self) -> pd.DataFrame:
        """What was measured, the latest last: columns `POINTS`."""
        table = pd.DataFrame(list(self._measured.values()), columns=POINTS).reset_index(drop=True)
        return table.astype({"level": int, "file_bytes": int})

    def measure(self, level: int, price: float) -> pd.Series:
        """`POINTS` of the network compressed at a price, the last of `points` from now on."""
        key = level, price
        measured = self._measured.pop(key) if key in self._measured else self._measure(level, price)
        self._measured[key] = measured
        return measured

    def _measure(self, level: int, price: float) -> pd.Series:
        with _compressing, backend.threads(self.threads):
            if level not in self._at:
                images = self._images() if level else None
                self._at[level] = rate_distortion.at_price(self.model, images, level=level, example=self.example)
            found = self._found[level, price] = self._at[level](price)
        content = packing.pack_compressed(self.model, found.compressed, version=2)
        summary = packing.Packed(*packed_format.check(content, limit_bytes=sys.maxsize), content).summary()
        accuracy = training.accuracy(found.compressed.apply(self.model), self.validation, threads=self.threads)
        loss = 100 * (self.original_accuracy - accuracy)
        own = {"level": level, "price": price, "validation_accuracy": accuracy, "validation_loss_pp": loss}
        return pd.Series({name: (summary | own)[name] for name in POINTS}, dtype=object)

    def data_used(self, level: int, price: float) -> str:
        """A sentence: which data the numbers of `measure` used."""
        calibration = "Compressed without any image"
        if level:
            calibration = f"Calibrated on up to {CALIBRATION[1]} {self._calibrated_on} images without their classes"
        plainly = self._found[level, price].plainly
        left = f" (but for {', '.join(plainly)}, whose inputs could not be had)" if level and plainly else ""
        return f"{calibration}{left}; accuracy on validation images with their classes; no test image."

    def write(self, file: str | Path, level: int, price: float) -> packing.Packed:
        """Write what was measured at a price as a packed file, with accuracies on validation and on test, which reports."""
        compressed = self._found[level, price].compressed
        table = compared(self.model, compressed.apply(self.model), self.splits, self.threads).drop(columns="loss_pp")
        options = {"network": self.network, "accuracy": table.to_dict("records"), "version": 2}
        return packing.write_compressed(file, self.model, compressed, **options)

    def _images(self) -> torch.Tensor:
        """Training images where the data have them, else validation images, whose classes this does not use."""
        try:
            return data.load(self._dataset, "train").images
        except UserError:
            self._calibrated_on = "validation"
            return self.validation.images


def _about(setting: Setting) -> dict:
    described = setting.describe()
    return {name: described.get(name) for name in ABOUT}
