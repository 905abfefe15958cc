"""Tables of what becomes of one network: at prices of a bit, within a loss, under plans; bytes of the file as written, and losses."""

import sys
from collections.abc import Sequence

import pandas as pd
import torch
from torch import nn

from weightlab import backend, data, models, packing, sharing, training
from weightlab.compression.compressed import Compressed
from weightlab.packing import packed_format
from weightlab.tuning.rate_distortion import compression, tuned

MEASURED_ON = ("validation", "test")
MEASURES = ["file_bytes", "bits_per_weight", "coded_rate", *(f"{split}_loss_pp" for split in MEASURED_ON)]


class Subject:
    """A network, the training images that it is compressed with, and the images that measure its losses.

    `images` limits validation and test to their first images, `calibration_images` the training images that can be drawn at levels 1 and 2.
    Every table has the columns `MEASURES`, of which bits_per_weight counts the whole file; `draw` is the seed that draws images.
    """

    def __init__(
        self, network: str, images: int | None = None, calibration_images: int | None = None, threads: int | None = None
    ):
        dataset = training.dataset_of(network)
        self.name, self.model, self.threads = network, models.load(network), threads
        self.splits = {name: data.load(dataset, name).first(images) for name in MEASURED_ON}
        self.train = data.load(dataset, "train").first(calibration_images)
        self.example = self.train.images[:1].float() / 255
        layers = models.layers(self.model, self.example)
        self.layers, self.weights = len(layers), sum(layer.weights for layer in layers)
        self._original = self._accuracies(self.model)

    def at_prices(self, level: int, prices: Sequence[float], draw: int, steps: int = tuned.STEPS) -> pd.DataFrame:
        """A row for each price; besides network, level, price, draw and steps of training, the numbers that these trained."""
        with backend.threads(self.threads):
            at = compression.at_price(
                self.model, **self._images(level), level=level, example=self.example, seed=draw, steps=steps
            )
            files = [at(price).compressed for price in prices]
            rows = [
                {"price": price} | self._row(each) | {"trained_numbers": self._trained(each) if level == 2 else 0}
                for price, each in zip(prices, files, strict=True)
            ]
        return self._table(rows, level=level, draw=draw, steps=steps if level == 2 else 0)

    def smallest(self, level: int, within: float, draw: int) -> pd.DataFrame:
        """One row: the smallest file that loses less than `within` pp on validation, and the number of prices that were tried."""
        options = {"within": within, "validation": self.splits["validation"], "example": self.example, "seed": draw}
        with backend.threads(self.threads):
            found = compression.compress(self.model, **self._images(level), level=level, **options)  # type: ignore[arg-type]  # several types
        row = {"price": found.price, "prices": len(found.trials)} | self._row(found.compressed)
        return self._table([row], level=level, draw=draw)

    def under_plans(self, plans: pd.DataFrame) -> pd.DataFrame:
        """`plans`, with columns format, method and plan (one k a layer), as files of version 2; those of other numbers of layers are left out."""
        tables = []
        for (format, method), rows in plans[plans["plan"].map(len) == self.layers].groupby(["format", "method"], sort=False):
            books = sharing.codebooks(self.model, list(rows["plan"].iloc[0]), format, method, self.example)
            made = [self._row(sharing.compressed(books, list(map(int, plan)))) for plan in rows["plan"]]
            tables.append(rows.reset_index(drop=True).drop(columns=MEASURES, errors="ignore").join(pd.DataFrame(made)))
        return pd.concat(tables or [plans[:0].reindex(columns=[*plans, *MEASURES])], ignore_index=True)

    def _images(self, level: int) -> dict[str, torch.Tensor | None]:
        return {"images": self.train.images if level else None, "classes": self.train.labels if level == 2 else None}

    def _row(self, compressed: Compressed) -> dict[str, float]:
        content = packing.pack_compressed(self.model, compressed, version=2)
        summary = packing.Packed(*packed_format.check(content, limit_bytes=sys.maxsize), content).summary()
        now = self._accuracies(compressed.apply(self.model))
        losses = {f"{split}_loss_pp": 100 * (self._original[split] - now[split]) for split in MEASURED_ON}
        own = {
            "file_bytes": len(content),
            "bits_per_weight": 8 * len(content) / self.weights,
            "coded_rate": summary["coded_rate"],
        }
        return own | losses

    def _trained(self, compressed: Compressed) -> int:
        """Lowest value and step of every grid, the centroids of every codebook, and all biases and batch norm."""
        parts = (stored.parts.get("centroids") for stored in compressed.stored)
        shared = sum(2 if part is None else len(part.numbers) for part in parts)
        return shared + sum(value.numel() for value in self.model.parameters() if value.dim() <= 1)

    def _accuracies(self, model: nn.Module) -> dict[str, float]:
        measured = training.accuracies(model, self.splits.values(), tops=[1], threads=self.threads)
        return measured.set_index("split")["accuracy"].to_dict()

    def _table(self, rows: Sequence[dict], **common: int) -> pd.DataFrame:
        return pd.DataFrame([{"network": self.name} | common | row for row in rows])
