"""What options mean to the library: settings, specifications, networks and images; and configuration files."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from weightlab.cli import options, output
from weightlab.errors import UserError, check_whole, choose
from weightlab.runs.setting import Setting
from weightlab.settings import leaves, names

if TYPE_CHECKING:
    from torch import nn

    from weightlab.data import Split
    from weightlab.runs.specifications import Specification
    from weightlab.search.fitness import TargetRule

NAMES = {role.option.name: field.name for field, role in leaves(Setting) if role.option}  # option: what `Setting` calls it
APART = names(Setting, "apart")
SIZES = ("population", "particles", "batch")  # what searches call the number of plans in a generation
UNSAVED = ("config", "save_config", "plot", "show", "device", "threads", "workers", "scheduler", "help")


def setting_values(params: Mapping) -> dict:
    """The options given for a setting, under the names of `Setting`."""
    values = {name: params[option] for option, name in NAMES.items() if option != "k" and params.get(option) is not None}
    return values | (options.ks(params["k"]) if params.get("k") else {})


def setting(params: Mapping, **more: Any) -> "Setting":
    """The setting of options and of further values, which replace them."""
    values = setting_values(params) | more
    if params.get("no_data"):
        values.setdefault("dataset", Setting.dataset)  # which is not looked at
    return Setting(**with_dataset(values))


def dataset_of(network: str) -> str:
    """The dataset that a network of the library is measured on; raises `UserError` for a user's own."""
    from weightlab import training
    from weightlab.networks import own as own_networks

    if own_networks.is_own(network):
        raise UserError(f"network {network} is your own, so give its images with --data")
    return training.dataset_of(network)


def splits(dataset: str, images: int | None) -> "list[Split]":
    from weightlab import data
    from weightlab.runs.setting import RECORDED_SPLITS

    return [data.load(dataset, name).first(images) for name in RECORDED_SPLITS]


def network_of(file: Path, stored_name: str, network: str | None) -> "nn.Module":
    """The network that a packed file names, or `network` if given; its weights are arbitrary.

    Raises `UserError` if only the file names it and it is not one of this library.
    """
    from weightlab import models

    if network is None and stored_name not in models.NETWORKS:
        raise UserError(
            f"{file} names network {stored_name!r}, and no module is imported because a file names it; "
            f"give the network with --network: module:factory or one of {', '.join(models.NETWORKS)}"
        )
    return models.build(network or stored_name)


def specifications(ctx: typer.Context) -> "list[Specification]":
    """One specification a run, as the options of `search` say."""
    from weightlab.runs.specifications import Specification

    params = ctx.params
    check_whole("runs", params["runs"])
    values = with_dataset(setting_values(params)) | {"target": _target(params)}
    values |= {name: params[name] for name in ("search", "seed") if params[name] is not None}
    values["settings"] = search_settings(values.get("search", Specification.search), params)
    values["threshold"], values["uniform_start"] = threshold(params["threshold"]), params["uniform_start"]
    if (budget := _budget(ctx, values.get("search", Specification.search), values["settings"])) is not None:
        values["budget"] = budget
    first = values.pop("seed", Specification.seed)
    return [Specification(**values, seed=first + run) for run in range(params["runs"])]


def threshold(text: str | None) -> float | str | None:
    """A threshold as `Specification` takes it, the command's default where none is given; None for `none`."""
    from weightlab.search import space

    text = options.THRESHOLD if text is None else text
    if text == "none":
        return None
    try:
        return space.threshold(float(text))
    except ValueError:
        return space.threshold(text)


def with_dataset(values: dict) -> dict:
    """Values of a setting with the dataset that its network was trained on, unless one is given."""
    if "network" not in values:
        raise UserError("give a network: one of the library, such as lenet5_tanh, or module:factory of your own")
    return values if "dataset" in values else values | {"dataset": dataset_of(values["network"])}


def _target(params: Mapping) -> "TargetRule":
    from weightlab.search.fitness import TargetRule

    accuracy, rate = options.pair("target", params["target"] or options.TARGET)
    form_options = {"form": params["target_form"]} if params["target_form"] else {}
    for part in ("limit", "offset"):
        if text := params[f"target_{part}"]:
            form_options |= zip((f"{part}_accuracy", f"{part}_rate"), options.pair(f"target-{part}", text), strict=True)
    return TargetRule(accuracy, rate, **form_options)


def search_settings(search: str, params: Mapping) -> dict:
    """The settings of a search, among them the size of its generations."""
    from weightlab import values

    settings = values.assigned(params["set"] or ())
    return settings if params["population"] is None else settings | {_size(search): params["population"]}


def _size(search: str) -> str:
    """What a search calls the number of plans in a generation."""
    from weightlab.search import SEARCHES

    choose("search", search, SEARCHES)
    allowed = {each.name for each in fields(SEARCHES[search].Settings)}
    return next(name for name in SIZES if name in allowed)


def _budget(ctx: typer.Context, search: str, settings: Mapping) -> int | None:
    """The budget in evaluations, given as such or in generations; None if neither is given.

    If both are given, the command line takes precedence over a configuration file.
    """
    budget, iterations = ctx.params["budget"], ctx.params["iterations"]
    if budget is not None and iterations is not None:
        sources = {name: ctx.get_parameter_source(name) for name in ("budget", "iterations")}
        typed = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
        if len(typed) != 1:
            raise UserError(f"give either budget or iterations, got {budget} and {iterations}")
        return budget if typed == ["budget"] else evaluations(search, settings, iterations)
    return budget if iterations is None else evaluations(search, settings, iterations)


def evaluations(search: str, settings: Mapping, iterations: int) -> int:
    """The evaluations that so many generations of a search take; the first may be larger than the others."""
    import numpy as np

    from weightlab import rng
    from weightlab.search import make, space

    check_whole("iterations", iterations)
    instance = make(search, space.full(2, [1, 2]), rng.derive(0), **settings)
    first = len(instance.ask())
    instance.tell(np.ones((first, 2)), lambda objectives: np.ones(len(objectives)))
    return first + (iterations - 1) * instance.size


# --- configuration files --------------------------------------------------------------------------------------------------------


def load(ctx: typer.Context, file: Path | None) -> Path | None:
    """Make a configuration file's values the defaults of a command; raises `UserError` for entries that are not its options."""
    if file is None:
        return None
    from weightlab import values

    allowed = {each.name.replace("_", "-"): each for each in ctx.command.params if each.name not in UNSAVED}
    ctx.default_map = {}
    for name, value in values.read_file(file, as_text=True).items():  # which options read as on the command line
        choose(f"entry of {file}", name, allowed)
        listed = isinstance(value, list) and all(isinstance(each, str) for each in value)
        if not listed and not isinstance(value, str):
            raise UserError(f"{name} in {file} must be a value or a list of values, got {value!r}")
        parameter = allowed[name]
        ctx.default_map[parameter.name] = ",".join(value) if listed and not parameter.multiple else value
    return file


def save(file: Path, spec: "Specification", runs: int, folder: Path) -> None:
    """Write what is searched as a configuration file, from the first of several runs."""
    import yaml

    from weightlab.search import SEARCHES

    published, target = SEARCHES[spec.search].Settings(), spec.target
    own = {name: value for name, value in asdict(spec)["settings"].items() if value != getattr(published, name)}
    values = {option.replace("_", "-"): getattr(spec, name) for option, name in NAMES.items() if option != "k"} | {
        "k": ",".join(map(str, spec.ks)) if spec.ks else f"1:{spec.k_max}",
        "threshold": "none" if spec.threshold is None else spec.threshold,
        "uniform-start": spec.uniform_start, "search": spec.search, "set": [f"{name}={value}" for name, value in own.items()],
        "budget": spec.budget,
        "target": f"{target.accuracy},{target.rate}", "target-form": target.form,
        "target-limit": f"{target.limit_accuracy},{target.limit_rate}",
        "target-offset": f"{target.offset_accuracy},{target.offset_rate}",
        "seed": spec.seed, "runs": runs, "folder": str(folder),
    }  # fmt: skip
    values = {name: value for name, value in values.items() if value is not None}
    output.write(file, yaml.safe_dump(values, sort_keys=False).encode())
