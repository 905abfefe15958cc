"""Figures of approximate multipliers: the library, energy against loss of assignments, how near searches come to the truth."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from weightlab.analysis.labels import WAYS, label
from weightlab.figures.base import panels, styles

HIGHEST_PP, LOWEST_PP = 5.0, -1.5  # of losses that are drawn
SETTINGS = {
    "population": "population", "eta": "eta", "crossover_probability": "crossover\nprobability", "mutation": "mutation\nprobability",
}  # fmt: skip


def errors_by_power(table: pd.DataFrame) -> Figure:
    """Mean absolute error against power, a dot for each multiplier of `metrics.metrics`, with its name."""
    figure, axes = panels(1, width=8.5, height=5)
    ax = axes[0, 0]
    ax.plot(table["power_pct"], table["mae"], "o", markersize=5)
    for row in table.itertuples():
        ax.annotate(row.name, (row.power_pct, row.mae), xytext=(4, 3), textcoords="offset points", fontsize=7)
    ax.set_yscale("symlog", linthresh=0.1)
    ax.set(xlabel="power [% of the exact multiplier]", ylabel="mean absolute error of a product", ylim=(-0.05, None))
    source = "measured (45 nm)" if table["power_source"].iloc[0] == "pdk45" else "by a model"
    ax.set_title(f"{len(table)} multipliers of 8-bit codes, power {source}")
    return figure


def energy_by_loss(fronts: pd.DataFrame, chosen: pd.DataFrame, within: float) -> Figure:
    """Loss on test against energy, a row of panels per network, a column per coding: the front on validation, and what was chosen.

    `fronts` and `chosen` (column kind) have network, coding, energy_pct, validation_loss_pp, test_loss_pp and test_se_pp, the standard error of
    the bars. The dotted lines are `within` and the published saving of 30 %.
    """
    networks, codings = (list(dict.fromkeys(fronts[column])) for column in ("network", "coding"))
    figure, axes = panels(len(codings), len(networks), width=5.6, height=4, sharex="row", sharey=True)
    for row, network in zip(axes, networks, strict=True):
        for ax, coding in zip(row, codings, strict=True):
            edge, own = (table[(table["network"] == network) & (table["coding"] == coding)] for table in (fronts, chosen))
            _front_and_chosen(ax, edge[edge["validation_loss_pp"] <= HIGHEST_PP].sort_values("energy_pct"), own)
            _limits(ax, within)
            ax.set(xlabel="energy of multiplications [% of exact]", ylabel="loss on test [pp]", ylim=(LOWEST_PP, HIGHEST_PP))
            ax.set_title(f"{label(network)}, {coding}", fontsize=10)
    entries = {name: line for ax in axes.flat for line, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=min(len(entries), 3), fontsize=8)
    return figure


def _front_and_chosen(ax: Axes, edge: pd.DataFrame, chosen: pd.DataFrame) -> None:
    bars: dict[str, Any] = {"capsize": 2, "elinewidth": 1, "linestyle": ""}
    ax.plot(
        edge["energy_pct"],
        edge["validation_loss_pp"],
        drawstyle="steps-post",
        color="grey",
        linewidth=1,
        label="front on validation",
    )
    ax.errorbar(
        edge["energy_pct"], edge["test_loss_pp"], edge["test_se_pp"], color="grey", marker=".", label="the same on test", **bars
    )
    for kind, look in styles(WAYS).items():
        part = chosen[chosen["kind"] == kind]
        if len(part):
            ax.errorbar(
                part["energy_pct"], part["test_loss_pp"], part["test_se_pp"], label=WAYS[kind], markersize=8, **bars, **look
            )


def _limits(ax: Axes, within: float) -> None:
    ax.axhline(within, color="black", linestyle=":", linewidth=1)
    ax.axvline(70, color="black", linestyle=":", linewidth=1)
    near: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8}
    ax.annotate(f"{within:g} pp", (1, within), xycoords=("axes fraction", "data"), xytext=(-2, 2), ha="right", **near)
    ax.annotate("30 % saved", (70, 1), xycoords=("data", "axes fraction"), xytext=(3, -10), **near)


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


def search_quality(runs: pd.DataFrame) -> Figure:
    """Hypervolume ratio to the true front of every run, a panel per network; a column per run of the source, a colour per way to search.

    `runs` has network, run, order, search and hypervolume_ratio; dots are seeds, bars are means.
    """
    networks = list(dict.fromkeys(runs["network"]))
    arms = runs.assign(arm=runs["search"].map(label) + np.where(runs["order"] == "", "", ", " + runs["order"]))
    names = list(dict.fromkeys(arms["arm"]))
    figure, axes = panels(len(networks), width=6.2, height=4.2, sharey=True)
    colours = {name: style["color"] for name, style in styles(names).items()}
    for ax, network in zip(axes[0], networks, strict=True):
        rows = arms[arms["network"] == network]
        common = {
            "x": "run",
            "y": "hypervolume_ratio",
            "hue": "arm",
            "hue_order": names,
            "palette": colours,
            "ax": ax,
            "dodge": True,
        }
        sns.stripplot(rows, size=3, alpha=0.5, legend=False, **common)
        sns.pointplot(
            rows.assign(run=rows["run"].astype(str)),
            errorbar=None,
            linestyle="none",
            marker="_",
            markersize=16,
            **common | {"dodge": 0.8 - 0.8 / len(names)},
        )
        ax.axhline(0.98, color="black", linestyle=":", linewidth=1)
        ax.set(xlabel="population x generations", ylabel="hypervolume / that of the true front")
        ax.set_title(label(network))
        ax.get_legend().remove()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(names), 4), fontsize=8)
    return figure


def influence_of_settings(shares: pd.DataFrame) -> Figure:
    """Share of the variance between runs that each setting explains, a panel per measure, a bar per setting and order.

    `shares` has measure, order, setting and share.
    """
    measures = list(dict.fromkeys(shares["measure"]))
    figure, axes = panels(max(1, len(measures)), width=4.6, height=3.6, sharey=True)
    for ax, measure in zip(axes[0], measures, strict=False):  # an empty panel where nothing varied
        rows = shares[shares["measure"] == measure]
        sns.barplot(
            rows.assign(setting=rows["setting"].map(SETTINGS)), x="setting", y="share", hue="order", palette="colorblind", ax=ax
        )
        ax.set(xlabel="", ylabel="share of variance between runs")
        ax.set_title(label(measure))
        ax.legend(title="order", fontsize=8)
    return figure
