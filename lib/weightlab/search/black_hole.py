"""Particle swarm with black-hole restarts (sections 3.2 and 5.2); black hole algorithm: Hatamlou 2013."""

from dataclasses import dataclass

import numpy as np

from weightlab.errors import UserError, choose
from weightlab.search.particle_swarm import ParticleSwarm


class BlackHole(ParticleSwarm):
    """A swarm in which slow particles close to the best restart at random, except the one that holds the best.

    A new particle is measured where it starts, before it moves, and has no personal best.
    """

    @dataclass(frozen=True)
    class Settings(ParticleSwarm.Settings):
        """`closeness`: `same_plan` (published), `radius` (distance at most `radius`, index units) or `horizon` (equation 2.12)."""

        closeness: str = "same_plan"
        radius: float | None = None
        slow: float = 0.25  # fraction of the largest possible speed

        def __post_init__(self) -> None:
            super().__post_init__()
            choose("closeness", self.closeness, ("same_plan", "radius", "horizon"))
            if (self.closeness == "radius") != (self.radius is not None and self.radius >= 0):
                raise UserError(
                    f"closeness {self.closeness!r} with radius {self.radius!r}: give a radius >= 0 with 'radius' alone"
                )

    settings: Settings

    def _restart(self, scores: np.ndarray, best_x: np.ndarray, best_score: float) -> np.ndarray:
        settings = self.settings
        largest = settings.max_velocity * np.sqrt(self.space.dimensions)
        slow = np.linalg.norm(self.v, axis=1) <= settings.slow * largest
        return slow & self._close(scores, best_x, best_score) & (np.arange(len(scores)) != self.holder)

    def _close(self, scores: np.ndarray, best_x: np.ndarray, best_score: float) -> np.ndarray:
        if self.settings.closeness == "same_plan":
            return (self.space.decode(self.x) == self.space.decode(best_x[None])).all(axis=1)
        if self.settings.closeness == "radius":
            return np.linalg.norm(self.x - best_x, axis=1) <= self.settings.radius
        others = np.delete(scores, self.holder)
        total = others[np.isfinite(others)].sum()
        horizon = best_score / total if total > 0 else np.inf  # R (2.12), for positions scaled to [0, 1] per dimension
        return np.linalg.norm((self.x - best_x) / self.space.lengths, axis=1) <= horizon
