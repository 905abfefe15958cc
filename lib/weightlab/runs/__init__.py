"""Searches run to a budget, one or a grid of them: recorded, checkpointed, resumed exactly, by as many processes as there are."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weightlab.runs.runner import Outcome, Runner, evaluator, read, records_hash, uniform_plans
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
    "uniform_plans",
]


def __getattr__(name: str) -> object:
    """What is named above, imported when it is first asked for: status and job queues do without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    runner = importlib.import_module("weightlab.runs.runner")
    return getattr(runner if hasattr(runner, name) else importlib.import_module("weightlab.runs.specifications"), name)
