"""Figures of the large network: its sensitive layers, and searches beside simple baselines (section 5.7)."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from weightlab import analysis
from weightlab.analysis.labels import label
from weightlab.figures.base import panels, styles


def sensitive_layers(scans: pd.DataFrame, accuracy: str, threshold: float, coloured: int = 5) -> Figure:
    """Accuracy with one layer shared, by its k (figure 5.15), a panel per format, the threshold as a line.

    The `coloured` layers with the lowest mean accuracy are coloured, unless it is not below the layers' median, and named by their
    position in the network; all others are grey. Columns format, layer, k and the one called `accuracy` (fraction).
    """
    formats = list(dict.fromkeys(scans["format"]))
    figure, axes = panels(min(2, len(formats)), -(-len(formats) // 2), sharey=True)
    for ax, format in zip(axes.flat, formats, strict=False):
        table = 100 * scans[scans["format"] == format].pivot(index="k", columns="layer", values=accuracy)
        means = table.mean()
        worst = means[means < means.median()].nsmallest(coloured).index
        ax.plot(table.drop(columns=worst), color="0.75", linewidth=0.7)
        for layer, style in styles(worst).items():
            ax.plot(table[layer], markersize=4, linewidth=1.2, label=f"layer {layer}", **style)
        ax.axhline(100 * threshold, color="black", linestyle=":", linewidth=1)
        ax.set(xlabel="clusters k of the one shared layer", ylabel=f"{accuracy.replace('_', ' ')} [%]", title=label(format))
        if len(worst):
            ax.legend(fontsize=8, title="most sensitive", title_fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    for ax in axes.flat[len(formats) :]:
        ax.set_visible(False)
    return figure


def searched_plans(plans: pd.DataFrame, limit_pp: float, baseline: float, rate: str) -> Figure:
    """Every plan of every arm (figure 5.16): loss against the rate that was optimised, and against the other; a row per format.

    Columns format, arm, loss_pp, both rates, and for searched plans target_accuracy and target_rate; a star marks the last target.
    Lines are the fronts of the arms. The dotted line is the loss that the target tolerates; losses above three times that are left out.
    The right axis is the accuracy: `baseline` (fraction) minus the loss.
    """
    formats = list(dict.fromkeys(plans["format"]))
    rates = [rate, *({"layer_mean_rate", "storage_rate"} - {rate})]
    figure, axes = panels(len(rates), len(formats))
    look = styles(dict.fromkeys(plans["arm"]))
    shown = plans[plans["loss_pp"] < 3 * limit_pp]
    for row, format in zip(axes, formats, strict=True):
        for ax, each in zip(row, rates, strict=True):
            for arm, style in look.items():
                points = shown[(shown["format"] == format) & (shown["arm"] == arm)]
                ax.plot(points[each], points["loss_pp"], linestyle="", markersize=4, alpha=0.35, **style)
                edge = analysis.front(points, "loss_pp", each)
                ax.plot(edge[each], edge["loss_pp"], drawstyle="steps-pre", linewidth=1.5, label=label(arm), **style)
                targets = plans[(plans["format"] == format) & (plans["arm"] == arm)]["target_rate"].dropna()
                if each == rate and len(targets):
                    height = 100 * (baseline - plans.loc[targets.index[-1], "target_accuracy"])
                    ax.plot(targets.iloc[-1], height, "*", color=style["color"], markeredgecolor="black", markersize=13)
            ax.axhline(limit_pp, color="black", linestyle=":", linewidth=1)
            ax.set(xlabel=label(each), ylabel="accuracy loss [pp]", title=label(format))
            ax.secondary_yaxis("right", functions=(lambda loss: 100 * baseline - loss,) * 2).set_ylabel("accuracy [%]")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(look), fontsize=9)
    return figure


def tuned_splits(checked: pd.DataFrame) -> Figure:
    """Top-1 and top-5 loss of one plan per format on every split, before and after fine-tuning (table 5.11).

    Columns format, dataset, split, top, loss_before_pp and loss_after_pp.
    """
    formats = list(dict.fromkeys(checked["format"]))
    figure, axes = panels(len(formats), sharey=True, height=0.35 * len(checked) / len(formats) + 1.2)
    before, after = sns.color_palette("colorblind")[1], sns.color_palette("colorblind")[0]
    for ax, format in zip(axes[0], formats, strict=True):
        rows = checked[checked["format"] == format]
        names = [f"{row.dataset} {row.split}, top-{row.top}" for row in rows.itertuples()]
        ax.hlines(names, rows["loss_before_pp"], rows["loss_after_pp"], color="0.6", linewidth=1)
        ax.plot(rows["loss_before_pp"], names, "s", color=before, label="before")
        ax.plot(rows["loss_after_pp"], names, "o", color=after, label="after fine-tuning")
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set(xlabel="accuracy loss [pp]", title=label(format))
        ax.legend(fontsize=8)
    axes[0, 0].invert_yaxis()
    return figure
