"""Figures of the regressions of loss on rate: points with their curves, residuals, one value per run."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from weightlab.analysis.labels import label
from weightlab.figures.base import panels, styles

MOST_DOTS = 2000  # of one panel: more of them hide each other and the curves


def quadratic_curves(points: pd.DataFrame, curves: pd.DataFrame) -> Figure:
    """Points and the quadratic curve of each group (figures B.2 to B.4): a row per rate, a column per network.

    `points` has columns network, rate_name, group, rate and loss (pp), `curves` these and lower and upper, the 95 % interval of the
    curve; without curves, a network and rate shows only its points. If a panel has more than 2 000 points, only every second or third (and
    so on) point of a group is drawn, and the legend says so.
    """
    names, networks = list(dict.fromkeys(points["rate_name"])), list(dict.fromkeys(points["network"]))
    figure, axes = panels(len(networks), len(names))
    look = styles(dict.fromkeys(points["group"]))
    for row, rate in zip(axes, names, strict=True):
        for ax, network in zip(row, networks, strict=True):
            own, lines = (table[(table["network"] == network) & (table["rate_name"] == rate)] for table in (points, curves))
            step = _step(len(own))
            for group, style in look.items():
                dots, curve = (
                    own[own["group"] == group].sort_values("rate", kind="stable")[::step],
                    lines[lines["group"] == group],
                )
                ax.plot(dots["rate"], dots["loss"], linestyle="", markersize=4, alpha=0.35, zorder=2, **style)
                ax.fill_between(
                    curve["rate"], curve["lower"], curve["upper"], color=style["color"], alpha=0.3, linewidth=0, zorder=3
                )
                ax.plot(curve["rate"], curve["loss"], color="white", linewidth=4, zorder=4)
                ax.plot(curve["rate"], curve["loss"], color=style["color"], linewidth=2, zorder=5)
                ax.plot([], [], linewidth=2, label=label(group), **style)  # one entry for points and curve
            lowest, highest = points["loss"].min(), points["loss"].max()
            margin = 0.08 * max(highest - lowest, 0.1)
            ax.set(
                xlabel=label(rate), ylabel="accuracy loss [pp]", title=label(network), ylim=(lowest - margin, highest + margin)
            )
            ax.legend(fontsize=8, title=f"{len(own)} points{_thinned(step)}").set_zorder(6)
    return figure


def _step(points: int) -> int:
    """One of how many points is drawn."""
    return -(-points // MOST_DOTS)


def _thinned(step: int) -> str:
    return f", 1 of {step} drawn" if step > 1 else ""


def residuals(table: pd.DataFrame) -> Figure:
    """Residuals against the fitted loss, and studentized against normal quantiles; a row per network.

    `table` has columns network, group, fitted, residual (pp), studentized and quantile. Many points are thinned as in `quadratic_curves`,
    by fitted loss.
    """
    networks = list(dict.fromkeys(table["network"]))
    figure, axes = panels(2, len(networks), height=3.4)
    look = styles(dict.fromkeys(table["group"]))
    for (against, normal), network in zip(axes, networks, strict=True):
        own = table[table["network"] == network]
        step = _step(len(own))
        for group, style in look.items():
            rows = own[own["group"] == group].sort_values("fitted", kind="stable")[::step]
            against.plot(rows["fitted"], rows["residual"], linestyle="", markersize=4, alpha=0.5, label=label(group), **style)
            normal.plot(rows["quantile"], rows["studentized"], linestyle="", markersize=4, alpha=0.5, **style)
        against.axhline(0, color="black", linestyle=":", linewidth=1)
        against.set(xlabel="fitted loss [pp]", ylabel="residual [pp]", title=label(network))
        against.legend(fontsize=8, title=f"{len(own)} points{_thinned(step)}")
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
