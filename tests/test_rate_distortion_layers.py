"""Layers as matrices, weights on a grid, and networks compressed on unlabelled images."""

import copy

import agreement_networks
import numpy as np
import pytest
import torch
from torch import nn

from weightlab import data, models, packing, training
from weightlab.compression import kinds
from weightlab.errors import UserError
from weightlab.packing import packed_format
from weightlab.tuning import rate_distortion
from weightlab.tuning.rate_distortion import (
    assignment,
    batch_norm,
    calibrated,
    compression,
    curvature,
    matrices,
    remainder,
    storing,
    tuned,
)

LAYERS = {
    "linear": (nn.Linear(6, 4), (5, 6)),
    "linear on sequences": (nn.Linear(6, 4), (5, 3, 6)),
    "plain": (nn.Conv2d(3, 4, 3), (2, 3, 7, 8)),
    "padded": (nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 2), bias=False), (2, 3, 7, 8)),
    "same": (nn.Conv2d(3, 4, (4, 3), padding="same", dilation=(1, 2)), (2, 3, 9, 8)),
    "circular": (nn.Conv2d(3, 4, 3, padding=(2, 1), padding_mode="circular"), (2, 3, 7, 8)),
    "reflecting": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (2, 3, 7, 8)),
    "grouped": (nn.Conv2d(6, 4, 3, groups=2, dilation=2), (2, 6, 9, 8)),
    "depthwise": (nn.Conv2d(6, 12, 3, groups=6, padding=1), (2, 6, 7, 8)),
    "pointwise": (nn.Conv2d(6, 4, 1, stride=2), (2, 6, 7, 8)),
    "1-D": (nn.Conv1d(3, 4, 5, stride=2, padding=2, groups=1), (2, 3, 11)),
    "3-D": (nn.Conv3d(2, 4, (2, 1, 3), padding=(1, 0, 1)), (2, 2, 4, 5, 6)),
    "transposed": (nn.ConvTranspose2d(3, 4, 3), (2, 3, 5, 6)),
    "transposed, strided": (
        nn.ConvTranspose2d(4, 6, (3, 4), stride=(2, 3), padding=(1, 2), output_padding=(1, 2), groups=2),
        (2, 4, 5, 6),
    ),
    "transposed, dilated": (nn.ConvTranspose1d(3, 4, 3, stride=2, dilation=2, padding=4), (2, 3, 9)),
}


@pytest.mark.parametrize("part", [1, 1 << 26])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_its_rows_times_its_columns(name, part, monkeypatch):
    monkeypatch.setattr(matrices, "PART", part)
    layer, shape = LAYERS[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weights = matrices.of(layer, layer.weight.detach())
    assert torch.equal(matrices.back(layer, weights), layer.weight)
    columns = torch.cat(list(matrices.inputs(layer, x, 10**9, torch.Generator())))
    products = (weights @ columns).flatten(0, 1)  # (channels, columns)
    if layer.bias is not None:
        products = products + layer.bias[:, None]
    expected = curvature.channels_last(layer, layer(x)).T
    assert products.shape == expected.shape and torch.allclose(products, expected, atol=1e-5)
    few = torch.cat(list(matrices.inputs(layer, x, 5, torch.Generator().manual_seed(1))))
    assert few.shape == (*columns.shape[:2], 5)
    for column in few.permute(2, 0, 1):
        assert (columns.permute(2, 0, 1) == column).flatten(1).all(1).any()


def layer_of(seed, groups=2, rows=3, inputs=6):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(groups, inputs, 40)) * rng.uniform(0.2, 2, (groups, inputs, 1)) + rng.normal(size=(groups, 1, 40))
    return rng.normal(size=(groups, rows, inputs)), x @ x.transpose(0, 2, 1) / 40, rng.uniform(0.5, 2, (groups, rows))


def cost(weights, moments, slopes, price, labels, centroids, bits):
    error = centroids[labels] - weights
    coded = bits[np.arange(labels.shape[2]), labels]  # each input has bits of its own
    return (slopes * np.einsum("gri,gij,grj->gr", error, moments, error)).sum() + price * coded.sum()


def test_errors_are_passed_on_as_the_source_says():
    """Frantar et al. 2022 in their own words: the inverse of what is left of H, one input after the other."""
    weights, moments, _ = layer_of(3)
    step, reach = 0.4, 9
    power = np.diagonal(moments, axis1=1, axis2=2)
    expected = np.empty(weights.shape, int)
    for group, row in np.ndindex(weights.shape[:2]):
        w, left = weights[group, row].copy(), list(np.argsort(-power[group], kind="stable"))
        while left:
            j = left[0]
            inverse = np.linalg.inv(moments[group][np.ix_(left, left)])
            expected[group, row, j] = np.clip(np.rint(w[j] / step), -reach, reach)
            w[left] -= (w[j] - step * expected[group, row, j]) / inverse[0, 0] * inverse[0]
            left = left[1:]
    assert np.array_equal(assignment._fed_back(weights, moments, power, step, reach), expected)


@pytest.mark.parametrize("price", [0.0, 0.01, 0.1])
def test_no_single_label_lowers_the_cost_in_the_end(price):
    weights, moments, slopes = layer_of(1)
    labels = np.random.default_rng(0).integers(0, 7, weights.shape)
    centroids, bits = (
        0.5 * np.arange(-3, 4.0),
        np.array([5, 4, 3, 0.5, 3, 4, 5.0]) * np.linspace(0.5, 2, weights.shape[2])[:, None],
    )
    before = cost(weights, moments, slopes, price, labels, centroids, bits)
    for _ in range(50):
        values = centroids[labels]
        if not assignment._swept(values, (values - weights) @ moments, moments, centroids, bits, price, slopes, labels):
            break
    least = cost(weights, moments, slopes, price, labels, centroids, bits)
    assert least < before
    for place in np.ndindex(labels.shape):
        for label in range(7):
            other = labels.copy()
            other[place] = label
            assert cost(weights, moments, slopes, price, other, centroids, bits) >= least - 1e-9


def test_labels_number_the_ascending_centroids_of_a_grid():
    weights, moments, slopes = layer_of(4, rows=2000)
    for price in (1.0, 0.1, 1e-2, 1e-6):
        found = assignment.assign(weights, moments, slopes, price)
        assert (found.labels.min(), found.labels.max()) == (0, found.k - 1)
        centroids = (found.low + found.step * np.arange(found.k)).astype(np.float32)
        assert np.array_equal(found.values, centroids[found.labels]) and 0 in centroids
    assert abs(found.values - weights).max() < 0.05


def test_more_expensive_bits_give_fewer_of_them():
    weights, moments, slopes = layer_of(5, rows=60)

    def bits(price):
        counts = np.unique(assignment.assign(weights, moments, slopes, price).labels, return_counts=True)[1]
        return -(counts * np.log2(counts / counts.sum())).sum()

    assert bits(0.001) > bits(0.05) > bits(0.5)


class Net(nn.Module):
    """Convolutions with and without batch norm, a layer that is called twice, and one that no image reaches."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.deep = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.head = nn.Linear(6, 4)
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.deep(torch.relu(self.deep(x))))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Net().eval()
    with torch.no_grad():
        net.norm.running_mean.uniform_(-1, 1)
        net.norm.running_var.uniform_(0.5, 2)
        net.norm.weight.uniform_(0.5, 2)
        net.norm.bias.uniform_(-1, 1)
    return net


IMAGES = torch.rand(50, 1, 12, 12, generator=torch.Generator().manual_seed(2))
NAMES = ["first", "deep", "head"]


def assign(name, weights, moments):
    return assignment.assign(weights, moments, np.ones(weights.shape[:2]), 1e-3)


def test_a_compressed_network_keeps_means_and_changes_statistics_as_its_inputs_changed(net):
    before = copy.deepcopy(net.state_dict())
    calibration = calibrated.calibrate(net, NAMES, IMAGES, seed=0)
    compressed, done = calibrated.compress(net, calibration, assign, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert list(done) == NAMES and not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    for name, found in done.items():
        layer = compressed.get_submodule(name)
        assert torch.equal(layer.weight, matrices.back(layer, torch.from_numpy(found.values)))
    seen = {}
    for name, each in (("new", compressed), ("old", net)):
        each.norm.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0].transpose(0, 1).flatten(1)}))
        each(IMAGES)
    shift, factor = seen["new"].mean(1) - seen["old"].mean(1), seen["new"].var(1) / seen["old"].var(1)
    assert torch.allclose(compressed.norm.running_mean, net.norm.running_mean + shift, atol=1e-5)
    assert torch.allclose(compressed.norm.running_var, net.norm.running_var * factor, rtol=1e-4)
    assert torch.allclose(compressed(IMAGES).mean(0), net(IMAGES).mean(0), atol=1e-5)
    again, _ = calibrated.compress(net, calibration, assign, seed=0)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in compressed.state_dict().items())


def test_slopes_are_squared_gradients_of_the_networks_own_answers(net):
    slopes = curvature.rows(net, [*NAMES, "unused"], IMAGES[:3], torch.Generator().manual_seed(5))
    assert set(slopes) == set(NAMES)
    generator, expected = torch.Generator().manual_seed(5), torch.zeros(4, dtype=torch.float64)
    scale = net(IMAGES[:3]).detach().std(1).mean()
    drawn = torch.multinomial((net(IMAGES[:3]) / scale).softmax(1).detach(), 1, generator=generator)
    for image, answer in zip(IMAGES[:3], drawn, strict=True):
        p = (net(image[None]) / scale).softmax(1)[0].detach().double()
        expected += ((torch.eye(4)[answer[0]] - p) / scale) ** 2 / 3  # of the last layer, whose outputs are the logits
    assert torch.allclose(slopes["head"], expected, rtol=1e-4)


def test_merged_batch_norm_answers_the_same_with_two_numbers_a_channel(net):
    tensors = batch_norm.merged(net)
    assert set(tensors) == {f"norm.{part}" for part in ("weight", "bias", "running_mean", "running_var")}
    merged = copy.deepcopy(net)
    merged.load_state_dict(net.state_dict() | tensors)
    assert torch.allclose(merged(IMAGES), net(IMAGES), atol=1e-5)
    assert tensors["norm.running_mean"].unique().tolist() == [0] and tensors["norm.running_var"].unique().tolist() == [1]


def test_the_remainder_is_stored_within_a_step():
    tensors = {"bias": torch.linspace(-3, 5, 40) ** 3, "few": torch.tensor([0.1, 0.2]), "same": torch.ones(9)}
    tensors |= {"count": torch.tensor(3), "unfinished": torch.tensor([1.0, float("nan")])}
    for coding, steps in (("4 bits", 14), ("8 bits", 250), ("float16", 2000), ("float32", 1e9)):
        stored = remainder.stored(tensors, coding)
        assert set(stored) == {"bias", "few"} and stored["bias"][1] == (40,)
        for name, (coded, shape) in stored.items():
            values = kinds.weights(coded, shape[0])
            assert abs(values - tensors[name].numpy()).max() <= float(tensors[name].max() - tensors[name].min()) / steps


def test_biases_and_batch_norm_take_as_few_bits_as_answers_allow(net):
    layers = models.layers(net, IMAGES[:2])
    assert storing.coding(net, layers, IMAGES) in ("4 bits", "5 bits", "6 bits", "8 bits", "float16")
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.copy_(torch.tensor([1000.0, 1000.1, 1000.2, 1000.3]))
    assert storing.coding(net, layers, IMAGES) == "float32"


# --- whole networks -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist():
    return {name: data.load("mnist", name) for name in data.SPLITS}


@pytest.mark.parametrize("network", ["lenet5_tanh", "lenet5_relu"])
def test_a_network_becomes_a_file_of_a_thirtieth_within_a_point(network, mnist, tmp_path):
    """Calibrated on unlabelled images; the file holds what was measured, and the same seed gives the same bytes."""
    model, images, validation = models.load(network), mnist["train"].images[:600], mnist["validation"].first(2000)
    before, told = copy.deepcopy(model.state_dict()), []
    options = {"within": 1.0, "validation": validation, "seed": 3}
    found = rate_distortion.compress(model, images, **options, progress=told.append)
    packed = packing.write_compressed(tmp_path / "file", model, found.compressed, version=2)
    small = packing.read(tmp_path / "file").load(model)
    assert len(packed.content) * 30 < packed.details.original_bytes and packed.header_bytes <= 400
    losses = [100 * (training.accuracy(model, split) - training.accuracy(small, split)) for split in (validation, mnist["test"])]
    assert losses[0] < 1 and losses[1] < 2
    trials = found.trials
    assert len(trials) <= 12 and trials.to_dict("records") == told
    best = trials[trials["loss_pp"] < 1].sort_values("bytes").iloc[0]
    assert (best["bytes"], best["price"], best["loss_pp"]) == (len(packed.content), found.price, pytest.approx(losses[0]))
    assert (
        found.level == 1
        and not found.plainly
        and all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    )
    again = rate_distortion.compress(model, images, price=found.price, seed=3)
    assert packing.pack_compressed(model, again.compressed, version=2) == packed.content
    other = rate_distortion.compress(model, images, price=found.price, seed=4)
    assert packing.pack_compressed(model, other.compressed, version=2) != packed.content


def test_level_2_trains_few_numbers_with_classes_and_no_weight_by_itself(mnist):
    """The labels are those of level 1 on the same images; centroids, biases and batch norm are others, and answers nearer to the original's."""
    model, train = models.load("lenet5_tanh"), mnist["train"].first(2000)
    options = {"classes": train.labels, "seed": 3}
    found, again, untuned = (rate_distortion.at_price(model, train.images, steps=n, **options)(0.08) for n in (60, 60, 0))
    contents = [packing.pack_compressed(model, each.compressed, version=2) for each in (found, again)]
    assert contents[0] == contents[1] and found.level == 2 and "level 2 (tuned)" in found.compressed.method
    images = mnist["validation"].images[:2000]
    for before, after in zip(untuned.compressed.stored, found.compressed.stored, strict=True):
        assert np.array_equal(before.parts["labels"].numbers, after.parts["labels"].numbers)
        n = len(before.parts["labels"].numbers)
        assert before.kind == after.kind and not np.array_equal(kinds.weights(before, n), kinds.weights(after, n))
    expected = training.logits(model, images)
    errors = [(training.logits(each.compressed.apply(model), images) - expected).pow(2).mean() for each in (untuned, found)]
    assert errors[1] < 0.95 * errors[0]


def test_training_that_does_not_help_images_kept_back_is_dropped(mnist, monkeypatch):
    model, train = models.load("lenet5_relu"), mnist["train"].first(1000)
    monkeypatch.setattr(tuned, "CENTROIDS", 1000.0)  # far beyond what trains
    contents = []
    for steps in (0, 5):
        at = rate_distortion.at_price(model, train.images, classes=train.labels, steps=steps)
        contents.append(packing.pack_compressed(model, at(0.1).compressed, version=2))
    assert contents[0] == contents[1]


def test_trained_numbers_have_the_gradient_of_all_their_weights():
    labels = np.array([[[0, 1, 2, 1], [2, 2, 0, 1]]])
    gradient = torch.arange(8.0).reshape(1, 2, 4)
    before = assignment.Assigned(labels, -0.5, 0.25)
    each = tuned._Trained(before)
    assert np.allclose(each.weights().numpy(), before.values)
    each.take(gradient)
    assert each.numbers.grad.tolist() == [28, 11 + 2 * 11]
    each.numbers.data.mul_(1 + 1e-3)
    assert np.allclose(each.assigned(before).values, 1.001 * before.values)


@pytest.mark.parametrize("images", [(255 * IMAGES).to(torch.uint8), None], ids=["calibrated", "data-free"])
def test_many_prices_give_what_each_gives_by_itself(net, images):
    at = rate_distortion.at_price(net, images, example=IMAGES[:2])
    for price in (0.05, 0.01, 0.05):
        found, alone = at(price), rate_distortion.compress(net, images, price=price, example=IMAGES[:2])
        contents = [packing.pack_compressed(net, each.compressed, version=2) for each in (found, alone)]
        assert contents[0] == contents[1] and (found.price, found.level) == (price, alone.level)
    with pytest.raises(UserError, match="price must be a positive number, got 0"):
        at(0)
    with pytest.raises(UserError, match="level 1 needs images to calibrate on"):
        rate_distortion.at_price(net, level=1)
    for steps in (-1, 0.5, True):
        with pytest.raises(UserError, match=f"steps must be a whole number, at least 0, got {steps}"):
            rate_distortion.at_price(net, images, example=IMAGES[:2], steps=steps)


def test_without_data_random_images_calibrate_or_variances_count(mnist):
    model = models.load("lenet5_tanh")
    example = torch.zeros(1, 1, 32, 32)
    found = rate_distortion.compress(model, price=0.05, example=example)
    loss = training.accuracy(model, mnist["test"]) - training.accuracy(found.compressed.apply(model), mnist["test"])
    size = len(packing.pack_compressed(model, found.compressed, version=2))
    assert found.level == 0 and loss < 0.01 and size < 12_000
    spots = compression.random_images(example, 300, 1)
    assert (
        spots.shape == (300, 1, 32, 32)
        and spots.min() == 0
        and spots.max() == 1
        and ((spots == 0) | (spots == 1)).float().mean() > 0.4
    )
    normed = models.load("mobilenet_v2_fashion")
    found = rate_distortion.compress(normed, example=example)
    size = len(packing.pack_compressed(normed, found.compressed, version=2))
    assert size < 900_000 and not any(stored.kind == "grid" for stored in found.compressed.stored)
    split = data.load("fashion_mnist", "validation").first(1000)
    assert training.accuracy(normed, split) - training.accuracy(found.compressed.apply(normed), split) < 0.02


def test_a_layer_that_no_image_reaches_is_compressed_plainly_and_named(net):
    class Fickle(Net):
        def forward(self, x):
            return super().forward(x) if len(x) > 2 else super().forward(x) + self.unused(x[:, 0, 0, :3]).mean()

    torch.manual_seed(1)
    fickle = Fickle().eval()
    found = rate_distortion.compress(fickle, (255 * IMAGES).to(torch.uint8), price=0.05)
    assert list(found.plainly) == ["unused"] and len(found.compressed.stored) == 4
    found.compressed.apply(fickle)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"level": 3}, r"level must be 0 \(data-free\), 1 \(calibrated\), 2 \(tuned\), got 3"),
        ({"level": 1}, "level 1 needs images to calibrate on"),
        ({"within": 1.0}, "without validation images no loss can be measured"),
        ({"price": -1.0}, "price must be a positive number, got -1.0"),
        ({"price": float("nan")}, "price must be a positive number"),
        ({"price": 1.0, "within": 1.0}, "not both"),
        ({"example": None}, "level 0 needs an example"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options, sentence, net):
    with pytest.raises(UserError, match=sentence):
        rate_distortion.compress(net, **{"example": IMAGES[:2]} | options)


@pytest.mark.parametrize("edge", [0.013, 0.2, 3.0, 1000.0])
def test_prices_are_tried_up_to_the_edge(edge):
    tried = []
    compression._bisect(lambda price: tried.append(price) or price > edge, 0.2)
    assert len(tried) <= 12
    if edge < 100:
        assert edge / 1.05 < max(price for price in tried if price <= edge)


BLOBS = (255 * torch.rand(61, 1, 16, 16, generator=torch.Generator().manual_seed(1))).to(torch.uint8)


@pytest.mark.parametrize("images", [BLOBS, None], ids=["calibrated", "data-free"])
@pytest.mark.parametrize(
    "name",
    ["tied", "attention", "tokens", "writes_first", "view_then_write", "squeezing", "relu_in_place", "recurrent", "mnasnet"],
)
def test_networks_of_many_kinds_are_compressed_and_left_as_they_were(name, images):
    model = getattr(agreement_networks, name)().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = rate_distortion.compress(model, images, price=0.01, example=BLOBS[:2].float() / 255)
    packed = packing.Packed(*packed_format.check(content := packing.pack_compressed(model, found.compressed, version=2)), content)
    expected = found.compressed.apply(model).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in packed.load(model).state_dict().items())
    assert model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_network_that_answers_nan_is_refused():
    with pytest.raises(UserError, match="answers NaN or infinity to an image"):
        rate_distortion.compress(agreement_networks.not_a_number(), BLOBS, price=0.01)


def test_a_layer_of_too_many_inputs_is_compressed_plainly(net, monkeypatch):
    monkeypatch.setattr(calibrated, "INPUTS", 8)
    found = rate_distortion.compress(net, (255 * IMAGES).to(torch.uint8), price=0.01)
    assert list(found.plainly) == ["first", "deep"]
