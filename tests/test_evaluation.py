"""Accuracy of many plans: counts depend on the plan alone and equal those of a shared copy measured plainly."""

import numpy as np
import pytest
import torch

from weightlab import models, sharing
from weightlab.data import Split
from weightlab.errors import UserError
from weightlab.evaluation import Evaluator

IMAGES = 600


@pytest.fixture(scope="module")
def lenet5():
    """Untrained, its last biases shifted so that it tells random images apart instead of calling them all the same."""
    model = models.build("lenet5_tanh", 1).eval()
    with torch.no_grad():
        model.classifier[2].bias -= model(images(0).float() / 255).mean(0)
    return model


def images(seed):
    """Blobs of random brightness, uint8 (IMAGES, 1, 32, 32)."""
    coarse = torch.rand(IMAGES, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (255 * torch.nn.functional.interpolate(coarse, (32, 32), mode="bilinear")).to(torch.uint8)


@pytest.fixture(scope="module")
def splits(lenet5):
    """`validation`: labelled as the original network sees them; `test`: half of the labels are random."""
    seen = [lenet5(images(seed).float() / 255).argmax(1) for seed in (1, 2)]
    noise = torch.randint(0, 10, (IMAGES // 2,), generator=torch.Generator().manual_seed(3))
    mixed = torch.cat([seen[1][: IMAGES // 2], noise])
    return [Split("blobs", "validation", images(1), seen[0]), Split("blobs", "test", images(2), mixed)]


@pytest.fixture(scope="module")
def codebooks(lenet5):
    return sharing.Codebooks(lenet5)


@pytest.fixture
def evaluator(lenet5, codebooks, splits):
    return Evaluator(lenet5, codebooks, splits, device="cpu")


PLANS = np.array([[3, 3, 8, 2, 2], [1, 1, 1, 1, 1], [50, 50, 50, 50, 50], [2, 5, 3, 4, 9], [3, 3, 8, 2, 3]])


def counted(model, splits):
    """Correct images of each split by one plain forward pass over all of them."""
    with torch.inference_mode():
        return [int((model(split.images.float() / 255).argmax(1) == split.labels).sum()) for split in splits]


def test_counts_are_those_of_a_shared_copy(lenet5, splits, evaluator):
    expected = [counted(sharing.share(lenet5, plan)[0], splits) for plan in PLANS]
    correct = evaluator.correct(PLANS)
    np.testing.assert_array_equal(correct, expected)
    assert correct.shape == (5, 2) and np.issubdtype(correct.dtype, np.integer)
    assert len(np.unique(correct[:, 0])) > 2  # the plans differ, so that a mix-up would show


@pytest.mark.parametrize("format", ["float16", "float8_e4m3"])
@pytest.mark.parametrize("method", ["exact", "minibatch"])
def test_counts_follow_format_and_method(lenet5, splits, format, method):
    books = sharing.Codebooks(lenet5, method, format)
    expected = [counted(sharing.share(lenet5, plan, format, method)[0], splits) for plan in PLANS[:2]]
    np.testing.assert_array_equal(Evaluator(lenet5, books, splits, device="cpu").correct(PLANS[:2]), expected)


def test_a_whole_net_plan(lenet5, splits):
    evaluator = Evaluator(lenet5, sharing.Codebooks(lenet5, whole_net=True), splits, device="cpu")
    expected = [counted(sharing.share(lenet5, k)[0], splits) for k in (6, 2)]
    np.testing.assert_array_equal(evaluator.correct([[6], [2]]), expected)


def test_a_plan_counts_the_same_in_any_company(lenet5, codebooks, splits, evaluator):
    """Whatever was asked before, in whatever order, alone or repeated."""
    together = evaluator.correct(PLANS)
    np.testing.assert_array_equal(evaluator.correct(PLANS[::-1]), together[::-1])
    fresh = Evaluator(lenet5, codebooks, splits, device="cpu")
    np.testing.assert_array_equal(fresh.correct(PLANS[[3, 0, 3]]), together[[3, 0, 3]])
    for plan, expected in zip(PLANS[::-1], together[::-1], strict=True):
        np.testing.assert_array_equal(fresh.correct([plan])[0], expected)


def test_a_zero_leaves_its_group_alone(lenet5, splits, evaluator):
    """After a full plan, so that weights left over from it would show."""
    evaluator.correct(PLANS)
    plan = [0, 3, 0, 1, 0]
    shared, _ = sharing.share(lenet5, [1, 3, 1, 1, 1])
    state = shared.state_dict()
    for name in ("feature_extractor.0", "feature_extractor.6", "classifier.2"):
        state[f"{name}.weight"] = lenet5.state_dict()[f"{name}.weight"]
    shared.load_state_dict(state)
    np.testing.assert_array_equal(evaluator.correct([plan], partial=True), [counted(shared, splits)])


def test_baseline_is_the_original_network(lenet5, splits, evaluator):
    evaluator.correct(PLANS)
    validation, test = evaluator.baseline()
    assert validation == 1.0  # its own answers are the labels
    assert test == counted(lenet5, splits)[1] / IMAGES
    assert 0.5 <= test < 0.8


def test_accuracy_is_the_fraction_of_counts(lenet5, codebooks, splits):
    short = [splits[0], splits[1].first(123)]
    evaluator = Evaluator(lenet5, codebooks, short, device="cpu")
    assert list(evaluator.images) == [600, 123]
    np.testing.assert_array_equal(evaluator.accuracy(PLANS), evaluator.correct(PLANS) / [600, 123])


def test_measure_gives_rates_and_losses_of_each_plan(evaluator):
    table = evaluator.measure(PLANS)
    accuracy, baseline = evaluator.accuracy(PLANS), evaluator.baseline()
    assert table["layer_mean_rate"][0] == pytest.approx(19.94281, abs=1e-4)
    assert table["storage_rate"][0] == pytest.approx(12.2484, abs=1e-4)
    for column, name in enumerate(("validation", "test")):
        np.testing.assert_array_equal(table[f"{name}_accuracy"], accuracy[:, column])
        np.testing.assert_allclose(table[f"{name}_loss_pp"], 100 * (baseline[column] - accuracy[:, column]), atol=1e-12)


def test_threads_do_not_change_counts_and_are_put_back(lenet5, codebooks, splits):
    before = torch.get_num_threads()
    counts = []
    for threads in (1, 2):
        evaluator = Evaluator(lenet5, codebooks, splits, device="cpu", threads=threads)
        counts.append(evaluator.correct(PLANS))
    np.testing.assert_array_equal(*counts)
    assert torch.get_num_threads() == before


def test_the_model_passed_is_unchanged(splits):
    model = models.build("lenet5_relu", 4).train()
    evaluator = Evaluator(model, sharing.Codebooks(model), splits, device="cpu")
    evaluator.correct(PLANS)
    expected = models.build("lenet5_relu", 4).state_dict()
    assert model.training and all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_the_plans_passed_are_unchanged(evaluator):
    plans = PLANS.copy()
    evaluator.correct(plans)
    np.testing.assert_array_equal(plans, PLANS)


@pytest.mark.parametrize(
    ("plans", "message"),
    [
        ([[3, 3, 8, 2]], "a plan needs 5 numbers"),
        ([[3, 3, 8, 2, 0]], "from 1 to 65536, got 0"),
        ([[3, 3, 8, 2, 2], [3, 3, 8, 2, 65_537]], "got 65537"),
        ([[3.0, 3, 8, 2, 2]], "whole numbers"),
    ],
)
def test_a_wrong_plan_is_refused(evaluator, plans, message):
    with pytest.raises(UserError, match=message):
        evaluator.correct(plans)


def test_a_negative_number_is_refused_in_partial_plans_too(evaluator):
    with pytest.raises(UserError, match="from 0 to 65536, got -1"):
        evaluator.correct([[3, 3, 8, 2, -1]], partial=True)


def test_unknown_devices_and_thread_numbers_are_named(lenet5, splits):
    with pytest.raises(UserError, match="unknown device 'gpu'; allowed: auto, cpu, cuda"):
        Evaluator(lenet5, sharing.Codebooks(lenet5), splits, device="gpu")
    for threads in (0, True):
        with pytest.raises(UserError, match=f"threads must be a whole number of at least 1, got {threads}"):
            Evaluator(lenet5, sharing.Codebooks(lenet5), splits, device="cpu", threads=threads).correct(PLANS)
