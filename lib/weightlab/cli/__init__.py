"""The `weightlab` command: one function a subcommand, in the order in which they are used.

Slow imports stand inside functions, so that help and errors appear at once.
"""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from weightlab import errors
from weightlab.cli import (
    compress,
    evaluate,
    export,
    files,
    laboratory,
    multiplier_search,
    multipliers,
    options,
    output,
    scan,
    search,
    tune,
)

CHECKPOINTED = ("search", "tune", "run")  # commands that resume when they are called again


class Commands(TyperGroup):
    """Subcommands, also of a subcommand, whose errors are one sentence (see `errors.run`) and whose warnings are one line, printed once; both on stderr."""

    def invoke(self, ctx: Any) -> None:  # a context of typer's own copy of click, which has no public name
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            printed: set[str] = set()
            warnings.showwarning = lambda message, *_: _tell_once(str(message), printed)
            errors.run(lambda: TyperGroup.invoke(self, ctx), lambda: ctx.invoked_subcommand in CHECKPOINTED)


def _tell_once(message: str, printed: set[str]) -> None:
    """Print a warning unless the same words were printed before."""
    if message not in printed:
        printed.add(message)
        output.note(f"warning: {message}")


app = typer.Typer(
    name="weightlab",
    cls=Commands,
    help="Make trained convolutional networks small by weight sharing, and measure the result.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
circuits = typer.Typer(
    name="multipliers",
    cls=Commands,
    help="Give convolutions approximate multipliers: list them, measure an assignment, or search for assignments.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _add(group: typer.Typer, command: Callable, name: str | None = None) -> None:
    group.command(name, epilog=options.DATA_FORMAT if "data" in inspect.signature(command).parameters else None)(command)


for command in (scan.scan, search.search, tune.tune, compress.compress, files.inspect, evaluate.evaluate, files.unpack,
                export.export, laboratory.run, laboratory.results, laboratory.status, laboratory.report):  # fmt: skip
    _add(app, command)
app.add_typer(circuits)
for command, name in ((multipliers.listed, "list"), (multipliers.evaluate, "evaluate"), (multiplier_search.search, "search")):
    _add(circuits, command, name)


def main() -> None:
    app(prog_name="weightlab")
