"""Specifications, and the runner on a trained network."""

import errno
import fcntl
import hashlib
import itertools
import json
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from damages import DAMAGES, flip
from filelock import FileLock

from weightlab import accounting, data, models, paths, runs, sharing, storage, training
from weightlab.errors import UserError
from weightlab.runs import Runner, Specification, enumeration, specifications
from weightlab.runs import records as columns
from weightlab.runs.folder import RunFolder
from weightlab.search import space
from weightlab.search.fitness import TargetRule, fitness
from weightlab.search.genetic import Genetic
from weightlab.settings import leaves

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
    {"uniform_start": 1},
    {"uniform_start": "no"},
    *(
        {"threshold": wrong}
        for wrong in ("1pp", "-pp", "0.97", "-1", "-1e1pp", "-nanpp", "-1%", -0.5, np.nan, np.inf, True, [0.9])
    ),
]


def runner_in(folder):
    return Runner(folder, device="cpu", threads=1, progress=False, workers=1)


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
    "whole_net": True,
    "uniform_start": True,
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


@pytest.mark.parametrize("name", [field.name for field, _ in leaves(Specification) if field.name != "weights"])  # see test_own
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
    assert replace(SPEC, settings=asdict(Genetic.Settings())).hash == SPEC.hash
    assert replace(SPEC, settings={"population": 12}).hash == replace(SPEC, settings={}).hash == SPEC.hash


@pytest.mark.parametrize("same", [{"target": TargetRule(0.99, 18, "batch")}, {"settings": {"mutation": 1}}], ids=str)
def test_a_whole_number_is_the_same_with_and_without_a_point(trained, same):
    pointed = {"target": TargetRule(0.99, 18.0, "batch")} if "target" in same else {"settings": {"mutation": 1.0}}
    assert replace(SPEC, **same) == replace(SPEC, **pointed)
    assert replace(SPEC, **same).hash == replace(SPEC, **pointed).hash


def test_thresholds_that_mean_the_same_have_one_hash(trained):
    for same in (["-1pp", "-1.0pp", " - 1 pp", "-01.pp"], ["-0.5pp", "-.5pp", "-0.50 pp"], [1, 1.0], [0.97, np.float64(0.97)]):
        assert len({replace(SPEC, threshold=each).hash for each in same}) == 1, same
    assert replace(SPEC, threshold="-1pp").threshold == "-1pp" and replace(SPEC, threshold="-.50pp").threshold == "-0.5pp"
    assert len({replace(SPEC, threshold=each).hash for each in ("-1pp", "-0.1pp", 0.99, 0.01, None)}) == 5


def test_specifications_keep_the_hashes_that_records_were_made_under(trained):
    assert SPEC.hash == "1f1e901334ddc27a"
    assert Specification("lenet5_tanh", TargetRule(0.99, 18.0)).hash == "4d4fccbf741c1d33"


AS_BEFORE = {  # SHA-256 of plans, right images and repeats, from before there were uniform starts and slices of generations
    "genetic": "94c8e1b1f3231846",
    "random": "be343f7d3f42b2d5",
    "particle_swarm": "637080bb370f875b",
    "black_hole": "9dca9a05577942c7",
}


@pytest.mark.parametrize("name", AS_BEFORE)
def test_records_are_those_from_before_there_were_uniform_starts(outcome, name):
    records = outcome[0].run(replace(SPEC, search=name, settings={}))
    columns = [records["plan"], *(200 * records[f"{split}_accuracy"] for split in ("validation", "test")), records["repeated"]]
    rows = [
        [plan.tolist(), round(first), round(second), repeated] for plan, first, second, repeated in zip(*columns, strict=True)
    ]
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] == AS_BEFORE[name]
    assert "uniform" not in records and "uniform_start" not in SPEC.describe()


def test_nsga2_is_specified_and_run_as_the_others(outcome):
    spec = replace(SPEC, search="nsga2", settings={"population": 20})
    records = outcome[0].run(spec)
    assert records["generation"].tolist() == [0] * 20 + [1] * 20 + [2] * 20 and set(records["search"]) == {"nsga2"}
    assert specifications.from_description(json.loads(json.dumps(spec.describe()))) == spec
    with pytest.raises(UserError, match="at least the 40 evaluations of the first generation of nsga2, got 39"):
        replace(SPEC, search="nsga2", settings={}, budget=39)


def test_a_uniform_start_is_recorded_and_described(outcome):
    spec = replace(SPEC, uniform_start=True, budget=12)
    records = outcome[0].run(spec)
    allowed = outcome[0].space(spec)
    assert records["uniform"].tolist()[:3] == [True] * 3 and np.stack(records["plan"][:3]).tolist() == [
        [min(each.tolist(), key=lambda k: abs(k - wanted)) for each in allowed.lists] for wanted in (8, 5, 2)
    ]
    assert specifications.from_description(json.loads(json.dumps(spec.describe()))) == spec


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


def test_every_column_is_stated_once_with_its_type(outcome, tmp_path):
    def stated(columns):
        return {column.name: column.dtype.replace("list of int64", "object") for column in columns}

    def found(table):
        return {name: str(dtype) for name, dtype in table.dtypes.items()}

    runner, records = outcome
    expected = {
        name: dtype for name, dtype in stated(columns.EVALUATIONS).items() if name != "energy_rate"
    }  # of multipliers alone
    assert found(runner_in(tmp_path).run(replace(SPEC, uniform_start=True))) == expected
    assert list(found(records).items()) == [each for each in expected.items() if each[0] != "uniform"]
    assert found(storage.read_table(runner.folder / SPEC.hash / "times.parquet")[0]) == stated(columns.TIMES)
    assert found(runner.scan(SPEC)) == stated(columns.SCANS)


def test_the_page_on_records_is_made_from_the_columns():
    assert (paths.root() / "docs" / "records.md").read_text() == columns.page()


def test_records_hold_both_rates_of_their_plans(outcome):
    runner, records = outcome
    plans, weights = np.stack(records["plan"]), runner.evaluator(SPEC).variants.weights
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
    before = scan.stat()
    fresh = runner_in(runner.folder)
    records = fresh.run_all([replace(SPEC, search="random", settings={}, budget=20), replace(SPEC, seed=1, budget=12)])
    assert [scan] == list(runner.folder.glob("scan-*.parquet")) and scan.stat().st_ino == before.st_ino
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
    storage.write_table(records[:7], tmp_path / SPEC.hash, "evaluations")  # what a new search would not give
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
            storage.write_table(records[:7], folder, "evaluations")  # ... and done
        assert len(waiting.result()) == 7


@pytest.mark.parametrize("damage", ["cut short", "a flipped bit in the records", "another table"])
def test_damaged_records_are_put_aside_and_made_anew(outcome, tmp_path, damage):
    runner, _ = outcome
    shutil.copy(next(runner.folder.glob("scan-*")), tmp_path)
    file = shutil.copytree(runner.folder / SPEC.hash, tmp_path / SPEC.hash) / "evaluations.parquet"
    whole = file.read_bytes()
    DAMAGES[damage](file)
    damaged = file.read_bytes()
    with pytest.warns(UserWarning, match="evaluations.parquet is damaged .* kept as damaged-0-evaluations.parquet"):
        runner_in(tmp_path).run(SPEC)
    assert file.read_bytes() == whole and (file.parent / "damaged-0-evaluations.parquet").read_bytes() == damaged


def test_a_damaged_scan_is_made_again(outcome, tmp_path):
    runner, _ = outcome
    scan = runner.scan(SPEC)
    (file,) = runner.folder.glob("scan-*.parquet")
    copy = tmp_path / file.name
    copy.write_bytes(file.read_bytes())
    flip(copy)
    with pytest.warns(UserWarning, match="scan-.* is damaged .* made again"):
        pd.testing.assert_frame_equal(runner_in(tmp_path).scan(SPEC), scan)
    assert copy.read_bytes() == file.read_bytes()


def test_the_published_protocol_chooses_and_reports_on_test(trained, tmp_path):
    spec = replace(SPEC, protocol="published", method="kmeans", k_max=3, threshold=None, budget=12)
    records = runner_in(tmp_path).run(spec)
    assert (records["accuracy"] == records["test_accuracy"]).all() and (records["loss_pp"] == records["test_loss_pp"]).all()
    assert (records["validation_accuracy"] != records["test_accuracy"]).any()
    assert not list(tmp_path.glob("scan-*"))  # no threshold, no scan


def test_a_threshold_that_empties_layers_names_them_and_leaves_no_records(outcome):
    runner, _ = outcome
    spec = replace(SPEC, threshold="-0pp", k_max=1)
    with pytest.raises(UserError, match=r"feature_extractor\.0.*classifier\.2.* 0\.9"):
        runner.run(spec)
    assert not list((runner.folder / spec.hash).glob("*.parquet"))


def right(protocol):
    """Of the 200 images of the split that chooses, those that the unshared network classifies correctly."""
    split = {"held_out": "validation", "published": "test"}[protocol]
    return round(200 * training.accuracy(models.load("lenet5_tanh"), data.load("mnist", split).first(200), "cpu"))


@pytest.mark.parametrize("protocol, method", [("held_out", "exact"), ("published", "minibatch")])
def test_a_threshold_above_the_unshared_accuracy_is_refused_before_the_scan(trained, tmp_path, protocol, method):
    """And the unshared accuracy itself is not above it."""
    count, split = right(protocol), {"held_out": "validation", "published": "test"}[protocol]
    spec = replace(SPEC, protocol=protocol, method=method, k_max=4, threshold=(count + 1) / 200)
    runner = runner_in(tmp_path)
    told = (
        f"threshold {(count + 1) / 200} is above the accuracy of the unshared network, {count / 200} on 200 images of {split}: "
    )
    for attempt in (runner.run, runner.scan):
        with pytest.raises(UserError, match=re.escape(told)) as caught:
            attempt(spec)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*scan-*.parquet"))
    assert runner.least_accuracy(spec, count / 200) == count / 200


@pytest.mark.parametrize("protocol, method", [("held_out", "exact"), ("published", "minibatch")])
def test_a_margin_keeps_what_loses_no_more_on_the_split_that_chooses(trained, tmp_path, protocol, method):
    spec = replace(SPEC, protocol=protocol, method=method, threshold="-1.5pp", images=200, k_max=12)
    runner, split = runner_in(tmp_path), {"held_out": "validation", "published": "test"}[protocol]
    lists, scan = runner.space(spec).lists, runner.scan(spec)
    for layer, rows in scan.groupby("layer"):
        lost = right(protocol) - (200 * rows[f"{split}_accuracy"]).round()
        assert lists[layer].tolist() == rows.loc[lost <= 3, "k"].tolist()
    assert {3} <= set(right(protocol) - (200 * scan[f"{split}_accuracy"]).round()), "one loses exactly the margin"
    chooser = json.loads(json.dumps(spec.describe()))
    assert chooser["threshold"] == "-1.5pp" and specifications.from_description(chooser) == spec


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
    tables = list(enumeration.measure(evaluator, box, tmp_path, batch=7, progress=False))
    assert [len(table) for table in tables] == [7, 7, 7, 3]
    whole = pd.concat(tables, ignore_index=True)
    plans = [tuple(plan) for plan in whole["plan"]]
    assert plans == sorted(itertools.product([2, 9], [3, 5, 7], [4], [2, 3], [5, 50]))
    np.testing.assert_array_equal(whole[["validation_accuracy", "test_accuracy"]], evaluator.accuracy(plans))
    (tmp_path / "part-00000001.parquet").unlink()
    before = (tmp_path / "part-00000002.parquet").stat().st_mtime_ns
    again = pd.concat(list(enumeration.measure(evaluator, box, tmp_path, batch=7, progress=False)), ignore_index=True)
    pd.testing.assert_frame_equal(again, whole)
    assert (tmp_path / "part-00000002.parquet").stat().st_mtime_ns == before
    other = runs.evaluator(runs.Setting("lenet5_tanh", images=90), device="cpu", threads=1)
    with pytest.raises(UserError, match="another box or network"):
        next(enumeration.measure(other, box, tmp_path, batch=7, progress=False))


# --- what may go wrong with a folder --------------------------------------------------------------------------------------------


def test_two_processes_may_begin_one_search_together(tmp_path, monkeypatch):
    """The one that has the lock takes what the other is writing for the leftover of a kill."""
    folder, write = RunFolder(tmp_path / "run"), storage.write_whole

    def write_while_another_tidies(file, content):
        monkeypatch.setattr(storage, "write_whole", write)
        write(file.with_name(f".{file.name}.0123abcd"), content)
        with folder.lock():
            folder.tidy()
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(storage, "write_whole", write_while_another_tidies)
    folder.begin({"seed": 1})
    assert json.loads((tmp_path / "run" / "specification.json").read_text()) == {"seed": 1}
    assert not list((tmp_path / "run").glob(".specification*"))


def test_records_that_cannot_be_read_now_are_not_taken_for_damaged(outcome, tmp_path, monkeypatch):
    """Another user's rights, a disk's error: it may pass, and the records are left where they are."""
    folder = shutil.copytree(outcome[0].folder / SPEC.hash, tmp_path / SPEC.hash)
    read = Path.read_bytes

    def refuse(file):
        if file.name == "evaluations.parquet":
            raise PermissionError(13, "Permission denied")
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match="evaluations.parquet cannot be read: .*Permission denied"):
        runner_in(tmp_path).run(SPEC)
    monkeypatch.undo()
    assert not list(folder.glob("damaged-*")) and len(runner_in(tmp_path).run(SPEC)) == len(outcome[1])


def test_a_lock_that_cannot_be_had_is_said(outcome, tmp_path, monkeypatch):
    """A folder that has become read-only after the search began; a file system without locks."""
    shutil.copytree(outcome[0].folder / SPEC.hash, tmp_path / SPEC.hash)
    (tmp_path / SPEC.hash / "evaluations.parquet").unlink()
    for error in (OSError(errno.EROFS, "Read-only file system"), OSError(errno.ENOSYS, "Function not implemented")):

        def refuse(*_, error=error):
            raise error

        monkeypatch.setattr(fcntl, "flock", refuse)
        with pytest.raises(UserError, match="cannot be written, or its file system has no locks"):
            runner_in(tmp_path).run(SPEC)
        with pytest.raises(UserError) as told:
            runner_in(tmp_path).run_all([SPEC])
        assert "failed.json" not in str(told.value), "there is no such file"


def test_a_checkpoint_that_a_kill_left_beside_complete_records_goes(outcome, tmp_path):
    folder = shutil.copytree(outcome[0].folder / SPEC.hash, tmp_path / SPEC.hash)
    storage.write_table(outcome[1][:7], folder, "checkpoint", {"state": "{}"})
    runner_in(tmp_path).run(SPEC)
    assert not (folder / "checkpoint.parquet").exists()


def test_workers_that_see_another_folder_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(runs.executors, "execute", lambda *_: iter([(SPEC, runs.Outcome())]))
    with pytest.raises(UserError, match=f"records of {SPEC.hash} are not in .*; all workers must see the same folder"):
        Runner(tmp_path, progress=False, workers=2).run_all([SPEC])


def test_what_puts_damage_aside_overwrites_nothing(tmp_path):
    folder = RunFolder(tmp_path)
    for name in ("damaged-1-evaluations.parquet", "evaluations.parquet", "damaged-0-evaluations.parquet"):
        (tmp_path / name).write_text(name)
    with folder.lock(), pytest.warns(UserWarning, match="damaged-2-evaluations.parquet"):
        assert folder.tidy() is None
    assert (tmp_path / "damaged-1-evaluations.parquet").read_text() == "damaged-1-evaluations.parquet"
