"""Genetic algorithm (sections 2.3 and 5.2): roulette selection, single-point or uniform crossover, one elite."""

from dataclasses import dataclass

import numpy as np

from weightlab.errors import UserError, choose
from weightlab.search.base import Fitness, Search, score
from weightlab.search.space import Space


class Genetic(Search):
    """A population of index vectors; the elite survives with its measured values, the rest are children."""

    @dataclass(frozen=True)
    class Settings:
        """The published settings for LeNet-5; MobileNet_v2 used `uniform` and 0.01."""

        population: int = 12
        elite: int = 1
        crossover: str = "single_point"
        mutation: float = 0.2  # probability of replacing a gene

        def __post_init__(self) -> None:
            choose("crossover", self.crossover, ("single_point", "uniform"))
            if not 0 <= self.elite < self.population or self.population < 2:
                raise UserError(f"population must be at least 2 and larger than elite, got {self.population} and {self.elite}")
            if not 0 <= self.mutation <= 1:
                raise UserError(f"mutation must be a probability from 0 to 1, got {self.mutation}")

    settings: Settings
    kept = ("population", "objectives", "scores")

    def __init__(self, space: Space, rng: np.random.Generator, settings: Settings, uniform_start: bool = False):
        super().__init__(space, rng, settings, uniform_start)
        self.population: np.ndarray | None = None  # (N, d) indices, fittest first
        self.objectives: np.ndarray | None = None  # (N, 2)
        self.scores: np.ndarray | None = None  # (N,)

    @property
    def size(self) -> int:
        return self.settings.population - (0 if self.population is None else self.settings.elite)

    def _ask(self) -> np.ndarray:
        if self.population is None or self.scores is None:
            return self._first(self.space.sample(self.rng, self.size))
        pairs = [self._cross(*self.population[list(self._parents(self.scores))]) for _ in range(-(-self.size // 2))]
        children = np.concatenate(pairs)[: self.size]
        mutants = self.rng.random(children.shape) < self.settings.mutation
        return np.where(mutants, self.space.sample(self.rng, self.size), children)

    def _tell(self, positions: np.ndarray, objectives: np.ndarray, fitness: Fitness) -> None:
        if self.population is not None and self.objectives is not None:
            elite = self.settings.elite
            positions = np.concatenate([self.population[:elite], positions])
            objectives = np.concatenate([self.objectives[:elite], objectives])
        scores = score(fitness, objectives)
        order = np.argsort(-scores, kind="stable")
        self.population, self.objectives, self.scores = positions[order], objectives[order], scores[order]

    def _parents(self, scores: np.ndarray) -> tuple[int, int]:
        """Two different individuals by roulette, P(j) = f_j / Σ f."""
        first = self._spin(scores, np.ones(len(scores), dtype=bool))
        return first, self._spin(scores, np.arange(len(scores)) != first)

    def _spin(self, scores: np.ndarray, allowed: np.ndarray) -> int:
        """One of the `allowed`; to draw only among them is the same as to draw again until one of them comes up."""
        shares = np.where(allowed & (scores > 0), scores, 0.0)
        if not (np.isfinite(shares).all() and shares.sum() > 0):
            shares = allowed.astype(float)
        cumulative = np.cumsum(shares)
        return int(np.searchsorted(cumulative, self.rng.random() * cumulative[-1], side="right"))

    def _cross(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Two children (2, d) of parents (d,)."""
        d = len(a)
        if d == 1:
            return np.stack([a, b])
        if self.settings.crossover == "single_point":
            mask = np.arange(d) < self.rng.integers(1, d)
        else:
            mask = np.zeros(d, dtype=bool)
            while mask.all() or not mask.any():
                mask = self.rng.random(d) < 0.5
        return np.stack([np.where(mask, a, b), np.where(mask, b, a)])
