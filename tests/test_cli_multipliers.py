"""`weightlab multipliers`: list, evaluate and search, on LeNet-5 with few images and a few generated multipliers."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from typer.main import get_command
from typer.testing import CliRunner
from warm_python import python

from weightlab import data, models, runs, training
from weightlab.cli import app, multiplier_search, options
from weightlab.compression import contract
from weightlab.compression.multipliers import metrics, tables
from weightlab.compression.multipliers.method import Multipliers
from weightlab.compression.multipliers.settings import Multiplying
from weightlab.runs import loop, runner
from weightlab.search import SEARCHES

COMMANDS = get_command(app).commands["multipliers"].commands
ONLY = ["--only", "exact,drum4,trunc6"]
DIGITS = ["lenet5_relu", "--data", "digits.npz", "--threads", "1"]
SEARCH = ["search", *DIGITS, *ONLY, "--population", "5", "--budget", "15", "--workers", "1", "--within", "3"]
MODULE = """
import torch
from torch import nn


def settled(network):
    for parameter in network.parameters():
        parameter.data = torch.linspace(-1, 1, parameter.numel()).sin().reshape(parameter.shape)
    return network


def flat():
    return settled(nn.Sequential(nn.Flatten(), nn.Linear(1024, 10)))


def small():
    return settled(nn.Sequential(nn.Conv2d(1, 3, 5, 4), nn.ReLU(), nn.Flatten(), nn.Linear(147, 10)))
"""


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """A working directory with data of a user's own, which are read faster than all of MNIST, and a network without convolutions."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "cli_circuits_net.py").write_text(MODULE)
    (folder / "empty").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", sys.path.copy())
        patch.delenv(tables.VARIABLE, raising=False)
        digits = data.load("mnist", "test").first(300)
        images, labels = digits.images.numpy(), digits.labels.numpy()
        arrays = {}
        for place, name in enumerate(("train", "validation", "test")):
            rows = slice(100 * place, 100 * place + 100)
            arrays |= {f"{name}_images": images[rows], f"{name}_labels": labels[rows]}
        np.savez("digits.npz", **arrays)
        np.savez("untrained.npz", images=images, labels=labels)
        yield folder


def called(*words, code=0):
    result = CliRunner().invoke(app, ["multipliers", *map(str, words)])
    assert result.exit_code == code, result.output
    return result


def method():
    """What the commands measure on these data."""
    generated = tables.generated().only(["exact", "drum4", "trunc6"]).ordered("power")
    return Multipliers(models.load("lenet5_relu"), generated, data.load("digits.npz", "train").images, signed=True)


@pytest.fixture(scope="module")
def searched(home):
    """What a search printed, and its records."""
    printed = called(*SEARCH, "--folder", "kept", "--plot", "plot.png").stdout
    return printed, runs.read("kept")


# --- help -------------------------------------------------------------------------------------------------------------------------


def test_alone_it_prints_its_help():
    printed = called(code=2).output
    assert "Usage: weightlab multipliers" in printed and all(f"  {name} " in printed for name in ("list", "evaluate", "search"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained_in_one_sentence(name):
    printed = " ".join(called(name, "--help").stdout.split())
    assert f"Usage: weightlab multipliers {name}" in printed
    assert ("CLASS/PICTURE" in printed) == (name != "list")
    for parameter in COMMANDS[name].params:
        assert parameter.name == "help" or (parameter.help.endswith(".") and ". " not in parameter.help), parameter.name


def test_defaults_that_help_shows_are_those_of_the_library():
    shown = {parameter.name: parameter for parameter in COMMANDS["search"].params}
    assert shown["order"].default == Multiplying.order and not Multiplying.tune and Multiplying.signed is None
    assert shown["search"].default == multiplier_search.SEARCH and multiplier_search.SEARCH in SEARCHES
    assert shown["population"].show_default == f"the search's own, {SEARCHES['nsga2'].Settings().population} of nsga2"
    assert shown["seed"].show_default == str(runs.Specification.seed)
    assert shown["folder"].show_default == options.SEARCHES
    assert shown["budget"].default == multiplier_search.BUDGET == 20 * SEARCHES["nsga2"].Settings().population


# --- list -------------------------------------------------------------------------------------------------------------------------


def test_the_list_is_the_table_of_metrics():
    names = ["exact", "drum4", "trunc6", "mitchell", "or4"]
    listed = json.loads(called("list", "--only", ",".join(names), "--json").stdout)
    expected = metrics.metrics(tables.generated().only(names)).sort_values(["power_mw", "name"]).drop(columns="power_source")
    assert listed["power_source"] == "model"
    got = pd.DataFrame(listed["multipliers"])
    for column in expected:
        if column in ("area_um2", "delay_ns"):  # which generated ones do not have
            assert got[column].isna().all()
        else:
            assert got[column].tolist() == expected[column].tolist(), column


@pytest.mark.parametrize(
    ("sort", "first"), [("power", "trunc6"), ("mae", "exact"), ("mean_error", "exact"), ("name", "drum4"), ("rank", "exact")]
)
def test_a_list_is_sorted_as_asked(sort, first):
    lines = called("list", *ONLY, "--library", "generated", "--sort", sort).stdout.splitlines()
    assert lines[2].split()[0] == first and len(lines) == 6
    assert lines[-1].startswith("3 multipliers; power from a model of gates") and "in % of exact" in lines[-1]


def test_a_list_may_leave_out_the_exact_multiplier():
    (row,) = json.loads(called("list", "--only", "trunc6", "--json").stdout)["multipliers"]
    assert 0 < row["power_pct"] < 100


def test_a_folder_is_listed_with_its_measured_power(tmp_path, monkeypatch):
    for name, low in (("A", 0), ("B", 15)):
        (np.outer(np.arange(256), np.arange(256)) & ~low).astype("<u2").tofile(tmp_path / f"mul8u_{name}.bin")
    (tmp_path / "circuits.csv").write_text("id,power_mw\nA,0.4\nB,0.1\n")
    assert "synthesis for a 45 nm process (pdk45), in % of A" in called("list", "--library", tmp_path).stdout
    monkeypatch.setenv(tables.VARIABLE, str(tmp_path))
    listed = json.loads(called("list", "--json").stdout)
    assert listed["power_source"] == "pdk45" and [row["power_pct"] for row in listed["multipliers"]] == [25, 100]


# --- evaluate ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["--tune"], ["--affine"]])
def test_an_assignment_is_measured_as_the_network_with_these_layers(words):
    result = json.loads(called("evaluate", *DIGITS[:1], "trunc6/drum4/exact", *DIGITS[1:], *ONLY, *words, "--json").stdout)
    given = {
        "tune": "--tune" in words,
        "signed": "--affine" not in words,
    }  # generated designs are signed unless one says otherwise
    base = method()
    made = Multipliers(models.load("lenet5_relu"), base.library, data.load("digits.npz", "train").images, **given)
    names = made.library.names
    plan = [names.index(name) + 1 for name in ("trunc6", "drum4", "exact")]
    assert result["assignment"] == ["trunc6", "drum4", "exact"] and result["layers"] == made.names
    assert result["energy_pct"] == pytest.approx(100 * made.energy(np.array(plan)))
    network, whole = models.load("lenet5_relu"), models.load("lenet5_relu")
    contract.apply(made, network, plan)
    contract.apply(made, whole, [names.index("exact") + 1] * 3)
    for row in result["accuracy"]:
        split = data.load("digits.npz", row["split"])
        mine, exact, float_ = (training.accuracy(each, split, "cpu") for each in (network, whole, models.load("lenet5_relu")))
        assert row["images"] == 100 and row["accuracy"] == mine
        assert row["standard_error"] == pytest.approx(math.sqrt(mine * (1 - mine) / 100))
        assert row["loss_pp"] == pytest.approx(100 * (float_ - mine), abs=1e-9)
        assert row["loss_against_exact_pp"] == pytest.approx(100 * (exact - mine), abs=1e-9)


def test_an_assignment_is_told_layer_by_layer():
    words = [*DIGITS[1:], *ONLY, "--images", 40]
    printed = called("evaluate", "lenet5_relu", "trunc6, drum4,exact", *words).stdout
    assert re.search(r"feature_extractor\.3 +240000 +59\.172 +drum4 ", printed)
    assert re.search(r"\nenergy: 70\.13 % of exact in all layers; power from a model", printed)
    assert re.search(r"\ntest: [\d.]+ ± [\d.]+ % of 40 images, loss -?[\d.]+ pp against the float network, -?[\d.]+ pp", printed)
    each = called("evaluate", "lenet5_relu", "each:exact", *words).stdout
    assert "energy: 100.00 %" in each and each.count("0.00 pp against exact in all layers") == 2


def test_a_network_of_ones_own_is_measured_on_its_data():
    result = json.loads(
        called("evaluate", "cli_circuits_net:small", "each:drum4", "--data", "digits.npz", *ONLY, "--json").stdout
    )
    assert result["layers"] == ["0"] and result["assignment"] == ["drum4"]
    assert [row["images"] for row in result["accuracy"]] == [100, 100]


# --- search -----------------------------------------------------------------------------------------------------------------------


def test_a_search_prints_the_front_that_validation_chose(searched):
    printed, records = searched
    points = records.assign(energy=100 / records["energy_rate"]).sort_values(["energy", "validation_loss_pp"])
    front = points[points["validation_loss_pp"] < points["validation_loss_pp"].cummin().shift(fill_value=np.inf)]
    rows = [line.split() for line in printed.split("least energy")[0].splitlines()[2:]]
    assert [row[0] for row in rows] == [f"{each:.3f}" for each in front["energy"]][::-1]
    assert [row[1] for row in rows] == [f"{each:.3f}" for each in front["validation_loss_pp"]][::-1]
    assert [row[3] for row in rows] == [f"{each:.3f}" for each in front["test_loss_pp"]][::-1]
    names = method().library.names
    assert [row[5] for row in rows] == ["/".join(names[k - 1] for k in plan) for plan in front["plan"]][::-1]
    best = front[front["validation_loss_pp"] <= 3].iloc[0]
    expected = f"energy {best['energy']:.2f} %, loss {best['validation_loss_pp']:.2f} ± "
    assert expected in printed.split("least energy within 3 pp on validation: ")[1].splitlines()[0]
    different = records["plan"].map(tuple).nunique()
    assert f"15 of 15 evaluations, {different} different of 27 assignments; 3 of one multiplier" in printed
    assert "100 of validation and 100 of test; validation chose, test only reports" in printed


def test_a_search_prints_the_best_single_multiplier_beside_it(searched):
    printed, _ = searched
    made, images = method(), data.load("digits.npz", "validation")
    losses = {}
    for number, name in enumerate(made.library.names, 1):
        network = models.load("lenet5_relu")
        contract.apply(made, network, [number] * 3)
        whole = training.accuracy(models.load("lenet5_relu"), images, "cpu")
        losses[name] = 100 * (whole - training.accuracy(network, images, "cpu"))
    best = next(name for name, loss in losses.items() if loss <= 3)  # they stand by ascending power
    energy = 100 * made.library.power_mw[made.library.names.index(best)] / made.library.power_mw[made.library.exact]
    line = f"least energy of one multiplier within 3 pp: {best} in all layers, energy {energy:.2f} %, loss {losses[best]:.2f} ± "
    assert line in printed
    assert f"exact multipliers: exact in all layers, energy 100.00 %, loss {losses['exact']:.2f} ± " in printed


def test_a_search_draws_what_it_evaluated(searched, home):
    assert "plot: plot.png" in searched[0] and (home / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_complete_search_is_only_read(searched, monkeypatch):
    monkeypatch.setattr(runner, "evaluator", None)
    again = called(*SEARCH, "--folder", "kept")
    assert "the search with seed 0 is complete and only read" in again.stderr
    assert again.stdout == searched[0].replace("plot: plot.png\n", "")


def test_assignments_are_no_plans_to_compress_from(searched):
    result = CliRunner().invoke(app, ["compress", "--from", "kept", "-o", "x.weightlab"])
    assert result.exit_code == 1
    assert result.stdout.endswith("kept holds only searches for multipliers, whose assignments are no plans of clusters\n")


def test_a_search_that_was_stopped_goes_on(searched, tmp_path, monkeypatch):
    asked = []

    def interrupted(self, specs):
        asked.extend(specs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runner.Runner, "run_all", interrupted)
        told = called(*SEARCH, "--folder", tmp_path, code=130).stderr
    assert told.endswith("interrupted: complete results are kept; the same command resumes from the last checkpoints\n")
    answers = iter([False, True])
    with pytest.raises(loop.Stopped):
        runner.Runner(tmp_path, workers=1, threads=1, progress=False).run(asked[0], stop=lambda: next(answers))
    again = called(*SEARCH, "--folder", tmp_path)
    assert re.match(r"the search with seed 0 goes on after (5|10) of 15 evaluations\n", again.stderr)
    assert again.stdout.split("kept in")[0] == searched[0].split("kept in")[0]


def test_other_searches_aim_at_a_target(tmp_path):
    words = ["--search", "genetic", "--target", "1,1.5", "--runs", "2", "--set", "mutation=0.3", "--order", "alphabetical"]
    told = called(*SEARCH[:-1], "-99", *words, "--folder", tmp_path)
    assert "least energy within -99 pp on validation: none evaluated loses so little" in told.stdout
    records = runs.read(tmp_path)
    assert sorted(records["seed"].unique()) == [0, 1] and f"{len(records)} of 30 evaluations" in told.stdout
    assert (records["search"] == "genetic").all() and (records["target_rate_start"] == 1.5).all()


# --- wrong input ------------------------------------------------------------------------------------------------------------------

LAYERS = "3 convolutions: feature_extractor.0, feature_extractor.3, feature_extractor.6"
FEW = ["--images", "20", *ONLY]
WRONG = [
    (["list", "--sort", "size"], "unknown order of the table 'size'; allowed: power, name"),
    (["list", "--only", "drum9"], "unknown multiplier 'drum9'; allowed: "),
    (["list", "--library", "empty"], "empty holds no table mul8u_<id>.bin of multipliers"),
    (["list", "--library", "nowhere"], "nowhere is no folder with tables"),
    (["evaluate", "lenet6", "each:exact"], "unknown network 'lenet6'; allowed: lenet5_tanh"),
    (["evaluate", *DIGITS[:1], "each:drum9", *DIGITS[1:], *FEW], f"unknown multiplier 'drum9' in an assignment to {LAYERS}"),
    (["evaluate", *DIGITS[:1], "each:drum5", *DIGITS[1:], *FEW], "allowed: trunc6, drum4, exact"),
    (["evaluate", *DIGITS[:1], "drum4/exact", *DIGITS[1:], *FEW], f"a multiplier for each of the {LAYERS}; or each:NAME; got 2"),
    (["evaluate", "lenet5_relu", "each:exact", "--only", "drum4"], "there is none among drum4"),
    (["evaluate", "lenet5_relu", "each:exact", "--only", ","], "a library must hold at least one multiplier, got none"),
    (
        ["evaluate", "lenet5_relu", "each:exact", "--data", "untrained.npz"],
        "ranges of activations come from training images, train_",
    ),
    (
        ["evaluate", "cli_circuits_net:flat", "each:exact"],
        "network cli_circuits_net:flat is your own, so give its images with --data",
    ),
    (["evaluate", "cli_circuits_net:flat", "each:exact", "--data", "digits.npz"], "Sequential has no plain 2-d convolution"),
    (["evaluate", "lenet5_relu", "each:exact", "--device", "tpu", *FEW], "unknown device 'tpu'; allowed: auto"),
    (["search", "lenet6"], "unknown network 'lenet6'"),
    (["search", "cli_circuits_net:flat", "--data", "digits.npz"], "Sequential has no plain 2-d convolution"),
    (["search", "lenet5_relu", "--data", "untrained.npz"], "has no split 'train': it is cut into validation and test halves"),
    (["search", *DIGITS, "--search", "annealing"], "unknown search 'annealing'; allowed: random"),
    (["search", *DIGITS, "--set", "temperature=1"], "unknown setting of nsga2 'temperature'"),
    (["search", *DIGITS, "--budget", "3"], "budget must be at least the 40 evaluations of the first generation of nsga2, got 3"),
    (["search", *DIGITS, "--order", "size"], "unknown order of multipliers 'size'; allowed: power, alphabetical"),
    (["search", *DIGITS, "--library", "empty"], "empty holds no table"),
    (["search", *DIGITS, "--within", "nan"], "within must be a finite number of percentage points, got nan"),
    (["search", *DIGITS, "--target", "1"], "target must be an accuracy (fraction) and a rate"),
    (["search", *DIGITS, "--runs", "0"], "runs must be a whole number of at least 1"),
    (["search", *DIGITS, "--workers", "0"], "workers must be"),
    (["search", *DIGITS, "--plot", "a.gif"], "unknown kind of file '.gif'; allowed: .png"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_wrong_input_gets_one_sentence_and_leaves_nothing(home, words, message):
    before = sorted(home.rglob("*"))
    where = ["--folder", "never"] if words[0] == "search" else []
    printed = called(*words, *where, code=1).stdout
    assert printed.startswith("error: ") and printed.count("\n") == 1 and message in printed
    assert [file for file in sorted(home.rglob("*")) if file not in before and "__pycache__" not in file.parts] == []


def test_errors_of_the_inner_commands_go_to_stderr_alone():
    command = [*python(), "-m", "weightlab", "multipliers", "list", "--sort", "size"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: unknown order of the table 'size'") and done.stderr.count("\n") == 1
