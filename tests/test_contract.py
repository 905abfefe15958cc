"""What any compression method is held to, and methods side by side in one plan."""

import numpy as np
import pandas as pd
import pytest
import torch

from weightlab import accounting, data, formats, models, sharing, training
from weightlab.compression import contract
from weightlab.compression.contract import Method, Mixed
from weightlab.errors import UserError
from weightlab.evaluation import Evaluator
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

    def describe(self):
        return {"formats": [each.name for each in self._formats]}


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
    with pytest.raises(UserError, match="whole net has others"):
        Mixed({name: methods[name] for name in ("sharing", "whole net")}, [[("sharing", 2)]] * 5)
