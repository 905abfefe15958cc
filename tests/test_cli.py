"""The command `weightlab`: a chain from scan to export on a network here and on a user's own, and what every command refuses."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
import yaml
from damages import flip
from safetensors.torch import load_file, save_file
from typer.main import get_command
from typer.testing import CliRunner
from warm_python import python

from weightlab import data, models, packing, paths, runs, sharing, storage, training, tuning
from weightlab.cli import app, choices, options, scan
from weightlab.runs.specifications import Setting, Specification
from weightlab.search.fitness import TargetRule

MODULE = '''
import torch
from torch import nn


class Small(nn.Module):
    """Defined in another order than it is run in."""

    def __init__(self):
        super().__init__()
        self.head, self.first = nn.Linear(400, 10), nn.Conv2d(1, 4, 5, 3)

    def forward(self, images):
        return self.head(torch.relu(self.first(images)).flatten(1))
'''
LENET = ["lenet5_tanh", "--images", "200"]
SPACE = ["--k", "1:8", "--threshold", "0.9"]
OWN = ["cli_net:Small", "--weights", "small.safetensors", "--data", "digits.npz"]
COMMANDS = get_command(app).commands


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """A working directory of a user's own, with a network, its weights and data."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "cli_net.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", sys.path.copy())
        digits = data.load("mnist", "test").first(400)
        np.savez("digits.npz", images=digits.images.numpy(), labels=digits.labels.numpy())
        model = models.build("cli_net:Small", seed=2)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(20):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(digits.images.float() / 255), digits.labels).backward()
            optimizer.step()
        save_file(model.state_dict(), "small.safetensors")
        yield folder


def called(*words, code=0):
    """The result of a command in this process."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def refused(*words):
    """The one sentence with which a command refuses."""
    output = called(*words, code=1).stdout
    assert output.startswith("error: ") and output.count("\n") == 1, output
    assert named(output) - named(" ".join(map(str, words))) <= spoken(words[0]), "options that the command does not have"
    return output


def named(text):
    """The options that a text names."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))


def spoken(command):
    """The options that a command has."""
    return {name for parameter in COMMANDS[command].params for name in (*parameter.opts, *parameter.secondary_opts)}


def process(*words, code=0, **environment):
    """stdout and stderr of a command in a process of its own."""
    command = [*python(), "-m", "weightlab", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def searched(home):
    """The folder of a search on LeNet-5, its configuration file, and what it printed."""
    words = [*LENET, *SPACE, "--target", "0.97,12", "--budget", 60, "--folder", "lenet", "--save-config", "lenet.yaml"]
    printed = called("search", *words, "--threads", 1, "--plot", "plot.png").stdout
    (specification,) = Path("lenet").glob("*/specification.json")
    return specification.parent, home / "lenet.yaml", printed


@pytest.fixture(scope="module")
def packed(searched):
    """The file of that search's best plan, tuned."""
    called("tune", "--from", "lenet", "--focuses", "0,2", "--folder", "tuned", "--save", "plan.json")
    called("compress", "--plan", "plan.json", "--images", 200, "-o", "lenet.weightlab")
    return Path("lenet.weightlab")


# --- help and usage -------------------------------------------------------------------------------------------------------------


def test_help_needs_nothing_that_is_slow_to_import():
    code = "import sys, weightlab.cli as cli; print({'torch', 'numpy', 'pandas', 'rich'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
    printed, _ = process("--help")
    assert all(f"  {name} " in printed for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_explained_in_one_sentence(name):
    assert f"Usage: weightlab {name}" in called(name, "--help").stdout
    for parameter in COMMANDS[name].params:
        assert parameter.name == "help" or (parameter.help.endswith(".") and ". " not in parameter.help), parameter.name
        assert named(parameter.help or "") <= spoken(name), parameter.name


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if "data" in {each.name for each in command.params}])
def test_help_says_what_data_of_ones_own_look_like(name):
    printed = " ".join(called(name, "--help").stdout.split())
    for part in (
        "images, uint8 (n, channels, height, width)",
        "labels, integers (n,)",
        "validation_images",
        "CLASS/PICTURE",
        "value/255",
    ):
        assert part in printed


def test_help_of_run_says_what_records_are():
    """Columns, an example, where results go and what a relative path means."""
    text = " ".join(called("run", "--help").stdout.split())
    for word in (
        "-p records=FILE",
        "group (text), rate and loss",
        "docs/points.csv",
        "working directory",
        "outputs/<profile>/given/",
    ):
        assert word in text
    named = set(re.findall(r"docs/\w+\.\w+", text))
    assert named == {"docs/points.csv", "docs/points.md"} and all((paths.root() / file).exists() for file in named)


def test_defaults_that_help_shows_are_those_of_the_library():
    shown = {parameter.name: parameter.show_default for parameter in COMMANDS["search"].params}
    setting = Setting("lenet5_tanh")
    for option, name in choices.NAMES.items():
        if option not in ("network", "weights", "data", "images", "whole_net", "k"):
            assert shown[option] == getattr(setting, name)
    assert options.ks(shown["k"]) == {"k_max": setting.k_max} and shown["whole_net"] == "layer-wise" and not setting.whole_net
    assert shown["threshold"] == choices.threshold(None) == "-1pp" and Specification.threshold == 0.97
    assert shown["uniform_start"] == "uniform-start" and not Specification.uniform_start  # nor do the notebooks ask for it
    for option in ("search", "budget", "seed"):
        assert shown[option] == str(getattr(Specification, option))
    rule = TargetRule(*options.pair("target", shown["target"]))
    assert shown["target_form"] == rule.form
    assert options.pair("limit", shown["target_limit"]) == (rule.limit_accuracy, rule.limit_rate)
    assert options.pair("offset", shown["target_offset"]) == (rule.offset_accuracy, rule.offset_rate)
    tune = {parameter.name: parameter.show_default for parameter in COMMANDS["tune"].params}
    assert float(tune["spread"]) == tuning.SPREAD
    assert tune["focuses"] == "{:g},{},...,{}".format(*(tuning.FOCUSES[step] for step in (0, 1, -1)))


@pytest.mark.parametrize("words", [["--nothing"], ["prune"], ["compress", "--plan", "6"], ["search", "--seed", "x"], ["inspect"]])
def test_wrong_usage_ends_with_status_2(words):
    assert "Usage: weightlab" in called(*words, code=2).stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1:50", {"k_max": 50}),
        ("1,2,3", {"k_max": 3}),
        ("3:6", {"ks": (3, 4, 5, 6)}),
        ("1:64:21", {"ks": (1, 22, 43, 64)}),
        ("2,4,8,16", {"ks": (2, 4, 8, 16)}),
        ("7", {"ks": (7,)}),
    ],
)
def test_numbers_of_clusters_are_a_range_or_a_list(text, expected):
    assert options.ks(text) == expected


def test_ranges_are_written_in_short():
    assert scan.ranges([1, 2, 3, 5, 8, 9]) == "1-3, 5, 8-9" and scan.ranges([]) == "none"


# --- a network here, from scan to export ----------------------------------------------------------------------------------------


def test_scan_tells_which_k_each_layer_bears(searched):
    printed = called("scan", *LENET, *SPACE, "--folder", "lenet").stdout
    table = runs.Runner(searched[0].parent.absolute(), progress=False).scan(Setting("lenet5_tanh", images=200, k_max=8))
    for name, rows in table[table["validation_accuracy"] >= 0.9].groupby("name"):
        (line,) = [line.split() for line in printed.splitlines() if name in line]
        assert line[2:] == [str(len(rows)), *scan.ranges(rows["k"]).split()]
    baseline = training.accuracy(models.load("lenet5_tanh"), data.load("mnist", "validation").first(200), "cpu")
    assert f"unshared: {100 * baseline:.2f} % of 200 images of validation" in printed


def test_scan_ends_with_an_error_where_a_layer_has_no_k_left(searched):
    result = called("scan", *LENET, "--k", "1:1", "--threshold", "0.9", "--folder", "one", code=1)
    assert "none" in result.stdout and "lower the threshold" in result.stdout


def test_scan_takes_a_margin_below_the_unshared_accuracy_and_by_default_one_percentage_point(searched):
    table = runs.Runner(searched[0].parent.absolute(), progress=False).scan(Setting("lenet5_tanh", images=200, k_max=8))
    baseline = training.accuracy(models.load("lenet5_tanh"), data.load("mnist", "validation").first(200), "cpu")
    for words, margin in (([], "1"), (["--threshold", "-4.5pp"], "4.5")):
        printed = called("scan", *LENET, "--k", "1:8", "--folder", "lenet", *words).stdout
        least = baseline - float(margin) / 100
        assert f"a k is allowed with at least {100 * least:.2f} % (threshold -{margin}pp) on validation" in printed
        for name, rows in table[table["validation_accuracy"] >= least - 1e-9].groupby("name"):
            (line,) = [line.split() for line in printed.splitlines() if name in line]
            assert line[2:] == [str(len(rows)), *scan.ranges(rows["k"]).split()]


@pytest.mark.parametrize("command", [["scan"], ["search", "--budget", "12"]])
def test_a_threshold_above_the_unshared_accuracy_is_refused_before_the_scan(home, tmp_path, command):
    words = [command[0], *OWN, *command[1:], "--k", "1:4", "--threshold", "0.999", "--folder", tmp_path]
    splits = choices.splits("digits.npz", None)
    unshared = training.accuracy(models.load("cli_net:Small", weights="small.safetensors"), splits[0], "cpu")
    assert f"threshold 0.999 is above the accuracy of the unshared network, {unshared:.10g} on" in refused(*words)
    assert not list(tmp_path.glob("*scan-*.parquet"))


def test_search_prints_the_acceptable_plans_of_highest_storage_rate(searched):
    folder, _, printed = searched
    records = pd.read_parquet(folder / "evaluations.parquet")
    best = records[records["loss_pp"] < 1].sort_values("storage_rate").iloc[-1]
    line = printed.splitlines()[2].split()
    assert line[0] == ",".join(map(str, best["plan"])) and float(line[1]) == round(best["storage_rate"], 3)
    assert [float(word) for word in line[3:]] == [round(best[f"{split}_loss_pp"], 3) for split in ("validation", "test")]
    assert str(folder) in printed and Path("plot.png").read_bytes().startswith(b"\x89PNG")


BEST_UNIFORM = re.compile(
    r"best plan with one k in all layers: k = (\d+), storage rate ([\d.]+), loss (.*) pp on validation, (.*) pp on test"
)


def test_search_prints_the_best_uniform_plan_beside_the_best_found(home, tmp_path):
    words = ["search", *OWN, "--k", "2:64", "--threshold", "none", "--search", "random", "--budget", 40, "--folder", tmp_path]
    told = BEST_UNIFORM.search(called(*words).stdout)
    records = runs.read(tmp_path)
    same = records[records["plan"].map(lambda plan: len(set(plan)) == 1)]
    assert records["plan"].head(5).map(list).tolist() == [[k, k] for k in (64, 48, 33, 18, 2)] and len(records) == 40
    best = same[same["loss_pp"] < 1].sort_values("storage_rate").iloc[-1]
    shown = ["storage_rate", "validation_loss_pp", "test_loss_pp"]
    assert [int(told[1]), *map(float, told.groups()[1:])] == [best["plan"][0], *best[shown].astype(float).round(3)]


def test_search_prints_which_k_a_uniform_plan_has_where_lists_have_holes(searched):
    folder, _, printed = searched
    records = pd.read_parquet(folder / "evaluations.parquet")
    best = records[records["uniform"] & (records["loss_pp"] < 1)].sort_values("storage_rate").iloc[-1]
    least, most = min(best["plan"]), max(best["plan"])
    k = f"k = {least}" if least == most else f"k from {least} to {most}, in each layer the nearest that is allowed"
    assert f"best plan with one k in all layers: {k}, storage rate {best['storage_rate']:.3f}, " in printed


def test_search_says_where_no_uniform_plan_was_measured_or_loses_little(home, tmp_path):
    words = ["search", *OWN, "--threshold", "none", "--search", "random", "--budget", 4, "--set", "batch=4", "--folder", tmp_path]
    assert "best plan with one k in all layers: none was measured" in called(*words, "--k", "1:50", "--no-uniform-start").stdout
    assert "best plan with one k in all layers: none of the 4 measured loses so little" in called(*words, "--k", "1:1").stdout
    assert "one k in all layers" not in called(*words, "--k", "4:64", "--whole-net").stdout


@pytest.mark.parametrize("said", [[], ["--no-uniform-start"]])
def test_a_saved_configuration_keeps_the_uniform_start(home, tmp_path, said):
    words = ["search", *OWN, "--k", "3:16", "--threshold", "none", *said, "--budget", 12, "--folder", tmp_path / "searches"]
    called(*words, "--save-config", tmp_path / "saved.yaml")
    (file,) = (tmp_path / "searches").glob("*/specification.json")
    assert json.loads(file.read_text()).get("uniform_start", False) == (not said)
    assert yaml.safe_load((tmp_path / "saved.yaml").read_text())["uniform-start"] == (not said)
    assert "is complete and only read" in called("search", "--config", tmp_path / "saved.yaml").stderr


def test_a_saved_configuration_is_the_same_search_and_is_only_read(searched):
    folder, config, printed = searched
    before = sorted(folder.parent.glob("*"))
    result = called("search", "--config", config)
    assert "seed 0 is complete and only read" in result.stderr
    assert result.stdout.splitlines()[:7] == printed.splitlines()[:7] and sorted(folder.parent.glob("*")) == before


def test_options_go_before_a_configuration_file(searched, tmp_path):
    folder, config, _ = searched
    config = shutil.copy(config, tmp_path)
    words = ["--config", config, "--layer-wise", "--search", "random", "--population", 5, "--iterations", 2, "--seed", 3]
    called("search", *words, "--folder", tmp_path / "other", "--save-config", tmp_path / "other.yaml")
    (file,) = (tmp_path / "other").glob("*/specification.json")
    told, before = (json.loads(each.read_text()) for each in (file, folder / "specification.json"))
    changed = {name for name in told if told[name] != before.get(name)}
    assert changed == {"search", "settings", "budget", "seed"}
    assert told["settings"] == {"batch": 5} and told["budget"] == 10 and told["seed"] == 3
    assert yaml.safe_load((tmp_path / "other.yaml").read_text())["set"] == ["batch=5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temperature: 3", "unknown entry of .* 'temperature'; allowed: network, .*, target-limit"),
        ("plot: x.png", "unknown entry"),
        ("- 3", "must hold 'name: value' lines"),
        ("k: {a: 3}", "k in .* must be a value or a list of values"),
        ("a: [", "is not valid YAML"),
        ("budget: 12\nbudget: 40", "found duplicate key"),
    ],
)
def test_a_wrong_configuration_file_is_refused(tmp_path, text, message):
    (tmp_path / "wrong.yaml").write_text(text)
    assert re.search(message, refused("search", "--config", tmp_path / "wrong.yaml"))


@pytest.mark.parametrize("said, kept", [([], "-1pp"), (["--threshold", "-.5pp"], "-0.5pp"), (["--threshold", "none"], None)])
def test_a_saved_configuration_keeps_the_threshold(home, tmp_path, said, kept):
    words = ["search", *OWN, "--k", "3:16", *said, "--search", "random", "--budget", 20, "--folder", tmp_path / "searches"]
    called(*words, "--save-config", tmp_path / "saved.yaml")
    (file,) = (tmp_path / "searches").glob("*/specification.json")
    assert json.loads(file.read_text())["threshold"] == kept
    assert yaml.safe_load((tmp_path / "saved.yaml").read_text())["threshold"] == (kept or "none")
    assert "is complete and only read" in called("search", "--config", tmp_path / "saved.yaml").stderr
    (row,) = json.loads(called("status", tmp_path / "searches", "--json").stdout)
    assert row["threshold"] == str(kept)


def test_a_configuration_written_by_hand_may_hold_ranges_and_lists(tmp_path):
    """YAML itself would read 1:50 as 110, a number to the base of 60."""
    for number, (k, expected) in enumerate([("1:50", {"k_max": 50, "ks": None}), ("[2, 4]", {"k_max": 4, "ks": [2, 4]})]):
        (tmp_path / "hand.yaml").write_text(f"network: lenet5_tanh\nimages: 50\nthreshold: none\nbudget: 12\nk: {k}\n")
        called("search", "--config", tmp_path / "hand.yaml", "--folder", tmp_path / str(number))
        (file,) = (tmp_path / str(number)).glob("*/specification.json")
        assert expected.items() <= ({"ks": None} | json.loads(file.read_text())).items()


def test_a_plan_of_tune_is_what_compress_writes(packed):
    plan, file = json.loads(Path("plan.json").read_text()), packing.read(packed)
    model = models.load("lenet5_tanh")
    names = sharing.codebooks(model, plan["plan"]).names
    lifts = {name: sharing.Lift(focus, plan["spread"]) for name, focus in zip(names, plan["focuses"], strict=True)}
    shared, _ = sharing.share(model, plan["plan"], lifts=lifts)
    assert all(torch.equal(value, shared.state_dict()[name]) for name, value in file.state_dict().items())
    for each in file.details.accuracy:
        images = data.load("mnist", each.split.split()[1]).first(200)
        assert each.images == 200 and each.split.startswith("mnist ")
        assert each.packed == training.accuracy(shared, images, "cpu") and each.original == training.accuracy(
            model, images, "cpu"
        )


def test_tune_prints_losses_before_and_after(packed):
    printed = called("tune", "--from", "lenet", "--focuses", "0,2", "--folder", "tuned").stdout
    plan = json.loads(Path("plan.json").read_text())
    evaluator = runs.evaluator(Setting("lenet5_tanh", images=200), threads=1)
    row = tuning.compare(evaluator, plan["plan"], plan["focuses"], plan["spread"])
    for split in ("validation", "test"):
        (line,) = [line.split() for line in printed.splitlines() if line.split()[:1] == [split]]
        assert line[1:] == [f"{row[f'{split}_loss_pp_{when}']:.3f}" for when in ("before", "after")]
    assert refused("tune", "--plan", "plan.json") == f"error: plan.json is already tuned; give its plan {plan['plan']} " + (
        "as numbers to tune it differently\n"
    )


def test_inspect_tells_the_same_as_json_and_as_a_table(packed):
    told, file = json.loads(called("inspect", packed, "--json").stdout), packing.read(packed)
    assert told["file_bytes"] == packed.stat().st_size and told["original_bytes"] == 4 * 61_706
    assert {"storage_rate", "file_rate", "header_bytes", "predicted_bytes"} <= told.keys()
    assert told["network"] == "lenet5_tanh" and told["plan"] == file.details.plan and len(told["accuracy"]) == 2
    assert [list(layer) for layer in told["layers"]] == 5 * [list(file.report())]
    assert list(file.report()) == ["layer", "weights", "k", "bits", "coding", "stored_bits", "rate", "bytes", "rms_error"]
    printed = called("inspect", packed).stdout
    assert all(layer["layer"] in printed and f"{layer['rms_error']:.3f}" in printed for layer in told["layers"])
    assert f"storage rate {told['storage_rate']:.3f}" in printed and f"original {told['original_bytes']}" in printed


def test_evaluate_holds_a_file_against_what_it_says(packed):
    told = json.loads(called("evaluate", packed, "--images", 200, "--json").stdout)
    assert told["network"] == "lenet5_tanh"
    for row in told["accuracy"]:
        assert row["accuracy"] == row["file_says"] and row["images"] == 200
    printed = called("evaluate", packed, "--images", 100).stdout  # of which the file says nothing
    assert "mnist test: " in printed and "the file says" not in printed


def test_evaluate_ends_with_an_error_where_the_file_says_something_else(tmp_path):
    wrong = [{"split": "mnist test", "images": 200, "original": 0.9, "packed": 0.5}]
    packing.write(tmp_path / "file", models.load("lenet5_tanh"), [9] * 5, network="lenet5_tanh", accuracy=wrong)
    assert "on mnist test, the file says 50.00 %" in called("evaluate", tmp_path / "file", "--images", 200, code=1).stdout


def test_evaluate_measures_a_network(packed):
    (row, _) = json.loads(called("evaluate", *LENET, "--json").stdout)["accuracy"]
    expected = training.accuracy(models.load("lenet5_tanh"), data.load("mnist", "validation").first(200), "cpu")
    assert row == {"split": "mnist validation", "images": 200, "accuracy": expected}


@pytest.mark.parametrize("kind", [".safetensors", ".pt", ".pth", ".bin"])
def test_unpacked_weights_load_into_the_original_network(packed, tmp_path, kind):
    file = tmp_path / f"state{kind}"
    called("unpack", packed, "-o", file)
    state = load_file(file) if kind == ".safetensors" else torch.load(file, weights_only=True)
    model = models.build("lenet5_tanh")
    model.load_state_dict(state)
    expected = packing.read(packed).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_export_gives_the_same_classes(packed, tmp_path):
    printed = called("export", packed, "-o", tmp_path / "lenet.onnx", "--check", 50).stdout
    assert "of 50 images, 0 get another class" in printed
    notes = {each.key: each.value for each in onnx.load(tmp_path / "lenet.onnx").metadata_props}
    assert notes["network"] == "lenet5_tanh" and notes["plan"] == str(packing.read(packed).details.plan)


# --- a network of a user's own, in processes -------------------------------------------------------------------------------------


def test_a_network_of_ones_own_goes_from_scan_to_export(home):
    """Each kind of command that imports the network starts as a process; those between, whose imports are the same, are called."""
    space = ["--k", "1:4", "--threshold", "0.3", "--folder", "own"]
    printed, progress = process("scan", *OWN, *space)
    lines = [line.split()[0] for line in printed.splitlines() if line.split()[:1] in (["first"], ["head"])]
    assert lines == ["first", "head"]  # as it is run
    assert "scan" in progress and "it/s" not in printed
    printed, _ = process("search", *OWN, *space, "--target", "0.6,16", "--search", "random", "--budget", 40)
    assert "digits.npz" not in printed and "kept in" in printed
    called("tune", OWN[0], "--from", "own", "--within", 100, "--focuses", "0,1", "--folder", "own-tuned", "--save", "own.json")
    printed, _ = process("compress", OWN[0], "--plan", "own.json", "-o", "own.packed", "--half-rest", "--no-entropy")
    told = json.loads(called("inspect", "own.packed", "--json").stdout)
    assert f"{told['file_bytes']} bytes" in printed and told["network"] == "cli_net:Small"
    assert [layer["layer"] for layer in told["layers"]] == ["first", "head"] and told["plan"] == [
        layer["k"] for layer in told["layers"]
    ]
    assert {layer["coding"] for layer in told["layers"]} <= {"none", "packed"} and len(told["accuracy"]) == 2
    assert packing.read("own.packed").details.rest == "float16"
    printed, _ = process("evaluate", "own.packed", "--network", "cli_net:Small", "--data", "digits.npz")
    assert printed.count(", which agrees") == 2
    called("unpack", "own.packed", "-o", "own.pt")
    models.load("cli_net:Small", weights="own.pt")
    printed, _ = process("export", "own.packed", "-o", "own.onnx", "--network", "cli_net:Small", "--input", "1,32,32")
    assert onnx.load("own.onnx").graph.input[0].type.tensor_type.shape.dim[2].dim_value == 32
    assert called("status", "own").stdout.startswith("1 of 1 searches complete")


def test_without_a_plan_a_network_becomes_as_small_as_a_loss_allows(home, tmp_path):
    """Its own images calibrate it, as it has none for training; the file is what all other commands read."""
    result = called("compress", *OWN, "--within", 5, "-o", tmp_path / "small")
    assert "calibrated on validation images, without their classes" in result.stderr
    trials = re.findall(r"lambda (\S+): (\d+) bytes, loses (\S+) pp", result.stderr)
    least = min(int(size) for _, size, loss in trials if float(loss) < 5)
    assert 2 <= len(trials) <= 12 and "level 1 (calibrated), lambda" in result.stdout
    told = json.loads(called("inspect", tmp_path / "small", "--json").stdout)
    assert least <= told["file_bytes"] <= least + 80, "what was measured is added to the file"
    assert told["method"] == "rate-distortion sharing, level 1 (calibrated)" and told["coded_rate"] >= told["storage_rate"]
    assert 100 * (told["accuracy"][0]["original"] - told["accuracy"][0]["packed"]) < 5
    evaluated = called("evaluate", tmp_path / "small", "--network", "cli_net:Small", "--data", "digits.npz").stdout
    assert evaluated.count(", which agrees") == 2
    called("unpack", tmp_path / "small", "-o", tmp_path / "small.pt")
    models.load("cli_net:Small", weights=tmp_path / "small.pt")
    called("export", tmp_path / "small", "-o", tmp_path / "small.onnx", "--network", "cli_net:Small", "--input", "1,32,32")
    called("compress", *OWN[:3], "--no-data", "--input", "1,32,32", "--lambda", 0.1, "-o", tmp_path / "blind")
    assert "level 2 needs training images with their classes" in refused("compress", *OWN, "--level", 2, "-o", tmp_path / "tuned")
    blind = json.loads(called("inspect", tmp_path / "blind", "--json").stdout)
    assert blind["accuracy"] == [] and "level 0 (data-free)" in blind["method"]


def test_the_network_that_a_file_names_is_never_imported(home, tmp_path):
    Path("evil_net.py").write_text("open('imported', 'w')\nfrom cli_net import Small\n")
    packing.write(tmp_path / "file", models.build("cli_net:Small"), [3, 3], network="evil_net:Small")
    for words in (
        ["evaluate", tmp_path / "file", "--data", "digits.npz"],
        ["export", tmp_path / "file", "-o", tmp_path / "a.onnx"],
    ):
        message = refused(*words)
        assert (
            "names network 'evil_net:Small', and no module is imported because a file names it; give the network with --network"
            in message
        )
    called("inspect", tmp_path / "file")
    called("unpack", tmp_path / "file", "-o", tmp_path / "state.pt")
    assert not Path("imported").exists()


def test_the_network_that_a_plan_or_a_search_names_is_imported_only_if_the_command_names_it(home, tmp_path):
    """Plan files and folders of searches are passed on, as packed files are."""
    Path("other_net.py").write_text("open('imported', 'w')\nfrom cli_net import Small\n")
    space = ["--k", "1:3", "--threshold", "none", "--search", "random", "--budget", 20, "--folder", tmp_path / "searches"]
    called("search", *OWN, *space)
    (description,) = (tmp_path / "searches").glob("*/specification.json")
    source, plan = ["--from", tmp_path / "searches", "--within", 100], ["--plan", tmp_path / "plan.json"]
    called("tune", OWN[0], *source, "--focuses", "0", "--folder", tmp_path / "tuned", "--save", plan[1])
    for file in (description, plan[1]):
        file.write_text(file.read_text().replace("cli_net:Small", "other_net:Small"))
    for words in (["compress", *plan], ["compress", *source], ["tune", *source]):
        words += ["-o", tmp_path / "file"] if words[0] == "compress" else []
        message = refused(*words)
        assert (
            "names network 'other_net:Small', and no module is imported because a file names it; name the network in the"
            in message
        )
        assert re.search(
            "plan for network other_net|no search in .* has network cli_net", refused(*words[:1], OWN[0], *words[1:])
        )
    assert not Path("imported").exists()
    called("compress", "other_net:Small", *plan, "-o", tmp_path / "file")
    called("compress", "other_net:Small", *source, "-o", tmp_path / "file", "--force")
    assert Path("imported").exists() and packing.read(tmp_path / "file").details.network == "other_net:Small"


def test_a_file_may_have_a_colon_in_its_name(packed, tmp_path, monkeypatch):
    shutil.copy(packed, tmp_path / "lenet:v2.packed")
    monkeypatch.chdir(tmp_path)
    assert "of 50 images" in called("evaluate", "lenet:v2.packed", "--images", 50).stdout


def test_a_file_may_unpack_to_more_if_the_command_says_so(packed, tmp_path):
    for words in (
        ["inspect"],
        ["evaluate", "--images", 50],
        ["unpack", "-o", tmp_path / "a.pt"],
        ["export", "-o", tmp_path / "a.onnx"],
    ):
        assert "and 1000 are allowed" in refused(*words[:1], packed, *words[1:], "--limit-bytes", 1000)
        called(*words[:1], packed, *words[1:], "--limit-bytes", 1_000_000)


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path):
    model = torch.nn.Sequential()
    model.add_module("\x1b[2Jlayer", torch.nn.Linear(40, 30))
    accuracy = [{"split": "\x1b[2Jsplit", "images": 9, "original": 0.9, "packed": 0.8}]
    packing.write(tmp_path / "file", model, [3], network="\x1b[2Jname", accuracy=accuracy)
    printed = called("inspect", tmp_path / "file").stdout
    assert "\x1b" not in printed and all(f"[2J{name}" in printed for name in ("layer", "split", "name"))
    assert "\x1b" not in called("inspect", tmp_path / "file", "--json").stdout


def test_control_characters_in_an_error_or_a_warning_do_not_reach_the_terminal(packed, tmp_path):
    plan, file = json.loads(Path("plan.json").read_text()), tmp_path / "plan.json"
    file.write_text(json.dumps(plan | {"format": "\x1b[2Jformat\nerror: none"}))
    message = refused("compress", "--plan", file, "-o", tmp_path / "file", "--format", "float16")
    assert "\x1b" not in message and "[2Jformat error: none" in message
    (searched,) = Path("lenet").glob("*/specification.json")
    shutil.copytree(searched.parent, tmp_path / "s" / "a")
    told = json.loads(searched.read_text()) | {"network": "\x1b[2Jnet", "search": "\x1b[2Jsearch"}
    (tmp_path / "s" / "a" / "specification.json").write_text(json.dumps(told))
    assert "\x1b" not in called("status", tmp_path / "s").stdout


def test_without_data_the_shape_of_an_image_finds_the_layers(home, tmp_path):
    words = ["compress", *OWN[:3], "--plan", "2,7", "--no-data", "-o", tmp_path / "file"]
    assert "give the shape of an image of cli_net:Small with --input" in refused(*words)
    called(*words, "--input", "1,32,32")
    file = packing.read(tmp_path / "file")
    assert file.report()["layer"].tolist() == ["first", "head"] and file.details.plan == [2, 7] and file.details.accuracy == []
    called("compress", "lenet5_tanh", "--plan", "6", "--no-data", "-o", tmp_path / "lenet")
    assert packing.read(tmp_path / "lenet").details.plan == 6


@pytest.mark.parametrize(
    ("text", "plan", "spelled"),
    [
        ("3,5,8,2,4", [3, 5, 8, 2, 4], "3,5,8,2,4"),
        ("64x50", [64] * 50, "64x50"),
        ("8,64x2,64,16,16", [8, 64, 64, 64, 16, 16], "8,64x3,16,16"),
        ("6,", [6], "6"),
        ("64x1", [64], "64"),
    ],
)
def test_a_plan_of_many_layers_is_written_short(text, plan, spelled):
    assert options.plan(text) == plan
    assert options.spelled(plan) == spelled and options.plan(spelled) == plan


@pytest.mark.parametrize("text", ["", "x50", "64x", "64x0", "3,,5", "64x5x5", "each:64", "1:50", "64*50", "-3"])
def test_other_texts_are_no_plans(text):
    assert options.plan(text) is None


def test_one_k_for_every_layer_is_not_one_codebook_for_the_net(home, tmp_path):
    def compressed(plan, *words):
        result = called("compress", "lenet5_tanh", "--plan", plan, "--images", 50, "-o", tmp_path / "file", "--force", *words)
        return packing.read(tmp_path / "file").details.plan, result.stderr

    assert compressed("each:16") == compressed("16x5") == compressed("16,16,16,16,16") == ([16] * 5, "")
    plan, told = compressed("16")
    assert plan == 16 and told == "plan 16 is one codebook for the whole net; each:16 gives every layer its own\n"
    words = ["--focuses", "0", "--images", 50, "--folder", tmp_path / "tuned", "--save", tmp_path / "plan.json"]
    called("tune", "lenet5_tanh", "--plan", "each:4", *words)
    assert json.loads((tmp_path / "plan.json").read_text())["plan"] == [4] * 5
    assert "a plan needs 5 numbers" in refused("compress", "lenet5_tanh", "--plan", "64x50", "-o", tmp_path / "x")


def test_settings_are_read_as_people_write_them(tmp_path):
    """1e-3 and 012 are numbers to most readers, and were text and 10 to YAML 1.1; they survive being saved as a configuration."""
    words = [*LENET[:1], "--images", 50, "--threshold", "none", "--k", "1:4", "--budget", 12]
    written = [*words, "--set", "mutation=1e-3", "--set", "population=012", "--save-config", tmp_path / "a.yaml"]
    called("search", *written, "--folder", tmp_path / "a")
    called("search", "--config", tmp_path / "a.yaml", "--folder", tmp_path / "b")
    called("search", *words, "--set", "mutation=0.001", "--population", "012", "--folder", tmp_path / "c")
    for name in "abc":
        (file,) = (tmp_path / name).glob("*/specification.json")
        assert {"mutation": 0.001, "population": 12}.items() <= json.loads(file.read_text())["settings"].items()


# --- what a result does not say of itself ---------------------------------------------------------------------------------------

FEW = ["--k", "12,16", "--threshold", "none", "--search", "random", "--set", "batch=4", "--budget", 8, "--threads", 1]


def test_a_loss_on_few_images_is_told_to_say_little(home, tmp_path):
    """Of 60 images one is 1.67 pp, so no plan but one without any loss is within 1 pp."""
    said = "warning: one of 60 images of validation is 1.67 pp, so a loss below 1 pp says little\n"
    assert said in called("search", "lenet5_tanh", "--images", 60, *FEW, "--folder", tmp_path / "a").stderr
    words = ["compress", "--from", tmp_path / "a", "-o", tmp_path / "file", "--force"]
    assert (
        "warning: one of 60 images of validation is 1.67 pp, so a loss below 2 pp says little"
        in called(*words, "--within", 2).stderr
    )
    assert "says little" not in called(*words, "--within", 90).stderr
    assert "says little" not in called("search", "lenet5_tanh", "--images", 200, *FEW, "--folder", tmp_path / "b").stderr
    digits = data.load("mnist", "test").first(80)
    np.savez(tmp_path / "own.npz", images=digits.images.numpy(), labels=digits.labels.numpy())
    told = called("search", *OWN[:3], "--data", tmp_path / "own.npz", *FEW, "--folder", tmp_path / "c").stderr
    assert "warning: one of 40 images of validation is 2.50 pp" in told


def test_a_budget_that_ends_early_says_why(home, tmp_path):
    words = ["search", "lenet5_tanh", "--images", 200, "--k", "1:4", "--threshold", "none", "--threads", 1, "--population", 12]
    told = called(*words, "--budget", 40, "--runs", 2, "--workers", 1, "--folder", tmp_path).stderr
    assert told.count("the search ended after 34 of 40 evaluations; one more generation would end at 45\n") == 1
    assert "the search ended after" not in called(*words, "--budget", 45, "--folder", tmp_path).stderr


def in_terminal(columns, *command):
    """The lines that a process writes to a terminal of that width."""
    ours, its = os.openpty()
    termios.tcsetwinsize(its, (24, columns))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")} | {"TERM": "dumb"}
    running = subprocess.Popen([*python(), *map(str, command)], stdout=its, stderr=subprocess.PIPE, env=environment)
    os.close(its)
    shown = b""
    with contextlib.suppress(OSError):  # which Linux gives when the other end is closed
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    assert running.wait() == 0, running.stderr.read()
    return shown.decode().splitlines()


def test_tables_of_fifty_layers_fit_a_terminal(tmp_path):
    layers = {f"features.{number}.conv.1.0": torch.nn.Conv2d(3, 160, 5) for number in range(50)}
    model = torch.nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name.replace(".", "_"), layer)
    packing.write(tmp_path / "file", model, [64] * 50)
    lines = in_terminal(80, "-m", "weightlab", "inspect", tmp_path / "file")
    end = next(number for number, line in enumerate(lines) if line.startswith("storage rate"))
    assert end >= 50 and max(map(len, lines[:end])) <= 80
    for name in model._modules:
        (line,) = (line for line in lines if line.strip().startswith(f"{name} "))
        assert line.split()[1:3] == ["12000", "64"]


def test_a_plan_of_fifty_layers_follows_the_table_where_that_is_too_narrow():
    code = (
        "import pandas as pd; from weightlab.cli import output\n"
        "plans = [','.join(map(str, range(start, start + 50))) for start in (1, 51)]\n"
        "output.table(pd.DataFrame({'plan': plans, 'storage rate': [4.5, 5.5]}), apart='plan')"
    )
    lines = in_terminal(80, "-c", code)
    plans = [",".join(map(str, range(start, start + 50))) for start in (1, 51)]
    assert lines[-2:] == [f"plan {number}: {plan}" for number, plan in enumerate(plans, 1)]
    assert [line.split() for line in lines[-4:-2]] == [["1", "4.500"], ["2", "5.500"]]
    assert all(plan in " ".join(in_terminal(400, "-c", code)) for plan in plans)


# --- searches that are stopped, several of them, whole nets ---------------------------------------------------------------------


def test_a_search_that_is_interrupted_says_so_and_goes_on(home, tmp_path):
    words = ["search", *OWN, "--k", "1:50", "--threshold", "none", "--search", "random", "--budget", "6000", "--threads", "1"]
    words += ["--folder", str(tmp_path)]
    running = subprocess.Popen([sys.executable, "-m", "weightlab", *words], stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("*/checkpoint.parquet")):
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate()
    assert running.returncode == 130 and "the same command resumes from the last checkpoints" in told and "Traceback" not in told
    assert not list(tmp_path.glob("*/evaluations.parquet"))
    printed, told = process(*words)
    assert "the search with seed 0 goes on after " in told and " of 6000 evaluations" in told and "of 6000 plans" in printed


SLOW = """
import os, time
from cli_net import Small

class Slow(Small):
    def forward(self, images):
        time.sleep(float(os.environ.get("PAUSE_S", 0)))
        return super().forward(images)
"""
SLICED = "from weightlab import cli; from weightlab.runs import loop; loop.SLICE_S = 0.5; cli.main()"  # as if its evaluations took many seconds


@pytest.mark.parametrize("words", [["scan"], ["search", "--search", "random", "--budget", "40"]])
def test_a_slow_command_that_is_killed_goes_on_from_what_it_has_measured(home, tmp_path, words):
    """Inside a scan, and inside the first generation of a search; it ends with the files of one that was never killed."""
    (home / "cli_slow.py").write_text(SLOW)
    words = [words[0], "cli_slow:Slow", *OWN[1:], *words[1:], "--k", "1:12", "--threshold", "none", "--threads", "1", "--folder"]
    kept, made = ("begun-scan-*", "scan-*") if words[0] == "scan" else ("*/checkpoint", "*/evaluations")
    command = [*python(), "-c", SLICED, *words, str(tmp_path / "killed")]
    running = subprocess.Popen(command, env=os.environ | {"PAUSE_S": "0.05"}, stderr=subprocess.PIPE, text=True)
    while not (found := list((tmp_path / "killed").glob(f"{kept}.parquet"))):
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.005)
    running.kill()
    running.communicate()
    assert running.returncode == -signal.SIGKILL and not list((tmp_path / "killed").glob(f"{made}.parquet"))
    assert 0 < len(storage.read_table(found[0])[0]) < (24 if words[0] == "scan" else 20)
    process(*words, tmp_path / "killed")
    called(*words, tmp_path / "undisturbed")
    files = [next((tmp_path / folder).glob(f"{made}.parquet")) for folder in ("killed", "undisturbed")]
    assert files[0].read_bytes() == files[1].read_bytes() and not list((tmp_path / "killed").glob(f"{kept}.parquet"))


def test_only_commands_that_keep_checkpoints_promise_to_go_on_from_them(packed, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(packing, "read", interrupted)
    monkeypatch.setattr(tuning, "tune", interrupted)
    assert called("inspect", packed, code=130).stderr == "interrupted: complete results are kept\n"
    told = called("tune", *LENET, "--plan", "3,5,8,2,4", "--folder", tmp_path, code=130).stderr
    assert told == "interrupted: complete results are kept; the same command resumes from the last checkpoints\n"


def test_a_file_of_any_size_that_unpacks_to_is_written(home, tmp_path, monkeypatch):
    """What a file may unpack to is bounded for readers, who do not know where it is from, and not for the one that writes it."""
    monkeypatch.setattr(packing.packed_format, "UNPACKED_FLOOR", 0)
    monkeypatch.setattr(packing.packed_format, "UNPACKED_TIMES", 1)
    called("compress", "lenet5_tanh", "--plan", "2", "--images", 50, "-o", tmp_path / "file")
    assert "a larger limit can be given (limit_bytes, or --limit-bytes)" in refused("inspect", tmp_path / "file")
    called("inspect", tmp_path / "file", "--limit-bytes", 10**6)


def test_the_best_of_several_searches_is_compressed(home, tmp_path):
    words = ["search", *OWN, "--k", "1:6", "--threshold", "none", "--search", "random", "--budget", 20, "--folder", tmp_path]
    called(*words, "--runs", 2, "--workers", 1)
    called(*words, "--format", "float16")
    file = tmp_path / "best"
    narrow = ["compress", OWN[0], "--from", tmp_path, "--within", 60, "-o", file]
    assert "with different format (float" in (message := refused(*narrow))
    assert message.endswith("; name one in the command (--format), or give the folder of one search\n")
    assert "no search in" in (message := refused(*narrow, "--format", "float8_e4m3")) and "allowed: float" in message
    called(*narrow, "--format", "float32")
    records = runs.read(tmp_path).query("format == 'float32' and loss_pp < 60")
    assert len(records["run"].unique()) == 2
    assert json.loads(called("inspect", file, "--json").stdout)["storage_rate"] == records["storage_rate"].max()
    (stale,) = [each for each in tmp_path.glob("*/specification.json") if '"float16"' in each.read_text()]
    stale.write_text(json.dumps(json.loads(stale.read_text()) | {"format": "float32", "checkpoint": "of other weights"}))
    assert "with different checkpoint (" in (message := refused(*narrow, "--force"))
    assert message.endswith("); give the folder of one search\n"), "no option chooses among these"
    shutil.rmtree(stale.parent)
    assert "none of the 40 plans" in refused(
        "compress", "--from", tmp_path, "--format", "float32", "--within", -100, "-o", tmp_path / "x"
    )


def test_compress_from_takes_only_complete_searches(searched, tmp_path):
    folder, _, _ = searched
    shutil.copytree(folder, tmp_path / "begun")
    (tmp_path / "begun" / "evaluations.parquet").unlink()
    for place in (tmp_path, tmp_path / "begun"):
        assert "is complete; finish one with `weightlab search`" in refused("compress", "--from", place, "-o", tmp_path / "file")
    shutil.copytree(folder, tmp_path / "complete")
    assert "the best of 56" in called("compress", "--from", tmp_path, "--no-data", "-o", tmp_path / "file").stdout
    assert refused("compress", "--from", tmp_path / "none", "-o", tmp_path / "x").endswith("or a folder of such folders\n")


def test_one_codebook_for_the_whole_net_from_search_to_file(tmp_path):
    words = ["search", *LENET, "--whole-net", "--k", "4:20:4", "--threshold", "none", "--search", "random", "--budget", 20]
    called(*words, "--folder", tmp_path)
    called(
        "tune",
        "--from",
        tmp_path,
        "--within",
        50,
        "--focuses",
        "0,1",
        "--folder",
        tmp_path / "t",
        "--save",
        tmp_path / "plan.json",
    )
    called("compress", "--plan", tmp_path / "plan.json", "--no-data", "-o", tmp_path / "file")
    told = json.loads(called("inspect", tmp_path / "file", "--json").stdout)
    assert told["plan"] in (4, 8, 12, 16, 20) and [layer["layer"] for layer in told["layers"]] == ["whole net"]
    assert json.loads((tmp_path / "plan.json").read_text())["plan"] == told["plan"]


@pytest.mark.parametrize(
    ("search", "size", "expected"), [("genetic", 12, 12 + 35 * 11), ("black_hole", 5, 180), ("random", 20, 720)]
)
def test_iterations_are_generations(search, size, expected):
    setting = {"genetic": "population", "black_hole": "particles", "random": "batch"}[search]
    assert choices.evaluations(search, {setting: size}, 36) == expected


def test_a_plot_is_shown_by_the_viewer_of_this_machine(searched, tmp_path, monkeypatch):
    _, config, _ = searched
    viewer = tmp_path / "xdg-open"
    viewer.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/shown\n')
    viewer.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    called("search", "--config", config, "--plot", tmp_path / "plot.png", "--show")
    give_up = time.monotonic() + 60
    while not (tmp_path / "shown").exists() or not (tmp_path / "shown").read_text():
        assert time.monotonic() < give_up, "the viewer was not started"
        time.sleep(0.01)
    assert (tmp_path / "shown").read_text() == f"{tmp_path / 'plot.png'}\n"
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    output = called("search", "--config", config, "--plot", tmp_path / "plot.png", "--show", code=1).stdout
    assert "error: no image viewer could be started" in output


def test_a_warning_is_told_once_by_a_command(home, tmp_path):
    """Of a layer that is not called, every part of a command that looks for layers warns."""
    (home / "cli_spare.py").write_text(
        MODULE + "\n\ndef spare():\n    model = Small()\n    model.spare = nn.Linear(9, 9)\n    return model"
    )
    save_file(models.build("cli_spare:spare").state_dict(), tmp_path / "spare.safetensors")
    words = ["cli_spare:spare", "--weights", tmp_path / "spare.safetensors", *OWN[3:], "--images", 50, "--threads", 1]
    small = ["--k", "1:2", "--threshold", "none", "--search", "random", "--set", "batch=2", "--budget", 4, "--workers", 1]
    for command in (
        ["search", *words, *small, "--runs", 2, "--folder", tmp_path],
        ["compress", *words, "--plan", "2,3", "-o", tmp_path / "file"],
        ["evaluate", tmp_path / "file", "--network", words[0], *words[3:]],
    ):
        told = [line for line in called(*command).stderr.splitlines() if line.startswith("warning: ")]
        assert len(told) == len(set(told)) and (command[0] == "evaluate" or "spare.weight: " in told[0])


def test_a_warning_takes_one_line_of_stderr(searched, tmp_path):
    (scanned,) = searched[0].parent.glob("scan-*.parquet")
    shutil.copy(scanned, tmp_path)
    flip(tmp_path / scanned.name)
    told = called("scan", *LENET, *SPACE, "--folder", tmp_path).stderr
    assert next(line for line in told.splitlines() if line.startswith("warning: ")).endswith("it is made again")


# --- notebooks and their searches -----------------------------------------------------------------------------------------------


def test_run_executes_a_notebook_and_status_tells_of_its_searches(own_root):
    tmp_path, environment = own_root
    printed, _ = process("run", "00_explore", "--profile", "smoke", "-p", "images=50", **environment)
    folder = tmp_path / "outputs" / "smoke" / "00_explore"
    assert printed == f"00_explore: {folder}\n"
    assert json.loads((folder / "run.json").read_text())["parameters"]["images"] == 50
    assert process("status", "--profile", "smoke", **environment)[0] == "no search of profile smoke has been begun\n"


def test_status_is_told_as_json(searched):
    (row,) = json.loads(called("status", searched[0].parent, "--json").stdout)
    assert row["state"] == "complete" and row["run"] == searched[0].name


# --- wrong input ----------------------------------------------------------------------------------------------------------------

WRONG = [
    (["scan"], "give a network: one of the library"),
    (["scan", "lenet6"], "unknown network 'lenet6'; allowed: lenet5_tanh"),
    (["scan", *LENET, "--k", "5:1"], "k must be a range such as 1:50"),
    (["scan", *LENET, "--k", "1:99999"], "from 1 to 65536, got 99999"),
    (["scan", *LENET, "--threshold", "high"], "threshold must be an accuracy (a fraction such as 0.97), a margin"),
    (["scan", *LENET, "--data", "nowhere.npz"], "unknown dataset 'nowhere.npz'"),
    (["scan", *LENET, "--device", "tpu"], "unknown device 'tpu'; allowed: auto"),
    (["scan", "cli_net:Small"], "give its images with --data"),
    (["search", *OWN[:1], "--weights", "none.pt", "--data", "digits.npz"], "none.pt is missing"),
    (["search", *LENET, "--search", "annealing"], "unknown search 'annealing'; allowed: random"),
    (["search", *LENET, "--search", "annealing", "--population", "3"], "unknown search 'annealing'"),
    (["search", *LENET, "--format", "float4"], "unknown format 'float4'"),
    (["search", *LENET, "--population", "1"], "population must be at least 2"),
    (["search", *LENET, "--iterations", "0"], "iterations must be a whole number of at least 1"),
    (["search", *LENET, "--iterations", "3", "--budget", "40"], "give either budget or iterations"),
    (["search", *LENET, "--budget", "3"], "budget must be at least the 12 evaluations"),
    (["search", *LENET, "--set", "temperature=1"], "unknown setting of genetic 'temperature'"),
    (["search", *LENET, "--set", "mutation"], "--set takes NAME=VALUE, got 'mutation'"),
    (["search", *LENET, "--set", "mutation=[1"], "the value in 'mutation=[1' is not valid YAML: while parsing"),
    (["search", *LENET, "--set", "mutation=on"], "setting mutation of genetic must be a finite number, got 'on'"),
    (["search", *LENET, "--set", "mutation=2026-13-01"], "mutation of genetic must be a finite number, got '2026-13-01'"),
    (["search", *LENET, "--set", "mutation=.nan"], "setting mutation of genetic must be a finite number, got nan"),
    (["search", *LENET, "--set", "population=1:12"], "setting population of genetic must be a whole number, got '1:12'"),
    (["search", *LENET, "--set", "population=many"], "setting population of genetic must be a whole number, got 'many'"),
    (["search", *LENET, "--set", "crossover=1"], "unknown crossover 1; allowed: single_point, uniform"),
    (["search", *LENET, "--set", "elite=1", "--set", "elite=2"], "--set takes each name once, got 'elite' again in 'elite=2'"),
    (["search", *LENET, "--set", "elite={a: 1, a: 2}"], "found duplicate key (line 1, column 8)"),
    (["search", *LENET, "--target", "0.99"], "target must be an accuracy (fraction) and a rate, such as 0.99,18, got '0.99'"),
    (["search", *LENET, "--target-limit", "x,1"], "target-limit must be"),
    (["search", *LENET, "--target-form", "jumping"], "unknown form of target 'jumping'"),
    (["search", *LENET, "--runs", "0"], "runs must be a whole number of at least 1"),
    (["search", *LENET, "--workers", "0"], "workers must be"),
    (["search", *LENET, "--plot", "a.gif"], "unknown kind of file '.gif'; allowed: .png"),
    (["search", "--config", "none.yaml"], "none.yaml cannot be read"),
    (["tune", "lenet5_tanh"], "either with --plan or with --from"),
    (["tune", *LENET, "--plan", "3,5", "--from", "."], "either with --plan or with --from"),
    (["tune", *LENET, "--plan", "3,5"], "a plan needs 5 numbers"),
    (["tune", *LENET, "--plan", "3,5,8,2,4", "--focuses", "1,2"], "hold 0"),
    (["tune", *LENET, "--plan", "3,5,8,2,4", "--focuses", "a"], "focuses must be numbers separated by commas"),
    (["tune", *LENET, "--plan", "3,5,8,2,4", "--spread", "-1"], "spread must be a finite number of at least 0"),
    (["compress", "lenet5_tanh", "--plan", "3,x", "-o", "x"], "a plan is numbers of clusters such as 3,5,8,2,4"),
    (["compress", "lenet5_tanh", "--plan", "0", "-o", "x"], "k must be a whole number from 1"),
    (["compress", "lenet5_tanh", "--plan", "none.json", "-o", "x"], "none.json cannot be read as JSON"),
    (["compress", "lenet5_tanh", "--plan", "6", "-o", "digits.npz"], "digits.npz exists; --force overwrites it"),
    (["compress", "lenet5_tanh", "--plan", "6", "-o", "."], ". is a folder"),
    (["compress", "lenet5_tanh", "--plan", "6", "-o", "digits.npz/x"], "digits.npz is not a writable folder"),
    (["compress", "lenet5_tanh", "--plan", "6", "--threads", "0", "-o", "x"], "threads must be"),
    (["compress", *OWN, "--plan", "6,6,6", "-o", "x"], "a plan needs 2 numbers (first, head)"),
    (["compress", "lenet5_tanh", "--plan", "6", "--level", "0", "-o", "x"], "--level is about a file without a plan, got 0"),
    (["compress", "lenet5_tanh", "--plan", "6", "--lambda", "1", "-o", "x"], "--lambda is about a file without a plan, got 1.0"),
    (["compress", "lenet5_tanh", "--format", "float16", "-o", "x"], "--format needs a plan"),
    (["compress", "lenet5_tanh", "--half-rest", "-o", "x"], "--half-rest needs a plan"),
    (["compress", "lenet5_tanh", "--within", "1", "--lambda", "1", "-o", "x"], "give --within or --lambda, not both"),
    (["compress", "lenet5_tanh", "--no-data", "--within", "1", "-o", "x"], "--within needs data"),
    (["compress", "lenet5_tanh", "--no-data", "--level", "1", "-o", "x"], "--level 1 needs data to calibrate on"),
    (
        ["compress", "lenet5_tanh", "--level", "5", "--images", "50", "-o", "x"],
        "level must be 0 (data-free), 1 (calibrated), 2 (tuned), got 5",
    ),
    (["compress", "lenet5_tanh", "--lambda", "0", "--images", "50", "-o", "x"], "price must be a positive number, got 0.0"),
    (["compress", *OWN[:3], "--no-data", "-o", "x"], "give the shape of an image of cli_net:Small with --input"),
    (["inspect", "none"], "none cannot be read"),
    (["inspect", "digits.npz"], "digits.npz is not a packed network that can be trusted"),
    (["evaluate", "none"], "none is neither a file nor a network"),
    (["evaluate", "digits.npz"], "not a packed network"),
    (["evaluate", "lenet5_tanh", "--network", "lenet5_relu"], "--network is for packed files"),
    (["evaluate", "lenet5_tanh", "--limit-bytes", "9"], "--limit-bytes is for packed files"),
    (["evaluate", "cli_net:Small", "--weights", "small.safetensors"], "give its images with --data"),
    (["unpack", "none", "-o", "x.pt"], "none cannot be read"),
    (["unpack", "none", "-o", "x.npz"], "unknown kind of file '.npz'; allowed: .safetensors, .pt"),
    (["export", "none", "-o", "x.onnx"], "none cannot be read"),
    (["export", "none", "-o", "x.pb"], "unknown kind of file '.pb'; allowed: .onnx"),
    (["export", "none", "-o", "x.onnx", "--input", "1,32,32", "--check", "5"], "needs images"),
    (["run", "99_nothing"], "unknown notebook '99_nothing'"),
    (["run", "00_explore", "--profile", "tiny"], "unknown profile 'tiny'"),
    (["run", "00_explore", "-p", "nothing=3"], "unknown parameter of 00_explore 'nothing'"),
    (["run", "00_explore", "-p", "images=[1"], "the value in 'images=[1' is not valid YAML: while parsing"),
    (["run", "00_explore", "-p", "images"], "--set takes NAME=VALUE"),
    (["run", "00_explore", "-p", "seed=2024-01-01"], "seed of 00_explore must be a number such as 1, got '2024-01-01'"),
    (["run", "02_optimizers", "--profile", "smoke", "-p", "seed=2024-01-01"], "seed of 02_optimizers must be a number such as 1"),
    (["run", "00_explore", "-p", "budget=[40]"], "parameter budget of 00_explore must be a number such as 200, got [40]"),
    (["run", "00_explore", "-p", "seed=1", "-p", "seed=2"], "--set takes each name once, got 'seed' again in 'seed=2'"),
    (["status", "--profile", "tiny"], "unknown profile 'tiny'"),
    (["status", "nowhere"], "nowhere is not a folder"),
    (["status", ".", "--workers", "0"], "workers must be a whole number of at least 1"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_wrong_input_gets_one_sentence_and_leaves_nothing(home, words, message):
    before = sorted(home.rglob("*"))
    assert message in refused(*words)
    assert [file for file in sorted(home.rglob("*")) if file not in before and "__pycache__" not in file.parts] == []


def test_an_error_of_a_process_goes_to_stderr_alone():
    printed, told = process("search", "--config", "none.yaml", code=1)
    assert printed == "" and told.startswith("error: none.yaml cannot be read") and told.count("\n") == 1


def test_a_plan_file_that_does_not_fit_is_refused(packed, tmp_path):
    file, plan = tmp_path / "plan.json", json.loads(Path("plan.json").read_text())
    words = ["compress", "--plan", file, "-o", tmp_path / "file"]
    for changed, message in [
        ({"plan": "3,5"}, "must hold a plan and as many focuses"),
        ({"focuses": [1.0]}, "must hold a plan and as many focuses"),
        ({"spread": "wide"}, "must hold numbers as spread and focuses"),
        ({"network": "lenet6"}, "unknown network 'lenet6'"),
        ({"extra": 1}, "extra differs"),
    ]:
        file.write_text(json.dumps(plan | changed))
        assert message in refused(*words)
    file.write_text(json.dumps(plan))
    assert "is a plan for format float32, the command says float16" in refused(*words, "--format", "float16")


def test_a_file_that_is_there_is_overwritten_only_by_force(packed, tmp_path):
    file = tmp_path / "state.pt"
    file.write_text("precious")
    assert refused("unpack", packed, "-o", file) == f"error: {file} exists; --force overwrites it\n"
    assert file.read_text() == "precious"
    called("unpack", packed, "-o", file, "--force")
    assert torch.load(file, weights_only=True)
