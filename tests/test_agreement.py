"""What the engine and the commands record is what the plain network does, for networks of many kinds, or they are refused."""

import subprocess
import warnings
from pathlib import Path

import agreement_networks
import numpy as np
import pytest
import torch
from agreement_networks import REFUSED, RIGHT
from typer.testing import CliRunner
from warm_python import python

from weightlab import data, models, runs, sharing, training
from weightlab.cli import app
from weightlab.compression.sharing.codebooks import Codebooks
from weightlab.data import Split
from weightlab.errors import UserError
from weightlab.evaluation import Evaluator
from weightlab.packing import onnx_files

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
IMAGES = 61  # a prime: whatever the chunk, the last one is short
KS = (2, 3, 5, 16)


@pytest.fixture(scope="module")
def images():
    """Blobs of random brightness, uint8 (IMAGES, 1, 16, 16)."""
    coarse = torch.rand(IMAGES, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    return (255 * torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear")).to(torch.uint8)


def labelled(model, images):
    """The images with the classes that the network sees, so that an unshared network is always right."""
    seen = training.logits(model, images, "cpu").argmax(1)
    return Split("blobs", "validation", images, seen)


def plainly(model, plans, split):
    """The accuracy under each plan of a copy that is shared, layer by layer, through the plain forward pass."""
    books = Codebooks(model, ks=KS, example=split.images[:2].float() / 255)
    shared, found = models.copied(model), []
    for plan in plans:
        for group, k in enumerate(plan):
            books.apply(shared, group, books.get(group, k))
        found.append(training.accuracy(shared, split, "cpu"))
    return found


@pytest.mark.parametrize("name", RIGHT)
def test_the_engine_records_what_the_network_does(name, images):
    model = getattr(agreement_networks, name)()
    split, before = labelled(model, images), {key: value.clone() for key, value in model.state_dict().items()}
    books = Codebooks(model, ks=KS, example=images[:2].float() / 255)
    rng = np.random.default_rng(0)
    plans = np.concatenate([[[k] * len(books.names) for k in KS], rng.choice(KS, (4, len(books.names)))])
    expected = plainly(model, plans.tolist(), split)
    engine = Evaluator(model, books, [split], "cpu", threads=2)
    np.testing.assert_allclose(engine.accuracy(plans)[:, 0], expected, atol=1e-12)
    np.testing.assert_allclose(engine.accuracy(plans[::-1])[::-1, 0], expected, atol=1e-12)
    if name != "not_a_number":
        assert engine.baseline()[0] == 1
    alone = Evaluator(model, books, [split], "cpu", threads=1, chunk=7, memory=0)
    np.testing.assert_allclose(alone.accuracy(plans[-2:])[:, 0], expected[-2:], atol=1e-12)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_answer_of_its_own_is_refused_in_a_sentence(name, images):
    split = Split("blobs", "validation", images, torch.arange(IMAGES) % 5)
    with pytest.raises(UserError, match=REFUSED[name][1]) as refusal:
        model = getattr(agreement_networks, name)()
        Evaluator(model, Codebooks(model, ks=KS, example=None), [split], "cpu")
    assert "\n" not in str(refusal.value)


@pytest.fixture
def home(tmp_path, monkeypatch, images):
    monkeypatch.chdir(tmp_path)
    np.savez("blobs.npz", images=images.numpy(), labels=np.arange(IMAGES) % 5)
    return tmp_path


def words(name, folder):
    searching = ["--k", "2,3,5,16", "--threshold", "none", "--search", "random", "--population", "3", "--budget", "6"]
    place = ["--data", "blobs.npz", "--folder", str(folder), "--workers", "1", "--threads", "1"]
    return ["search", f"agreement_networks:{name}", *searching, *place]


def held_against_the_network(name, folder):
    records = runs.read(folder)
    model = models.load(f"agreement_networks:{name}")
    split = data.load("blobs.npz", "validation")
    assert len(records) == 6
    assert records["validation_accuracy"].tolist() == plainly(model, [plan.tolist() for plan in records["plan"]], split)


@pytest.mark.parametrize("name", RIGHT)
def test_a_search_by_the_command_records_what_the_network_does(name, home):
    result = CliRunner().invoke(app, words(name, home / "searches"))
    assert result.exit_code == 0, result.output
    held_against_the_network(name, home / "searches")


@pytest.mark.parametrize("name", REFUSED)
def test_a_search_by_the_command_refuses_in_a_sentence(name, home):
    result = CliRunner().invoke(app, words(name, home / "searches"))
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
    assert "error:" in result.output and "Traceback" not in result.output


@pytest.mark.parametrize("name", ["divisor_tanh", "nested", "squeezing", "borrowing", "chance"])
def test_a_process_of_its_own_does_the_same(name, home):
    place = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {place!r}); from weightlab.cli import main; sys.argv[0] = 'weightlab'; main()"
    done = subprocess.run([*python(), "-c", code, *words(name, home / "searches")], capture_output=True, text=True)
    if name in REFUSED:
        assert done.returncode == 1 and done.stderr.count("error:") == 1 and "Traceback" not in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        held_against_the_network(name, home / "searches")


@pytest.mark.parametrize("name", ["plain_tanh", "pool_ceil", "prelu", "squeezing", "covering_unflattened"])
def test_an_onnx_file_answers_as_the_network(name, images, tmp_path):
    model = getattr(agreement_networks, name)()
    file = onnx_files.export(model, {}, images[:2].float() / 255, tmp_path / "network.onnx")
    found = onnx_files.compare(file, model, images)
    assert found.other_class == 0 and found.largest_difference < 1e-5


# What the exporter gets wrong without a word: the divisor is left out, and a number of images becomes a constant.
@pytest.mark.parametrize(("name", "says"), [("divisor_tanh", "other answers to"), ("tokens", "fails on 7 images")])
def test_a_wrong_onnx_file_is_not_left_behind(name, says, images, tmp_path):
    with pytest.raises(UserError, match=f"cannot be exported to ONNX: onnxruntime .*{says}"):
        onnx_files.export(getattr(agreement_networks, name)(), {}, images[:2].float() / 255, tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["divisor_tanh", "squeezing", "nested", "chance", "centred", "half"])
def test_all_commands_take_a_network_or_refuse_it_alike(name, home):
    """`compress`, then `evaluate` and `export` of what it wrote; what one network is refused for, each command refuses."""
    network, data = f"agreement_networks:{name}", ["--data", "blobs.npz"]
    done = CliRunner().invoke(app, ["compress", network, *data, "--plan", "3", "-o", "packed.safetensors"])
    if name in REFUSED:
        assert done.exit_code == 1 and "error:" in done.output and "Traceback" not in done.output, done.output
        assert REFUSED[name][1] in " ".join(done.output.split()) and not Path("packed.safetensors").exists()
        return
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["evaluate", "packed.safetensors", "--network", network, *data])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(
        app, ["export", "packed.safetensors", "-o", "network.onnx", "--network", network, *data, "--check", "30"]
    )
    if name == "divisor_tanh":
        assert done.exit_code == 1 and "other answers to" in " ".join(done.output.split())
        assert not [file for file in home.iterdir() if "onnx" in file.name]
    else:
        assert done.exit_code == 0 and "0 get another class" in done.output, done.output


@pytest.mark.parametrize(("name", "says"), [("lying", "give other answers than the network"), ("borrowing", "which is slower")])
def test_a_network_that_is_measured_plainly_is_said(name, says, images):
    model = getattr(agreement_networks, name)()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Evaluator(model, Codebooks(model, ks=KS), [labelled(model, images)], "cpu")
    told = [str(each.message) for each in caught if "plain forward pass" in str(each.message)]
    assert len(told) == 1 and says in told[0]


@pytest.mark.parametrize(("name", "left"), [("attention", "attend.in_proj_weight"), ("functional", "w"), ("experts", "b.weight")])
def test_what_no_plan_shares_is_named_with_its_share(name, left, images):
    model = getattr(agreement_networks, name)()
    with pytest.warns(UserWarning, match=rf"{left}.*: \d+\.\d% of the bytes"):
        sharing.share(model, 4, example=images[:2].float() / 255)
