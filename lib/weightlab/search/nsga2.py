"""NSGA-II (Deb et al. 2002): a population that spreads along the front of accuracy and rate, whatever the fitness."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np

from weightlab.errors import UserError, check_whole, choose
from weightlab.search import pareto
from weightlab.search.base import Fitness, Search
from weightlab.search.space import IntegerSpace, Space

ROUNDS = 100  # how often it is tried to mate new plans, and then to draw them
MARGIN = 0.499  # added to both ends of an index before rounding, so that the first and the last are drawn as often as others
EXCHANGED = (
    0.5  # probability that a variable takes part in a crossover, and that its two children change places; pymoo's defaults
)


class NSGA2(Search):
    """A population of positions; parents and children compete by rank in the front, then by crowding distance.

    It minimises `pareto.costs`. Fitness decides nothing here; the base keeps the fittest plan by it.
    """

    guided = False

    @dataclass(frozen=True)
    class Settings:
        """`crossover` is `sbx` with polynomial mutation, for lists whose neighbours are alike, or `uniform` with a uniform reset for others."""

        population: int = 40
        crossover: str = "sbx"
        crossover_probability: float = 1.0  # of a mating
        mutation: float = 0.5  # probability per variable
        eta: float = 3.0  # distribution index of both operators of `sbx`: the larger, the closer children are to their parents

        def __post_init__(self) -> None:
            check_whole("population", self.population, 2)
            choose("crossover", self.crossover, ("sbx", "uniform"))
            for name in ("crossover_probability", "mutation"):
                if not 0 <= getattr(self, name) <= 1:
                    raise UserError(f"{name} must be a probability from 0 to 1, got {getattr(self, name)}")
            if not 0 <= self.eta < math.inf:
                raise UserError(f"eta must be a finite number of at least 0, got {self.eta}")

    settings: Settings
    kept = ("population", "objectives")

    def __init__(self, space: Space, rng: np.random.Generator, settings: Settings, uniform_start: bool = False):
        super().__init__(space, rng, settings, uniform_start)
        self.population: np.ndarray | None = None  # (N, d) positions, best first
        self.objectives: np.ndarray | None = None  # (N, 2)

    @property
    def size(self) -> int:
        return self.settings.population

    def _ask(self) -> np.ndarray:
        if self.population is None or self.objectives is None:
            return self._first(self._new(None, lambda n: self.space.sample(self.rng, n)))
        population, standing = self.population, _standing(self.objectives)
        return self._new(population, lambda n: self._mate(population, *standing, n))

    def _tell(self, positions: np.ndarray, objectives: np.ndarray, fitness: Fitness) -> None:
        if self.population is not None and self.objectives is not None:
            positions = np.concatenate([self.population, positions])
            objectives = np.concatenate([self.objectives, objectives])
        ranks, crowding = _standing(objectives)
        kept = np.lexsort((-crowding, ranks))[: self.size]
        self.population, self.objectives = positions[kept], objectives[kept]

    def _new(self, population: np.ndarray | None, propose: Callable[[int], np.ndarray]) -> np.ndarray:
        """Positions (N, d) of plans that differ from those of the population and from one another.

        `propose` gives so many positions, of which repeats are put aside. Where it has no more new ones, random plans fill the
        generation, and repeats only where the space has too few plans.
        """
        met = set() if population is None else set(self._keys(population))
        plans = math.prod(self.space.lengths.tolist()) if isinstance(self.space, IntegerSpace) else math.inf
        wanted = min(self.size, plans - len(met))
        found: list[np.ndarray] = []
        for proposing in chain(repeat(propose, ROUNDS), repeat(lambda n: self.space.sample(self.rng, self.size), ROUNDS)):
            if len(found) == wanted:
                break
            proposed = proposing(wanted - len(found))
            for position, key in zip(proposed, self._keys(proposed), strict=True):
                if key not in met and len(found) < wanted:
                    met.add(key)
                    found.append(position[None])
        return np.concatenate([*found, self.space.sample(self.rng, self.size - len(found))])

    def _keys(self, positions: np.ndarray) -> list[tuple]:
        return list(map(tuple, self.space.decode(positions).tolist()))

    def _mate(self, population: np.ndarray, ranks: np.ndarray, crowding: np.ndarray, n: int) -> np.ndarray:
        """n children, or one more, (n, d), of parents chosen by tournament."""
        matings = -(-n // 2)
        parents = population[self._tournament(ranks, crowding, 2 * matings).reshape(2, matings)]  # (2, matings, d)
        crossed = self.rng.random(matings) < self.settings.crossover_probability
        children = np.where(crossed[:, None], self._settled(self._cross(parents)), parents)
        return self._settled(self._mutate(children.reshape(2 * matings, -1)))

    def _tournament(self, ranks: np.ndarray, crowding: np.ndarray, n: int) -> np.ndarray:
        """Winners (n,) of pairs, by rank and then by crowding (Deb et al. 2002, section III-B); everyone stands equally often."""
        rounds = -(-2 * n // len(ranks))
        pairs = np.concatenate([self.rng.permutation(len(ranks)) for _ in range(rounds)])[: 2 * n].reshape(n, 2)
        first, second = pairs.T
        better = (ranks[first] < ranks[second]) | ((ranks[first] == ranks[second]) & (crowding[first] > crowding[second]))
        equal = (ranks[first] == ranks[second]) & (crowding[first] == crowding[second])
        return np.where(better | (equal & (self.rng.random(n) < 0.5)), first, second)

    def _cross(self, parents: np.ndarray) -> np.ndarray:
        """Two children of each of parents (2, matings, d), as floats where the space is one of whole numbers and `sbx` is used."""
        if self.settings.crossover == "uniform":
            swapped = self.rng.random(parents.shape[1:]) < EXCHANGED
            return np.where(swapped, parents[::-1], parents)
        from pymoo.operators.crossover.sbx import cross_sbx  # simulated binary crossover, Deb and Agrawal 1995

        eta, exchanged = (np.full((parents.shape[1], 1), value) for value in (self.settings.eta, EXCHANGED))
        return cross_sbx(parents.astype(float), *self._bounds(), eta, EXCHANGED, exchanged, random_state=self.rng)

    def _mutate(self, children: np.ndarray) -> np.ndarray:
        """Mutants (n, d) of children (n, d)."""
        n, probability = len(children), self.settings.mutation
        if self.settings.crossover == "uniform":
            return np.where(self.rng.random(children.shape) < probability, self.space.sample(self.rng, n), children)
        from pymoo.operators.mutation.pm import mut_pm  # polynomial mutation, Deb and Goyal 1996

        eta = np.full(n, self.settings.eta)
        return mut_pm(children.astype(float), *self._bounds(), eta, np.full(n, probability), False, random_state=self.rng)

    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest position, (d,) each, that the operators on real numbers may give."""
        if isinstance(self.space, IntegerSpace):
            return np.full(self.space.dimensions, -MARGIN), self.space.lengths - 1 + MARGIN
        return np.zeros(self.space.dimensions), self.space.lengths

    def _settled(self, positions: np.ndarray) -> np.ndarray:
        """Positions of the space: whole indices of lists."""
        if isinstance(self.space, IntegerSpace):
            return np.clip(np.rint(positions).astype(np.int64), 0, self.space.lengths - 1)
        return np.clip(positions, 0, self.space.lengths)


def _standing(objectives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks (n,) and crowding distances (n,) of objectives (n, 2)."""
    costs = pareto.costs(objectives)
    ranks = pareto.ranks(costs)
    return ranks, pareto.crowding(costs, ranks)
