"""Fitness of (accuracy, rate) against a target that may move (equation 3.4, sections 3.2 and 4.2)."""

from dataclasses import dataclass

import numpy as np

from weightlab.errors import UserError, choose

LEAST_DISTANCE = 1e-9  # makes an exact hit finite


def fitness(objectives: np.ndarray, target: np.ndarray) -> np.ndarray:
    """1 / distance to the target, to be maximised: float64 (n,) for objectives (n, 2) = accuracy (fraction), rate.

    Equation 3.4: distance = sqrt((1 − ACC/ACC_t)² + (1 − CR/CR_t)²). NaN objectives give NaN.

    >>> print(fitness([[0.98, 10.0], [0.99, 9.0]], target=[0.99, 12.0]).round(2))
    [5.99 4.  ]
    """
    return 1 / np.maximum(np.sqrt(((1 - np.asarray(objectives) / target) ** 2).sum(-1)), LEAST_DISTANCE)


@dataclass(frozen=True)
class TargetRule:
    """Where the target starts and how it moves.

    `form` is `fixed`; `batch` (the thesis's code: per generation, each axis to its maximum over the points beyond both limits
    plus the offset, if that maximum reaches the target); or `pointwise` (the thesis's text: point by point, in evaluation order).
    """

    accuracy: float
    rate: float
    form: str = "fixed"
    limit_accuracy: float = 0.97
    limit_rate: float = 1.0
    offset_accuracy: float = 0.001
    offset_rate: float = 0.1

    def __post_init__(self) -> None:
        choose("form of target", self.form, ("fixed", "batch", "pointwise"))
        for name in set(self.__dataclass_fields__) - {"form"}:  # so that equal rules are written alike: 18 as 18.0
            try:
                object.__setattr__(self, name, float(getattr(self, name)))
            except (TypeError, ValueError):
                raise UserError(f"{name} of a target must be a number, got {getattr(self, name)!r}") from None
        if not (self.accuracy > 0 and self.rate > 0):
            raise UserError(f"a target's accuracy and rate must be positive, got {self.accuracy} and {self.rate}")


class Target:
    """A target in motion: call `update` with the objectives of a generation, then score with `fitness`."""

    def __init__(self, rule: TargetRule):
        self.rule = rule
        self.now = np.array([rule.accuracy, rule.rate], dtype=float)  # accuracy (fraction), rate

    def update(self, objectives: np.ndarray) -> None:
        """Move the target by the rule for one generation's objectives (n, 2)."""
        rule = self.rule
        offset = np.array([rule.offset_accuracy, rule.offset_rate])
        beyond = (np.asarray(objectives) > [rule.limit_accuracy, rule.limit_rate]).all(axis=1)
        qualified = np.asarray(objectives)[beyond]
        if rule.form == "batch" and len(qualified):
            highest = qualified.max(axis=0)
            self.now = np.where(highest >= self.now, highest + offset, self.now)
        elif rule.form == "pointwise":
            for point in qualified:
                self.now = np.where(point > self.now, point + offset, self.now)

    def fitness(self, objectives: np.ndarray) -> np.ndarray:
        """Fitness of objectives (n, 2) against the current target, float64 (n,)."""
        return fitness(objectives, self.now)
