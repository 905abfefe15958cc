"""Datasets: splits, resizing, checksums, CIFAR-10's files, and fetching by real processes with and without a network."""

import hashlib
import os
import subprocess
import tarfile
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from warm_python import python

from weightlab import backend, data, models, rng, training
from weightlab.cli import smallest
from weightlab.data import cifar, downloads, splits
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


def test_first_images_are_those_of_the_whole_split(dataset, halves):
    name, folder = dataset
    assert torch.equal(data.load(name, "test", first=7).images, halves["test"].images[:7])
    few = data.load(name, "train", first=3)
    assert few.images.shape == (3, 1, 32, 32) and few.labels.tolist() == raw_labels(folder, "train")[:3].tolist()
    with pytest.raises(UserError, match="images must be a whole number"):
        data.load(name, "train", first=0)


def test_first_cuts_a_split(halves):
    assert len(halves["test"].first(7)) == 7 and halves["test"].first(None) is halves["test"]
    assert torch.equal(halves["test"].first(7).images, halves["test"].images[:7])


@pytest.mark.parametrize(("dataset_name", "split"), [("cifar", "train"), ("mnist", "dev")])
def test_unknown_names_say_what_is_allowed(dataset_name, split):
    with pytest.raises(
        UserError,
        match="unknown (dataset 'cifar'; allowed: mnist, fashion_mnist, cifar10, imagenette, imagewang|split 'dev'; allowed: train, validation, test)",
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


def test_shapes_are_those_of_the_images(halves, dataset):
    assert splits.SHAPES[dataset[0]] == halves["test"].images.shape[1:]
    shapes = {name: tuple(smallest.blank(name).shape) for name in ("mnist", "cifar10", "imagenette", "/own.npz")}
    assert shapes == {
        "mnist": (1, 1, 32, 32),
        "cifar10": (1, 3, 32, 32),
        "imagenette": (1, 3, 224, 224),
        "/own.npz": (1, 1, 32, 32),
    }


# --- CIFAR-10 -------------------------------------------------------------------------------------------------------------------


def records(n, seed=1):
    """Records of CIFAR-10's binary version, uint8 (n, 3073): a class, then red, green and blue pixels."""
    generator = np.random.default_rng(seed)
    return np.hstack([generator.integers(0, 10, (n, 1), np.uint8), generator.integers(0, 256, (n, 3072), np.uint8)])


@pytest.fixture
def cifar_files(tmp_path, monkeypatch):
    """A data folder with generated files of 20 records; (folder of the files, records of each file by name)."""
    monkeypatch.setattr(cifar, "RECORDS", 20)
    monkeypatch.setenv("WEIGHTLAB_DATA", str(tmp_path / "data"))
    folder = tmp_path / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    made = {name: records(20, seed) for seed, name in enumerate(names)}
    for name, content in made.items():
        content.tofile(folder / name)
    return folder, made


def test_cifar10_has_its_published_size_and_the_halves_of_its_test_images(tmp_path, monkeypatch):
    monkeypatch.setenv("WEIGHTLAB_DATA", str(tmp_path))
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number in range(1, 6):
        with open(folder / f"data_batch_{number}.bin", "wb") as file:
            file.write(bytes([number]) + bytes([7]) * 3072)
            file.truncate(30_730_000)
    train = data.load("cifar10", "train")
    assert train.images.shape == (50_000, 3, 32, 32) and train.images.dtype == torch.uint8 and train.labels.dtype == torch.int64
    assert train.labels[::10_000].tolist() == [1, 2, 3, 4, 5] and (train.images[::10_000] == 7).all() and train.labels.sum() == 15
    made = records(10_000)
    made.tofile(folder / "test_batch.bin")
    order = rng.permutation(data.SPLIT_SEED, "cifar10", 10_000)
    for split, rows in (("validation", order[:5_000]), ("test", order[5_000:])):
        half = data.load("cifar10", split)
        assert (half.dataset, half.name, len(half)) == ("cifar10", split, 5_000)
        np.testing.assert_array_equal(half.labels, made[rows, 0])
        np.testing.assert_array_equal(half.images.numpy().reshape(5_000, 3072), made[rows, 1:])


def test_cifar10s_training_files_follow_each_other(cifar_files):
    expected = np.vstack(list(cifar_files[1].values())[:5])
    train = data.load("cifar10", "train")
    np.testing.assert_array_equal(train.labels, expected[:, 0])
    np.testing.assert_array_equal(train.images[:, 1, 2, 3], expected[:, 1 + 1024 + 2 * 32 + 3])  # green, third row, fourth column


@pytest.mark.parametrize("bytes_more", [-1, 1, 20])
def test_a_file_of_cifar10_of_another_size_is_one_sentence(cifar_files, bytes_more):
    """20 bytes more: CIFAR-100, whose records have two labels."""
    file = cifar_files[0] / "data_batch_4.bin"
    file.write_bytes(bytes(20 * 3073 + bytes_more))
    with pytest.raises(UserError, match=rf"{file} has {61_460 + bytes_more} bytes, but must have 61460 \(20 records of 3073"):
        data.load("cifar10", "train")
    assert len(data.load("cifar10", "test")) == 10


def test_a_label_of_cifar10_out_of_range_is_one_sentence(cifar_files):
    folder, made = cifar_files
    content = made["test_batch.bin"].copy()
    content[[5, 9], 0] = 10, 255
    content.tofile(folder / "test_batch.bin")
    with pytest.raises(UserError, match="test_batch.bin has the label 10 in record 5, but labels must be 0 to 9; replace it"):
        data.load("cifar10", "validation")


def test_a_missing_file_of_cifar10_is_one_sentence(cifar_files):
    (cifar_files[0] / "data_batch_2.bin").unlink()
    with pytest.raises(
        UserError, match=r"data_batch_2.bin cannot be read \(No such file or directory\); put the files data_batch_1.bin, "
    ):
        data.load("cifar10", "train")


@pytest.fixture
def archive(cifar_files, tmp_path, monkeypatch):
    """An archive of the generated files, beside the one where torchvision looks for the pickled version; the data folder is empty."""
    folder, _ = cifar_files
    file = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(file, "w:gz") as packed:
        packed.add(folder, folder.name)
    folder.rename(tmp_path / "moved")
    monkeypatch.setattr(downloads, "CIFAR10_MD5", hashlib.md5(file.read_bytes()).hexdigest())
    monkeypatch.setattr(backend.torchvision().datasets.CIFAR10, "url", file.with_name("cifar-10-python.tar.gz").as_uri())
    return file


def test_cifar10_is_downloaded_and_unpacked_once(archive, cifar_files):
    folder, made = cifar_files
    data.load("cifar10", "test")
    archive.unlink()
    assert len(data.load("cifar10", "train")) == 100
    assert sorted(file.name for file in folder.parent.iterdir()) == [".cifar-10-batches-bin.lock", folder.name]
    assert sorted(file.name for file in folder.iterdir()) == sorted(made)


@pytest.mark.parametrize(
    ("damage", "reason"), [("another", "arrived with another MD5 than"), (None, "No such file or directory")]
)
def test_cifar10_that_cannot_be_fetched_is_one_sentence_and_leaves_nothing(archive, cifar_files, damage, reason):
    archive.write_bytes(damage.encode()) if damage else archive.unlink()
    folder = cifar_files[0]
    with pytest.raises(UserError) as raised:
        data.load("cifar10", "test")
    message = str(raised.value)
    assert message.startswith(f"cifar10 is not in {folder} (it cannot be fetched: ") and reason in message and "\n" not in message
    assert message.endswith("data_batch_5.bin, test_batch.bin of CIFAR-10's binary version there")
    assert [file.name for file in folder.parent.iterdir()] == [".cifar-10-batches-bin.lock"]


def test_alexnet_learns_from_cifar10s_files(cifar_files, monkeypatch):
    """At a sixteenth of its width, by the recipe of the full network; a sum of colours, which batch norm passes on, is the class."""
    folder, made = cifar_files
    for name, content in made.items():
        content[:, 1:] = content[:, :1] * 25
        content.tofile(folder / name)
    monkeypatch.setitem(models.NETWORKS, "alexnet_cifar10", partial(models.AlexNet, 10, 1 / 16, 1 / 64))
    recipe = replace(training.CHECKPOINTS["alexnet_cifar10"], epochs=1)
    model, history = training.fit("alexnet_cifar10", recipe, "cpu", log=lambda line: None)
    assert len(history) == 1 and history[0]["validation_loss"] < 3
    assert model.features[2].num_batches_tracked == 2  # 100 images in batches of 64
    fresh = models.build("alexnet_cifar10", recipe.seed)
    assert all(not torch.equal(one, other) for one, other in zip(model.parameters(), fresh.parameters(), strict=True))


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
