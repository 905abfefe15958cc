"""A grid of searches on real processes: kept, shared, resumed, the same whoever runs it; its state told truly."""

import json
import random
import shutil
import subprocess
import sys
import time
import warnings

import disturbances
import numpy as np
import pandas as pd
import psutil
import pytest
import worker_tasks
from filelock import FileLock
from grids import SPECIFICATIONS, Grid, end, start, wait_for
from warm_python import python

from weightlab import runs, storage
from weightlab.errors import UserError
from weightlab.runs import Runner, executors, status
from weightlab.search.fitness import TargetRule

RULE = TargetRule(0.99, 18.0, "batch")
SMALL = {"budget": 24, "k_max": 4, "images": 60, "threshold": None}


def small(**changed):
    return runs.grid(["lenet5_tanh"], [RULE], ["random", "genetic"], range(2), **SMALL | changed)


def runner_in(folder, **rest):
    return Runner(folder, **{"device": "cpu", "threads": 1, "progress": False, "workers": 1} | rest)


# --- the grid -------------------------------------------------------------------------------------------------------------------


def test_a_grid_is_every_combination_once_with_hashes_of_their_own():
    specs = runs.grid(
        ["lenet5_tanh", "lenet5_relu"],
        [RULE, TargetRule(0.9, 5.0)],
        ["random", "genetic"],
        range(3),
        ["float32", "float16"],
        ["exact", "gmm"],
    )
    assert len(specs) == len({spec.hash for spec in specs}) == 2 * 2 * 2 * 3 * 2 * 2
    assert [spec.seed for spec in specs[:4]] == [0, 1, 2, 0]
    assert specs == runs.grid(
        ["lenet5_tanh", "lenet5_relu"],
        [RULE, TargetRule(0.9, 5.0)],
        ["random", "genetic"],
        [0, 1, 2],
        ["float32", "float16"],
        ["exact", "gmm"],
    )


def test_each_network_may_have_its_own_target():
    other = TargetRule(0.9, 5.0)
    specs = runs.grid(["lenet5_tanh", "lenet5_relu"], {"lenet5_relu": other, "lenet5_tanh": RULE})
    assert [(spec.network, spec.target) for spec in specs] == [("lenet5_tanh", RULE), ("lenet5_relu", other)]


@pytest.mark.parametrize(
    "empty", [{"networks": []}, {"targets": []}, {"searches": []}, {"seeds": range(0)}, {"formats": []}, {"methods": []}]
)
def test_an_empty_grid_is_refused(empty):
    with pytest.raises(UserError, match="at least one network, target, search, seed, format and method"):
        runs.grid(**{"networks": ["lenet5_tanh"], "targets": [RULE]} | empty)


# --- who runs it ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The grid that is disturbed below, run by one process in peace."""
    folder = tmp_path_factory.mktemp("grid") / "undisturbed"
    Grid(folder, folder).finish()
    return folder


def test_one_worker_two_workers_and_dask_give_identical_records(undisturbed, tmp_path, capsys):
    distributed = pytest.importorskip("distributed", reason="dask is the extra weightlab[cluster]")
    runner_in(tmp_path / "two", workers=2).run_all(SPECIFICATIONS)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        table = runner_in(tmp_path / "dask", scheduler=cluster.scheduler_address).run_all(SPECIFICATIONS)
    hashes = {runs.records_hash(folder) for folder in (undisturbed, tmp_path / "two", tmp_path / "dask")}
    assert len(hashes) == 1
    pd.testing.assert_frame_equal(table, runner_in(undisturbed).run_all(SPECIFICATIONS))
    for folder, least in [(tmp_path / "two", 2), (tmp_path / "dask", 2)]:
        times = pd.concat([pd.read_parquet(file) for file in folder.glob("*/times.parquet")])
        assert times["process"].nunique() >= least, "both workers had work"


def test_the_hash_of_all_records_changes_with_any_of_them(undisturbed, tmp_path):
    copy = shutil.copytree(undisturbed, tmp_path / "copy")
    assert runs.records_hash(copy) == runs.records_hash(undisturbed)
    run = SPECIFICATIONS[0].hash
    assert runs.records_hash(copy, [run]) != runs.records_hash(copy)
    table, _ = storage.read_table(copy / run / "evaluations.parquet")
    storage.write_table(table[:-1], copy / run, "evaluations")
    assert runs.records_hash(copy) != runs.records_hash(undisturbed)


@pytest.mark.parametrize("kind", disturbances.KILLS)
def test_a_grid_killed_twice_ends_with_the_same_records(undisturbed, tmp_path, kind):
    """The process, a worker, the scheduler, or one of two invocations, at random moments; `make bench-faults` does more of it."""
    survived, tried = disturbances.kill(kind, 2, Grid(tmp_path / "grid", undisturbed), random.Random(kind))
    assert survived == tried >= 2


def test_a_search_begun_anew_is_not_taken_for_one_that_went_on(undisturbed, tmp_path):
    """Its records are the same: what the kills above check is when its generations started."""
    grid = Grid(shutil.copytree(undisturbed, tmp_path / "grid"), undisturbed)
    place = grid.folder / SPECIFICATIONS[0].hash
    records, _ = storage.read_table(place / "evaluations.parquet")
    times = storage.read_table(place / "times.parquet")[0].to_dict("records")

    def note(generations):
        storage.write_table(records, place, "checkpoint", {"state": json.dumps({"times": generations})})
        grid.note()
        (place / "checkpoint.parquet").unlink()

    note(times[:3])
    grid.check_resumed()
    assert grid.resumed == 0, "nobody else went on"
    times = times[:3] + [each | {"process": each["process"] + 1} for each in times[3:]]
    storage.write_table(pd.DataFrame(times), place, "times")
    note(times[:3])
    grid.check_resumed()
    assert grid.resumed == 1
    note([each | {"started": each["started"] - 60} for each in times[:3]])
    with pytest.raises(AssertionError, match=f"{place.name} was begun anew"):
        grid.check_resumed()


def test_interrupted_from_the_keyboard_it_says_so_and_goes_on_later(undisturbed, tmp_path):
    grid = Grid(tmp_path / "grid", undisturbed)
    assert disturbances.interrupt(grid, random.Random(1), workers=2)
    grid.finish()
    grid.check_whole()


# --- failures -------------------------------------------------------------------------------------------------------------------


def test_a_search_that_fails_does_not_stop_the_others(tmp_path):
    specs = [*small(threshold=1.01)[:1], *small()]
    with pytest.raises(UserError, match=r"1 of 5 searches failed, .*threshold 1.01 is above the accuracy.*failed\.json"):
        runner_in(tmp_path).run_all(specs)
    table = status.Survey(tmp_path).now().set_index("run")
    assert table["state"].value_counts().to_dict() == {"complete": 4, "failed": 1}
    assert "1.01" in table.loc[specs[0].hash, "error"]
    assert len(runner_in(tmp_path).run_all(specs[1:])) == 2 * 20 + 2 * 23
    failed = json.loads((tmp_path / specs[0].hash / "failed.json").read_text())
    assert failed["kind"] == "UserError" and "Traceback" in failed["traceback"]


def test_a_failure_is_forgotten_when_the_search_goes_on(tmp_path):
    spec = small()[0]
    runner = runner_in(tmp_path)
    runner.space = lambda spec: 1 / 0
    with pytest.raises(UserError, match="ZeroDivisionError"):
        runner.run_all([spec])
    assert (tmp_path / spec.hash / "failed.json").exists()
    runner_in(tmp_path).run_all([spec])
    assert not (tmp_path / spec.hash / "failed.json").exists()


def test_a_locked_folder_is_left_to_its_holder_and_the_rest_done_first(tmp_path):
    """Another process has the first search; ours does the others, then waits for it."""
    specs = small()
    code = (
        "import sys, time; from filelock import FileLock\nwith FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    )
    (tmp_path / specs[0].hash).mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / specs[0].hash / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        child = start(_run_small, tmp_path)
        while len(list(tmp_path.glob("*/evaluations.parquet"))) < len(specs) - 1:
            assert child.is_alive()
            time.sleep(0.1)
        state = status.Survey(tmp_path).now().set_index("run")["state"]
        assert state[specs[0].hash] == "running" and child.is_alive()
        holder.kill()  # the lock goes with it
    assert end(child) == [0]
    assert (status.Survey(tmp_path).now()["state"] == "complete").all()


def _run_small(folder):
    runner_in(folder).run_all(small())


def test_a_complete_grid_is_read_from_a_folder_that_cannot_be_written(undisturbed, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(storage, "write_whole", refuse)
    assert len(runner_in(undisturbed).run_all(SPECIFICATIONS)) > 0
    with pytest.raises(UserError, match="cannot be written: .*Read-only"):
        runner_in(tmp_path).run_all(SPECIFICATIONS)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"workers": 0}, "workers must be None .* got 0"),
        ({"workers": 1.5}, "workers must be .* got 1.5"),
        ({"scheduler": "somewhere"}, "scheduler must be an address .* got 'somewhere'"),
        ({"threads": 0}, "threads must be"),
        ({"threads": True}, "threads must be a whole number of at least 1, got True"),
    ],
    ids=str,
)
def test_wrong_execution_is_refused_before_anything_is_written(tmp_path, wrong, sentence):
    with pytest.raises(UserError, match=sentence):
        runner_in(tmp_path / "grid", **wrong)
    assert not (tmp_path / "grid").exists()


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="dask is the extra weightlab[cluster]")
    monkeypatch.setattr(executors, "ANSWER_S", 1)
    with pytest.raises(UserError, match="no dask scheduler answers at tcp://127.0.0.1:9 "):
        runner_in(tmp_path, scheduler="tcp://127.0.0.1:9").run_all(small())


def test_items_that_kill_their_workers_are_given_up(monkeypatch):
    monkeypatch.setattr(executors, "DEATHS", 2)
    with warnings.catch_warnings(), pytest.raises(UserError, match="workers died 2 times in a row .* 2 items left"):
        warnings.simplefilter("ignore")
        list(executors.execute(worker_tasks.die, [1, 2], workers=2))


def test_workers_that_grow_are_kept():
    """An evaluator takes more than what joblib holds for a leak."""
    processes = {process for _, process in executors.execute(worker_tasks.grow, range(6), workers=2)}
    assert len(processes) <= 2


def test_workers_leave_with_the_process_that_started_them(undisturbed, tmp_path):
    grid = Grid(tmp_path / "grid", undisturbed)
    child = grid.start(workers=2)
    workers = wait_for(lambda: disturbances.workers_at_work(child, grid), child)
    child.kill()
    assert not psutil.wait_procs(workers, timeout=30)[1]
    child.join()


# --- its state ------------------------------------------------------------------------------------------------------------------


def test_the_state_of_each_search_is_told(undisturbed, tmp_path):
    """One complete, one partial, one waiting, one damaged; evaluations, bests and seconds are those recorded."""
    copy = shutil.copytree(undisturbed, tmp_path / "copy")
    complete, partial, waiting, damaged = (copy / spec.hash for spec in SPECIFICATIONS)
    table, _ = storage.read_table(partial / "evaluations.parquet")
    times = pd.read_parquet(partial / "times.parquet")[:5].to_dict("records")
    for folder in (partial, waiting):
        (folder / "evaluations.parquet").unlink()
        (folder / "times.parquet").unlink()
    storage.write_table(table[:100], partial, "checkpoint", {"state": json.dumps({"times": times})})
    file = damaged / "evaluations.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    survey = status.Survey(copy)
    now = survey.now().set_index("run")
    assert now["state"].to_dict() == {
        complete.name: "complete",
        partial.name: "partial",
        waiting.name: "waiting",
        damaged.name: "damaged",
    }
    row = now.loc[partial.name]
    assert row["evaluations"] == 100 and row["seconds"] == pytest.approx(sum(each["seconds"] for each in times))
    whole = pd.read_parquet(complete / "evaluations.parquet")
    best = whole.loc[
        status.fitness(whole[["accuracy", "rate"]].to_numpy(), whole[["target_accuracy", "target_rate"]].to_numpy()[-1]).argmax()
    ]
    assert now.loc[complete.name, ["best_accuracy", "best_rate"]].tolist() == best[["accuracy", "rate"]].tolist()
    with FileLock(partial / ".lock"):
        assert survey.now().set_index("run").loc[partial.name, "state"] == "running"
    assert survey.now().set_index("run").loc[partial.name, "state"] == "partial"
    text = status.summary(survey.now(), workers=2)
    assert "1 of 4 searches complete, 1 partial, 1 waiting, 1 damaged" in text and "with 2 workers" in text
    assert f"damaged: {damaged.name} (lenet5_tanh" in text


def rows(*given):
    base = dict.fromkeys(status.FIELDS, "") | {"budget": 100, "evaluations": 0, "seconds": 0.0, "state": "waiting"}
    return pd.DataFrame([base | each for each in given])


def test_time_left_follows_from_seconds_per_evaluation_of_like_searches():
    quick = {"network": "a", "search": "genetic", "state": "complete", "evaluations": 100, "seconds": 10.0}
    slow = {"network": "b", "search": "random", "state": "complete", "evaluations": 100, "seconds": 50.0}
    half = {"network": "a", "search": "genetic", "state": "partial", "evaluations": 50, "seconds": 5.0}
    assert status.remaining_seconds(rows(quick, slow, half)) == pytest.approx(50 * 0.1)
    assert status.remaining_seconds(rows(quick, slow, half, {"network": "b"})) == pytest.approx(5 + 50)
    assert status.remaining_seconds(rows(quick, slow, half, {"network": "b"}), workers=2) == pytest.approx(
        50
    )  # the longest alone
    assert status.remaining_seconds(rows(slow, {"network": "c"}, {"network": "c"}), workers=2) == pytest.approx(50)
    assert status.remaining_seconds(rows({"network": "a"})) is None
    assert status.remaining_seconds(rows(quick)) == 0


def test_the_best_of_a_group_is_held_against_the_furthest_target():
    one = {"best_accuracy": 0.97, "best_rate": 10.0, "target_accuracy": 0.98, "target_rate": 10.0, "network": "a"}
    other = {"best_accuracy": 0.96, "best_rate": 19.0, "target_accuracy": 0.98, "target_rate": 20.0, "network": "a"}
    (group,) = status.groups(rows(one, other)).to_dict("records")
    assert (group["accuracy"], group["rate"]) == (0.96, 19.0) and group["of"] == 2
    assert np.isnan(status.groups(rows(dict.fromkeys(status.BEST, np.nan)))["rate"][0])


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "unknown"), (5, "5 s"), (89, "89 s"), (600, "10 min"), (3600 * 2 + 300, "2 h 05 min")]
)
def test_durations_read_well(seconds, text):
    assert status.duration(seconds).startswith(text)


def test_make_status_tells_it_as_a_command(own_root):
    root, environment = own_root
    command = [*python(), "-m", "weightlab", "status", "--profile", "smoke"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "no search of profile smoke has been begun\n"
    runner_in(root / "outputs" / "smoke" / "searches").run_all(small())
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("4 of 4 searches complete\n") and "genetic" in done.stdout
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True)
    assert {row["state"] for row in json.loads(done.stdout)} == {"complete"}
    done = subprocess.run([*command[:-1], "tiny"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: unknown profile 'tiny'") and done.stderr.count("\n") == 1
