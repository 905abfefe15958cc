"""Run an experiment's notebook headless with the parameters of a profile, and record what was run."""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from weightlab import experiments, paths, storage
from weightlab.errors import UserError, choose
from weightlab.notebook_files import nbformat

PLACES = ("records", "outputs_folder", "searches_folder", "output_folder")  # parameters that name a file or a folder
RECORDED_PACKAGES = ("numba", "numpy", "pandas", "papermill", "scikit-learn", "torch", "torchvision", "weightlab")


def run(name: str, profile: str, overrides: dict | None = None) -> Path:
    """Execute the notebook of an experiment into `outputs/<profile>/<name>/` and return that folder.

    `output_folder` names another folder for the results, which may not be one where a profile keeps its own or hold another's files.
    A notebook that is given `records`, an `outputs_folder` or a `searches_folder` to read, and no `output_folder`, gets a folder of
    its own below `outputs/<profile>/given/`, so that the profile's results stay what they are. Relative paths mean the working
    directory. The notebook works in a folder of its own, which replaces the files of an earlier run only when it has ended well. Raises
    `UserError` with the notebook's own sentence if it was given something wrong, and if its kernel died.
    """
    import papermill

    experiment = experiments.find(name)
    chosen = experiments.profile_parameters(name, profile) | (overrides or {})
    experiments.check(experiment, overrides or {}, f"parameter of {name}")
    given = _given(chosen)
    final = _folder(name, profile, given)
    working = final.with_name(f".{final.name}.running")
    own = paths.outputs() / profile
    places = {"searches_folder": str(own / "searches"), "outputs_folder": str(own)} | given | {"output_folder": str(working)}
    parameters = experiment.parameters | chosen
    parameters |= {key: value for key, value in places.items() if key in parameters}
    try:
        final.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(working, ignore_errors=True)
        working.mkdir()
    except OSError as error:
        raise UserError(f"the outputs folder {final.parent} cannot be written: {error}") from None
    started = time.time()
    try:
        papermill.execute_notebook(
            experiment.notebook,
            working / "notebook.ipynb",
            parameters,
            kernel_name="python3",
            cwd=paths.root(),
            progress_bar={"desc": f"{name} ({profile})"},
            stderr_file=sys.stderr,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # no warning about the local connection to the kernel
        )
    except papermill.PapermillExecutionError as error:
        where = f"{name} stopped; the notebook as far as it came: {working / 'notebook.ipynb'}"
        if error.ename == "UserError":
            raise UserError(f"{error.evalue} ({where})") from None
        raise UserError(f"{where}; {error.ename}: {error.evalue}") from error
    except RuntimeError as error:
        if not str(error).startswith("Kernel died"):  # so says the client, while a cell runs and before the first
            raise
        raise UserError(_death(name, final, parameters)) from None
    _settle(working / "notebook.ipynb", experiment.question)
    made = sorted(working.iterdir(), key=lambda file: file.name == "notebook.ipynb")  # the notebook last: make looks at its time
    files = [file.name for file in made]
    record = {
        "notebook": name, "profile": profile, "parameters": parameters | {"output_folder": str(final)}, "seed": parameters.get("seed"),
        "commit": _commit(), "versions": {"python": platform.python_version()} | {each: version(each) for each in RECORDED_PACKAGES},
        "device": _processor(), "cores": os.cpu_count(), "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "minutes": round((time.time() - started) / 60, 2), "files": files,
    }  # fmt: skip
    for stale in set(_files_of(final)) - set(files):
        (final / Path(stale).name).unlink(missing_ok=True)
    for file in made:
        file.replace(final / file.name)
    storage.write_whole(final / "run.json", json.dumps(record, indent=1).encode())
    working.rmdir()
    return final


def _death(name: str, final: Path, parameters: dict) -> str:
    """What to tell of a kernel that died: the likely cause, what is kept, and how to go on."""
    going_on = "the same command begins it anew"
    if "searches_folder" in parameters:
        going_on = (
            f"scans and searches in {parameters['searches_folder']} are kept, and the same command goes on from their checkpoints"
        )
    smaller = [f"-p {each}" for each in ("workers=1", "images=NUMBER") if each.partition("=")[0] in parameters]
    return (
        f"the kernel that ran {name} was killed, most often because the machine's memory was full; results of an earlier run in {final} "
        f"are as they were, {going_on}" + (f", with less memory under {' or '.join(smaller)}" if smaller else "")
    )


def _given(chosen: dict) -> dict[str, str]:
    """The files and folders among chosen parameters, as absolute paths; raises `UserError` for what is no name."""
    given = {key: chosen[key] for key in PLACES if chosen.get(key) is not None}
    for key, value in given.items():
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{key} must name a {'file' if key == 'records' else 'folder'}, got {value!r}")
    return {key: os.path.abspath(value) for key, value in given.items()}


def _folder(name: str, profile: str, given: dict[str, str]) -> Path:
    """Where the results of a run go: raises `UserError` for a folder in which something else is kept."""
    if "output_folder" not in given:
        if not given:
            return paths.outputs() / profile / name
        what = Path(given.get("records", "")).stem
        mark = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:8]
        return paths.outputs() / profile / "given" / "-".join(filter(None, [name, what, mark]))
    folder = Path(given["output_folder"])
    for other in experiments.profiles():
        own = (paths.outputs() / other).resolve()
        if folder.resolve().is_relative_to(own) and folder.resolve().relative_to(own).parts[:1] != ("given",):
            raise UserError(f"output_folder {folder} is where profile {other} keeps its own results; name another folder")
    try:
        held = sorted(folder.iterdir())
    except FileNotFoundError:
        return folder
    except OSError as error:
        raise UserError(f"output_folder {folder} is no folder that can be read: {error.strerror}") from None
    if held and _read_record(folder).get("notebook") != name:
        raise UserError(
            f"output_folder {folder} holds other files than those of an earlier run of {name}; name a new or empty folder"
        )
    return folder


def _settle(notebook: Path, question: str) -> None:
    """Leave in an executed notebook the question of its experiment, and what reads without a kernel.

    Of a progress bar that is its last state, of a widget its text.
    """
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    settled, _ = CoalesceStreamsPreprocessor().preprocess(nbformat.read(notebook, as_version=4), {})
    settled.metadata.pop("widgets", None)
    settled.cells[0].source = settled.cells[0].source.replace(experiments.title(settled.cells), question, 1)
    for output in (output for cell in settled.cells for output in cell.get("outputs", [])):
        output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    storage.write_whole(notebook, nbformat.writes(settled).encode())


def _read_record(folder: Path) -> dict:
    """What an earlier run wrote about itself; nothing where there is none."""
    try:
        record = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _files_of(folder: Path) -> list[str]:
    """The files that an earlier run says it made; what else lies beside them is a person's own."""
    files = _read_record(folder).get("files")
    return [file for file in files if isinstance(file, str)] if isinstance(files, list) else []


def results(profile: str) -> str:
    """Where the results of a profile are, one line per file; raises `UserError` for an unknown profile."""
    choose("profile", profile, experiments.profiles())
    lines = []
    for folder in sorted((paths.outputs() / profile).glob("[0-9]*")):
        for file in sorted(folder.glob("*")):
            shown = file.relative_to(paths.root()) if file.is_relative_to(paths.root()) else file
            lines.append(f"  {shown}")
    return "\n".join([f"Results of profile {profile}:", *lines])


def _commit() -> str | None:
    """The commit the repository stands at, with '+' if tracked files differ from it; None outside a repository."""
    git = ["git", "-C", str(paths.root())]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")


def _processor() -> str:
    try:
        name = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        name = None
    return name[1] if name else platform.processor() or platform.machine()
