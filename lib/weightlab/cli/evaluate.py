"""`weightlab evaluate`: accuracy of a packed file or a network."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weightlab.cli import choices, options, output
from weightlab.errors import UserError

if TYPE_CHECKING:
    from torch import nn

AGREEMENT = 0.001  # fraction: on another machine, an image whose two best classes are nearly tied may be decided otherwise


def evaluate(
    what: Annotated[
        str, typer.Argument(help="A packed file, a network here, or module:factory.", metavar="FILE|NETWORK", show_default=False)
    ],
    network: options.OwnNetwork = None,
    weights: options.Weights = None,
    data: options.Data = None,
    images: options.Images = None,
    limit_bytes: options.Limit = None,
    as_json: options.Json = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Measure the accuracy on validation and test."""
    from weightlab import backend, training
    from weightlab.networks import answers

    backend.device(device)
    backend.check_threads(threads)
    model, name, stored = _network(what, network, weights, limit_bytes)
    splits = choices.splits(data or choices.dataset_of(name), images)
    answers.fitting_images(model, splits)
    rows = training.accuracies(model, splits, (1,), device, threads).to_dict("records")
    rows = [{"split": f"{row['dataset']} {row['split']}", "images": row["images"], "accuracy": row["accuracy"]} for row in rows]
    if stored is not None:
        rows = [row | {"file_says": stored.get((row["split"], row["images"]))} for row in rows]
    if as_json:
        print(json.dumps({"network": name, "accuracy": rows}, indent=1))
    else:
        _print(rows)
    for row in rows:
        if not _agrees(row):
            raise UserError(
                f"{what} has an accuracy of {output.percent(row['accuracy'])} on {row['split']}, "
                f"the file says {output.percent(row['file_says'])}"
            )


def _network(
    what: str, network: str | None, weights: Path | None, limit_bytes: int | None
) -> "tuple[nn.Module, str, dict | None]":
    """A network with its weights, its name, and the accuracies that a packed file states, by split and number of images."""
    from weightlab import models, packing
    from weightlab.networks import own as own_networks

    if what in models.NETWORKS or (own_networks.is_own(what) and not Path(what).is_file()):
        for option, value in (("--network", network), ("--limit-bytes", limit_bytes)):
            if value is not None:
                raise UserError(f"{option} is for packed files, and {what} is a network")
        return models.load(what, weights=weights), what, None
    if not Path(what).exists():
        raise UserError(
            f"{what} is neither a file nor a network; allowed: a packed file, {', '.join(models.NETWORKS)}, module:factory"
        )
    if weights is not None:
        raise UserError(f"--weights is for networks, and {what} is a packed file, which holds its own weights")
    packed = packing.read(what, limit_bytes)
    model = packed.load(choices.network_of(Path(what), packed.details.network, network))
    stored = {(each.split, each.images): each.packed for each in packed.details.accuracy}
    return model, network or packed.details.network, stored


def _agrees(row: dict) -> bool:
    return row.get("file_says") is None or abs(row["file_says"] - row["accuracy"]) <= AGREEMENT


def _print(rows: list[dict]) -> None:
    for row in rows:
        line = f"{row['split']}: {output.percent(row['accuracy'])} of {row['images']} images"
        if (stored := row.get("file_says")) is not None:
            line += f"; the file says {output.percent(stored)}, which {'agrees' if _agrees(row) else 'differs'}"
        print(line)
