"""Fronts, ranks, crowding distance and hypervolume by hand; the greedy baseline on tables by hand."""

import itertools

import numpy as np
import pytest

from weightlab import rng
from weightlab.errors import UserError
from weightlab.search import pareto
from weightlab.search.greedy import greedy


def dominates(a, b):
    return (a <= b).all() and (a < b).any()


def by_definition(costs):
    """Ranks (n,), peeling one front after the other."""
    ranks, rank = np.full(len(costs), -1), 0
    while (left := np.flatnonzero(ranks < 0)).size:
        ranks[[i for i in left if not any(dominates(costs[j], costs[i]) for j in left)]] = rank
        rank += 1
    return ranks


# --- costs and ranks ------------------------------------------------------------------------------------------------------------


def test_costs_are_loss_and_the_share_that_is_left():
    """So a front of accuracy and rate is one of loss and bytes, or of loss and energy."""
    accuracy, stored, original = np.array([0.9, 0.8, 0.7]), np.array([500.0, 250.0, 100.0]), 1000.0
    costs = pareto.costs(np.column_stack([accuracy, original / stored]))
    np.testing.assert_allclose(costs, np.column_stack([1 - accuracy, stored / original]), rtol=1e-15)


@pytest.mark.parametrize("unusable", [[np.nan, 2], [0.9, np.nan], [np.nan] * 2, [0.9, 0], [0.9, -1], [-np.inf, 2], [np.inf, 2]])
def test_what_could_not_be_measured_is_worst_in_both(unusable):
    objectives = np.array([unusable, [0.1, 0.01]], dtype=float)
    kept = objectives.copy()
    costs = pareto.costs(objectives)
    assert costs[0].tolist() == [np.inf, np.inf] and pareto.ranks(costs).tolist() == [1, 0]
    np.testing.assert_array_equal(objectives, kept)


def test_an_infinite_rate_costs_nothing():
    assert pareto.costs([[0.5, np.inf]]).tolist() == [[0.5, 0.0]]


@pytest.mark.parametrize("seed", range(5))
def test_ranks_are_those_of_the_definition(seed):
    costs = rng.derive(seed).integers(0, 6, (40, 2)).astype(float)  # with equal rows
    costs[:3] = np.inf
    assert pareto.ranks(costs).tolist() == by_definition(costs).tolist()
    assert pareto.non_dominated(costs).tolist() == (by_definition(costs) == 0).tolist()


def test_a_nan_among_costs_is_on_no_front():
    costs = np.array([[0.5, 0.5], [0.0, np.nan]])
    assert pareto.non_dominated(costs).tolist() == [True, False] and pareto.ranks(costs).tolist() == [0, 1]
    assert pareto.hypervolume(costs, [1, 1]) == 0.25


def test_crowding_is_measured_within_each_rank():
    first, second = [[0.0, 1.0], [0.1, 0.6], [0.5, 0.5], [1.0, 0.0]], [[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]]
    distances = pareto.crowding(np.array(first + second), np.array([0] * 4 + [1] * 3))
    assert distances == pytest.approx([np.inf, (0.5 + 0.5) / 2, (0.9 + 0.6) / 2, np.inf, np.inf, 1.0, np.inf])


def test_crowding_knows_no_width_of_what_is_equal_or_infinite(recwarn):
    assert np.isfinite(pareto.crowding(np.full((4, 2), np.inf), np.zeros(4))).all()
    assert np.isfinite(pareto.crowding(np.ones((4, 2)), np.zeros(4))).all()
    assert not recwarn.list


# --- hypervolume ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "costs, expected",
    [
        ([[0.5, 0.5]], 0.25),
        ([[0.0, 0.0]], 1.0),
        ([[0.2, 0.8], [0.4, 0.4], [0.8, 0.1]], 0.2 * 0.2 + 0.4 * 0.6 + 0.2 * 0.9),
        ([[0.2, 0.8], [0.4, 0.4], [0.8, 0.1], [0.5, 0.5], [0.4, 0.4]], 0.46),  # a dominated and an equal one add nothing
        ([[0.5, 0.5], [1.0, 0.0], [2.0, 0.1], [np.inf, np.inf]], 0.25),  # nor does one on or beyond the reference
        ([[1.5, 1.5]], 0.0),
        (np.empty((0, 2)), 0.0),
    ],
)
def test_hypervolumes_by_hand(costs, expected):
    assert pareto.hypervolume(costs, [1, 1]) == pytest.approx(expected, abs=1e-15)


def test_a_ratio_compares_with_the_whole_front():
    front = np.array([[0.2, 0.8], [0.4, 0.4], [0.8, 0.1]])
    assert pareto.hypervolume_ratio(front, front, [1, 1]) == 1
    assert pareto.hypervolume_ratio(front[:2], front, [1, 1]) == pytest.approx(0.40 / 0.46)
    with pytest.raises(UserError, match="no point of the front is better than the reference"):
        pareto.hypervolume_ratio(front, front, [0.1, 0.1])


# --- greedy ---------------------------------------------------------------------------------------------------------------------

ACCURACY = np.array([[0.10, 0.50, 0.60], [0.40, 0.88, 0.93], [0.70, 0.91, 0.95]])  # by the variants 0, 1, 2 of two layers


def looked_up(asked):
    def accuracy(plans):
        asked.extend(plans.tolist())
        return ACCURACY[tuple(plans.T)]

    return accuracy


def test_greedy_takes_the_cheapest_that_keeps_the_accuracy_layer_by_layer():
    asked = []
    plan, evaluations = greedy(looked_up(asked), [2, 2], [[0, 1, 2], [0, 1, 2]], 0.9)
    assert asked == [[2, 2], [0, 2], [1, 2], [1, 0], [1, 1]] and evaluations == 5
    assert plan.tolist() == [1, 2], "though [2, 1] may be cheaper: earlier layers choose first"


def test_greedy_follows_the_order_of_each_layer():
    asked = []
    plan, evaluations = greedy(looked_up(asked), [2, 2], [[2], [1, 0, 2]], 0.9)
    assert asked == [[2, 2], [2, 1]] and plan.tolist() == [2, 1] and evaluations == 2


def test_greedy_leaves_its_start_as_it_was_and_survives_nan():
    start = np.array([2, 2])
    plan, evaluations = greedy(lambda plans: np.where((plans == 2).all(1), 1.0, np.nan), start, [np.arange(3), np.arange(3)], 0.5)
    assert start.tolist() == plan.tolist() == [2, 2] and evaluations == 5


def test_greedy_never_evaluates_more_than_every_variant_once():
    for limit, start in itertools.product((0.0, 0.5, 0.9, 0.95), ([2, 2], [2, 1])):
        if ACCURACY[tuple(start)] >= limit:
            asked = []
            plan, evaluations = greedy(looked_up(asked), start, [[0, 1, 2]] * 2, limit)
            assert len(asked) == evaluations <= 5 and ACCURACY[tuple(plan)] >= limit


@pytest.mark.parametrize(
    "start, order, sentence",
    [
        ([2, 0], [[0, 1, 2]] * 2, "must have an accuracy of at least 0.9"),
        ([2, 3], [[0, 1, 2]] * 2, r"one variant of each layer's order, got \[2, 3\]"),
        ([2], [[0, 1, 2]] * 2, r"one variant of each layer's order, got \[2\]"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(start, order, sentence):
    with pytest.raises(UserError, match=sentence):
        greedy(looked_up([]), start, order, 0.9)
