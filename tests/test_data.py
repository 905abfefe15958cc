"""Datasets: splits, resizing, checksums, and fetching by real processes with and without a network."""

import hashlib
import os
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image
from warm_python import python

from weightlab import backend, data, rng
from weightlab.data import downloads
from weightlab.errors import UserError

HALVING = "e2f1d41f8ed8e45122c70547939f55e48375cd7b0871c3c5341af6858fcd5950"  # SHA-256 of the permutation as int64, little-endian
RAW = tuple(downloads.CHECKSUMS["mnist"])
NO_SOURCE = "no source answered"
FETCH = "from weightlab import errors; from weightlab.data import downloads\ntry: downloads.fetch('{}')\nexcept errors.UserError as error: raise SystemExit(f'error: {{error}}')"


@pytest.fixture(scope="session", params=downloads.CHECKSUMS)
def dataset(request):
    """Each dataset that is here or can be fetched; (name, folder with its raw files)."""
    try:
        return request.param, downloads.fetch(request.param)
    except UserError as error:
        if NO_SOURCE in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="session")
def halves(dataset):
    return {name: data.load(dataset[0], name) for name in ("validation", "test")}


def raw_images(folder, part):
    """Pixels of an idx file after its 16 bytes of header, uint8 (n, 28, 28)."""
    return np.frombuffer((folder / f"{part}-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(-1, 28, 28)


def raw_labels(folder, part):
    return np.frombuffer((folder / f"{part}-labels-idx1-ubyte").read_bytes()[8:], np.uint8)


# --- splits ---------------------------------------------------------------------------------------------------------------------


def test_the_halving_is_the_recorded_permutation():
    order = rng.permutation(data.SPLIT_SEED, "mnist", 10_000)
    assert sorted(order) == list(range(10_000))
    assert hashlib.sha256(order.astype("<i8").tobytes()).hexdigest() == HALVING


def test_validation_and_test_are_the_halves_of_the_10_000_test_images(dataset, halves):
    name, folder = dataset
    order = rng.permutation(data.SPLIT_SEED, "mnist", 10_000)
    labels = raw_labels(folder, "t10k")
    for split, rows in (("validation", order[:5_000]), ("test", order[5_000:])):
        half = halves[split]
        assert (half.dataset, half.name, len(half)) == (name, split, 5_000)
        assert half.images.shape == (5_000, 1, 32, 32) and half.images.dtype == torch.uint8
        assert half.labels.dtype == torch.int64
        np.testing.assert_array_equal(half.labels, labels[rows])
    assert set(order[:5_000]).isdisjoint(order[5_000:])


def test_the_two_halves_together_are_all_test_images(dataset, halves):
    """As a multiset of resized pictures with their labels, whatever the order."""
    resized = [np.asarray(Image.fromarray(each).resize((32, 32), Image.BILINEAR)) for each in raw_images(dataset[1], "t10k")]
    expected = sorted(
        picture.tobytes() + bytes([label]) for picture, label in zip(resized, raw_labels(dataset[1], "t10k"), strict=True)
    )
    both = [halves[name] for name in ("validation", "test")]
    found = sorted(
        picture.tobytes() + bytes([label])
        for half in both
        for picture, label in zip(half.images.numpy(), half.labels.tolist(), strict=True)
    )
    assert found == expected


def test_training_images_keep_their_order_and_are_resized_by_torchvision(dataset):
    name, folder = dataset
    train = data.load(name, "train")
    assert len(train) == 60_000 and train.images.shape == (60_000, 1, 32, 32) and train.images.dtype == torch.uint8
    np.testing.assert_array_equal(train.labels, raw_labels(folder, "train"))
    resize = backend.torchvision().transforms.Resize((32, 32))
    pictures = raw_images(folder, "train")
    for row in (0, 31_415, 59_999):
        np.testing.assert_array_equal(train.images[row, 0], np.asarray(resize(Image.fromarray(pictures[row]))))


def test_first_cuts_a_split(halves):
    assert len(halves["test"].first(7)) == 7 and halves["test"].first(None) is halves["test"]
    assert torch.equal(halves["test"].first(7).images, halves["test"].images[:7])


@pytest.mark.parametrize(("dataset_name", "split"), [("cifar", "train"), ("mnist", "dev")])
def test_unknown_names_say_what_is_allowed(dataset_name, split):
    with pytest.raises(
        UserError,
        match="unknown (dataset 'cifar'; allowed: mnist, fashion_mnist, imagenette, imagewang|split 'dev'; allowed: train, validation, test)",
    ):
        data.load(dataset_name, split)


# --- corrupt and missing files --------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(dataset, tmp_path, monkeypatch):
    """A data folder of its own whose raw files are links to the real ones; (dataset, folder)."""
    name, folder = dataset
    (tmp_path / name).mkdir()
    for file in downloads.CHECKSUMS[name]:
        (tmp_path / name / file).symlink_to(folder.resolve() / file)
    monkeypatch.setenv("WEIGHTLAB_DATA", str(tmp_path))
    return name, tmp_path / name


def test_a_flipped_byte_is_one_sentence_with_file_and_checksums(copy):
    name, folder = copy
    file = folder / "t10k-labels-idx1-ubyte"
    raw = bytearray(file.read_bytes())
    raw[100] ^= 1
    file.unlink()
    file.write_bytes(raw)
    with pytest.raises(UserError) as raised:
        data.load(name, "test")
    message = str(raised.value)
    for part in (str(file), hashlib.sha256(raw).hexdigest(), downloads.CHECKSUMS[name][file.name]):
        assert part in message
    assert "\n" not in message
    assert file.read_bytes() == raw  # reported, not replaced


# --- real processes -------------------------------------------------------------------------------------------------------------


def start(folder, *command, **environment):
    return subprocess.Popen(
        [*python(), *command],
        cwd=folder,
        env=os.environ | {"WEIGHTLAB_DATA": str(folder / "data")} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def offline():
    """Environment of a process that reaches nothing: every proxy is a closed port, and no program is on the path."""
    closed = dict.fromkeys(("https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY"), "http://127.0.0.1:9")
    return closed | {"no_proxy": "", "NO_PROXY": "", "PATH": "/nonexistent"}


@pytest.mark.parametrize("command", [("-m", "weightlab.data"), ("-c", FETCH.format("fashion_mnist"))], ids=downloads.CHECKSUMS)
def test_no_network_and_no_data_is_one_line(tmp_path, command):
    if "fashion_mnist" in command[-1] and os.path.isdir("/usr/share/datasets/fashion-mnist"):
        pytest.skip("Fashion-MNIST is installed on this machine, so that it needs no network")
    process = start(tmp_path, *command, **offline())
    out, error = process.communicate(timeout=120)
    assert process.returncode not in (0, None) and out == ""
    lines = error.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and NO_SOURCE in lines[0] and str(tmp_path) in lines[0], error
    left = [file.name for file in (tmp_path / "data").rglob("*") if file.is_file() and file.name != ".lock"]
    assert left == [] and [each for each in (tmp_path / "data").glob("*/*") if each.is_dir()] == []


@pytest.mark.parametrize("dataset", ["mnist"], indirect=True)
def test_a_failed_download_leaves_what_was_there(copy, tmp_path):
    _, folder = copy
    missing, *kept = RAW
    (folder / missing).unlink()
    process = start(tmp_path, "-m", "weightlab.data", **offline(), WEIGHTLAB_DATA=str(tmp_path))
    _, error = process.communicate(timeout=120)
    assert process.returncode != 0 and error.startswith("error: ")
    assert sorted(file.name for file in folder.iterdir() if file.name != ".lock") == sorted(kept)
    assert all(hashlib.sha256((folder / file).read_bytes()).hexdigest() == downloads.CHECKSUMS["mnist"][file] for file in kept)


def test_two_processes_may_fetch_at_the_same_moment(tmp_path):
    processes = [start(tmp_path, "-m", "weightlab.data") for _ in range(2)]
    results = [process.communicate(timeout=300) for process in processes]
    if all(NO_SOURCE in error for _, error in results):
        pytest.skip(f"MNIST cannot be fetched here: {results[0][1].strip()}")
    for process, (out, error) in zip(processes, results, strict=True):
        assert process.returncode == 0, error
        assert "mnist" in out and "verified" in out
    folder = tmp_path / "data" / "mnist"
    assert sorted(file.name for file in folder.iterdir() if file.name != ".lock") == sorted(RAW)
    for file, expected in downloads.CHECKSUMS["mnist"].items():
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == expected


def test_an_unwritable_data_folder_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WEIGHTLAB_DATA", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot write the data folder"):
        downloads.fetch("mnist")
