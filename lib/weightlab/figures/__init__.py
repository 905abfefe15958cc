"""Figures: DataFrame in, Figure out. Colours differ for colour-blind readers, markers and dashes for print in black and white."""

from weightlab.figures.base import label, save
from weightlab.figures.searches import best_of_runs, fitness_of_runs, fitness_over_evaluations, one_run, range_reduction
from weightlab.figures.sharing import loss_by_rate, total_sharing, weights_with_centroids

__all__ = [
    "best_of_runs",
    "fitness_of_runs",
    "fitness_over_evaluations",
    "label",
    "loss_by_rate",
    "one_run",
    "range_reduction",
    "save",
    "total_sharing",
    "weights_with_centroids",
]
