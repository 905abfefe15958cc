"""Where a command's plan comes from: its text, a file that `tune` wrote, or the best that a search has found."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from weightlab.cli import choices, hints, options, output
from weightlab.compression.multipliers.settings import Multiplying
from weightlab.errors import UserError
from weightlab.runs.setting import Setting
from weightlab.settings import names

if TYPE_CHECKING:
    from weightlab.compression.sharing.clustering import Lift

APART = choices.APART  # fields that tell searches apart
KIND = [name for name in APART if name in names(Setting, "measured")]  # fields that a plan belongs to
FILED = (*KIND, "plan", "spread", "focuses")  # in a plan file
AGREEING = (*APART, "images", "checkpoint", "data")  # equal in all searches whose losses are compared


@dataclass(frozen=True)
class Choice:
    """A plan (one int for the whole net), what it is measured on, and the lifted space of each layer's clustering.

    With `each` the plan is one number in a list, for every layer of a network that has not been loaded yet.
    """

    setting: "Setting"
    plan: int | list[int]
    spread: float = 0.0
    focuses: tuple[float, ...] = ()
    each: bool = False

    def of(self, names: list[str]) -> "Choice":
        """The choice for a network of these layers."""
        return replace(self, plan=self.plan * len(names), each=False) if self.each else self

    def lifts(self, names: list[str]) -> "dict[str, Lift]":
        from weightlab.compression.sharing.clustering import Lift

        return {name: Lift(focus, self.spread) for name, focus in zip(names, self.focuses, strict=True)} if self.focuses else {}


def choice(params: Mapping) -> Choice:
    """The plan that options give; raises `UserError` for none, for two, and for options that contradict a file."""
    text, source = params["plan"], params["source"]
    if (text is None) == (source is None):
        raise UserError("give a plan, either with --plan or with --from and a folder of searches")
    if source is not None:
        return _from_searches(Path(os.path.abspath(source)), params)
    if each := re.fullmatch(r"each:(\d+)", text):
        return Choice(choices.setting(params, whole_net=False), [int(each[1])], each=True)
    if plan := options.plan(text):
        if text.isdecimal():
            output.note(f"plan {text} is one codebook for the whole net; each:{text} gives every layer its own")
            return Choice(choices.setting(params, whole_net=True), plan[0])
        return Choice(choices.setting(params, whole_net=False), plan)
    if text.endswith(".json"):
        return _from_file(Path(text), params)
    raise UserError(
        "a plan is numbers of clusters such as 3,5,8,2,4 or 64x50, each:64, one number for the whole net, or a .json file of tune, "
        f"got {text!r}"
    )


def filed(choice: Choice) -> bytes:
    """A plan file."""
    values = {name: getattr(choice.setting, name) for name in KIND} | {"plan": choice.plan, "spread": choice.spread}
    return json.dumps(values | {"focuses": list(choice.focuses)}, indent=1).encode()


def _from_file(file: Path, params: Mapping) -> Choice:
    values = _read(file)
    if wrong := set(values) ^ set(FILED):
        raise UserError(f"{file} must hold {', '.join(FILED)}, as tune writes them; {', '.join(sorted(wrong))} differs")
    plan, focuses = values["plan"], values["focuses"]
    for name, value in _kind_values(params).items():
        if value != values.get(name, value):
            raise UserError(f"{file} is a plan for {name} {values[name]}, the command says {value}")
    _check_named(file, values["network"], params)
    if not isinstance(plan, int | list) or not isinstance(focuses, list) or len(focuses) not in (0, len(_listed(plan))):
        raise UserError(f"{file} must hold a plan and as many focuses as it has numbers, got {plan!r} and {focuses!r}")
    if not all(isinstance(number, int | float) for number in [values["spread"], *focuses]):
        raise UserError(f"{file} must hold numbers as spread and focuses, got {values['spread']!r} and {focuses!r}")
    fixed = {name: values[name] for name in KIND}
    return Choice(choices.setting(params, **fixed, whole_net=isinstance(plan, int)), plan, values["spread"], tuple(focuses))


def _from_searches(folder: Path, params: Mapping) -> Choice:
    """The plan of highest storage rate that loses less than `within` where it was chosen."""
    import pandas as pd

    from weightlab.runs.folder import RunFolder
    from weightlab.runs.setting import PROTOCOLS
    from weightlab.runs.specifications import from_description

    values = _narrowed(folder, _kind_values(params))
    records = {place: RunFolder(place).records() for place in values}
    tables = [table.assign(place=place) for place, table in records.items() if table is not None]
    if not tables:
        raise UserError(f"no search in {folder} is complete; finish one with `weightlab search` first")
    table, within = pd.concat(tables, ignore_index=True), params["within"]
    good = table[table["loss_pp"] < within].sort_values(["storage_rate", "loss_pp"], ascending=[False, True], kind="stable")
    if good.empty:
        raise UserError(
            f"none of the {len(table)} plans in {folder} loses less than {within:g} pp; the least is {table['loss_pp'].min():.2f} pp"
        )
    best = good.iloc[0]
    _check_named(best["place"] / "specification.json", values[best["place"]].get("network"), params)
    spec, plan = from_description(values[best["place"]]), best["plan"].tolist()
    hints.few_images(spec, within)
    print(f"plan {options.spelled(plan)}: the best of {len(table)} within {within:g} pp on {PROTOCOLS[spec.protocol]}")
    setting = spec if params["images"] is None else replace(spec, images=params["images"])
    return Choice(setting, plan[0] if spec.whole_net else plan)


def _narrowed(folder: Path, kind: Mapping) -> dict[Path, dict]:
    """Descriptions of the searches of one kind in a folder, by their folders; they agree in all that losses depend on."""
    places = (
        [folder] if (folder / "specification.json").exists() else [each.parent for each in folder.glob("*/specification.json")]
    )
    if not places:
        raise UserError(f"{folder} must be the folder of a search (with a specification.json), or a folder of such folders")
    values = {place: _read(place / "specification.json") for place in sorted(places)}
    values = {place: each for place, each in values.items() if each.get("method") != Multiplying.method}
    if not values:
        raise UserError(f"{folder} holds only searches for multipliers, whose assignments are no plans of clusters")
    for name, value in kind.items():
        kinds = dict.fromkeys(str(each.get(name)) for each in values.values())
        values = {place: each for place, each in values.items() if each.get(name) == value}
        if not values:
            raise UserError(f"no search in {folder} has {name} {value}; allowed: {', '.join(kinds)}")
    for name in AGREEING:
        kinds = dict.fromkeys(str(each.get(name)) for each in values.values())
        if len(kinds) > 1:
            advice = f"name one in the command ({_option_name(name)}), or " if name in APART else ""
            raise UserError(
                f"{folder} holds searches with different {name} ({', '.join(kinds)}); {advice}give the folder of one search"
            )
    return values


def _kind_values(params: Mapping) -> dict:
    """The kind of search that options give, as descriptions hold it."""
    from weightlab import data
    from weightlab.networks import own as own_networks

    kind = {name: value for name, value in choices.setting_values(params).items() if name in APART}
    if "weights" in kind:
        kind["weights"] = own_networks.absolute(kind["weights"])
    return kind | ({"dataset": data.check(kind["dataset"])} if "dataset" in kind else {})


def _check_named(file: Path, network: object, params: Mapping) -> None:
    """Raise `UserError` if only a file names a network of a user's own, whose module would be imported."""
    from weightlab.networks import own as own_networks

    if own_networks.is_own(network) and params["network"] != network:
        raise UserError(
            f"{file} names network {network!r}, and no module is imported because a file names it; "
            "name the network in the command too if its module may be run"
        )


def _read(file: Path) -> dict:
    try:
        values = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{file} must hold a mapping, got {type(values).__name__}")
    return values


def _option_name(name: str) -> str:
    """What a command calls a field of a setting."""
    option = next(option for option, its in choices.NAMES.items() if its == name)
    return "its first argument" if name == "network" else f"--{option}"


def _listed(plan: int | list[int]) -> list[int]:
    return [plan] if isinstance(plan, int) else plan
