"""Notebooks, found by glob: their form, and a real headless run of each at smoke size."""

import ast
import json
import os
import re
import subprocess
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import tracebacks
from warm_python import kernels, python

from weightlab import analysis, experiments, notebooks, paths, storage
from weightlab.errors import UserError

NAMES = experiments.names()
PROFILES = experiments.profiles()
FILES = sorted(paths.notebooks().glob("[0-9]*.ipynb"))


def cells(file):
    return nbformat.read(file, as_version=4).cells


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
class TestForm:
    def test_has_a_kernel_and_no_outputs(self, file):
        notebook = nbformat.read(file, as_version=4)
        assert notebook.metadata.kernelspec.name == "python3" and notebook.metadata.kernelspec.language == "python"
        for cell in notebook.cells:
            assert not cell.get("outputs") and cell.get("execution_count") is None

    def test_opens_with_a_question_and_minutes_per_profile(self, file):
        first = cells(file)[0]
        assert first.cell_type == "markdown" and first.source.splitlines()[0].endswith("?")
        assert any(word in first.source for word in ("minute", "second"))

    def test_parameters_are_literals_one_a_line(self, file):
        """papermill counts the equal signs of the cell, comments included."""
        tagged = [cell for cell in cells(file) if "parameters" in cell.metadata.get("tags", [])]
        assert len(tagged) == 1
        for line in tagged[0].source.splitlines():
            assert line.count("=") == 1
            ast.literal_eval(line.split("=")[1].strip())
        assert any(line.startswith("output_folder") for line in tagged[0].source.splitlines())

    def test_is_prose_and_calls(self, file):
        lines = [line for cell in cells(file) if cell.cell_type == "code" for line in cell.source.splitlines()]
        code = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
        kinds = [cell.cell_type for cell in cells(file)]
        assert 0 < len(code) <= 100 and not any(line.startswith("class ") for line in code)
        assert kinds.count("markdown") * 3 >= kinds.count("code") * 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_yaml_key_is_a_parameter_and_minutes_are_stated(name, profile):
    file = paths.params() / profile / f"{name}.yaml"
    assert set(experiments.profile_parameters(name, profile)) <= set(experiments.find(name).parameters)
    assert file.read_text().startswith("# ") and "on two cores" in file.read_text().splitlines()[0]


def test_the_landing_notebook_links_all_others_in_reading_order_by_their_questions():
    landing = nbformat.read(paths.notebooks() / "index.ipynb", as_version=4)
    assert {cell.cell_type for cell in landing.cells} == {"markdown"} and landing.metadata.kernelspec.name == "python3"
    links = re.findall(r"^- \[(.+)\]\((.+)\.ipynb\)", "\n".join(cell.source for cell in landing.cells), re.MULTILINE)
    assert links == [(each.question, each.notebook.stem) for each in map(experiments.find, NAMES)]


def test_the_documentation_lists_all_notebooks_in_reading_order_with_their_questions():
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", (paths.root() / "docs" / "notebooks.md").read_text(), re.MULTILINE)
    assert rows == [(name, experiments.find(name).question) for name in NAMES]


def test_every_notebook_is_run_under_its_own_name_or_under_names_that_are_listed():
    assert {experiments.find(name).notebook for name in NAMES} == set(FILES)
    listed = yaml.safe_load((paths.params() / "experiments.yaml").read_text())
    assert len(listed) >= 2 and set(listed) <= set(NAMES) and not {each["notebook"] for each in listed.values()} & set(NAMES)
    for name, each in listed.items():
        assert (
            each["question"].endswith("?")
            and experiments.find(name).parameters.items()
            >= {key: value for key, value in each.items() if key not in ("notebook", "question")}.items()
        )


def test_profiles_hold_files_for_notebooks_only():
    for profile in PROFILES:
        assert {file.stem for file in (paths.params() / profile).iterdir()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_runs_at_smoke_size(name, smoke_outputs):
    """The executed notebook holds its figures and its answer; run.json says what was run."""
    folder = smoke_outputs(name)
    executed = nbformat.read(folder / "notebook.ipynb", as_version=4)
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    streams = [output.text for output in outputs if output.output_type == "stream"]
    assert not any("\r" in text.strip() for text in streams), "a progress bar left more than its last state"
    images = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(images) == len(list(folder.glob("*.png"))) > 0
    answers = executed.cells[[cell.source for cell in executed.cells].index("## Answer") + 1]
    assert any("pp" in output.get("data", {}).get("text/markdown", "") for output in answers.outputs)
    assert executed.cells[0].source.startswith(f"# {experiments.find(name).question}\n")
    record = json.loads((folder / "run.json").read_text())
    assert record["versions"]["torch"] and record["profile"] == "smoke"
    given = yaml.safe_load((paths.params() / "smoke" / f"{name}.yaml").read_text())
    assert record["parameters"].get("images") == given.get("images") and given.get("images", 1) <= 200
    for table in folder.glob("*.parquet"):
        assert len(pd.read_parquet(table)) > 0


def test_optimizers_answer_from_their_own_numbers(smoke_outputs):
    """The sentence of the answer names the plan that the saved table holds as the fittest acceptable one."""
    folder = smoke_outputs("02_optimizers")
    best = pd.read_parquet(folder / "best_of_runs.parquet")
    executed = nbformat.read(folder / "notebook.ipynb", as_version=4)
    text = "".join(
        output.data.get("text/markdown", "") for cell in executed.cells for output in cell.get("outputs", []) if "data" in output
    )
    for _, rows in best.dropna(subset="plan").groupby("network"):
        top = rows.sort_values("fitness").iloc[-1]
        assert str(top["plan"].tolist()) in text and f"loses {top['loss_pp']:.2f} pp on validation" in text
    assert best["plan"].notna().any()


def test_unknown_parameter_notebook_and_profile_are_refused_before_work(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="'budgett'.*budget"):
        notebooks.run("02_optimizers", "smoke", {"budgett": 3})
    for unknown in ("99_none", "10_anova"):  # the second is a file that is run under other names
        with pytest.raises(UserError, match=f"'{unknown}'.*02_optimizers.*12_anova_clustering"):
            notebooks.run(unknown, "smoke")
    with pytest.raises(UserError, match="'tiny'.*quick"):
        notebooks.run("02_optimizers", "tiny")
    monkeypatch.setattr(paths, "params", lambda: tmp_path)
    (tmp_path / "smoke").mkdir()
    (tmp_path / "smoke" / "02_optimizers.yaml").write_text(yaml.safe_dump({"bugdet": 1}))
    with pytest.raises(UserError, match="'bugdet'.*budget"):
        notebooks.run("02_optimizers", "smoke")


@pytest.mark.parametrize(
    ("listed", "sentence"),
    [
        (
            {"notebook": "10_anova"},
            "experiment 12_mine in .*experiments.yaml must have a notebook and a question, got {'notebook'",
        ),
        ("10_anova", "experiment 12_mine in .*experiments.yaml must have a notebook and a question, got '10_anova'"),
        (
            {"notebook": "10_none", "question": "?"},
            "unknown notebook of experiment 12_mine '10_none'; allowed: 00_explore, .*10_anova",
        ),
        (
            {"notebook": "10_anova", "question": "?", "gruop": 1},
            "unknown parameter of 12_mine in experiments.yaml 'gruop'; allowed: group",
        ),
    ],
)
def test_a_list_of_experiments_that_is_wrong_is_refused_in_one_sentence(listed, sentence, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "params", lambda: tmp_path)
    (tmp_path / "experiments.yaml").write_text(yaml.safe_dump({"12_mine": listed}))
    with pytest.raises(UserError, match=sentence):
        experiments.find("12_mine")


@pytest.mark.parametrize(
    ("name", "setting", "sentence"),
    [
        ("00_explore", "plan=[3,5]", "a plan needs 5 numbers"),
        ("00_explore", "images=0", "images must be None or a whole number of at least 1, got 0"),
        ("01_total_vs_layerwise", "formats=[float32,float7]", "unknown format 'float7'; allowed: float32"),
        ("01_total_vs_layerwise", "objective_rate=mean", "unknown objective rate 'mean'; allowed: storage, layer_mean"),
        ("01_total_vs_layerwise", "k_max=0", "from 1 to 65536, got 0"),
        ("01_total_vs_layerwise", "protocol=published", "got method 'exact'"),
        ("02_optimizers", "networks=[lenet6]", "unknown network 'lenet6'; allowed: lenet5_tanh"),
        ("02_optimizers", "method=ward", "unknown clustering method 'ward'; allowed: exact"),
        ("02_optimizers", "searches=[genetic,hill]", "unknown search 'hill'; allowed: random"),
        ("02_optimizers", "searches=[genetic]", "at least two searches"),
        ("02_optimizers", "budget=5", "budget must be at least the 20 evaluations of the first generation of random, got 5"),
        ("02_optimizers", "threshold=1.01", "threshold 1.01 is above the accuracy of the unshared network"),
    ],
)
def test_wrong_values_end_the_command_with_one_sentence(own_root, name, setting, sentence):
    """A real process: non-zero exit, one error line, and the results of an earlier run untouched."""
    root, environment = own_root
    earlier = root / "outputs" / "smoke" / name / "notebook.ipynb"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("earlier")
    command = [*python(), "-m", "weightlab", "run", name, "--profile", "smoke", "--set", setting]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=paths.root())
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and sentence in last and not tracebacks(done.stderr)
    assert earlier.read_text() == "earlier"


@pytest.mark.parametrize(
    ("parameters", "going_on"),
    [
        ("seed = 1", "the same command starts it again"),
        (
            "seed = 1\nworkers = None\nsearches_folder = ''",
            "searches are kept, and the same command resumes from their checkpoints, with less memory under -p workers=1",
        ),
    ],
)
def test_a_kernel_that_is_killed_ends_the_command_with_one_sentence(tmp_path, parameters, going_on):
    """As by the kernel's out-of-memory killer; a client that only says 'Kernel died' left a traceback of seventy lines."""
    ends = "import os, signal, time\nos.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)"
    cells = [nbformat.v4.new_code_cell(text) for text in (parameters, "print('begun')", ends)]
    cells[0].metadata["tags"] = ["parameters"]
    for name in ("notebooks", "params/smoke", "outputs/smoke/90_dies"):
        (tmp_path / name).mkdir(parents=True)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, tmp_path / "notebooks" / "90_dies.ipynb")
    (tmp_path / "params" / "smoke" / "90_dies.yaml").touch()
    earlier = tmp_path / "outputs" / "smoke" / "90_dies" / "notebook.ipynb"
    earlier.write_text("earlier")
    command = [*python(), "-m", "weightlab", "run", "90_dies", "--profile", "smoke"]
    done = subprocess.run(command, env=os.environ | {"WEIGHTLAB_ROOT": str(tmp_path)} | kernels(), capture_output=True, text=True)
    assert done.returncode == 1 and not tracebacks(done.stderr)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: the kernel that ran 90_dies was killed, most often because the machine's memory was full; ")
    assert str(earlier.parent) in last and last.endswith(going_on)
    assert earlier.read_text() == "earlier"


def test_a_run_replaces_its_own_files_and_leaves_a_persons(own_root):
    """Files that an earlier run made and this one does not are gone; what a person or JupyterLab put beside them stays."""
    root, environment = own_root
    folder = root / "outputs" / "smoke" / "00_explore"
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "old.png").write_text("made by an earlier run")
    (folder / "run.json").write_text(json.dumps({"files": ["old.png", "notebook.ipynb"]}))
    command = [*python(), "-m", "weightlab", "run", "00_explore", "--profile", "smoke"]
    subprocess.run(command, env=environment, capture_output=True, text=True, cwd=paths.root(), check=True)
    names = {file.name for file in folder.iterdir()}
    assert names == {".ipynb_checkpoints", "notes.txt", "notebook.ipynb", "run.json", "weights_with_centroids.png"}
    assert json.loads((folder / "run.json").read_text())["parameters"]["output_folder"] == str(folder)
    assert not list(folder.parent.glob(".*running*"))


def test_unwritable_outputs_folder_is_refused_before_work(own_root):
    root, environment = own_root
    (root / "outputs").write_text("a file where the folder should be")
    command = [*python(), "-m", "weightlab", "run", "00_explore", "--profile", "smoke"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=paths.root())
    assert done.returncode == 1 and done.stderr.startswith("error: the outputs folder") and done.stderr.count("\n") == 1


def points(file, shift=0.0):
    """Points of two groups, such as somebody else may have."""
    rate = np.linspace(5, 15, 40)
    table = pd.DataFrame({"group": ["a", "b"] * 20, "rate": rate, "loss": 0.01 * rate**2 + shift + 0.1 * np.sin(rate * 7)})
    table.to_csv(file, index=False)


def weightlab(environment, folder, *arguments):
    """A real process of the command, in a working folder of its own."""
    command = [*python(), "-m", "weightlab", *arguments, "--profile", "smoke"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)


def test_given_records_land_in_a_folder_of_their_own(own_root):
    """The profile's own result stays for make, two files do not share a folder, and a relative path means the working directory."""
    root, environment = own_root
    name = "11_anova_quantization"
    own = root / "outputs" / "smoke" / name
    own.mkdir(parents=True)
    (own / "notebook.ipynb").write_text("the profile's")
    places = []
    for work, shift in (("here", 0.0), ("there", 1.0)):
        (root / work).mkdir()
        points(root / work / "mine.csv", shift)
        done = weightlab(environment, root / work, "run", name, "-p", "records=mine.csv")
        assert done.returncode == 0, done.stderr[-2000:]
        places.append(Path(done.stdout.strip().removeprefix(f"{name}: ")))
    assert {file.name for file in own.iterdir()} == {"notebook.ipynb"} and (own / "notebook.ipynb").read_text() == "the profile's"
    assert len(set(places)) == 2
    for place, work in zip(places, ("here", "there"), strict=True):
        assert place.parent == root / "outputs" / "smoke" / "given" and re.fullmatch(rf"{name}-mine-[0-9a-f]{{8}}", place.name)
        record = json.loads((place / "run.json").read_text())
        assert record["parameters"]["records"] == str(root / work / "mine.csv")
        assert record["parameters"]["output_folder"] == str(place) and (place / "points.parquet").exists()
    for place in places:  # nor is one read where a profile's own is asked for
        with pytest.raises(UserError, match=r"points was made from given records \(.*mine.csv\), not from those of its profile"):
            analysis.read_output(place.parent, place.name, "points")


def test_a_folder_for_results_is_honoured_and_its_own_files_are_replaced(own_root):
    root, environment = own_root
    name = "11_anova_quantization"
    points(root / "mine.csv")
    for _ in range(2):
        done = weightlab(environment, root, "run", name, "-p", "records=mine.csv", "-p", "output_folder=my results")
        assert done.returncode == 0 and done.stdout.strip() == f"{name}: {root / 'my results'}", done.stderr[-2000:]
    assert json.loads((root / "my results" / "run.json").read_text())["parameters"]["output_folder"] == str(root / "my results")
    assert (root / "my results" / "notebook.ipynb").exists() and not list((root / "outputs" / "smoke").rglob("*.parquet"))


def test_a_folder_to_read_from_is_honoured(own_root):
    """13 on the outputs of elsewhere: it reads them, says so, and leaves the profile's own result alone."""
    root, environment = own_root
    rows = pd.DataFrame({"network": "lenet5_tanh", "arm": "whole net", "format": "float32", "k": range(1, 51), "loss_pp": 0.5, "test_loss_pp": 0.5,
                         "validation_accuracy": 0.98, "test_accuracy": 0.98, "layer_mean_rate": 10.65, "storage_rate": 10.65})  # fmt: skip
    storage.write_table(rows, root / "elsewhere" / "01_total_vs_layerwise", "results")
    done = weightlab(environment, root, "run", "13_replication_table", "-p", "outputs_folder=elsewhere")
    assert done.returncode == 0, done.stderr[-2000:]
    place = Path(done.stdout.strip().removeprefix("13_replication_table: "))
    assert place.parent == root / "outputs" / "smoke" / "given"
    parts = pd.read_parquet(place / "parts.parquet").set_index(["claim", "part", "rate_name"])
    assert parts.at[(5, "c", "layer_mean_rate"), "verdict"] == "replicated" and parts.at[(9, "a", ""), "verdict"] == "undecided"
    assert not (root / "outputs" / "smoke" / "13_replication_table").exists()


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("outputs/smoke/13_replication_table", "is where profile smoke keeps its own results; name another folder"),
        ("outputs/full", "is where profile full keeps its own results; name another folder"),
        ("outputs/quick/searches/mine", "is where profile quick keeps its own results; name another folder"),
        ("taken", "taken holds other files than those of an earlier run of 11_anova_quantization; name a new or empty folder"),
        ("mine.csv", "mine.csv cannot be read: Not a directory"),
        (5, "output_folder must name a folder, got 5"),
        (" ", "output_folder must name a folder, got ' '"),
    ],
)
def test_a_folder_in_which_something_else_is_kept_is_refused_before_work(value, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "outputs", lambda: tmp_path / "outputs")
    points("mine.csv")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notebook.ipynb").write_text("somebody's")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=re.escape(sentence)) as refused:
        notebooks.run("11_anova_quantization", "smoke", {"records": "mine.csv", "output_folder": value})
    assert "\n" not in str(refused.value) and sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "taken" / "notebook.ipynb").read_text() == "somebody's"


def test_records_that_are_no_name_are_refused():
    with pytest.raises(UserError, match="records must name a file, got \\['a.csv'\\]"):
        notebooks.run("11_anova_quantization", "smoke", {"records": ["a.csv"]})
