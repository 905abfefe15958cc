"""Clustering of scalar weights: exact k-means against three other solvers, the lifted space, and the scikit-learn arms."""

import itertools
import time

import ckwrap
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from weightlab.compression.sharing import clustering
from weightlab.compression.sharing.clustering import Lift, cluster
from weightlab.errors import UserError

# Few distinct numbers make ties and repeats likely; the others have any sign and size.
weight_lists = st.one_of(
    st.lists(st.integers(-4, 4).map(lambda i: i / 8), min_size=1, max_size=25),
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=25),
)


def samples():
    """Weights of different kinds, float32, by name."""
    random = np.random.default_rng(7)
    return {
        "normal": random.normal(0, 0.1, 300),
        "repeated": np.round(random.normal(0, 3, 300)),
        "two far groups": np.concatenate([random.normal(-50, 0.01, 60), random.normal(50, 0.01, 60)]),
        "negative": -random.exponential(1, 200),
        "far from zero": 1000 + random.normal(0, 0.01, 200),
        "equally spaced": np.arange(-40, 41) / 16,  # every neighbouring pair is a tie
    }


def spread_of(points):
    """Sum of squared distances of points (n,) or (n, d) to their mean, computed plainly in float64."""
    points = np.asarray(points, dtype=np.float64)
    return float(((points - points.mean(axis=0)) ** 2).sum())


def inertia(book, points):
    """Inertia of a codebook's groups about their own means, so that float32 rounding of centroids plays no part."""
    return sum(spread_of(points[book.labels == label]) for label in np.unique(book.labels))


def naive_inertias(values):
    """Optimal inertia for every k, (n,), by the textbook recurrence in O(k n²), on sorted values with repeats written out."""
    x = np.sort(np.asarray(values, dtype=np.float64))
    n = len(x)
    cost = [[spread_of(x[i:j]) if i < j else 0.0 for j in range(n + 1)] for i in range(n + 1)]
    best = [cost[0][j] for j in range(n + 1)]
    result = [best[n]]
    for _ in range(1, n):
        best = [min(best[i] + cost[i][j] for i in range(j + 1)) for j in range(n + 1)]
        result.append(best[n])
    return np.array(result)


def tolerance(x):
    """What float64 prefix sums may lose: a hair of the spread of all weights."""
    return {"rtol": 1e-9, "atol": 1e-12 * spread_of(x) + 1e-300}


# --- exact k-means --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", samples())
def test_exact_has_the_inertia_of_a_second_exact_solver_for_every_k(name):
    x = samples()[name].astype(np.float32)
    exact = x.astype(np.float64)
    ks = range(1, 31)
    books = cluster(x, ks)
    ours = [inertia(books[k], exact) for k in ks]
    theirs = [ckwrap.ckmeans(exact, min(k, len(np.unique(x)))).withinss.sum() for k in ks]
    np.testing.assert_allclose(ours, theirs, **tolerance(exact))


@given(weight_lists)
def test_exact_has_the_inertia_of_the_textbook_recurrence(values):
    x = np.array(values, dtype=np.float32)
    books = cluster(x, range(1, len(x) + 1))
    ours = [inertia(books[k], x.astype(np.float64)) for k in range(1, len(x) + 1)]
    np.testing.assert_allclose(ours, naive_inertias(x), **tolerance(x))


@given(st.lists(st.tuples(st.floats(-9, 9, width=16), st.integers(1, 4)), min_size=1, max_size=9, unique_by=lambda pair: pair[0]))
def test_counts_are_repeats(pairs):
    """`intervals` with counts finds what the points written out that often have as least inertia."""
    x, counts = (np.array(column) for column in zip(*sorted(pairs), strict=True))
    x = x.astype(np.float64)
    repeated = np.repeat(x, counts)
    starts = clustering.intervals(x, range(1, len(x) + 1), counts)
    expected = naive_inertias(repeated)
    for k in range(1, len(x) + 1):
        edges = np.append(starts[k], len(x))
        assert starts[k][0] == 0 and (np.diff(edges) > 0).all() and len(starts[k]) == k
        parts = [np.repeat(x[i:j], counts[i:j]) for i, j in itertools.pairwise(edges)]
        np.testing.assert_allclose(sum(map(spread_of, parts)), expected[k - 1], **tolerance(repeated))


@given(weight_lists)
def test_codebooks_keep_their_promises(values):
    """Ascending centroids, at most k of them, least label type, centroid = mean of its group, inertia non-increasing in k."""
    x = np.array(values, dtype=np.float32)
    distinct = len(np.unique(x))
    books = cluster(x, range(1, len(x) + 3))
    previous = np.inf
    for k, book in books.items():
        assert len(book.centroids) == min(k, distinct) and book.centroids.dtype == np.float32
        assert (np.diff(book.centroids) > 0).all()
        assert book.labels.dtype == np.uint8 and book.labels.shape == x.shape
        assert set(book.labels) == set(range(len(book.centroids)))
        means = [x[book.labels == label].astype(np.float64).mean() for label in range(len(book.centroids))]
        np.testing.assert_allclose(book.centroids, means, rtol=2e-7, atol=1e-30 + 1e-14 * np.abs(x).max())
        now = inertia(book, x.astype(np.float64))
        assert now <= previous + tolerance(x)["atol"]
        previous = now


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=30))
def test_as_many_clusters_as_distinct_weights_changes_nothing(values):
    """Exactly, whatever the sizes of the weights: a group of one value is stored as that value."""
    x = np.array(values, dtype=np.float32)
    for k in (len(np.unique(x)), len(np.unique(x)) + 5):
        book = cluster(x, k)
        np.testing.assert_array_equal(book.values(), x)
        assert len(book.centroids) == len(np.unique(x))


def test_small_centroids_survive_large_neighbours():
    """A group's mean must not be taken as the difference of running sums: beside a weight of -1000 those lose a centroid of 1e-9."""
    x = np.array([-1000, 1e-9, 3e-9, 1, 1000], dtype=np.float32)
    np.testing.assert_array_equal(cluster(x, 5).centroids, x)
    assert cluster(x, 4).centroids[1] == pytest.approx(2e-9, rel=1e-6)


def test_the_largest_k_of_a_large_layer_is_cheap():
    """k = 65 536 is allowed; with fewer distinct weights than that it needs no table of k rows (which would take gigabytes)."""
    x = np.random.default_rng(3).normal(0, 0.1, 48_000).astype(np.float32)
    started = time.perf_counter()
    book = cluster(x, clustering.K_MAX)
    assert time.perf_counter() - started < 10
    np.testing.assert_array_equal(book.values(), x)
    assert book.labels.dtype == np.uint16


@pytest.mark.parametrize(("k", "dtype"), [(1, np.uint8), (256, np.uint8), (257, np.uint16)])
def test_labels_take_the_smallest_type(k, dtype):
    book = cluster(np.random.default_rng(0).normal(size=400), k)
    assert book.labels.dtype == dtype and book.labels.max() == k - 1


def test_one_pass_gives_what_single_calls_give():
    x = samples()["normal"]
    together = cluster(x, [50, 3, 7, 3])
    assert sorted(together) == [3, 7, 50]
    for k, book in together.items():
        alone = cluster(x, k)
        np.testing.assert_array_equal(book.centroids, alone.centroids)
        np.testing.assert_array_equal(book.labels, alone.labels)


def test_any_shape_is_taken_flat_and_the_argument_left_alone():
    x = samples()["normal"].astype(np.float32)
    cube = x.reshape(3, 10, 10)
    book = cluster(cube, 4)
    np.testing.assert_array_equal(book.labels, cluster(x, 4).labels)
    np.testing.assert_array_equal(cube.ravel(), samples()["normal"].astype(np.float32))


def test_book_inertia_is_that_of_the_stored_centroids():
    x = samples()["normal"].astype(np.float32)
    book = cluster(x, 5, format="float8_thesis")
    assert book.inertia(x) == pytest.approx(sum((float(a) - float(b)) ** 2 for a, b in zip(x, book.values(), strict=True)))


@pytest.mark.parametrize("format", ["float16", "float8_e4m3", "float8_thesis"])
def test_formats_round_centroids_and_leave_groups_alone(format):
    x = samples()["normal"]
    plain, stored = cluster(x, 20), cluster(x, 20, format=format)
    np.testing.assert_array_equal(stored.labels, plain.labels)
    np.testing.assert_array_equal(stored.centroids, clustering.formats.get(format).round(plain.centroids))


def test_every_k_of_a_large_layer_does_not_hang():
    x = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    started = time.perf_counter()
    books = cluster(x, range(1, 51))
    assert time.perf_counter() - started < 30
    errors = [books[k].inertia(x) for k in range(1, 51)]
    assert all(later < earlier for earlier, later in itertools.pairwise(errors))


# --- the lifted space -----------------------------------------------------------------------------------------------------------


def lifted(x, lift):
    """Points (n, 2) of equation 3.1, written out."""
    x = np.asarray(x, dtype=np.float64)
    y = [lift.spread * (max(x) - min(x)) * np.tanh(lift.focus * (value - sum(x) / len(x))) for value in x]
    return np.column_stack([x, y])


lifts = st.builds(Lift, focus=st.floats(0.2, 9.8), spread=st.floats(0.5, 3))


@pytest.mark.parametrize("lift", [Lift(focus=0), Lift(focus=0, spread=5), Lift(focus=4, spread=0)])
@pytest.mark.parametrize("method", clustering.METHODS)
def test_focus_or_spread_zero_is_plain_clustering(lift, method):
    x = samples()["normal"]
    plain, same = cluster(x, 6, method), cluster(x, 6, method, lift=lift)
    np.testing.assert_array_equal(same.labels, plain.labels)
    np.testing.assert_array_equal(same.centroids, plain.centroids)


@given(st.lists(st.floats(-2, 2, width=16), min_size=1, max_size=8), lifts)
def test_lifted_clusters_are_the_best_intervals(values, lift):
    """Against all partitions of the sorted points into k intervals, cost = inertia in both coordinates."""
    x = np.sort(np.array(values, dtype=np.float32))
    points, n = lifted(x, lift), len(x)
    for k in range(1, n + 1):
        best = min(
            sum(spread_of(points[i:j]) for i, j in itertools.pairwise((0, *cuts, n)))
            for cuts in itertools.combinations(range(1, n), k - 1)
        )
        np.testing.assert_allclose(inertia(cluster(x, k, lift=lift), points), best, **tolerance(points))


@pytest.mark.parametrize("focus", [0.4, 3.0, 9.8])
def test_lifted_exact_is_not_worse_than_scikit_learn(focus):
    x = samples()["normal"].astype(np.float32)
    points = lifted(x, Lift(focus))
    for k in (2, 5, 12):
        with threadpool_limits(1):
            theirs = KMeans(k, n_init=10, random_state=0).fit(points).inertia_
        assert inertia(cluster(x, k, lift=Lift(focus)), points) <= theirs * (1 + 1e-9)


@pytest.mark.parametrize("method", ["exact", "kmeans"])
def test_lifted_representative_is_the_mean_weight_of_its_group(method):
    x = samples()["normal"].astype(np.float32)
    book = cluster(x, 6, method, lift=Lift(6.0))
    assert (book.labels != cluster(x, 6, method).labels).any()  # the lift matters here
    means = [x[book.labels == label].astype(np.float64).mean() for label in range(6)]
    np.testing.assert_allclose(book.centroids, means, rtol=1e-5, atol=1e-7)


# --- the thesis's arms ----------------------------------------------------------------------------------------------------------

ARMS = {  # settings of the thesis, section 2.4 and its released settings
    "kmeans": lambda k: KMeans(n_clusters=k, init="k-means++", n_init=10, max_iter=300, random_state=42),
    "minibatch": lambda k: MiniBatchKMeans(n_clusters=k, n_init=3, batch_size=1024, random_state=42),
    "gmm": lambda k: GaussianMixture(n_components=k, n_init=1, random_state=42),
}


@pytest.mark.parametrize("method", ARMS)
@pytest.mark.parametrize("k", [1, 2, 7, 20])
def test_an_arm_is_scikit_learn_called_with_the_thesiss_settings(method, k):
    x = samples()["normal"].astype(np.float32)
    with threadpool_limits(1):
        fitted = ARMS[method](k).fit(x[:, None])
        labels = fitted.predict(x[:, None])
    centres = (fitted.means_ if method == "gmm" else fitted.cluster_centers_)[:, 0]
    book = cluster(x, k, method)
    np.testing.assert_array_equal(book.values(), centres[labels].astype(np.float32))
    np.testing.assert_array_equal(book.centroids, np.sort(centres).astype(np.float32))


@pytest.mark.parametrize("method", ARMS)
def test_an_arm_repeats_itself_and_ignores_the_global_generator(method):
    x = samples()["normal"]
    np.random.seed(1)  # noqa: NPY002
    first = cluster(x, [3, 9], method)
    np.random.seed(2)  # noqa: NPY002
    second = cluster(x, [3, 9], method)
    for k in (3, 9):
        np.testing.assert_array_equal(first[k].values(), second[k].values())


@pytest.mark.parametrize("method", ARMS)
def test_an_arm_is_never_better_than_exact_and_has_at_most_the_distinct_values(method):
    x = samples()["repeated"].astype(np.float32)
    distinct = len(np.unique(x))
    for k in (4, distinct, distinct + 5):
        book = cluster(x, k, method)
        assert len(book.centroids) <= min(k, distinct) and (np.diff(book.centroids) >= 0).all()
        assert cluster(x, k).inertia(x) <= book.inertia(x) + 1e-6


@pytest.mark.parametrize("method", clustering.METHODS)
def test_a_layer_of_one_weight_can_be_clustered(method):
    np.testing.assert_allclose(cluster(np.array([0.25]), 1, method).values(), [0.25], rtol=1e-5)


# --- wrong input ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, -1, 65_537, True, 2.5, 3.0, np.float64(2), None, "3"])
@pytest.mark.parametrize("many", [False, True], ids=["alone", "in a list"])
def test_a_wrong_k_is_named(k, many):
    with pytest.raises(UserError, match=r"k must be a whole number from 1 to 65536, got") as raised:
        cluster(np.arange(5.0), [2, k] if many else k)
    assert repr(k) in str(raised.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_counted(bad):
    with pytest.raises(UserError, match="2 of 4 weights are NaN or infinite"):
        cluster(np.array([1, bad, 2, bad]), 2)


def test_no_weights():
    with pytest.raises(UserError, match="no weights"):
        cluster(np.array([]), 2)


def test_unknown_method_and_format_name_what_is_allowed():
    with pytest.raises(UserError, match="unknown clustering method 'lloyd'; allowed: exact, kmeans, minibatch, gmm"):
        cluster(np.arange(5.0), 2, "lloyd")
    with pytest.raises(UserError, match="unknown format 'float8'; allowed: float32"):
        cluster(np.arange(5.0), 2, format="float8")
