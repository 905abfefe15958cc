"""Figures of compression at a price of a bit: loss by size of the file and by price, and what training with classes gains."""

from collections.abc import Sequence

import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from weightlab import analysis
from weightlab.analysis.labels import LEVELS, label
from weightlab.figures.base import limit_line, panels, styles

LOWEST_PP, HIGHEST_PP = -0.5, 4.0  # of a loss by size of the file that is drawn
SPLITS = {"validation": "loss on validation [pp]", "test": "loss on test [pp]"}
OTHERS = {
    "plans of the thesis": {"linestyle": "", "marker": "x", "color": "black", "markersize": 6},
    "front of searched plans": {"linestyle": ":", "marker": "*", "color": "dimgrey", "markersize": 8},
    "nncodec": {"linestyle": "--", "marker": "P", "color": "saddlebrown", "markersize": 6},
    "coremltools": {"linestyle": "", "marker": "X", "color": "purple", "markersize": 7},
}


def loss_by_bytes(curve: pd.DataFrame, plans: pd.DataFrame, programs: pd.DataFrame) -> Figure:
    """Loss on test against the bytes of the file, a panel per network: a line per level, beside files of other ways.

    Dots are single draws, lines join the means over draws of each price. Losses above `HIGHEST_PP` are not drawn. `plans` have a source and, if they were searched, a number `of`
    plans read; `programs` name the program. nncodec's line is the front of its files by loss on validation.
    """
    networks = list(dict.fromkeys(curve["network"]))
    figure, axes = panels(len(networks), width=6, height=4.6)
    look = styles(LEVELS.values())
    for ax, network in zip(axes[0], networks, strict=True):
        own = curve[curve["network"] == network]
        for level, rows in own.groupby("level"):
            _line(ax, rows, "file_bytes", "test_loss_pp", look[LEVELS[level]], LEVELS[level])
        for name, rows in _others(plans[plans["network"] == network], programs[programs["network"] == network]).items():
            if len(rows):
                ax.plot(rows["file_bytes"], rows["test_loss_pp"], label=name, **{"linewidth": 1} | OTHERS[name])
        limit_line(ax)
        ax.set(xscale="log", ylim=(LOWEST_PP, HIGHEST_PP), xlabel="file [bytes]", ylabel="loss on test [pp]")
        ax.set_title(f"{label(network)}: loss on test by size of the file")
        _plain_bytes(ax)
    entries = {name: line for ax in axes[0] for line, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=min(len(entries), 4), fontsize=8)
    return figure


def _others(plans: pd.DataFrame, programs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    searched = plans["of"].notna()
    coded = programs[programs["program"] == "nncodec"]
    edge = analysis.front(coded.assign(rate=1 / coded["file_bytes"].astype(float)), "validation_loss_pp", "rate")
    parts = plans[~searched], plans[searched].sort_values("file_bytes"), edge, programs[programs["program"] == "coremltools"]
    return dict(zip(OTHERS, parts, strict=True))


def _line(ax: Axes, rows: pd.DataFrame, x: str, y: str, style: dict, name: str) -> None:
    """Single draws as dots, the mean of each price as a line."""
    means = rows.groupby("price")[list(dict.fromkeys([x, y, "price"]))].mean()
    if rows["draw"].nunique() > 1:
        ax.plot(rows[x], rows[y], ".", color=style["color"], alpha=0.4, markersize=5)
    ax.plot(means[x], means[y], linewidth=1.5, markersize=5, label=name, **style)


def loss_by_price(curves: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """Loss on validation and on test by price, a column of panels per network, a line per arm (column `arm`) in the order given."""
    networks = list(dict.fromkeys(curves["network"]))
    figure, axes = panels(len(networks), len(SPLITS), width=6, height=3.6, sharex=True, sharey=True)
    look = styles(arms)
    for column, network in enumerate(networks):
        for ax, (split, name) in zip(axes[:, column], SPLITS.items(), strict=True):
            rows = curves[curves["network"] == network]
            for arm in arms:
                if (rows["arm"] == arm).any():
                    _line(ax, rows[rows["arm"] == arm], "price", f"{split}_loss_pp", look[arm], arm)
            limit_line(ax)
            ax.set(xscale="log", ylabel=name)
            ax.set_title(f"{label(network)}, {split}")
            prices = sorted(curves["price"].unique())
            ax.set_xticks(prices, [f"{price:g}" for price in prices])
            ax.xaxis.set_minor_locator(ticker.NullLocator())
        axes[-1, column].set_xlabel("price of a bit for every weight [nats]")
    axes[0, 0].legend(fontsize=8)
    return figure


def gains_of_training(gains: pd.DataFrame) -> Figure:
    """Gain on test by number of steps, a panel per network, a line per price: means over draws, dots for single draws."""
    networks, prices = list(dict.fromkeys(gains["network"])), sorted(gains["price"].unique())
    steps = [0, *sorted(gains["steps"].unique())]
    figure, axes = panels(len(networks), width=6, height=3.8, sharey=True)
    look = styles(prices)
    for ax, network in zip(axes[0], networks, strict=True):
        for price in prices:
            rows = gains[(gains["network"] == network) & (gains["price"] == price)]
            means = rows.groupby("steps")["test_gain_pp"].mean().reindex(steps).fillna({0: 0.0})
            ax.plot(range(len(steps)), means, linewidth=1.5, markersize=5, label=f"{price:g}", **look[price])
            if rows["draw"].nunique() > 1:
                places = [steps.index(each) for each in rows["steps"]]
                ax.plot(places, rows["test_gain_pp"], ".", color=look[price]["color"], alpha=0.4, markersize=5)
        ax.axhline(0, color="black", linestyle=":", linewidth=1)
        ax.set_xticks(range(len(steps)), list(map(str, steps)))
        ax.set(xlabel="steps of training", ylabel="reduction of the loss on test [pp]")
        ax.set_title(f"{label(network)}: gain by steps of training")
    axes[0, 0].legend(fontsize=8, title="price")
    return figure


def _plain_bytes(ax: Axes) -> None:
    """Ticks of a logarithmic abscissa as plain numbers of thousands."""
    ax.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5)))
    ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda size, _: f"{size / 1000:g}k"))
    ax.xaxis.set_minor_locator(ticker.NullLocator())
