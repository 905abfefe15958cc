"""Figures of searches: their spaces, their course, and their results."""

from itertools import cycle

import pandas as pd
import seaborn as sns
from matplotlib import ticker
from matplotlib.figure import Figure

from weightlab import analysis
from weightlab.analysis.labels import label
from weightlab.figures.base import limit_line, log_scale, panels, styles


def fitness_of_runs(best: pd.DataFrame, searches: list[str]) -> Figure:
    """Final best fitness of every run by search, a panel per network (figure 5.4); columns network, search, best."""
    networks = list(dict.fromkeys(best["network"]))
    figure, axes = panels(len(networks))
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
        log_scale(ax)
    return figure


def range_reduction(scans: dict[str, pd.DataFrame], accuracy: str, threshold: float, columns: int | None = None) -> Figure:
    """Accuracy with one layer shared, by its k (figure 5.5); a panel per scan, `columns` in a row, the threshold as a line."""
    columns = columns or len(scans)
    figure, axes = panels(columns, -(-len(scans) // columns), sharey=True)
    for ax, (name, scan) in zip(axes.flat, scans.items(), strict=True):
        layers = scan.groupby("name", sort=False)
        for (layer, rows), style in zip(layers, styles(scan["name"].unique()).values(), strict=True):
            ax.plot(rows["k"], 100 * rows[accuracy], markersize=3, linewidth=1, label=layer, **style)
        ax.axhline(100 * threshold, color="black", linestyle=":", linewidth=1)
        ax.set(xlabel="clusters k of the one shared layer", ylabel=f"{accuracy.replace('_', ' ')} [%]", title=label(name))
        ax.set_ylim(max(ax.get_ylim()[0], 100 * threshold - 2.5), min(100, ax.get_ylim()[1]))
        ax.legend(fontsize=8, title="layer")
    return figure


def fitness_over_evaluations(records: pd.DataFrame, searches: list[str]) -> Figure:
    """Best fitness so far by evaluations spent (figure 5.6): median of the runs, band from the worst to the best."""
    figure = course_of_runs(analysis.best_so_far(records), "search", "best", searches, "best fitness so far")
    for ax in figure.axes:
        log_scale(ax)
    return figure


def course_of_runs(records: pd.DataFrame, group: str, value: str, order: list[str], title: str) -> Figure:
    """A value by evaluations spent, a panel per network: median of a group's runs, band from the lowest to the highest."""
    networks = list(dict.fromkeys(records["network"]))
    figure, axes = panels(len(networks))
    dashes = dict(zip(order, cycle(("-", "--", "-.", ":")), strict=False))
    for ax, network in zip(axes[0], networks, strict=True):
        for name, style in styles(order).items():
            rows = records[(records["network"] == network) & (records[group] == name)]
            course = rows.pivot(index="evaluation", columns="run", values=value).ffill()
            ax.plot(course.index + 1, course.median(axis=1), dashes[name], color=style["color"], label=label(name))
            ax.fill_between(course.index + 1, course.min(axis=1), course.max(axis=1), color=style["color"], alpha=0.15)
        ax.set(xlabel="evaluations", ylabel=title, title=label(network))
        ax.legend(fontsize=8, title="median, band min-max")
    return figure


def best_of_runs(best: pd.DataFrame, group: str, rate: str, targets: dict[str, tuple[float, float]]) -> Figure:
    """The chosen plan of every run (figure 5.7): loss against rate, a panel per network, with the target (rate, loss in pp).

    Filled: the loss on the split that chose; hollow: the loss of the same plan on test.
    """
    figure, axes = panels(len(targets))
    look = styles(dict.fromkeys(best[group]))
    for ax, (network, target) in zip(axes[0], targets.items(), strict=True):
        for name, style in look.items():
            rows = best[(best["network"] == network) & (best[group] == name)]
            ax.vlines(rows[rate], rows["loss_pp"], rows["test_loss_pp"], color=style["color"], linewidth=0.7, alpha=0.5)
            ax.plot(rows[rate], rows["test_loss_pp"], linestyle="", markersize=6, markerfacecolor="white", **style)
            ax.plot(rows[rate], rows["loss_pp"], linestyle="", markersize=7, alpha=0.8, label=label(name), **style)
        ax.plot(*target, "*", color="black", markersize=13, label="target")
        limit_line(ax)
        ax.set(xlabel=label(rate), ylabel="accuracy loss [pp]", title=label(network))
        ax.legend(fontsize=8, title="filled: chosen on, hollow: test", title_fontsize=8)
    return figure


def one_run(records: pd.DataFrame, rate: str, target: tuple[float, float], title: str) -> Figure:
    """All points of one search with loss below 5 pp (figure 5.8): acceptable or not, their front, the target (rate, loss in pp)."""
    figure, axes = panels(1, width=6.5)
    ax = axes[0, 0]
    colours = sns.color_palette("colorblind")
    rows = records[records["loss_pp"] < 5]
    good, bad = analysis.acceptable(rows), rows[rows["loss_pp"] >= analysis.ACCEPTABLE_LOSS_PP]
    ax.plot(bad[rate], bad["loss_pp"], "x", color=colours[3], alpha=0.6, label="loss of 1 pp or more")
    ax.plot(good[rate], good["loss_pp"], "o", color=colours[0], alpha=0.6, label="acceptable")
    edge = analysis.front(rows, "loss_pp", rate)
    ax.plot(edge[rate], edge["loss_pp"], drawstyle="steps-pre", color="black", linewidth=1, label="front")
    ax.plot(*target, "*", color="black", markersize=13, label="target")
    limit_line(ax)
    ax.set(xlabel=label(rate), ylabel="accuracy loss [pp]", title=title)
    ax.legend(fontsize=8)
    return figure


def all_plans(records: pd.DataFrame, rate: str, best: pd.DataFrame) -> Figure:
    """Every plan that searches on one network have evaluated: loss against rate, their front, and the `best` marked.

    Losses above 1 pp are on a logarithmic scale, so that plans that lose nearly everything are visible too.
    """
    figure, axes = panels(1, width=6.5)
    ax, colours = axes[0, 0], sns.color_palette("colorblind")
    ax.set_yscale("symlog", linthresh=1)
    good = records["loss_pp"] < analysis.ACCEPTABLE_LOSS_PP
    for rows, name, look in (
        (records[~good], "loss of 1 pp or more", {"marker": "x", "color": colours[3]}),
        (records[good], "acceptable", {"marker": "o", "color": colours[0]}),
    ):
        ax.plot(rows[rate], rows["loss_pp"], linestyle="", markersize=4, alpha=0.5, label=f"{name} ({len(rows)})", **look)
    edge = analysis.front(records, "loss_pp", rate)
    ax.plot(edge[rate], edge["loss_pp"], drawstyle="steps-pre", color="black", linewidth=1, label="front")
    ax.plot(best[rate], best["loss_pp"], "*", color="white", markeredgecolor="black", markersize=15, label="best acceptable")
    limit_line(ax)
    ax.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    network, format = (records[name].iloc[0] for name in ("network", "format"))
    ax.set(xlabel=f"{label(rate)} [original / stored bits]", ylabel="accuracy loss where plans are chosen [pp]")
    ax.set_title(f"{label(network)}, {label(format)}")
    ax.legend(fontsize=8)
    return figure
