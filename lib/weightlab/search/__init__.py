"""Searches over lists of k or boxes: ask for plans, tell their objectives."""

import math
from dataclasses import fields
from typing import Any

import numpy as np

from weightlab.errors import UserError, choose
from weightlab.search.base import Search
from weightlab.search.black_hole import BlackHole
from weightlab.search.genetic import Genetic
from weightlab.search.nsga2 import NSGA2
from weightlab.search.particle_swarm import ParticleSwarm
from weightlab.search.random_search import RandomSearch
from weightlab.search.space import IntegerSpace, Space

SEARCHES: dict[str, type[Search]] = {
    "random": RandomSearch,
    "genetic": Genetic,
    "particle_swarm": ParticleSwarm,
    "black_hole": BlackHole,
    "nsga2": NSGA2,
}


def make(name: str, space: Space, rng: np.random.Generator, uniform_start: bool = False, /, **settings: Any) -> Search:
    """The search called `name`; `settings` override its published ones, `uniform_start` is that of `Search`.

    Raises `UserError` for unknown names and values, and for a start with uniform plans in a box, which has none.

    >>> space = IntegerSpace((range(1, 51),) * 5)
    >>> search = make("genetic", space, np.random.default_rng(0), population=6)
    >>> for _ in range(20):
    ...     plans = search.ask()  # (6, 5), or (5, 5) once there is an elite
    ...     objectives = np.stack([plans.mean(1), plans.min(1)], axis=1)
    ...     search.tell(objectives, fitness=lambda objectives: objectives.sum(1))
    >>> search.evaluations, search.best_plan
    (101, array([44, 42, 45, 31, 50]))
    """
    choose("search", name, SEARCHES)
    if uniform_start and not isinstance(space, IntegerSpace):
        raise UserError("a search can start with uniform plans only over numbers of clusters, not in a box")
    kind = SEARCHES[name]
    defaults = {field.name: field.default for field in fields(kind.Settings)}
    for setting, value in settings.items():
        choose(f"setting of {name}", setting, defaults)
        settings[setting] = _like(defaults[setting], f"setting {setting} of {name}", value)
    try:
        return kind(space, rng, kind.Settings(**settings), uniform_start)
    except TypeError as error:
        raise UserError(f"settings {settings} of {name} are wrong: {error}") from None


def _like(default: Any, what: str, value: Any) -> Any:
    """`value` as the type of `default`: whole numbers stay whole, the others become finite floats."""
    if isinstance(default, int) and (isinstance(value, bool) or not isinstance(value, int)):
        raise UserError(f"{what} must be a whole number, got {value!r}")
    if isinstance(default, float) or (default is None and value is not None):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{what} must be a finite number, got {value!r}")
        return float(value)
    return value
