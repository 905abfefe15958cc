"""Search spaces: for each layer an ordered list of allowed k (section 3.2), or a box of real vectors (section 5.5)."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from weightlab.errors import UserError


@dataclass(frozen=True)
class IntegerSpace:
    """Lists of allowed k, one per layer; an index vector picks one entry of each list."""

    lists: tuple[np.ndarray, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "lists", tuple(np.asarray(each, dtype=np.int64) for each in self.lists))
        for layer, allowed in enumerate(self.lists):
            if not len(allowed):
                raise UserError(f"empty search space: layer {layer} has no allowed k")

    @property
    def dimensions(self) -> int:
        return len(self.lists)

    @property
    def lengths(self) -> np.ndarray:
        """Lengths n_l of the lists, int64 (d,)."""
        return np.array([len(each) for each in self.lists])

    def sample(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Uniform index vectors, int64 (n, d)."""
        return rng.integers(self.lengths, size=(n, self.dimensions))

    def uniform(self, n: int) -> np.ndarray:
        """Index vectors, int64 (at most n, d), of plans with one k in all layers, spread evenly from the largest allowed k to the least.

        A layer that does not allow that k takes the nearest k that it allows, the smaller of two. Fewer than n if there are no more.
        Lists must be ascending.
        """
        every = np.unique(np.concatenate(self.lists))
        plans = np.stack([_nearest(allowed, every) for allowed in self.lists], axis=1)
        distinct = plans[np.sort(np.unique(plans, axis=0, return_index=True)[1])]
        return distinct[np.round(np.linspace(len(distinct) - 1, 0, min(n, len(distinct)))).astype(int)]

    def is_uniform(self, plans: np.ndarray) -> np.ndarray:
        """Which of plans (n, d) are among all uniform plans of this space, bool (n,)."""
        return np.array([tuple(plan) in self._every_uniform for plan in plans.tolist()], dtype=bool)

    @cached_property
    def _every_uniform(self) -> set[tuple[int, ...]]:
        return set(map(tuple, self.decode(self.uniform(int(self.lengths.sum()))).tolist()))

    def decode(self, positions: np.ndarray) -> np.ndarray:
        """Plans, int64 (n, d), of indices or of positions in [0, n_l]: index min(floor(x_l), n_l − 1)."""
        indices = np.clip(np.floor(positions).astype(np.int64), 0, self.lengths - 1)
        return np.stack([allowed[column] for allowed, column in zip(self.lists, indices.T, strict=True)], axis=1)


@dataclass(frozen=True)
class BoxSpace:
    """Vectors of numbers from 0 to `highest`, one limit per coordinate; kept to `decimals` places, so that repeats are known.

    Raises `UserError` unless every limit is a finite number above 0.
    """

    highest: tuple[float, ...]
    decimals: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "highest", tuple(map(float, self.highest)))
        if not self.highest or not all(0 < limit < np.inf for limit in self.highest):
            raise UserError(f"a box needs at least one limit, each a finite number above 0, got {list(self.highest)}")

    @property
    def dimensions(self) -> int:
        return len(self.highest)

    @property
    def lengths(self) -> np.ndarray:
        """Lengths of the sides, float64 (d,)."""
        return np.array(self.highest)

    def sample(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Uniform vectors, float64 (n, d)."""
        return rng.random((n, self.dimensions)) * self.lengths

    def decode(self, positions: np.ndarray) -> np.ndarray:
        """The vectors, float64 (n, d), that positions stand for: inside the box, rounded."""
        return np.clip(np.round(positions, self.decimals), 0, self.lengths)


Space = IntegerSpace | BoxSpace


def _nearest(allowed: np.ndarray, ks: np.ndarray) -> np.ndarray:
    """Index of the nearest allowed k for each of `ks`, the smaller of two; `allowed` (n,) ascending."""
    above = np.searchsorted(allowed, ks).clip(max=len(allowed) - 1)
    below = (above - 1).clip(min=0)
    return np.where(ks - allowed[below] <= allowed[above] - ks, below, above)


def full(dimensions: int, ks: Sequence[int]) -> IntegerSpace:
    """Every layer may take every k.

    >>> space = full(3, ks=[2, 4, 8, 16])  # three layers
    >>> space.decode([[0, 1, 3]])
    array([[ 2,  4, 16]])
    """
    return IntegerSpace((np.asarray(ks),) * dimensions)


def scan(accuracy: Callable[[np.ndarray], np.ndarray], layers: Sequence[str], ks: Sequence[int]) -> pd.DataFrame:
    """Accuracy with only one layer shared, for each layer and k: a row each, columns layer, name, k, and one per split.

    `accuracy` takes partial plans (n, layers), 0 = unshared, and returns fractions (n, splits): `Evaluator.accuracy`.
    """
    rows = [(layer, int(k)) for layer in range(len(layers)) for k in ks]
    plans = np.zeros((len(rows), len(layers)), dtype=np.int64)
    for row, (layer, k) in enumerate(rows):
        plans[row, layer] = k
    table = pd.DataFrame(rows, columns=["layer", "k"])
    table.insert(1, "name", [layers[layer] for layer in table["layer"]])
    return table.join(pd.DataFrame(accuracy(plans)).add_prefix("accuracy_"))


def threshold(value: float | str | None) -> float | str | None:
    """A threshold in the form that is recorded and hashed: a fraction, a margin such as "-1pp", or None.

    Raises `UserError` for anything else.

    >>> threshold("- 1.0 pp"), threshold(0.97), threshold(None)
    ('-1pp', 0.97, None)
    """
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    if isinstance(value, str) and (margin := re.fullmatch(r"-\s*(\d+\.?\d*|\.\d+)\s*pp", value.strip())):
        return f"-{np.format_float_positional(float(margin[1]), trim='-')}pp"
    raise UserError(
        "threshold must be an accuracy (a fraction such as 0.97), a margin in percentage points below that of the unshared network "
        f"(such as -1pp), or none, got {value!r}"
    )


def least_accuracy(threshold: float | str, right: int, images: int, split: str) -> float:
    """The accuracy (fraction) that a threshold requires if the unshared network classifies `right` of `images` of a split correctly.

    For a margin it is a whole number of images / `images`, so that a loss of exactly the margin is allowed. Raises `UserError` for a
    fraction above the unshared accuracy.
    """
    if isinstance(threshold, str):
        margin = float(threshold.removeprefix("-").removesuffix("pp")) / 100
        return max(0, math.ceil(right - margin * images - 1e-9)) / images
    if threshold > right / images:
        raise UserError(
            f"threshold {threshold:.10g} is above the accuracy of the unshared network, {right / images:.10g} on {images} images of "
            f"{split}: give a lower one, or a margin below it such as -1pp"
        )
    return threshold


def reduce(table: pd.DataFrame, accuracy: str, threshold: float) -> IntegerSpace:
    """Keep every k at which column `accuracy` of a scan reaches `threshold` (a fraction).

    Each k is judged by itself, so lists may have gaps. Raises `UserError` naming the layers for which nothing is left.

    >>> table = pd.DataFrame({"layer": [0, 0, 1, 1], "name": ["a", "a", "b", "b"], "k": [2, 4, 2, 4]})
    >>> reduce(table.assign(accuracy=[0.90, 0.98, 0.97, 0.99]), "accuracy", 0.97).lists
    (array([4]), array([2, 4]))
    """
    lists = {layer: rows.loc[rows[accuracy] >= threshold, "k"].to_numpy() for layer, rows in table.groupby("layer")}
    if emptied := [layer for layer, ks in lists.items() if not len(ks)]:
        names = table.drop_duplicates("layer").set_index("layer")["name"]
        raise UserError(
            f"no k of {', '.join(names[layer] for layer in emptied)} reaches an accuracy of {threshold:g} when shared alone; "
            "the search space would be empty: lower the threshold"
        )
    return IntegerSpace(tuple(lists[layer] for layer in sorted(lists)))
