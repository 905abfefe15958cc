"""Where a command's plan comes from: its text, a file that `tune` wrote, or the best that a search has found."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from weightlab.cli import choices, hints, options, output
from weightlab.errors import UserError
from weightlab.runs.setting import Setting
from weightlab.settings import names

if TYPE_CHECKING:
    from weightlab.compression.sharing.clustering import Lift

APART = choices.APART  # what chooses among searches
KIND = [name for name in APART if name in names(Setting, "measured")]  # what a plan is of
FILED = (*KIND, "plan", "spread", "focuses")  # in a plan file
AGREEING = (*APART, "images", "checkpoint", "data")  # what searches must agree in, for their losses to be compared


@dataclass(frozen=True)
class Choice:
    """A plan (one int for the whole net), what it is measured on, and the lifted space of each layer's clustering.

    With `each` the plan is one number in a list, for every layer of a network that is yet to be looked at.
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


def chosen(said: Mapping) -> Choice:
    """The plan that options say; raises `UserError` for none, for two, and for options that contradict a file."""
    text, source = said["plan"], said["source"]
    if (text is None) == (source is None):
        raise UserError("say what to do with either --plan or --from a folder of searches")
    if source is not None:
        return _from_searches(Path(os.path.abspath(source)), said)
    if each := re.fullmatch(r"each:(\d+)", text):
        return Choice(choices.setting(said, whole_net=False), [int(each[1])], each=True)
    if plan := options.plan(text):
        if text.isdecimal():
            output.note(f"plan {text} is one codebook for the whole net; each:{text} gives every layer its own")
            return Choice(choices.setting(said, whole_net=True), plan[0])
        return Choice(choices.setting(said, whole_net=False), plan)
    if text.endswith(".json"):
        return _from_file(Path(text), said)
    raise UserError(
        "a plan is numbers of clusters such as 3,5,8,2,4 or 64x50, each:64, one number for the whole net, or a .json file of tune, "
        f"got {text!r}"
    )


def filed(choice: Choice) -> bytes:
    """A plan file."""
    values = {name: getattr(choice.setting, name) for name in KIND} | {"plan": choice.plan, "spread": choice.spread}
    return json.dumps(values | {"focuses": list(choice.focuses)}, indent=1).encode()


def _from_file(file: Path, said: Mapping) -> Choice:
    values = _read(file)
    if wrong := set(values) ^ set(FILED):
        raise UserError(f"{file} must hold {', '.join(FILED)}, as tune writes them; {', '.join(sorted(wrong))} differs")
    plan, focuses = values["plan"], values["focuses"]
    for name, value in _wanted(said).items():
        if value != values.get(name, value):
            raise UserError(f"{file} is a plan for {name} {values[name]}, the command says {value}")
    _check_said(file, values["network"], said)
    if not isinstance(plan, int | list) or not isinstance(focuses, list) or len(focuses) not in (0, len(_listed(plan))):
        raise UserError(f"{file} must hold a plan and as many focuses as it has numbers, got {plan!r} and {focuses!r}")
    if not all(isinstance(number, int | float) for number in [values["spread"], *focuses]):
        raise UserError(f"{file} must hold numbers as spread and focuses, got {values['spread']!r} and {focuses!r}")
    fixed = {name: values[name] for name in KIND}
    return Choice(choices.setting(said, **fixed, whole_net=isinstance(plan, int)), plan, values["spread"], tuple(focuses))


def _from_searches(folder: Path, said: Mapping) -> Choice:
    """The plan of highest storage rate that loses less than `within` where it was chosen."""
    import pandas as pd

    from weightlab.runs.folder import RunFolder
    from weightlab.runs.setting import PROTOCOLS
    from weightlab.runs.specifications import from_description

    values = _narrowed(folder, _wanted(said))
    records = {place: RunFolder(place).records() for place in values}
    found = [table.assign(place=place) for place, table in records.items() if table is not None]
    if not found:
        raise UserError(f"no search in {folder} is complete; run `weightlab search` on, then compress")
    table, within = pd.concat(found, ignore_index=True), said["within"]
    good = table[table["loss_pp"] < within].sort_values(["storage_rate", "loss_pp"], ascending=[False, True], kind="stable")
    if good.empty:
        raise UserError(
            f"none of the {len(table)} plans in {folder} loses less than {within:g} pp; the least is {table['loss_pp'].min():.2f} pp"
        )
    best = good.iloc[0]
    _check_said(best["place"] / "specification.json", values[best["place"]].get("network"), said)
    spec, plan = from_description(values[best["place"]]), best["plan"].tolist()
    hints.few_images(spec, within)
    print(f"plan {options.spelled(plan)}: the best of {len(table)} within {within:g} pp on {PROTOCOLS[spec.protocol]}")
    setting = spec if said["images"] is None else replace(spec, images=said["images"])
    return Choice(setting, plan[0] if spec.whole_net else plan)


def _narrowed(folder: Path, wanted: Mapping) -> dict[Path, dict]:
    """Descriptions of the searches in a folder that are of what is wanted, by their folders; they agree in what losses depend on."""
    places = (
        [folder] if (folder / "specification.json").exists() else [each.parent for each in folder.glob("*/specification.json")]
    )
    if not places:
        raise UserError(f"{folder} is neither a search's folder (with a specification.json) nor a folder of such")
    values = {place: _read(place / "specification.json") for place in sorted(places)}
    for name, value in wanted.items():
        there = dict.fromkeys(str(each.get(name)) for each in values.values())
        values = {place: each for place, each in values.items() if each.get(name) == value}
        if not values:
            raise UserError(f"no search in {folder} is of {name} {value}; there: {', '.join(there)}")
    for name in AGREEING:
        there = dict.fromkeys(str(each.get(name)) for each in values.values())
        if len(there) > 1:
            choice = f"name one in the command ({_said(name)}), or " if name in APART else ""
            raise UserError(
                f"{folder} holds searches of several kinds of {name} ({', '.join(there)}); {choice}give the folder of one search"
            )
    return values


def _wanted(said: Mapping) -> dict:
    """What options say of the kind of search, as descriptions hold it."""
    from weightlab import data
    from weightlab.networks import own as own_networks

    found = {name: value for name, value in choices.given(said).items() if name in APART}
    if "weights" in found:
        found["weights"] = own_networks.absolute(found["weights"])
    return found | ({"dataset": data.check(found["dataset"])} if "dataset" in found else {})


def _check_said(file: Path, network: object, said: Mapping) -> None:
    """Raise `UserError` if only a file names a network of a user's own, whose module would be imported."""
    from weightlab.networks import own as own_networks

    if own_networks.is_own(network) and said["network"] != network:
        raise UserError(
            f"{file} is of network {network!r}, and a file's own text is never imported: "
            "name that network in the command too, if its module may be run"
        )


def _read(file: Path) -> dict:
    try:
        values = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{file} must hold a mapping, got {type(values).__name__}")
    return values


def _said(name: str) -> str:
    """How a command says what a setting calls so."""
    option = next(option for option, its in choices.NAMES.items() if its == name)
    return "its first argument" if name == "network" else f"--{option}"


def _listed(plan: int | list[int]) -> list[int]:
    return [plan] if isinstance(plan, int) else plan
