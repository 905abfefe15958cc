"""What commands print and write."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from weightlab.errors import UserError, choose, plain

if TYPE_CHECKING:
    import pandas as pd

    from weightlab.packing.metadata import Measured


def table(frame: "pd.DataFrame", apart: str | None = None) -> None:
    """Print a table on stdout: as wide as it needs where no terminal sets a width; floats with three decimals.

    Where it is too wide, numbers get no more than they need, and texts of the column `apart` follow below, by number.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    width = None if sys.stdout.isatty() else 10_000
    console = Console(markup=False, highlight=False, emoji=False, width=width)
    below = list(frame[apart]) if apart and 2 * frame[apart].map(len).max() > console.width else []
    if below:
        frame = frame.assign(**{str(apart): range(1, len(frame) + 1)})
    rows = [
        [f"{value:.3f}" if isinstance(value, float) else plain(value) for value in row] for row in frame.itertuples(index=False)
    ]
    tight = sum(max(map(len, column)) + 3 for column in zip(map(str, frame), *rows, strict=True)) > console.width
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=not tight, collapse_padding=tight)
    for place, name in enumerate(frame):
        numeric = frame[name].dtype.kind in "iuf"
        grid.add_column(plain(name), justify="right" if numeric else "left", overflow="fold")
        if numeric and tight:
            grid.columns[-1].max_width = max(len(each) for each in [*plain(name).split(), *(row[place] for row in rows)])
    for row in rows:
        grid.add_row(*row)
    console.print(grid)
    for number, text in enumerate(below, 1):
        print(f"{apart} {number}: {plain(text)}")


def accuracies(measured: "Iterable[Measured]") -> None:
    """Print the accuracies that a packed file states, one a line."""
    for each in measured:
        loss = 100 * (each.original - each.packed)
        text = f"{percent(each.packed)} of {each.images} images, {percent(each.original)} before (loss {loss:.2f} pp)"
        print(f"{plain(each.split)}: {text}")


def note(sentence: str) -> None:
    """Print on stderr a sentence that is not a result."""
    print(plain(sentence), file=sys.stderr)


def check(file: Path, force: bool, kinds: Iterable[str] = ()) -> None:
    """Raise `UserError`, before work starts, if a file may not be written or is of another kind (ending) than `kinds`."""
    if kinds:
        choose("kind of file", file.suffix, kinds)
    if file.is_dir():
        raise UserError(f"{file} is a folder; name a file to write")
    if file.exists() and not force:
        raise UserError(f"{file} exists; --force overwrites it")
    place = next(parent for parent in file.absolute().parents if parent.exists())
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise UserError(f"{file} cannot be written, because {place} is not a writable folder")


def write(file: Path, content: bytes) -> None:
    """Write a file, whole or not at all; raises `UserError` if it cannot be written."""
    from weightlab import storage

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        storage.write_whole(file, content)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error}") from error


def percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"
