"""Figures of approximate multipliers."""

import pandas as pd
import seaborn as sns
from matplotlib import ticker
from matplotlib.figure import Figure

from weightlab.figures.base import panels


def evaluated_assignments(records: pd.DataFrame, front: pd.DataFrame) -> Figure:
    """Energy and loss of every assignment that was evaluated, and their front; columns energy (fraction) and validation_loss_pp.

    Losses above 1 pp are on a logarithmic scale, so that assignments that lose nearly everything are visible too.
    """
    figure, axes = panels(1, width=6.5)
    ax, colours = axes[0, 0], sns.color_palette("colorblind")
    edge = front.sort_values("energy")
    ax.plot(100 * records["energy"], records["validation_loss_pp"], "o", color=colours[0], markersize=4, alpha=0.4,
            label=f"evaluated ({len(records)})")  # fmt: skip
    ax.plot(100 * edge["energy"], edge["validation_loss_pp"], drawstyle="steps-post", color="black", marker="s", markersize=4,
            linewidth=1, label=f"front ({len(edge)})")  # fmt: skip
    ax.set_yscale("symlog", linthresh=1)
    ax.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    ax.set(xlabel="energy [% of exact multipliers]", ylabel="loss on validation [pp]")
    ax.legend(fontsize=8)
    return figure
