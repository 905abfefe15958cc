"""The contract of every search, then what is particular to each (sections 2.3, 3.2 and 5.2)."""

import copy
import json

import numpy as np
import pandas as pd
import pytest

from weightlab import rng, search
from weightlab.errors import UserError
from weightlab.runs import loop
from weightlab.search import space
from weightlab.search.fitness import Target, TargetRule
from weightlab.search.fitness import fitness as distance_fitness
from weightlab.search.space import IntegerSpace

VARIANTS = {name: (name, {}) for name in search.SEARCHES} | {
    "genetic, uniform": ("genetic", {"crossover": "uniform", "mutation": 0.01}),
    "black_hole, radius": ("black_hole", {"closeness": "radius", "radius": 2.0}),
    "black_hole, horizon": ("black_hole", {"closeness": "horizon"}),
    "nsga2, uniform": ("nsga2", {"crossover": "uniform"}),
}
HOLES = IntegerSpace(([1, 2, 5, 9], [3], range(1, 51), [2, 4, 50]))
SMALL = IntegerSpace(([1, 2, 5], [3, 4], [2, 4, 50]))  # so small that black holes restart particles early
SPACES = {"holes": HOLES, "one dimension": space.full(1, range(1, 51)), "lists of one": IntegerSpace(([3], [7], [1]))}

variants = pytest.mark.parametrize("variant", VARIANTS)


def make(variant, allowed=HOLES, seed=0, **settings):
    name, own = VARIANTS[variant]
    return search.make(name, allowed, rng.derive(seed, "test"), **own | settings)


def objectives_of(plans):
    """An accuracy that grows with the numbers of clusters, and a rate that falls."""
    return np.column_stack([1 - 0.3 / plans.mean(axis=1), 32 / np.log2(plans + 1).mean(axis=1)])


def fixed(objectives):
    return distance_fitness(objectives, np.array([0.95, 12.0]))


def moving(generation):
    """A fitness function that differs from generation to generation."""
    return lambda objectives: distance_fitness(objectives, np.array([0.5 + 0.03 * generation, 6.0 + generation]))


def accuracy_alone(objectives):
    return objectives[:, 0]


def rate_alone(objectives):
    return objectives[:, 1]


def play(made, generations, fitness=lambda generation: fixed, measure=objectives_of):
    """The plans of some more generations, a list of lists."""
    trace = []
    for _ in range(generations):
        plans = made.ask()
        made.tell(measure(plans), fitness(made.generation))
        trace.append(plans.tolist())
    return trace


def uniform(variant, allowed=HOLES, seed=0):
    name, own = VARIANTS[variant]
    return search.make(name, allowed, rng.derive(seed, "test"), True, **own)


def through_json(state):
    return json.loads(json.dumps(state))


# --- the contract ---------------------------------------------------------------------------------------------------------------


@variants
@pytest.mark.parametrize("kind", SPACES)
def test_plans_keep_to_the_lists(variant, kind):
    allowed, made = SPACES[kind], make(variant, SPACES[kind])
    for _ in range(12):
        expected, plans = made.size, made.ask()
        assert plans.shape == (expected, allowed.dimensions) and plans.dtype == np.int64
        assert all(np.isin(column, ks).all() for column, ks in zip(plans.T, allowed.lists, strict=True))
        made.tell(objectives_of(plans), fixed)
    assert made.generation == 12


@variants
def test_the_seed_alone_decides_the_trace(variant):
    first, again, other = (play(make(variant, seed=seed), 8) for seed in (1, 1, 2))
    assert first == again and first != other


@variants
def test_the_global_generator_is_neither_used_nor_needed(variant):
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    first = play(make(variant), 4)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert play(make(variant), 4) == first


@variants
def test_the_best_so_far_is_the_best_evaluated_and_never_worsens(variant):
    made, best, evaluated = make(variant), -np.inf, 0
    for _ in range(15):
        plans = made.ask()
        scores = fixed(objectives_of(plans))
        made.tell(objectives_of(plans), fixed)
        best, evaluated = max(best, scores.max()), evaluated + len(plans)
        assert fixed(made.best_objectives[None])[0] == best
        assert objectives_of(made.best_plan[None])[0].tolist() == made.best_objectives.tolist()
        assert made.evaluations == evaluated


@variants
@pytest.mark.parametrize("kind", ["small", "holes"])
def test_interrupted_and_resumed_equals_uninterrupted_at_every_generation(variant, kind):
    allowed, total = {"small": SMALL, "holes": HOLES}[kind], 8
    whole = play(make(variant, allowed), total, moving)
    for stop in range(total + 1):
        begun = make(variant, allowed)
        head = play(begun, stop, moving)
        resumed = make(variant, allowed, seed=99)
        resumed.restore(through_json(begun.state()))
        assert head + play(resumed, total - stop, moving) == whole


@variants
@pytest.mark.parametrize("kind", SPACES)
def test_a_uniform_start_changes_up_to_a_quarter_of_the_first_generation_and_nothing_else_of_it(variant, kind):
    allowed = SPACES[kind]
    plain, made = make(variant, allowed), uniform(variant, allowed)
    first, others = made.ask(), plain.ask()
    wanted = allowed.decode(allowed.uniform(len(first) // 4))
    assert 1 <= len(wanted) <= len(first) / 4 and first[: len(wanted)].tolist() == wanted.tolist()
    assert first[len(wanted) :].tolist() == others[len(wanted) :].tolist()
    assert made.rng.bit_generator.state == plain.rng.bit_generator.state and made.size == plain.size
    made.tell(objectives_of(first), fixed)
    assert made.evaluations == len(first), "they are counted"


@variants
def test_a_uniform_start_in_a_space_with_holes_is_the_nearest_allowed_from_large_to_small(variant):
    plans = uniform(variant).ask().tolist()
    assert [plans[0], plans[len(plans) // 4 - 1]] == [[9, 3, 50, 50], [1, 3, 1, 2]]


@variants
def test_a_uniform_start_is_interrupted_and_resumed_exactly(variant):
    whole = uniform(variant, SMALL)
    states = [through_json(whole.state())]
    for _ in range(8):
        play(whole, 1, moving)
        states.append(through_json(whole.state()))
    for done, state in enumerate(states):
        resumed = uniform(variant, SMALL, seed=99)
        resumed.restore(state)
        play(resumed, 8 - done, moving)
        assert through_json(resumed.state()) == states[-1]


def test_generations_of_fewer_than_four_have_no_place_for_a_uniform_plan():
    made = search.make("random", HOLES, rng.derive(0, "test"), True, batch=3)
    assert made.ask().tolist() == make("random", batch=3).ask().tolist()


@pytest.mark.parametrize("name", search.SEARCHES)
def test_a_uniform_start_in_a_box_is_refused(name):
    with pytest.raises(UserError, match="start with uniform plans only over numbers of clusters"):
        search.make(name, space.BoxSpace((1.0, 2.0)), rng.derive(0), True)


def test_black_holes_restart_particles_where_resuming_is_tested():
    made = make("black_hole", SMALL)
    play(made, 3, moving)
    assert np.isnan(made.own_objectives).any()


@variants
def test_a_resumed_search_ends_in_the_same_state(variant):
    whole, begun, resumed = make(variant, SMALL), make(variant, SMALL), make(variant, SMALL, seed=99)
    play(whole, 7, moving)
    play(begun, 3, moving)
    resumed.restore(through_json(begun.state()))
    play(resumed, 4, moving)
    assert json.dumps(resumed.state()) == json.dumps(whole.state())


@variants
def test_a_state_is_a_snapshot_that_a_search_in_motion_does_not_change(variant):
    made = make(variant)
    play(made, 2)
    state = made.state()
    kept = json.dumps(state)
    expected = play(made, 4)
    assert json.dumps(state) == kept
    for _ in range(2):  # restoring does not use it up either
        made.restore(state)
        assert play(made, 4) == expected


@variants
def test_a_state_of_another_search_is_refused(variant):
    other = make("particle_swarm" if "genetic" in variant or variant == "random" else "genetic")
    play(other, 1)
    with pytest.raises((ValueError, KeyError)):
        make(variant).restore(other.state())


@variants
def test_arguments_of_tell_are_neither_modified_nor_kept(variant):
    expected, made = play(make(variant), 6, moving), make(variant)
    for generation in range(6):
        plans = made.ask()
        assert plans.tolist() == expected[generation]
        told = objectives_of(plans)
        kept = told.copy()
        made.tell(told, moving(generation))
        assert (told == kept).all()
        told[:] = 7  # the caller's array is the caller's


@variants
def test_what_ask_returned_belongs_to_the_caller(variant):
    expected, made = play(make(variant), 6), make(variant)
    for generation in range(6):
        plans = made.ask()
        objectives = objectives_of(plans)
        assert plans.tolist() == expected[generation]
        plans[:] = -1
        made.tell(objectives, fixed)
        assert made.best_plan.min() > 0


@variants
def test_asking_twice_gives_the_same_generation_and_counts_nothing(variant):
    made, expected = make(variant), play(make(variant), 5)
    for plans in expected:
        assert made.ask().tolist() == made.ask().tolist() == plans
        before = made.evaluations
        made.tell(objectives_of(np.array(plans)), fixed)
        assert made.evaluations == before + len(plans)


@variants
def test_some_nan_objectives_are_survived_and_never_best(variant):
    made, chance = make(variant), np.random.default_rng(5)

    def measure(plans):
        return np.where(chance.random((len(plans), 1)) < 0.5, np.nan, objectives_of(plans))

    plans = np.concatenate(play(made, 10, lambda generation: lambda objectives: fixed(objectives) - 1000, measure))
    assert np.isfinite(made.best_objectives).all()
    assert (plans > 0).all()


@variants
def test_generations_of_nothing_but_nan_are_survived(variant):
    made = make(variant)
    nothing = play(made, 5, measure=lambda plans: np.full((len(plans), 2), np.nan))
    assert all(np.isin(column, ks).all() for column, ks in zip(np.concatenate(nothing).T, HOLES.lists, strict=True))
    restored = make(variant, seed=99)
    restored.restore(through_json(made.state()))  # NaN and infinity go through the state too
    then = play(made, 5)
    assert play(restored, 5) == then
    best = fixed(np.concatenate([objectives_of(np.array(plans)) for plans in then])).max()
    assert fixed(made.best_objectives[None])[0] == best


def test_each_directed_search_beats_random_on_a_sphere():
    """31 hidden optima, 400 evaluations each: the median final distance to the optimum is below random's.

    Both objectives are the same here, so that the front of a search without a fitness is the optimum too.
    """
    allowed, final = space.full(5, range(1, 51)), {}
    for name in search.SEARCHES:
        distances = []
        for seed in range(31):
            hidden = rng.derive(seed, "optimum").uniform(0, 49, 5)
            made = search.make(name, allowed, rng.derive(seed, name))
            while made.evaluations + made.size <= 400:
                indices = made.ask() - 1
                f = 1 / (1 + ((indices - hidden) ** 2).sum(axis=1) / 50**2)
                made.tell(np.column_stack([f, f]), accuracy_alone)
            distances.append(np.linalg.norm(made.best_plan - 1 - hidden))
        final[name] = np.median(distances)
    assert all(final[name] < final["random"] for name in set(search.SEARCHES) - {"random"}), final


@pytest.mark.parametrize(
    "name, settings, budget, generations, evaluations",
    [
        ("random", {}, 400, 20, 400),
        ("genetic", {}, 400, 36, 397),
        ("particle_swarm", {}, 400, 20, 400),
        ("black_hole", {}, 400, 20, 400),
        ("genetic", {"crossover": "uniform", "mutation": 0.01}, 639, 58, 639),
        ("nsga2", {"population": 20}, 400, 20, 400),
        ("nsga2", {}, 800, 20, 800),
    ],
)
def test_published_numbers_of_evaluations(tmp_path, name, settings, budget, generations, evaluations):
    made = search.make(name, HOLES, rng.derive(0), **settings)
    records = loop.run(
        made,
        Target(TargetRule(0.95, 12.0)),
        lambda plans: pd.DataFrame(objectives_of(plans), columns=["accuracy", "rate"]),
        budget,
        tmp_path,
    )
    assert records["generation"].nunique() == generations and len(records) == made.evaluations == evaluations


# --- wrong input ----------------------------------------------------------------------------------------------------------------


def test_an_unknown_search_is_refused_with_what_there_is():
    with pytest.raises(UserError, match="'annealing'.*random, genetic, particle_swarm, black_hole, nsga2"):
        search.make("annealing", HOLES, rng.derive(0))


@pytest.mark.parametrize("name", search.SEARCHES)
def test_an_unknown_setting_is_refused_by_name(name):
    with pytest.raises(UserError, match=f"setting of {name} 'temperature'"):
        search.make(name, HOLES, rng.derive(0), temperature=1)


@pytest.mark.parametrize(
    "name, settings",
    [
        ("random", {"batch": 0}),
        ("random", {"batch": -1}),
        ("random", {"batch": 2.5}),
        ("random", {"batch": "many"}),
        ("genetic", {"population": 1, "elite": 0}),
        ("genetic", {"population": 12, "elite": 12}),
        ("genetic", {"elite": -1}),
        ("genetic", {"population": 2.5}),
        ("genetic", {"population": "many"}),
        ("genetic", {"mutation": 1.5}),
        ("genetic", {"mutation": -0.1}),
        ("genetic", {"mutation": np.nan}),
        ("genetic", {"mutation": True}),
        ("genetic", {"crossover": "two_point"}),
        ("particle_swarm", {"particles": 0}),
        ("particle_swarm", {"particles": 2.5}),
        ("particle_swarm", {"max_velocity": -1}),
        ("particle_swarm", {"max_velocity": np.nan}),
        ("particle_swarm", {"inertia": np.nan}),
        ("particle_swarm", {"inertia": "heavy"}),
        ("black_hole", {"particles": 0}),
        ("black_hole", {"closeness": "near"}),
        ("black_hole", {"closeness": "radius"}),
        ("black_hole", {"closeness": "radius", "radius": -1}),
        ("black_hole", {"closeness": "same_plan", "radius": 1}),
        ("black_hole", {"slow": np.nan}),
        ("nsga2", {"population": 1}),
        ("nsga2", {"population": 2.5}),
        ("nsga2", {"crossover": "single_point"}),
        ("nsga2", {"crossover_probability": 1.1}),
        ("nsga2", {"mutation": -0.1}),
        ("nsga2", {"mutation": np.nan}),
        ("nsga2", {"eta": -1}),
        ("nsga2", {"eta": np.inf}),
    ],
)
def test_a_setting_out_of_range_is_refused_before_work(name, settings):
    with pytest.raises(UserError):
        search.make(name, HOLES, rng.derive(0), **settings)


# --- genetic --------------------------------------------------------------------------------------------------------------------


def scored(made, population, scores):
    """Put `population` (indices) with these accuracies into a genetic search as if just measured, keeping its generator."""
    told = np.column_stack([scores, scores])
    made.restore(made.state() | {"population": population, "objectives": told.tolist(), "scores": list(scores)})
    return made


def children(population, scores, count, **settings):
    """`count` times the next generation of one population, as indices (count, size, d)."""
    d = len(population[0])
    made = search.make("genetic", space.full(d, range(1000)), rng.derive(3), population=len(population), **settings)
    return np.array([scored(made, population, scores).ask() for _ in range(count)])


def test_the_elite_is_copied_unmeasured():
    made = make("genetic")
    first = made.ask()
    made.tell(objectives_of(first), fixed)
    best = first[fixed(objectives_of(first)).argmax()]
    assert made.size == 11
    made.tell(np.zeros((len(made.ask()), 2)), fixed)  # eleven duds
    assert HOLES.decode(made.population)[0].tolist() == best.tolist()
    assert made.objectives[0].tolist() == objectives_of(best[None])[0].tolist()
    assert made.evaluations == 12 + 11


def test_the_elite_is_scored_anew_when_the_fitness_changes():
    made = search.make("genetic", space.full(2, range(1, 51)), rng.derive(0))
    told = np.column_stack([np.linspace(0, 1, 12), np.linspace(1, 0, 12)])
    made.ask()
    made.tell(told, accuracy_alone)
    elite = made.population[0].copy()
    made.ask()
    made.tell(np.full((11, 2), 0.5), rate_alone)  # the elite's rate is 0
    assert made.objectives[-1].tolist() == [1.0, 0.0] and made.population[-1].tolist() == elite.tolist()


def test_an_identical_population_stays_without_mutation():
    found = children([[4, 7, 2]] * 12, [1.0] * 12, 5, mutation=0.0)
    assert (found == [4, 7, 2]).all()


def test_mutation_replaces_each_gene_with_its_probability():
    found = children([[1000 - 1] * 50] * 12, [1.0] * 12, 40, mutation=0.2)
    assert abs((found != 999).mean() - 0.2) < 0.01  # 22 000 genes: standard error 0.0027
    assert (children([[999] * 50] * 12, [1.0] * 12, 4, mutation=1.0) != 999).mean() > 0.99


@pytest.mark.parametrize("crossover", ["single_point", "uniform"])
def test_two_children_complement_each_other(crossover):
    a, b = [1, 2, 3, 4, 5], [11, 12, 13, 14, 15]
    for pair in children([a, b], [1.0, 1.0], 100, elite=0, mutation=0.0, crossover=crossover):
        assert [sorted(genes) for genes in pair.T.tolist()] == [[1, 11], [2, 12], [3, 13], [4, 14], [5, 15]]


def test_a_single_point_cuts_once_and_everywhere_inside():
    found = children([[0] * 5, [1] * 5], [1.0, 1.0], 400, elite=0, mutation=0.0).reshape(-1, 5)
    cuts = np.count_nonzero(found == found[:, :1], axis=1)  # genes like the first
    assert (np.abs(np.diff(found, axis=1)).sum(axis=1) == 1).all()
    assert sorted(set(cuts.tolist())) == [1, 2, 3, 4]
    assert np.abs(np.bincount(cuts, minlength=5)[1:] / len(cuts) - 1 / 4).max() < 0.1


def test_uniform_crossover_mixes_every_gene_and_never_copies_a_parent_whole():
    found = children([[0] * 3, [1] * 3], [1.0, 1.0], 400, elite=0, mutation=0.0, crossover="uniform").reshape(-1, 3)
    mixtures, counts = np.unique(found, axis=0, return_counts=True)
    assert len(mixtures) == 6 and not np.isin(found.sum(axis=1), [0, 3]).any()  # all but the two parents
    assert np.abs(counts / len(found) - 1 / 6).max() < 0.05


def parents(scores, count=3000):
    """Frequencies of (first, second) parents, (n, n): with one gene, children are their parents."""
    n = len(scores)
    pairs = children([[j] for j in range(n)], scores, count, elite=0, mutation=0.0).reshape(-1, 2)
    found = np.zeros((n, n))
    np.add.at(found, tuple(pairs.T), 1)
    return found / len(pairs)


def test_roulette_draws_in_proportion_to_fitness_and_the_second_parent_is_another():
    scores = np.array([5.0, 3.0, 1.5, 0.5])
    found = parents(scores)
    expected = np.outer(scores / scores.sum(), scores) / (scores.sum() - scores)[:, None]
    np.fill_diagonal(expected, 0)
    assert (np.diag(found) == 0).all()
    np.testing.assert_allclose(found, expected, atol=0.02)  # 6 000 pairs: standard error at most 0.006


@pytest.mark.parametrize("scores", [[-np.inf] * 4, [np.inf] * 4, [2.0] * 4, [0.0] * 4, [np.inf, 1.0, 1.0, 1.0]])
def test_selection_is_uniform_when_fitness_cannot_tell(scores):
    np.testing.assert_allclose(parents(scores), (1 - np.eye(4)) / 12, atol=0.02)


def test_an_unmeasurable_individual_is_not_chosen_while_others_are():
    found = parents([3.0, 2.0, 1.0, -np.inf])
    assert (found[3] == 0).all() and (found[:, 3] == 0).all() and found.sum() == pytest.approx(1)


def test_parents_with_equal_plans_are_two_individuals():
    found = children([[5], [5], [9]], [1.0, 1.0, 1e-12], 50, elite=0, mutation=0.0)[:, :2, 0]
    assert (found == 5).all()


# --- particle swarm -------------------------------------------------------------------------------------------------------------

BOX = space.full(5, range(1, 51))


def swarm(name="particle_swarm", allowed=BOX, seed=0, told=None, best=None, **arrays):
    """A swarm set up by hand through its state: every particle's personal best is where it is, with `told` objectives (n, 2).

    `arrays` are x, v, own_x; `best` is the index of the particle that holds the best of all. Settings go in `settings`.
    """
    settings = arrays.pop("settings", {})
    arrays = {key: np.asarray(value, dtype=float).tolist() for key, value in arrays.items()}
    made = search.make(name, allowed, rng.derive(seed), particles=len(arrays["x"]), **settings)
    own = {"own_x": arrays["x"], "own_objectives": np.asarray(told, dtype=float).tolist()} | arrays
    held = {"best_x": own["own_x"][best], "held_objectives": own["own_objectives"][best], "holder": best}
    made.restore(made.state() | own | held | arrays)
    return made


def test_the_start_fills_the_box_and_the_velocity_range():
    made = search.make("particle_swarm", space.full(2, range(1, 11)), rng.derive(0), particles=2000)
    assert 0 <= made.x.min() < 0.05 and 9.95 < made.x.max() <= 10
    assert -4 <= made.v.min() < -3.95 and 3.95 < made.v.max() <= 4


def test_a_swarm_with_zero_coefficients_stays_put():
    made = make("particle_swarm", inertia=0.0, cognitive=0.0, social=0.0)
    trace = play(made, 5)
    assert all(plans == trace[0] for plans in trace)


def test_inertia_alone_moves_in_a_straight_line():
    made = swarm(x=[[10.0] * 5], v=[[1.0, -2, 0, 4, 0.5]], told=[[1, 1]], best=0, settings={"cognitive": 0, "social": 0})
    for _ in range(3):
        made.ask()
        made.tell([[0, 0]], accuracy_alone)
    np.testing.assert_allclose(made.v[0], 0.8**3 * np.array([1, -2, 0, 4, 0.5]))
    np.testing.assert_allclose(made.x[0], 10 + (0.8 + 0.8**2 + 0.8**3) * np.array([1, -2, 0, 4, 0.5]))


def test_velocity_is_clipped():
    made, fastest = make("particle_swarm", BOX), 0
    for _ in range(10):
        play(made, 1)
        fastest = max(fastest, np.abs(made.v).max())
    assert fastest == 4


def test_position_is_clipped_to_the_box_and_velocity_kept_at_the_wall():
    walls = {"cognitive": 0, "social": 0, "inertia": 1.0}
    made = swarm(allowed=HOLES, x=[[3.5, 0.5, 1.0, 2.0]], v=[[3.0, -4, -4, 1]], told=[[1, 1]], best=0, settings=walls)
    made.ask()
    made.tell([[0, 0]], accuracy_alone)
    assert made.x.tolist() == [[4.0, 0.0, 0.0, 3.0]] and made.v.tolist() == [[3.0, -4, -4, 1]]
    assert made.ask().tolist() == [[9, 3, 1, 50]]


def test_one_step_equals_the_equations_by_hand():
    own_x = [[12.0, 30, 3, 40, 25], [11.0, 9, 0, 49, 20], [0.0, 0, 0, 0, 0]]
    x = [[10.0, 20, 5, 45, 25], [2.0, 8, 1, 50, 20], [7.0, 7, 7, 7, 7]]
    v = [[1.0, -1, 2, 3, -4], [0.5, 0, -2, 4, 1], [0.0, 0, 0, 0, 0]]
    made = swarm(x=x, v=v, own_x=own_x, told=[[0.9, 0], [0.5, 0], [0.4, 0]], best=0)
    chance = copy.deepcopy(made.rng)
    made.ask()
    made.tell([[0.1, 0], [0.2, 0], [0.6, 0]], accuracy_alone)  # the third alone finds a better place of its own: where it is
    own_x[2] = x[2]
    r_p, r_g = chance.random((2, 3, 5))
    for i in range(3):
        for l in range(5):  # noqa: E741
            speed = 0.8 * v[i][l] + 2.05 * r_p[i, l] * (own_x[i][l] - x[i][l]) + 2.05 * r_g[i, l] * (own_x[0][l] - x[i][l])
            speed = min(max(speed, -4), 4)
            assert made.v[i, l] == pytest.approx(speed)
            assert made.x[i, l] == pytest.approx(min(max(x[i][l] + speed, 0), 50))


def test_bests_change_only_for_something_strictly_better():
    made = swarm(x=[[1.0] * 5, [2.0] * 5], own_x=[[3.0] * 5, [4.0] * 5], v=np.zeros((2, 5)), told=[[0.4, 0], [0.5, 0]], best=1)
    made.ask()
    made.tell([[0.5, 0], [0.5, 0]], accuracy_alone)
    assert made.own_x.tolist() == [[1.0] * 5, [4.0] * 5]
    assert made.best_x.tolist() == [4.0] * 5 and made.holder == 1


def test_personal_and_global_bests_are_scored_anew_when_the_fitness_changes():
    start = np.array([[1.0] * 5, [2.0] * 5, [3.0] * 5])
    made = swarm(x=start, v=np.zeros((3, 5)), told=[[0.9, 0.2], [0.5, 0.8], [0.8, 0.1]], best=0)
    moved = np.array([[11.0] * 5, [12.0] * 5, [13.0] * 5])
    made.restore(made.state() | {"x": moved.tolist()})
    made.ask()
    made.tell([[0.1, 0.5], [0.95, 0.3], [0.1, 0.05]], rate_alone)
    # by rate: 0.5 beats the first's 0.2 (though it was 0.9 when found), 0.3 does not beat the second's 0.8
    assert made.own_x.tolist() == [[11.0] * 5, [2.0] * 5, [3.0] * 5]
    assert made.best_x.tolist() == [2.0] * 5 and made.held_objectives.tolist() == [0.5, 0.8] and made.holder == 1


# --- swarm with black hole ------------------------------------------------------------------------------------------------------

BEST = np.array([10.5, 20.5, 30.5, 40.5, 5.5])
STILL = np.zeros(5)
EDGE = np.ones(5)  # velocity of speed √5 = 2.236: exactly a quarter of the largest, 4·√5


def off(*steps):
    """A place some index units away from the best."""
    return BEST + np.array(steps)


def restarted(x, v, told=None, holder=0, **settings):
    """Indices of the particles of a hand-made black-hole swarm that start anew; `holder` is at its best; nothing gets better."""
    told = np.linspace(0.9, 0.5, len(x)) if told is None else np.asarray(told)
    made = swarm("black_hole", x=x, v=v, told=np.column_stack([told, told]), best=holder, settings=settings)
    made.ask()
    made.tell(np.column_stack([told, told]) * 0.99, accuracy_alone)
    assert made.best_x.tolist() == x[holder].tolist() and made.holder == holder
    return np.flatnonzero(np.isnan(made.own_objectives).any(axis=1)).tolist()


def test_exactly_the_slow_particles_on_the_best_plan_restart_and_never_the_holder():
    x = np.array([BEST, BEST + 0.4, BEST + 0.4, off(0, 0, 0, 0, 1), BEST - 0.5])
    v = np.array([STILL, EDGE, 1.01 * EDGE, STILL, -EDGE])
    assert restarted(x, v) == [1, 4]  # 2 is too fast, 3 is on another plan
    assert restarted(x[::-1], v[::-1], told=[0.5, 0.6, 0.7, 0.8, 0.9], holder=4) == [0, 3]


def test_the_upper_wall_belongs_to_the_last_plan():
    x = np.array([[50.0] * 5, [49.0] * 5, [48.999] * 5])
    assert restarted(x, np.zeros((3, 5))) == [1]


@pytest.mark.parametrize("speed, slow", [(2.236, True), (np.sqrt(5), True), (2.2361, False)])
def test_slow_ends_at_a_quarter_of_the_largest_speed(speed, slow):
    v = np.array([STILL, EDGE * speed / np.sqrt(5), np.eye(5)[0] * speed])
    assert restarted(np.array([BEST] * 3), v) == ([1, 2] if slow else [])


def test_a_restarted_particle_is_fresh_and_measured_where_it_starts():
    x, v = np.array([BEST, BEST + 0.2, BEST + 3]), np.array([STILL, STILL, EDGE])
    made = swarm("black_hole", x=x, v=v, told=[[0.9, 0], [0.8, 0], [0.7, 0]], best=0)
    chance = copy.deepcopy(made.rng)
    made.ask()
    made.tell([[0.1, 0]] * 3, accuracy_alone)
    chance.random((2, 3, 5))  # the step that the others take
    fresh, speed = chance.random((1, 5)) * 50, chance.uniform(-4, 4, (1, 5))
    assert made.x[1].tolist() == fresh[0].tolist() and made.v[1].tolist() == speed[0].tolist()
    assert made.ask()[1].tolist() == BOX.decode(fresh)[0].tolist()
    assert not np.array_equal(made.x[2], x[2])  # the third went on flying
    assert made.best_x.tolist() == BEST.tolist() and made.held_objectives.tolist() == [0.9, 0]  # the best is never lost
    made.tell([[0.1, 0], [0.3, 0], [0.1, 0]], accuracy_alone)
    # its old personal best of 0.8 is forgotten: the poor new place is now its own best
    assert made.own_x[1].tolist() == fresh[0].tolist() and made.own_objectives[1].tolist() == [0.3, 0]


def test_a_restarted_particle_may_become_the_best():
    made = swarm("black_hole", x=[BEST, BEST], v=[STILL, STILL], told=[[0.9, 0], [0.8, 0]], best=0)
    made.ask()
    made.tell([[0.1, 0]] * 2, accuracy_alone)
    fresh = made.x[1].tolist()
    made.ask()
    made.tell([[0.1, 0], [0.95, 0]], accuracy_alone)
    assert made.best_x.tolist() == fresh and made.holder == 1


def test_without_restarts_a_black_hole_is_a_plain_swarm():
    plain, hole = make("particle_swarm", BOX), make("black_hole", BOX, closeness="radius", radius=0.0)
    assert play(plain, 10) == play(hole, 10)


def test_radius_counts_index_units():
    x = np.array([BEST, off(3, 0, 0, 4, 0), off(3, 0, 0, 4.01, 0), off(0, 0, -4.9, 0, 0), off(0, -9, 0, 0, 0)])
    assert restarted(x, np.zeros((5, 5)), closeness="radius", radius=5.0) == [1, 3]
    assert restarted(x, np.array([STILL, STILL, STILL, 1.01 * EDGE, STILL]), closeness="radius", radius=5.0) == [1]


def horizon_swarm(distance):
    """Lists of 10 and 20 k; the best at the centre, worth 0.45; four others, worth 0.4 each, at a scaled distance from it."""
    allowed = IntegerSpace((range(1, 11), range(1, 21)))
    x = np.array([5, 10]) + np.array([[0, 0], [10, 0], [0, 20], [-10, 0], [0, -20]]) * distance
    told = np.array([[0.45, 0]] + [[0.4, 0]] * 4)
    settings = {"closeness": "horizon"}
    return swarm("black_hole", allowed, x=x, v=np.zeros((5, 2)), told=told, best=0, settings=settings), told


@pytest.mark.parametrize("distance, inside", [(0.27, True), (0.281, True), (0.282, False), (0.45, False)])
def test_horizon_is_the_best_over_the_sum_of_the_others_in_scaled_positions(distance, inside):
    made, told = horizon_swarm(distance)  # R = 0.45 / 1.6 = 0.28125 (2.12)
    made.ask()
    made.tell(told, accuracy_alone)
    fresh = np.isnan(made.own_objectives).any(axis=1).tolist()
    assert fresh == [False] + [inside] * 4


def test_horizon_uses_what_the_others_achieve_now_and_the_best_that_is_kept():
    made, told = horizon_swarm(0.45)
    made.ask()
    made.tell(np.vstack([[0.01, 0], told[1:] / 2]), accuracy_alone)  # R = 0.45 / 0.8 = 0.5625
    assert np.isnan(made.own_objectives).any(axis=1).tolist() == [False, True, True, True, True]
