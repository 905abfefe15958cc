"""Networks: their shareable layers against the thesis's tables, seeds, checkpoints, and the order of layers in any network."""

import dataclasses
import hashlib
import json
import subprocess

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations, prune
from warm_python import python

from weightlab import data, models, paths, training
from weightlab.errors import UserError
from weightlab.networks import sequences


class Backwards(nn.Module):
    """Defines its layers in the reverse of the order it calls them in, and one that it never calls."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 2)
        self.unused = nn.Linear(7, 7)
        self.middle = nn.Linear(4, 3)
        self.first = nn.Linear(5, 4)

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


def names(model, example=None):
    return [layer.name for layer in models.layers(model, example)]


# --- the thesis's networks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["lenet5_tanh", "lenet5_relu"])
def test_lenet5_is_that_of_table_2_1(network, published):
    rows = published("table_2_1_lenet_architecture").dropna(subset=["pytorch_module"])
    model = models.build(network)
    layers = models.layers(model)
    assert [layer.name for layer in layers] == list(rows["pytorch_module"])
    assert [layer.weights for layer in layers] == list(rows["weights_count"])
    assert [model.get_submodule(layer.name).bias.numel() for layer in layers] == list(rows["biases_count"])
    assert sum(layer.weights for layer in layers) == 61_470
    activations = {type(module) for module in model.modules()} & {nn.Tanh, nn.ReLU, nn.AvgPool2d, nn.MaxPool2d}
    assert activations == {nn.AvgPool2d, nn.Tanh if network == "lenet5_tanh" else nn.ReLU}


def test_lenet5_has_the_shapes_of_table_2_1(published):
    model = models.build("lenet5_tanh")
    sizes, image = {}, torch.rand(2, 1, 32, 32)
    for name, module in model.named_modules():
        module.register_forward_hook(lambda module, _, out, name=name: sizes.update({name: tuple(out.shape[1:])}))
    assert model(image).shape == (2, 10)
    assert [sizes[f"feature_extractor.{i}"] for i in (0, 2, 3, 5, 6)] == [
        (6, 28, 28),
        (6, 14, 14),
        (16, 10, 10),
        (16, 5, 5),
        (120, 1, 1),
    ]
    assert sizes["classifier.0"] == (84,)


def test_mobilenet_has_the_53_layers_of_table_b_4(published):
    rows = published("table_B_4_mobilenet_layers")
    model = models.build("mobilenet_v2")
    layers = models.layers(model)
    assert [(layer.name, layer.weights) for layer in layers] == list(zip(rows["layer_name"], rows["weights_count"], strict=True))
    assert len(layers) == 53 and sum(layer.weights for layer in layers) == 3_469_760
    batch_norm = sum(p.numel() for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    assert batch_norm == 34_112
    assert models.layers(model, torch.zeros(1, 3, 32, 32)) == layers  # defined in the order of use
    assert sum(layer.weights for layer in models.layers(models.build("mobilenet_v2_fashion"))) == 2_202_560


def test_alexnet_has_its_published_multiplications_and_maps():
    """24 446 976 multiplications in the convolutions of an image; counted by shapes, without numbers."""
    with torch.device("meta"):
        model = models.NETWORKS["alexnet_cifar10"]().eval()
        image = torch.zeros(1, 3, 32, 32)
    counts, sizes = [], [32]

    def note(module, inputs, out):
        counts.append(out.numel() * module.weight[0].numel())
        sizes.append(out.shape[-1])

    for module in model.features:
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    assert model(image).shape == (1, 10)
    assert counts == [2_230_272, 9_830_400, 3_538_944, 5_308_416, 3_538_944] and sum(counts) == 24_446_976
    assert sizes == [32, 8, 4, 2, 2, 2] and model.features(image).shape == (1, 256, 1, 1)
    assert sum(parameter.numel() for parameter in model.parameters()) == 25_709_330


def test_alexnet_pads_as_keras_does():
    """Padding "same" of a kernel of 11 with steps of 4 on 32 pixels: three zeros before, four behind; the corners say so."""
    model = models.build("alexnet_fashion").eval()
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    convolution, padded = model.features[1], torch.zeros(1, 3, 39, 39)
    padded[:, :, 3:35, 3:35] = image
    first, last = (
        torch.einsum("oijk,ijk->o", convolution.weight, padded[0, :, corner : corner + 11, corner : corner + 11])
        for corner in (0, 28)
    )
    out = convolution(model.features[0](image))[0] - convolution.bias[:, None, None]
    assert out.shape[1:] == (8, 8)
    torch.testing.assert_close(torch.stack([out[:, 0, 0], out[:, 7, 7]]), torch.stack([first, last]), rtol=1e-4, atol=1e-5)


# --- seeds ----------------------------------------------------------------------------------------------------------------------


def test_build_draws_from_its_seed_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, same, other = (models.build("lenet5_relu", seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_unknown_network_names_what_is_allowed():
    for call in (models.build, models.load, models.card):
        with pytest.raises(
            UserError, match="unknown network 'lenet'; allowed: lenet5_tanh, lenet5_relu, lenet5_fashion, mobilenet_v2"
        ):
            call("lenet")


# --- checkpoints ----------------------------------------------------------------------------------------------------------------


def checkpoint(folder, network="lenet5_tanh", weights=None):
    """A checkpoint and its card as training writes them, with untrained weights; returns the file."""
    file = folder / f"{network}.safetensors"
    save_file(models.build(network, 9).state_dict() if weights is None else weights, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / f"{network}.json").write_text(json.dumps({"network": network, "sha256": digest}))
    return file


def test_load_returns_the_saved_weights_ready_to_evaluate(tmp_path):
    checkpoint(tmp_path)
    loaded, expected = models.load("lenet5_tanh", tmp_path), models.build("lenet5_tanh", 9).state_dict()
    assert not loaded.training
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("ending", ["safetensors", "json"])
def test_a_missing_file_is_named_with_the_way_out(tmp_path, ending):
    checkpoint(tmp_path)
    (tmp_path / f"lenet5_tanh.{ending}").unlink()
    with pytest.raises(UserError, match=rf"lenet5_tanh\.{ending} is missing; `make models`"):
        models.load("lenet5_tanh", tmp_path)


def test_a_network_that_make_does_not_train_names_the_command_that_does(tmp_path):
    with pytest.raises(
        UserError, match=r"alexnet_cifar10.safetensors is missing; `python -m weightlab.training alexnet_cifar10` trains it"
    ):
        models.load("alexnet_cifar10", tmp_path)


def test_every_network_is_measured_on_what_it_was_trained_for():
    assert {network: training.dataset_of(network) for network in models.NETWORKS} == {
        "lenet5_tanh": "mnist", "lenet5_relu": "mnist", "lenet5_fashion": "fashion_mnist", "mobilenet_v2": "imagenette",
        "mobilenet_v2_fashion": "fashion_mnist", "alexnet_fashion": "fashion_mnist", "alexnet_cifar10": "cifar10",
    }  # fmt: skip


def test_a_flipped_byte_is_found(tmp_path):
    file = checkpoint(tmp_path)
    raw, good = bytearray(file.read_bytes()), hashlib.sha256(file.read_bytes()).hexdigest()
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(UserError) as raised:
        models.load("lenet5_tanh", tmp_path)
    for part in (str(file), good, hashlib.sha256(raw).hexdigest()):
        assert part in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "weights",
    [{"weight": torch.zeros(2, 2)}, {name: torch.zeros(3) for name in models.build("lenet5_tanh").state_dict()}],
    ids=["other names", "other shapes"],
)
def test_weights_of_another_network_are_refused(tmp_path, weights):
    file = checkpoint(tmp_path, weights=weights)
    with pytest.raises(UserError, match="does not hold the weights of lenet5_tanh") as raised:
        models.load("lenet5_tanh", tmp_path)
    assert str(file) in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    file = checkpoint(tmp_path)
    file.write_bytes(b"not safetensors")
    card = {"network": "lenet5_tanh", "sha256": hashlib.sha256(b"not safetensors").hexdigest()}
    (tmp_path / "lenet5_tanh.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match="does not hold the weights of lenet5_tanh"):
        models.load("lenet5_tanh", tmp_path)


def test_a_checkpoint_of_the_other_activation_is_refused(tmp_path):
    """Tanh and ReLU variants have the same shapes; only the card tells them apart."""
    checkpoint(tmp_path, "lenet5_relu")
    for ending in ("safetensors", "json"):
        (tmp_path / f"lenet5_relu.{ending}").rename(tmp_path / f"lenet5_tanh.{ending}")
    with pytest.raises(UserError, match="lenet5_relu"):
        models.load("lenet5_tanh", tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"network": "lenet5_tanh"}'])
def test_a_broken_card_is_refused(tmp_path, content):
    checkpoint(tmp_path)
    (tmp_path / "lenet5_tanh.json").write_text(content)
    with pytest.raises(UserError, match=r"lenet5_tanh\.json"):
        models.load("lenet5_tanh", tmp_path)


# --- layers of any network ------------------------------------------------------------------------------------------------------


def test_an_example_gives_the_order_of_calls_and_leaves_out_unused_layers():
    model = Backwards()
    assert names(model) == ["last", "unused", "middle", "first"]
    assert names(model, torch.zeros(1, 5)) == ["first", "middle", "last"]


def test_a_layer_called_twice_and_a_tied_weight_are_listed_once():
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    tied[1].weight = tied[0].weight
    assert names(tied) == names(tied, torch.zeros(1, 4)) == ["0", "2"]
    layer = nn.Linear(4, 4)
    assert names(nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(1, 4)) == ["0"]


def test_every_kind_of_convolution_is_a_layer_and_nothing_else_is():
    model = nn.ModuleDict({
        "conv1d": nn.Conv1d(2, 3, 4), "depthwise": nn.Conv2d(6, 6, 3, groups=6), "conv3d": nn.Conv3d(1, 2, 2),
        "transposed": nn.ConvTranspose2d(2, 3, 2), "norm": nn.BatchNorm2d(6), "embedding": nn.Embedding(5, 2), "linear": nn.Linear(2, 3),
    })  # fmt: skip
    found = {layer.name: (layer.shape, layer.weights) for layer in models.layers(model)}
    assert found == {
        "conv1d": ((3, 2, 4), 24), "depthwise": ((6, 1, 3, 3), 54), "conv3d": ((2, 1, 2, 2, 2), 16),
        "transposed": ((2, 3, 2, 2), 24), "linear": ((3, 2), 6),
    }  # fmt: skip


def test_asking_for_the_order_leaves_the_model_as_it_was():
    """Training flags of every part (a frozen batch norm too), running statistics, and no hook left behind."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(8, 2)).train()
    model[1].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    assert names(model, torch.rand(3, 1, 4, 4)) == ["0", "4"]
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_name_their_layer(bad):
    model = Backwards()
    with torch.no_grad():
        model.middle.weight[1, 2] = bad
    with pytest.raises(UserError, match="layer middle holds NaN or infinite weights"):
        models.layers(model)


def test_a_network_without_layers_to_share():
    with pytest.raises(UserError, match="Sequential has no convolution or linear layer"):
        models.layers(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)))


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, lambda layer: prune.random_unstructured(layer, "weight", 2)])
def test_a_weight_that_is_computed_cannot_be_shared(wrap):
    """What is written into such a weight is lost at the next forward pass, so sharing it would be a silent no-op."""
    with pytest.raises(UserError, match="layer 0"):
        models.layers(nn.Sequential(wrap(nn.Linear(4, 4))))


@pytest.mark.parametrize("network", ["lenet5_tanh", "lenet5_relu"])
def test_committed_checkpoints_are_as_accurate_as_their_cards_say(network):
    """Recipe of the thesis: Adam 1e-4, batches of 32, 100 epochs, epoch of lowest validation loss; test accuracy at least 98.3 %."""
    model, card = models.load(network), models.card(network)
    for split in ("validation", "test"):
        assert training.accuracy(model, data.load("mnist", split), "cpu") == pytest.approx(card["accuracy"][split], abs=2e-4)
    assert card["accuracy"]["test"] >= 0.983
    assert card["epoch"] == min(card["history"], key=lambda row: row["validation_loss"])["epoch"] and len(card["history"]) == 100
    recipe = card["recipe"]
    assert (recipe["optimizer"], recipe["learning_rate"], recipe["batch"], recipe["epochs"]) == ("Adam", 1e-4, 32, 100)


@pytest.mark.parametrize(("network", "least", "bytes"), [("lenet5_fashion", 0.88, 130_000), ("alexnet_fashion", 0.9, 1_000_000)])
def test_committed_checkpoints_on_fashion_mnist_are_as_good_as_their_cards_say_and_small(network, least, bytes):
    model, card = models.load(network), models.card(network)
    for split in ("validation", "test"):
        found = training.accuracy(model, data.load("fashion_mnist", split), "cpu")
        assert found == pytest.approx(card["accuracy"][split], abs=4e-4)
    assert card["accuracy"]["test"] >= least and (paths.models() / f"{network}.safetensors").stat().st_size < bytes
    recipe = dataclasses.asdict(training.CHECKPOINTS[network])
    assert {name: card["recipe"][name] for name in recipe} == recipe
    assert len(card["history"]) == recipe["epochs"] and card.get("note") == training.NOTES.get(network)


def test_measuring_leaves_the_network_as_it_was():
    model = models.build("lenet5_tanh").train()
    model.classifier[0].eval()
    training.accuracy(model, data.load("mnist", "test").first(50), "cpu")
    assert model.training and not model.classifier[0].training


@pytest.mark.parametrize(
    ("network", "size", "count"),
    [("lenet5_tanh", (1, 32, 32), 5), ("mobilenet_v2", (3, 64, 64), 20), ("alexnet_fashion", (1, 32, 32), 9)],
)
def test_stages_compose_to_the_network(network, size, count):
    model = models.build(network).eval()
    images = torch.rand(2, *size, generator=torch.Generator().manual_seed(1))
    stages = sequences.stages(model)
    assert len(stages) == count
    with torch.inference_mode():
        assert torch.allclose(torch.nn.Sequential(*stages)(images), model(images), atol=1e-5)


def test_the_command_verifies_what_is_there_and_refuses_what_it_has_no_recipe_for():
    command = [*python(), "-m", "weightlab.training"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("checkpoint verified") == 5, done.stderr
    done = subprocess.run([*command, "mobilenet_v2"], capture_output=True, text=True)
    assert done.returncode == 1
    allowed = "lenet5_tanh, lenet5_relu, lenet5_fashion, mobilenet_v2_fashion, alexnet_fashion, alexnet_cifar10"
    assert done.stderr == f"error: unknown network with a recipe 'mobilenet_v2'; allowed: {allowed}\n"
