"""An enumerated box as the truth: lookup, its front, and searches played on it."""

import numpy as np
import pandas as pd
import pytest

from weightlab import rng, search
from weightlab.errors import UserError
from weightlab.runs import loop, truth
from weightlab.search import pareto
from weightlab.search.fitness import Target, TargetRule
from weightlab.search.space import IntegerSpace

BOX = IntegerSpace(([2, 4, 9], [3], range(1, 13), [5, 50]))


def measured(plans):
    accuracy, rate = 1 - 0.5 / np.sqrt(plans).mean(axis=1), 32 / np.log2(plans + 1).mean(axis=1)
    return pd.DataFrame({"plan": list(plans), "accuracy": accuracy, "rate": rate})


def table_of(box):
    plans = box.decode(np.stack(np.unravel_index(np.arange(box.lengths.prod()), box.lengths), axis=1))
    return measured(plans)


TABLE = table_of(BOX)
TRUTH = truth.Truth(TABLE.sample(frac=1, random_state=1))  # in any order


def test_every_plan_is_looked_up():
    plans = np.stack(TABLE["plan"])[rng.derive(0).integers(0, len(TABLE), 500)]
    np.testing.assert_array_equal(TRUTH.objectives(plans), measured(plans)[["accuracy", "rate"]])
    assert [each.tolist() for each in TRUTH.box.lists] == [each.tolist() for each in BOX.lists]
    assert TRUTH.objectives(np.empty((0, 4), dtype=int)).shape == (0, 2)


@pytest.mark.parametrize("unknown", [[3, 3, 1, 5], [2, 3, 0, 5], [2, 3, 13, 5], [2, 3, 1, 51], [2, 4, 1, 5]])
def test_an_unknown_plan_is_refused_by_name(unknown):
    with pytest.raises(
        UserError, match=rf"plan \[{', '.join(map(str, unknown))}\] is not in the table.*2, 4, 9; 3; 1, 2, 3, 4, 5, …; 5, 50"
    ):
        TRUTH.objectives(np.array([[2, 3, 1, 5], unknown]))


@pytest.mark.parametrize("plans", [[2, 3, 1, 5], [[2, 3, 1]]], ids=str)
def test_plans_of_another_shape_are_refused(plans):
    with pytest.raises(UserError, match=r"plans of this table are \(n, 4\)"):
        TRUTH.objectives(plans)


@pytest.mark.parametrize(
    "table, sentence",
    [
        (TABLE[1:], "each of the 3 x 1 x 12 x 2 plans of its box once, got 71 rows with 71 plans"),
        (pd.concat([TABLE[1:], TABLE[1:2]]), "got 72 rows with 71 plans"),
        (TABLE.drop(columns="rate"), "rate is missing"),
        (TABLE[:0], "must have rows"),
    ],
)
def test_a_table_that_is_no_box_is_refused(table, sentence):
    with pytest.raises(UserError, match=sentence):
        truth.Truth(table)


def test_the_front_is_what_nothing_dominates_by_ascending_rate():
    costs = pareto.costs(TABLE[["accuracy", "rate"]].to_numpy())
    better = [((costs <= row).all(axis=1) & (costs < row).any(axis=1)).any() for row in costs]
    front = TRUTH.front
    assert list(front) == ["plan", "accuracy", "rate"] and front["rate"].is_monotonic_increasing
    assert {tuple(plan) for plan in front["plan"]} == {tuple(plan) for plan in TABLE["plan"][~np.array(better)]}
    assert 1 < len(front) < len(TABLE)


def test_a_plan_that_could_not_be_measured_is_on_no_front():
    best = TABLE.assign(accuracy=np.where(TABLE.index == TABLE["rate"].idxmax(), np.nan, TABLE["accuracy"]))
    assert truth.Truth(best).front["accuracy"].notna().all()


@pytest.mark.parametrize("name", search.SEARCHES)
def test_a_search_is_played_as_it_runs(tmp_path, name):
    rule = TargetRule(0.8, 12.0)
    ran = loop.run(search.make(name, BOX, rng.derive(1)), Target(rule), measured_without_plans, 130, tmp_path)
    played = truth.play(search.make(name, BOX, rng.derive(1)), TRUTH, 130, Target(rule).fitness)
    assert list(played) == ["evaluation", "generation", "plan", "accuracy", "rate"] and len(played) > 100
    pd.testing.assert_frame_equal(played, ran[list(played)])


def measured_without_plans(plans):
    return measured(plans).drop(columns="plan")


def test_a_search_that_fitness_guides_is_not_played_without_one():
    for name, kind in search.SEARCHES.items():
        made = search.make(name, BOX, rng.derive(1))
        if not kind.guided:
            assert len(truth.play(made, TRUTH, 80)) == 80
            continue
        with pytest.raises(UserError, match=f"{kind.__name__} needs a fitness"):
            truth.play(made, TRUTH, 80)


def test_a_budget_below_the_first_generation_is_refused():
    with pytest.raises(UserError, match="budget of 39 evaluations is too small for the first generation of 40"):
        truth.play(search.make("nsga2", BOX, rng.derive(1)), TRUTH, 39)
