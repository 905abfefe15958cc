"""Run an experiment's notebook headless with the parameters of a profile, and record the run."""

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
    With `records`, an `outputs_folder` or a `searches_folder` to read, and no `output_folder`, a notebook gets a folder of its own below
    `outputs/<profile>/given/`, so that the profile's results do not change. Relative paths mean the working directory. The notebook works
    in a folder of its own, which replaces the files of an earlier run only after it has succeeded. Raises `UserError` with the notebook's
    own sentence for wrong parameters, and if its kernel died.
    """
    import papermill

    experiment = experiments.find(name)
    chosen = experiments.profile_parameters(name, profile) | (overrides or {})
    experiments.check(experiment, overrides or {}, f"parameter of {name}")
    places_given = _places(chosen)
    final = _folder(name, profile, places_given)
    working = final.with_name(f".{final.name}.running")
    own = paths.outputs() / profile
    places = (
        {"searches_folder": str(own / "searches"), "outputs_folder": str(own)} | places_given | {"output_folder": str(working)}
    )
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
        where = f"{name} stopped; the notebook up to there: {working / 'notebook.ipynb'}"
        if error.ename == "UserError":
            raise UserError(f"{error.evalue} ({where})") from None
        raise UserError(f"{where}; {error.ename}: {error.evalue}") from error
    except RuntimeError as error:
        if not str(error).startswith("Kernel died"):  # so says the client, while a cell runs and before the first
            raise
        raise UserError(_death(name, final, parameters)) from None
    _settle(working / "notebook.ipynb", experiment.question)
    written = sorted(
        working.iterdir(), key=lambda file: file.name == "notebook.ipynb"
    )  # the notebook last: make looks at its time
    files = [file.name for file in written]
    record = {
        "notebook": name, "profile": profile, "parameters": parameters | {"output_folder": str(final)}, "seed": parameters.get("seed"),
        "commit": _commit(), "versions": {"python": platform.python_version()} | {each: version(each) for each in RECORDED_PACKAGES},
        "device": _processor(), "cores": os.cpu_count(), "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "minutes": round((time.time() - started) / 60, 2), "files": files,
    }  # fmt: skip
    for stale in set(_files_of(final)) - set(files):
        (final / Path(stale).name).unlink(missing_ok=True)
    for file in written:
        file.replace(final / file.name)
    storage.write_whole(final / "run.json", json.dumps(record, indent=1).encode())
    working.rmdir()
    return final


def _death(name: str, final: Path, parameters: dict) -> str:
    """The message on a kernel that died: the likely cause, what is kept, and how to resume."""
    retry = "the same command starts it again"
    if "searches_folder" in parameters:
        retry = (
            f"scans and searches in {parameters['searches_folder']} are kept, and the same command resumes from their checkpoints"
        )
    smaller = [f"-p {each}" for each in ("workers=1", "images=NUMBER") if each.partition("=")[0] in parameters]
    return (
        f"the kernel that ran {name} was killed, most often because the machine's memory was full; results of an earlier run in {final} "
        f"are unchanged, {retry}" + (f", with less memory under {' or '.join(smaller)}" if smaller else "")
    )


def _places(chosen: dict) -> dict[str, str]:
    """The files and folders among chosen parameters, as absolute paths; raises `UserError` for values that are not names."""
    places = {key: chosen[key] for key in PLACES if chosen.get(key) is not None}
    for key, value in places.items():
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{key} must name a {'file' if key == 'records' else 'folder'}, got {value!r}")
    return {key: os.path.abspath(value) for key, value in places.items()}


def _folder(name: str, profile: str, places: dict[str, str]) -> Path:
    """The folder for the results of a run; raises `UserError` for one that holds something else."""
    if "output_folder" not in places:
        if not places:
            return paths.outputs() / profile / name
        what = Path(places.get("records", "")).stem
        mark = hashlib.sha256(json.dumps(places, sort_keys=True).encode()).hexdigest()[:8]
        return paths.outputs() / profile / "given" / "-".join(filter(None, [name, what, mark]))
    folder = Path(places["output_folder"])
    for other in experiments.profiles():
        own = (paths.outputs() / other).resolve()
        if folder.resolve().is_relative_to(own) and folder.resolve().relative_to(own).parts[:1] != ("given",):
            raise UserError(f"output_folder {folder} is where profile {other} keeps its own results; name another folder")
    try:
        files = sorted(folder.iterdir())
    except FileNotFoundError:
        return folder
    except OSError as error:
        raise UserError(f"output_folder {folder} cannot be read: {error.strerror}") from None
    if files and _read_record(folder).get("notebook") != name:
        raise UserError(
            f"output_folder {folder} holds other files than those of an earlier run of {name}; name a new or empty folder"
        )
    return folder


def _settle(notebook: Path, question: str) -> None:
    """Put the question of its experiment into an executed notebook, and keep only what can be read without a kernel.

    That is the last state of a progress bar, and a widget's text.
    """
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    settled, _ = CoalesceStreamsPreprocessor().preprocess(nbformat.read(notebook, as_version=4), {})
    settled.metadata.pop("widgets", None)
    settled.cells[0].source = settled.cells[0].source.replace(experiments.title(settled.cells), question, 1)
    for output in (output for cell in settled.cells for output in cell.get("outputs", [])):
        output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    storage.write_whole(notebook, nbformat.writes(settled).encode())


def _read_record(folder: Path) -> dict:
    """The record of an earlier run; empty if there is none."""
    try:
        record = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _files_of(folder: Path) -> list[str]:
    """The files that an earlier run wrote, by its record; other files in the folder are a person's own."""
    files = _read_record(folder).get("files")
    return [file for file in files if isinstance(file, str)] if isinstance(files, list) else []


def results(profile: str) -> str:
    """The result files of a profile, one a line; raises `UserError` for an unknown profile."""
    choose("profile", profile, experiments.profiles())
    lines = []
    for folder in sorted((paths.outputs() / profile).glob("[0-9]*")):
        for file in sorted(folder.glob("*")):
            shown = file.relative_to(paths.root()) if file.is_relative_to(paths.root()) else file
            lines.append(f"  {shown}")
    return "\n".join([f"Results of profile {profile}:", *lines])


def _commit() -> str | None:
    """The current commit of the repository, with '+' if tracked files differ from it; None outside a repository."""
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
