"""Fronts of plans: non-dominated sorting, crowding distance and hypervolume. Costs are (n, 2), lower is better.

A front means the same for every method, as a rate is original / stored, whether bits are stored or energy is spent: 1 - accuracy is
the loss up to a constant, and 1 / rate the bytes (or the energy) up to a factor.
"""

import numpy as np

from weightlab.errors import UserError


def costs(objectives: np.ndarray) -> np.ndarray:
    """Costs (n, 2) = 1 - accuracy, 1 / rate of objectives (n, 2) = accuracy (fraction), rate.

    A plan with NaN, or with a rate that is not above 0, counts as the worst: its costs are infinite.

    >>> costs([[0.75, 4.0], [0.5, np.nan]])
    array([[0.25, 0.25],
           [ inf,  inf]])
    """
    objectives = np.asarray(objectives, dtype=float)
    accuracy, rate = objectives[:, :1], objectives[:, 1:]
    usable = np.isfinite(accuracy) & (rate > 0)
    return np.where(usable, np.hstack([1 - accuracy, 1 / np.where(usable, rate, 1)]), np.inf)


def non_dominated(costs: np.ndarray) -> np.ndarray:
    """Which costs (n, 2) no other row is better than in one column without being worse in the other, bool (n,); equal rows are kept.

    >>> non_dominated([[0.1, 0.5], [0.2, 0.4], [0.2, 0.5], [0.1, 0.5]])
    array([ True,  True, False,  True])
    """
    import moocore

    return moocore.is_nondominated(_finite_or_worst(costs), keep_weakly=True)


def ranks(costs: np.ndarray) -> np.ndarray:
    """Rank of costs (n, 2): 0 for the non-dominated, 1 for what is non-dominated among the rest, and so on, int (n,).

    Deb et al. 2002, section III-A.

    >>> ranks([[0.1, 0.5], [0.2, 0.4], [0.2, 0.5], [0.3, 0.6]])
    array([0, 0, 1, 2])
    """
    import moocore

    return moocore.pareto_rank(_finite_or_worst(costs)).astype(np.int64)


def crowding(costs: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Crowding distance of costs (n, 2) within their rank, float64 (n,); infinite at the ends of a front.

    Deb et al. 2002, section III-B: the distance between both neighbours, as a part of the front's width, here the mean of both columns.

    >>> crowding(np.array([[0.0, 1.0], [0.25, 0.5], [1.0, 0.0], [2.0, 2.0]]), np.array([0, 0, 0, 1]))
    array([inf,  1., inf, inf])
    """
    from pymoo.operators.survival.rank_and_crowding.metrics import get_crowding_function

    costs, distances = np.asarray(costs, dtype=float), np.zeros(len(ranks))
    with np.errstate(invalid="ignore"):  # costs that are all infinite have no width
        for rank in np.unique(ranks):
            front = ranks == rank
            distances[front] = get_crowding_function("cd").do(costs[front])
    return distances


def hypervolume(costs: np.ndarray, reference: np.ndarray) -> float:
    """Area that costs (n, 2) dominate below a reference (2,); what is not better than the reference in both columns adds nothing.

    Zitzler and Thiele 1998.

    >>> hypervolume([[0.25, 0.5], [0.5, 0.25]], reference=[1, 1])
    0.5
    """
    import moocore

    costs = _finite_or_worst(costs)
    return float(moocore.hypervolume(costs, ref=np.asarray(reference, dtype=float))) if len(costs) else 0.0


def hypervolume_ratio(costs: np.ndarray, front: np.ndarray, reference: np.ndarray) -> float:
    """Hypervolume of costs (n, 2) / that of the true front (m, 2).

    Raises `UserError` if nothing of the front is better than the reference.

    >>> hypervolume_ratio([[0.25, 0.5]], front=[[0.25, 0.5], [0.5, 0.25]], reference=[1, 1])
    0.75
    """
    whole = hypervolume(front, reference)
    if not whole:
        raise UserError(f"no point of the front is better than the reference {list(reference)} in both costs: give a larger one")
    return hypervolume(costs, reference) / whole


def _finite_or_worst(costs: np.ndarray) -> np.ndarray:
    """Costs (n, 2) in which a row with NaN is the worst."""
    costs = np.asarray(costs, dtype=float)
    return np.where(np.isnan(costs).any(axis=1, keepdims=True), np.inf, costs)
