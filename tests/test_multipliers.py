"""Approximate multipliers in convolutions: sums by tables, codes, the layer, the method, searches."""

import copy
import io
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from weightlab import data, formats, models, paths, training
from weightlab.compression import contract
from weightlab.compression.compressed import compressed
from weightlab.compression.multipliers import convolution, metrics, tables
from weightlab.compression.multipliers.convolution import Geometry
from weightlab.compression.multipliers.layer import ApproximateConv2d
from weightlab.compression.multipliers.method import Multipliers
from weightlab.compression.multipliers.settings import Multiplying
from weightlab.compression.multipliers.tables import Multiplier
from weightlab.errors import UserError
from weightlab.evaluation import Evaluator
from weightlab.runs import Runner, Setting, Specification, loop
from weightlab.runs.specifications import from_description
from weightlab.search.fitness import TargetRule

PRODUCTS = np.outer(np.arange(256), np.arange(256)).astype(np.uint16)
EXACT = Multiplier("exact", PRODUCTS, 0.4, "model")
# An asymmetric table without a zero row or column, so that every mistake of order or padding shows.
ODD = (PRODUCTS // 3 + 7 * np.arange(256)[:, None] + 11).astype(np.uint16)
SHAPES = [  # channels, outputs, kernel, stride, padding, dilation, groups
    (3, 5, 3, 1, 0, 1, 1), (2, 4, 5, 2, 2, 1, 1), (4, 6, 3, 1, 1, 2, 2), (3, 3, 3, 4, (2, 0), 1, 3), (2, 3, (1, 4), (2, 1), "valid", 1, 1),
    (2, 3, (2, 3), 1, "same", 1, 1),
]  # fmt: skip


def layer_of(shape, seed=0, bias=True, **options):
    channels, outputs, kernel, stride, padding, dilation, groups = shape
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Conv2d(channels, outputs, kernel, stride, padding, dilation, groups, bias, **options).eval()


def activations(shape, seed=0, low=-0.7, high=1.3, n=3):
    chance = np.random.default_rng(seed)
    return torch.from_numpy(chance.uniform(low, high, (n, shape[0], 11, 9)).astype(np.float32))


def faked(numbers, codes):
    """Fake-quantized numbers, by torch."""
    return torch.fake_quantize_per_tensor_affine(torch.as_tensor(numbers), codes.scale, codes.zero, 0, codes.levels)


def test_the_example_of_the_documentation_gives_what_it_says(capsys):
    """Up to few images, which other processors may round into another class."""
    code, printed = re.findall(r"```(?:python)?\n(.*?)```", (paths.root() / "docs" / "multipliers.md").read_text(), re.S)[:2]
    exec(code, {})  # it is ours
    found, said = (np.loadtxt(io.StringIO(text), skiprows=1) for text in (capsys.readouterr().out, printed))
    assert np.abs(found - said).max() < 0.02


# --- codes ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(-1, 1.55), (0, 3), (-2, 0), (0.5, 2), (-3, -1), (-1e6, 3)])
def test_codes_are_those_of_tensorflows_fake_quantization(low, high):
    """Nudged as in TensorFlow's `FakeQuantWithMinMaxVars`, here in double precision; ties are left out, which float32 rounds itself."""
    codes = formats.affine(low, high)
    lowest, highest = min(low, 0), max(high, 0)
    scale = (highest - lowest) / 255
    zero = int(np.clip(np.floor(-lowest / scale + 0.5), 0, 255))
    assert codes.zero == zero and codes.scale == pytest.approx(scale, rel=1e-6)
    x = np.random.default_rng(0).uniform(1.2 * lowest - 0.1, 1.2 * highest + 0.1, 10_000).astype(np.float32)
    shifted = np.clip(x.astype(np.float64), -zero * scale, (255 - zero) * scale) / scale + zero
    clear = np.abs(shifted - np.floor(shifted) - 0.5) > 1e-2 * max(1, np.abs(x).max() / scale * 1e-4)
    assert clear.mean() > 0.9
    assert np.array_equal(codes.codes(x)[clear], np.floor(shifted + 0.5)[clear])
    assert codes.numbers(codes.codes(np.zeros(1, np.float32))).tolist() == [0]


def test_a_half_goes_up_and_codes_come_back():
    codes = formats.affine(-128, 127)
    assert codes == formats.Affine(1.0, 128)
    assert codes.codes(np.float32([-0.5, 0.5, 1.5, -200, 200, -1.5])).tolist() == [128, 129, 130, 0, 255, 127]
    every = np.arange(256, dtype=np.uint8)
    for low, high in [(-1, 1.55), (0, 6), (-0.3, 0.1)]:
        codes = formats.affine(low, high)
        assert np.array_equal(codes.codes(codes.numbers(every)), every)
        assert (
            np.abs(codes.numbers(codes.codes(x := np.linspace(low, high, 999, dtype=np.float32))) - x).max()
            <= codes.scale * 0.501
        )


def test_codes_of_nothing_and_of_no_range():
    assert formats.affine(0, 0) == formats.Affine(0.0, 0)
    assert formats.affine(0, 0).codes(np.float32([0, 3])).tolist() == [0, 0]
    assert formats.affine(0, 0).numbers(np.uint8([0])).tolist() == [0]
    for limits in ((0, np.inf), (-np.inf, 0), (np.nan, 1), (0, np.nan), (-3e38, 3e38)):
        with pytest.raises(
            UserError, match=f"codes need a finite range of numbers, got {limits[0]} to {limits[1]}".replace("+", r"\+")
        ):
            formats.affine(*limits)


@pytest.mark.parametrize("bits", [1, 4, 7])
def test_codes_of_fewer_bits(bits):
    last = 2**bits - 1
    codes = formats.affine(0, 3, bits=bits)
    assert codes == formats.Affine(float(np.float32(3) / np.float32(last)), 0, last)
    every = np.arange(last + 1, dtype=np.uint8)
    assert np.array_equal(codes.codes(codes.numbers(every)), every)
    assert codes.codes(np.float32([-1, 0, 3, 9])).tolist() == [0, 0, last, last]


# --- sums by a table --------------------------------------------------------------------------------------------------------------


def test_row_add_is_the_oracle_on_200_random_layers():
    chance = np.random.default_rng(1)
    for case in range(200):
        taps, outputs, patches = (int(chance.integers(1, most)) for most in (40, 40, 90))
        if case % 50 == 0:
            patches += convolution.BLOCK + convolution.FEW  # several blocks, the last of which is short
        table = chance.integers(0, 65_536, (256, 256)).astype(np.uint16)
        columns = chance.integers(0, 256, (taps, patches)).astype(np.uint8)
        weights = chance.integers(0, 256, (taps, outputs)).astype(np.uint8)
        signs = chance.choice(np.int8([-1, 1]), (taps, outputs)) if case % 2 else None
        expected = convolution.oracle(columns, weights, signs, table)
        assert np.array_equal(convolution.row_add(columns, weights, signs, table), expected), case


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("signed", [False, True])
def test_the_low_rank_form_is_exact(shape, signed):
    """On a CPU here; a GPU runs the same torch operations."""
    chance, geometry = np.random.default_rng(2), Geometry.of(layer := layer_of(shape))
    codes = chance.integers(0, 256, (2, shape[0], 11, 9)).astype(np.uint8)
    weights = chance.integers(0, 256, tuple(layer.weight.shape)).astype(np.uint8)
    signs = chance.choice(np.int8([-1, 1]), weights.shape) if signed else None
    generated = tables.generated()
    for multiplier in [generated.multipliers[place] for place in range(0, len(generated.names), 6)]:
        sums = convolution.low_rank(
            torch.from_numpy(codes), torch.from_numpy(weights), None if signs is None else torch.from_numpy(signs),
            metrics.factors(multiplier.table), geometry, 5,
        )  # fmt: skip
        assert np.array_equal(sums.numpy(), by_hand(codes, weights, signs, multiplier.table, geometry, 5)), multiplier.name


def by_hand(codes, weights, signs, table, geometry, padding):
    """The sums of a convolution, a place of an output at a time."""
    left, right, top, bottom = geometry.padding
    x = np.pad(codes, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=padding)
    (rows, columns), (down, across) = geometry.kernel, geometry.stride
    high, wide = geometry.dilation
    h = (x.shape[2] - high * (rows - 1) - 1) // down + 1
    w = (x.shape[3] - wide * (columns - 1) - 1) // across + 1
    sums = np.zeros((len(x), len(weights), h, w), np.int64)
    each, inputs = len(weights) // geometry.groups, weights.shape[1]
    for o, weight in enumerate(weights):
        own = x[:, (o // each) * inputs : (o // each + 1) * inputs]
        for i in range(h):
            for j in range(w):
                window = own[:, :, i * down : i * down + high * rows : high, j * across : j * across + wide * columns : wide]
                window = window[:, :, :rows, :columns]
                products = table.astype(np.int64)[window, weight]
                sums[:, o, i, j] = (products if signs is None else products * signs[o]).sum((1, 2, 3))
    return sums


def test_the_low_rank_form_is_exact_for_long_sums_at_high_rank():
    chance, layer = np.random.default_rng(3), nn.Conv2d(1111, 2, 3)
    codes, weights = (chance.integers(0, 256, (each, 1111, 3, 3)).astype(np.uint8) for each in (1, 2))
    table = tables.generated().only(["or8"]).multipliers[0].table
    factors = metrics.factors(table)
    assert factors[0].shape == (256, 247)
    sums = convolution.low_rank(torch.from_numpy(codes), torch.from_numpy(weights), None, factors, Geometry.of(layer), 0)
    assert np.array_equal(sums.numpy().ravel(), table.astype(np.int64)[codes, weights].sum((1, 2, 3)))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_layer_sums_what_is_summed_by_hand(shape):
    layer, x = layer_of(shape), activations(shape)
    codes = formats.affine(-0.7, 1.3)
    made = ApproximateConv2d(layer, Multiplier("odd", ODD, 1, "model"), codes)
    weight = formats.affine(float(layer.weight.detach().min()), float(layer.weight.detach().max()))
    q1, q2 = codes.codes(x.numpy()), weight.codes(layer.weight.detach().numpy())
    sums = by_hand(q1, q2, None, ODD, made.geometry, codes.zero)
    ones = by_hand(q1, np.ones_like(q2), None, np.repeat(np.arange(256)[:, None], 256, 1), made.geometry, codes.zero)
    taps = q2[0].size
    whole = (
        sums
        - weight.zero * ones
        - (codes.zero * q2.reshape(len(q2), -1).astype(int).sum(1) - taps * codes.zero * weight.zero)[:, None, None]
    )
    expected = whole * (codes.scale * weight.scale) + layer.bias.detach().numpy()[:, None, None]
    np.testing.assert_allclose(made(x).numpy(), expected, rtol=1e-5, atol=1e-5)


# --- the layer --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("low", "high"), [(-0.7, 1.3), (0, 1.3), (-2, 0)])
def test_the_exact_multiplier_gives_the_fake_quantized_convolution(shape, low, high):
    layer, x = layer_of(shape), activations(shape, low=low, high=high)
    range, weight = (
        formats.affine(low, high),
        formats.affine(float(layer.weight.detach().min()), float(layer.weight.detach().max())),
    )
    fake = copy.deepcopy(layer)
    fake.weight.data = faked(layer.weight.detach(), weight)
    expected = fake(faked(x, range)).detach()
    for tune in (False, True):  # the map of the exact table changes nothing
        y = ApproximateConv2d(layer, EXACT, range, tune=tune)(x)
        assert (y - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("shape", SHAPES[:4])
def test_signed_weights_are_codes_of_their_magnitude(shape):
    layer, x = layer_of(shape), activations(shape)
    range, most = formats.affine(-0.7, 1.3), float(layer.weight.detach().abs().max())
    fake = copy.deepcopy(layer)
    step = most / 127
    fake.weight.data = (layer.weight.detach() / step).round() * step
    expected = fake(faked(x, range)).detach()
    y = ApproximateConv2d(layer, EXACT, range, signed=True)(x)
    assert (y - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_a_layer_that_pads_with_its_own_activations(mode):
    layer = layer_of((3, 4, 3, 1, 1, 1, 1), padding_mode=mode)
    x, range = activations((3,)), formats.affine(-0.7, 1.3)
    fake = copy.deepcopy(layer)
    fake.weight.data = faked(
        layer.weight.detach(), formats.affine(float(layer.weight.detach().min()), float(layer.weight.detach().max()))
    )
    expected = fake(faked(x, range)).detach()
    assert (ApproximateConv2d(layer, EXACT, range)(x) - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_the_first_operand_is_the_activation():
    layer, x = layer_of(SHAPES[0]), activations(SHAPES[0])
    one, other = (
        ApproximateConv2d(layer, Multiplier("odd", table, 1, "model"), formats.affine(-1, 2))(x) for table in (ODD, ODD.T.copy())
    )
    assert (one - other).abs().max() > 0.1


def test_zero_padding_goes_through_the_table():
    """Of an image that is 0 everywhere, every product is that of the code of 0, padded or not."""
    layer = layer_of((2, 3, 3, 1, 1, 1, 1), bias=False)
    range, weight = formats.affine(-1, 1), formats.affine(float(layer.weight.detach().min()), float(layer.weight.detach().max()))
    made = ApproximateConv2d(layer, Multiplier("odd", ODD, 1, "model"), range)
    y = made(torch.zeros(1, 2, 5, 5))
    q2 = weight.codes(layer.weight.detach().numpy())
    sums = ODD.astype(int)[range.zero, q2].sum((1, 2, 3))
    expected = (sums - q2.astype(int).sum((1, 2, 3)) * range.zero) * range.scale * weight.scale
    np.testing.assert_allclose(y[0].numpy(), np.broadcast_to(expected[:, None, None], (3, 5, 5)), rtol=1e-5)
    assert np.abs(expected).max() > 0  # an exact table gives 0
    assert ApproximateConv2d(layer, EXACT, range)(torch.zeros(1, 2, 5, 5)).abs().max() == 0


def test_tuned_weights_are_looked_up_and_true_ones_corrected_for():
    table = (PRODUCTS & 0xFFF0).astype(np.uint16)
    table[:, 1::2] = table[:, ::2]  # an odd weight counts as the even one below it
    layer, range = layer_of(SHAPES[0]), formats.affine(0, 2)
    tuned = ApproximateConv2d(layer, Multiplier("even", table, 1, "model"), range, tune=True)
    plain = ApproximateConv2d(layer, Multiplier("even", table, 1, "model"), range)
    tuning = metrics.tune_map(table)
    assert np.array_equal(tuned.weights, tuning[plain.weights]) and not np.array_equal(tuned.weights, plain.weights)
    assert np.array_equal(tuned.weight_sums, plain.weight_sums)


def test_the_low_rank_form_of_a_layer_is_its_output():
    drum = tables.generated().only(["drum4"]).multipliers[0]  # of rank 2
    for shape in SHAPES:
        layer, x = layer_of(shape), activations(shape)
        range = formats.affine(-0.7, 1.3)
        for signed in (False, True):
            made = ApproximateConv2d(layer, drum, range, signed=signed)
            assert torch.equal(made._finished(made._by_low_rank(x, range), range), made(x))


def test_the_largest_sums_stay_in_int32():
    taps, table = convolution.MOST_TAPS, np.full((256, 256), 65_535, np.uint16)
    columns, weights = np.full((taps, 3), 255, np.uint8), np.full((taps, 2), 255, np.uint8)
    assert (convolution.row_add(columns, weights, None, table) == 65_535 * taps).all()
    assert (65_535 + 255 * 255) * taps < 2**31


def test_a_sum_that_would_leave_int32_is_refused():
    with pytest.raises(UserError, match="a sum of products must have at most 16448 terms, got a convolution with 36864"):
        ApproximateConv2d(nn.Conv2d(4096, 1, 3), EXACT, None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_gives_the_same_numbers():
    for shape in SHAPES:
        layer, x = layer_of(shape), activations(shape, n=70)
        made = ApproximateConv2d(layer, tables.generated().multipliers[3], formats.affine(-0.7, 1.3))
        assert torch.equal(copy.deepcopy(made).cuda()(x.cuda()).cpu(), made(x))


# --- the method -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lenet5():
    return models.load("lenet5_relu")


@pytest.fixture(scope="module")
def validation():
    return data.load("mnist", "validation").first(200)


@pytest.fixture(scope="module")
def library():
    generated = tables.generated().ordered("power")
    worst = generated.names[0]
    return generated.only([worst, *generated.names[5::6], "exact"])


@pytest.fixture(scope="module")
def method(lenet5, validation, library):
    return Multipliers(lenet5, library, validation.images[:100])


def test_a_method_of_multipliers_says_what_is_asked(method, lenet5, library):
    assert isinstance(method, contract.Operations) and isinstance(method, contract.Energetic)
    assert method.names == ["feature_extractor.0", "feature_extractor.3", "feature_extractor.6"]
    assert method.multiplications.tolist() == [117_600, 240_000, 48_000]
    assert method.count(0) == len(library.names) and method.describe() == method.describe()
    plans = np.array([[1, 2, 3], [library.exact + 1] * 3])
    assert method.bits(plans).tolist() == [[150 * 8 + 64, 2400 * 8 + 64, 48_000 * 8 + 64]] * 2
    power = library.power_mw / library.power_mw[library.exact]
    assert method.energy(plans).tolist() == pytest.approx([(power[:3] * [117.6, 240, 48]).sum() / 405.6, 1])
    assert contract.rates(method, plans)["energy_rate"] == pytest.approx(1 / method.energy(plans))
    with pytest.raises(UserError, match="multipliers are circuits: a plan of multipliers cannot be packed"):
        compressed(method, [1, 1, 1], "multipliers")


@pytest.mark.parametrize("options", [{}, {"signed": True}, {"tune": True}])
def test_what_is_measured_is_the_network_with_these_layers(lenet5, validation, library, options):
    method = Multipliers(lenet5, library, validation.images[:100], **options)
    engine = Evaluator(lenet5, method, [validation], "cpu", threads=1)
    plans = np.random.default_rng(0).integers(1, len(library.names) + 1, (6, 3))
    for plan, accuracy in zip(plans, engine.accuracy(plans)[:, 0], strict=True):
        network = models.copied(lenet5)
        contract.apply(method, network, plan)
        assert accuracy == training.accuracy(network, validation, "cpu")
    assert engine.baseline()[0] == training.accuracy(lenet5, validation, "cpu")


def test_assignments_share_the_work_of_their_first_layers(lenet5, validation, method):
    engine = Evaluator(lenet5, method, [validation], "cpu", threads=1)
    engine.correct([[1, 1, each] for each in range(1, 6)] + [[1, 2, each] for each in range(1, 6)])
    assert engine.computed.tolist()[:3] == [200, 400, 2000]


def test_ranges_come_from_the_unchanged_network_on_calibration_images(lenet5, validation, method):
    seen = {}
    network = models.copied(lenet5)
    for name in method.names:
        network.get_submodule(name).register_forward_hook(
            lambda layer, inputs, output, name=name: seen.update({name: (inputs[0].min(), inputs[0].max())})
        )
    with torch.inference_mode():
        network(validation.images[:100].float() / 255)
    for name, (low, high) in seen.items():
        assert method.ranges[name] == formats.affine(float(low), float(high))


def test_with_ranges_of_its_batch_an_answer_depends_on_the_batch(lenet5, validation, method, library):
    """As tf-approximate does it: the same images in other company are coded by other steps."""
    network = method.in_batches(lenet5, [library.exact + 1] * 3)
    x = validation.images[:64].float() / 255
    with torch.inference_mode():
        whole, parts = network(x), torch.cat([network(part) for part in x.split(16)])
        assert (whole - parts).abs().max() > 1e-3
        fixed = models.copied(lenet5)
        contract.apply(method, fixed, [library.exact + 1] * 3)
        assert torch.equal(fixed(x)[:16], fixed(x[:16]))


def test_a_network_that_is_no_sequence_is_measured_too(validation, library):
    """Several convolutions in one module, depthwise ones among them: every assignment is called by itself."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide, self.deep = nn.Conv2d(1, 4, 3, padding=1, stride=4), nn.Conv2d(4, 4, 3, padding=1, groups=4)

        def forward(self, x):
            x = F.relu(self.wide(x))
            return x + self.deep(x)

    torch.manual_seed(3)
    network = nn.Sequential(Block(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10)).eval()
    method = Multipliers(network, library, validation.images[:50])
    assert method.names == ["0.wide", "0.deep"]
    engine = Evaluator(network, method, [validation], "cpu", threads=2)
    for plan in ([1, 1], [3, 2]):
        copy = models.copied(network)
        contract.apply(method, copy, plan)
        assert engine.accuracy([plan])[0, 0] == training.accuracy(copy, validation, "cpu")


def test_networks_that_have_nothing_to_approximate_are_refused(validation, library):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(1024, 10)).eval()
    with pytest.raises(UserError, match="Sequential has no plain 2-d convolution"):
        Multipliers(flat, library, validation.images[:2])
    twice = nn.Sequential(shared := nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), shared, nn.Flatten(), nn.Linear(1024, 10)).eval()
    with pytest.raises(UserError, match="layer 0 must be called once for an image, got 2 calls"):
        Multipliers(twice, library, validation.images[:2])
    (other := nn.Conv2d(1, 1, 3, padding=1)).weight = shared.weight
    tied = nn.Sequential(shared, nn.ReLU(), other, nn.Flatten(), nn.Linear(1024, 10)).eval()
    with pytest.raises(UserError, match="layer 0 shares its weight with another convolution"):
        Multipliers(tied, library, validation.images[:2])
    endless = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(1800, 10)).eval()
    endless[0].running_mean[:] = float("nan")
    with pytest.raises(UserError, match="activations before 1 are not finite on the calibration images"):
        Multipliers(endless, library, validation.images[:2])


# --- settings and searches --------------------------------------------------------------------------------------------------------


def test_settings_name_a_library_by_its_contents(tmp_path):
    circuits = "id,power_mw\nexact,0.4\nnothing,0\n"
    for name, each in (("exact", PRODUCTS), ("nothing", np.zeros((256, 256), np.uint16))):
        (tmp_path / f"mul8u_{name}.bin").write_bytes(each.astype("<u2").tobytes())
    (tmp_path / "circuits.csv").write_text(circuits)
    measured = Multiplying(library=str(tmp_path))
    assert measured.chosen.names == ["exact"] and measured.signed is False and measured.format == "affine_u8"
    for file in tmp_path.iterdir():
        file.unlink()
    settings = Multiplying(library="generated", only=["exact", "mitchell"])
    assert settings.chosen.ordered("power").names == settings.chosen.names and len(settings.candidates) == 2
    assert Setting("lenet5_relu", compression=settings).hash != Setting("lenet5_relu").hash
    assert (
        Setting("lenet5_relu", compression=settings).hash
        == Setting("lenet5_relu", compression=Multiplying(library="generated", only=("mitchell", "exact"))).hash
    )
    for wrong, sentence in (
        ({"tune": 1}, "tune must be True or False, got 1"),
        ({"signed": "yes"}, "signed must be None or True or False, got 'yes'"),
        ({"only": ["mitchel"]}, "unknown multiplier 'mitchel'"),
        ({"only": ["mitchell"]}, "energies are relative to an exact multiplier"),
        ({"order": "size"}, "unknown order of multipliers 'size'; allowed: power, alphabetical"),
        ({"calibration_images": 0}, "calibration images must be a whole number"),
        ({"library": str(tmp_path)}, "holds no table"),
    ):
        with pytest.raises(UserError, match=sentence):
            Multiplying(**{"library": "generated"} | wrong)


def specification(**changes):
    settings = Multiplying(library="generated", only=("exact", "mitchell", "drum4", "drum3"), calibration_images=50)
    common = {
        "compression": settings,
        "objective_rate": "energy",
        "threshold": None,
        "images": 100,
        "settings": {"population": 6},
    }
    return Specification("lenet5_relu", TargetRule(0.9, 3), **{"search": "genetic", "budget": 21} | common | changes)


def test_a_search_for_multipliers_is_recorded_and_resumed_like_any_other(tmp_path):
    spec = specification()
    whole = Runner(tmp_path / "whole", workers=1, threads=1, progress=False).run(spec)
    assert whole["rate"].tolist() == whole["energy_rate"].tolist() and (whole["method"] == "multipliers").all()
    assert len(whole) == 21 and whole["objective_rate"].eq("energy").all()
    runner, answers = Runner(tmp_path / "parts", workers=1, threads=1, progress=False), iter([False, True])
    with pytest.raises(loop.Stopped):
        runner.run(spec, stop=lambda: next(answers))
    resumed = Runner(tmp_path / "parts", workers=1, threads=1, progress=False).run(spec)
    assert (tmp_path / "whole" / spec.hash / "evaluations.parquet").read_bytes() == (
        tmp_path / "parts" / spec.hash / "evaluations.parquet"
    ).read_bytes()
    assert resumed.equals(whole)


def test_multipliers_have_no_range_scan_and_no_description_to_be_read():
    with pytest.raises(UserError, match="multipliers have no range scan, so threshold must be None, got 0.97"):
        specification(threshold=0.97)
    with pytest.raises(UserError, match="names its library by its contents"):
        from_description(specification().describe())


def test_weights_are_part_of_what_variants_depend_on(lenet5, validation, library, method):
    other = models.copied(lenet5)
    with torch.no_grad():
        other.classifier[2].weight += 1
    assert Multipliers(other, library, validation.images[:100]).describe() != method.describe()


def test_energy_is_an_objective_of_multipliers_alone():
    with pytest.raises(UserError, match="unknown objective rate 'energy'; allowed: storage, layer_mean"):
        Setting("lenet5_relu", objective_rate="energy")
