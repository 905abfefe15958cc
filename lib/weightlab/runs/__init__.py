"""Run one search or a grid of searches to their budgets: recorded, checkpointed and resumed exactly, by any number of processes."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weightlab.runs.runner import Outcome, Runner, evaluator, read, records_hash, time_plans, uniform_plans
    from weightlab.runs.setting import PROTOCOLS, RECORDED_SPLITS, Setting
    from weightlab.runs.specifications import Specification, grid

__all__ = [
    "PROTOCOLS",
    "RECORDED_SPLITS",
    "Outcome",
    "Runner",
    "Setting",
    "Specification",
    "evaluator",
    "grid",
    "read",
    "records_hash",
    "time_plans",
    "uniform_plans",
]


def __getattr__(name: str) -> object:
    """A name of `__all__`, imported at its first use: status and job queues do not need torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    runner = importlib.import_module("weightlab.runs.runner")
    return getattr(runner if hasattr(runner, name) else importlib.import_module("weightlab.runs.specifications"), name)
