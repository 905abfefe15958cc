"""Codebooks kept on disk: the same as those in memory, shared by processes, made again when damaged."""

import subprocess

import numpy as np
import pytest
from warm_python import python

from weightlab import models
from weightlab.compression.sharing import clustering
from weightlab.compression.sharing.codebooks import Codebooks


@pytest.fixture(scope="module")
def model():
    return models.load("lenet5_tanh")


def same(a, b):
    return (a.centroids == b.centroids).all() and (a.labels == b.labels).all() and a.labels.dtype == b.labels.dtype


@pytest.mark.parametrize("method", clustering.METHODS)
def test_read_from_disk_they_are_what_was_made(method, model, tmp_path, monkeypatch):
    """Also where clusters are no intervals, as a Gaussian mixture's need not be."""
    made = Codebooks(model, method, "float16", ks=[1, 3, 8], folder=tmp_path)
    wanted = {(group, k): made.get(group, k) for group in (0, 1) for k in (1, 3, 8)}
    monkeypatch.setattr(clustering, "cluster", None)  # nothing may be made again
    read = Codebooks(model, method, "float16", ks=[1, 3, 8], folder=tmp_path)
    in_memory = Codebooks(model, method, "float16", ks=[1, 3, 8])
    assert all(same(read.get(*key), book) for key, book in wanted.items())
    monkeypatch.undo()
    assert all(same(in_memory.get(*key), book) for key, book in wanted.items())


def test_another_format_method_or_network_finds_nothing_of_it(model, tmp_path):
    files = []
    for network, method, format in (
        (model, "exact", "float32"),
        (model, "exact", "float16"),
        (model, "kmeans", "float32"),
        (models.load("lenet5_relu"), "exact", "float32"),
    ):
        Codebooks(network, method, format, ks=[3], folder=tmp_path).get(0, 3)
        files.append(len(list(tmp_path.glob("*.safetensors"))))
    assert files == [1, 2, 3, 4]


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_file_is_said_and_made_again(model, tmp_path, damage):
    wanted = Codebooks(model, folder=tmp_path).get(4, 7)
    (file,) = tmp_path.glob("*.safetensors")
    raw = bytearray(file.read_bytes())
    raw[-100] ^= 1
    file.write_bytes(raw if damage == "flip" else raw[: len(raw) // 2])
    with pytest.warns(UserWarning, match="is damaged .* and is made again"):
        assert same(Codebooks(model, folder=tmp_path).get(4, 7), wanted)
    assert same(Codebooks(model, folder=tmp_path).get(4, 7), wanted)


def test_processes_that_start_together_agree(model, tmp_path):
    code = (
        "import sys, hashlib; from weightlab import models; from weightlab.sharing import Codebooks\n"
        "books = Codebooks(models.load('lenet5_tanh'), folder=sys.argv[1])\n"
        "print(hashlib.sha256(b''.join(books.get(g, k).values().tobytes() for g in range(5) for k in (2, 9, 50))).hexdigest())"
    )
    started = [subprocess.Popen([*python(), "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate()[0] for process in started}
    assert all(process.returncode == 0 for process in started) and len(said) == 1
    assert len(list(tmp_path.glob("*.safetensors"))) == 5 and not list(tmp_path.glob(".*.safetensors*"))


def test_very_many_weights_are_clustered_within_a_thousandth_of_the_optimum():
    """Above the limit weights are binned first; heavy tails and a dense middle at once."""
    rng = np.random.default_rng(4)
    n = clustering.MANY + 50_000
    weights = np.concatenate([rng.normal(0, 0.01, n), rng.standard_t(2, 3000)]).astype(np.float32)
    ks = [2, 3, 16, 64, 120]
    books = clustering.cluster(weights, ks)
    x, counts = np.unique(weights, return_counts=True)
    assert len(x) > clustering.MANY
    starts = clustering.intervals(x.astype(np.float64), ks, counts)
    for k in ks:
        best = sum(((part - np.average(part, weights=c)) ** 2 * c).sum() for part, c in zip(
            np.split(x.astype(np.float64), starts[k][1:]), np.split(counts, starts[k][1:]), strict=True))  # fmt: skip
        assert best * (1 - 1e-6) <= books[k].inertia(weights) <= best * 1.001
