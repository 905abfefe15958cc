"""What `make bench-files` says of mutated files: it tries all, and a file that is not survived cannot escape it."""

import os
import time

import files
import fuzzing
import mutations
import numpy as np
import pytest
import torch
from torch import nn

from weightlab import models, packing
from weightlab.errors import UserError
from weightlab.packing.onnx_files import Comparison


@pytest.fixture(scope="module")
def originals():
    """Files of a tiny network and of LeNet-5, in several formats and codings."""
    torch.manual_seed(0)
    tiny, lenet5 = nn.Sequential(nn.Linear(40, 30), nn.BatchNorm1d(30), nn.Linear(30, 2)), models.load("lenet5_tanh")
    return [
        packing.pack(tiny, [5, 1], "float16"),
        packing.pack(tiny, 3, "float8_thesis", rest="float16"),
        packing.pack(lenet5, [3, 300, 17, 2, 1], "float8_e4m3"),
    ]


def faulty(file):
    """A reader that fails for some seeds in every way there is."""
    match int(file.stem):
        case 1:
            raise ValueError("planted")
        case 3:
            os.abort()
        case 5:
            time.sleep(600)
        case 7:
            np.ones(2 << 30, dtype=np.uint8)
        case 9:
            raise SystemExit(0)
    return packing.read(file)


def test_mutated_files_are_refused_for_many_reasons_or_good(originals, tmp_path):
    found = fuzzing.survey(originals, 300, tmp_path / "kept", workers=1)
    assert found.failures == {} and found.tried == found.survived == 300 and not (tmp_path / "kept").exists()
    assert found.refusals.total() + found.accepted.total() == 300
    assert len(found.refusals) >= 15 and found.accepted.total() >= 10


def test_files_may_be_long_and_are_refused_or_good_all_the_same(originals, tmp_path, monkeypatch):
    monkeypatch.setattr(mutations, "LARGE", 1)
    long = [mutations.mutated(originals, seed) for seed in range(60)]
    assert sum(len(each) > 3 * max(map(len, originals)) for each in long) >= 20
    for seed, content in enumerate(long):
        (tmp_path / str(seed)).write_bytes(content)
        assert fuzzing.judge(packing.read, tmp_path / str(seed))[0] in ("accepted", "refused"), seed


def test_a_refusal_with_control_characters_is_not_survived(originals, tmp_path):
    def refusing(file):
        raise UserError("\x1b[2Jno")

    assert fuzzing.judge(refusing, tmp_path / "file") == ("failed", "a message for nobody: '\\x1b[2Jno'")


def test_the_benchmark_asks_onnxruntime_about_every_test_image(tmp_path):
    found = files.onnx_answers("lenet5_tanh", tmp_path)
    assert found.images == 5000 and files.onnx_broken({"lenet5_tanh": found}) == []
    wrong = {"a": Comparison(9, 1, 0.0), "b": Comparison(9, 0, 2e-4), "c": Comparison(9, 0, float("nan"))}
    assert [line.split(":")[0] for line in files.onnx_broken(wrong)] == ["a", "b", "c"]


def test_whatever_is_not_survived_is_counted_told_and_kept(originals, tmp_path):
    told = []
    found = fuzzing.survey(originals, 12, tmp_path / "kept", told.append, faulty, workers=2, patience_s=3)
    assert found.tried == 12 and found.survived == 7
    assert {seed: text.split(":")[0] for seed, text in found.failures.items()} == {
        1: "ValueError",
        3: "the process ended by itself, exit code -6",
        5: "no answer for 3 s",
        7: "MemoryError",
        9: "SystemExit",
    }
    kept = {int(file.stem): file.read_bytes() for file in (tmp_path / "kept").iterdir()}
    assert kept == {seed: mutations.mutated(originals, seed) for seed in found.failures}
    assert all(any(f"seed {seed}:" in line for line in told) for seed in found.failures)


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (torch.zeros(40, 30), "has the shape [40, 30], declared is [30, 40]"),
        (torch.full((30, 40), torch.nan), "not finite"),
        (torch.zeros(30, 40).half(), "not finite float32"),
    ],
)
def test_a_network_that_is_not_the_declared_one_is_no_good_one(originals, weight, words, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(originals[0])
    assert fuzzing.judge(packing.read, tmp_path / "file") == ("accepted", "finite throughout")
    good = packing.read(tmp_path / "file").state_dict()
    monkeypatch.setattr(packing.Packed, "state_dict", lambda self: good | {"0.weight": weight})
    kind, text = fuzzing.judge(packing.read, tmp_path / "file")
    assert kind == "failed" and words in text
