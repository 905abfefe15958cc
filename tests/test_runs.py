"""Searches run to a budget: records, checkpoints, exact resumption; then the runner on a trained network."""

import itertools
import json
import multiprocessing
import random
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from weightlab import accounting, data, models, paths, rng, runs, search, sharing, space, training
from weightlab.errors import UserError
from weightlab.fitness import Target, TargetRule, fitness
from weightlab.runs import Runner, Specification
from weightlab.search import genetic

WIDE = space.full(5, range(1, 51))
MOVING = TargetRule(0.01, 1.0, "batch", 0.6, 1.0, 0.001, 0.1)
BESIDE = ["evaluation", "generation", "plan", "repeated"]


def measure(plans):
    """A cheap stand-in for a network: an accuracy that grows with the numbers of clusters, and a rate that falls."""
    accuracy, rate = 1 - 0.5 / np.sqrt(plans).mean(axis=1), 32 / np.log2(plans + 1).mean(axis=1)
    return pd.DataFrame({"accuracy": accuracy, "rate": rate, "smallest": plans.min(axis=1)})


def loop(folder, name="genetic", budget=400, measure=measure, allowed=WIDE, rule=MOVING, **rest):
    folder.mkdir(parents=True, exist_ok=True)
    return runs.run(search.make(name, allowed, rng.derive(1, name)), Target(rule), measure, budget, folder, **rest)


# --- budget and records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", search.SEARCHES)
@pytest.mark.parametrize("budget", [20, 31, 39, 40, 41, 399])
def test_a_generation_starts_only_if_it_fits_the_budget(tmp_path, name, budget):
    records = loop(tmp_path, name, budget)
    first, later = (12, 11) if name == "genetic" else (20, 20)
    assert len(records) == first + (budget - first) // later * later <= budget


@pytest.mark.parametrize("name, first", [("genetic", 12), ("black_hole", 20)])
def test_a_budget_below_the_first_generation_is_refused_and_writes_nothing(tmp_path, name, first):
    with pytest.raises(UserError, match=f"{first - 1} evaluations.* of {first}"):
        loop(tmp_path, name, first - 1)
    assert not list(tmp_path.iterdir())


def test_records_have_a_row_per_evaluation_and_columns_of_known_kinds(tmp_path):
    records = loop(tmp_path, budget=34, identity={"network": "toy", "seed": 3})
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


def test_what_is_returned_is_what_is_written(tmp_path):
    records = loop(tmp_path / "run", budget=34)
    pd.testing.assert_frame_equal(records, pd.read_parquet(tmp_path / "run" / "evaluations.parquet"))
    pd.testing.assert_frame_equal(records.assign(run="run"), runs.read(tmp_path))
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["evaluations.parquet", "times.parquet"]


def test_repeated_marks_every_plan_met_before_in_its_generation_or_earlier(tmp_path):
    records, met, expected = loop(tmp_path, "random", 100, allowed=space.full(2, range(1, 11))), set(), []
    for plan in map(tuple, records["plan"]):
        expected.append(plan in met)
        met.add(plan)
    assert records["repeated"].tolist() == expected
    assert 0 < sum(expected) < 99


def test_a_budget_counts_repeats(tmp_path):
    records = loop(tmp_path, "random", 60, allowed=space.full(1, [4]))
    assert len(records) == 60 and records["repeated"].sum() == 59


@pytest.mark.parametrize("form", ["fixed", "batch", "pointwise"])
def test_each_generation_is_scored_against_the_target_it_has_already_moved(tmp_path, form):
    rule = replace(MOVING, form=form)
    records, target = loop(tmp_path, budget=100, rule=rule), Target(rule)
    for _, generation in records.groupby("generation"):
        objectives = generation[["accuracy", "rate"]].to_numpy()
        target.update(objectives)
        assert (generation[["target_accuracy", "target_rate"]].to_numpy() == target.now).all()
        assert generation["fitness"].tolist() == fitness(objectives, target.now).tolist()
    assert (target.now.tolist() == [0.01, 1.0]) == (form == "fixed")


def test_times_lie_in_a_file_of_their_own(tmp_path):
    records, times = loop(tmp_path, budget=34), pd.read_parquet(tmp_path / "times.parquet")
    assert times["generation"].tolist() == [0, 1, 2] and (times["seconds"] > 0).all()
    assert {"host", "process"} <= set(times) and not {"seconds", "host", "process"} & set(records)


def test_progress_adds_up_to_the_evaluations(tmp_path):
    told = []
    loop(tmp_path, budget=34, progress=told.append)
    assert sum(told) == 34


def test_reading_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(UserError, match="no complete search"):
        runs.read(tmp_path)


# --- resumption -----------------------------------------------------------------------------------------------------------------

PAUSES_S = {"genetic": 0.12, "black_hole": 0.22}  # a generation's; long enough that three kills come before the end


def live(folder, name):
    """What the child process does: go on until it is killed or done."""

    def slow(plans):
        time.sleep(PAUSES_S[name])
        return measure(plans)

    loop(folder, name, measure=slow)


def version(file):
    """Changes whenever the file is replaced."""
    return (file.stat().st_ino, file.stat().st_mtime_ns) if file.exists() else None


@pytest.mark.parametrize("name", PAUSES_S)
def test_a_process_killed_at_random_moments_ends_with_the_same_records(tmp_path, name):
    """Kills fall right after one of a checkpoint's two writes, or up to 0.8 s later."""
    folder, chance = tmp_path / "killed", random.Random(name)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["weightlab.runs"])  # so that children start at once

    def start():
        process = processes.Process(target=live, args=(folder, name))
        process.start()
        return process

    for _ in range(3):
        watched = folder / chance.choice(["partial.parquet", "state.json"])
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
    loop(tmp_path / "undisturbed", name)
    assert (folder / "evaluations.parquet").read_bytes() == (tmp_path / "undisturbed" / "evaluations.parquet").read_bytes()
    times = pd.read_parquet(folder / "times.parquet")
    assert times["generation"].tolist() == list(range(len(times))) and times["process"].nunique() >= 2
    assert not (folder / "state.json").exists() and not (folder / "partial.parquet").exists()


def measure_then_fail():
    """A measure that takes over a second for the first generation (so that it is saved) and breaks down in the third."""
    calls = []

    def failing(plans):
        calls.append(len(plans))
        if len(calls) == 1:
            time.sleep(1.05)
        if len(calls) == 3:
            raise RuntimeError("out of order")
        return measure(plans)

    return failing


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory):
    """A folder with the checkpoint of a genetic search after its first generation."""
    folder = tmp_path_factory.mktemp("broken") / "off"
    with pytest.raises(RuntimeError, match="out of order"):
        loop(folder, measure=measure_then_fail())
    assert sorted(file.name for file in folder.iterdir()) == ["partial.parquet", "state.json"]
    return folder


@pytest.fixture
def checkpoint(broken_off, tmp_path):
    return shutil.copytree(broken_off, tmp_path / "checkpoint")


def test_a_failure_in_the_middle_loses_nothing_that_was_saved(checkpoint, tmp_path):
    measured, told = [], []

    def counting(plans):
        measured.append(len(plans))
        return measure(plans)

    loop(checkpoint, measure=counting, progress=told.append)
    loop(tmp_path / "undisturbed")
    assert (checkpoint / "evaluations.parquet").read_bytes() == (tmp_path / "undisturbed" / "evaluations.parquet").read_bytes()
    assert sum(measured) == 397 - 12 and sum(told) == 397


def test_more_records_than_the_state_counts_are_what_a_kill_between_the_two_writes_leaves(checkpoint, tmp_path):
    table = pd.read_parquet(checkpoint / "partial.parquet")
    pd.concat([table, table]).to_parquet(checkpoint / "partial.parquet", index=False)
    loop(checkpoint)
    loop(tmp_path / "undisturbed")
    assert (checkpoint / "evaluations.parquet").read_bytes() == (tmp_path / "undisturbed" / "evaluations.parquet").read_bytes()


def _cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _without(key):
    def remove(file):
        state = json.loads(file.read_text())
        del state[key]
        file.write_text(json.dumps(state))

    return remove


def _of_another_search(file):
    other = search.make("particle_swarm", WIDE, rng.derive(1), particles=12)
    other.ask()
    other.tell(np.ones((12, 2)), lambda objectives: objectives[:, 0])
    file.write_text(json.dumps(json.loads(file.read_text()) | {"search": other.state()}))


DAMAGES = {
    "state cut short": ("state.json", _cut),
    "state empty": ("state.json", lambda file: file.write_bytes(b"")),
    "state not text": ("state.json", lambda file: file.write_bytes(b"\xff\x00\xfe")),
    "state of nothing": ("state.json", lambda file: file.write_text("{}")),
    "state a list": ("state.json", lambda file: file.write_text("[]")),
    "state without search": ("state.json", _without("search")),
    "state without target": ("state.json", _without("target")),
    "state without times": ("state.json", _without("times")),
    "state of another search": ("state.json", _of_another_search),
    "records cut short": ("partial.parquet", _cut),
    "records empty": ("partial.parquet", lambda file: file.write_bytes(b"")),
    "records too few": ("partial.parquet", lambda file: pd.read_parquet(file)[:5].to_parquet(file, index=False)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused_in_one_sentence_and_left_as_it_is(checkpoint, damage):
    name, spoil = DAMAGES[damage]
    spoil(checkpoint / name)
    before = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
    with pytest.raises(UserError, match="checkpoint .* is damaged") as caught:
        loop(checkpoint)
    assert str(checkpoint) in str(caught.value) and "\n" not in str(caught.value)
    assert {file.name: file.read_bytes() for file in checkpoint.iterdir()} == before


def test_a_checkpoint_without_its_records_is_refused(checkpoint):
    (checkpoint / "partial.parquet").unlink()
    with pytest.raises(UserError, match="damaged"):
        loop(checkpoint)
    assert (checkpoint / "state.json").exists()


# --- specifications -------------------------------------------------------------------------------------------------------------

SPEC = Specification("lenet5_tanh", TargetRule(0.99, 18.0, "batch"), budget=60, k_max=8, images=200, threshold=0.9)

WRONG = [
    {"network": "lenet6"},
    {"dataset": "cifar"},
    {"method": "median"},
    {"format": "float4"},
    {"protocol": "peeking"},
    {"protocol": "published", "method": "exact"},
    {"objective_rate": "compression"},
    {"search": "annealing"},
    {"settings": {"temperature": 1}},
    {"settings": {"mutation": 2}},
    {"budget": 0},
    {"images": 0},
    {"images": -5},
    {"images": 2.5},
    {"k_max": 0},
    {"k_max": 65_537},
    {"k_max": 2.5},
    {"seed": -1},
]


def runner_in(folder):
    return Runner(folder, device="cpu", threads=1, progress=False)


@pytest.fixture(scope="session")
def trained():
    """The real thing: these tests run on the trained tanh LeNet-5 and on MNIST."""
    for network in ("lenet5_tanh", "lenet5_relu"):
        file = paths.models() / f"{network}.safetensors"
        assert file.exists() and file.with_suffix(".json").exists(), f"{file} or its card is missing; `make models` trains it"


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_wrong_specification_is_refused_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(UserError) as caught:
        runner_in(tmp_path / "outputs").run(replace(SPEC, **wrong))
    assert not (tmp_path / "outputs").exists()
    assert "\n" not in str(caught.value)


CHANGED = {
    "network": "lenet5_relu",
    "target": TargetRule(0.99, 14.0, "batch"),
    "search": "random",
    "seed": 1,
    "budget": 61,
    "dataset": "fashion_mnist",
    "method": "kmeans",
    "format": "float16",
    "protocol": "published",
    "objective_rate": "layer_mean",
    "k_max": 9,
    "ks": (2, 5, 9),
    "threshold": None,
    "images": None,
    "settings": {"mutation": 0.3},
}
CHANGED_TARGET = {
    "accuracy": 0.98,
    "rate": 17.0,
    "form": "pointwise",
    "limit_accuracy": 0.96,
    "limit_rate": 2.0,
    "offset_accuracy": 0.002,
    "offset_rate": 0.2,
}


@pytest.mark.parametrize("name", [field.name for field in fields(Specification)])
def test_any_changed_field_changes_the_hash(trained, name):
    start = replace(SPEC, method="minibatch", settings={})  # a method that both protocols allow
    other = replace(start, **{name: CHANGED[name]} | ({"settings": {}} if name == "search" else {}))
    assert other.hash != start.hash


@pytest.mark.parametrize("name", [field.name for field in fields(TargetRule)])
def test_any_changed_part_of_the_target_changes_the_hash(trained, name):
    assert replace(SPEC, target=replace(SPEC.target, **{name: CHANGED_TARGET[name]})).hash != SPEC.hash


def test_equal_specifications_have_one_hash(trained):
    again = Specification("lenet5_tanh", TargetRule(0.99, 18.0, "batch"), budget=60, k_max=8, images=200, threshold=0.9)
    assert again.hash == SPEC.hash and len(SPEC.hash) == 16


def test_defaults_spelled_out_are_the_defaults(trained):
    assert replace(SPEC, settings=asdict(genetic.Settings())).hash == SPEC.hash
    assert replace(SPEC, settings={"population": 12}).hash == replace(SPEC, settings={}).hash == SPEC.hash


@pytest.mark.parametrize("same", [{"target": TargetRule(0.99, 18, "batch")}, {"settings": {"mutation": 1}}], ids=str)
def test_a_whole_number_is_the_same_with_and_without_a_point(trained, same):
    pointed = {"target": TargetRule(0.99, 18.0, "batch")} if "target" in same else {"settings": {"mutation": 1.0}}
    assert replace(SPEC, **same) == replace(SPEC, **pointed)
    assert replace(SPEC, **same).hash == replace(SPEC, **pointed).hash


def test_the_caller_keeps_its_settings(trained):
    settings = {"mutation": 0.3}
    replace(SPEC, settings=settings)
    assert settings == {"mutation": 0.3}


# --- the runner on a trained network --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outcome(trained, tmp_path_factory):
    """A runner and the records of SPEC."""
    runner = runner_in(tmp_path_factory.mktemp("outputs"))
    return runner, runner.run(SPEC)


def test_records_hold_both_rates_of_their_plans(outcome):
    runner, records = outcome
    plans, weights = np.stack(records["plan"]), runner.evaluator(SPEC).codebooks.weights
    assert weights.tolist() == [150, 2400, 48_000, 10_080, 840]
    for rate in ("storage_rate", "layer_mean_rate", "thesis_model_rate"):
        np.testing.assert_array_equal(records[rate], getattr(accounting, rate)(weights, plans, "float32"))
    assert (records["rate"] == records["storage_rate"]).all()


def test_loss_is_baseline_minus_accuracy_on_the_same_split(outcome):
    runner, records = outcome
    for split, baseline in zip(("validation", "test"), runner.evaluator(SPEC).baseline(), strict=True):
        np.testing.assert_allclose(records[f"{split}_loss_pp"], 100 * (baseline - records[f"{split}_accuracy"]))
        assert baseline > 0.95 and records[f"{split}_accuracy"].between(0, 1).all()


def test_held_out_chooses_on_validation(outcome):
    _, records = outcome
    assert (records["accuracy"] == records["validation_accuracy"]).all()
    assert (records["loss_pp"] == records["validation_loss_pp"]).all()
    assert (records["validation_accuracy"] != records["test_accuracy"]).any()


def test_recorded_accuracy_is_that_of_the_shared_network(outcome):
    _, records = outcome
    for row in (0, 55):
        shared, _ = sharing.share(models.load("lenet5_tanh"), records["plan"][row].tolist())
        for split in ("validation", "test"):
            images = data.load("mnist", split).first(200)
            assert records[f"{split}_accuracy"][row] == training.accuracy(shared, images, "cpu")


def test_fitness_follows_from_the_recorded_columns(outcome):
    _, records = outcome
    targets = records[["target_accuracy", "target_rate"]].to_numpy()
    np.testing.assert_array_equal(records["fitness"], fitness(records[["accuracy", "rate"]].to_numpy(), targets))


def test_records_say_which_search_they_are_of(outcome):
    _, records = outcome
    told = {"network": "lenet5_tanh", "dataset": "mnist", "protocol": "held_out", "objective_rate": "storage"}
    told |= {"method": "exact", "format": "float32", "search": "genetic", "seed": 0, "target": "batch"}
    assert records[list(told)].drop_duplicates().to_dict("records") == [told]
    assert len(records) == 12 + 4 * 11


def test_plans_come_from_the_range_that_the_scan_leaves(outcome):
    runner, records = outcome
    scan, lists = runner.scan(SPEC), runner.space(SPEC).lists
    assert list(scan) == ["layer", "name", "k", "validation_accuracy", "test_accuracy"] and len(scan) == 5 * 8
    for layer, rows in scan.groupby("layer"):
        assert lists[layer].tolist() == rows.loc[rows["validation_accuracy"] >= 0.9, "k"].tolist()
        assert np.isin(np.stack(records["plan"])[:, layer], lists[layer]).all()


def test_searches_on_the_same_ground_share_one_scan(outcome):
    runner, _ = outcome
    (scan,) = runner.folder.glob("scan-*.parquet")
    before = version(scan)
    fresh = runner_in(runner.folder)
    records = fresh.run_all([replace(SPEC, search="random", settings={}, budget=20), replace(SPEC, seed=1, budget=12)])
    assert [scan] == list(runner.folder.glob("scan-*.parquet")) and version(scan) == before
    assert records.groupby("run", sort=False).size().tolist() == [20, 12]
    assert set(records["run"]) < set(runs.read(runner.folder)["run"])


def test_the_same_seed_gives_the_same_records_in_any_folder(outcome, tmp_path):
    runner, _ = outcome
    runner_in(tmp_path).run(SPEC)
    first, second = (folder / SPEC.hash / "evaluations.parquet" for folder in (runner.folder, tmp_path))
    assert first.read_bytes() == second.read_bytes()


def test_another_seed_gives_other_plans(outcome):
    runner, records = outcome
    other = runner.run(replace(SPEC, seed=2, budget=12))
    assert np.stack(other["plan"]).tolist() != np.stack(records["plan"][:12]).tolist()


def test_settings_reach_the_search(outcome):
    runner, _ = outcome
    records = runner.run(replace(SPEC, settings={"population": 5}, budget=9))
    assert records["generation"].tolist() == [0] * 5 + [1] * 4


def test_the_objective_rate_is_the_one_chosen(outcome):
    runner, _ = outcome
    records = runner.run(replace(SPEC, objective_rate="layer_mean", budget=12))
    assert (records["rate"] == records["layer_mean_rate"]).all() and (records["rate"] != records["storage_rate"]).any()


def test_a_complete_search_is_read_and_not_run_again(outcome, tmp_path):
    runner, records = outcome
    shutil.copytree(runner.folder / SPEC.hash, tmp_path / SPEC.hash)
    records[:7].to_parquet(tmp_path / SPEC.hash / "evaluations.parquet", index=False)  # what a new search would not give
    assert len(runner_in(tmp_path).run(SPEC)) == 7


def test_a_search_that_another_process_completes_meanwhile_is_not_run_again(outcome, tmp_path):
    _, records = outcome
    folder = tmp_path / SPEC.hash
    folder.mkdir()
    with ThreadPoolExecutor() as pool:
        with FileLock(folder / ".lock"):  # the other process is at work ...
            waiting = pool.submit(runner_in(tmp_path).run, SPEC)
            while not (folder / "specification.json").exists():
                time.sleep(0.01)
            records[:7].to_parquet(folder / "evaluations.parquet", index=False)  # ... and done
        assert len(waiting.result()) == 7


def test_unreadable_records_are_refused_and_kept(outcome, tmp_path):
    runner, _ = outcome
    file = shutil.copytree(runner.folder / SPEC.hash, tmp_path / SPEC.hash) / "evaluations.parquet"
    _cut(file)
    before = file.read_bytes()
    with pytest.raises(UserError, match=r"evaluations\.parquet is not a readable table"):
        runner_in(tmp_path).run(SPEC)
    assert file.read_bytes() == before


def test_the_published_protocol_chooses_and_reports_on_test(trained, tmp_path):
    spec = replace(SPEC, protocol="published", method="kmeans", k_max=3, threshold=None, budget=12)
    records = runner_in(tmp_path).run(spec)
    assert (records["accuracy"] == records["test_accuracy"]).all() and (records["loss_pp"] == records["test_loss_pp"]).all()
    assert (records["validation_accuracy"] != records["test_accuracy"]).any()
    assert not list(tmp_path.glob("scan-*"))  # no threshold, no scan


def test_a_threshold_that_empties_layers_names_them_and_leaves_no_records(outcome):
    runner, _ = outcome
    spec = replace(SPEC, threshold=1.01)
    with pytest.raises(UserError, match=r"feature_extractor\.0.*classifier\.2.* 1\.01 "):
        runner.run(spec)
    assert not list((runner.folder / spec.hash).glob("*.parquet"))


def test_a_folder_that_cannot_be_written_is_refused_before_work(trained, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    runner = runner_in(tmp_path / "file" / "outputs")
    for attempt in (runner.run, runner.scan):
        with pytest.raises(UserError, match="cannot be written"):
            attempt(SPEC)
    assert not runner._evaluators  # neither network nor data were loaded
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_box_is_enumerated_whole_resumed_and_kept_apart(tmp_path):
    """2 x 3 x 1 x 2 x 2 plans in batches of 7; a part that was there is not measured again; another box is refused."""
    evaluator = runs.evaluator(runs.Setting("lenet5_tanh", images=100), device="cpu", threads=1)
    box = space.IntegerSpace(([2, 9], [3, 5, 7], [4], [2, 3], [5, 50]))
    tables = list(runs.enumerate_box(evaluator, box, tmp_path, batch=7, progress=False))
    assert [len(table) for table in tables] == [7, 7, 7, 3]
    whole = pd.concat(tables, ignore_index=True)
    plans = [tuple(plan) for plan in whole["plan"]]
    assert plans == sorted(itertools.product([2, 9], [3, 5, 7], [4], [2, 3], [5, 50]))
    np.testing.assert_array_equal(whole[["validation_accuracy", "test_accuracy"]], evaluator.accuracy(plans))
    (tmp_path / "part-00000001.parquet").unlink()
    before = (tmp_path / "part-00000002.parquet").stat().st_mtime_ns
    again = pd.concat(list(runs.enumerate_box(evaluator, box, tmp_path, batch=7, progress=False)), ignore_index=True)
    pd.testing.assert_frame_equal(again, whole)
    assert (tmp_path / "part-00000002.parquet").stat().st_mtime_ns == before
    other = runs.evaluator(runs.Setting("lenet5_tanh", images=90), device="cpu", threads=1)
    with pytest.raises(UserError, match="another box or network"):
        next(runs.enumerate_box(other, box, tmp_path, batch=7, progress=False))
