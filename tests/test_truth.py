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


# --- compared with the truth --------------------------------------------------------------------------------------------------------

SMALL = pd.DataFrame({"plan": [np.array(each) for each in ([1, 1], [1, 2], [2, 1], [2, 2])],
                      "accuracy": [0.9, 0.8, 0.7, 0.5], "rate": [2.0, 4.0, 3.0, 8.0]})  # fmt: skip


def test_a_search_that_sees_everything_reaches_the_true_front():
    """Its front leaves out one plan of four; just enough accuracy and rate are enough."""
    usable = {(0.8, 2.0): 2, (0.7, 3.0): 2, (0.0, 1.0): 4, (0.9, 2.1): 0}
    for limits, count in usable.items():
        table = truth.compare(truth.Truth(SMALL), IntegerSpace(([2, 1], [1, 2])), "random", {"batch": 10}, 65, [3, 4], limits)
        expected = {
            "batch": 10,
            "evaluations": 60,
            "distinct": 4,
            "front_size": 3,
            "final_front": 3,
            "hypervolume_ratio": 1.0,
            "usable": count,
        }
        assert table.to_dict("records") == [{**expected, "seed": seed} for seed in (3, 4)]
        assert list(table) == [
            "batch",
            "seed",
            "evaluations",
            "distinct",
            "front_size",
            "final_front",
            "usable",
            "hypervolume_ratio",
        ]


def area(costs):
    """What costs dominate below 1, 1, as a sum of stripes."""
    total, lowest = 0.0, 1.0
    for loss, energy in sorted(costs):
        total += (1 - loss) * max(0.0, lowest - energy)
        lowest = min(lowest, energy)
    return total


def best(costs):
    return [a for a in costs if not any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in costs)]


@pytest.mark.parametrize(
    ("order", "name", "settings", "budget"),
    [([1, 2], "nsga2", {"population": 4, "mutation": 0.5}, 8), ([2, 1], "random", {"batch": 2}, 3)],
)
def test_a_search_is_judged_by_all_that_it_evaluated(order, name, settings, budget):
    known, box = truth.Truth(SMALL), IntegerSpace((order, order))
    table = truth.compare(known, box, name, settings, budget, range(6), (0.6, 3.0))
    for seed, row in enumerate(table.to_dict("records")):
        made = search.make(name, box, rng.derive(seed, "search", name), **settings)
        records = truth.play(made, known, budget)
        seen = SMALL[[tuple(plan) in set(map(tuple, records["plan"])) for plan in SMALL["plan"]]]
        costs = [(1 - each.accuracy, 1 / each.rate) for each in seen.itertuples()]
        last = set(map(tuple, box.decode(made.population).tolist())) if name == "nsga2" else set(map(tuple, seen["plan"]))
        left = [(1 - each.accuracy, 1 / each.rate) for each in SMALL.itertuples() if tuple(each.plan) in last]
        assert row["final_front"] == len(best(left)) and len(left) >= 1
        whole = area([(0.1, 1 / 2), (0.2, 1 / 4), (0.5, 1 / 8)])
        assert row["hypervolume_ratio"] == pytest.approx(area(costs) / whole)
        assert (row["distinct"], row["front_size"], row["evaluations"]) == (len(seen), len(best(costs)), len(records))
        assert row["usable"] == ((seen["accuracy"] >= 0.6) & (seen["rate"] >= 3)).sum()
        assert {"seed": seed, **settings}.items() <= row.items()
    assert (table["hypervolume_ratio"].min() == 1) == (name == "nsga2")


def test_a_comparison_is_refused_as_the_search_is():
    for settings, budget, sentence in (({"populace": 4}, 8, "unknown setting of nsga2"), ({"population": 4}, 3, "budget of 3")):
        with pytest.raises(UserError, match=sentence):
            truth.compare(truth.Truth(SMALL), IntegerSpace(([1, 2], [1, 2])), "nsga2", settings, budget, [1], (0, 1))
