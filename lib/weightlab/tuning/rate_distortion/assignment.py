"""A layer's weights put on a grid of equal steps, at the least cost of output error and coded bits together.

The error of a row of weights w that becomes q is slope · (q − w)ᵀ H (q − w), H the second moments of the inputs; a weight with label l costs
price · bits(l). First the inputs are taken in order of their power, and what one weight's rounding costs is passed on to the weights not
yet rounded (Frantar et al. 2022, GPTQ). Then single weights change their label as long as the whole cost falls.
"""

import math
from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from weightlab.compression import kinds

DAMPING = 0.01  # of the mean of H's diagonal, so that H has an inverse
SWEEPS = 4  # over all weights, to lower the cost
RARE = 0.3  # occurrences that a label without any is charged for
INERTIA = 32  # labels of a column that weigh as much as all of the layer, when its frequencies are guessed
REACH = 500  # steps from zero, at most
NEAR = 10  # labels that a weight moves at once, at most
# The price of a bit over the curvature times the square of the step: at many bits a weight ln 2 / 6 = 0.12 is best (Gish and Pierce 1968);
# at about one, where most weights are 0, three times as much was measured best.
STEP = 0.4


@dataclass(frozen=True)
class Assigned:
    """Labels, int64 (groups, rows, inputs), of a grid of `k` centroids: the lowest is `low`, the distance between two is `step`.

    Some centroids between the lowest and the highest may be of no label.
    """

    labels: np.ndarray
    low: float
    step: float

    @property
    def k(self) -> int:
        """The number of centroids."""
        return int(self.labels.max()) + 1

    @property
    def values(self) -> np.ndarray:
        """The new weights, float32 (groups, rows, inputs)."""
        return kinds.on_grid(self.labels, self.low, self.step)


def assign(weights: np.ndarray, moments: np.ndarray, slopes: np.ndarray, price: float, sweeps: int = SWEEPS) -> Assigned:
    """The cheapest labels that are found for weights (groups, rows, inputs).

    `moments` is H (groups, inputs, inputs), `slopes` (groups, rows) the loss per squared error of an output, `price` the loss that a bit is
    worth. The step follows from them (see `STEP`).
    """
    power = np.diagonal(moments, axis1=1, axis2=2)
    damped = moments + np.eye(moments.shape[1]) * np.maximum(DAMPING * power.mean(1), 1e-12)[:, None, None]
    curvature = max(slopes.mean() * math.exp(np.linalg.slogdet(damped)[1].mean() / moments.shape[1]), 1e-30)
    step = max(float(f"{math.sqrt(price / (STEP * curvature)):.3g}"), float(np.abs(weights).max()) / REACH, 1e-30)
    reach = max(1, math.ceil(np.abs(weights).max() / step))
    labels = _fed_back(weights, damped, power, step, reach) + reach
    grid = step * np.arange(-reach, reach + 1, dtype=np.float64)
    for _ in range(sweeps):
        values = grid[labels]
        gradients = (values - weights) @ damped
        if not _swept(values, gradients, damped, grid, _bits(labels, len(grid)), price, slopes, labels):
            break
    low = int(labels.min())
    return Assigned(labels - low, float(grid[low]), step)


def _fed_back(weights: np.ndarray, moments: np.ndarray, power: np.ndarray, step: float, reach: int) -> np.ndarray:
    """The nearest steps, int64, input after input, each error passed on to the inputs that come later."""
    order = np.argsort(-power, axis=1, kind="stable")
    within = np.take_along_axis(np.take_along_axis(moments, order[:, :, None], 1), order[:, None, :], 2)
    # H = R Rᵀ with R upper, from the last input to the first; U = R⁻¹ then has H⁻¹ = Uᵀ U. H itself is never inverted.
    factor = np.linalg.cholesky(within[:, ::-1, ::-1])[:, ::-1, ::-1]
    upper = np.ascontiguousarray(np.linalg.inv(factor))
    ordered = np.ascontiguousarray(np.take_along_axis(weights, order[:, None, :], 2))
    levels = np.empty(weights.shape, dtype=np.int64)
    _feed_back(ordered, upper, step, reach, levels)
    in_place = np.empty_like(levels)
    np.put_along_axis(in_place, np.broadcast_to(order[:, None, :], levels.shape), levels, 2)
    return in_place


@njit(cache=True, parallel=True)
def _feed_back(weights, upper, step, reach, levels):  # type: ignore[no-untyped-def]
    groups, rows, inputs = weights.shape
    for row in prange(groups * rows):
        group = row // rows
        w, own = weights[group, row % rows], levels[group, row % rows]
        for j in range(inputs):
            level = min(max(np.rint(w[j] / step), -reach), reach)
            own[j] = int(level)
            error = (w[j] - step * level) / upper[group, j, j]
            for i in range(j + 1, inputs):
                w[i] -= error * upper[group, j, i]


@njit(cache=True, parallel=True)
def _swept(values, gradients, moments, centroids, bits, price, slopes, labels):  # type: ignore[no-untyped-def]
    """One pass over all weights, in place; how many changed."""
    groups, rows, inputs = values.shape
    changed = np.zeros(groups * rows, dtype=np.int64)
    for row in prange(groups * rows):
        group, own = row // rows, row % rows
        slope, gradient = slopes[group, own], gradients[group, own]
        for j in range(inputs):
            now, power = labels[group, own, j], moments[group, j, j]
            best, least = now, -1e-12 * price
            for label in range(max(0, now - NEAR), min(len(centroids), now + NEAR + 1)):
                move = centroids[label] - values[group, own, j]
                cost = slope * move * (2 * gradient[j] + power * move) + price * (bits[j, label] - bits[j, now])
                if cost < least:
                    best, least = label, cost
            if best != now:
                move = centroids[best] - values[group, own, j]
                for i in range(inputs):
                    gradient[i] += move * moments[group, j, i]
                values[group, own, j], labels[group, own, j] = centroids[best], best
                changed[row] += 1
    return changed.sum()


def _bits(labels: np.ndarray, k: int) -> np.ndarray:
    """What each label costs in each column, float64 (inputs, k), about as `packing.adaptive_coding` learns it; the same in all if grouped."""
    groups, rows, inputs = labels.shape
    counts = np.maximum(np.bincount(labels.ravel(), minlength=k), RARE)
    shares = np.broadcast_to(counts / counts.sum(), (inputs, k))
    if groups > 1:  # an input of one group says nothing of another's
        return -np.log2(shares)
    own = np.bincount((labels + k * np.arange(inputs)).ravel(), minlength=inputs * k).reshape(inputs, k)
    return -np.log2((own + INERTIA * shares) / (rows + INERTIA))
