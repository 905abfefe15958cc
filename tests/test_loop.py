"""One search run to a budget: records, checkpoints, exact resumption."""

import json
import multiprocessing
import random
import shutil
import signal
import time
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from damages import DAMAGES

from weightlab import rng, runs, search, storage
from weightlab.errors import UserError
from weightlab.runs import loop
from weightlab.search import space
from weightlab.search.fitness import Target, TargetRule, fitness

WIDE = space.full(5, range(1, 51))
MOVING = TargetRule(0.01, 1.0, "batch", 0.6, 1.0, 0.001, 0.1)
OWN = {"nsga2": {"population": 20}}  # settings, so that all but one search have generations of 20
BESIDE = ["evaluation", "generation", "plan", "repeated"]


def measure(plans):
    """A cheap stand-in for a network: an accuracy that grows with the numbers of clusters, and a rate that falls."""
    accuracy, rate = 1 - 0.5 / np.sqrt(plans).mean(axis=1), 32 / np.log2(plans + 1).mean(axis=1)
    return pd.DataFrame({"accuracy": accuracy, "rate": rate, "smallest": plans.min(axis=1)})


def toy_run(folder, name="genetic", budget=400, measure=measure, allowed=WIDE, rule=MOVING, uniform=False, **rest):
    folder.mkdir(parents=True, exist_ok=True)
    made = search.make(name, allowed, rng.derive(1, name), uniform, **OWN.get(name, {}))
    return loop.run(made, Target(rule), measure, budget, folder, **rest)


# --- budget and records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", search.SEARCHES)
@pytest.mark.parametrize("budget", [20, 31, 39, 40, 41, 399])
def test_a_generation_starts_only_if_it_fits_the_budget(tmp_path, name, budget):
    records = toy_run(tmp_path, name, budget)
    first, later = (12, 11) if name == "genetic" else (20, 20)
    assert len(records) == first + (budget - first) // later * later <= budget


@pytest.mark.parametrize("name, first", [("genetic", 12), ("black_hole", 20)])
def test_a_budget_below_the_first_generation_is_refused_and_writes_nothing(tmp_path, name, first):
    with pytest.raises(UserError, match=f"{first - 1} evaluations.* of {first}"):
        toy_run(tmp_path, name, first - 1)
    assert not list(tmp_path.iterdir())


def test_records_have_a_row_per_evaluation_and_columns_of_known_kinds(tmp_path):
    records = toy_run(tmp_path, budget=34, identity={"network": "toy", "seed": 3})
    measured = ["accuracy", "rate", "smallest"]
    assert list(records) == ["network", "seed", *BESIDE, *measured, "fitness", "target_accuracy", "target_rate"]
    kinds = {"seed": "i", "evaluation": "i", "generation": "i", "repeated": "b", "smallest": "i"}
    for column in records.columns.drop(["network", "plan"]):
        assert records[column].dtype.kind == kinds.get(column, "f"), column
    assert records["evaluation"].tolist() == list(range(34))
    assert records["generation"].tolist() == [0] * 12 + [1] * 11 + [2] * 11
    assert set(records["network"]) == {"toy"} and set(records["seed"]) == {3}
    plans = np.stack(records["plan"])
    assert plans.shape == (34, 5) and plans.dtype == np.int64
    pd.testing.assert_frame_equal(records[measured], measure(plans))


@pytest.mark.parametrize("name", search.SEARCHES)
def test_records_of_a_uniform_start_say_which_plans_are_uniform(tmp_path, name):
    records = toy_run(tmp_path, name, 40, uniform=True)
    size = 12 if name == "genetic" else 20
    same = [len(set(plan)) == 1 for plan in records["plan"]]  # every layer allows every k here
    assert records["uniform"].tolist() == same and sum(same[:size]) == size // 4
    assert list(records)[:5] == [*BESIDE, "uniform"] and len(records) <= 40


def test_what_is_returned_is_what_is_written(tmp_path):
    records = toy_run(tmp_path / "run", budget=34)
    pd.testing.assert_frame_equal(records, pd.read_parquet(tmp_path / "run" / "evaluations.parquet"))
    pd.testing.assert_frame_equal(records.assign(run="run"), runs.read(tmp_path))
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["evaluations.parquet", "times.parquet"]


def test_repeated_marks_every_plan_met_before_in_its_generation_or_earlier(tmp_path):
    records, met, expected = toy_run(tmp_path, "random", 100, allowed=space.full(2, range(1, 11))), set(), []
    for plan in map(tuple, records["plan"]):
        expected.append(plan in met)
        met.add(plan)
    assert records["repeated"].tolist() == expected
    assert 0 < sum(expected) < 99


def test_a_budget_counts_repeats(tmp_path):
    records = toy_run(tmp_path, "random", 60, allowed=space.full(1, [4]))
    assert len(records) == 60 and records["repeated"].sum() == 59


@pytest.mark.parametrize("form", ["fixed", "batch", "pointwise"])
def test_each_generation_is_scored_against_the_target_it_has_already_moved(tmp_path, form):
    rule = replace(MOVING, form=form)
    records, target = toy_run(tmp_path, budget=100, rule=rule), Target(rule)
    for _, generation in records.groupby("generation"):
        objectives = generation[["accuracy", "rate"]].to_numpy()
        target.update(objectives)
        assert (generation[["target_accuracy", "target_rate"]].to_numpy() == target.now).all()
        assert generation["fitness"].tolist() == fitness(objectives, target.now).tolist()
    assert (target.now.tolist() == [0.01, 1.0]) == (form == "fixed")


def test_times_lie_in_a_file_of_their_own(tmp_path):
    records, times = toy_run(tmp_path, budget=34), pd.read_parquet(tmp_path / "times.parquet")
    assert times["generation"].tolist() == [0, 1, 2] and (times["seconds"] > 0).all()
    assert {"host", "process"} <= set(times) and not {"seconds", "host", "process"} & set(records)


def test_progress_adds_up_to_the_evaluations(tmp_path):
    told = []
    toy_run(tmp_path, budget=34, progress=lambda records: told.append(len(records)))
    assert sum(told) == 34


def test_reading_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(UserError, match="no complete search"):
        runs.read(tmp_path)


# --- resumption -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def slices(monkeypatch):
    """Every plan counts as slow, and is followed by a checkpoint."""
    monkeypatch.setattr(loop, "SLICE_S", 0)
    monkeypatch.setattr(loop, "KEPT_S", 0)


def counted(sizes):
    def counting(plans):
        sizes.append(len(plans))
        return measure(plans)

    return counting


def test_plans_of_a_fast_generation_are_measured_together(tmp_path):
    """But for the first of all, which tells how long one takes."""
    sizes = []
    toy_run(tmp_path, budget=34, measure=counted(sizes))
    assert sizes == [1, 11, 11, 11]


@pytest.mark.parametrize(
    "seconds, expected", [(1.0, [1, 10, 1, 10, 1]), (4.0, [1] + [2] * 5 + [1] + [2] * 5 + [1]), (30.0, [1] * 23)]
)
def test_plans_of_a_slow_generation_are_measured_ten_seconds_at_a_time(tmp_path, monkeypatch, seconds, expected):
    clock, sizes = [0.0], []

    def slow(plans):
        clock[0] += seconds * len(plans)
        sizes.append(len(plans))
        return measure(plans)

    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock[0])
    toy_run(tmp_path, budget=23, measure=slow)
    assert sizes == expected


def test_plans_that_are_known_do_not_make_a_generation_seem_fast():
    pace = loop.Pace()
    pace.took(5.0, 1)
    pace.took(0.0, 0)
    assert pace.next(20) == 2


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The records' bytes of a search of 50 evaluations in peace, made once for each name and start."""

    @cache
    def records(name, uniform):
        folder = tmp_path_factory.mktemp("undisturbed")
        toy_run(folder, name, 50, uniform=uniform)
        return (folder / "evaluations.parquet").read_bytes()

    return records


@pytest.mark.parametrize("name", search.SEARCHES)
@pytest.mark.parametrize("done", [1, 7, 12, 20, 25, 39])
@pytest.mark.parametrize("uniform", [False, True])
def test_a_search_that_is_stopped_inside_a_generation_ends_with_the_same_records(
    tmp_path, undisturbed, slices, name, done, uniform
):
    sizes, told = [], []
    rest = {"uniform": uniform, "measure": counted(sizes), "progress": told.append}
    with pytest.raises(loop.Stopped, match=f"stopped after {done} of 50 evaluations"):
        toy_run(tmp_path / "stopped", name, 50, stop=lambda: sum(sizes) >= done, **rest)
    assert len(storage.read_table(tmp_path / "stopped" / "checkpoint.parquet")[0]) == sum(sizes) == sum(map(len, told)) == done
    told.clear()
    records = toy_run(tmp_path / "stopped", name, 50, **rest)
    assert (tmp_path / "stopped" / "evaluations.parquet").read_bytes() == undisturbed(name, uniform)
    assert sum(sizes) == sum(map(len, told)) == len(records), "nothing is measured twice, and all of it is told"
    times = pd.read_parquet(tmp_path / "stopped" / "times.parquet")
    assert times["generation"].tolist() == sorted(set(records["generation"]))


def test_a_part_of_a_generation_is_told_without_fitness(tmp_path, slices):
    told = []
    toy_run(tmp_path, budget=12, progress=told.append)
    assert [table["fitness"].notna().tolist() for table in told] == [[False]] * 11 + [[True]]
    assert pd.concat(told)["evaluation"].tolist() == list(range(12))


def test_a_part_of_a_generation_with_other_plans_is_refused(tmp_path, slices):
    with pytest.raises(loop.Stopped):
        toy_run(tmp_path, stop=lambda: True)
    file = tmp_path / "checkpoint.parquet"
    table, notes = storage.read_table(file)
    storage.write_table(table.assign(plan=[[1, 2, 3, 4, 5]]), tmp_path, "checkpoint", notes)
    with pytest.raises(UserError, match="is of another search .the plans of its last generation differ."):
        toy_run(tmp_path)
    state = json.loads(notes["state"])
    del state["begun"]["started"]
    storage.write_table(table, tmp_path, "checkpoint", {"state": json.dumps(state)})
    with pytest.raises(UserError, match="is of another search"):
        toy_run(tmp_path)


PAUSES_S = {"genetic": 0.12, "black_hole": 0.22}  # a generation's; long enough that three kills come before the end


def live(folder, name):
    """What the child process does: go on until it is killed or done."""

    def slow(plans):
        time.sleep(PAUSES_S[name])
        return measure(plans)

    toy_run(folder, name, measure=slow)


def live_slowly(folder, name):
    """The same, so slowly that a generation is measured in slices of two plans."""
    loop.SLICE_S = 0.5

    def slow(plans):
        time.sleep(0.2 * len(plans))
        return measure(plans)

    toy_run(folder, name, 60, measure=slow)


@pytest.mark.parametrize("name", PAUSES_S)
def test_a_process_killed_inside_its_first_generation_loses_little_and_ends_with_the_same_records(tmp_path, name):
    folder = tmp_path / "killed"
    process = multiprocessing.get_context("forkserver").Process(target=live_slowly, args=(folder, name))
    process.start()
    while not (folder / "checkpoint.parquet").exists() and process.is_alive():
        time.sleep(0.001)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    kept = len(storage.read_table(folder / "checkpoint.parquet")[0])
    assert 0 < kept < (12 if name == "genetic" else 20)
    sizes = []
    records = toy_run(folder, name, 60, measure=counted(sizes))
    assert sum(sizes) == len(records) - kept
    toy_run(tmp_path / "undisturbed", name, 60)
    assert (folder / "evaluations.parquet").read_bytes() == (tmp_path / "undisturbed" / "evaluations.parquet").read_bytes()


def version(file):
    """Changes whenever the file is replaced."""
    return (file.stat().st_ino, file.stat().st_mtime_ns) if file.exists() else None


@pytest.mark.parametrize("name", PAUSES_S)
def test_a_process_killed_at_random_moments_ends_with_the_same_records(tmp_path, name):
    """Kills fall right after a checkpoint was written, or up to 0.8 s later."""
    folder, chance = tmp_path / "killed", random.Random(name)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["weightlab.runs.loop"])  # so that children start at once

    def start():
        process = processes.Process(target=live, args=(folder, name))
        process.start()
        return process

    for _ in range(3):
        watched = folder / "checkpoint.parquet"
        before, process = version(watched), start()
        while version(watched) == before and process.is_alive():
            time.sleep(0.001)
        time.sleep(chance.choice([0, 0.8 * chance.random()]))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it ended before it could be killed"
        assert not (folder / "evaluations.parquet").exists()
    last = start()
    last.join()
    assert last.exitcode == 0
    toy_run(tmp_path / "undisturbed", name)
    assert (folder / "evaluations.parquet").read_bytes() == (tmp_path / "undisturbed" / "evaluations.parquet").read_bytes()
    times = pd.read_parquet(folder / "times.parquet")
    assert times["generation"].tolist() == list(range(len(times))) and times["process"].nunique() >= 2
    assert sorted(file.name for file in folder.iterdir()) == ["evaluations.parquet", "times.parquet"]


def measure_then_fail():
    """A measure that takes over a second for the first generation (so that it is saved) and breaks down after the second."""
    measured = []

    def failing(plans):
        if len(measured) >= 23:
            raise RuntimeError("out of order")
        if measured:  # not with the first plan, after which there would be a checkpoint too
            time.sleep(1.05 * (len(measured) < 12))
        measured.extend(plans)
        return measure(plans)

    return failing


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory):
    """A folder with the checkpoint of a genetic search after its first generation."""
    folder = tmp_path_factory.mktemp("broken") / "off"
    with pytest.raises(RuntimeError, match="out of order"):
        toy_run(folder, measure=measure_then_fail())
    assert sorted(file.name for file in folder.iterdir()) == ["checkpoint.parquet"]
    return folder


@pytest.fixture
def checkpoint(broken_off, tmp_path):
    return shutil.copytree(broken_off, tmp_path / "checkpoint")


def test_a_failure_in_the_middle_loses_nothing_that_was_saved(checkpoint, tmp_path):
    measured, told = [], []

    def counting(plans):
        measured.append(len(plans))
        return measure(plans)

    toy_run(checkpoint, measure=counting, progress=lambda records: told.append(len(records)))
    toy_run(tmp_path / "undisturbed")
    assert (checkpoint / "evaluations.parquet").read_bytes() == (tmp_path / "undisturbed" / "evaluations.parquet").read_bytes()
    assert sum(measured) == 397 - 12 and sum(told) == 397


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_put_aside_and_the_search_made_anew(checkpoint, tmp_path, damage):
    DAMAGES[damage](checkpoint / "checkpoint.parquet")
    damaged = (checkpoint / "checkpoint.parquet").read_bytes()
    with pytest.warns(UserWarning, match=f"{checkpoint}.* is damaged .* kept as damaged-0-checkpoint.parquet, .* starts again"):
        toy_run(checkpoint)
    toy_run(tmp_path / "undisturbed")
    assert (checkpoint / "evaluations.parquet").read_bytes() == (tmp_path / "undisturbed" / "evaluations.parquet").read_bytes()
    assert (checkpoint / "damaged-0-checkpoint.parquet").read_bytes() == damaged


def _without(key):
    def change(state):
        del state[key]

    return change


def _of_another_search(state):
    other = search.make("particle_swarm", WIDE, rng.derive(1), particles=12)
    other.ask()
    other.tell(np.ones((12, 2)), lambda objectives: objectives[:, 0])
    state["search"] = other.state()


FOREIGN = {"without search": _without("search"), "without target": _without("target"), "without times": _without("times")}
FOREIGN |= {"of another search": _of_another_search, "of nothing": dict.clear}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_whole_checkpoint_of_something_else_is_refused_in_one_sentence_and_left_as_it_is(checkpoint, kind):
    """Damage is told by the checksum; this is a file that somebody put there."""
    table, notes = storage.read_table(checkpoint / "checkpoint.parquet")
    state = json.loads(notes["state"])
    FOREIGN[kind](state)
    storage.write_table(table, checkpoint, "checkpoint", {"state": json.dumps(state)})
    before = (checkpoint / "checkpoint.parquet").read_bytes()
    with pytest.raises(UserError, match="is of another search") as caught:
        toy_run(checkpoint)
    assert str(checkpoint) in str(caught.value) and "\n" not in str(caught.value)
    assert (checkpoint / "checkpoint.parquet").read_bytes() == before and len(list(checkpoint.iterdir())) == 1


def test_records_that_the_state_does_not_count_are_refused(checkpoint):
    table, notes = storage.read_table(checkpoint / "checkpoint.parquet")
    storage.write_table(table[:5], checkpoint, "checkpoint", notes)
    with pytest.raises(UserError, match="5 records for 12 evaluations"):
        toy_run(checkpoint)
