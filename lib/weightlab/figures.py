"""Figures: DataFrame in, Figure out. Colours differ for colour-blind readers, markers and dashes for print in black and white."""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import ticker
from matplotlib.figure import Figure

from weightlab import analysis, paths
from weightlab.codebooks import Codebooks

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LABELS = {
    "lenet5_tanh": "LeNet-5 tanh", "lenet5_relu": "LeNet-5 ReLU", "random": "random", "genetic": "genetic",
    "particle_swarm": "particle swarm", "black_hole": "black hole", "float8_thesis": "float8 (thesis)", "float8_e4m3": "float8 (E4M3)",
    "storage_rate": "storage rate", "layer_mean_rate": "layer-mean rate", "thesis_model_rate": "whole-net rate (eq. 3.2)",
}  # fmt: skip


def label(name: str) -> str:
    """How a name of the records reads on a figure."""
    return LABELS.get(name, name)


def save(figure: Figure, folder: str | Path, name: str) -> Path:
    """Write a figure as `folder/name.png`, whole or not at all; returns the file."""
    file = paths.resolve(folder) / f"{name}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight")
    paths.write_whole(file, buffer.getvalue())
    return file


def _axes(columns: int, rows: int = 1, width: float = 5.5, height: float = 3.8, **shared) -> tuple[Figure, np.ndarray]:
    with sns.axes_style("whitegrid"):
        figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False, **shared)
    figure.set_layout_engine("constrained")
    plt.close(figure)  # shown where it is the value of a cell, not a second time
    return figure, axes


def _look(names) -> dict[str, dict]:
    """A colour and a marker for each name, the same whatever is plotted with it."""
    names = list(names)
    colours = sns.color_palette("colorblind", len(names))
    return {
        name: {"color": colour, "marker": MARKERS[i % len(MARKERS)]}
        for i, (name, colour) in enumerate(zip(names, colours, strict=True))
    }


def _limit(axes) -> None:
    axes.axhline(analysis.ACCEPTABLE_LOSS_PP, color="black", linestyle=":", linewidth=1)
    axes.annotate("1 pp", (1, analysis.ACCEPTABLE_LOSS_PP), xycoords=("axes fraction", "data"), xytext=(-2, 2),
                  textcoords="offset points", ha="right", fontsize=8)  # fmt: skip


def _log(axes) -> None:
    """A logarithmic ordinate with plain numbers at 1, 2 and 5."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(ticker.NullLocator())


def total_sharing(table: pd.DataFrame, format: str, rate: str, published: pd.DataFrame, loss: str = "loss_pp") -> Figure:
    """Loss and rate of whole-net sharing by k, a panel per network (figures 5.1 to 5.3); marks the best acceptable k.

    `published` has columns network, format, k and loss_pp.
    """
    table = table[(table["format"] == format) & (table["arm"] == "whole net")]
    networks = list(dict.fromkeys(table["network"]))
    figure, axes = _axes(len(networks))
    for ax, network in zip(axes[0], networks, strict=True):
        rows = table[table["network"] == network].sort_values("k")
        red, blue = sns.color_palette("colorblind")[3], sns.color_palette("colorblind")[0]
        ax.plot(rows["k"], rows[loss], color=red, marker=".", label="loss")
        theirs = published[(published["network"] == network) & (published["format"] == format)]
        ax.plot(theirs["k"], theirs["loss_pp"], "x", color="black", alpha=0.6, markersize=5)
        _limit(ax)
        ax.set(xlabel="clusters k", ylim=(-2, 10), title=f"{label(network)}, {label(format)}")
        ax.set_ylabel("accuracy loss [pp]", color=red)
        other = ax.twinx()
        rows = rows[rows["k"] > 1]  # at k = 1 nothing but a constant is stored
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
    panels = list(dict.fromkeys(table[row]))
    figure, axes = _axes(len(panels))
    look = _look(dict.fromkeys(table[group]))
    for ax, panel in zip(axes[0], panels, strict=True):
        for name, style in look.items():
            rows = table[(table[row] == panel) & (table[group] == name) & (table[loss] < 5)]
            ax.plot(rows[rate], rows[loss], linestyle="", markersize=4, alpha=0.4, **style)
            edge = analysis.front(rows, loss, rate)
            ax.plot(edge[rate], edge[loss], drawstyle="steps-pre", linewidth=1.5, markersize=5, label=label(name), **style)
        _limit(ax)
        ax.set(xlabel=label(rate), ylabel="accuracy loss [pp]", title=label(panel))
        ax.legend(fontsize=8)
    return figure


def fitness_of_runs(best: pd.DataFrame, searches: list[str]) -> Figure:
    """Final best fitness of every run by search, a panel per network (figure 5.4); columns network, search, best."""
    networks = list(dict.fromkeys(best["network"]))
    figure, axes = _axes(len(networks))
    for ax, network in zip(axes[0], networks, strict=True):
        rows = best[best["network"] == network]
        sns.boxplot(
            rows, x="search", y="best", order=searches, ax=ax, color="white", linecolor="black", showfliers=False, width=0.5
        )
        sns.stripplot(
            rows, x="search", y="best", order=searches, ax=ax, hue="search", hue_order=searches, palette="colorblind", size=6
        )
        ax.set_xticks(range(len(searches)), [label(name) for name in searches])
        ax.set(xlabel="", ylabel="best fitness (1 / distance to target)", title=label(network))
        _log(ax)
    return figure


def range_reduction(scans: dict[str, pd.DataFrame], accuracy: str, threshold: float) -> Figure:
    """Accuracy with one layer shared, by its k (figure 5.5); a panel per network, the threshold as a line."""
    figure, axes = _axes(len(scans), sharey=True)
    for ax, (network, scan) in zip(axes[0], scans.items(), strict=True):
        for (name, rows), style in zip(scan.groupby("name", sort=False), _look(scan["name"].unique()).values(), strict=True):
            ax.plot(rows["k"], 100 * rows[accuracy], markersize=3, linewidth=1, label=name, **style)
        ax.axhline(100 * threshold, color="black", linestyle=":", linewidth=1)
        ax.set(xlabel="clusters k of the one shared layer", ylabel=f"{accuracy.replace('_', ' ')} [%]", title=label(network))
        ax.set_ylim(max(ax.get_ylim()[0], 100 * threshold - 2.5), min(100, ax.get_ylim()[1]))
        ax.legend(fontsize=8, title="layer")
    return figure


def fitness_over_evaluations(records: pd.DataFrame, searches: list[str]) -> Figure:
    """Best fitness so far by evaluations spent (figure 5.6): median of the runs, band from the worst to the best."""
    networks = list(dict.fromkeys(records["network"]))
    figure, axes = _axes(len(networks))
    dashes = dict(zip(searches, ("-", "--", "-.", ":"), strict=False))
    for ax, network in zip(axes[0], networks, strict=True):
        for name, style in _look(searches).items():
            rows = analysis.best_so_far(records[(records["network"] == network) & (records["search"] == name)])
            course = rows.pivot(index="evaluation", columns="run", values="best").ffill()
            ax.plot(course.index + 1, course.median(axis=1), dashes[name], color=style["color"], label=label(name))
            ax.fill_between(course.index + 1, course.min(axis=1), course.max(axis=1), color=style["color"], alpha=0.15)
        ax.set(xlabel="evaluations", ylabel="best fitness so far", title=label(network))
        _log(ax)
        ax.legend(fontsize=8, title="median, band min-max")
    return figure


def best_of_runs(best: pd.DataFrame, group: str, rate: str, targets: dict[str, tuple[float, float]]) -> Figure:
    """The chosen plan of every run (figure 5.7): loss against rate, a panel per network, with the target (rate, loss in pp).

    Filled: the loss on the split that chose; hollow: the same plan's on test.
    """
    figure, axes = _axes(len(targets))
    look = _look(dict.fromkeys(best[group]))
    for ax, (network, target) in zip(axes[0], targets.items(), strict=True):
        for name, style in look.items():
            rows = best[(best["network"] == network) & (best[group] == name)]
            ax.vlines(rows[rate], rows["loss_pp"], rows["test_loss_pp"], color=style["color"], linewidth=0.7, alpha=0.5)
            ax.plot(rows[rate], rows["test_loss_pp"], linestyle="", markersize=6, markerfacecolor="white", **style)
            ax.plot(rows[rate], rows["loss_pp"], linestyle="", markersize=7, alpha=0.8, label=label(name), **style)
        ax.plot(*target, "*", color="black", markersize=13, label="target")
        _limit(ax)
        ax.set(xlabel=label(rate), ylabel="accuracy loss [pp]", title=label(network))
        ax.legend(fontsize=8, title="filled: chosen on, hollow: test", title_fontsize=8)
    return figure


def one_run(records: pd.DataFrame, rate: str, target: tuple[float, float], title: str) -> Figure:
    """All points of one search with loss below 5 pp (figure 5.8): acceptable or not, their front, the target (rate, loss in pp)."""
    figure, axes = _axes(1, width=6.5)
    ax = axes[0, 0]
    colours = sns.color_palette("colorblind")
    rows = records[records["loss_pp"] < 5]
    good, bad = analysis.acceptable(rows), rows[rows["loss_pp"] >= analysis.ACCEPTABLE_LOSS_PP]
    ax.plot(bad[rate], bad["loss_pp"], "x", color=colours[3], alpha=0.6, label="loss of 1 pp or more")
    ax.plot(good[rate], good["loss_pp"], "o", color=colours[0], alpha=0.6, label="acceptable")
    edge = analysis.front(rows, "loss_pp", rate)
    ax.plot(edge[rate], edge["loss_pp"], drawstyle="steps-pre", color="black", linewidth=1, label="front")
    ax.plot(*target, "*", color="black", markersize=13, label="target")
    _limit(ax)
    ax.set(xlabel=label(rate), ylabel="accuracy loss [pp]", title=title)
    ax.legend(fontsize=8)
    return figure


def weights_with_centroids(codebooks: Codebooks, plan: list[int]) -> Figure:
    """Histogram of every group's weights with the centroids that replace them."""
    figure, axes = _axes(len(plan), width=3.6, height=3)
    blue, red = sns.color_palette("colorblind")[0], sns.color_palette("colorblind")[3]
    for group, (ax, name, k) in enumerate(zip(axes[0], codebooks.names, plan, strict=True)):
        ax.hist(codebooks.original(group), bins=80, color=blue, alpha=0.7)
        for centroid in codebooks.get(group, k).centroids:
            ax.axvline(centroid, color=red, linewidth=1)
        ax.set(title=f"{name}, k = {k}", xlabel="weight", ylabel="number of weights" if group == 0 else "")
    return figure
