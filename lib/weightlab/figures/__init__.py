"""Figures: DataFrame in, Figure out. Colours differ for colour-blind readers, markers and dashes for print in black and white."""

from weightlab.analysis.labels import label
from weightlab.figures.assignments import (
    energy_by_loss,
    errors_by_power,
    evaluated_assignments,
    influence_of_settings,
    search_quality,
)
from weightlab.figures.base import save
from weightlab.figures.claims import verdicts
from weightlab.figures.clustering import inertia_excess, time_per_plan
from weightlab.figures.explore import in_reach, layer_histogram, plan_among_searched
from weightlab.figures.fronts import best_by_group, fronts_by_group
from weightlab.figures.mobilenet import searched_plans, sensitive_layers, tuned_splits
from weightlab.figures.regression import quadratic_curves, rates_of_runs, residuals
from weightlab.figures.searches import (
    all_plans,
    best_of_runs,
    course_of_runs,
    fitness_of_runs,
    fitness_over_evaluations,
    one_run,
    range_reduction,
)
from weightlab.figures.sharing import file_sizes, loss_by_rate, total_sharing, weights_with_centroids
from weightlab.figures.small_files import gains_of_training, loss_by_bytes, loss_by_price
from weightlab.figures.tuning import focus_by_spread, focus_course, lifted_space, neighbour_distances, tuning_gains

__all__ = [
    "all_plans",
    "best_by_group",
    "best_of_runs",
    "course_of_runs",
    "energy_by_loss",
    "errors_by_power",
    "evaluated_assignments",
    "file_sizes",
    "fitness_of_runs",
    "fitness_over_evaluations",
    "focus_by_spread",
    "focus_course",
    "fronts_by_group",
    "gains_of_training",
    "in_reach",
    "inertia_excess",
    "influence_of_settings",
    "label",
    "layer_histogram",
    "lifted_space",
    "loss_by_bytes",
    "loss_by_price",
    "loss_by_rate",
    "neighbour_distances",
    "one_run",
    "plan_among_searched",
    "quadratic_curves",
    "range_reduction",
    "rates_of_runs",
    "residuals",
    "save",
    "search_quality",
    "searched_plans",
    "sensitive_layers",
    "time_per_plan",
    "total_sharing",
    "tuned_splits",
    "tuning_gains",
    "verdicts",
    "weights_with_centroids",
]
