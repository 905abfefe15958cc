"""Searches over integer spaces: ask for plans, tell what they achieved."""

from dataclasses import fields

import numpy as np

from weightlab.errors import UserError, choose
from weightlab.search.base import Search
from weightlab.search.black_hole import BlackHole
from weightlab.search.genetic import Genetic
from weightlab.search.particle_swarm import ParticleSwarm
from weightlab.search.random_search import RandomSearch
from weightlab.space import IntegerSpace

SEARCHES: dict[str, type[Search]] = {
    "random": RandomSearch,
    "genetic": Genetic,
    "particle_swarm": ParticleSwarm,
    "black_hole": BlackHole,
}


def make(name: str, space: IntegerSpace, rng: np.random.Generator, **settings) -> Search:
    """The search called `name`; `settings` override its published ones. Raises `UserError` for unknown names and values."""
    choose("search", name, SEARCHES)
    kind = SEARCHES[name]
    for setting in settings:
        choose(f"setting of {name}", setting, [field.name for field in fields(kind.Settings)])
    try:
        return kind(space, rng, kind.Settings(**settings))
    except TypeError as error:
        raise UserError(f"settings {settings} of {name} do not fit: {error}") from None
