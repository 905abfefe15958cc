"""What all figures have in common: colours, axes, and how a figure is saved."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from weightlab import analysis, paths, storage

MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def save(figure: Figure, folder: str | Path, name: str) -> Path:
    """Write a figure as `folder/name.png`, whole or not at all; returns the file."""
    file = paths.resolve(folder) / f"{name}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight")
    storage.write_whole(file, buffer.getvalue())
    return file


def panels(columns: int, rows: int = 1, width: float = 5.5, height: float = 3.8, **shared: Any) -> tuple[Figure, np.ndarray]:
    with sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False, **shared)
    figure.set_layout_engine("constrained")
    figure.canvas.mpl_connect("draw_event", lambda _: figure.set_layout_engine("none"))  # laid out once, shown and saved
    plt.close(figure)  # shown where it is the value of a cell, not a second time
    return figure, axes


def styles(names: Iterable) -> dict[str, dict]:
    """A colour and a marker for each name."""
    names = list(names)
    colours = sns.color_palette("colorblind", len(names))
    return {
        name: {"color": colour, "marker": MARKERS[i % len(MARKERS)]}
        for i, (name, colour) in enumerate(zip(names, colours, strict=True))
    }


def limit_line(axes: Axes) -> None:
    axes.axhline(analysis.ACCEPTABLE_LOSS_PP, color="black", linestyle=":", linewidth=1)
    axes.annotate("1 pp", (1, analysis.ACCEPTABLE_LOSS_PP), xycoords=("axes fraction", "data"), xytext=(-2, 2),
                  textcoords="offset points", ha="right", fontsize=8)  # fmt: skip


def log_scale(axes: Axes) -> None:
    """A logarithmic ordinate with plain numbers at 1, 2 and 5."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(ticker.NullLocator())
