"""Figures of clustering methods: their times, and how far they are from the optimum."""

import pandas as pd
from matplotlib import ticker
from matplotlib.figure import Figure

from weightlab.analysis.labels import label
from weightlab.figures.base import panels, styles

PARTS = {"clustering_s": "clustering", "accuracy_s": "accuracy"}


def time_per_plan(times: pd.DataFrame, methods: list[str], title: str) -> Figure:
    """Mean seconds a plan by method, clustering and accuracy stacked, with their shares (figure 5.13).

    `times` has a row per plan with columns network, method, clustering_s, accuracy_s; a panel per network, `title` over all.
    """
    networks = list(dict.fromkeys(times["network"]))
    figure, axes = panels(len(networks), sharey=True)
    figure.suptitle(title, fontsize=10)
    for ax, network in zip(axes[0], networks, strict=True):
        means = times[times["network"] == network].groupby("method")[list(PARTS)].mean().loc[methods]
        places, bottom, whole = range(len(means)), 0, means.sum(axis=1)
        for part, style in zip(PARTS, styles(PARTS).values(), strict=True):
            ax.bar(places, means[part], 0.6, bottom, color=style["color"], label=PARTS[part])
            bottom = bottom + means[part]
        for place, (clustering, total) in enumerate(zip(means["clustering_s"], whole, strict=True)):
            share = 100 * clustering / total
            ax.text(place, total, f"accuracy {100 - share:.0f} %", ha="center", va="bottom", fontsize=8)
            if clustering > 0.06 * whole.max():  # else there is no room
                ax.text(place, clustering / 2, f"{share:.0f} %", ha="center", va="center", fontsize=9, color="white")
        ax.set_xticks(places, [label(name).replace(" K-Means", "\nK-Means") for name in methods])
        ax.set(ylabel="seconds a plan", title=label(network))
        ax.margins(y=0.1)
        ax.grid(False, axis="x")
        ax.legend(fontsize=8)
    return figure


def inertia_excess(excess: pd.DataFrame, methods: list[str]) -> Figure:
    """How far a method's inertia is above the lowest possible, in percent, by k, a panel per network.

    Columns network, method, layer, k, excess_pct; the line is the median over the layers, the band reaches from the lowest to the highest.
    """
    networks = list(dict.fromkeys(excess["network"]))
    figure, axes = panels(len(networks), sharey=True)
    for ax, network in zip(axes[0], networks, strict=True):
        for method, style in styles(methods).items():
            rows = excess[(excess["network"] == network) & (excess["method"] == method)].groupby("k")["excess_pct"]
            ax.plot(rows.median(), markersize=4, linewidth=1, label=label(method), **style)
            ax.fill_between(rows.median().index, rows.min(), rows.max(), color=style["color"], alpha=0.15)
        ax.set_yscale("symlog", linthresh=0.1)
        ax.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        ax.set(xlabel="clusters k", ylabel="inertia above the lowest possible [%]", title=label(network))
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right upper", fontsize=9, title="median of the layers,\nband min-max", title_fontsize=9)
    return figure
