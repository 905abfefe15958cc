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


def plan_among_searched(earlier: pd.DataFrame, here: pd.DataFrame, now: pd.Series) -> Figure:
    """Loss on validation against storage rate of plans searched earlier, of those searched here, and of the plan `now` (a star).

    All have `storage_rate` and `validation_loss_pp`; searched plans that lose more than 5 pp are left out.
    """
    figure, ax = _small()
    colours, farthest = sns.color_palette("colorblind"), now["storage_rate"]
    looks = {
        "searched earlier": (earlier, {"marker": "o", "color": "0.6", "markersize": 3}),
        "searched here": (here, {"marker": "s", "color": colours[0], "markersize": 4, "markerfacecolor": "none"}),
    }
    for name, (table, look) in looks.items():
        rows = table[table["validation_loss_pp"] < HIGHEST_LOSS]
        if len(rows):
            ax.plot(rows["storage_rate"], rows["validation_loss_pp"], linestyle="", label=name, **look)
            farthest = max(farthest, rows["storage_rate"].max())
    star = {"marker": "*", "markersize": 17, "color": colours[8], "markeredgecolor": "black", "zorder": 3}
    ax.plot(now["storage_rate"], now["validation_loss_pp"], linestyle="", label="this plan", **star)
    limit_line(ax)
    lost = now["validation_loss_pp"]
    ax.set(xlim=(0, 1.25 * farthest), ylim=(min(-0.5, 1.1 * lost), max(HIGHEST_LOSS, 1.1 * lost)))
    ax.set(title="this plan among those searched", xlabel=label("storage_rate"), ylabel="loss on validation [pp]")
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
