"""ONNX files: onnxruntime answers as the network does, the file is as small as its labels, and what cannot be written is said."""

import copy
import logging
import sys
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from weightlab import data, formats, models
from weightlab.compression.sharing.codebooks import Codebooks
from weightlab.errors import UserError
from weightlab.packing import onnx_files

CLOSE = 1e-4  # of the largest logit
GRAPH = 64 << 10  # bytes of a file that are neither labels nor other parameters, at most
EXAMPLE = torch.ones(1, 1, 32, 32)
SETTINGS = [
    ("lenet5_tanh", [3, 16, 17, 256, 2], "float32"),
    ("lenet5_tanh", [1, 1, 1, 1, 1], "float32"),
    ("lenet5_tanh", 6, "float32"),
    ("lenet5_tanh", [3, 5, 8, 5, 4], "float8_thesis"),
    ("lenet5_relu", [1, 257, 50, 4, 300], "float32"),
    ("lenet5_relu", 40, "float16"),
    ("lenet5_relu", [9, 9, 9, 9, 9], "float8_e4m3"),
]


def shared_with_books(model, plan, format="float32"):
    """The shared copy of a network, and centroids and labels of every shared weight, as its codebooks hold them."""
    codebooks = Codebooks(model, "exact", format, ks=(), whole_net=isinstance(plan, int))
    shared, books = copy.deepcopy(model), {}
    for group, k in enumerate(np.atleast_1d(plan)):
        book, layers = codebooks.get(group, int(k)), codebooks.layers if codebooks.whole_net else [codebooks.layers[group]]
        codebooks.apply(shared, group, book)
        ends = np.cumsum([layer.weights for layer in layers])[:-1]
        for layer, labels in zip(layers, np.split(book.labels, ends), strict=True):
            books[f"{layer.name}.weight"] = book.centroids, labels.reshape(layer.shape)
    return shared, books


def tensors(file):
    return {tensor.name: tensor for tensor in onnx.load(file).graph.initializer}


def bound(model, books):
    """The bytes a file may have."""
    width = {TensorProto.UINT4: 0.55, TensorProto.UINT8: 1.05, TensorProto.UINT16: 2.05}
    labels = sum(width[label_type(len(centroids))] * labels.size for centroids, labels in books.values())
    return labels + sum(value.nbytes for name, value in model.state_dict().items() if name not in books) + GRAPH


def label_type(k):
    return TensorProto.UINT4 if k <= 16 else TensorProto.UINT8 if k <= 256 else TensorProto.UINT16


@pytest.fixture(scope="module")
def mnist():
    return data.load("mnist", "test").images


@pytest.fixture(scope="module")
def lenet5():
    """LeNet-5 with shared weights, and its books."""
    return shared_with_books(models.load("lenet5_tanh"), [3, 3, 8, 2, 2])


@pytest.fixture(scope="module")
def written(lenet5, tmp_path_factory):
    shared, books = lenet5
    return onnx_files.export(shared, books, EXAMPLE, tmp_path_factory.mktemp("onnx") / "lenet5.onnx", {"plan": "[3, 3, 8, 2, 2]"})


# --- what the file holds and answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("network", "plan", "format"), SETTINGS, ids=str)
def test_every_test_image_gets_the_networks_class_from_a_small_file_that_holds_labels(network, plan, format, mnist, tmp_path):
    shared, books = shared_with_books(models.load(network), plan, format)
    file = onnx_files.export(shared, books, EXAMPLE, tmp_path / "network.onnx")
    outcome = onnx_files.compare(file, shared, mnist)
    assert outcome.images == 5000 and outcome.other_class == 0 and outcome.largest_difference < CLOSE
    assert file.stat().st_size <= bound(shared, books)
    stored = tensors(file)
    assert sum(name.endswith(".centroids") for name in stored) == (1 if isinstance(plan, int) else 5)
    for name, (centroids, labels) in books.items():
        assert name not in stored
        if len(centroids) == 1:
            assert f"{name}.labels" not in stored
        else:
            assert stored[f"{name}.labels"].data_type == label_type(len(centroids))
            np.testing.assert_array_equal(numpy_helper.to_array(stored[f"{name}.labels"]).astype(int), labels)


def test_the_settings_above_have_every_format_and_kind_of_label():
    assert {format for _, _, format in SETTINGS} == set(formats.FORMATS)
    assert {1, 16, 17, 256, 257} < {k for _, plan, _ in SETTINGS for k in np.atleast_1d(plan)}


def test_mobilenet_keeps_its_batch_norm_apart_and_answers_the_same(tmp_path):
    """53 layers, k from 8 to 60, on images of a format that the network standardises itself."""
    plan = np.linspace(60, 8, 53).astype(int).tolist()
    shared, books = shared_with_books(models.load("mobilenet_v2_fashion"), plan, "float16")
    file = onnx_files.export(shared, books, EXAMPLE, tmp_path / "mobilenet.onnx")
    outcome = onnx_files.compare(file, shared, data.load("fashion_mnist", "test").first(300).images)
    assert outcome.images == 300 and outcome.other_class == 0 and outcome.largest_difference < CLOSE
    assert file.stat().st_size <= bound(shared, books)
    nodes = [node.op_type for node in onnx.load(file).graph.node]
    assert nodes.count("BatchNormalization") == 52 and nodes.count("Gather") == 53
    unshared = {name for name in shared.state_dict() if name not in books and not name.endswith("num_batches_tracked")}
    assert unshared < tensors(file).keys()


def test_without_books_weights_are_stored_as_they_are(mnist, tmp_path):
    model = models.load("lenet5_relu")
    file = onnx_files.export(model, {}, EXAMPLE, tmp_path / "plain.onnx")
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(numpy_helper.to_array(tensors(file)[name]), value)
    assert onnx_files.compare(file, model, mnist[:500]).other_class == 0


def test_a_comparison_finds_what_differs(written, mnist):
    """The file of one network beside another network."""
    outcome = onnx_files.compare(written, models.load("lenet5_relu"), mnist[:500])
    assert outcome.other_class > 0 and outcome.largest_difference > 0.01


def test_any_number_of_images_can_be_given(written, lenet5, mnist):
    for n in (1, 3, 101):
        assert onnx_files.compare(written, lenet5[0], mnist[:n], threads=2).other_class == 0


def test_notes_are_in_the_file_and_paths_of_this_machine_are_not(written):
    assert {each.key: each.value for each in onnx.load(written).metadata_props} == {"plan": "[3, 3, 8, 2, 2]"}
    assert b"site-packages" not in written.read_bytes() and b".py" not in written.read_bytes()


# --- networks of others ---------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """Two convolutions with one tied weight, dropout, an unused layer, a linear layer over the last of four axes."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1, bias=False)
        self.two.weight = self.one.weight
        self.unused, self.drop, self.rows = nn.Linear(3, 3), nn.Dropout(), nn.Linear(8, 2)

    def forward(self, images):  # (n, 1, 8, 8)
        return self.drop(self.rows(torch.tanh(self.two(torch.tanh(self.one(images)))))).flatten(1)


class Undecided(nn.Module):
    """What it does depends on the numbers it is given."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 2)

    def forward(self, images):
        logits = self.layer(images.flatten(1))
        return logits if logits.sum() > 0 else -logits


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def test_tied_weights_are_stored_once_and_a_network_in_training_is_left_so(net, tmp_path):
    shared, books = shared_with_books(net, [4, 3, 5])
    del books["unused.weight"]
    shared.train()
    file = onnx_files.export(shared, books, torch.ones(5, 1, 8, 8), tmp_path / "net.onnx")
    assert shared.training and shared.drop.training
    assert sum(name.endswith(".labels") for name in tensors(file)) == 2 and not {*books, "two.weight"} & tensors(file).keys()
    outcome = onnx_files.compare(file, shared, torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8))
    assert outcome.other_class == 0 and outcome.largest_difference < CLOSE and shared.training


def test_exporting_is_silent_and_leaves_the_process_as_it_was(net, tmp_path, capfd, caplog):
    undecided = Undecided()
    before = torch.random.get_rng_state(), torch.get_num_threads(), list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        onnx_files.export(net, {}, torch.ones(1, 1, 8, 8), tmp_path / "net.onnx")
        with pytest.raises(UserError):
            onnx_files.export(undecided, {}, torch.ones(1, 1, 1, 8), tmp_path / "net.onnx")
    assert not caught and not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (torch.get_num_threads(), list(warnings.filters)) == before[1:]


# --- what is refused ------------------------------------------------------------------------------------------------------------

WEIGHT = "classifier.2.weight"  # (10, 84)
RIGHT = np.zeros(2, np.float32), np.zeros((10, 84), np.uint8)
WRONG = {
    "a name the network lacks": (
        {"classifier.9.weight": RIGHT},
        "unknown parameter 'classifier.9.weight'; allowed: .*classifier.2",
    ),
    "centroids as float64": (
        {WEIGHT: (RIGHT[0].astype(float), RIGHT[1])},
        "centroids of classifier.2.weight .* float32 .* float64",
    ),
    "no centroids": ({WEIGHT: (RIGHT[0][:0], RIGHT[1])}, r"k from 1 to 65536, got float32 \(0,\)"),
    "signed labels": ({WEIGHT: (RIGHT[0], RIGHT[1].astype(int))}, "unsigned integers of its shape .* got int64"),
    "flat labels": ({WEIGHT: (RIGHT[0], RIGHT[1].ravel())}, r"its shape \(10, 84\), got uint8 \(840,\)"),
    "a label too large": ({WEIGHT: (RIGHT[0], RIGHT[1] + np.uint8(2))}, "must be below 2, its number of centroids, got 2"),
    "other weights": ({WEIGHT: RIGHT}, "classifier.2.weight differs from its centroids and labels"),
}


@pytest.mark.parametrize("case", WRONG)
def test_books_that_do_not_fit_are_refused_and_the_file_stays(case, tmp_path):
    books, sentence = WRONG[case]
    (tmp_path / "old.onnx").write_bytes(b"what was there")
    with pytest.raises(UserError, match=sentence):
        onnx_files.export(models.load("lenet5_tanh"), books, EXAMPLE, tmp_path / "old.onnx")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"what was there"]


@pytest.mark.parametrize(
    ("example", "sentence"),
    [
        (torch.zeros(1, 1, 32, 32, dtype=torch.uint8), r"must be a batch of floats .* got torch.uint8 \(1, 1, 32, 32\)"),
        (torch.ones(0, 1, 32, 32), r"got torch.float32 \(0, 1, 32, 32\)"),
        (torch.ones(1, 1, 28, 28), r"LeNet5 cannot take an example of shape \(1, 1, 28, 28\)"),
    ],
)
def test_an_example_the_network_cannot_take_is_refused(example, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        onnx_files.export(models.load("lenet5_tanh"), {}, example, tmp_path / "a.onnx")


def test_what_the_exported_network_does_not_have_is_refused(net, tmp_path):
    shared, books = shared_with_books(net, [4, 3, 5])
    with pytest.raises(UserError, match="unused.weight is not used by the exported network"):
        onnx_files.export(shared, books, torch.ones(1, 1, 8, 8), tmp_path / "a.onnx")
    with pytest.raises(UserError, match="^Undecided cannot be exported to ONNX .*data-dependent"):
        onnx_files.export(Undecided(), {}, torch.ones(1, 1, 1, 8), tmp_path / "a.onnx")
    with pytest.raises(UserError, match="^Sequential must give one tensor of logits"):
        onnx_files.export(nn.Sequential(nn.Conv2d(1, 1, 3)), {}, torch.ones(1, 1, 8, 8), tmp_path / "a.onnx")
    with pytest.raises(UserError, match="notes must be texts under texts, got 3 for 'seed'"):
        onnx_files.export(net, {}, torch.ones(1, 1, 8, 8), tmp_path / "a.onnx", {"seed": 3})
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_said(net, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for place in (tmp_path / "file" / "a.onnx", tmp_path):
        with pytest.raises(UserError, match="cannot be written"):
            onnx_files.export(net, {}, torch.ones(1, 1, 8, 8), place)


@pytest.mark.parametrize("content", [None, b"", b"no ONNX file", "half"], ids=str)
def test_a_file_that_cannot_be_run_is_refused(content, written, lenet5, mnist, tmp_path):
    file = tmp_path / "a.onnx"
    if content is not None:
        file.write_bytes(written.read_bytes()[: written.stat().st_size // 2] if content == "half" else content)
    with pytest.raises(UserError, match="a.onnx is missing, damaged or not an ONNX file"):
        onnx_files.compare(file, lenet5[0], mnist[:1])


def test_images_a_file_was_not_made_for_are_refused(written, lenet5, mnist):
    with pytest.raises(UserError, match=r"must be uint8 .* got torch.float32 \(1, 1, 32, 32\)"):
        onnx_files.compare(written, lenet5[0], mnist[:1].float())
    with pytest.raises(UserError, match=r"takes .*\[1, 32, 32\].* not images \(1, 28, 28\)"):
        onnx_files.compare(written, lenet5[0], mnist[:1, :, :28, :28])


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_its_extra(package, written, lenet5, mnist, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"need {package}, .* pip install 'weightlab\[onnx\]'"):
        onnx_files.export(*lenet5, EXAMPLE, tmp_path / "a.onnx")
        onnx_files.compare(written, lenet5[0], mnist[:1])
