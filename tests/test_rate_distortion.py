"""Codebooks that weigh distortion against bits, against the definition itself."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightlab import models
from weightlab.errors import UserError
from weightlab.tuning.rate_distortion import cells


def cost(values, labels, slope, price, bits):
    """The objective of a partition, from its definition, with means as centroids."""
    n = np.bincount(labels)
    n = n[n > 0]
    distortion = sum(((values[labels == label] - values[labels == label].mean()) ** 2).sum() for label in np.unique(labels))
    return slope * distortion + price * ((n * np.log2(len(values) / n)).sum() + len(n) * bits)


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=9), st.floats(0.01, 100), st.floats(0.01, 100))
def test_no_other_cells_of_neighbours_cost_less(numbers, slope, price):
    values = np.sort(np.array(numbers, dtype=np.float32) / 8)
    bits = 16 + cells.COUNT_BITS
    found = cost(values, cells.cheapest(values, slope, price).labels, slope, price, bits)
    for k in range(len(values)):
        for cuts in combinations(range(1, len(values)), k):
            labels = np.searchsorted(np.array(cuts, dtype=int), np.arange(len(values)), side="right")
            assert found <= cost(values, labels, slope, price, bits) * (1 + 1e-9) + 1e-6


def test_a_higher_price_gives_fewer_clusters_and_fewer_bits():
    weights = models.weight(models.load("lenet5_tanh"), "feature_extractor.6").detach().numpy()
    books = [cells.cheapest(weights, 1.0, price) for price in (1e-5, 1e-4, 1e-3, 1e-2, 10.0)]
    ks = [len(book.centroids) for book in books]
    entropy = [
        -(np.bincount(book.labels) / weights.size * np.log2(np.bincount(book.labels) / weights.size)).sum() for book in books
    ]
    assert ks == sorted(ks, reverse=True) and ks[0] > 20 and ks[-1] == 1 and entropy == sorted(entropy, reverse=True)
    assert (np.diff(books[0].centroids) > 0).all() and books[0].centroids.dtype == np.float32
    fine = cells.cheapest(weights, 1.0, 1e-4, bins=4096)
    costs = [cost(weights.ravel().astype(float), book.labels.ravel(), 1.0, 1e-4, 28) for book in (fine, books[1])]
    assert costs[0] <= costs[1] <= 1.001 * costs[0]  # bins cost little


@pytest.mark.parametrize(
    ("weights", "slope", "price", "sentence"),
    [
        ([], 1, 1, "weights must be finite numbers, at least one"),
        ([1, np.nan], 1, 1, "weights must be finite numbers, at least one"),
        ([1, 2], 0, 1, "slope must be a positive number, got 0"),
        ([1, 2], 1, -2, "price must be a positive number, got -2"),
        ([1, 2], 1, float("inf"), "price must be a positive number, got inf"),
    ],
)
def test_wrong_input_gets_one_sentence(weights, slope, price, sentence):
    with pytest.raises(UserError, match=sentence):
        cells.cheapest(np.array(weights, dtype=np.float32), slope, price)


def test_equal_weights_take_one_cluster():
    book = cells.cheapest(np.full(50, 0.3, dtype=np.float32), 1e9, 1e-9)
    assert len(book.centroids) == 1 and (book.labels == 0).all()
