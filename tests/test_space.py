"""Search spaces: lists of k with their reduction by a range scan (section 3.2), and boxes (section 5.5)."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightlab import rng, search
from weightlab.errors import UserError
from weightlab.search import space
from weightlab.search.space import BoxSpace, IntegerSpace

HOLES = IntegerSpace(([1, 2, 5, 9], [3], [2, 4, 50]))


def table(*accuracies):
    """A scan of two layers, `a` and `b`, with k = 1, 2, 3 each."""
    return pd.DataFrame({"layer": [0, 0, 0, 1, 1, 1], "name": list("aaabbb"), "k": [1, 2, 3] * 2, "accuracy": accuracies})


# --- positions and plans --------------------------------------------------------------------------------------------------------


def test_decode_picks_entries_by_index_across_holes():
    assert HOLES.decode(np.array([[0, 0, 0], [3, 0, 2], [2, 0, 1]])).tolist() == [[1, 3, 2], [9, 3, 50], [5, 3, 4]]


def test_decode_of_positions_at_the_edges():
    below, above = np.nextafter(1, 0), np.nextafter(1, 2)
    positions = np.array([[0.0, 0.0, 0.0], [-0.0, -0.0, -0.0], [4.0, 1.0, 3.0], [below, 0.5, below], [1.0, 1.0, above]])
    assert HOLES.decode(positions).tolist() == [[1, 3, 2], [1, 3, 2], [9, 3, 50], [1, 3, 2], [2, 3, 4]]


@given(st.lists(st.tuples(st.floats(0, 4), st.floats(0, 1), st.floats(0, 3)), min_size=1))
def test_every_position_in_the_box_decodes_to_an_allowed_plan(positions):
    plans = HOLES.decode(np.array(positions))
    assert plans.dtype == np.int64 and plans.shape == (len(positions), 3)
    assert all(np.isin(column, allowed).all() for column, allowed in zip(plans.T, HOLES.lists, strict=True))


def test_decode_leaves_positions_alone_and_gives_an_array_of_its_own():
    positions = np.array([[0.5, 0.5, 0.5]])
    HOLES.decode(positions)[:] = -1
    assert positions.tolist() == [[0.5, 0.5, 0.5]] and HOLES.decode(positions).tolist() == [[1, 3, 2]]


def test_samples_reach_every_index_and_no_other():
    sample = HOLES.sample(rng.derive(1), 500)
    assert [sorted(set(column)) for column in sample.T.tolist()] == [[0, 1, 2, 3], [0], [0, 1, 2]]


def test_samples_repeat_with_the_seed():
    first, again, other = (HOLES.sample(rng.derive(seed, "sample"), 50) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


def test_a_full_space_allows_every_k_in_every_layer():
    whole = space.full(3, range(1, 51))
    assert whole.dimensions == 3 and whole.lengths.tolist() == [50, 50, 50]
    assert whole.decode(np.array([[0, 25, 49]])).tolist() == [[1, 26, 50]]


def test_a_layer_without_any_k_is_refused_by_number():
    with pytest.raises(UserError, match="layer 1"):
        IntegerSpace(([1, 2], [], [3]))


# --- uniform plans --------------------------------------------------------------------------------------------------------------


def test_uniform_plans_are_spread_from_the_largest_k_to_the_least():
    whole = space.full(3, range(1, 65))
    assert whole.decode(whole.uniform(5)).tolist() == [[k] * 3 for k in (64, 48, 33, 17, 1)]
    assert whole.decode(whole.uniform(1)).tolist() == [[64] * 3] and whole.uniform(0).shape == (0, 3)
    listed = space.full(2, [2, 4, 8, 16])
    assert listed.decode(listed.uniform(9)).tolist() == [[16, 16], [8, 8], [4, 4], [2, 2]], "there are no more"


def test_a_layer_that_does_not_allow_the_k_takes_the_nearest_and_of_two_the_smaller():
    assert HOLES.decode(HOLES.uniform(99)).tolist() == [
        [9, 3, 50],
        [9, 3, 4],
        [5, 3, 4],
        [2, 3, 2],
        [1, 3, 2],
    ]  # of 50, 9, 5 and 4, 3 and 2, 1
    assert HOLES.is_uniform(np.array([[9, 3, 50], [5, 3, 4], [1, 3, 4], [9, 3, 2]])).tolist() == [True, True, False, False]


@given(st.lists(st.sets(st.integers(1, 30), min_size=1), min_size=1, max_size=4))
def test_every_uniform_plan_is_the_nearest_to_some_allowed_k(lists):
    lists = [sorted(each) for each in lists]
    allowed = IntegerSpace(tuple(lists))
    expected = {tuple(min(each, key=lambda k: (abs(k - wanted), k)) for each in lists) for wanted in set().union(*lists)}
    found = [tuple(plan) for plan in allowed.decode(allowed.uniform(99)).tolist()]
    assert set(found) == expected and len(found) == len(expected)
    assert found == sorted(found, reverse=True) and allowed.is_uniform(np.array(found)).all()


def test_uniform_plans_of_many_k_take_little_memory():
    many = space.full(3, range(1, 65_537))
    assert many.decode(many.uniform(3)).tolist() == [[65_536] * 3, [32_769] * 3, [1] * 3]


# --- range scan and reduction ---------------------------------------------------------------------------------------------------


def test_reduce_judges_each_k_by_itself_so_lists_may_have_holes():
    lists = space.reduce(table(0.98, 0.5, 0.99, 0.1, 0.97, 0.2), "accuracy", 0.9).lists
    assert [each.tolist() for each in lists] == [[1, 3], [2]]


def test_the_threshold_itself_is_enough():
    lists = space.reduce(table(0.97, np.nextafter(0.97, 0), 0.98, 0.97, 0.9, 0.9), "accuracy", 0.97).lists
    assert [each.tolist() for each in lists] == [[1, 3], [1]]


def test_reduce_keeps_layers_in_forward_order_whatever_their_names():
    scanned = table(0.1, 0.1, 0.9, 0.9, 0.9, 0.1).replace({"name": {"a": "z"}})
    assert [each.tolist() for each in space.reduce(scanned, "accuracy", 0.5).lists] == [[3], [1, 2]]


def test_an_unmeasured_k_is_not_kept():
    assert space.reduce(table(np.nan, 0.9, 0.9, 0.9, 0.9, 0.9), "accuracy", 0.5).lists[0].tolist() == [2, 3]


def test_an_emptied_layer_is_an_error_that_names_layer_and_threshold():
    with pytest.raises(UserError) as caught:
        space.reduce(table(0.98, 0.98, 0.98, 0.1, 0.2, 0.3), "accuracy", 0.825)
    assert "of b reaches" in str(caught.value) and "0.825" in str(caught.value)


def test_all_emptied_layers_are_named():
    with pytest.raises(UserError, match="of a, b reaches an accuracy of 1.01"):
        space.reduce(table(*[1.0] * 6), "accuracy", 1.01)


def test_scan_shares_one_layer_at_a_time_and_records_every_split():
    asked = []

    def accuracy(plans):
        asked.extend(plans.tolist())
        return np.column_stack([plans.sum(axis=1) / 10, plans.argmax(axis=1) / 10])

    found = space.scan(accuracy, ["conv", "linear"], [1, 3])
    assert asked == [[1, 0], [3, 0], [0, 1], [0, 3]]
    assert found.to_dict("list") == {
        "layer": [0, 0, 1, 1],
        "name": ["conv", "conv", "linear", "linear"],
        "k": [1, 3, 1, 3],
        "accuracy_0": [0.1, 0.3, 0.1, 0.3],
        "accuracy_1": [0.0, 0.0, 0.1, 0.1],
    }


def test_a_scan_feeds_reduce():
    found = space.scan(lambda plans: (plans.max(axis=1, keepdims=True) >= 2) * 0.98, ["conv", "linear"], [1, 2, 3])
    assert [each.tolist() for each in space.reduce(found, "accuracy_0", 0.97).lists] == [[2, 3], [2, 3]]


@pytest.mark.parametrize(
    "margin, right, images, least",
    [
        ("-1pp", 985, 1000, 975),
        ("-1pp", 60, 60, 60),  # an image is more than the margin
        ("-1pp", 98, 100, 97),
        ("-0pp", 88, 100, 88),
        ("-0.3pp", 997, 1000, 994),  # 997 - 0.003 * 1000 is a little more than 994 in floating point
        ("-0.3pp", 4990, 5000, 4975),
        ("-90pp", 50, 100, 0),
    ],
)
def test_a_margin_asks_for_a_whole_number_of_images(margin, right, images, least):
    assert space.least_accuracy(margin, right, images, "validation") == least / images


@given(st.integers(1, 60_000), st.data())
def test_a_loss_of_exactly_the_margin_is_within_it_and_one_image_more_is_not(images, drawn):
    right, lost = drawn.draw(st.integers(0, images)), drawn.draw(st.integers(0, images))
    margin = space.threshold(f"-{100 * lost / images:.15f}pp")
    if lost <= right:
        assert space.least_accuracy(margin, right, images, "test") == (right - lost) / images


def test_a_threshold_above_the_unshared_accuracy_is_refused_naming_both():
    assert space.least_accuracy(0.88, 88, 100, "test") == 0.88
    with pytest.raises(UserError) as caught:
        space.least_accuracy(0.97, 88, 100, "test")
    assert str(caught.value).startswith(
        "threshold 0.97 is above the accuracy of the unshared network, 0.88 on 100 images of test: "
    )


# --- boxes ----------------------------------------------------------------------------------------------------------------------

BOX = BoxSpace((9.8, 1.0, 3))


def test_a_box_keeps_positions_inside_and_two_decimals():
    positions = np.array([[-1.0, 0.123456, 2.999], [9.81, 1.0, 0.005], [4.444, 0.996, 3.2]])
    assert BOX.decode(positions).tolist() == [[0.0, 0.12, 3.0], [9.8, 1.0, 0.0], [4.44, 1.0, 3.0]]
    assert positions[0, 0] == -1.0 and BOX.dimensions == 3 and BOX.lengths.tolist() == [9.8, 1.0, 3.0]


def test_samples_of_a_box_fill_it_and_repeat_with_the_seed():
    sample = BOX.sample(rng.derive(1), 4000)
    assert (sample >= 0).all() and (sample <= BOX.lengths).all()
    np.testing.assert_allclose(sample.mean(axis=0) / BOX.lengths, 0.5, atol=0.03)
    assert (sample == BOX.sample(rng.derive(1), 4000)).all()


@pytest.mark.parametrize("limits", [(), (0,), (1, -2), (1, np.inf), (np.nan,)])
def test_a_box_without_sides_is_refused(limits):
    with pytest.raises(UserError, match="a box needs at least one limit, each a finite number above 0"):
        BoxSpace(limits)


@pytest.mark.parametrize("name", search.SEARCHES)
def test_every_search_works_in_a_box(name):
    """Vectors stay inside, a state restores the search, and guided ones end nearer a hidden point than random search."""
    hidden = np.array([7.31, 0.25, 1.5])

    def fitness(objectives):
        return objectives[:, 0]

    def course(made, evaluations):
        while made.evaluations < evaluations:
            vectors = made.ask()
            assert (vectors >= 0).all() and (vectors <= BOX.lengths).all()
            nearness = -np.linalg.norm((vectors - hidden) / BOX.lengths, axis=1)
            made.tell(np.column_stack([nearness, np.ones(len(vectors))]), fitness)
        return made

    def ends(name):
        return np.median([course(search.make(name, BOX, rng.derive(seed)), 400).best_objectives[0] for seed in range(15)])

    assert ends(name) >= ends("random")
    whole = course(search.make(name, BOX, rng.derive(3)), 300)
    half = course(search.make(name, BOX, rng.derive(3)), 100)
    resumed = search.make(name, BOX, rng.derive(99))
    resumed.restore(half.state())
    assert course(resumed, 300).state() == whole.state()
