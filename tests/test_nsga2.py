"""What is particular to NSGA-II: its operators, its survival, and the fronts that it finds."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from weightlab import models, rng, search, sharing
from weightlab.data import Split
from weightlab.evaluation import Evaluator
from weightlab.runs import loop, truth
from weightlab.search import pareto, space
from weightlab.search.fitness import Target, TargetRule
from weightlab.search.space import IntegerSpace

WIDE = space.full(5, range(1, 51))
REFERENCE = np.array([1.0, 1.0])  # no accuracy, nothing saved


def accuracy_alone(objectives):
    return objectives[:, 0]


def objectives_of(plans):
    return np.column_stack([1 - 0.3 / plans.mean(axis=1), 32 / np.log2(plans + 1).mean(axis=1)])


def make(allowed=WIDE, seed=0, **settings):
    return search.make("nsga2", allowed, rng.derive(seed, "test"), **settings)


def told(made, generations=1):
    for _ in range(generations):
        made.tell(objectives_of(made.ask()), accuracy_alone)
    return made


def powers(lengths, seed=0):
    """A truth like that of approximate multipliers: variants by ascending power, most of them the more accurate the more they take."""
    chance, layers = rng.derive(seed, "table"), len(lengths)
    power = [np.sort(chance.uniform(0.02, 1, n)) for n in lengths]
    loss = [0.4 * np.exp(-8 * each) * chance.uniform(0.3, 1.7, len(each)) for each in power]
    plans = np.stack(np.unravel_index(np.arange(np.prod(lengths)), lengths), axis=1)
    spent, lost = (np.array([[each[i] for each, i in zip(of, plan, strict=True)] for plan in plans]) for of in (power, loss))
    accuracy = 0.9 * np.prod(1 - lost, axis=1)
    weights = np.arange(1, layers + 1) / np.arange(1, layers + 1).sum()
    return truth.Truth(pd.DataFrame({"plan": list(plans), "accuracy": accuracy, "rate": 1 / (spent @ weights)}))


def ratio(records, whole):
    front = pareto.costs(whole.front[["accuracy", "rate"]].to_numpy())
    return pareto.hypervolume_ratio(pareto.costs(records[["accuracy", "rate"]].to_numpy()), front, REFERENCE)


# --- generations ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crossover", ["sbx", "uniform"])
def test_children_are_new_to_the_population_and_differ(crossover):
    made = make(crossover=crossover)
    for _ in range(10):
        met = set() if made.population is None else set(map(tuple, WIDE.decode(made.population).tolist()))
        plans = list(map(tuple, made.ask().tolist()))
        assert len(plans) == len(set(plans)) == 40 and not met & set(plans)
        told(made)


@pytest.mark.parametrize("crossover", ["sbx", "uniform"])
def test_where_mating_gives_nothing_new_random_plans_fill_the_generation(crossover):
    made = told(make(crossover=crossover, crossover_probability=0.0, mutation=0.0))
    plans, met = made.ask(), WIDE.decode(made.population)
    assert len({*map(tuple, plans.tolist()), *map(tuple, met.tolist())}) == 80


def test_plans_are_repeated_only_where_the_space_has_too_few():
    allowed = space.full(1, range(50))
    made = make(allowed)
    first = told(made).space.decode(made.population)
    second = made.ask()
    assert len(np.unique(first)) == 40 and len(np.unique(second[:10])) == 10 and not np.isin(second[:10], first).any()
    few = make(IntegerSpace(([1, 2, 5], [3, 4], [2, 4, 50]))).ask()
    assert len(np.unique(few[:18], axis=0)) == 18 and len(few) == 40


def test_the_fitness_decides_nothing_but_the_best():
    guided, other = make(), make()
    for _ in range(5):
        plans = guided.ask()
        assert plans.tolist() == other.ask().tolist()
        guided.tell(objectives_of(plans), accuracy_alone)
        other.tell(objectives_of(plans), lambda objectives: -objectives[:, 0])
    assert guided.best_plan.mean() > other.best_plan.mean()


# --- survival and selection -----------------------------------------------------------------------------------------------------


def test_the_crowded_and_the_dominated_do_not_survive():
    """Costs (1, 0), (0.75, 0.25), (0.45, 0.5), (0.25, 0.75), (0, 1), of which the fourth has the closest neighbours, and three worse ones."""
    made = make(population=4)
    made.ask()
    made.tell([[0.0, np.inf], [0.45, 2], [0.55, 2], [0.4, 1.8]], accuracy_alone)
    made.ask()
    made.tell([[1.0, 1], [0.25, 4], [0.75, 4 / 3], [0.1, 1.1]], accuracy_alone)
    assert sorted(made.objectives[:, 0].tolist()) == [0.0, 0.25, 0.55, 1.0]


def test_what_could_not_be_measured_does_not_survive():
    made = make(population=4)
    made.ask()
    made.tell([[np.nan, np.nan], [0.5, np.nan], [0.2, 2], [np.nan, 3]], accuracy_alone)
    made.ask()
    made.tell([[0.1, 1], [0.1, 1.5], [np.nan, 3], [0.2, 1.1]], accuracy_alone)
    assert np.isfinite(made.objectives).all()


def test_tournaments_are_won_by_rank_then_by_crowding_and_all_stand_equally_often():
    ranks, crowding = np.array([0, 0, 1, 2]), np.array([1.0, 2.0, np.inf, 0.0])
    won = np.bincount(make()._tournament(ranks, crowding, 6000), minlength=4) / 6000
    np.testing.assert_allclose(won, [2 / 3 / 2, 1 / 2, 1 / 3 / 2, 0], atol=0.02)
    won = np.bincount(make()._tournament(np.zeros(4), np.full(4, np.inf), 6000), minlength=4) / 6000
    np.testing.assert_allclose(won, 1 / 4, atol=0.02)


# --- operators ------------------------------------------------------------------------------------------------------------------


def test_the_first_and_last_index_are_not_drawn_less():
    """From the middle and with eta = 0 polynomial mutation is uniform; rounded without a margin, the ends would be half as frequent."""
    made = make(space.full(1, range(5)), eta=0.0, mutation=1.0)
    mutants = made._settled(made._mutate(np.full((8000, 1), 2)))
    np.testing.assert_allclose(np.bincount(mutants[:, 0], minlength=5) / 8000, 1 / 5, atol=0.02)


def test_children_of_sbx_lie_around_their_parents_the_closer_the_larger_eta():
    parents = np.stack([np.full((2000, 1), 40), np.full((2000, 1), 60)])

    def spread(eta):
        made = make(space.full(1, range(101)), eta=eta)
        children = made._settled(made._cross(parents))
        assert (np.abs(children.sum(axis=0) - 100) <= 1).all(), "as far from the one as from the other, but for rounding"
        return np.abs(children[0] - 50).std()

    assert spread(1.0) > spread(3.0) > spread(30.0) > 0


def test_uniform_crossover_only_swaps_and_its_mutation_only_replaces():
    made = make(crossover="uniform", mutation=0.5)
    parents = np.stack([np.zeros((4000, 5), dtype=int), np.full((4000, 5), 49)])
    children = made._cross(parents)
    assert (children.sum(axis=0) == 49).all() and abs((children[0] == 49).mean() - 0.5) < 0.02
    mutants = made._mutate(np.full((4000, 5), 50))  # an index that is not in the lists
    assert abs((mutants != 50).mean() - 0.5) < 0.02
    np.testing.assert_allclose(np.bincount(mutants[mutants != 50], minlength=50) / (mutants != 50).sum(), 1 / 50, atol=0.006)


def test_a_probability_of_crossover_holds_per_mating():
    made = make(population=40, crossover="uniform", crossover_probability=0.5, mutation=0.0)
    population = np.repeat(np.arange(40)[:, None], 5, axis=1)  # no two share a variable
    children = made._mate(population, np.zeros(40, dtype=int), np.zeros(40), 4000)
    assert abs((children == children[:, :1]).all(axis=1).mean() - (0.5 + 0.5 * (2 * 0.5**5 * 39 / 40 + 1 / 40))) < 0.04


def test_importing_searches_does_not_import_pymoo():
    code = "import sys, weightlab.search.greedy, weightlab.runs.truth; print({'pymoo', 'moocore', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


# --- fronts ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_it_finds_the_front_of_a_table_ordered_by_power(seed):
    whole = powers((12, 12))
    records = truth.play(make(whole.box, seed, population=20), whole, 400)
    assert len(records) == 400 and ratio(records, whole) >= 0.98


def test_it_finds_more_of_the_front_than_random_search():
    whole = powers((20, 20, 20))
    found = {
        name: [ratio(truth.play(search.make(name, whole.box, rng.derive(seed)), whole, 400), whole) for seed in range(10)]
        for name in ("nsga2", "random")
    }
    assert np.median(found["nsga2"]) > max(found["random"]), found


def test_it_is_as_good_as_that_of_pymoo():
    """20 seeds with equal settings on one table: our hypervolume is not lower by more than twice the standard error."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.optimize import minimize

    whole, seeds, size, generations = powers((20, 20, 20)), range(20), 20, 10

    class Table(Problem):
        def _evaluate(self, x, out, *args, **kwargs):
            out["F"] = pareto.costs(whole.objectives(x.clip(0, 19)))

    def theirs(seed):
        repair = RoundingRepair()
        algorithm = NSGA2(
            size,
            sampling=whole.box.sample(rng.derive(seed), size).astype(float),
            crossover=SBX(prob=1.0, eta=3.0, vtype=float, repair=repair),
            mutation=PM(prob=1.0, prob_var=0.5, eta=3.0, vtype=float, repair=repair),
        )
        table = Table(n_var=3, n_obj=2, xl=-0.499, xu=19.499)
        result = minimize(table, algorithm, ("n_gen", generations), seed=seed, verbose=False)
        return pareto.hypervolume(result.pop.get("F"), REFERENCE)

    def ours(seed):
        made = make(whole.box, seed, population=size)
        truth.play(made, whole, size * generations)
        return pareto.hypervolume(pareto.costs(made.objectives), REFERENCE)

    volumes = np.array([[ours(seed), theirs(seed)] for seed in seeds])
    error = np.sqrt(volumes.var(axis=0, ddof=1).sum() / len(seeds))
    assert volumes[:, 0].mean() > volumes[:, 1].mean() - 2 * error, volumes.mean(axis=0)


def test_the_front_of_weight_sharing_is_one_of_loss_and_stored_bits(tmp_path):
    """On a network and its storage rate, stopped and resumed on the way."""
    model = models.build("lenet5_tanh", 1).eval()
    images = torch.randint(0, 256, (60, 1, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    with torch.no_grad():
        labels = model(images.float() / 255).argmax(1)
    codebooks = sharing.Codebooks(model)
    evaluator = Evaluator(model, codebooks, [Split("noise", "validation", images, labels)], device="cpu")

    def measure(plans):
        table = evaluator.measure(plans)
        return table.assign(accuracy=table["validation_accuracy"], rate=table["storage_rate"])

    def run(folder, stop=lambda: False):
        made = make(space.full(5, range(1, 17)), population=10)
        return made, loop.run(made, Target(TargetRule(0.99, 10.0)), measure, 60, tmp_path / folder, stop=stop)

    made, records = run("whole")
    calls = []
    with pytest.raises(loop.Stopped):
        run("stopped", lambda: len(calls) == 2 or calls.append(1))
    _, resumed = run("stopped")
    pd.testing.assert_frame_equal(resumed, records)

    costs = pareto.costs(records[["accuracy", "rate"]].to_numpy())
    bits = 32 * codebooks.weights.sum() / records["storage_rate"]
    np.testing.assert_allclose(costs, np.column_stack([1 - records["accuracy"], bits / (32 * codebooks.weights.sum())]))
    alive = pareto.costs(made.objectives)
    assert pareto.non_dominated(costs).sum() > 1, "the plans differ"
    best = costs[pareto.non_dominated(costs)]
    assert {best[:, column].min() for column in (0, 1)} == {alive[:, column].min() for column in (0, 1)}, "the ends are kept"
