"""Fields of settings: stated once, and everything else derived from them."""

import copy
import inspect
import pickle
from dataclasses import dataclass, fields, replace

import pytest

from weightlab.cli import app, choices, plans
from weightlab.compression.sharing.settings import Sharing
from weightlab.errors import UserError
from weightlab.explore import study
from weightlab.runs import Setting, Specification, records, status
from weightlab.runs.specifications import from_description
from weightlab.search.fitness import TargetRule
from weightlab.settings import Option, chosen, leaves, names

TARGET = TargetRule(0.99, 18.0)


@dataclass(frozen=True, kw_only=True)
class Rounded(Sharing):
    """Sharing with one more field, a line long."""

    rounding: str = chosen("", Option("rounding", "How centroids are rounded."), measured=True, later=True, column="how rounded")


def test_what_is_chosen_for_a_method_is_given_and_read_as_if_it_were_the_settings_own():
    setting = Setting("lenet5_tanh", format="float16", ks=[4, 2])
    assert setting == Setting("lenet5_tanh", compression=Sharing(format="float16", ks=(2, 4)))
    assert (setting.format, setting.ks, setting.k_max, setting.candidates) == ("float16", (2, 4), 4, (2, 4))
    assert replace(setting, method="kmeans").compression == Sharing(method="kmeans", format="float16", ks=(2, 4))
    assert Setting("lenet5_tanh", compression=Sharing(format="float16"), format="float32").format == "float32"
    for copied in (copy.deepcopy(setting), pickle.loads(pickle.dumps(setting))):
        assert copied == setting and copied.hash == setting.hash
    assert {each.name for each in fields(Sharing)} < set(inspect.signature(Specification).parameters)
    assert not hasattr(setting, "sparsity")
    with pytest.raises(TypeError, match="sparsity"):
        Setting("lenet5_tanh", sparsity=0.5)
    with pytest.raises(UserError, match="unknown format 'float64'"):
        replace(setting, format="float64")


def test_one_more_field_leaves_old_names_alone_and_makes_new_ones():
    old, new = Setting("lenet5_tanh"), Setting("lenet5_tanh", compression=Rounded())
    assert new.hash == old.hash and "rounding" not in new.describe()
    up = replace(new, rounding="up")
    assert up.rounding == "up" and up.describe()["rounding"] == "up" and up.hash != old.hash
    assert up.measured().rounding == "up" and up.measured().hash != old.measured().hash
    spec = Specification("lenet5_tanh", TARGET, compression=Rounded(rounding="up"))
    assert spec.describe()["rounding"] == "up" and spec.hash != Specification("lenet5_tanh", TARGET).hash


def test_a_description_is_read_back():
    for spec in (
        Specification("lenet5_tanh", TARGET),
        Specification("lenet5_relu", TARGET, "random", 3, 50, ks=[2, 9], images=70),
    ):
        assert from_description(spec.describe()) == spec


def test_every_list_follows_from_the_fields():
    measured, columns = set(names(Setting, "measured")), names(Specification, "column")
    assert [column.name for column in records.EVALUATIONS][: len(columns)] == columns
    assert set(columns) - {"seed"} | {"target"} == set(status.GROUP) < set(status.FIELDS)
    assert measured - {"weights", "k_max", "ks"} == study.SAME - {"checkpoint", "data", "schema"}
    assert set(plans.KIND) == measured & set(names(Setting, "apart"))
    commands = {
        command.callback.__name__: set(inspect.signature(command.callback).parameters) for command in app.registered_commands
    }
    asked = {role.option.name: role for _, role in leaves(Setting) if role.option}
    assert set(choices.NAMES) == set(asked) <= commands["search"]
    assert {name for name, role in asked.items() if role.measured or role.apart} == set(asked) & commands["scan"]
    for command in ("compress", "tune"):
        assert set(asked) & commands[command] == set(asked) - {"objective", "k", "whole_net"}
