"""The shape of the repository: layers, what git sees, what make offers."""

import ast
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml
from warm_python import python

import weightlab
from weightlab import paths, reference

# A room imports only rooms named before it, and inside a package a file imports only files named before it. There is no exception.
ROOMS = {
    "errors": [],
    "paths": [],
    "storage": [],
    "rng": [],
    "backend": [],
    "values": [],
    "settings": [],
    "formats": [],
    "accounting": [],
    "data": ["own", "downloads", "cifar", "splits", "__main__"],
    "networks": ["own", "architectures", "layers", "checkpoints", "sequences", "answers"],
    "models": [],  # the face of networks
    "training": [],
    "search": ["space", "fitness", "base", "pareto", "random_search", "genetic", "particle_swarm", "black_hole", "nsga2", "greedy"],
    "compression": [
        "contract", "kinds", "compressed", "mixed", "multipliers/designs", "multipliers/tables", "multipliers/metrics", "multipliers/convolution", "multipliers/layer", "multipliers/method", "multipliers/settings",
        "sharing/clustering", "sharing/codebooks", "sharing/lifts", "sharing/share", "sharing/settings",
    ],
    "sharing": [],  # the face of compression/sharing
    "evaluation": ["kernels", "stages", "activation_cache", "prefix_tree", "proof", "evaluator"],
    "packing": ["label_coding", "range_coding", "adaptive_coding", "parts", "metadata", "compact_metadata", "compact_format", "packed_format", "packed_file", "writing", "onnx_files"],
    "runs": [
        "setting", "specifications", "records", "folder", "loop", "status", "progress", "job_queues", "executors", "timing", "runner", "enumeration", "truth", "assignments", "assignment_searches", "uniform",
    ],
    "tuning": [
        "lifted", "rate_distortion/cells", "rate_distortion/hooks", "rate_distortion/matrices", "rate_distortion/assignment", "rate_distortion/curvature",
        "rate_distortion/calibrated", "rate_distortion/tuned", "rate_distortion/batch_norm", "rate_distortion/remainder", "rate_distortion/storing",
        "rate_distortion/compression", "rate_distortion/subject",
    ],
    "analysis": [
        "labels", "records", "findings", "comparisons", "predictors", "regression", "scans", "searches", "small_files", "uncertainty", "assignments",
        "curve_statistics", "search_statistics", "table_statistics", "assignment_statistics", "claims",
        "answers/words", "answers/assignments", "answers/claims", "answers/mobilenet", "answers/regression", "answers/searches", "answers/sharing", "answers/small_files", "answers/tuning",
    ],
    "figures": [
        "base", "assignments", "claims", "clustering", "explore", "fronts", "mobilenet", "regression", "searches", "sharing", "small_files", "tuning",
    ],
    "notebook_files": [],
    "experiments": [],
    "notebooks": [],
    "reference": [],
    "report": [],
    "explore": ["latest", "study", "prices", "controls", "sliders", "pages", "searching", "pricing", "explorer"],
    "cli": [
        "output", "options", "choices", "hints", "plans", "smallest",
        "compress", "evaluate", "export", "files", "laboratory", "multipliers", "multiplier_search", "scan", "search", "tune",
    ],
    "__main__": [],
}  # fmt: skip
LIBRARY = paths.root() / "lib" / "weightlab"
FILES = sorted(LIBRARY.rglob("*.py"))


def name(file: Path) -> str:
    """weightlab.runs.loop for runs/loop.py; a package's face is the package."""
    return ".".join(file.relative_to(LIBRARY.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name(file) for file in FILES}


def imports(file: Path) -> set[str]:
    """Modules of this library that a file imports, by full name; a package's face where something of it is imported by name."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "weightlab":
            whole = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES
            found |= whole | ({node.module} if len(whole) < len(node.names) else set())
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
    return found - {"weightlab"}  # UserError


def rank(module: str) -> tuple[int, int]:
    """Where a module stands: the row of its room, and its place there; a package's face comes last."""
    _, room, *rest = module.split(".")
    inside = ROOMS[room]
    place = inside.index("/".join(rest)) if rest and "/".join(rest) in inside else len(inside)
    return list(ROOMS).index(room), place


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(LIBRARY)))
def test_a_module_imports_only_what_stands_before_it(file):
    if file == LIBRARY / "__init__.py":
        assert imports(file) == {"weightlab.errors"}
        return
    later = {other for other in imports(file) if rank(other) >= rank(name(file))}
    assert not later, f"{name(file)} imports {later}"


def test_the_reference_has_the_rooms_in_their_order():
    assert [*reference.ROOMS, "__main__"] == list(ROOMS)


def test_every_module_has_a_place():
    for file in FILES:
        parts = file.relative_to(LIBRARY).with_suffix("").parts
        if parts[-1] != "__init__":
            assert parts[0] in ROOMS and (len(parts) == 1 or "/".join(parts[1:]) in ROOMS[parts[0]]), file


def test_searches_do_not_know_torch():
    for file in (LIBRARY / "search").glob("*.py"):
        assert "torch" not in file.read_text()


def test_git_sees_the_library():
    """The stock Python .gitignore hides lib/."""
    for file in LIBRARY.rglob("*.py"):
        assert subprocess.run(["git", "check-ignore", "-q", file], cwd=paths.root()).returncode == 1, file


def test_importing_the_library_sets_no_global_state():
    code = (
        "import torch, numpy as np; threads = torch.get_num_threads(); before = np.random.get_state()[1].tolist(), torch.random.get_rng_state()\n"
        "from weightlab import data, models, training, sharing, evaluation, runs, figures, notebooks\n"
        "after = np.random.get_state()[1].tolist(), torch.random.get_rng_state()\n"
        "print(threads == torch.get_num_threads() and before[0] == after[0] and bool((before[1] == after[1]).all()))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "True"


def test_every_module_can_be_imported_where_there_is_no_fcntl():
    """As on Windows."""
    names = sorted(
        file.relative_to(LIBRARY.parent).with_suffix("").as_posix().replace("/", ".") for file in LIBRARY.rglob("*.py")
    )
    names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    code = f"import sys, importlib\nsys.modules['fcntl'] = None\nfor name in {names}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "weightlab.runs.status" in names


def test_make_alone_lists_every_target():
    listed = subprocess.run(["make", "PYTHON=python"], cwd=paths.root(), capture_output=True, text=True, check=True).stdout
    for target in [
        "env",
        "data",
        "models",
        "retrain",
        "experiments",
        "experiment",
        "status",
        "report",
        "lab",
        "test",
        "browser-test",
        "bench",
        "bench-faults",
        "bench-multipliers",
        "lint",
        "format",
        "clean",
    ]:
        assert f"  {target} " in listed


@pytest.mark.parametrize(
    ("setting", "allowed"),
    [("PROFILE=tiny", "quick"), ("NB=99_nothing", "02_optimizers"), ("NB=10_anova", "12_anova_clustering")],
)
def test_make_refuses_unknown_names_in_one_sentence(setting, allowed):
    done = subprocess.run(["make", "experiments", setting, "PYTHON=python"], cwd=paths.root(), capture_output=True, text=True)
    assert done.returncode != 0
    assert setting.split("=")[1] in done.stderr and allowed in done.stderr and done.stderr.count("\n") == 1


def test_make_redoes_a_notebook_only_when_what_it_rests_on_changed(tmp_path):
    """A target rests on the notebook, its YAML and the library, and on nothing that changes by itself."""
    for name in ("notebooks", "params", "published", "lib"):
        shutil.copytree(paths.root() / name, tmp_path / name)
    shutil.copy(paths.root() / "Makefile", tmp_path)
    shutil.copytree(paths.models(), tmp_path / "models")
    done = [tmp_path / "outputs" / "smoke" / name / "notebook.ipynb" for name in ("00_explore", "02_optimizers")]
    for file in [*(tmp_path / "data" / name / ".verified" for name in ("mnist", "fashion_mnist")), *done]:
        file.parent.mkdir(parents=True)
        file.touch()

    def commands() -> str:
        make = ["make", "-n", "PYTHON=python", "PROFILE=smoke", "experiments"]
        return subprocess.run(
            make, cwd=tmp_path, capture_output=True, text=True, check=True, env=os.environ | {"WEIGHTLAB_DATA": ""}
        ).stdout

    later = time.time() + 10
    assert "weightlab run 01_total_vs_layerwise" in commands()
    assert "weightlab run 02_optimizers" not in commands() and "weightlab.data" not in commands()
    os.utime(tmp_path / "params" / "smoke" / "02_optimizers.yaml", (later, later))
    assert "weightlab run 02_optimizers" in commands() and "weightlab run 00_explore" not in commands()
    named = {name: f"weightlab run {name} " for name in ("11_anova_quantization", "12_anova_clustering", "13_replication_table")}
    assert not [name for name, command in named.items() if command not in commands()]
    for name in ("04_quantization", "06_clustering", *named):
        file = tmp_path / "outputs" / "smoke" / name / "notebook.ipynb"
        file.parent.mkdir(parents=True)
        file.touch()
    os.utime(tmp_path / "notebooks" / "10_anova.ipynb", (later, later))
    assert named["11_anova_quantization"] in commands() and named["12_anova_clustering"] in commands()
    os.utime(tmp_path / "lib" / "weightlab" / "runs" / "runner.py", (later, later))
    assert "weightlab run 00_explore" in commands()


def test_environment_file_has_no_second_list_of_packages():
    environment = yaml.safe_load((paths.root() / "environment.yml").read_text())
    pip = environment["dependencies"][-1]["pip"]
    assert pip == ["-c constraints.txt", "-e .[test]"]
    conda = {str(item).split("=")[0] for item in environment["dependencies"][:-1]}
    assert conda == {"python", "pip", "make", "nodejs"}


def test_every_dependency_has_a_tested_version():
    project = tomllib.loads((paths.root() / "pyproject.toml").read_text())["project"]
    names = project["dependencies"] + [name for extra in project["optional-dependencies"].values() for name in extra]
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (paths.root() / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    for name in names:
        bare = name.split(">")[0].split("[")[0].lower().replace("_", "-")
        assert bare in pinned, name


def test_the_five_lines_of_the_readme_run(tmp_path):
    text = (paths.root() / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    assert len(code.strip().splitlines()) <= 5
    done = subprocess.run([*python(), "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "feature_extractor.6" in done.stdout and 0.9 < float(done.stdout.split()[-1]) < 1


def test_the_readme_leads_to_every_page_of_the_documentation():
    links = set(re.findall(r"\]\((docs/\w+\.md)\)", (paths.root() / "README.md").read_text()))
    assert links == {f"docs/{file.name}" for file in (paths.root() / "docs").glob("*.md")}


def test_every_file_that_the_documentation_links_is_there():
    pages = [paths.root() / "README.md", *(paths.root() / "docs").rglob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^):#]+)\)", page.read_text())]
    assert len(links) > 20
    for page, link in links:
        assert (page.parent / link).exists(), f"{link} in {page.name}"


def test_where_what_is_stands_in_files_that_hold_it():
    rows = re.findall(r"^\| .+\? \| `(.+)` \| `(.+)` \|$", (paths.root() / "docs" / "where.md").read_text(), re.M)
    assert len(rows) >= 20
    for file, held in rows:
        place = next((folder / file for folder in (LIBRARY, paths.root()) if (folder / file).is_file()), None)
        assert place is not None, f"{file} does not exist"
        assert re.search(rf"\b{held}\b", place.read_text()), f"{file} does not hold {held}"


def test_the_version_stands_in_one_place():
    project = tomllib.loads((paths.root() / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"] and "version" not in project["project"]
    assert yaml.safe_load((paths.root() / "CITATION.cff").read_text())["version"] == weightlab.__version__
