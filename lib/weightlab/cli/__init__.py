"""The `weightlab` command: one function a subcommand, in the order in which they are used.

Whatever takes long to import is imported inside functions, so that help and mistakes are answered at once.
"""

import inspect
import warnings
from typing import Any

import typer
from typer.core import TyperGroup

from weightlab import errors
from weightlab.cli import compress, evaluate, export, files, laboratory, options, output, scan, search, tune

CHECKPOINTED = ("search", "tune", "run")  # what is stopped in them goes on


class Commands(TyperGroup):
    """Subcommands whose mistakes end in one sentence (see `errors.run`) and whose warnings take one line, once; both go to stderr."""

    def invoke(self, ctx: Any) -> None:  # a context of typer's own copy of click, which has no public name
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            told: set[str] = set()
            warnings.showwarning = lambda message, *_: _tell_once(str(message), told)
            errors.run(lambda: TyperGroup.invoke(self, ctx), lambda: ctx.invoked_subcommand in CHECKPOINTED)


def _tell_once(message: str, told: set[str]) -> None:
    """Print a warning unless it was told before, in these words, from wherever."""
    if message not in told:
        told.add(message)
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
for command in (scan.scan, search.search, tune.tune, compress.compress, files.inspect, evaluate.evaluate, files.unpack,
                export.export, laboratory.run, laboratory.results, laboratory.status, laboratory.report):  # fmt: skip
    app.command(epilog=options.DATA_FORMAT if "data" in inspect.signature(command).parameters else None)(command)


def main() -> None:
    app(prog_name="weightlab")
