"""Small figures that are drawn again whenever a plan changes: quick, and safe to draw in any thread."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from weightlab.analysis.labels import label
from weightlab.figures.base import limit_line

DPI = 80
HIGHEST_LOSS = 5  # pp: other plans that lose more are not shown


def layer_histogram(weights: np.ndarray, centroids: np.ndarray, name: str) -> Figure:
    """Histogram of a layer's weights (n,) with the centroids (k,) that replace them."""
    figure, ax = _small()
    colours = sns.color_palette("colorblind")
    ax.stairs(*np.histogram(weights, 80), fill=True, color=colours[0], alpha=0.7)
    ax.vlines(centroids, 0, 1, transform=ax.get_xaxis_transform(), color=colours[3], linewidth=1)
    ax.set(title=f"{name}: weights and {len(centroids)} centroids", xlabel="weight", ylabel="number of weights")
    return figure


def in_reach(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that a figure shows, by their `validation_loss_pp`."""
    return table[table["validation_loss_pp"] < HIGHEST_LOSS]


def plan_among_searched(
    earlier: pd.DataFrame, here: pd.DataFrame, now: pd.Series, priced: pd.DataFrame | None = None, rate: str = "storage_rate"
) -> Figure:
    """Loss on validation against a rate of plans searched earlier, of those searched here, and of the plan `now` (a star).

    All have `rate` and `validation_loss_pp`. `priced` networks were compressed without a plan and have `level` and `price` as well; the
    last row is the latest, which stands out. What loses more than 5 pp is left out, but for the plan and the latest.
    """
    figure, ax = _small()
    colours = sns.color_palette("colorblind")
    looks: dict[str, tuple[pd.DataFrame, dict]] = {
        "searched earlier": (earlier, {"marker": "o", "color": "0.6", "markersize": 3, "linestyle": ""}),
        "searched here": (
            here,
            {"marker": "s", "color": colours[0], "markersize": 4, "markerfacecolor": "none", "linestyle": ""},
        ),
    }
    large = {"this plan": (now, {"marker": "*", "markersize": 17, "color": colours[8]})}
    if priced is not None:
        levels = {level: {"marker": "vD"[level], "color": colours[[4, 2][level]]} for level in priced["level"].unique()}
        for level, look in levels.items():
            rows = priced[priced["level"] == level].sort_values("price")
            looks[f"lambda, level {level}"] = rows, look | {"markersize": 4, "linewidth": 1}
        latest = priced.iloc[-1]
        large[f"this lambda, {latest['price']:.3g}"] = latest, levels[latest["level"]] | {"markersize": 9}
    farthest = max(row[rate] for row, _ in large.values())
    losses = [row["validation_loss_pp"] for row, _ in large.values()]
    for name, (table, look) in looks.items():
        rows = in_reach(table)
        if len(rows):
            ax.plot(rows[rate], rows["validation_loss_pp"], label=name, **look)
            farthest = max(farthest, rows[rate].max())
    for name, (row, look) in large.items():
        edge = {"markeredgecolor": "black", "linestyle": "", "zorder": 3}
        ax.plot(row[rate], row["validation_loss_pp"], label=name, **look | edge)
    limit_line(ax)
    ax.set(xlim=(0, 1.25 * farthest), ylim=(min(-0.5, 1.1 * min(losses)), max(HIGHEST_LOSS, 1.1 * max(losses))))
    counted = " (labels as coded in a file)" if rate == "coded_rate" else ""
    title = "this plan among those searched" if priced is None else "this plan, those searched, and prices of a bit"
    ax.set(title=title, xlabel=label(rate) + counted, ylabel="loss on validation [pp]")
    ax.legend(fontsize=8, loc="upper left")
    return figure


def _small() -> tuple[Figure, Axes]:
    """Without pyplot and styles, whose state belongs to the whole process."""
    figure = Figure(figsize=(5, 3.4), dpi=DPI)
    figure.subplots_adjust(left=0.14, right=0.97, bottom=0.15, top=0.91)
    ax = figure.subplots()
    ax.grid(color="0.9")
    ax.set_axisbelow(True)
    return figure, ax
