"""Make a plan more accurate at its rate: fine-tuning in the lifted space (section 5.5)."""

from weightlab.tuning.lifted import (
    FOCUSES,
    SPREAD,
    chosen,
    clustered_points,
    compare,
    focus_grid,
    for_plans,
    lifted_points,
    measure,
    one_by_one,
    predictors,
    swarm,
    tune,
)

__all__ = [
    "FOCUSES",
    "SPREAD",
    "chosen",
    "clustered_points",
    "compare",
    "focus_grid",
    "for_plans",
    "lifted_points",
    "measure",
    "one_by_one",
    "predictors",
    "swarm",
    "tune",
]
