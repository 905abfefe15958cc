"""Figures of the regressions of loss on rate: points with their curves, residuals, one value per run."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from weightlab.figures.base import label, panels, styles


def quadratic_curves(points: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Points and the quadratic curve of each group (figures B.2 to B.4): a row per rate, a column per network.

    `points` has columns network, rate_name, group, rate and loss (pp), `curves` these and lower and upper, the 95 % interval of the
    curve; a network and rate without curves shows its points alone.
    """
    names, networks = list(dict.fromkeys(points["rate_name"])), list(dict.fromkeys(points["network"]))
    figure, axes = panels(len(networks), len(names))
    look = styles(dict.fromkeys(points["group"]))
    for row, rate in zip(axes, names, strict=True):
        for ax, network in zip(row, networks, strict=True):
            for group, style in look.items():
                dots, curve = (table[(table["network"] == network) & (table["rate_name"] == rate) & (table["group"] == group)]
                               for table in (points, curves))  # fmt: skip
                ax.plot(dots["rate"], dots["loss"], linestyle="", markersize=4, alpha=0.35, **style)
                ax.fill_between(curve["rate"], curve["lower"], curve["upper"], color=style["color"], alpha=0.15, linewidth=0)
                ax.plot(curve["rate"], curve["loss"], color=style["color"], linewidth=2)
                ax.plot([], [], linewidth=2, label=label(group), **style)  # one entry for points and curve
            lowest, highest = points["loss"].min(), points["loss"].max()
            margin = 0.08 * max(highest - lowest, 0.1)
            ax.set(
                xlabel=label(rate), ylabel="accuracy loss [pp]", title=label(network), ylim=(lowest - margin, highest + margin)
            )
            ax.legend(fontsize=8, title=f"{len(points[(points['network'] == network) & (points['rate_name'] == rate)])} points")
    return figure


def residuals(table: pd.DataFrame) -> Figure:
    """What the curves leave: residual against fitted loss, and against normal quantiles; a row per network.

    `table` has columns network, group, fitted, residual (pp), studentized and quantile.
    """
    networks = list(dict.fromkeys(table["network"]))
    figure, axes = panels(2, len(networks), height=3.4)
    look = styles(dict.fromkeys(table["group"]))
    for (against, normal), network in zip(axes, networks, strict=True):
        for group, style in look.items():
            rows = table[(table["network"] == network) & (table["group"] == group)]
            against.plot(rows["fitted"], rows["residual"], linestyle="", markersize=4, alpha=0.5, label=label(group), **style)
            normal.plot(rows["quantile"], rows["studentized"], linestyle="", markersize=4, alpha=0.5, **style)
        against.axhline(0, color="black", linestyle=":", linewidth=1)
        against.set(xlabel="fitted loss [pp]", ylabel="residual [pp]", title=label(network))
        against.legend(fontsize=8)
        normal.axline((0, 0), slope=1, color="black", linestyle=":", linewidth=1)
        normal.set(xlabel="normal quantile", ylabel="studentized residual", title=label(network))
    return figure


def rates_of_runs(runs: pd.DataFrame) -> Figure:
    """The best acceptable rate of every run by group, a row per rate, a column per network.

    `runs` has columns network, rate_name, group and rate.
    """
    names, networks, groups = (list(dict.fromkeys(runs[column])) for column in ("rate_name", "network", "group"))
    figure, axes = panels(len(networks), len(names), height=3.4)
    for row, rate in zip(axes, names, strict=True):
        for ax, network in zip(row, networks, strict=True):
            rows = runs[(runs["network"] == network) & (runs["rate_name"] == rate)]
            common = {"x": "group", "y": "rate", "order": groups, "ax": ax}
            sns.boxplot(rows, **common, color="white", linecolor="black", showfliers=False, width=0.5)
            sns.stripplot(rows, **common, hue="group", hue_order=groups, palette="colorblind", size=5, legend=False)
            ax.set_xticks(range(len(groups)), [label(name).replace(" (", "\n(") for name in groups])
            ax.set(xlabel="", ylabel=f"best {label(rate)} of a run", title=label(network))
    return figure
