"""The packed file: exact on reading, as small as the storage rate says, and refused when it is anything else."""

import hashlib
import json
import math
import os
import re
import struct
import subprocess
import sys
from functools import cache

import format_reader
import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

from weightlab import accounting, data, formats, models, packing, paths, sharing, training
from weightlab.compression.sharing.clustering import Lift
from weightlab.errors import UserError
from weightlab.packing import label_coding, metadata, packed_format

FORMATS = list(formats.FORMATS)
PLAN = [3, 5, 8, 2, 4]
MOBILENETS_PLAN = list(range(1, 54))


@pytest.fixture(scope="module")
def lenet5():
    return models.load("lenet5_tanh")


@pytest.fixture(scope="module")
def mobilenet():
    return models.load("mobilenet_v2_fashion")


@pytest.fixture(scope="module")
def books():
    """Codebooks of a network for a plan, of which each is made once for all tests here."""
    made = cache(lambda model, whole_net, format: sharing.codebooks(model, 2 if whole_net else [2], format))
    return lambda model, plan, format: made(model, isinstance(plan, int), format)


@pytest.fixture(scope="module")
def images():
    return data.load("mnist", "validation").images[:200]


def logits(model, images):
    return training.logits(model, images, "cpu")


def edited(content, change=lambda values: None, tensors=lambda found: None):
    """A packed file with other metadata or tensors, and the checksum that belongs to it: what only an attacker does."""
    details, _ = metadata.parse(content)
    values, found = json.loads(details.model_dump_json()) | {"sha256": packed_format.UNSEALED}, load(content)
    change(values)
    tensors(found)
    return packed_format.seal(save(found, {metadata.KEY: json.dumps(values, separators=(",", ":"))}))


def refused(tmp_path, content, *words):
    """The one sentence of the refusal."""
    file = tmp_path / "file.safetensors"
    file.write_bytes(content)
    with pytest.raises(UserError) as error:
        packing.read(file)
    message = str(error.value)
    assert message.startswith(f"{file} is not a packed network that can be trusted: ") and "\n" not in message
    for word in words:
        assert word in message
    return message


# --- exact ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("network", ["lenet5_tanh", "lenet5_relu"])
@pytest.mark.parametrize("plan", [PLAN, [1, 300, 17, 256, 1], 6, 1])
def test_reading_gives_the_shared_network_back_bit_for_bit(network, format, plan, images, tmp_path):
    model = models.load(network)
    shared, _ = sharing.share(model, plan, format)
    packed = packing.write(tmp_path / "file.safetensors", model, plan, format)
    state = packed.state_dict()
    assert state.keys() == shared.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in shared.state_dict().items())
    assert torch.equal(logits(packed.load(models.build(network)), images), logits(shared, images))


@pytest.mark.parametrize("format", FORMATS)
def test_mobilenet_comes_back_bit_for_bit(mobilenet, books, format, tmp_path):
    plan = MOBILENETS_PLAN
    shared, _ = sharing.share(mobilenet, plan, format)
    packed = packing.write(tmp_path / "file.safetensors", mobilenet, plan, format, codebooks=books(mobilenet, plan, format))
    images = data.load("fashion_mnist", "validation").images[:50]
    assert torch.equal(logits(packed.load(models.build("mobilenet_v2_fashion")), images), logits(shared, images))


@pytest.mark.parametrize("method", ["kmeans", "minibatch", "gmm"])
def test_every_clustering_method_is_packed(lenet5, method, images, tmp_path):
    plan = [2, 3, 4, 3, 2]
    shared, _ = sharing.share(lenet5, plan, "float16", method)
    packed = packing.write(tmp_path / "file.safetensors", lenet5, plan, "float16", method)
    assert torch.equal(logits(packed.load(lenet5), images), logits(shared, images)) and packed.details.method == method


def test_a_tuned_plan_is_packed(lenet5, images, tmp_path):
    lifts = {"feature_extractor.3": Lift(4.8, 2.0)}
    shared, _ = sharing.share(lenet5, PLAN, lifts=lifts)
    packed = packing.write(tmp_path / "file.safetensors", lenet5, PLAN, lifts=lifts)
    assert torch.equal(logits(packed.load(lenet5), images), logits(shared, images))
    assert not torch.equal(logits(packed.load(lenet5), images), logits(sharing.share(lenet5, PLAN)[0], images))


def test_tied_weights_and_untouched_tensors_come_back(tmp_path):
    """Two modules with one weight, a bias used twice, integers, halves and a layer that is never called."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.idle = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
            self.second.weight, self.second.bias = self.first.weight, self.first.bias
            self.norm = nn.BatchNorm1d(6)
            self.register_buffer("short", torch.arange(3).half())
            self.register_buffer("nothing", torch.zeros(0))

        def forward(self, x):
            return self.second(self.norm(self.first(x)))

    torch.manual_seed(0)
    model = Tied().eval()
    packed = packing.write(tmp_path / "file.safetensors", model, [3], example=torch.ones(1, 6))
    shared, _ = sharing.share(model, [3], example=torch.ones(1, 6))
    state, expected = packed.state_dict(), shared.state_dict()
    assert state.keys() == expected.keys() and packed.details.same == {
        "second.weight": "first.weight",
        "second.bias": "first.bias",
    }
    assert all(torch.equal(state[name], value) and state[name].dtype == value.dtype for name, value in expected.items())
    assert torch.equal(packed.load(Tied()).second.weight, expected["first.weight"])
    assert packed.summary()["original_bytes"] == 4 * (36 + 6 + 14 + 24) + 8 + 6


def test_the_rest_may_be_stored_in_half_precision(mobilenet, tmp_path):
    """It halves what is not shared; integers stay, and everything comes back as float32."""
    plan = [8] * 53
    whole = packing.write(tmp_path / "whole.safetensors", mobilenet, plan)
    half = packing.write(tmp_path / "half.safetensors", mobilenet, plan, rest="float16")
    counters = 52 * 8
    assert half.summary()["rest_bytes"] - counters == (whole.summary()["rest_bytes"] - counters) / 2
    ours, theirs = half.state_dict(), whole.state_dict()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype
        if name in whole.rest and value.dtype == torch.float32:
            assert torch.equal(ours[name], value.clamp(-65504, 65504).half().float())
        else:
            assert torch.equal(ours[name], value)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_labels_come_back(given):
    bits = given.draw(st.integers(1, 16))
    n = given.draw(st.integers(1, 400))
    labels = (
        np.random.default_rng(given.draw(st.integers(0, 99)))
        .integers(0, 1 << bits, n)
        .astype(np.uint8 if bits <= 8 else np.uint16)
    )
    packed = label_coding.pack(labels, bits)
    assert len(packed) == math.ceil(n * bits / 8)
    stream = int.from_bytes(packed.tobytes(), "little")  # the definition, in one long number
    assert [(stream >> (i * bits)) & ((1 << bits) - 1) for i in range(n)] == labels.tolist()
    for coded, decode in (
        (packed, label_coding.unpack),
        (label_coding.compress(labels, bits), label_coding.expand),
    ):
        assert (decode(coded, n, bits) == labels).all()
        assert decode(coded, n + 8, bits) is None


@pytest.mark.parametrize("name", FORMATS)
def test_every_value_of_a_format_is_stored_and_comes_back(name):
    format = formats.get(name)
    values = format.round(np.concatenate([np.linspace(-500, 500, 4001), np.geomspace(1e-4, 2e4, 999), [0]]).astype(np.float32))
    stored = format.encode(values)
    assert stored.dtype == format.dtype and stored.element_size() * 8 == format.bits
    assert (format.decode(stored) == values).all()


def test_the_thesis_float_is_stored_as_its_bits():
    """Table 2.4: sign, four bits of exponent without bias, three of mantissa."""
    codes = torch.arange(256, dtype=torch.uint8)
    values = formats.get("float8_thesis").decode(codes)
    for code, value in enumerate(values.tolist()):
        sign, e, m = -1 if code >> 7 else 1, code >> 3 & 15, code & 7
        expected = math.nan if e == 15 else sign * (m / 16 if e == 0 else (1 + m / 8) * 2 ** (e - 1))
        assert value == expected or (math.isnan(value) and math.isnan(expected))


# --- the document ---------------------------------------------------------------------------------------------------------------


def of_the_document():
    """The test vector of docs/format.md, put together as the page says."""
    text = (paths.root() / "docs" / "format.md").read_text()
    header, data = (
        re.search(r"```json\n(.*?)\n```", text, re.DOTALL)[1],
        re.search(r"The data:\n\n```\n(.*?)\n```", text, re.DOTALL)[1],
    )
    length = int(re.search(r"padded with spaces to (\d+)\nbytes", text)[1])
    return struct.pack("<Q", length) + header.encode().ljust(length) + bytes.fromhex(data)


def test_the_documents_vector_is_a_packed_file(tmp_path):
    content = of_the_document()
    (tmp_path / "file").write_bytes(content)
    ours = {name: value.tolist() for name, value in packing.read(tmp_path / "file").state_dict().items()}
    a, b = 0.04998779296875, 0.449951171875
    assert ours == {"0.weight": [[-1, a, b], [b, -1, a]], "0.bias": [1.5, -2], "2.weight": [[0.5, 0.5]]}
    assert ours == {name: value.tolist() for name, value in format_reader.read(content).items()}
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1, bias=False))
    state = {"0.weight": torch.tensor([[-1, 0.1, 0.5], [0.4, -1, 0]]), "0.bias": torch.tensor([1.5, -2])}
    model.load_state_dict(state | {"2.weight": torch.tensor([[0.25, 0.75]])})
    assert packing.pack(model, [3, 1], "float16") == content


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("options", [{}, {"entropy_coded": False}, {"rest": "float16"}])
def test_a_reader_made_from_the_document_alone_agrees(lenet5, mobilenet, books, format, options, tmp_path):
    plans = [(lenet5, [3, 300, 50, 256, 1]), (lenet5, 300)] + ([] if options else [(mobilenet, MOBILENETS_PLAN)])
    for model, plan in plans:
        packed = packing.write(tmp_path / "file", model, plan, format, codebooks=books(model, plan, format), **options)
        theirs = format_reader.read((tmp_path / "file").read_bytes(), zstandard.ZstdDecompressor().decompress)
        ours = packed.state_dict()
        assert theirs.keys() == ours.keys()
        for name, value in ours.items():
            assert theirs[name].dtype == value.numpy().dtype and (theirs[name] == value.numpy()).all()
    assert format_reader.metadata((tmp_path / "file").read_bytes())["plan"] == packed.details.plan


# --- small ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("entropy_coded", [False, True])
def test_a_file_is_no_larger_than_the_storage_rate_says(lenet5, mobilenet, books, format, entropy_coded, tmp_path):
    plans = [
        (lenet5, PLAN),
        (lenet5, 7),
        (lenet5, [1] * 5),
        (lenet5, [150, 33, 50, 50, 50]),
    ]
    if format in ("float32", "float8_thesis"):  # of the longest and the shortest centroids
        plans.append((mobilenet, 12))
    for model, plan in plans:
        file = tmp_path / "file.safetensors"
        made = books(model, plan, format)
        packed = packing.write(file, model, plan, format, entropy_coded=entropy_coded, codebooks=made)
        bits = accounting.stored_bits(made.weights, np.atleast_1d(plan), format).sum()
        shared = {f"{layer.name}.weight" for layer in made.layers}
        rest = sum(value.nbytes for name, value in model.state_dict().items() if name not in shared)
        summary = packed.summary()
        assert summary["file_bytes"] == file.stat().st_size
        assert summary["file_bytes"] - summary["header_bytes"] <= math.ceil(bits / 8) + rest == summary["predicted_bytes"]
        if not entropy_coded:
            assert summary["payload_bytes"] == summary["predicted_bytes"]
        assert summary["header_bytes"] <= (3 if model is lenet5 else 48) * 1024
        assert summary["storage_rate"] == pytest.approx(8 * 4 * made.weights.sum() / bits)
        assert summary["original_bytes"] == sum(value.nbytes for value in model.state_dict().values())
        assert summary["file_rate"] == summary["original_bytes"] / summary["file_bytes"]


def test_entropy_coding_is_taken_layer_by_layer_where_it_is_smaller(lenet5, tmp_path):
    plan = [3, 50, 40, 4, 50]
    plain = packing.write(tmp_path / "plain.safetensors", lenet5, plan, entropy_coded=False).report()
    coded = packing.write(tmp_path / "coded.safetensors", lenet5, plan).report()
    assert set(plain["coding"]) == {"packed"} and set(coded["coding"]) == {"packed", "zstd"}
    assert (coded["bytes"] <= plain["bytes"]).all() and ((coded["bytes"] < plain["bytes"]) == (coded["coding"] == "zstd")).all()


def test_the_report_says_what_lies_in_the_file(lenet5, tmp_path):
    packed = packing.write(tmp_path / "file.safetensors", lenet5, PLAN, "float16", network="lenet5_tanh")
    _, expected = sharing.share(lenet5, PLAN, "float16")
    report = packed.report()
    for column in ("layer", "weights", "k", "stored_bits", "rate"):
        assert report[column].tolist() == expected[column].tolist()
    assert report["rms_error"].to_numpy() == pytest.approx(
        (expected["inertia"] / expected["weights"]).pow(0.5).to_numpy(), rel=1e-3
    )
    details = packed.details
    assert details.plan == PLAN and details.network == "lenet5_tanh" and details.format == "float16"
    plain = save({name: value.contiguous() for name, value in lenet5.state_dict().items()})
    assert details.source_sha256 == hashlib.sha256(plain).hexdigest()


def test_the_same_network_and_plan_give_the_same_bytes(lenet5):
    assert packing.pack(lenet5, PLAN, "float16") == packing.pack(lenet5, PLAN, "float16")


# --- refused when it is written ---------------------------------------------------------------------------------------------------


def test_what_cannot_be_packed_is_said_before_anything_is_written(lenet5, tmp_path):
    file = tmp_path / "file.safetensors"
    for arguments, options, words in [
        (([3, 5],), {}, "5"),
        (([0, 5, 8, 2, 4],), {}, "got 0"),
        ((PLAN, "float64"), {}, "unknown format 'float64'"),
        ((PLAN,), {"rest": "float8"}, "unknown storage of the rest 'float8'"),
        ((PLAN,), {"lifts": {"fc": Lift(1.0)}}, "unknown layer 'fc'"),
    ]:
        with pytest.raises(UserError, match=words):
            packing.write(file, lenet5, *arguments, **options)
    with pytest.raises(UserError, match="weights of torch.float16; rates are relative to float32"):
        packing.write(file, models.load("lenet5_tanh").half(), PLAN)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_said(lenet5, tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be written"):
        packing.write(tmp_path / "a" / "file.safetensors", lenet5, PLAN)


def test_another_network_is_refused(lenet5, mobilenet, tmp_path):
    packed = packing.write(tmp_path / "file.safetensors", lenet5, PLAN)
    with pytest.raises(UserError, match="are not those of this network"):
        packed.load(mobilenet)


@pytest.mark.parametrize(
    "tensor", [torch.zeros(2, dtype=torch.complex64), torch.zeros(2).to(torch.float8_e5m2), torch.zeros(2).to(torch.uint16)]
)
def test_a_tensor_that_no_file_can_hold_is_refused_and_an_earlier_file_stays(tensor, tmp_path):
    file = tmp_path / "file.safetensors"
    model = nn.Sequential(nn.Linear(6, 6))
    packing.write(file, model, [2])
    earlier = file.read_bytes()
    model.register_buffer("odd", tensor)
    with pytest.raises(UserError, match=f"odd is {tensor.dtype}, which a packed file cannot hold"):
        packing.write(file, model, [2])
    assert file.read_bytes() == earlier


def test_layers_that_share_memory_as_two_parameters_are_packed_as_two(tmp_path):
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[1].weight = nn.Parameter(model[0].weight.data)
    model.register_buffer("view", model[0].weight.data[1:3])
    packed = packing.write(tmp_path / "file", model, [3, 2])
    assert len(packed.state_dict()["0.weight"].unique()) == 3 and len(packed.state_dict()["1.weight"].unique()) == 2
    assert torch.equal(packed.state_dict()["view"], model.state_dict()["view"])


def test_a_rest_that_could_not_come_back_is_refused(tmp_path):
    model = nn.Sequential(nn.Linear(6, 6))
    model.register_buffer("short", torch.zeros(2).half())
    with pytest.raises(UserError, match="short is float16, so the rest"):
        packing.pack(model, [2], rest="float16")


def test_a_state_that_is_no_tensor_is_refused():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

    with pytest.raises(UserError, match="0._extra_state of the network's state is dict; only tensors can be packed"):
        packing.pack(nn.Sequential(Extra(3, 3)), [2])


def test_codebooks_of_something_else_are_refused(lenet5):
    books = sharing.codebooks(lenet5, PLAN, "float16")
    assert packing.pack(lenet5, PLAN, "float16", codebooks=books) == packing.pack(lenet5, PLAN, "float16")
    for model, plan, format, method in [(lenet5, PLAN, "float32", "exact"), (lenet5, PLAN, "float16", "kmeans"), (lenet5, 3, "float16", "exact"),
                                        (models.load("lenet5_relu"), PLAN, "float16", "exact")]:  # fmt: skip
        with pytest.raises(UserError, match="the codebooks are not those of this network"):
            packing.pack(model, plan, format, method, codebooks=books)


def test_accuracies_of_any_number_type_are_stored_and_wrong_ones_refused(lenet5, tmp_path):
    told = {"split": "mnist test", "images": np.int64(5000), "original": np.float64(0.9), "packed": np.float32(0.5)}
    packed = packing.write(tmp_path / "file", lenet5, PLAN, accuracy=[told])
    assert packed.details.model_dump()["accuracy"] == [{"split": "mnist test", "images": 5000, "original": 0.9, "packed": 0.5}]
    for wrong in ({"packed": 1.5}, {"images": 0}, {"odd": 1}):
        with pytest.raises(UserError, match="accuracy is wrong"):
            packing.pack(lenet5, PLAN, accuracy=[told | wrong])


def test_a_network_may_be_called_anything(lenet5, tmp_path):
    for name in ("0" * 64, '"sha256":"' + "0" * 64, 'a\\"\n'):
        assert packing.write(tmp_path / "file", lenet5, PLAN, network=name).details.network == name
        assert packing.read(tmp_path / "file").details.network == name


# --- refused when it is read ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def content(lenet5):
    return packing.pack(lenet5, PLAN, "float16", network="lenet5_tanh")


def test_an_edited_file_that_says_the_same_is_read(content, tmp_path):
    """Or the refusals below would mean nothing."""
    assert edited(content) == content
    (tmp_path / "file").write_bytes(edited(content))
    assert packing.read(tmp_path / "file").details.plan == PLAN


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, -1, -20_000])
def test_a_truncated_file_is_refused(content, length, tmp_path):
    refused(tmp_path, content[:length])


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for place in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            packing.read(place)


def test_any_flipped_bit_is_noticed(content, tmp_path):
    rng = np.random.default_rng(0)
    places = [*range(0, 600, 7), *rng.integers(0, len(content), 100).tolist()]
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        refused(tmp_path, bytes(flipped))


@pytest.mark.parametrize("foreign", [b"PK\x03\x04" * 50, b"\x80\x04" + b"." * 100, bytes(1000), b"\xff" * 1000, b'{"a": 1}' * 9])
def test_a_foreign_file_is_refused(foreign, tmp_path):
    refused(tmp_path, foreign)


def test_a_plain_safetensors_file_is_refused(lenet5, tmp_path):
    refused(tmp_path, save(lenet5.state_dict()), "no metadata of weightlab")


def test_a_header_beyond_the_file_is_refused(content, tmp_path):
    for length in (len(content), 1 << 40, (1 << 64) - 1):
        refused(tmp_path, struct.pack("<Q", length) + content[8:], f"declares a header of {length} bytes")


def test_a_newer_version_is_refused_by_name(content, tmp_path):
    message = refused(tmp_path, edited(content, lambda values: values.update(version=3)), "version 3 of the format")
    assert message.endswith("this weightlab reads up to 2; update weightlab")


def _set(path, value):
    def change(values):
        *into, last = path
        for key in into:
            values = values[key]
        values[last] = value

    return change


NAME = "feature_extractor.3.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set(["plan"], [3, 5, 8, 2, 5]), "is not that of its groups"),
        (_set(["plan"], 3), "is not that of its groups"),
        (_set(["groups", 1, "k"], 9), "is not that of its groups"),
        (_set(["groups", 1, "bits"], 4), "need 3 bits at k = 5, got 4"),
        (_set(["groups", 1, "bits"], 0), "need 3 bits"),
        (_set(["groups", 1, "coding"], "none"), "has no place in its network"),
        (_set(["groups", 1, "coding"], "lzma"), "groups.1.coding"),
        (_set(["groups", 1, "weights", 0, 1], [16, 6, 5, 6]), f"the labels of '{NAME}' are not 2880 labels"),
        (_set(["groups", 1, "weights", 0, 1], [1 << 40, 1 << 20]), "would unpack to"),
        (_set(["groups", 1, "weights", 0, 1], [1 << 62] * 8), "would unpack to"),
        (_set(["groups", 1, "weights", 0, 1], [1] * 9), "groups.1.weights"),
        (_set(["groups", 1, "weights", 0, 1], []), "groups.1.weights"),
        (_set(["groups", 1, "weights", 0, 1], [16, -6, 5, 5]), "groups.1.weights"),
        (_set(["groups", 1, "weights", 0, 1], [16, 6.0, 5, 5]), "groups.1.weights"),
        (_set(["groups", 1, "weights"], []), "groups.1.weights"),
        (_set(["groups", 1, "weights", 0, 0], "classifier.0.bias"), "tensor 'classifier.0.bias:centroids' is missing"),
        (_set(["groups", 1, "error"], -1.0), "groups.1.error"),
        (_set(["groups"], []), "groups"),
        (_set(["format"], "float32"), "the codebook of 'feature_extractor.0.weight' must be 1 to 3 values of float32"),
        (_set(["format"], "float64"), "format"),
        (_set(["rest"], "float8"), "rest"),
        (_set(["original_bytes"], 0), "original_bytes"),
        (_set(["accuracy"], [{"split": "test", "images": 1, "original": 2.0, "packed": 0.5}]), "accuracy.0.original"),
        (_set(["same"], {"a": "b"}), "tensor 'a' is stored as 'b', which is missing"),
        (_set(["same"], {"classifier.0.bias": "classifier.2.bias"}), "has no place"),
        (_set(["surprise"], 1), "unknown entry 'surprise'"),
        (_set(["groups", 1, "surprise"], 1), "groups.1: Value error, unknown entry 'surprise'"),
        (_set(["version"], True), "its version must be a whole number of at least 1"),
        (_set(["version"], 1.0), "its version must be a whole number of at least 1"),
        (_set(["version"], 0), "its version must be a whole number of at least 1"),
        (_set(["same"], {"a": 1}), "all of its values must be texts"),
        (lambda values: values.pop("method"), "method"),
        (lambda values: values.pop("version"), "its version must be a whole number"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(content, change, words, tmp_path):
    refused(tmp_path, edited(content, change), words)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (f"{NAME}:centroids", torch.tensor([0, 1, 2, 3, math.nan]).half(), "holds NaN or infinity"),
        (f"{NAME}:centroids", torch.tensor([0, 1, 2, 3, math.inf]).half(), "holds NaN or infinity"),
        (f"{NAME}:centroids", torch.arange(6).half(), "must be 1 to 5 values of float16"),
        (f"{NAME}:centroids", torch.zeros(0).half(), "must be 1 to 5 values of float16"),
        (f"{NAME}:centroids", torch.arange(5).float(), "must be 1 to 5 values of float16"),
        (f"{NAME}:centroids", torch.arange(5).half()[None], "must be 1 to 5 values of float16"),
        (f"{NAME}:centroids", torch.arange(2).half(), "its codebook has 2 centroids"),
        (f"{NAME}:labels", torch.full((900,), 255, dtype=torch.uint8), "a label of 'feature_extractor.3.weight' is 7"),
        (f"{NAME}:labels", torch.zeros(899, dtype=torch.uint8), "are not 2400 labels"),
        (f"{NAME}:labels", torch.zeros(901, dtype=torch.uint8), "are not 2400 labels"),
        (f"{NAME}:labels", torch.zeros(900, dtype=torch.int8), "must be bytes"),
        (f"{NAME}:labels", torch.zeros(9, 100, dtype=torch.uint8), "must be bytes"),
        ("feature_extractor.0.weight:labels", torch.full((38,), 0b11111111, dtype=torch.uint8), "are not 150 labels"),
        ("feature_extractor.3.weight", torch.zeros(2), "has no place"),
        ("stray:labels", torch.zeros(2), "has no place"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(lenet5, name, value, words, tmp_path):
    content = packing.pack(lenet5, PLAN, "float16", entropy_coded=False)
    refused(tmp_path, edited(content, tensors=lambda found: found.update({name: value})), words)


def test_frames_that_lie_are_refused(lenet5, tmp_path):
    """Of another length than the labels, of none that is said, beyond what is there, and followed by something."""
    content = packing.pack(lenet5, [3, 5, 40, 2, 4])
    name = "feature_extractor.6.weight:labels"
    assert metadata.parse(content)[0].groups[2].coding == "zstd"
    frame = zstandard.ZstdCompressor(level=1)
    unsaid = zstandard.ZstdCompressor(level=1, write_content_size=False)
    bomb = frame.compress(bytes(1 << 30))
    good = frame.compress(bytes(48_000))
    for raw in (bomb, frame.compress(bytes(47_999)), unsaid.compress(bytes(48_000)), good[:-5], good + b"more", b"", bytes(100)):
        lie = torch.frombuffer(bytearray(raw or b"\0"), dtype=torch.uint8)
        refused(
            tmp_path,
            edited(content, tensors=lambda found, lie=lie: found.update({name: lie})),
            "are not 48000 labels, coded as zstd",
        )


def test_names_that_occur_twice_are_refused(content, tmp_path):
    """In the header and in the metadata; readers differ in which they take."""
    length = struct.unpack("<Q", content[:8])[0]
    header = content[8 : 8 + length]
    for once, twice in (
        (
            b'"classifier.0.bias":',
            b'"classifier.0.bias":{"dtype":"F32","shape":[84],"data_offsets":[0,336]},"classifier.0.bias":',
        ),
        (rb"\"k\":5", rb"\"k\":4,\"k\":5"),
    ):
        assert header.count(once) == 1
        changed = header.replace(once, twice)
        sealed = hashlib.sha256()
        details, _ = metadata.parse(content)
        whole = struct.pack("<Q", len(changed)) + changed.replace(details.sha256.encode(), b"0" * 64) + content[8 + length :]
        sealed.update(whole)
        refused(tmp_path, whole.replace(b"0" * 64, sealed.hexdigest().encode(), 1), "a name occurs twice")


@pytest.mark.parametrize("text", ["7", "1.5", "null", "[1]", "{}", r'"[]"', r'"7"'])
def test_metadata_that_are_no_object_in_a_text_are_refused(text, tmp_path):
    header = f'{{"__metadata__":{{"weightlab":{text}}}}}'.encode()
    refused(tmp_path, struct.pack("<Q", len(header)) + header, "its metadata cannot be read (TypeError: ")


def test_half_a_surrogate_pair_is_no_text(content, tmp_path):
    changed = edited(content, lambda values: values.update(network="\ud800"))
    refused(tmp_path, changed, r"its metadata cannot be read (UnicodeEncodeError: 'utf-8' codec can't encode character '\ud800'")
    with pytest.raises(ValueError):
        format_reader.read(changed)
    (tmp_path / "file").write_bytes(edited(content, lambda values: values.update(network="\U0001f40b")))
    assert packing.read(tmp_path / "file").details.network == "\U0001f40b"


def test_a_long_name_does_not_make_a_long_message(content, tmp_path):
    message = refused(
        tmp_path, edited(content, tensors=lambda found: found.update({"x" * 100_000 + ":labels": torch.zeros(1)})), "xxx"
    )
    assert len(message) < 1000


def test_a_file_that_is_much_larger_than_memory_is_refused_by_its_header(tmp_path):
    """And what is no file at all; none of it is read."""
    huge = tmp_path / "huge"
    with open(huge, "wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(UserError, match=f"it declares a header of 0 bytes in a file of {1 << 42}"):
        packing.read(huge)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="it is not a file"):
        packing.read(tmp_path / "pipe")


MANY = 150_000
HOSTILE = {
    "accuracy": lambda values: values.update(accuracy=[0] * MANY),
    "groups": lambda values: values.update(groups=[0] * MANY),
    "weights": lambda values: values["groups"][0].update(weights=[0] * MANY),
    "shape": lambda values: values["groups"][0].update(weights=[["a", ["b"] * MANY]]),
    "plan": lambda values: values.update(plan=["a"] * MANY),
    "keys": lambda values: values.update({f"k{number}": 0 for number in range(MANY)}),
    "keys of a group": lambda values: values["groups"][0].update({f"k{number}": 0 for number in range(MANY)}),
    "same": lambda values: values.update(same={f"k{number}": 0 for number in range(MANY)}),
    "aliases": lambda values: values.update(same={f"k{number}": "classifier.0.bias" for number in range(MANY // 5)} | {"a": "b"}),
}


READ_ALL = """
import resource, sys, time
from weightlab import packing
from weightlab.errors import UserError

for file in sys.argv[1:]:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    try:
        packing.read(file)
        what = "read"
    except UserError:
        what = "refused"
    print(what, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, time.monotonic() - started)
"""


def test_a_large_header_is_refused_in_little_memory_and_time(content, tmp_path):
    """A validator that told of every mistake took 1 GiB for 0.8 MB; in a process of its own, whose memory can be measured."""
    files = [tmp_path / kind for kind in HOSTILE]
    for file in files:
        file.write_bytes(edited(content, HOSTILE[file.name]))
    done = subprocess.run([sys.executable, "-c", READ_ALL, *files], capture_output=True, text=True, check=True)
    for file, line in zip(files, done.stdout.splitlines(), strict=True):
        what, grown_mib, seconds = line.split()
        assert what == "refused" and int(grown_mib) < 200 and float(seconds) < 30, file.name


def test_a_deeply_nested_header_is_refused(tmp_path):
    header = b"[" * 200_000
    refused(tmp_path, struct.pack("<Q", len(header)) + header)


def test_a_small_file_may_not_unpack_to_a_large_network(tmp_path):
    """k = 1 stores no labels, so only the declared shape says how large it is; a person may allow it."""
    model = nn.Sequential(nn.Linear(4096, 4200, bias=False))
    nn.init.ones_(model[0].weight)  # equal weights are quick to sort
    file = tmp_path / "file.safetensors"
    file.write_bytes(packing.pack(model, [1]))
    refused(tmp_path, file.read_bytes(), "would unpack to 68812804 bytes, and 67108864 are allowed")
    assert packing.read(file, limit_bytes=1 << 30).state_dict()["0.weight"].shape == (4200, 4096)


def test_reading_imports_nothing_that_a_file_names(content, tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "file"
    file.write_bytes(edited(content, _set(["network"], "trap:network")))
    assert packing.read(file).details.network == "trap:network"


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_mutated_files_are_read_or_refused_and_nothing_else(content, tmp_path_factory, given):
    """Bytes changed, cut out, put in twice, with the checksum mended half of the time so that what lies behind is reached."""
    mutated = bytearray(content)
    for _ in range(given.draw(st.integers(1, 4))):
        place = given.draw(st.integers(0, len(mutated) - 1) | st.integers(0, min(3000, len(mutated) - 1)))
        length = given.draw(st.integers(1, 40))
        kind = given.draw(st.sampled_from(["set", "cut", "insert", "repeat"]))
        if kind == "set":
            mutated[place] = given.draw(st.integers(0, 255))
        elif kind == "cut":
            del mutated[place : place + length]
        elif kind == "insert":
            mutated[place:place] = given.draw(st.binary(min_size=1, max_size=9))
        else:
            mutated[place:place] = mutated[place : place + length]
        if len(mutated) < 2:
            break
    sha = metadata.parse(content)[0].sha256.encode()
    if given.draw(st.booleans()):
        mutated = bytearray(packed_format.seal(bytes(mutated).replace(sha, b"0" * 64, 1)))
    file = tmp_path_factory.getbasetemp() / "mutated"
    file.write_bytes(mutated)
    try:
        state = packing.read(file).state_dict()
    except UserError:
        return
    theirs = format_reader.read(bytes(mutated), zstandard.ZstdDecompressor().decompress)
    assert all((theirs[name] == value.numpy()).all() for name, value in state.items())
