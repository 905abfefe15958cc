"""Searches over lists of k or boxes: ask for plans, tell what they achieved."""

import math
from dataclasses import fields

import numpy as np

from weightlab.errors import UserError, choose
from weightlab.search.base import Search
from weightlab.search.black_hole import BlackHole
from weightlab.search.genetic import Genetic
from weightlab.search.particle_swarm import ParticleSwarm
from weightlab.search.random_search import RandomSearch
from weightlab.space import BoxSpace, IntegerSpace

SEARCHES: dict[str, type[Search]] = {
    "random": RandomSearch,
    "genetic": Genetic,
    "particle_swarm": ParticleSwarm,
    "black_hole": BlackHole,
}


def make(name: str, space: IntegerSpace | BoxSpace, rng: np.random.Generator, **settings) -> Search:
    """The search called `name`; `settings` override its published ones. Raises `UserError` for unknown names and values."""
    choose("search", name, SEARCHES)
    kind = SEARCHES[name]
    defaults = {field.name: field.default for field in fields(kind.Settings)}
    for setting, value in settings.items():
        choose(f"setting of {name}", setting, defaults)
        settings[setting] = _like(defaults[setting], f"setting {setting} of {name}", value)
    try:
        return kind(space, rng, kind.Settings(**settings))
    except TypeError as error:
        raise UserError(f"settings {settings} of {name} do not fit: {error}") from None


def _like(default, what: str, value):
    """`value` as the type of `default`: whole numbers stay whole, the others become finite floats."""
    if isinstance(default, int) and (isinstance(value, bool) or not isinstance(value, int)):
        raise UserError(f"{what} must be a whole number, got {value!r}")
    if isinstance(default, float) or (default is None and value is not None):
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{what} must be a finite number, got {value!r}")
        return float(value)
    return value
