"""What can be run: a notebook under a name, with a question and parameters.

Each notebook with a number is one experiment, under its own name. `params/experiments.yaml` lists those that run a notebook under another
name: `notebook` and `question` (which replaces the notebook's title), and parameters that are the same in every profile.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

from weightlab import paths, values
from weightlab.errors import UserError, choose
from weightlab.notebook_files import nbformat
from weightlab.runs import executors


@dataclass(frozen=True)
class Experiment:
    """`parameters`: all that the notebook has, with the values written in it or set for this experiment in every profile."""

    name: str
    notebook: Path
    question: str
    parameters: dict


def names() -> list[str]:
    """The experiments of this repository in reading order. `index.ipynb` links them."""
    named = _named()
    return sorted(set(_notebooks()) - {each["notebook"] for each in named.values()} | set(named))


def find(name: str) -> Experiment:
    """The experiment of this name; raises `UserError` if there is none, and for parameters that its notebook does not have."""
    choose("notebook", name, names())
    own = dict(_named().get(name, {}))
    file = paths.notebooks() / f"{own.pop('notebook', name)}.ipynb"
    cells = nbformat.read(file, as_version=4).cells
    question = own.pop("question", title(cells))
    tagged = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise UserError(f"notebook {file.stem} needs exactly one cell tagged 'parameters', got {len(tagged)}")
    assignments = [node for node in ast.parse(tagged[0]).body if isinstance(node, ast.Assign)]
    literals = {ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in assignments}
    for key in own:
        choose(f"parameter of {name} in experiments.yaml", key, literals)
    return Experiment(name, file, question, literals | own)


def title(cells: list[nbformat.NotebookNode]) -> str:
    """The first line of a notebook's first cell, without its mark of a heading."""
    return cells[0].source.partition("\n")[0].removeprefix("# ")


def profiles() -> list[str]:
    """The folders of `params/` that set parameters of notebooks; beside them lies `cluster/`."""
    return sorted(folder.name for folder in paths.params().iterdir() if folder.is_dir() and folder.name != "cluster")


def profile_parameters(name: str, profile: str) -> dict:
    """The parameters in `params/<profile>/<name>.yaml`; raises `UserError` for those that the notebook does not have."""
    choose("profile", profile, profiles())
    file = paths.params() / profile / f"{name}.yaml"
    if not file.exists():
        raise UserError(f"{file} is missing; every notebook has one in each of the profiles {', '.join(profiles())}")
    parameters = values.read_file(file)
    check(find(name), parameters, f"parameter of {name} in {file.name}")
    return parameters


def check(experiment: Experiment, parameters: dict, kind: str) -> None:
    """Raise `UserError` for a parameter that a notebook does not have, and for a value that is not a number where its default is."""
    for key, value in parameters.items():
        choose(kind, key, experiment.parameters)
        default = experiment.parameters[key]
        counts = isinstance(default, int | float) and not isinstance(default, bool)
        if counts and value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UserError(f"parameter {key} of {experiment.name} must be a number such as {default}, got {value!r}")


def overrides(name: str, pairs: list[str], workers: int | None = None, scheduler: str | None = None) -> dict:
    """Parameters that a command line sets, `pairs` being NAME=VALUE; workers and scheduler where the notebook has them."""
    executors.check(workers, scheduler)
    options = {"workers": workers, "scheduler": scheduler}
    known = find(name).parameters
    return values.assigned(pairs) | {key: value for key, value in options.items() if value is not None and key in known}


def _notebooks() -> list[str]:
    return [file.stem for file in paths.notebooks().glob("[0-9]*.ipynb")]


def _named() -> dict[str, dict]:
    """The entries of `params/experiments.yaml`, by experiment."""
    file = paths.params() / "experiments.yaml"
    named = values.read_file(file) if file.exists() else {}
    for name, each in named.items():
        if not isinstance(each, dict) or not {"notebook", "question"} <= set(each):
            raise UserError(f"experiment {name} in {file} must have a notebook and a question, got {each!r}")
        choose(f"notebook of experiment {name}", each["notebook"], sorted(_notebooks()))
    return named
