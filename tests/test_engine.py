"""The evaluation engine against the oracle: a shared copy of the network through the plain forward pass, plan by plan."""

import copy
import itertools
import re
import sys

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from weightlab import data, formats, models, sharing
from weightlab.data import Split
from weightlab.evaluation import Evaluator, activation_cache, kernels
from weightlab.evaluation.evaluator import MARGIN
from weightlab.training import logits

NETWORKS = ("lenet5_tanh", "lenet5_relu")
IMAGES, RANDOM_PLANS = 120, 120


def oracle(model, codebooks, plans, split):
    """Correct images of each plan, one plan after the other, nothing shared between them."""
    shared, counts = copy.deepcopy(model), []
    for plan in plans:
        for group, k in enumerate(plan):
            codebooks.apply(shared, group, codebooks.get(group, int(k)))
        counts.append(int((logits(shared, split.images, "cpu").argmax(1) == split.labels).sum()))
    return counts


@pytest.fixture(scope="module")
def validation():
    return data.load("mnist", "validation").first(IMAGES)


@pytest.mark.parametrize("format", formats.FORMATS)
@pytest.mark.parametrize("network", NETWORKS)
def test_counts_equal_the_oracles_in_any_order_and_grouping(network, format, validation):
    """Random plans, small k among them, where logits come close; asked for at once, shuffled in parts, and one by one.

    A format changes nothing but values, so those besides float32 get fewer plans.
    """
    model = models.load(network)
    codebooks = sharing.Codebooks(model, format=format)
    rng = np.random.default_rng(7)
    half = RANDOM_PLANS // (2 if format == "float32" else 6)
    plans = np.concatenate([rng.integers(1, 51, (half, 5)), rng.integers(1, 6, (half, 5))])
    expected = np.array(oracle(model, codebooks, plans, validation))
    at_once = Evaluator(model, codebooks, [validation], "cpu", threads=2)
    np.testing.assert_array_equal(at_once.correct(plans)[:, 0], expected)
    in_parts = Evaluator(model, codebooks, [validation], "cpu", threads=1, chunk=50, memory=1 << 20)
    order = rng.permutation(len(plans))
    for part in np.array_split(order, 9):
        np.testing.assert_array_equal(in_parts.correct(plans[part])[:, 0], expected[part])
    one_by_one = Evaluator(model, codebooks, [validation], "cpu", threads=1, memory=0)
    for plan, count in list(zip(plans, expected, strict=True))[::10]:
        assert one_by_one.correct([plan])[0, 0] == count


def test_every_box_of_the_space_is_reachable_as_one_population(validation):
    model = models.load("lenet5_tanh")
    codebooks = sharing.Codebooks(model)
    plans = np.array(list(itertools.product([2, 4], repeat=5)))
    evaluator = Evaluator(model, codebooks, [validation], "cpu")
    np.testing.assert_array_equal(evaluator.correct(plans[::-1])[::-1, 0], oracle(model, codebooks, plans, validation))


def test_plans_that_share_a_prefix_share_its_work_and_later_calls_reuse_it(validation):
    model = models.load("lenet5_tanh")
    evaluator = Evaluator(model, sharing.Codebooks(model), [validation], "cpu")
    evaluator.correct([[3, 4, 5, 6, k] for k in range(1, 9)])
    lines = evaluator.explain().splitlines()
    assert [line.split("computed ")[1].split()[0] for line in lines if "computed" in line] == ["1.0", "1.0", "1.0", "1.0", "8.0"]
    evaluator.correct([[3, 4, 5, 7, 2], [3, 4, 5, 6, 2]])
    text = evaluator.explain()
    assert "10 plans asked for, 1 of them asked before" in text
    assert "feature_extractor.6: computed 1.0 times, taken from what earlier calls left 1.0 times" in text
    assert "classifier.2: computed 9.0 times" in text


def test_images_too_close_to_call_are_decided_by_the_plain_forward_pass(validation):
    """With all logits equal the engine itself may call no image; the reference path's choice, the first class, is what counts."""
    model = models.load("lenet5_tanh")
    with torch.no_grad():
        model.classifier[2].weight.zero_()
        model.classifier[2].bias.fill_(1.0)
    evaluator = Evaluator(model, sharing.Codebooks(model), [validation], "cpu")
    assert evaluator.correct([[2, 2, 2, 2, 1]])[0, 0] == int((validation.labels == 0).sum())
    assert f"{IMAGES} images too close to call" in evaluator.explain()


def test_tally_counts_only_what_is_beyond_the_margin():
    logits = np.array(
        [
            [[1.0, 1 + MARGIN / 2], [3.0, 1.0]],
            [[0.0, 5.0], [0.0, 2 * MARGIN]],
            [[2.0, 0.0], [np.nan, 1.0]],
            [[9.0, np.nan], [9.0, 1.0]],
        ],
        np.float32,
    )
    correct, close = kernels.tally(np.ascontiguousarray(logits.transpose(1, 2, 0)), np.array([0, 1, 0, 0]), np.full(2, MARGIN))
    assert correct.tolist() == [2, 3]
    assert close.tolist() == [[True, False, False, True], [False, False, True, False]]


class Sequence(nn.Module):
    """A stage-by-stage network with what LeNet-5 lacks: padding, strides, no bias, a grouped convolution, max pooling."""

    def __init__(self):
        super().__init__()
        self.parts = nn.Sequential(
            nn.Conv2d(1, 4, (3, 5), dilation=(2, 1), bias=False), nn.ReLU(), nn.AvgPool2d(2),
            nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.Sigmoid(), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, groups=4, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(32, 12), nn.Tanh(), nn.Dropout(0.5), nn.Linear(12, 10),
        )  # fmt: skip

    def sequence(self):
        return list(self.parts)

    def forward(self, images):
        return self.parts(images)


class Lying(Sequence):
    """Says it is a sequence that it is not: what it computes must still be what is measured."""

    def forward(self, images):
        return -self.parts(images)


class Tied(nn.Module):
    """One weight in two places: no cut is safe."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(1024, 16), nn.Linear(16, 16), nn.Linear(16, 10)
        self.third = nn.Linear(16, 16)
        self.third.weight = self.second.weight

    def sequence(self):
        return [nn.Flatten(), self.first, nn.Tanh(), self.second, nn.Tanh(), self.third, nn.Tanh(), self.head]

    def forward(self, images):
        return nn.Sequential(*self.sequence())(images)


@pytest.mark.parametrize(("kind", "cuts"), [(Sequence, 5), (Lying, 1), (Tied, 1)])
def test_any_network_is_measured_right(kind, cuts, validation):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = kind().eval()
    seen = logits(model, validation.images, "cpu").argmax(1)
    split = Split("seen", "validation", validation.images, seen)
    codebooks = sharing.Codebooks(model)
    evaluator = Evaluator(model, codebooks, [split], "cpu", chunk=130)
    plans = np.random.default_rng(2).integers(1, 12, (40, len(codebooks.names)))
    np.testing.assert_array_equal(evaluator.correct(plans)[:, 0], oracle(model, codebooks, plans, split))
    assert f"{cuts} stages" in evaluator.explain() and evaluator.baseline()[0] == 1


def test_whole_net_plans_and_networks_of_many_layers_a_stage(validation):
    """MobileNet_v2, cut into blocks of up to three layers, on coloured images; one codebook for all layers and one for each."""
    model = models.build("mobilenet_v2", 3).eval()
    images = validation.images[:20].repeat(1, 3, 1, 1)
    split = Split("grey", "validation", images, logits(model, images, "cpu").argmax(1))
    whole = sharing.Codebooks(model, whole_net=True, ks=[4, 30])
    assert Evaluator(model, whole, [split], "cpu").correct([[30], [4]])[:, 0].tolist() == oracle(model, whole, [[30], [4]], split)
    layers = sharing.Codebooks(model, ks=[8])
    plan = [[8] * 53]
    assert Evaluator(model, layers, [split], "cpu").correct(plan)[:, 0].tolist() == oracle(model, layers, plan, split)


def test_memory_for_kept_activations_is_bounded(validation):
    model = models.load("lenet5_tanh")
    for memory in (0, 3 << 20, 40 << 20):
        evaluator = Evaluator(model, sharing.Codebooks(model), [validation], "cpu", memory=memory)
        evaluator.correct(np.random.default_rng(1).integers(1, 51, (80, 5)))
        assert evaluator.kept_bytes <= memory
    assert evaluator.kept_bytes > memory / 2  # and made use of
    before = evaluator.correct([[9, 9, 9, 9, 9]])
    kept, resident = evaluator.kept_bytes, psutil.Process().memory_info().rss
    evaluator.release()
    assert evaluator.kept_bytes == 0
    if sys.platform == "linux":
        assert psutil.Process().memory_info().rss < resident - kept / 2, "the system got nothing back"
    again = evaluator.correct([[9, 9, 9, 9, 9], [9, 9, 9, 9, 8]])
    np.testing.assert_array_equal(again[:1], before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
@pytest.mark.parametrize("network", NETWORKS)
def test_a_gpu_counts_what_the_cpu_counts_within_one_image_in_a_thousand(network, validation):
    model = models.load(network)
    codebooks = sharing.Codebooks(model)
    plans = np.random.default_rng(3).integers(1, 51, (50, 5))
    counts = [Evaluator(model, codebooks, [validation], device).correct(plans)[:, 0] for device in ("cpu", "cuda")]
    assert np.abs(counts[0] - counts[1]).max() <= IMAGES / 1000


def test_threads_do_not_disturb_each_others_weights(validation):
    """Modules of several layers are called with weights put into them; two threads once shared one such module."""
    with torch.random.fork_rng():
        torch.manual_seed(6)
        model = nn.Sequential(
            nn.Sequential(nn.Flatten(), nn.Linear(1024, 200), nn.Tanh(), nn.Linear(200, 40)), nn.Linear(40, 10)
        ).eval()
    split = Split("seen", "validation", validation.images, logits(model, validation.images, "cpu").argmax(1))
    codebooks = sharing.Codebooks(model)
    plans = np.random.default_rng(4).integers(1, 6, (60, 3))
    expected = oracle(model, codebooks, plans, split)
    for _ in range(5):
        np.testing.assert_array_equal(
            Evaluator(model, codebooks, [split], "cpu", threads=4, chunk=20).correct(plans)[:, 0], expected
        )


@pytest.mark.parametrize("format", ["float32", "float8_e4m3"])
def test_counts_of_mobilenet_equal_the_oracles(format):
    """20 random plans of 53 layers (an evaluation of the oracle is slow), small k among them, in chunks on two threads."""
    model, split = models.load("mobilenet_v2_fashion"), data.load("fashion_mnist", "validation").first(120)
    rng = np.random.default_rng(8)
    plans = np.concatenate([rng.choice([4, 8, 16], (10, 53)), rng.choice([16, 32], (10, 53))])
    plans[5:15, :30] = plans[5, :30]  # a prefix in common
    codebooks = sharing.Codebooks(model, format=format, ks=[4, 8, 16, 32])
    evaluator = Evaluator(model, codebooks, [split], "cpu", threads=2, chunk=50)
    np.testing.assert_array_equal(evaluator.correct(plans)[:, 0], oracle(model, codebooks, plans, split))


# --- methods that replace operations ------------------------------------------------------------------------------------------------


class Louder:
    """A convolution whose output is multiplied by a factor, a variant for each."""

    names, groups, layers = ["0"], np.array([0]), [models.Layer("0", (2, 1, 3, 3))]

    def __init__(self, network, factors):
        self._modules = [nn.Sequential(copy.deepcopy(network[0]), Factor(each)) for each in factors]

    def count(self, group):
        return len(self._modules)

    def weight(self, layer, variant):
        return self._modules[variant - 1]

    def bits(self, plans):
        return np.full(np.shape(plans), 1)

    thesis_bits = bits

    def describe(self):
        return {}

    def stored(self, group, variant):
        raise NotImplementedError

    def stage(self, module, layers, shape):
        return None


class Factor(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def small_network(bias):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        linear = nn.Linear(2 * 25, 10, bias=bias)
        return nn.Sequential(nn.Conv2d(1, 2, 3, stride=6, bias=False), nn.ReLU(), nn.Flatten(), linear).eval()


def referred(engine):
    return int(re.search(r"(\d+) images too close to call", engine.explain())[1])


def test_logits_that_a_variant_makes_large_are_not_too_close_to_call(validation):
    """A margin of the largest logits of all would send most images of the other variants to the plain forward pass."""
    network = small_network(bias=False)
    method = Louder(network, [1, 1e2, 1e3, 1e6])
    engine = Evaluator(network, method, [validation], "cpu", threads=1)
    counts = engine.correct([[1], [2], [3], [4]])[:, 0]
    assert len(set(counts)) == 1 and counts[0] == engine.correct([[0]], partial=True)[0, 0]  # a factor changes no class
    assert referred(engine) <= 5  # of 600
    loudest = float(logits(network, validation.images, "cpu").abs().max()) * 1e6 * MARGIN
    gaps = logits(network, validation.images, "cpu").topk(2).values
    assert (gaps[:, 0] - gaps[:, 1] < loudest).all()


def test_variants_whose_logits_are_all_equal_give_the_first_class(validation):
    network = small_network(bias=False)
    engine = Evaluator(network, Louder(network, [1, 0]), [validation], "cpu", threads=1)
    assert engine.correct([[2]])[0, 0] == (validation.labels == 0).sum()
    assert referred(engine) == IMAGES


@pytest.mark.parametrize(
    ("images", "largest", "threads", "together", "expected"),
    [
        (10_000, 4000, 2, 1000, 1000),
        (10_000, 4000, 2, None, 976),
        (1001, 4000, 2, 1000, 501),  # every thread has some
        (1001, 4000, 4, 1000, 251),
        (10_000, 1 << 20, 1, 1000, 64),  # which fit in memory
        (1, 4000, 8, 1000, 2),
        (50, 1 << 30, 1, 1000, 2),
    ],
)
def test_a_method_says_how_many_images_it_takes_best(images, largest, threads, together, expected):
    sizes, inside = [400, largest, 40], [largest]
    assert activation_cache.size(images, sizes, inside, threads, torch.device("cpu"), together) == expected
