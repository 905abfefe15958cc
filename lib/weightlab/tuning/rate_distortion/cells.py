"""The codebook of one group of weights that costs least, distortion and coded bits together, over every number of clusters at once.

The cost of a cell, neighbouring weights that share a centroid, is h·d + λ·(n·log2(N/n) + b): h the slope of the loss over squared error, d
the sum of squared distances to the centroid, λ the price of a bit, n the cell's weights out of N, b the bits of a centroid and its count.
Cells add up, so the cheapest codebook is a shortest path over the sorted weights (Muresan and Effros 2008; Chou, Lookabaugh and Gray 1989
for the objective).
"""

import numpy as np
from numba import njit

from weightlab import formats
from weightlab.compression.sharing.clustering import Codebook
from weightlab.errors import UserError

BINS = 1024  # of equal width, where there are more distinct weights
COUNT_BITS = 12  # of a label's count in a file


def cheapest(weights: np.ndarray, slope: float, price: float, format: str = "float16", bins: int = BINS) -> Codebook:
    """The cheapest codebook of weights (any shape, taken flat), exact for at most `bins` distinct weights; k falls out of it.

    `slope` is h, of loss over squared error, and `price` is λ, of loss over a bit; only their ratio matters. Raises `UserError` for
    weights that are not finite, no weights, and a slope or price that is not positive.

    >>> book = cheapest(np.float32([0.9, 0.1, 0.12, 0.95, 0.11]), slope=1000, price=1)
    >>> print(book.centroids.round(3), book.labels)
    [0.11  0.925] [1 0 0 1 0]
    """
    values = np.ravel(weights).astype(np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise UserError("weights must be finite numbers, at least one")
    for name, number in (("slope", slope), ("price", price)):
        if not (np.isfinite(number) and number > 0):
            raise UserError(f"{name} must be a positive number, got {number!r}")
    distinct, cell_of = np.unique(values, return_inverse=True)
    if len(distinct) > bins:
        edges = np.linspace(distinct[0], distinct[-1], bins + 1)
        cell_of = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, bins - 1)
        _, cell_of = np.unique(cell_of, return_inverse=True)  # without the empty ones
    centred = values - values.mean()  # so that sums of squares lose no digits
    sums = [np.bincount(cell_of, each) for each in (np.ones(len(values)), centred, centred**2)]
    prefix = np.zeros((3, len(sums[0]) + 1))
    prefix[:, 1:] = np.cumsum(sums, axis=1)
    fixed = formats.get(format).bits + COUNT_BITS
    starts = _shortest_path(prefix, price / slope, float(fixed))
    label_of = np.searchsorted(starts, np.arange(len(sums[0])), side="right") - 1
    labels = label_of[cell_of]
    means = np.bincount(labels, values) / np.bincount(labels)
    centroids, merged = np.unique(
        formats.get(format).round(means.astype(np.float32)), return_inverse=True
    )  # rounding may make some equal
    labels = merged[labels]
    return Codebook(centroids, labels.astype(np.min_scalar_type(len(centroids) - 1)))


@njit(cache=True)
def _shortest_path(prefix: np.ndarray, price: float, fixed: float) -> np.ndarray:
    """The first bin of each cell of the cheapest codebook, int64 (k,), given prefix sums (3, bins + 1) of counts, weights and squares."""
    bins = prefix.shape[1] - 1
    total = prefix[0, bins]
    best, back = np.full(bins + 1, np.inf), np.zeros(bins + 1, dtype=np.int64)
    best[0] = 0.0
    for end in range(1, bins + 1):
        for start in range(end):
            n = prefix[0, end] - prefix[0, start]
            mass = prefix[1, end] - prefix[1, start]
            distortion = prefix[2, end] - prefix[2, start] - mass * mass / n
            cost = best[start] + distortion + price * (n * np.log2(total / n) + fixed)
            if cost < best[end]:
                best[end], back[end] = cost, start
    cells = 0
    end = bins
    while end > 0:
        end = back[end]
        cells += 1
    starts = np.empty(cells, dtype=np.int64)
    end = bins
    for cell in range(cells - 1, -1, -1):
        end = back[end]
        starts[cell] = end
    return starts
