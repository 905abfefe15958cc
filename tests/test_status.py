"""The state of a grid, read from folders as searches really leave them."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from damages import DAMAGES, cut

from weightlab import cli, rng, runs, search, storage
from weightlab.errors import UserError
from weightlab.runs import loop, status
from weightlab.runs.folder import RunFolder
from weightlab.runs.specifications import Specification
from weightlab.search import space
from weightlab.search.fitness import Target, TargetRule

MOVING = TargetRule(0.6, 4.0, "batch", 0.5, 1.0)
SPEC = Specification("lenet5_tanh", MOVING, budget=100)
TRUTH = ["state", "evaluations", "error"]

# --- folders of searches --------------------------------------------------------------------------------------------------------


def measure(plans):
    """A cheap stand-in for a network: an accuracy that grows with the numbers of clusters, and a rate that falls."""
    accuracy, rate = 1 - 0.5 / np.sqrt(plans).mean(axis=1), 32 / np.log2(plans + 1).mean(axis=1)
    return pd.DataFrame({"accuracy": accuracy, "rate": rate})


def waiting(folder, **changed):
    """The folder of a search that a grid has announced."""
    spec = replace(SPEC, **changed)
    RunFolder(folder / spec.hash).begin(spec.describe())
    return folder / spec.hash


def complete(folder, **changed):
    place, spec = waiting(folder, **changed), replace(SPEC, **changed)
    made = search.make(spec.search, space.full(5, range(1, 51)), rng.derive(spec.seed, spec.search))
    loop.run(made, Target(spec.target), measure, spec.budget, place)
    return place


def checkpoint(place, evaluations, seconds=2.5):
    """Leave of a complete search what it had when so many evaluations were done, in a generation each ten."""
    records, _ = storage.read_table(place / "evaluations.parquet")
    times = [{"generation": i, "seconds": seconds} for i in range(evaluations // 10)]
    RunFolder(place).checkpoint(records[:evaluations], {"search": {}, "target": [0.9, 4.0], "times": times})
    for name in ("evaluations", "times"):
        (place / f"{name}.parquet").unlink()


def partial(folder, evaluations=40, **changed):
    place = complete(folder, **changed)
    checkpoint(place, evaluations)
    return place


def failed(folder, sentence="out of order", **changed):
    place = waiting(folder, **changed)
    RunFolder(place).fail(RuntimeError(sentence))
    return place


@contextmanager
def held(place):
    """A process at work on a search: it holds the lock until it is killed."""
    code = "import sys; from filelock import FileLock\nwith FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(place / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def truth(survey, place):
    return survey.now().set_index("run").loc[place.name]


def test_time_spent_inside_a_generation_counts(tmp_path):
    place = partial(tmp_path, 43)
    records, notes = storage.read_table(place / "checkpoint.parquet")
    begun = {"started": 1.0, "seconds": 0.5, "evaluating_seconds": 0.4}
    RunFolder(place).checkpoint(records, json.loads(notes["state"]) | {"begun": begun})
    assert truth(status.Survey(tmp_path), place)[["evaluations", "seconds"]].tolist() == [43, 4 * 2.5 + 0.5]


# --- states ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared_locks", [True, False], ids=["posix", "windows"])
def test_a_search_is_followed_from_its_announcement_to_its_end(tmp_path, monkeypatch, shared_locks):
    if not shared_locks:
        monkeypatch.setattr(status, "fcntl", None)
    done = complete(tmp_path / "elsewhere")
    survey, place = status.Survey(tmp_path / "grid"), waiting(tmp_path / "grid")
    assert truth(survey, place)[TRUTH].tolist() == ["waiting", 0, ""]
    with held(place) as worker:
        assert truth(survey, place)[TRUTH].tolist() == ["running", 0, ""]
        for name in ("evaluations", "times"):
            shutil.copy(done / f"{name}.parquet", place)
        checkpoint(place, 40)
        assert truth(survey, place)[TRUTH].tolist() == ["running", 40, ""]
        worker.kill()
        worker.wait()
        assert truth(survey, place)[TRUTH].tolist() == ["partial", 40, ""]
    RunFolder(place).fail(RuntimeError("out of\norder"))
    assert truth(survey, place)[TRUTH].tolist() == ["failed", 40, "out of order"]
    with held(place):
        assert truth(survey, place)[TRUTH].tolist() == ["running", 40, ""]
    records, times = (storage.read_table(done / f"{name}.parquet")[0] for name in ("evaluations", "times"))
    RunFolder(place).complete(records, times)
    assert truth(survey, place)[TRUTH].tolist() == ["complete", len(records), ""]
    assert truth(survey, place)["seconds"] == pytest.approx(times["seconds"].sum())


def test_every_search_is_described_as_it_was_specified(tmp_path):
    changed = {"network": "lenet5_relu", "search": "black_hole", "seed": 7, "format": "float16", "method": "gmm", "images": 100}
    place = waiting(tmp_path, **changed, objective_rate="layer_mean", settings={})
    row = truth(status.Survey(tmp_path), place)
    told = row[["dataset", "target", "budget", "objective_rate", "protocol"]].tolist()
    assert told == ["mnist", "batch", 100, "layer_mean", "held_out"]
    assert row[list(changed)].tolist() == [*list(changed.values())[:-1], "100"]


def test_only_the_runs_asked_for_are_told_each_once_in_their_order(tmp_path):
    one, other, _ = complete(tmp_path), waiting(tmp_path, seed=1), waiting(tmp_path, seed=2)
    table = status.survey(tmp_path, iter([other.name, one.name, other.name, "never_begun"]))
    assert table[["run", "state"]].to_numpy().tolist() == [
        [other.name, "waiting"], [one.name, "complete"], ["never_begun", "waiting"],
    ]  # fmt: skip
    assert len(status.survey(tmp_path)) == 3


def test_a_folder_without_searches_is_an_empty_table(tmp_path):
    assert list(status.survey(tmp_path / "nowhere")) == status.FIELDS and len(status.survey(tmp_path)) == 0


def test_nothing_is_opened_for_writing_and_nothing_made(tmp_path):
    """As in a folder mounted read-only; root may write everywhere, so what is asked of the system is watched as well."""
    places = complete(tmp_path), partial(tmp_path, seed=1), failed(tmp_path, seed=2), waiting(tmp_path, seed=3)
    code = (
        "import os, sys\n"
        "from weightlab.runs import status\n"
        "def watch(event, arguments):\n"
        "    writes = event == 'open' and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)\n"
        "    if writes or event in ('os.mkdir', 'os.remove', 'os.rename', 'os.chmod', 'os.link', 'os.symlink'):\n"
        "        print('FORBIDDEN', event, arguments)\n"
        "sys.addaudithook(watch)\n"
        "print(sorted(status.survey(sys.argv[1])['state']))\n"
    )

    def content():
        return {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in [tmp_path, *tmp_path.rglob("*")]}

    with held(places[3]):
        for place in places:
            place.chmod(0o555)
        before = content()
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
        assert done.stdout == "['complete', 'failed', 'partial', 'running']\n", done.stderr
        assert content() == before
    for place in places:
        place.chmod(0o755)


# --- damage ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_told_and_the_others_as_ever(tmp_path, damage):
    place, other = partial(tmp_path), partial(tmp_path, seed=1)
    survey, whole = status.Survey(tmp_path), (place / "checkpoint.parquet").read_bytes()
    assert truth(survey, place)["state"] == "partial"
    DAMAGES[damage](place / "checkpoint.parquet")
    row = truth(survey, place)
    assert row[["state", "evaluations"]].tolist() == ["damaged", 0] and np.isnan(row["best_rate"])
    assert row["error"].startswith(f"{place / 'checkpoint.parquet'} is damaged") and "\n" not in row["error"]
    assert truth(survey, other)[TRUTH].tolist() == ["partial", 40, ""]
    storage.write_whole(place / "checkpoint.parquet", whole)
    assert truth(survey, place)[TRUTH].tolist() == ["partial", 40, ""]


@pytest.mark.parametrize(("name", "state"), [("evaluations", "damaged"), ("times", "complete")])
def test_a_search_cannot_do_without_its_records_but_without_its_times(tmp_path, name, state):
    place = complete(tmp_path)
    cut(place / f"{name}.parquet")
    row = truth(status.Survey(tmp_path), place)
    assert row[["state", "seconds"]].tolist() == [state, 0] and f"{name}.parquet is damaged" in row["error"]


NOTES = [b"", b"{", b"[]", b"5", b"{}", b"\xff\xfe", b'"state"']


@pytest.mark.parametrize("content", NOTES)
def test_a_damaged_failure_is_told_by_name(tmp_path, content):
    place = failed(tmp_path)
    (place / "failed.json").write_bytes(content)
    row = truth(status.Survey(tmp_path), place)
    assert row["state"] == "damaged" and row["error"].startswith(f"{place / 'failed.json'} is damaged")


@pytest.mark.parametrize("content", NOTES)
def test_a_damaged_specification_is_told_by_name_and_hides_nothing(tmp_path, content):
    places = waiting(tmp_path), partial(tmp_path, seed=1), complete(tmp_path, seed=2), failed(tmp_path, seed=3)
    for place in places:
        (place / "specification.json").write_bytes(content)
    table = status.survey(tmp_path, [place.name for place in places])
    assert table["state"].tolist() == ["damaged", "partial", "complete", "failed"]
    for place, error in zip(places[:3], table["error"], strict=False):
        assert error.startswith(f"{place / 'specification.json'} is damaged")


@pytest.mark.parametrize("state", ["{", "[]", "{}", '{"times": [5]}', '{"times": [{}]}'])
def test_a_checkpoint_with_another_state_is_damaged(tmp_path, state):
    place = partial(tmp_path)
    table, _ = storage.read_table(place / "checkpoint.parquet")
    storage.write_table(table, place, "checkpoint", {"state": state})
    row = truth(status.Survey(tmp_path), place)
    assert row["state"] == "damaged" and str(place / "checkpoint.parquet") in row["error"]


def test_records_without_a_row_are_damaged(tmp_path):
    place = partial(tmp_path)
    table, notes = storage.read_table(place / "checkpoint.parquet")
    storage.write_table(table[:0], place, "checkpoint", notes)
    assert truth(status.Survey(tmp_path), place)["state"] == "damaged"


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path):
    (tmp_path / "run").write_text("")
    (row,) = status.survey(tmp_path, ["run"]).to_dict("records")
    assert row["state"] == "damaged" and "Not a directory" in row["error"]


def test_a_failure_to_read_that_passes_is_forgotten(tmp_path, monkeypatch):
    place, survey, real = partial(tmp_path), status.Survey(tmp_path), storage.read_table

    def refuse(file):
        raise UserError(f"{file} is damaged (too many open files)") from OSError(24, "Too many open files")

    monkeypatch.setattr(storage, "read_table", refuse)
    assert truth(survey, place)["state"] == "damaged"
    monkeypatch.setattr(storage, "read_table", real)
    assert truth(survey, place)["state"] == "partial"


# --- while others go on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_search_that_is_completed_while_it_is_looked_at_is_complete(tmp_path, monkeypatch, moment):
    """Its checkpoint is gone when it is to be read, or right after: it is neither damaged nor back at its beginning."""
    place, real = complete(tmp_path), storage.read_table
    records, times = (real(place / f"{name}.parquet")[0] for name in ("evaluations", "times"))
    checkpoint(place, 40)

    def read(file):
        if file.name == "checkpoint.parquet":
            found = real(file)
            RunFolder(place).complete(records, times)
            return found if moment == "after" else real(file)
        return real(file)

    monkeypatch.setattr(storage, "read_table", read)
    assert truth(status.Survey(tmp_path), place)[TRUTH].tolist() == ["complete", len(records), ""]


def test_only_what_has_changed_is_read_again(tmp_path, monkeypatch):
    place, read, real = partial(tmp_path), [], storage.read_table
    complete(tmp_path, seed=1)
    monkeypatch.setattr(storage, "read_table", lambda file: (read.append(file.name), real(file))[1])
    survey = status.Survey(tmp_path)
    first = survey.now()
    assert sorted(read) == ["checkpoint.parquet", "evaluations.parquet", "times.parquet"]
    pd.testing.assert_frame_equal(survey.now(), first)
    assert len(read) == 3
    file = place / "checkpoint.parquet"
    stamp = file.stat().st_mtime_ns
    table, notes = real(file)
    table["accuracy"] = table["accuracy"].to_numpy()[::-1]
    storage.write_table(table, place, "checkpoint", notes)
    os.utime(file, ns=(stamp, stamp))  # another file of the same moment
    assert survey.now()["best_accuracy"].tolist() != first["best_accuracy"].tolist()
    assert read[3:] == ["checkpoint.parquet"]


# --- the best so far ------------------------------------------------------------------------------------------------------------


def by_hand(place, points, targets):
    """A checkpoint of given accuracies and rates, and the targets they were held against."""
    columns = {"accuracy": [a for a, _ in points], "rate": [r for _, r in points]}
    columns |= {"target_accuracy": [a for a, _ in targets], "target_rate": [r for _, r in targets]}
    RunFolder(place).checkpoint(pd.DataFrame(columns), {"search": {}, "target": targets[-1], "times": []})


NOTHING = (np.nan, np.nan)


@pytest.mark.parametrize(
    ("points", "targets", "best"),
    [
        ([(0.9, 8.0), (0.8, 15.0)], [(0.9, 8.0), (0.9, 8.0)], (0.9, 8.0)),
        ([(0.9, 8.0), (0.8, 15.0)], [(0.9, 8.0), (0.9, 16.0)], (0.8, 15.0)),  # an exact hit of a target that has moved on
        ([(np.nan, 8.0), (0.1, 1.0), (0.2, np.nan)], [(0.9, 8.0)] * 3, (0.1, 1.0)),
        ([(np.nan, 8.0)], [(0.9, 8.0)], NOTHING),
    ],
)
def test_the_best_is_the_fittest_against_the_newest_target(tmp_path, points, targets, best):
    place = waiting(tmp_path)
    by_hand(place, points, targets)
    row = truth(status.Survey(tmp_path), place)
    assert row[["best_accuracy", "best_rate"]].tolist() == pytest.approx(best, nan_ok=True)
    assert row[["target_accuracy", "target_rate"]].tolist() == list(targets[-1])


def test_the_best_of_a_real_search_has_no_fitter_record(tmp_path):
    records, _ = storage.read_table(complete(tmp_path) / "evaluations.parquet")
    accuracy, rate = records.iloc[-1][["target_accuracy", "target_rate"]]
    assert rate > MOVING.rate, "the target has moved"
    distances = [(1 - a / accuracy) ** 2 + (1 - r / rate) ** 2 for a, r in zip(records["accuracy"], records["rate"], strict=True)]
    best = records.iloc[distances.index(min(distances))]
    (row,) = status.survey(tmp_path).to_dict("records")
    assert (row["best_accuracy"], row["best_rate"]) == (best["accuracy"], best["rate"])


# --- told as text ---------------------------------------------------------------------------------------------------------------


def test_groups_are_told_apart_by_what_differs_and_only_by_that(tmp_path):
    for changed in ({}, {"seed": 1}, {"search": "random", "settings": {}}, {"search": "random", "settings": {}, "seed": 1}):
        complete(tmp_path, **changed)
    groups = status.groups(status.survey(tmp_path))
    assert groups[["group", "complete", "of"]].to_numpy().tolist() in (
        [["genetic", 2, 2], ["random", 2, 2]],
        [["random", 2, 2], ["genetic", 2, 2]],
    )
    waiting(tmp_path, objective_rate="layer_mean")
    groups = status.groups(status.survey(tmp_path)).set_index("group")
    assert sorted(groups.index) == ["genetic layer_mean", "genetic storage", "random storage"]
    assert groups.loc["genetic layer_mean", ["complete", "of"]].tolist() == [0, 1]


def test_a_summary_names_the_rate_and_says_what_failed(tmp_path):
    by_hand(waiting(tmp_path), [(0.98765, 12.3456)], [(0.99, 18.0)])
    place = failed(tmp_path, "no space left on device", seed=3)
    text = status.summary(status.survey(tmp_path), workers=2)
    assert text.splitlines()[:2] == ["0 of 2 searches complete, 1 partial, 1 failed", "time left unknown: nothing measured yet"]
    assert text.splitlines()[3].split() == ["group", "complete", "best", "accuracy", "at", "storage", "rate"]
    assert text.splitlines()[4].split() == ["lenet5_tanh", "0", "of", "2", "98.77", "%", "12.35"]
    assert text.splitlines()[5] == f"failed: {place.name} (lenet5_tanh genetic, seed 3): no space left on device"
    waiting(tmp_path, objective_rate="layer_mean")
    assert "at objective rate" in status.summary(status.survey(tmp_path))


def test_a_summary_of_nothing_is_a_line(tmp_path):
    assert status.summary(status.survey(tmp_path)) == "0 of 0 searches complete"


def test_time_left_is_told_for_so_many_workers(tmp_path):
    partial(tmp_path, evaluations=40)  # 10 s in all
    for seed in (1, 2):
        waiting(tmp_path, seed=seed)
    table = status.survey(tmp_path)
    assert status.remaining_seconds(table) == pytest.approx((60 + 100 + 100) * 10 / 40)
    assert "\ntime left about 65 s with 1 worker\n" in status.summary(table)
    assert "\ntime left about 32 s with 2 workers\n" in status.summary(table, workers=2)
    assert status.remaining_seconds(table, workers=50) == pytest.approx(100 * 10 / 40), "no shorter than the longest"


def test_what_failed_or_is_damaged_is_still_to_be_done(tmp_path):
    partial(tmp_path, evaluations=40)
    failed(tmp_path, seed=1)
    place = complete(tmp_path, seed=2)
    cut(place / "evaluations.parquet")
    assert status.remaining_seconds(status.survey(tmp_path)) == pytest.approx((60 + 100 + 100) * 10 / 40)


def test_speeds_of_other_numbers_of_images_are_a_last_resort(tmp_path):
    partial(tmp_path, evaluations=40)  # a quarter of a second each
    waiting(tmp_path, images=100)
    assert status.remaining_seconds(status.survey(tmp_path)) == pytest.approx((60 + 100) / 4)
    checkpoint(complete(tmp_path, images=100, seed=1), 50, seconds=0.1)  # 10 ms each
    assert status.remaining_seconds(status.survey(tmp_path)) == pytest.approx(60 / 4 + (50 + 100) / 100)


# --- the command ----------------------------------------------------------------------------------------------------------------


def test_looking_needs_no_torch():
    code = (
        "import sys, weightlab.cli, weightlab.runs.progress\n"
        "try: weightlab.cli.main()\n"
        "finally: print('torch' in sys.modules, 'IPython' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, "status"], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\nFalse False\n")


def command(capsys, monkeypatch, root, *arguments):
    monkeypatch.setenv("WEIGHTLAB_ROOT", str(root))
    monkeypatch.setattr(sys, "argv", ["weightlab", "status", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code or capsys.readouterr().out


def test_the_command_ends_well_with_failed_searches_and_with_none(tmp_path, capsys, monkeypatch):
    """Whatever state a grid is in, telling it has succeeded."""
    (tmp_path / "params" / "quick").mkdir(parents=True)
    assert command(capsys, monkeypatch, tmp_path) == "no search of profile quick has been begun\n"
    assert command(capsys, monkeypatch, tmp_path, "--json").split() == ["[", "]"]
    monkeypatch.undo()  # the specification names the network's checkpoint, which lies in the repository
    failed(tmp_path / "outputs" / "quick" / "searches")
    assert command(capsys, monkeypatch, tmp_path, "--workers", "3").startswith("0 of 1 searches complete, 1 failed\n")
    (row,) = json.loads(command(capsys, monkeypatch, tmp_path, "--json"))
    assert row["error"] == "out of order" and row["best_rate"] is None


def test_records_of_complete_searches_can_be_compared_by_their_hash(tmp_path):
    """The same for a grid made elsewhere, and another for other records; what is not complete does not count."""
    for folder in ("one", "two"):
        places = [complete(tmp_path / folder, seed=seed) for seed in range(2)]
        partial(tmp_path / folder, seed=2)
    texts = [status.tell(tmp_path / folder, "") for folder in ("one", "two")]
    assert texts[0].splitlines()[-1] == f"records {runs.records_hash(tmp_path / 'one', [place.name for place in places])[:16]}"
    assert texts[0].splitlines()[-1] == texts[1].splitlines()[-1]
    rows = {row["run"]: row for row in json.loads(status.tell(tmp_path / "two", "", as_json=True))}
    assert [rows.pop(place.name)["records"] for place in places] == [
        runs.records_hash(tmp_path / "two", [place.name])[:16] for place in places
    ]
    assert [row["records"] for row in rows.values()] == [None]
    shutil.copy(places[0] / "evaluations.parquet", places[1])
    assert status.tell(tmp_path / "two", "").splitlines()[-1] != texts[0].splitlines()[-1]


def test_nothing_complete_has_no_hash(tmp_path):
    partial(tmp_path)
    assert "records" not in status.tell(tmp_path, "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["--workers", "0"], "workers must be .* got 0"), (["--profile", "cluster"], "unknown profile 'cluster'; allowed: quick$")],
)
def test_a_wrong_question_is_refused(tmp_path, capsys, monkeypatch, arguments, sentence):
    for name in ("quick", "cluster"):
        (tmp_path / "params" / name).mkdir(parents=True)
    assert re.search(f"^error: {sentence}", command(capsys, monkeypatch, tmp_path, *arguments))
