"""Loss against rate of several groups at once: the best of every run, and fronts; colour is the group, shape the search."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from weightlab import analysis
from weightlab.analysis.labels import label
from weightlab.figures.base import MARKERS, limit_line, panels, styles

LOSSES = {"loss_pp": "loss on the images used to choose [pp]", "test_loss_pp": "loss of the same plans on test [pp]"}


def best_by_group(best: pd.DataFrame, group: str, rate: str, targets: pd.DataFrame) -> Figure:
    """The chosen plan of every run (figures 5.9, 5.10), a column of panels per network; below, the loss of the same plans on test.

    `targets` has columns network, `group`, rate and loss_pp: where each group's target ended. The line is the front of all plans
    in the upper panel. The lower panel has none, because its images are held-out test images that were never used to choose a plan.
    """
    figure, axes, colours, markers = _grid(best, group)
    for column, (network, rows) in enumerate(best.groupby("network", sort=False)):
        _points(axes[:, column], rows, group, rate, colours, markers)
        edge = analysis.front(rows.dropna(subset=rate), "loss_pp", rate)
        axes[0, column].plot(edge[rate], edge["loss_pp"], drawstyle="steps-pre", color="black", linewidth=1)
        for target in targets[targets["network"] == network].itertuples():
            colour = colours[getattr(target, group)]
            axes[0, column].plot(target.rate, target.loss_pp, "*", color=colour, markersize=14, markeredgecolor="black")
        _decorate(axes[:, column], rate, network)
    lines = [Line2D([], [], color="black", linewidth=1, label="front")]
    lines.append(Line2D([], [], linestyle="", marker="*", color="white", markeredgecolor="black", markersize=13, label="target"))
    return _legend(figure, colours, markers, lines)


def fronts_by_group(records: pd.DataFrame, group: str, rate: str) -> Figure:
    """The front of each group's acceptable plans (figures 5.11, 5.14), a column of panels per network; below, the loss on test."""
    points = analysis.fronts(analysis.acceptable(records), ["network", group], "loss_pp", rate)
    figure, axes, colours, markers = _grid(records, group)
    for column, network in enumerate(dict.fromkeys(records["network"])):
        rows = points[points["network"] == network]
        _points(axes[:, column], rows, group, rate, colours, markers)
        for name, edge in rows.groupby(group, sort=False):
            axes[0, column].plot(edge[rate], edge["loss_pp"], drawstyle="steps-pre", color=colours[name], linewidth=1)
        _decorate(axes[:, column], rate, network)
    return _legend(figure, colours, markers, [])


def _grid(table: pd.DataFrame, group: str) -> tuple[Figure, np.ndarray, dict, dict]:
    """Panels (losses, networks), a colour for each group, a marker for each search."""
    figure, axes = panels(table["network"].nunique(), len(LOSSES), sharex="col")
    colours = {name: style["color"] for name, style in styles(dict.fromkeys(table[group])).items()}
    return figure, axes, colours, dict(zip(dict.fromkeys(table["search"].dropna()), MARKERS, strict=False))


def _points(axes: np.ndarray, rows: pd.DataFrame, group: str, rate: str, colours: dict, markers: dict) -> None:
    for (name, search), part in rows.groupby([group, "search"], sort=False):
        size = 5 + 1.8 * list(colours).index(name)  # hollow and of different sizes: equal points of several groups stay visible
        look = {"marker": markers[search], "color": colours[name], "markersize": size, "markerfacecolor": "none"}
        for ax, loss in zip(axes, LOSSES, strict=True):
            ax.plot(part[rate], part[loss], linestyle="", markeredgewidth=1.5, **look)


def _decorate(axes: np.ndarray, rate: str, network: str) -> None:
    for ax, title in zip(axes, LOSSES.values(), strict=True):
        limit_line(ax)
        ax.set(ylabel=title)
    axes[0].set(title=label(network))
    axes[-1].set(xlabel=label(rate))


def _legend(figure: Figure, colours: dict, markers: dict, more: list[Line2D]) -> Figure:
    """One legend beside the panels."""
    groups = [Line2D([], [], linestyle="", marker="o", color=colour, label=label(name)) for name, colour in colours.items()]
    shapes = [
        Line2D([], [], linestyle="", marker=marker, color="grey", markerfacecolor="none", label=label(name))
        for name, marker in markers.items()
    ]
    figure.legend(handles=[*groups, *shapes, *more], loc="outside right upper", fontsize=9)
    return figure
