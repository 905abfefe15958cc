"""Figures of weight sharing: loss and rate by k, whole net against layers, a plan's codebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from weightlab import analysis
from weightlab.analysis.labels import label
from weightlab.figures.base import limit_line, panels, styles

if TYPE_CHECKING:  # figures draw tables, so that notebooks which only read them need no torch
    from weightlab.compression.sharing.codebooks import Codebooks


def total_sharing(table: pd.DataFrame, format: str, rate: str, published: pd.DataFrame, loss: str = "loss_pp") -> Figure:
    """Loss and rate of whole-net sharing by k, a panel per network (figures 5.1 to 5.3); marks the best acceptable k.

    `published` has columns network, format, k and loss_pp.
    """
    table = table[(table["format"] == format) & (table["arm"] == "whole net")]
    networks = list(dict.fromkeys(table["network"]))
    figure, axes = panels(len(networks))
    for ax, network in zip(axes[0], networks, strict=True):
        rows = table[table["network"] == network].sort_values("k")
        red, blue = sns.color_palette("colorblind")[3], sns.color_palette("colorblind")[0]
        ax.plot(rows["k"], rows[loss], color=red, marker=".", label="loss")
        printed = published[(published["network"] == network) & (published["format"] == format)]
        ax.plot(printed["k"], printed["loss_pp"], "x", color="black", alpha=0.6, markersize=5)
        limit_line(ax)
        ax.set(xlabel="clusters k", ylim=(-2, 10), title=f"{label(network)}, {label(format)}")
        ax.set_ylabel("accuracy loss [pp]", color=red)
        other = ax.twinx()
        rows = rows[rows["k"] > 1]  # at k = 1 only a constant is stored
        other.step(rows["k"], rows[rate], color=blue, linestyle="--", where="mid")
        other.set_ylabel(label(rate), color=blue)
        other.grid(False)
        chosen = analysis.best(rows, ["network"], rate).iloc[0]
        if np.isfinite(chosen[rate]):
            ax.plot(chosen["k"], chosen[loss], "*", color="black", markersize=13)
            text = f"k = {chosen['k']:.0f}, rate {chosen[rate]:.2f}, loss {chosen[loss]:.2f} pp"
            look = {"fontsize": 9, "arrowprops": {"arrowstyle": "-"}, "bbox": {"facecolor": "white", "edgecolor": "none"}}
            ax.annotate(text, (chosen["k"], chosen[loss]), xytext=(0.4, 0.6), textcoords="axes fraction", **look)
    return figure


def loss_by_rate(table: pd.DataFrame, group: str, rate: str, loss: str = "loss_pp", row: str = "network") -> Figure:
    """Loss against rate below 5 pp, a panel per network, with each group's front as a line."""
    names = list(dict.fromkeys(table[row]))
    figure, axes = panels(len(names))
    look = styles(dict.fromkeys(table[group]))
    for ax, network in zip(axes[0], names, strict=True):
        for name, style in look.items():
            rows = table[(table[row] == network) & (table[group] == name) & (table[loss] < 5)]
            ax.plot(rows[rate], rows[loss], linestyle="", markersize=4, alpha=0.4, **style)
            edge = analysis.front(rows, loss, rate)
            ax.plot(edge[rate], edge[loss], drawstyle="steps-pre", linewidth=1.5, markersize=5, label=label(name), **style)
        limit_line(ax)
        ax.set(xlabel=label(rate), ylabel="accuracy loss [pp]", title=label(network))
        ax.legend(fontsize=8)
    return figure


def weights_with_centroids(codebooks: Codebooks, plan: list[int], columns: int = 5) -> Figure:
    """Histogram of every group's weights with the centroids that replace them, a row for each `columns` of them."""
    columns = min(columns, len(plan))
    figure, axes = panels(columns, -(-len(plan) // columns), width=3.6, height=3)
    for ax in axes.flat[len(plan) :]:
        ax.set_axis_off()
    blue, red = sns.color_palette("colorblind")[0], sns.color_palette("colorblind")[3]
    for group, (ax, name, k) in enumerate(zip(axes.flat, codebooks.names, plan, strict=False)):
        ax.hist(codebooks.original(group), bins=80, color=blue, alpha=0.7)
        for centroid in codebooks.get(group, k).centroids:
            ax.axvline(centroid, color=red, linewidth=1)
        ax.set(title=f"{name}, k = {k}", xlabel="weight", ylabel="" if group % columns else "number of weights")
    return figure


def file_sizes(table: pd.DataFrame) -> Figure:
    """Bytes of files as bars, largest first, each labelled with how many times smaller it is than the first row.

    `table` has columns file and bytes, the original network first.
    """
    figure, axes = panels(1, width=7, height=0.5 * len(table) + 1)
    (ax,), blue = axes[0], sns.color_palette("colorblind")[0]
    rows = table.sort_values("bytes")
    bars = ax.barh(rows["file"], rows["bytes"] / 1024, color=blue)
    ax.bar_label(bars, [f"{table['bytes'].iloc[0] / size:.2f}×" for size in rows["bytes"]], padding=4)
    ax.set(xlabel="size of the file [KiB]", xlim=(0, rows["bytes"].max() / 1024 * 1.12))
    ax.grid(axis="y", visible=False)
    return figure
