"""The base of all searches: ask and tell, counts, the best so far, and a state that restores them exactly."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from weightlab.search.space import IntegerSpace, Space

UNIFORM_PART = 4  # one in so many plans of a first generation may be a uniform one
Fitness = Callable[[np.ndarray], np.ndarray]  # objectives (n, 2) -> fitness (n,), higher is better


class Search:
    """Maximises fitness over plans, generation by generation.

    `ask()` gives plans, int64 (n, d), in a box float64; `tell(objectives, fitness)` takes their objectives, float64 (n, 2), and the
    function that scores objectives *now*. Fitness may change between generations, so bests keep their objectives and are scored again.
    Arguments are never modified; all randomness comes from `rng`. With `uniform_start` up to a quarter of the first
    generation are uniform plans (see `IntegerSpace.uniform`), which come first; its other plans are the same as without.
    """

    Settings: type  # a frozen dataclass
    settings: Any  # one of them
    guided: ClassVar[bool] = True  # whether fitness decides which plans are asked
    kept: ClassVar[tuple[str, ...]] = ()  # names of the attributes that make up a subclass's state

    def __init__(self, space: Space, rng: np.random.Generator, settings: Any, uniform_start: bool = False):
        self.space, self.rng, self.settings, self.uniform_start = space, rng, settings, uniform_start
        self.generation = 0
        self.evaluations = 0
        self.best_plan: np.ndarray | None = None  # (d,)
        self.best_objectives: np.ndarray | None = None  # (2,)
        self._pending: np.ndarray | None = None  # positions given by `ask` that `tell` has not answered, (n, d)

    @property
    def size(self) -> int:
        """Number of plans the next `ask` gives."""
        raise NotImplementedError

    def ask(self) -> np.ndarray:
        """The plans of the next generation, (n, d); the same again until `tell` is called."""
        if self._pending is None:
            self._pending = self._ask()
        return self.space.decode(self._pending)

    def tell(self, objectives: np.ndarray, fitness: Fitness) -> None:
        """Take the objectives (n, 2) of the plans of the last `ask`."""
        if self._pending is None:
            raise ValueError("tell() needs a generation of plans from ask() first")
        objectives = np.array(objectives, dtype=float)
        positions, self._pending = self._pending, None
        plans = self.space.decode(positions)
        scores = score(fitness, objectives)
        self.generation += 1
        self.evaluations += len(plans)
        top = int(np.argmax(scores))
        if self.best_objectives is None or scores[top] > score(fitness, self.best_objectives[None])[0]:
            self.best_plan, self.best_objectives = plans[top].copy(), objectives[top].copy()
        self._tell(positions, objectives, fitness)

    def state(self) -> dict:
        """Everything that changes, generator included, as JSON-ready values; taken between `tell` and `ask`."""
        names = ("generation", "evaluations", "best_plan", "best_objectives", *self.kept)
        return {"rng": self.rng.bit_generator.state} | {name: _plain(getattr(self, name)) for name in names}

    def restore(self, state: dict) -> None:
        """Continue from a `state()`, bit for bit; raises `ValueError` for the state of another kind of search."""
        if state.keys() != self.state().keys():
            raise ValueError(f"a state of {type(self).__name__} has {', '.join(self.state())}, got {', '.join(state)}")
        self._pending = None
        self.rng.bit_generator.state = state["rng"]
        for name, value in state.items():
            if name != "rng":
                setattr(self, name, np.array(value) if isinstance(value, list) else value)

    def _first(self, positions: np.ndarray, within: float = 0) -> np.ndarray:
        """Positions (n, d) of a first generation, the first of them replaced by uniform plans with `uniform_start`.

        `within`, from 0 to below 1, is added to the index of a uniform plan to give its position.
        """
        if not (self.uniform_start and isinstance(self.space, IntegerSpace)):
            return positions
        plans = self.space.uniform(len(positions) // UNIFORM_PART)
        return np.concatenate([plans + within, positions[len(plans) :]])

    def _ask(self) -> np.ndarray:
        """Positions (n, d) of the next generation."""
        raise NotImplementedError

    def _tell(self, positions: np.ndarray, objectives: np.ndarray, fitness: Fitness) -> None:
        """Learn from positions (n, d) and their objectives (n, 2)."""


def score(fitness: Fitness, objectives: np.ndarray) -> np.ndarray:
    """Fitness, float64 (n,), with NaN counted as the worst possible."""
    scores = np.asarray(fitness(objectives), dtype=float)
    return np.where(np.isnan(scores), -np.inf, scores)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
