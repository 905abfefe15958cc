"""Figure of the verdicts on the thesis's claims."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from weightlab.analysis.labels import label
from weightlab.figures.base import panels


def verdicts(table: pd.DataFrame, order: list[str]) -> Figure:
    """Number of claims by section and verdict, a panel per rate; columns section, rate_name, verdict; `order` of the verdicts."""
    rates, sections = list(dict.fromkeys(table["rate_name"])), sorted(table["section"].unique(), reverse=True)
    figure, axes = panels(len(rates), sharey=True)
    colours = [sns.color_palette("colorblind")[place] for place in (2, 3, 7)]
    for ax, rate in zip(axes[0], rates, strict=True):
        counts = table[table["rate_name"] == rate].groupby(["section", "verdict"]).size().unstack(fill_value=0)
        counts = counts.reindex(index=sections, columns=order, fill_value=0)
        left = 0 * counts[order[0]]
        for verdict, colour, hatch in zip(order, colours, ("", "//", ".."), strict=True):
            ax.barh(sections, counts[verdict], left=left, color=colour, hatch=hatch, edgecolor="white", label=verdict)
            left = left + counts[verdict]
        ax.set(xlabel="claims", ylabel="section of the thesis" if ax is axes[0, 0] else "", title=f"rates meant: {label(rate)}")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(order), fontsize=9)
    return figure
