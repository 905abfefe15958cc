"""Weight sharing of whole networks: what changes, what must not, what the report says, and wrong plans."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from weightlab import accounting, formats, models, sharing
from weightlab.compression.sharing import clustering
from weightlab.compression.sharing.clustering import Lift
from weightlab.errors import UserError

LENET5_PLAN = [3, 3, 8, 2, 2]


@pytest.fixture(scope="module")
def lenet5():
    return models.build("lenet5_tanh", 1)


def weights(model):
    """Weights of the shareable layers, flat float32, by name."""
    return {layer.name: models.weight(model, layer.name).detach().numpy().ravel() for layer in models.layers(model)}


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Net(nn.Module):
    """A 1-D convolution, a pair of layers with one tied weight, a depthwise convolution, batch norm, one unused layer; odd order."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 3)
        self.unused = nn.Linear(9, 9)
        self.right, self.left = nn.Linear(16, 16), nn.Linear(16, 16)
        self.right.weight = self.left.weight
        self.norm = nn.BatchNorm1d(4)
        self.depthwise = nn.Conv1d(4, 4, 3, padding=1, groups=4)
        self.conv = nn.Conv1d(2, 4, 3, padding=1)

    def forward(self, x):  # (n, 2, 4)
        x = self.norm(self.depthwise(self.conv(x))).flatten(1)
        return self.head(torch.tanh(self.right(torch.tanh(self.left(x)))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


EXAMPLE = torch.ones(1, 2, 4)

# --- what changes and what must not ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [LENET5_PLAN, 6, [1, 1, 1, 1, 1]], ids=str)
@pytest.mark.parametrize("format", formats.FORMATS)
def test_the_model_passed_is_unchanged_and_nothing_but_weights_differs(lenet5, plan, format):
    before = models.build("lenet5_tanh", 1)
    shared, _ = sharing.share(lenet5, plan, format)
    assert same(lenet5, before)
    own = {value.data_ptr() for value in lenet5.state_dict().values()}
    assert not own & {value.data_ptr() for value in shared.state_dict().values()}
    for name, value in shared.state_dict().items():
        assert torch.equal(value, lenet5.state_dict()[name]) == name.endswith("bias"), name


def test_each_layer_holds_at_most_k_values_its_own_centroids(lenet5):
    shared, _ = sharing.share(lenet5, LENET5_PLAN)
    for (name, after), before, k in zip(weights(shared).items(), weights(lenet5).values(), LENET5_PLAN, strict=True):
        assert len(np.unique(after)) == k, name
        np.testing.assert_array_equal(after, clustering.cluster(before, k).values())


@pytest.mark.parametrize("format", formats.FORMATS)
def test_values_are_numbers_of_the_storage_format(lenet5, format):
    shared, _ = sharing.share(lenet5, [5, 9, 30, 4, 4], format)
    values = np.unique(np.concatenate(list(weights(shared).values())))
    np.testing.assert_array_equal(formats.get(format).round(values), values)


def test_a_whole_net_plan_is_one_table_across_layers(lenet5):
    shared, report = sharing.share(lenet5, 6)
    assert list(report["layer"]) == ["whole net"] and report["weights"][0] == 61_470
    assert len(np.unique(np.concatenate(list(weights(shared).values())))) == 6
    together = np.concatenate(list(weights(lenet5).values()))
    np.testing.assert_array_equal(np.concatenate(list(weights(shared).values())), clustering.cluster(together, 6).values())


def test_as_many_clusters_as_distinct_weights_changes_nothing(lenet5):
    for plan in ([len(np.unique(each)) for each in weights(lenet5).values()], 65_536):
        shared, report = sharing.share(lenet5, plan)
        assert same(shared, lenet5)
        assert (report["inertia"] == 0).all() and (report["max_error"] == 0).all()


def test_total_sharing_of_a_one_layer_net_is_layer_wise_sharing():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(20, 7))
    (whole, whole_report), (layerwise, report) = sharing.share(model, 4), sharing.share(model, [4])
    assert same(whole, layerwise)
    assert report.drop(columns="layer").equals(whole_report.drop(columns="layer"))


@pytest.mark.parametrize("method", clustering.METHODS)
def test_every_method_shares(lenet5, method):
    shared, report = sharing.share(lenet5, [3, 4, 2, 2, 5], method=method)
    for after, k in zip(weights(shared).values(), [3, 4, 2, 2, 5], strict=True):
        assert 1 < len(np.unique(after)) <= k
    assert (report["entries"] <= report["k"]).all() and (report["inertia"] > 0).all()


# --- any network ----------------------------------------------------------------------------------------------------------------


def test_a_plan_follows_the_forward_order_found_with_an_example(net):
    shared, report = sharing.share(net, [2, 3, 5, 4], example=EXAMPLE)
    assert list(report["layer"]) == ["conv", "depthwise", "left", "head"]
    assert list(report["k"]) == [2, 3, 5, 4]
    for name, k in zip(report["layer"], report["k"], strict=True):
        assert len(models.weight(shared, name).unique()) == k
    assert torch.equal(shared.unused.weight, net.unused.weight)
    assert torch.equal(shared.norm.weight, net.norm.weight)


def test_a_tied_weight_stays_tied(net):
    shared, report = sharing.share(net, [2, 3, 5, 4], example=EXAMPLE)
    assert shared.left.weight is shared.right.weight and len(shared.right.weight.unique()) == 5
    assert shared.left.weight is not net.left.weight
    assert report["weights"].sum() == 24 + 12 + 256 + 48  # the tied weight is stored once


def test_a_shared_network_computes_with_its_shared_weights(net):
    """The copy's output is that of the original with the centroids put in by hand."""
    shared, _ = sharing.share(net, [2, 2, 2, 2], example=EXAMPLE)
    by_hand = {name: value.clone() for name, value in net.state_dict().items()}
    for name in ("conv", "depthwise", "left", "head"):
        flat = clustering.cluster(by_hand[f"{name}.weight"].numpy(), 2).values()
        by_hand[f"{name}.weight"] = torch.from_numpy(flat).reshape(by_hand[f"{name}.weight"].shape)
    by_hand["right.weight"] = by_hand["left.weight"]
    images = torch.rand(10, 2, 4)
    expected = torch.func.functional_call(net, by_hand, images, tie_weights=False)
    torch.testing.assert_close(shared(images), expected, rtol=0, atol=0)
    assert not torch.equal(shared(images), net(images))


def test_depthwise_and_pointwise_layers_of_mobilenet():
    model = models.build("mobilenet_v2")
    shared, report = sharing.share(model, [1 + i % 3 for i in range(53)], method="exact")
    assert len(report) == 53
    for name, k in zip(report["layer"], report["k"], strict=True):
        assert len(models.weight(shared, name).unique()) == k
    others = {name for name, value in model.state_dict().items() if torch.equal(value, shared.state_dict()[name])}
    assert {name for name in model.state_dict() if name.removesuffix(".weight") not in set(report["layer"])} == others


# --- the report -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["float32", "float8_thesis"])
def test_the_report_is_what_can_be_measured_on_the_two_networks(lenet5, format):
    plan = [4, 7, 9, 1, 16]
    shared, report = sharing.share(lenet5, plan, format)
    for (_, row), before, after in zip(report.iterrows(), weights(lenet5).values(), weights(shared).values(), strict=True):
        difference = before.astype(np.float64) - after
        assert row["weights"] == before.size and row["entries"] == len(np.unique(after)) <= row["k"]
        assert row["inertia"] == pytest.approx((difference**2).sum(), rel=1e-12)
        assert row["max_error"] == pytest.approx(np.abs(difference).max(), rel=1e-6)
        keys = {4: 2, 7: 3, 9: 4, 1: 0, 16: 4}[row["k"]]
        assert row["stored_bits"] == before.size * keys + row["k"] * (32 if format == "float32" else 8)
        assert row["rate"] == pytest.approx(32 * before.size / row["stored_bits"])
    assert list(report["k"]) == plan
    storage = accounting.storage_rate(report["weights"], plan, format)
    assert storage == pytest.approx(32 * report["weights"].sum() / report["stored_bits"].sum())


def test_k_is_charged_in_full_where_rounding_merges_centroids(lenet5):
    """LeNet-5's weights are far below 1, where the thesis's float8 knows only sixteenths."""
    _, report = sharing.share(lenet5, 50, "float8_thesis")
    assert report["entries"][0] < 50 and report["k"][0] == 50
    assert report["stored_bits"][0] == 61_470 * 6 + 50 * 8


# --- lifts ----------------------------------------------------------------------------------------------------------------------


def test_a_lift_changes_its_layer_alone_and_no_rate(lenet5):
    plain, report = sharing.share(lenet5, LENET5_PLAN)
    lifted, lifted_report = sharing.share(lenet5, LENET5_PLAN, lifts={"feature_extractor.6": Lift(5.0)})
    changed = {name for name, value in plain.state_dict().items() if not torch.equal(value, lifted.state_dict()[name])}
    assert changed == {"feature_extractor.6.weight"}
    original = weights(lenet5)["feature_extractor.6"]
    np.testing.assert_array_equal(
        weights(lifted)["feature_extractor.6"], clustering.cluster(original, 8, lift=Lift(5.0)).values()
    )
    assert list(report["rate"]) == list(lifted_report["rate"])


def test_the_whole_net_can_be_lifted(lenet5):
    plain, _ = sharing.share(lenet5, 6)
    lifted, report = sharing.share(lenet5, 6, lifts={"whole net": Lift(5.0)})
    assert not same(plain, lifted) and report["entries"][0] == 6


# --- codebooks kept for many plans ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole_net", [False, True])
def test_codebooks_made_in_one_pass_equal_those_of_share(lenet5, whole_net):
    books = sharing.Codebooks(lenet5, ks=range(1, 11), whole_net=whole_net)
    plan = [6] if whole_net else [3, 10, 8, 2, 20]  # 20 lies outside the ks asked for first
    model = models.build("lenet5_tanh", 2)
    for group, k in enumerate(plan):
        books.apply(model, group, books.get(group, k))
    shared, _ = sharing.share(lenet5, 6 if whole_net else plan)
    for name, value in weights(model).items():
        np.testing.assert_array_equal(value, weights(shared)[name])


def test_codebooks_describe_their_groups(lenet5):
    books, whole = sharing.Codebooks(lenet5), sharing.Codebooks(lenet5, whole_net=True)
    assert books.names == list(weights(lenet5)) and list(books.weights) == [150, 2_400, 48_000, 10_080, 840]
    assert whole.names == ["whole net"] and list(whole.weights) == [61_470]
    np.testing.assert_array_equal(books.original(3), weights(lenet5)["classifier.0"])


def test_codebooks_rates_are_the_published_ones(lenet5):
    rates = sharing.Codebooks(lenet5).rates(np.array([LENET5_PLAN, [3, 4, 6, 4, 7]]))
    np.testing.assert_allclose(rates["layer_mean_rate"], [19.94281, 12.75298], atol=1e-4)
    np.testing.assert_allclose(rates["thesis_model_rate"], [12.2453, 11.3959], atol=1e-4)
    np.testing.assert_allclose(rates["storage_rate"], [12.2484, 11.4000], atol=1e-4)


# --- wrong input ----------------------------------------------------------------------------------------------------------------

WRONG_PLANS = [
    ([3, 3, 8, 2], "a plan needs 5 numbers .*feature_extractor.0.* got 4"),
    ([3, 3, 8, 2, 2, 2], "got 6"),
    ([], "got 0"),
    ([3, 0, 8, 2, 2], "from 1 to 65536, got 0"),
    ([3, 3, 8, -2, 2], "got -2"),
    ([3, 3, 65_537, 2, 2], "got 65537"),
    ([3, 3, 8, 2.5, 2], "whole number from 1 to 65536, got 2.5"),
    ([3.0, 3.0, 8.0, 2.0, 2.0], "got 3.0"),
    ([True] * 5, "got True"),
    ([3, True, 8, 2, 2], "got True"),
    (["3"] * 5, "got '3'"),
    (0, "got 0"),
    (65_537, "got 65537"),
    (True, "got True"),
    (2.5, "got 2.5"),
    ("6", "got '6'"),
    (None, "got None"),
]


@pytest.mark.parametrize("plan", [[3.0] * 5, [True] * 5, [0] * 5, [3] * 4, [3, 3, 65_537, 2, 2]], ids=json.dumps)
def test_codebooks_refuse_wrong_plans_in_a_population_too(lenet5, plan):
    with pytest.raises(UserError):
        sharing.Codebooks(lenet5).check(np.array([plan, plan]))


@pytest.mark.parametrize(("plan", "message"), WRONG_PLANS, ids=[json.dumps(plan) for plan, _ in WRONG_PLANS])
def test_a_wrong_plan_is_one_sentence_that_names_the_value(lenet5, plan, message):
    with pytest.raises(UserError, match=message) as raised:
        sharing.share(lenet5, plan)
    assert "\n" not in str(raised.value)


def test_unknown_names_say_what_is_allowed(lenet5):
    with pytest.raises(UserError, match="unknown layer 'conv1'; allowed: feature_extractor.0, feature_extractor.3"):
        sharing.share(lenet5, LENET5_PLAN, lifts={"conv1": Lift(1.0)})
    with pytest.raises(UserError, match="unknown layer 'classifier.0'; allowed: whole net"):
        sharing.share(lenet5, 6, lifts={"classifier.0": Lift(1.0)})
    with pytest.raises(UserError, match="unknown clustering method 'lloyd'"):
        sharing.share(lenet5, LENET5_PLAN, method="lloyd")
    with pytest.raises(UserError, match="unknown format 'int8'"):
        sharing.share(lenet5, LENET5_PLAN, "int8")


def test_nan_weights_name_their_layer():
    model = models.build("lenet5_tanh")
    with torch.no_grad():
        model.classifier[2].weight[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"layer classifier\.2 holds NaN"):
        sharing.share(model, LENET5_PLAN)
