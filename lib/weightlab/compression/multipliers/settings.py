"""The settings of approximate multipliers. Without numpy and torch, as those of weight sharing."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from weightlab.errors import UserError, check_whole

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn

    from weightlab.compression.multipliers.method import Multipliers
    from weightlab.compression.multipliers.tables import Library

CALIBRATION_IMAGES = 1000


@dataclass(frozen=True, kw_only=True)
class Multiplying:
    """Which multipliers a convolution may take, in which order a search sees them, and how codes are made.

    `library` is a source of `tables.library`; of it, `only` these multipliers (None: all) `without` those. A circuit that gives one number
    for all operands (199Z of EvoApprox8b) is never among them. `order` is "power" or "alphabetical". `tune` and `signed` as in `ApproximateConv2d`; `signed` None is True where
    powers come from a model, because the designs of this project err in one direction at the zero point of affine codes. Ranges of activations come from the first `calibration_images` training
    images. Raises `UserError` for wrong values, and for a library without an exact multiplier.
    """

    library: "str | Path | None" = None
    only: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()
    order: str = "power"
    tune: bool = False
    signed: bool | None = None
    calibration_images: int = CALIBRATION_IMAGES

    whole_net, scanned = False, False  # what `Setting` asks of the settings of any method
    method = "multipliers"

    def __post_init__(self) -> None:
        for name, allowed in (("tune", (True, False)), ("signed", (None, True, False))):
            if not any(getattr(self, name) is each for each in allowed):
                raise UserError(f"{name} must be {' or '.join(map(str, allowed))}, got {getattr(self, name)!r}")
        check_whole("calibration images", self.calibration_images)
        for name in ("only", "without"):
            if (value := getattr(self, name)) is not None and not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))
        _ = self.chosen.exact  # refuses what does not fit
        if self.signed is None:
            object.__setattr__(self, "signed", self.chosen.power_source == "model")

    @property
    def rates(self) -> tuple[str, ...]:
        """What a search may aim at."""
        from weightlab import accounting

        return (*accounting.RATES, "energy")

    @property
    def coding(self) -> str:
        """How weights are coded, in words: affine or signed, and whether they are tuned."""
        return ("signed" if self.signed else "affine") + (", tuned" if self.tune else "")

    @property
    def format(self) -> str:
        """How weights are coded."""
        return "sign_magnitude" if self.signed else "affine_u8"

    @cached_property
    def chosen(self) -> "Library":
        """The multipliers, in the order in which plans number them from 1."""
        from weightlab.compression.multipliers import tables

        whole = tables.library(self.library)
        part = whole if self.only is None else whole.only(self.only)
        idle = [each.name for each in part.multipliers if each.table.min() == each.table.max()]
        return part.without((*self.without, *idle)).ordered(self.order)

    @property
    def candidates(self) -> tuple[int, ...]:
        """The numbers of all multipliers."""
        return tuple(range(1, len(self.chosen.multipliers) + 1))

    def check_published(self) -> None:
        """The published protocol asks nothing of it."""

    def describe(self) -> dict:
        """JSON-ready; the library by its contents, not by its place."""
        own = {"library": self.chosen.describe(), "tune": self.tune, "calibration_images": self.calibration_images}
        return {"method": self.method, "format": self.format, "multipliers": own}

    def make(
        self,
        model: "nn.Module",
        example: "torch.Tensor | None" = None,
        folder: "str | Path | None" = None,
        whole_net: bool = False,
        training_images: "Callable[[int], torch.Tensor] | None" = None,
    ) -> "Multipliers":
        """The variants of a network's convolutions; nothing is kept in the folder.

        `training_images` gives the first n of them. Raises `UserError` without.
        """
        from weightlab.compression.multipliers.method import Multipliers

        if whole_net or training_images is None:
            raise UserError("multipliers are chosen layer by layer, and their ranges need training images")
        images = training_images(self.calibration_images)
        return Multipliers(model, self.chosen, images, self.tune, bool(self.signed), example)
