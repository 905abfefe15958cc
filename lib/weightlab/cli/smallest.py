"""`weightlab compress` without a plan: the smallest file within a loss, from one number (see `tuning.rate_distortion`)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from weightlab.cli import choices, output
from weightlab.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from weightlab.data import Split
    from weightlab.runs.setting import Setting
    from weightlab.tuning.rate_distortion import Found

WITHIN = 1.0  # percentage points
PLANNED = ("method", "format", "protocol", "half_rest", "no_entropy")  # options that belong to a plan


def chosen(params: Mapping) -> "Setting":
    """What is compressed; raises `UserError` for options that only a plan has, or that need data."""
    if given := [name for name in PLANNED if params.get(name)]:
        raise UserError(
            f"--{given[0].replace('_', '-')} needs a plan, with --plan or with --from; without one the file is as small as it gets"
        )
    if params["within"] is not None and params["price"] is not None:
        raise UserError("give --within or --lambda, not both: the first finds the second")
    if params["no_data"] and params["within"] is not None:
        raise UserError("--within needs data, on which the loss is measured; with --no-data give --lambda")
    if params["no_data"] and params["level"]:
        raise UserError(f"--level {params['level']} needs data to calibrate on; --level 0 needs none")
    return choices.setting(params)


def found(
    model: "nn.Module", setting: "Setting", splits: "list[Split]", example: "torch.Tensor | None", params: Mapping, device: str
) -> "Found":
    """The compressed network, with progress on stderr."""
    from weightlab.tuning import rate_distortion

    level = params["level"] if params["level"] is not None else int(bool(splits))
    price, within = params["price"], params["within"]
    if price is None and within is None and splits:
        within = WITHIN
    given = _given(setting, splits, level) if level and splits else None

    def told(trial: dict) -> None:
        output.note(f"lambda {trial['price']:.4g}: {trial['bytes']} bytes, loses {trial['loss_pp']:.2f} pp on validation")

    result = rate_distortion.compress(
        model,
        given.images if given else None,
        classes=given.labels if given and level == 2 else None,
        within=within,
        validation=splits[0] if within is not None else None,
        price=price,
        level=level,
        example=example,
        device=device,
        progress=told,
    )
    if result.plainly:
        output.note(f"{', '.join(result.plainly)}: their inputs could not be had, so they were compressed without calibration")
    return result


def blank(dataset: str) -> "torch.Tensor":
    """An image as networks of this library take it, without loading the dataset; of a user's own it is grey."""
    import torch

    from weightlab.data import splits

    return torch.zeros(1, *splits.SHAPES.get(dataset, (1, splits.IMAGE_SIZE, splits.IMAGE_SIZE)))


def _given(setting: "Setting", splits: "list[Split]", level: int) -> "Split":
    """Training images where the data have them, else at level 1 validation images, whose classes are not used for this."""
    from weightlab import data

    try:
        return data.load(setting.dataset, "train")
    except UserError as error:
        if level == 2:
            raise UserError(f"level 2 needs training images with their classes: {error}") from error
        output.note(f"calibrated on validation images, without their classes: {error}")
        return splits[0]
