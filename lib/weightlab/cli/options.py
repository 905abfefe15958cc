"""Options that several commands share, and how their texts are read.

None stands for an option that was not given. The defaults are the library's; the help repeats them, and a test compares them.
"""

import functools
import inspect
import itertools
import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from weightlab.errors import UserError
from weightlab.runs.setting import Setting
from weightlab.settings import Option, Role, leaves

SEARCHES, TUNING = "outputs/cli/searches", "outputs/cli/tuning"  # folders where none is given, below the repository
TARGET = "0.99,18"
THRESHOLD = "-1pp"  # the thesis's, which the library and the notebooks keep, does not fit every network


DATA_FORMAT = """Data of your own are an .npz file or a folder. The file holds images, uint8 (n, channels, height, width), and labels,
integers (n,) from 0, which are cut into validation and test halves; or validation_images, validation_labels, test_images and
test_labels. The folder holds CLASS/PICTURE, cut likewise, or validation/CLASS/PICTURE and test/CLASS/PICTURE. A network is given
value/255, and standardises its images itself if it was trained on such."""


def option(help: str, *names: str, default: str | bool = False, metavar: str | None = None, **rest: Any) -> Any:
    """An option whose default is shown as text, or not at all."""
    return typer.Option(*names, help=help, show_default=default, metavar=metavar, **rest)


Packed = Annotated[Path, typer.Argument(help="A packed file, as compress writes it.", metavar="FILE", show_default=False)]
FIELDS = {role.option.name: role for _, role in leaves(Setting) if role.option}  # of `Setting`, by the name of their option
Weights = Annotated[Path | None, option(FIELDS["weights"].option.help)]
Data = Annotated[str | None, option(FIELDS["data"].option.help, default=FIELDS["data"].option.shown)]
Images = Annotated[int | None, option(FIELDS["images"].option.help, default=FIELDS["images"].option.shown)]
Threshold = Annotated[
    str | None,
    option(
        "Accuracy that a k must reach when only its layer is shared: a fraction (0.97), a margin below unshared (-1pp), or none.",
        default=THRESHOLD,
    ),
]
Seed = Annotated[int | None, option("Seed of the first search.", default="0")]
Plan = Annotated[
    str | None,
    option(
        "Clusters of each layer (3,5,8,2,4, or 64x50 for 50 layers of 64), each:64 for every layer, 64 for one codebook for the whole"
        " net, or a file of tune.",
        metavar="PLAN",
    ),
]
Source = Annotated[
    Path | None, option("A search's folder, or a folder of searches: take the best plan found there.", "--from", metavar="FOLDER")
]
Within = Annotated[float, option("With --from: the loss in percentage points that the plan must stay below.", default=True)]
SearchesFolder = Annotated[Path | None, option("Folder that keeps scans and searches.", default=SEARCHES)]
Device = Annotated[str, option("auto, cpu, cuda or cuda:N.", default=True)]
Threads = Annotated[int | None, option("Threads a process computes with.", default="as many as cores, 1 beside other workers")]
Workers = Annotated[int | None, option("Processes that run searches.", default="as many as cores")]
Scheduler = Annotated[str | None, option("Run searches there: a dask scheduler's address, or a YAML file of params/cluster.")]
OwnNetwork = Annotated[
    str | None,
    option("Whose weights the file holds: a network here, or module:factory of your own.", default="what the file says, if here"),
]
Limit = Annotated[
    int | None, option("Bytes that the unpacked file may take.", metavar="BYTES", default="64 MiB, or 256 times the file")
]
Input = Annotated[str | None, option("Shape of one image, such as 1,32,32, where no data are given.", metavar="SHAPE")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The file to write.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def asks(which: Callable[[Role], object]) -> Callable[[Callable], Callable]:
    """Give a command an option for each field of `Setting` whose role is wanted, in place of its parameter `fields`.

    The command finds their values in its context, like all options. The network is an argument.
    """

    def decorate(command: Callable) -> Callable:
        matching = [role.option for role in FIELDS.values() if role.option and which(role)]
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            parameters += map(_parameter, matching) if parameter.name == "fields" else [parameter]
        own = inspect.signature(command).parameters

        @functools.wraps(command)
        def called(**values: Any) -> Any:
            return command(**{name: value for name, value in values.items() if name in own})

        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return called

    return decorate


def _parameter(field_option: Option) -> inspect.Parameter:
    if field_option.name == "network":
        how = typer.Argument(help=field_option.help, show_default=False)
    else:
        how = option(field_option.help, *field_option.flags, default=field_option.shown, metavar=field_option.metavar)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(field_option.name, kind, default=None, annotation=Annotated[field_option.type | None, how])


def planned(role: Role) -> bool:
    """Whether a command that takes a plan has an option for a field of a setting."""
    return (role.measured and not role.tried and not role.implied) or role.apart


def numbers(text: str) -> list[int] | None:
    """Whole numbers between commas, such as 3,5,8; None for any other text."""
    return [int(number) for number in text.split(",") if number] if re.fullmatch(r"\d+(,\d+)*,?", text) else None


def plan(text: str) -> list[int] | None:
    """The clusters of layers between commas, 64x50 standing for 50 times 64; None for any other text."""
    if not re.fullmatch(r"\d+(x[1-9]\d{0,4})?(,\d+(x[1-9]\d{0,4})?)*,?", text):
        return None
    parts = [part.partition("x") for part in text.split(",") if part]
    return [int(k) for k, _, times in parts for _ in range(int(times or 1))]


def spelled(plan: Iterable[int]) -> str:
    """A plan as `plan` reads it, at least three layers alike in a row as 64x3."""
    runs = [(k, len(list(alike))) for k, alike in itertools.groupby(plan)]
    return ",".join(f"{k}x{n}" if n > 2 else ",".join([str(k)] * n) for k, n in runs)


def ks(text: str) -> dict:
    """The k to try, as `Setting` takes them: every one up to `k_max`, or a tuple `ks`. Raises `UserError` for other texts."""
    from weightlab.compression.sharing import clustering

    clusters = numbers(text)
    if ends := re.fullmatch(r"(\d+):(\d+)(?::([1-9]\d*))?", text):
        first, last, step = int(ends[1]), int(ends[2]), int(ends[3] or 1)
        clustering.check_k(last)
        clusters = list(range(first, last + 1, step))
    if not clusters:
        raise UserError(f"k must be a range such as 1:50 or 1:64:4, or a list such as 2,4,8,16, got {text!r}")
    every = clusters == list(range(1, len(clusters) + 1))
    return {"k_max": clusters[-1]} if every else {"ks": tuple(clusters)}


def pair(name: str, text: str) -> tuple[float, float]:
    """An accuracy (fraction) and a rate; raises `UserError` for any other text."""
    try:
        accuracy, rate = (float(part) for part in text.split(","))
        if not (math.isfinite(accuracy) and math.isfinite(rate)):
            raise ValueError(text)
    except ValueError:
        raise UserError(f"{name} must be an accuracy (fraction) and a rate, such as {TARGET}, got {text!r}") from None
    return accuracy, rate


def shape(text: str) -> tuple[int, ...]:
    """The shape of an image; raises `UserError` for any other text."""
    if not (sizes := numbers(text)) or len(sizes) != 3 or 0 in sizes:
        raise UserError(f"input must be channels, height and width, such as 1,32,32, got {text!r}")
    return tuple(sizes)


def folder(path: Path | None, default: str) -> Path:
    """A folder as the shell means it, or the default below the repository."""
    from weightlab import paths

    return paths.resolve(default) if path is None else Path(os.path.abspath(path))
