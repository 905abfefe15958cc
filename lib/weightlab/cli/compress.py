"""`weightlab compress`: write a network as a small file, under a plan or as small as a loss allows."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weightlab.cli import choices, options, output, plans, smallest
from weightlab.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from weightlab.data import Split
    from weightlab.packing import Packed


@options.asks(options.planned)
def compress(
    ctx: typer.Context,
    output_file: options.Output,
    fields: None = None,
    plan: options.Plan = None,
    source: options.Source = None,
    within: Annotated[
        float | None,
        options.option("The loss in percentage points on validation images that the network must stay below.", default="1.0"),
    ] = None,
    level: Annotated[
        int | None,
        options.option(
            "Without a plan: 0 uses no data, 1 calibrates on unlabelled images, 2 also trains centroids with their classes.",
            default="1 where there are data",
        ),
    ] = None,
    price: Annotated[
        float | None,
        options.option(
            "Without a plan: what a bit for every weight is worth, in nats of the loss; found by --within if not given.",
            "--lambda",
        ),
    ] = None,
    half_rest: Annotated[bool, typer.Option("--half-rest", help="Store biases and batch norm as float16.")] = False,
    no_entropy: Annotated[bool, typer.Option("--no-entropy", help="Store labels at equal bits, not entropy coded.")] = False,
    no_data: Annotated[bool, typer.Option("--no-data", help="Load no images, measure no accuracy.")] = False,
    input: options.Input = None,
    force: options.Force = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Write a network as a packed file: under a plan, or without one as small as a loss allows."""
    from weightlab import backend, models, packing, sharing
    from weightlab.packing import packed_format

    output.check(output_file, force)
    backend.device(device)
    backend.check_threads(threads)
    if plan is None and source is None:
        return _smallest(ctx.params, output_file, input, device, threads)
    for name, value in (("level", level), ("lambda", price)):
        if value is not None:
            raise UserError(f"--{name} is about a file without a plan, got {value} beside a plan")
    choice = plans.choice(ctx.params | {"within": smallest.WITHIN if within is None else within})
    setting = choice.setting
    model = models.load(setting.network, weights=setting.weights)
    splits = [] if no_data else choices.splits(setting.dataset, ctx.params["images"])
    example = _example(model, splits, input, setting.network)
    books = sharing.codebooks(model, choice.plan, setting.format, setting.method, example)
    choice = choice.of(books.names)
    arguments = model, choice.plan, setting.format, setting.method, choice.lifts(books.names), example
    stored: dict[str, Any] = {"rest": packing.RESTS[half_rest], "entropy_coded": not no_entropy, "network": setting.network}
    stored["codebooks"] = books
    content = packing.pack(*arguments, **stored)
    packed = packing.Packed(*packed_format.check(content, limit_bytes=sys.maxsize), content)  # it is no foreign file
    accuracy = _accuracy(model, packed.load(model), splits, device, threads)
    packed = packing.write(output_file, *arguments, accuracy=accuracy, **stored)
    _print(output_file, packed)


def _smallest(params: dict, output_file: Path, input: str | None, device: str, threads: int | None) -> None:
    """Without a plan: what loses too much is not written."""
    from weightlab import backend, models, packing
    from weightlab.tuning import rate_distortion

    setting = smallest.chosen(params)
    model = models.load(setting.network, weights=setting.weights)
    splits = [] if params["no_data"] else choices.splits(setting.dataset, params["images"])
    example = _example(model, splits, input, setting.network)
    if example is None:  # a network of this library
        example = smallest.blank(setting.dataset)
    with backend.threads(threads):
        found = smallest.found(model, setting, splits, example, params, device)
    compressed, options = found.compressed, {"network": setting.network, "version": 2}
    accuracy = _accuracy(model, compressed.apply(model), splits, device, threads)
    packed = packing.write_compressed(output_file, model, compressed, accuracy=accuracy, **options)
    output.table(packed.report().rename(columns={"bits": "bits a label", "stored_bits": "stored bits", "rms_error": "rms error"}))
    _print(output_file, packed)
    print(f"level {found.level} ({rate_distortion.LEVELS[found.level]}), lambda {found.price:.4g}")


def _example(model: "nn.Module", splits: "list[Split]", input: str | None, network: str) -> "torch.Tensor | None":
    """A batch of images to find the order of layers with; raises `UserError` if one is needed and there is none."""
    import torch

    from weightlab.networks import answers
    from weightlab.networks import own as own_networks

    if splits:
        return answers.fitting_images(model, splits)
    if input is not None:
        return torch.zeros(1, *options.shape(input))
    if own_networks.is_own(network):
        raise UserError(
            f"without data, give the shape of an image of {network} with --input, such as 1,32,32; it is needed to find the layers"
        )
    return None


def _accuracy(original: "nn.Module", packed: "nn.Module", splits: "list[Split]", device: str, threads: int | None) -> list[dict]:
    from weightlab import training

    before, after = (training.accuracies(model, splits, (1,), device, threads).to_dict("records") for model in (original, packed))
    return [
        {"split": f"{a['dataset']} {a['split']}", "images": a["images"], "original": a["accuracy"], "packed": b["accuracy"]}
        for a, b in zip(before, after, strict=True)
    ]


def _print(file: Path, packed: "Packed") -> None:
    summary = packed.summary()
    print(f"{file}: {summary['file_bytes']} bytes, the original has {summary['original_bytes']}")
    print(f"storage rate {summary['storage_rate']:.3f}, file rate {summary['file_rate']:.3f} (everything counted)")
    output.accuracies(packed.details.accuracy)
