"""Figures of fine-tuning: the lifted space, accuracy over focus and spread, the gains (section 5.5)."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from weightlab.analysis.labels import label
from weightlab.figures.base import panels, styles

PREDICTORS = {"inertia": "inertia in the lifted space", "weight_delta": "weight delta Σ|w − w'|"}  # column of a grid: axis label


def neighbour_distances(points: pd.DataFrame) -> Figure:
    """Evenly spaced weights in the lifted space and the distance between neighbours (figure 3.1).

    `points` has columns focus, weight and lifted, a focus's weights ascending; a distance is drawn half-way between its weights.
    """
    figure, axes = panels(2)
    curve, distance = axes[0]
    for focus, style in styles(dict.fromkeys(points["focus"])).items():
        rows = points[points["focus"] == focus]
        x, y = rows["weight"].to_numpy(), rows["lifted"].to_numpy()
        curve.plot(x, y, linewidth=1, markersize=3, label=f"{focus:g}", **style)
        distance.plot((x[1:] + x[:-1]) / 2, np.hypot(np.diff(x), np.diff(y)), linewidth=1, markersize=3, **style)
    curve.set(xlabel="weight − mean", ylabel="second coordinate", title="evenly spaced weights, lifted")
    distance.set(xlabel="weight − mean", ylabel="distance of neighbours", title="distance of neighbours after lifting")
    curve.legend(fontsize=8, title="focus")
    return figure


def lifted_space(points: pd.DataFrame, network: str, layer: str) -> Figure:
    """The clusters of one layer in the lifted space and its weights' histogram, a row per focus (figure B.1).

    `points` has columns focus, weight, lifted and cluster (from 0).
    """
    focuses = list(dict.fromkeys(points["focus"]))
    figure, axes = panels(2, len(focuses), height=3.2, sharex=True)
    for (space, histogram), focus in zip(axes, focuses, strict=True):
        rows = points[points["focus"] == focus]
        colours = sns.color_palette("colorblind", rows["cluster"].nunique())
        members = [cluster for _, cluster in rows.groupby("cluster")]
        for cluster, colour in zip(members, colours, strict=True):
            space.scatter(cluster["weight"], cluster["lifted"], s=3, color=colour, linewidth=0)
        histogram.hist([cluster["weight"] for cluster in members], bins=80, color=colours, stacked=True, linewidth=0)
        centres = rows.groupby("cluster")[["weight", "lifted"]].mean()
        space.plot(centres["weight"], centres["lifted"], "X", color="black", markersize=8, label="cluster centre")
        for ax, name in ((space, "second coordinate"), (histogram, "number of weights")):
            ax.axvline(0, color="black", linestyle=":", linewidth=1, label="zero")
            ax.axvline(rows["weight"].mean(), color="black", linestyle="--", linewidth=1, label="mean")
            ax.set(xlabel="weight", ylabel=name, title=f"{label(network)}, {layer}, focus {focus:g}")
        space.legend(fontsize=8)
    return figure


def focus_course(grid: pd.DataFrame, correlations: pd.DataFrame, accuracy: str) -> Figure:
    """Accuracy and both predictors by focus, a row per layer (figure 5.12): the course of one greedy search.

    `correlations` has a row per layer: layer, and r and p of each predictor as `analysis.correlations` gives them. The star marks
    the focus that was chosen.
    """
    rows = correlations.set_index("layer")
    figure, axes = panels(len(PREDICTORS), len(rows), height=2.6, sharex=True)
    blue, red = sns.color_palette("colorblind")[0], sns.color_palette("colorblind")[3]
    for line, (layer, r) in zip(axes, rows.iterrows(), strict=True):
        course = grid[grid["layer"] == layer]
        star = course[course["chosen"]]
        for ax, (predictor, name) in zip(line, PREDICTORS.items(), strict=True):
            ax.plot(course["focus"], 100 * course[accuracy], color=blue, marker=".", markersize=4, linewidth=1)
            ax.plot(star["focus"], 100 * star[accuracy], "*", color="black", markersize=11)
            ax.set_ylabel(f"{accuracy.replace('_', ' ')} [%]", color=blue, fontsize=9)
            _open(ax)
            correlation = "no correlation" if np.isnan(r[predictor]) else f"r = {r[predictor]:.2f}, p = {r[f'{predictor}_p']:.1g}"
            ax.set_title(f"{course['name'].iloc[0]}, k = {course['k'].iloc[0]}: {correlation}", fontsize=10)
            other = ax.twinx()
            other.plot(course["focus"], course[predictor], color=red, linestyle="--", linewidth=1)
            other.set_ylabel(name, color=red, fontsize=9)
            other.grid(visible=False)
    for ax in axes[-1]:
        ax.set_xlabel("focus")
    return figure


def focus_by_spread(trials: pd.DataFrame, accuracy: str) -> Figure:
    """Accuracy with one layer lifted, by its focus, a line per spread; a row per network, a column per layer.

    `trials` has columns network, layer, name, k, focus, spread and `accuracy` (fraction).
    """
    networks, layers = list(dict.fromkeys(trials["network"])), sorted(trials["layer"].unique())
    figure, axes = panels(len(layers), len(networks), width=3.1, height=2.8, sharex=True)
    look = styles(dict.fromkeys(trials["spread"]))
    for line, network in zip(axes, networks, strict=True):
        for ax, layer in zip(line, layers, strict=True):
            rows = trials[(trials["network"] == network) & (trials["layer"] == layer)]
            for spread, style in look.items():
                course = rows[rows["spread"] == spread]
                ax.plot(course["focus"], 100 * course[accuracy], linewidth=1, markersize=2.5, label=f"{spread:g}", **style)
            ax.set_title(f"{label(network)}\n{rows['name'].iloc[0]}, k = {rows['k'].iloc[0]}", fontsize=9)
            ax.set_xlabel("focus")
            _open(ax)
        line[0].set_ylabel(f"{accuracy.replace('_', ' ')} [%]", fontsize=9)
    axes[0, 0].legend(fontsize=8, title="spread")
    return figure


def _open(ax: Axes) -> None:
    """Leave room around a flat line."""
    low, high = ax.dataLim.intervaly
    if high - low < 0.1:
        ax.set_ylim(low - 0.5, high + 0.5)


def tuning_gains(arms: pd.DataFrame, chooser: str) -> Figure:
    """Reduction of the loss by tuning, by arm and format, a panel per network; below zero the plan became worse.

    `arms` has columns network, format, arm, gain_pp (on the split `chooser`: filled) and test_gain_pp (hollow).
    """
    networks, order = list(dict.fromkeys(arms["network"])), list(dict.fromkeys(arms["arm"]))
    look = styles(dict.fromkeys(arms["format"]))
    figure, axes = panels(len(networks), sharey=True)
    for ax, network in zip(axes[0], networks, strict=True):
        for shift, (format, style) in zip(np.linspace(-0.2, 0.2, len(look)), look.items(), strict=True):
            rows = arms[(arms["network"] == network) & (arms["format"] == format)]
            x = np.array([order.index(arm) for arm in rows["arm"]]) + shift
            ax.vlines(x, rows["gain_pp"], rows["test_gain_pp"], color=style["color"], linewidth=0.8, alpha=0.6)
            ax.plot(x, rows["test_gain_pp"], linestyle="", markersize=6, markerfacecolor="white", **style)
            ax.plot(x, rows["gain_pp"], linestyle="", markersize=6, label=label(format), **style)
        ax.axhline(0, color="black", linestyle=":", linewidth=1)
        ax.set_xticks(range(len(order)), order)
        ax.set(ylabel="reduction of the loss [pp]", title=label(network))
    handles, names = axes[0, 0].get_legend_handles_labels()
    title = f"filled: {chooser}, hollow: test"
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=8, title=title, title_fontsize=8)
    return figure
