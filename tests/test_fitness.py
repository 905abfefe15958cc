"""Fitness and the moving target (equation 3.4, sections 3.2 and 4.2)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightlab.errors import UserError
from weightlab.search.fitness import Target, TargetRule, fitness

FORMS = ("fixed", "batch", "pointwise")
POINTS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 40)), min_size=1, max_size=12)


def moved(form, points, start=(0.9, 5.0), limits=(0.5, 2.0), offsets=(0.01, 0.5)):
    """Where the target stands after one generation of `points`."""
    target = Target(TargetRule(*start, form, *limits, *offsets))
    target.update(np.array(points, dtype=float))
    return target.now


# --- fitness --------------------------------------------------------------------------------------------------------------------


def test_fitness_of_the_worked_example():
    found = fitness(np.array([[0.98, 17.0]]), np.array([0.99, 18.0]))
    assert found.shape == (1,) and found.dtype == np.float64
    np.testing.assert_allclose(found, 17.70966, atol=1e-5)


def test_fitness_is_one_over_the_relative_distance_row_by_row():
    # relative misses (0.3, 0.4), (0, 0.5) and (-1, 0): beyond the target is as far as before it
    found = fitness(np.array([[0.35, 6.0], [0.5, 5.0], [1.0, 10.0]]), np.array([0.5, 10.0]))
    np.testing.assert_allclose(found, [2.0, 2.0, 1.0])


def test_an_exact_hit_is_finite_and_beats_a_near_miss():
    hit, near = fitness(np.array([[0.99, 18.0], [0.99, 18.0 * (1 + 1e-8)]]), np.array([0.99, 18.0]))
    assert np.isfinite(hit) and hit > near > 0


def test_nan_objectives_give_nan_for_their_row_alone():
    found = fitness(np.array([[np.nan, 17.0], [0.98, np.nan], [0.98, 17.0]]), np.array([0.99, 18.0]))
    assert np.isnan(found).tolist() == [True, True, False]


# --- the moving target ----------------------------------------------------------------------------------------------------------


@given(POINTS)
def test_a_fixed_target_never_moves(points):
    assert moved("fixed", points).tolist() == [0.9, 5.0]


@pytest.mark.parametrize("form", ["batch", "pointwise"])
@pytest.mark.parametrize("point", [(0.5, 30.0), (0.95, 2.0), (0.4, 30.0), (0.95, 1.0), (np.nan, 30.0), (0.95, np.nan)])
def test_a_point_must_exceed_both_limits_strictly(form, point):
    assert moved(form, [point]).tolist() == [0.9, 5.0]


@pytest.mark.parametrize("form", ["batch", "pointwise"])
def test_the_two_axes_may_take_their_maxima_from_different_points(form):
    np.testing.assert_allclose(moved(form, [(0.95, 3.0), (0.6, 7.0), (0.99, 2.0), (0.5, 99.0)]), [0.96, 7.5])


@pytest.mark.parametrize("form", ["batch", "pointwise"])
def test_an_axis_that_does_not_reach_the_target_stays(form):
    np.testing.assert_allclose(moved(form, [(0.89, 7.0), (0.7, 6.0)]), [0.9, 7.5])
    np.testing.assert_allclose(moved(form, [(0.95, 4.9)]), [0.96, 5.0])


def test_batch_moves_at_equality_and_pointwise_only_beyond():
    np.testing.assert_allclose(moved("batch", [(0.9, 5.0)]), [0.91, 5.5])
    np.testing.assert_allclose(moved("pointwise", [(0.9, 5.0)]), [0.9, 5.0])


def test_pointwise_depends_on_the_order_of_evaluation():
    # once 0.95 has pushed the target to 0.96, 0.955 no longer exceeds it
    assert moved("pointwise", [(0.95, 3.0), (0.955, 3.0)])[0] == pytest.approx(0.96)
    assert moved("pointwise", [(0.955, 3.0), (0.95, 3.0)])[0] == pytest.approx(0.965)


@given(POINTS, st.data())
def test_batch_does_not_depend_on_the_order_of_evaluation(points, data):
    shuffled = data.draw(st.permutations(points))
    assert moved("batch", points).tolist() == moved("batch", shuffled).tolist()


@given(st.sampled_from(FORMS), st.lists(POINTS, max_size=4))
def test_a_target_never_retreats(form, generations):
    target = Target(TargetRule(0.4, 3.0, form, 0.3, 1.0, 0.001, 0.1))
    for points in generations:
        before = target.now.copy()
        target.update(np.array(points))
        assert (target.now >= before).all()


def test_the_published_extreme_target_after_one_generation():
    rule = TargetRule(0.01, 1.0, "batch")
    target = Target(rule)
    target.update(np.array([[0.985, 9.0], [0.971, 12.0], [0.96, 30.0]]))
    np.testing.assert_allclose(target.now, [0.986, 12.1])
    assert (rule.accuracy, rule.rate) == (0.01, 1.0)


def test_after_an_update_every_fitness_uses_the_moved_target():
    target, old = Target(TargetRule(0.9, 5.0, "batch", 0.5, 2.0, 0.01, 0.5)), np.array([[0.8, 4.0]])
    before = target.fitness(old)
    target.update(np.array([[0.95, 7.0]]))
    assert target.fitness(old).tolist() == fitness(old, np.array([0.96, 7.5])).tolist()
    assert target.fitness(old)[0] < before[0]


@pytest.mark.parametrize("form", FORMS)
def test_arguments_are_never_modified(form):
    objectives, target = np.array([[0.95, 7.0], [0.96, 6.0]]), Target(TargetRule(0.9, 5.0, form))
    kept, aim = objectives.copy(), np.array([0.99, 18.0])
    target.update(objectives)
    target.fitness(objectives)
    fitness(objectives, aim)
    assert (objectives == kept).all() and aim.tolist() == [0.99, 18.0]


def test_a_target_does_not_change_an_earlier_reading_of_it():
    target = Target(TargetRule(0.9, 5.0, "batch", 0.5, 2.0))
    reading = target.now
    target.update(np.array([[0.95, 7.0]]))
    assert reading.tolist() == [0.9, 5.0]


def test_an_unknown_form_is_refused_by_name():
    with pytest.raises(UserError, match="'sideways'.*fixed, batch, pointwise"):
        TargetRule(0.9, 5.0, "sideways")


@pytest.mark.parametrize("accuracy, rate", [(0, 5), (0.9, 0), (-0.1, 5), (0.9, -1), (np.nan, 5), (0.9, np.nan)])
def test_a_target_that_is_not_positive_is_refused(accuracy, rate):
    with pytest.raises(UserError, match="must be positive"):
        TargetRule(accuracy, rate)
