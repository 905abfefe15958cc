"""Particle swarm (sections 2.3, 3.2 and 5.2)."""

from dataclasses import dataclass

import numpy as np

from weightlab.errors import UserError
from weightlab.search.base import Fitness, Search, score
from weightlab.search.space import Space


class ParticleSwarm(Search):
    """Particles with positions in [0, n_l] per dimension, drawn to their own best and to the best of all."""

    @dataclass(frozen=True)
    class Settings:
        """The published settings."""

        particles: int = 20
        inertia: float = 0.8  # ω
        cognitive: float = 2.05  # c_p
        social: float = 2.05  # c_g
        max_velocity: float = 4.0  # per dimension, in index units

        def __post_init__(self) -> None:
            if self.particles < 1 or self.max_velocity < 0:
                raise UserError(
                    f"a swarm needs particles >= 1 and max_velocity >= 0, got {self.particles} and {self.max_velocity}"
                )

    settings: Settings
    kept = ("x", "v", "own_x", "own_objectives", "best_x", "held_objectives", "holder")

    def __init__(self, space: Space, rng: np.random.Generator, settings: Settings, uniform_start: bool = False):
        super().__init__(space, rng, settings, uniform_start)
        self.x, self.v = self._new(settings.particles)
        self.x = self._first(self.x, within=0.5)
        self.own_x = self.x.copy()  # (n, d) personal bests x_p ...
        self.own_objectives = np.full((settings.particles, 2), np.nan)  # ... and their objectives; NaN: none yet
        self.best_x: np.ndarray | None = None  # (d,) best of all, x_g
        self.held_objectives: np.ndarray | None = None  # (2,) its objectives
        self.holder = -1  # the particle that found it

    @property
    def size(self) -> int:
        return self.settings.particles

    def _new(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """n random positions and velocities, (n, d) each."""
        limit = self.settings.max_velocity
        shape = (n, self.space.dimensions)
        return self.rng.random(shape) * self.space.lengths, self.rng.uniform(-limit, limit, shape)

    def _ask(self) -> np.ndarray:
        return self.x.copy()

    def _tell(self, positions: np.ndarray, objectives: np.ndarray, fitness: Fitness) -> None:
        scores = score(fitness, objectives)
        own_scores = score(fitness, self.own_objectives)
        better = scores > own_scores
        self.own_x = np.where(better[:, None], self.x, self.own_x)
        self.own_objectives = np.where(better[:, None], objectives, self.own_objectives)
        best_x, best_score = self._update_best(np.maximum(scores, own_scores), fitness)
        restart = self._restart(scores, best_x, best_score)
        self._move(best_x)
        if restart.any():
            self.x[restart], self.v[restart] = self._new(int(restart.sum()))
            self.own_x[restart], self.own_objectives[restart] = self.x[restart], np.nan

    def _update_best(self, own_scores: np.ndarray, fitness: Fitness) -> tuple[np.ndarray, float]:
        """Replace the best of all by the fittest personal best if that is strictly better (an old one may be, after a move of the target).

        Returns the best of all, (d,), and its fitness.
        """
        top = int(np.argmax(own_scores))
        best_score = -np.inf if self.held_objectives is None else score(fitness, self.held_objectives[None])[0]
        if self.best_x is None or own_scores[top] > best_score:
            self.best_x, self.held_objectives, self.holder = self.own_x[top].copy(), self.own_objectives[top].copy(), top
        return self.best_x, max(best_score, own_scores[top])

    def _restart(self, scores: np.ndarray, best_x: np.ndarray, best_score: float) -> np.ndarray:
        """Which particles restart at random, bool (n,); none in the plain swarm."""
        return np.zeros(len(scores), dtype=bool)

    def _move(self, best_x: np.ndarray) -> None:
        settings = self.settings
        r_p, r_g = self.rng.random((2, *self.x.shape))
        v = settings.inertia * self.v + settings.cognitive * r_p * (self.own_x - self.x)
        v = v + settings.social * r_g * (best_x - self.x)  # (2.9)
        self.v = np.clip(v, -settings.max_velocity, settings.max_velocity)
        self.x = np.clip(self.x + self.v, 0, self.space.lengths)  # (2.10), with the new velocity, which is kept at the wall
