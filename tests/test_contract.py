"""What any compression method is held to, and methods side by side in one plan."""

import copy
import hashlib
import json
import math
import random
import zlib
from collections import Counter
from dataclasses import replace

import format_reader
import numpy as np
import pandas as pd
import pytest
import torch
import zstandard
from torch import nn

from weightlab import accounting, data, formats, models, packing, paths, sharing, training
from weightlab.compression import contract, kinds
from weightlab.compression.compressed import compressed
from weightlab.compression.contract import Labels, Method, Stored, Values
from weightlab.compression.mixed import Mixed
from weightlab.errors import UserError
from weightlab.evaluation import Evaluator
from weightlab.evaluation.stages import Stage
from weightlab.packing import compact_format
from weightlab.runs import loop
from weightlab.search import make
from weightlab.search.fitness import Target, TargetRule
from weightlab.search.space import IntegerSpace
from weightlab.sharing import Codebooks


class Cast:
    """The smallest second method: variant i stores every weight of a layer in the i-th number format."""

    def __init__(self, model, names):
        self.layers, self._formats = models.layers(model), [formats.get(name) for name in names]
        self._weights = [models.weight(model, layer.name).detach().numpy() for layer in self.layers]

    @property
    def names(self):
        return [layer.name for layer in self.layers]

    @property
    def groups(self):
        return np.arange(len(self.layers))

    def count(self, group):
        return len(self._formats)

    def weight(self, layer, variant):
        return torch.from_numpy(self._formats[variant - 1].round(self._weights[layer]).astype(np.float32))

    def bits(self, plans):
        return np.array([each.bits for each in self._formats])[np.asarray(plans) - 1] * contract.weights(self)

    thesis_bits = bits

    def stored(self, group, variant):
        format = self._formats[variant - 1]
        return Stored("values", {"values": Values(self.weight(group, variant).numpy().ravel(), format.name)})

    def describe(self):
        return {"formats": [each.name for each in self._formats]}


def grid(labels, low, step):
    return Stored("grid", {"labels": Labels(np.array(labels, np.uint8), 2)}, {"low": low, "step": step})


def codebook(centroids, labels, k):
    parts = {"centroids": Values(np.array(centroids, np.float32), "float16")}
    parts |= {} if labels is None else {"labels": Labels(np.array(labels, np.uint8), 2)}
    return Stored("codebook", parts, {"k": k})


@pytest.fixture(scope="module")
def lenet5():
    return models.load("lenet5_tanh")


@pytest.fixture(scope="module")
def split():
    return data.load("mnist", "validation").first(300)


SHARED = (2, 3, 8)
OPTIONS = [*(("sharing", k) for k in SHARED), ("cast", 1), ("cast", 2)]


@pytest.fixture(scope="module")
def methods(lenet5):
    mixed = {"sharing": Codebooks(lenet5, ks=SHARED), "cast": Cast(lenet5, ["float16", "float8_e4m3"])}
    return mixed | {
        "mixed": Mixed(mixed, [OPTIONS] * 5),
        "whole net": Codebooks(lenet5, ks=SHARED, whole_net=True),
    }


@pytest.fixture(params=["sharing", "cast", "mixed", "whole net"])
def method(request, methods):
    return methods[request.param]


def plans_of(method, n=4):
    most = [min(5, method.count(group)) for group in range(len(method.names))]
    return np.random.default_rng(0).integers(1, np.array(most) + 1, (n, len(most)))


def written(method, model, plan):
    """A copy of the network with a plan's weights in it."""
    copy = models.copied(model)
    contract.apply(method, copy, plan)
    return copy


def test_a_method_says_all_that_is_asked_of_it(method, lenet5):
    assert isinstance(method, Method)
    assert len(method.groups) == len(method.layers) == 5 and set(method.groups) == set(range(len(method.names)))
    assert contract.weights(method).sum() == 61_470
    plans = plans_of(method)
    assert method.bits(plans).shape == method.thesis_bits(plans).shape == plans.shape
    assert (method.bits(plans) > 0).all() and method.describe() == method.describe()
    for layer, group in enumerate(method.groups):
        weight = method.weight(layer, int(plans[0, group]))
        assert weight.dtype == torch.float32 and weight.shape == models.weight(lenet5, method.layers[layer].name).shape


def test_what_is_measured_is_the_network_with_the_plans_weights(method, lenet5, split):
    engine = Evaluator(lenet5, method, [split], "cpu", threads=1)
    plans = plans_of(method)
    expected = [training.accuracy(written(method, lenet5, plan), split, "cpu") for plan in plans]
    np.testing.assert_allclose(engine.accuracy(plans)[:, 0], expected, atol=1e-12)
    assert engine.measure(plans)["storage_rate"].tolist() == contract.rates(method, plans)["storage_rate"].tolist()


def test_zero_leaves_a_group_as_it_is_where_that_is_allowed(method, lenet5):
    plan = np.zeros(len(method.names), int)
    copy = written(method, lenet5, plan)
    assert all(torch.equal(value, copy.state_dict()[name]) for name, value in lenet5.state_dict().items())
    with pytest.raises(UserError, match=r"takes a whole number from 1 to \d+, got 0"):
        contract.check(method, plan)


def test_a_number_that_there_is_not_is_refused(method):
    plan = [1] * len(method.names)
    plan[-1] = method.count(len(plan) - 1) + 1
    with pytest.raises(UserError, match=rf"takes a whole number from 1 to {plan[-1] - 1}, got {plan[-1]}"):
        contract.check(method, plan)


def test_a_mix_of_one_method_is_that_method(methods, lenet5):
    books, plans = methods["sharing"], np.array([[1, 2, 3, 1, 2], [3, 3, 3, 3, 3]])
    alone = Mixed({"only": books}, [[("only", k) for k in SHARED]] * 5)
    ks = np.array(SHARED)[plans - 1]
    for name, rate in contract.rates(alone, plans).items():
        np.testing.assert_array_equal(rate, books.rates(ks)[name])
    copies = [written(alone, lenet5, plans[0]), written(books, lenet5, ks[0]), sharing.share(lenet5, ks[0].tolist())[0]]
    states = [copy.state_dict() for copy in copies]
    assert all(torch.equal(value, other[name]) for other in states[1:] for name, value in states[0].items())


def test_the_rate_of_a_mix_counts_each_layer_as_its_method_does(methods):
    mixed, plan = methods["mixed"], np.array([1, 2, 4, 5, 3])  # k = 2, k = 3, float16, float8, k = 8
    p = contract.weights(mixed)
    bits = [p[0] + 2 * 32, 2 * p[1] + 3 * 32, 16 * p[2], 8 * p[3], 3 * p[4] + 8 * 32]
    assert mixed.bits(plan).tolist() == bits
    assert contract.rates(mixed, plan)["storage_rate"] == pytest.approx(accounting.ORIGINAL_BITS * p.sum() / sum(bits))


def test_a_search_runs_over_a_mix_of_sharing_and_casting(methods, lenet5, split, tmp_path):
    mixed = methods["mixed"]
    engine = Evaluator(lenet5, mixed, [split], "cpu", threads=1)
    space = IntegerSpace(tuple(np.arange(1, mixed.count(group) + 1) for group in range(5)))

    def measure(plans):
        table = engine.measure(plans)
        return table.assign(accuracy=table["validation_accuracy"], rate=table["storage_rate"])

    def run(folder):
        search = make("genetic", space, np.random.default_rng(1), population=12)
        return loop.run(search, Target(TargetRule(0.99, 12.0)), measure, 60, tmp_path / folder)

    records = run("first")
    assert records["fitness"].max() > records["fitness"][:12].max()
    assert {kind for plan in records["plan"] for kind in np.array([name for name, _ in OPTIONS])[plan - 1]} == {"sharing", "cast"}
    best = records.loc[records["fitness"].idxmax()]
    assert training.accuracy(written(mixed, lenet5, best["plan"]), split, "cpu") == best["accuracy"]
    pd.testing.assert_frame_equal(run("second"), records)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([OPTIONS] * 4, "a list of options for each of the 5 layers"),
        ([[]] * 5, "a list of options for each of the 5 layers"),
        ([[("pruning", 1)]] * 5, r"layer feature_extractor.0 has no option \('pruning', 1\)"),
        ([[("cast", 3)]] * 5, r"layer feature_extractor.0 has no option \('cast', 3\)"),
        ([[("sharing", 0)]] * 5, r"layer feature_extractor.0 has no option \('sharing', 0\)"),
    ],
)
def test_a_mix_that_does_not_fit_is_refused(methods, options, sentence):
    with pytest.raises(UserError, match=sentence):
        Mixed({name: methods[name] for name in ("sharing", "cast")}, options)
    with pytest.raises(UserError, match="whole net has different ones"):
        Mixed({name: methods[name] for name in ("sharing", "whole net")}, [[("sharing", 2)]] * 5)


# --- other operations -----------------------------------------------------------------------------------------------------------


class Coarse(nn.Module):
    """A layer that sees its input rounded to a number of steps between -1 and 1, which no other weight could do."""

    def __init__(self, layer, steps):
        super().__init__()
        self.layer, self.steps = layer, steps

    def forward(self, x):
        return self.layer(torch.round(x.clamp(-1, 1) * self.steps) / self.steps)


class SideBySide:
    """Its stage: the tail of the module, run once for each variant; `wrong` is added to every output."""

    def __init__(self, module, wrong):
        self.tail = module[1:] if isinstance(module, nn.Sequential) else nn.Identity()
        self.wrong, self.calls = wrong, 0

    def __call__(self, x, variants):
        CALLS.append(len(variants))
        return [self.tail(layer(x)) + self.wrong for (layer,) in variants]


CALLS = []


class CoarseInputs(Cast):
    """A method that replaces what a layer computes: variant i has STEPS[i - 1] steps."""

    STEPS = (8, 2, 1)

    def __init__(self, model, stage=False, wrong=0.0):
        super().__init__(model, ["float32"])
        self._modules = [copy.deepcopy(model.get_submodule(layer.name)) for layer in self.layers]
        self._stage, self._wrong = stage, wrong

    def count(self, group):
        return len(self.STEPS)

    def weight(self, layer, variant):
        return Coarse(self._modules[layer], self.STEPS[variant - 1])

    def bits(self, plans):
        return contract.weights(self) * np.asarray(plans) * 8

    thesis_bits = bits

    def stage(self, module, layers, shape):
        return SideBySide(module, self._wrong) if self._stage else None


@pytest.mark.parametrize("stage", [False, True])
def test_a_method_may_replace_what_layers_compute(lenet5, split, stage):
    coarse = CoarseInputs(lenet5, stage)
    assert isinstance(coarse, contract.Operations)
    CALLS.clear()
    engine = Evaluator(lenet5, coarse, [split], "cpu", threads=2)
    plans = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 2], [1, 1, 1, 2, 3], [3, 3, 3, 3, 3], [2, 1, 3, 2, 1]])
    expected = [training.accuracy(written(coarse, lenet5, plan), split, "cpu") for plan in plans]
    assert engine.accuracy(plans)[:, 0].tolist() == expected and len(set(expected)) > 2
    assert engine.computed.tolist() == [900, 900, 900, 1200, 1500]  # 300 images: what plans have in common is computed once
    assert bool(CALLS) == stage
    some = [[0, 0, 0, 0, 0], [0, 2, 0, 0, 3]]
    expected = [training.accuracy(written(coarse, lenet5, plan), split, "cpu") for plan in some]
    assert engine.accuracy(some, partial=True)[:, 0].tolist() == expected
    assert all(not isinstance(module, Coarse) for module in lenet5.modules())
    with pytest.raises(UserError, match="CoarseInputs may replace operations, so it needs an evaluator of its own"):
        engine.under(coarse)


def test_a_stage_that_does_not_compute_what_its_modules_do_is_noticed(lenet5, split):
    wrong = CoarseInputs(lenet5, stage=True, wrong=0.01)
    with pytest.warns(UserWarning, match="is measured by its plain forward pass"):
        engine = Evaluator(lenet5, wrong, [split], "cpu", threads=1)
    plans = [[1, 2, 3, 2, 1], [3, 3, 3, 3, 3]]
    expected = [training.accuracy(written(wrong, lenet5, plan), split, "cpu") for plan in plans]
    assert engine.accuracy(plans)[:, 0].tolist() == expected


def test_other_weights_and_other_operations_stand_in_one_plan(methods, lenet5, split):
    options = [("sharing", 3), ("coarse", 2), ("cast", 1)]
    mixed = Mixed(
        {"sharing": methods["sharing"], "cast": methods["cast"], "coarse": CoarseInputs(lenet5, stage=True)}, [options] * 5
    )
    engine = Evaluator(lenet5, mixed, [split], "cpu", threads=1)
    plans = [[1, 2, 3, 2, 1], [2, 1, 3, 2, 2], [2, 2, 2, 2, 2]]
    expected = [training.accuracy(written(mixed, lenet5, plan), split, "cpu") for plan in plans]
    assert engine.accuracy(plans)[:, 0].tolist() == expected


def test_modules_are_taken_out_again_and_a_network_may_be_one_layer():
    layer, x = nn.Linear(4, 3), torch.rand(5, 4)
    stage = Stage(layer, ("weight",), x.shape[1:])
    other = Coarse(copy.deepcopy(layer), 2)
    assert torch.equal(stage.output(x, (other,), torch.Size([3])), other(x))
    assert torch.equal(stage.output(x, (layer.weight,), torch.Size([3])), layer(x))
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(layer))
    with contract.replaced(model, {"1.0": other}):
        assert model[1][0] is other
    assert model[1][0] is layer


# --- files ----------------------------------------------------------------------------------------------------------------------


DICTIONARY = format_reader.dictionary((paths.root() / "docs" / "format.md").read_text())


def reread(content):
    """All tensors of a file of either version, by the reader made from the document."""
    if content.startswith(b"WLAB"):
        return format_reader.read_second(content, DICTIONARY, zstandard.decompress)
    return format_reader.read(content, zstandard.decompress)


def packed(model, compressed_network, folder, **options):
    """What is read of a file in which a network lies, once by the library and once by the reader made from the document."""
    file = folder / "file.safetensors"
    file.write_bytes(packing.pack_compressed(model, compressed_network, **options))
    read = packing.read(file)
    other = reread(read.content)
    state = read.state_dict()
    assert set(state) == set(other)
    for name, value in state.items():
        plain = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        assert np.array_equal(plain, other[name], equal_nan=value.is_floating_point()), name
    return read


@pytest.mark.parametrize("entropy_coded", [True, False])
def test_every_method_is_packed_and_comes_back_bit_for_bit(method, lenet5, tmp_path, entropy_coded):
    for plan in plans_of(method):
        read = packed(lenet5, compressed(method, plan, "some method"), tmp_path, entropy_coded=entropy_coded)
        expected = written(method, lenet5, plan).state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in read.load(lenet5).state_dict().items())
        assert read.report()["stored_bits"].tolist() == method.bits(plan).tolist()
        for name in ("storage_rate", "layer_mean_rate"):
            assert read.summary()[name] == pytest.approx(float(contract.rates(method, plan)[name]))
        assert read.summary()["payload_bytes"] <= read.summary()["predicted_bytes"] + len(method.names)


def test_codebooks_in_one_format_are_a_file_of_version_1_as_ever(methods, lenet5, tmp_path):
    plan = [2, 3, 8, 2, 3]
    options = {"network": "lenet5_tanh", "accuracy": [{"split": "test", "images": 3, "original": 1.0, "packed": 0.5}]}
    content = packing.pack(lenet5, plan, **options)
    assert packing.pack_compressed(lenet5, compressed(methods["sharing"], plan, "exact"), **options) == content
    mixed = Mixed({"only": methods["sharing"]}, [[("only", k) for k in SHARED]] * 5)
    read = packed(lenet5, compressed(mixed, [1, 2, 3, 1, 2], "mixed"), tmp_path)
    assert not read.content.startswith(b"WLAB") and read.details.plan == plan
    assert packed(lenet5, compressed(methods["mixed"], [1, 2, 4, 5, 3], "mixed"), tmp_path).content.startswith(b"WLAB")


def test_labels_of_version_2_take_the_smallest_coding(methods, lenet5, tmp_path):
    content = compressed(methods["mixed"], [1, 2, 3, 5, 3], "mixed")
    read, plain = (packed(lenet5, content, tmp_path, entropy_coded=coded).report() for coded in (True, False))
    assert "adaptive" in read["coding"].tolist() and set(plain["coding"]) == {"packed", "none"}
    assert (read["bytes"] <= plain["bytes"]).all() and read["bytes"].sum() < 0.97 * plain["bytes"].sum()


def test_what_was_changed_after_a_plan_was_chosen_is_packed(methods, lenet5, tmp_path):
    """Other codebooks than clustering makes, and other biases, as compensation and tuning leave them."""
    before = compressed(methods["sharing"], [3] * 5, "exact")
    first, *others = before.stored
    centroids = Values(first.parts["centroids"].numbers + np.float32(0.01), "float32")
    bias = lenet5.state_dict()["classifier.0.bias"] + 1
    after = replace(
        before,
        stored=[replace(first, parts=dict(first.parts) | {"centroids": centroids}), *others],
        tensors={"classifier.0.bias": bias},
    )
    read, expected = packed(lenet5, after, tmp_path).load(lenet5).state_dict(), after.apply(lenet5).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in read.items())
    original, plain = lenet5.state_dict(), before.apply(lenet5).state_dict()
    assert {name for name in read if not torch.equal(read[name], plain[name])} == {
        "feature_extractor.0.weight",
        "classifier.0.bias",
    }
    assert torch.equal(lenet5.state_dict()["classifier.0.bias"], original["classifier.0.bias"])
    assert (
        packing.read(tmp_path / "file.safetensors").details.source_sha256
        == packing.read(
            packing.write(tmp_path / "plain.safetensors", lenet5, [3] * 5) and tmp_path / "plain.safetensors"
        ).details.source_sha256
    )
    for name, tensor in (
        ("classifier.0.bias", bias[:3]),
        ("classifier.0.weight", lenet5.classifier[0].weight),
        ("no such", bias),
    ):
        with pytest.raises(UserError, match=f"{name} must be another tensor of the network, of shape"):
            packing.pack_compressed(lenet5, replace(before, tensors={name: tensor}))
    with pytest.raises(UserError, match="the network has no tensor no such of shape"):
        replace(before, tensors={"no such": bias}).apply(lenet5)


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        (Stored("circuit", {}), "unknown kind of stored weights 'circuit'; allowed: codebook, grid, values"),
        (Stored("values", {}), "have the parts values and the settings none, got  and none"),
        (Stored("values", {"values": Values(np.zeros(3, np.float32), "float16")}), "4 weights need 4 values, got 3"),
        (Stored("values", {"values": Values(np.zeros(4, np.float32), "float16")}, {"k": 1}), "and the settings none, got values and k"),
        (codebook([0, 1], [0, 1, 1], 2), r"4 weights need 4 labels below 2, got 3 up to 1"),
        (codebook([0, 1], [0, 1, 1, 2], 2), r"4 weights need 4 labels below 2, got 4 up to 2"),
        (codebook([0, 1, 2], [0, 1, 1, 2], 2), "has 1 to 4 centroids and k from their number to 65536, got 3 at k = 2"),
        (codebook([0, 1, 2], [0, 1, 1, 2], 3.0), "has 1 to 4 centroids and k from their number to 65536, got 3 at k = 3.0"),
        (codebook([0, 1], [0, 1, 1, 0], 65_537), "has 1 to 4 centroids and k from their number to 65536, got 2 at k = 65537"),
        (codebook([0, 1], [0, 1, 1, 0], 1 << 64), "has 1 to 4 centroids and k from their number to 65536, got 2 at k = 18446744073709551616"),
        (codebook([0, 1], None, 2), "a codebook without labels has one centroid, got 2"),
        (grid([0, 1, 3], 0.0, 0.5), "4 weights need 4 labels, got 3"),
        (grid([0, 1, 3, 2], 0, 0.5), "a grid needs finite numbers low and step, got 0 and 0.5"),
        (grid([0, 1, 3, 2], 0.0, math.inf), "a grid needs finite numbers low and step, got 0.0 and inf"),
        (grid([0, 1, 3, 2], 0.0, 3e38), "a grid holds numbers beyond float32"),
    ],
)  # fmt: skip
def test_parts_that_make_no_weights_are_refused(stored, sentence):
    with pytest.raises(UserError, match=sentence):
        kinds.weights(stored, 4)


VALUES = "feature_extractor.6.weight"  # stored as float16 in what follows


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda group: group.update(kind="circuit"), "groups.2.kind"),
        (lambda group: group.update(kind="codebook"), f"the parts of '{VALUES}' cannot be decoded"),
        (lambda group: group.update(settings={"k": 3}), f"the parts of '{VALUES}' cannot be decoded"),
        (lambda group: group.update(settings={f"k{i}": 3 for i in range(150_000)}), "more than 16 entries"),
        (lambda group: group.update(settings={"k": [3]}), "groups.2.settings"),
        (lambda group: group.update(parts={}), "its parts and tensors take"),
        (lambda group: group["parts"].update(more={"n": 3, "format": "float16"}), "its parts and tensors take"),
        (lambda group: group["parts"].update(values={"n": 24_000, "format": "float32"}), f"the parts of '{VALUES}' cannot be decoded"),
        (lambda group: group["parts"].update(values={"bits": 16, "coding": "packed", "length": 96_000}), "cannot be decoded"),
        (lambda group: group["parts"].update(values={"bits": 16, "coding": "range", "length": 96_000}), "are not 48000 labels, coded as range"),
        (lambda group: group.update(weights=[[VALUES, [3]]]), "3 weights need 3 values, got 48000"),
        (lambda group: group.update(weights=[[VALUES, [1 << 60]]]), "would unpack to"),
        (lambda group: group.update(weights=[["classifier.0.weight", [48_000]]]), "that has no place in its network"),
        (lambda group: group.update(weights=[["\ud800", [48_000]]]), "its metadata cannot be read (UnicodeEncodeError"),
    ],
)  # fmt: skip
def test_metadata_of_version_2_that_do_not_fit_are_refused(methods, lenet5, tmp_path, change, words):
    content = packing.pack_compressed(lenet5, compressed(methods["mixed"], [1, 2, 4, 5, 3], "mixed"))
    refused(tmp_path, resealed(content, lambda values: change(values["groups"][2])), words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values.update(plan=[1]), "its plan has 1 numbers for 5 groups"),
        (lambda values: values.update(groups=[]), "groups"),
        (lambda values: values.update(version=2), "unknown entry 'version'"),
        (lambda values: values.update(source="z" * 16), "source"),
        (lambda values: values.update(same={"more": "nothing"}), "is stored as 'nothing', which is missing"),
        (lambda values: values["tensors"][0].update(shape=[7]), "its parts and tensors take"),
        (lambda values: values["tensors"][0].update(type="F8_E4M3"), "tensors.0"),
        (lambda values: values["tensors"].append({"name": "more", "shape": [3], "type": "I8", "value": 1000}), "of I8 cannot hold 1000"),
        (lambda values: values["tensors"].append({"name": "more", "shape": [3], "type": "I8", "value": 0.5}), "of I8 cannot hold 0.5"),
        (lambda values: values["tensors"].append({"name": "more", "shape": [3], "type": "U8", "value": -1}), "of U8 cannot hold -1"),
        (lambda values: values["tensors"].append({"name": "more", "shape": [3], "type": "F16", "value": 65520.0}), "of F16 cannot hold 65520.0"),
        (lambda values: values["tensors"].append({"name": "more", "shape": [1 << 50], "type": "F32", "value": 0.5}), "would unpack to"),
        (lambda values: values["tensors"].append({"name": "more", "shape": [1 << 62, 4, 4], "type": "F32", "value": 0.5}), "would unpack to"),
        (lambda values: values["tensors"].append({"name": "more", "shape": [3]}), "tensors.5"),
        (lambda values: values["tensors"].append(values["tensors"][0] | {"value": 0.0}), "that has no place in its network"),
    ],
)  # fmt: skip
def test_other_metadata_of_version_2_that_do_not_fit_are_refused(methods, lenet5, tmp_path, change, words):
    content = packing.pack_compressed(lenet5, compressed(methods["mixed"], [1, 2, 4, 5, 3], "mixed"))
    refused(tmp_path, resealed(content, change), words, other="version" not in words and words != "source")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:4] + b"\x03" + content[5:], "it has version 3 of the format, this weightlab reads up to 2"),
        (lambda content: content[:10], "it has version 0 of the format"),
        (lambda content: content[:13] + bytes([255] * 4) + content[17:], "it declares metadata of 4294967295 bytes"),
        (lambda content: content[:13] + bytes(4) + content[17:], "it declares metadata of 0 bytes"),
        (lambda content: content[:17] + bytes(8) + content[25:], "its metadata cannot be read"),
        (lambda content: content[:-1], "its checksum is wrong"),
        (lambda content: content + b"\0", "its checksum is wrong"),
        (lambda content: content[:-9] + bytes(9), "its checksum is wrong"),
        (lambda content: rewritten(content, "utf-16"), "its metadata cannot be read (UnicodeDecodeError"),
        (lambda content: rewritten(content, "utf-16-le"), "its metadata cannot be read (JSONDecodeError"),
        (lambda content: rewritten(content, "utf-8-sig"), "its metadata cannot be read (JSONDecodeError"),
        (lambda content: compact_format.sealed(json.loads("[" * 900 + "]" * 900), b""), "its metadata cannot be read"),
        (
            lambda content: compact_format.sealed({"written_by": "x" * (3 << 20)}, b""),
            "its metadata are not one stream of at most",
        ),
    ],
)
def test_damaged_files_of_version_2_are_refused(methods, lenet5, tmp_path, damage, words):
    content = packing.pack_compressed(lenet5, compressed(methods["mixed"], [1, 2, 4, 5, 3], "mixed"))
    refused(tmp_path, damage(content), words)


def rewritten(content, encoding):
    """A file of version 2 with the text of its metadata in another encoding, sealed."""
    start = compact_format.parse(content)[1]
    stream = zlib.decompressobj(-15, compact_format.DICTIONARY).decompress(content[17:start])
    deflater = zlib.compressobj(9, wbits=-15, zdict=compact_format.DICTIONARY)
    packed = deflater.compress(stream.decode().encode(encoding)) + deflater.flush()
    blank = content[:5] + bytes(8) + len(packed).to_bytes(4, "little") + packed + content[start:]
    return blank[:5] + hashlib.sha256(blank).digest()[:8] + blank[13:]


EMPTY = {  # labels that are none
    "zstd": zstandard.ZstdCompressor().compress(b""),
    "range": bytes([12, 1, 0, 0, 8, 128, 0, 128, 0, 0]),  # two counts of 2 048, and the state 2**23
}


@pytest.mark.parametrize("coding", EMPTY)
def test_a_coded_tensor_without_values_is_refused(methods, lenet5, tmp_path, coding):
    """Both codings can hold no labels at all, whose largest numpy cannot tell."""
    labels = {"bits": 8, "coding": coding, "length": len(EMPTY[coding])}
    more = {"name": "more", "shape": [0], "kind": "grid", "settings": {"low": 0.0, "step": 1.0}, "parts": {"labels": labels}}
    content = packing.pack_compressed(lenet5, compressed(methods["mixed"], [1, 2, 4, 5, 3], "mixed"))
    changed = resealed(content, lambda values: values["tensors"].append(more), EMPTY[coding])
    refused(tmp_path, changed, f"the labels of 'more' are not 0 labels, coded as {coding}")


def test_every_part_counts_in_what_a_file_would_unpack_to(tmp_path):
    """Sixteen parts of labels took four times what is allowed before the kind told that it needs but one."""
    frame = zstandard.ZstdCompressor().compress(bytes(4 << 20))
    labels = {"bits": 8, "coding": "zstd", "length": len(frame)}
    group = {
        "kind": "grid",
        "settings": {"low": 0.0, "step": 1.0},
        "parts": {f"labels{number or ''}": labels for number in range(16)},
        "weights": [["a", [4 << 20]]],
        "error": 0.0,
    }
    values = {"written_by": "", "method": "", "groups": [group], "original_bytes": 1, "source": "0" * 16}
    refused(tmp_path, compact_format.sealed(values, 16 * frame), "would unpack to")


def resealed(content, change, more=b""):
    """A file of version 2 with other metadata, more data at its end, and a right checksum."""
    details, start = compact_format.parse(content)
    values = json.loads(details.model_dump_json(exclude_defaults=True))
    change(values)
    return compact_format.sealed(values, content[start:] + more)


def refused(folder, content, words, other=True):
    (folder / "file").write_bytes(content)
    with pytest.raises(UserError, match="is not a packed network that can be trusted") as error:
        packing.read(folder / "file")
    assert words in str(error.value)
    if other and "would unpack to" not in words:
        with pytest.raises(ValueError):
            reread(content)


def test_tensors_of_all_kinds_come_back_from_version_2(lenet5, tmp_path):
    """Constant ones without a byte, others raw, coded on a grid or as float16, empty and single ones."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    model.register_buffer("flags", torch.tensor([True, False]))
    model.register_buffer("nothing", torch.zeros(0, 3))
    model.register_buffer("minus", torch.tensor([-0.0, -0.0]))
    model.register_buffer("zeros", torch.tensor([0.0, -0.0]))
    model.register_buffer("unfinished", torch.full((3,), float("nan")))
    model.register_buffer("many", torch.full((10_000,), 7, dtype=torch.int16))
    model.register_buffer("narrow", torch.full((5,), 0.1, dtype=torch.bfloat16))
    books = Codebooks(model, ks=[2], example=torch.zeros(1, 1, 4, 4))
    grid = Stored("grid", {"labels": Labels(np.array([0, 3, 255], np.uint8), 8)}, {"low": -0.25, "step": 0.125})
    changed = replace(compressed(books, [2, 2], "exact"), others={"3.bias": (grid, (3,))})
    read = packed(model.eval(), changed, tmp_path, rest="float16")
    state, expected = read.state_dict(), changed.apply(model).state_dict()
    assert state["3.bias"].tolist() == [-0.25, 0.125, 31.625]
    for name, value in expected.items():
        if not name.startswith(("0.", "1.", "unfinished")):
            assert torch.equal(state[name], value) and state[name].dtype == value.dtype, name
            assert torch.equal(state[name].signbit(), value.signbit())
    assert state["unfinished"].isnan().all() and state["0.bias"].equal(model[0].bias.half().float())
    assert read.rest_bytes == 3 + 2 + 2 * 4 + 2 * 2 + 4 * 3  # grid, flags, bias, zeros, NaN; all else is constant or empty


def test_mutated_files_of_version_2_are_refused_or_good(tmp_path):
    """Metadata and data are changed at random, sealed again, and read by both readers, which never disagree."""
    model = nn.Sequential(*(nn.Linear(30, 30) for _ in range(5)))
    mixed = Mixed({"sharing": Codebooks(model, ks=SHARED), "cast": Cast(model, ["float16", "float8_e4m3"])}, [OPTIONS] * 5)
    content = packing.pack_compressed(model, compressed(mixed, [1, 2, 3, 5, 3], "mixed"), rest="float16")
    details, start = compact_format.parse(content)
    chance, outcomes = random.Random(5), Counter()
    for _ in range(400):
        values, data = json.loads(details.model_dump_json(exclude_defaults=True)), bytearray(content[start:])
        if chance.random() < 0.6:
            place, key = chance.choice(list(places(values)))
            place[key] = chance.choice(
                [0, 1, -1, 3, 255, 1 << 16, 1 << 62, 0.5, "zstd", "range", "packed", "grid", [], {}, None, [7]]
            )
        else:
            at = chance.choice([chance.randrange(len(data)), chance.randrange(60)])
            if chance.random() < 0.3:
                del data[at:]
            else:
                data[at] ^= 1 << chance.randrange(8)
        file = tmp_path / "file"
        file.write_bytes(compact_format.sealed(values, bytes(data)))
        try:
            state = packing.read(file).state_dict()
        except UserError as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
            continue
        other = reread(file.read_bytes())
        assert all(np.array_equal(value.numpy(), other[name], equal_nan=True) for name, value in state.items())
        outcomes["good"] += 1
    assert min(outcomes["refused"], outcomes["good"]) > 20


def places(values):
    """Every place in nested lists and objects, as a container and a key."""
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        yield values, key
        if isinstance(value, dict | list):
            yield from places(value)
