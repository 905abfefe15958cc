"""The greedy baseline: layer by layer, the cheapest variant that keeps the accuracy."""

from collections.abc import Callable, Sequence

import numpy as np

from weightlab.errors import UserError


def greedy(
    accuracy: Callable[[np.ndarray], np.ndarray], start: np.ndarray, order: Sequence[np.ndarray], least_accuracy: float
) -> tuple[np.ndarray, int]:
    """The plan (d,) in which each layer, from input to output, takes the cheapest variant that keeps `least_accuracy`; and the evaluations.

    `accuracy` takes plans (n, d) and returns fractions (n,). `order` has the variants of each layer, cheapest first. Earlier layers
    are at their choice and later ones at `start` (d,) when a layer is tried. The start is measured first, and not again when a layer
    arrives at its variant. Raises `UserError` if the start has less accuracy, or a variant that `order` does not have.

    >>> plan, evaluations = greedy(lambda plans: 1 - 0.1 / plans.min(axis=1), [8, 8], [[1, 2, 4, 8], [1, 2, 4, 8]], 0.96)
    >>> plan.tolist(), evaluations
    ([4, 4], 7)
    """
    plan, order = np.array(start), [np.asarray(each) for each in order]
    if plan.shape != (len(order),) or any(first not in each for first, each in zip(plan, order, strict=True)):
        raise UserError(f"the start of a greedy search must have one variant of each layer's order, got {plan.tolist()}")

    def keeps(tried: np.ndarray) -> bool:
        return bool(accuracy(tried[None])[0] >= least_accuracy)  # not if it is NaN

    if not keeps(plan):
        raise UserError(f"the start of a greedy search must have an accuracy of at least {least_accuracy:.10g}: lower it")
    evaluations = 1
    for layer, variants in enumerate(order):
        for variant in variants[: int(np.argmax(variants == plan[layer]))]:
            tried = plan.copy()
            tried[layer] = variant
            evaluations += 1
            if keeps(tried):
                plan = tried
                break
    return plan, evaluations
