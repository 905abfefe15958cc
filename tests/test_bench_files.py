"""What `make bench-files` says of mutated files: it tries all, and a file that is not survived cannot escape it."""

import os
import random
import time

import compact_pieces
import files
import format_reader
import fuzzing
import label_mutations
import mutations
import numpy as np
import pytest
import torch
import zstandard
from originals import everything
from torch import nn

from weightlab import models, packing, sharing
from weightlab.errors import UserError
from weightlab.packing import compact_format, range_coding
from weightlab.packing.onnx_files import Comparison


@pytest.fixture(scope="module")
def versions():
    """Files of a tiny network and of LeNet-5, in several formats, codings and kinds, by version."""
    torch.manual_seed(0)
    tiny, lenet5 = nn.Sequential(nn.Linear(40, 30), nn.BatchNorm1d(30), nn.Linear(30, 2)), models.load("lenet5_tanh")
    plan = [3, 300, 17, 2, 1]
    shared = sharing.compressed(sharing.codebooks(lenet5, plan, "float16"), plan)
    return {
        1: [
            packing.pack(tiny, [5, 1], "float16"),
            packing.pack(tiny, 3, "float8_thesis", rest="float16"),
            packing.pack(lenet5, plan, "float8_e4m3"),
        ],
        2: [everything(), packing.pack_compressed(lenet5, shared, version=2, rest="float16")],
    }


@pytest.fixture(scope="module")
def originals(versions):
    return versions[1] + versions[2]


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


@pytest.mark.parametrize("version", [1, 2])
def test_mutated_files_are_refused_for_many_reasons_or_good(versions, version, tmp_path):
    found = fuzzing.survey(versions[version], 300, tmp_path / "kept", workers=1)
    assert found.failures == {} and found.tried == found.survived == 300 and not (tmp_path / "kept").exists()
    assert found.refusals.total() + found.accepted.total() == 300
    assert len(found.refusals) >= 15 and found.accepted.total() >= 10


def test_about_half_of_the_files_are_of_each_version(originals):
    made = [mutations.mutated(originals, seed) for seed in range(400)]
    assert 140 <= sum(mutations.of_second(each) for each in made) <= 240  # some have lost their beginning
    assert made == [mutations.mutated(originals, seed) for seed in range(400)] and len(set(made)) > 390


def test_most_files_of_version_2_have_the_checksum_that_belongs_to_them(versions, tmp_path):
    refusals, accepted = [], 0
    for seed in range(200):
        (tmp_path / "file").write_bytes(mutations.mutated(versions[2], seed))
        kind, text = fuzzing.judge(packing.read, tmp_path / "file")
        refusals.append(text if kind == "refused" else "")
        accepted += kind == "accepted"
    assert 0 < sum("checksum" in text for text in refusals) < 40 < len(refusals) and accepted >= 10


def test_the_second_reader_agrees_on_mutated_files_of_version_2(versions, tmp_path):
    """It takes what the library takes, with the same values; it is not asked about unknown entries and limits."""
    expand = zstandard.ZstdDecompressor().decompress
    agreed = 0
    for seed in range(300):
        content = mutations.mutated(versions[2][:1], seed)
        (tmp_path / "file").write_bytes(content)
        try:
            state = packing.read(tmp_path / "file").state_dict()
        except UserError:
            continue
        other = format_reader.read_second(content, compact_format.DICTIONARY, expand)
        for name, value in state.items():
            value = value.float() if value.dtype == torch.bfloat16 else value
            assert np.array_equal(value.numpy(), other[name], equal_nan=value.is_floating_point()), (seed, name)
        agreed += 1
    assert agreed >= 20


def test_streams_are_wrong_in_every_way_and_some_are_right():
    """Other counts than a writer takes give the same labels; a stream that lies is refused, or read as so many labels."""
    labels = np.random.default_rng(0).choice(5, 700, p=[0.9, 0.04, 0.03, 0.02, 0.01]).astype(np.uint8)
    good, chance, outcomes = range_coding.encode(labels).tobytes(), random.Random(0), []
    for _ in range(300):
        read = range_coding.decode(np.frombuffer(label_mutations.lying_stream(good, chance), np.uint8), len(labels))
        outcomes.append(read is not None)
        assert read is None or len(read) == len(labels)
    assert 1 <= sum(outcomes) < 100
    made = [label_mutations.stream(labels, scale, chance) for scale in range_coding.SCALES for _ in range(6)]
    read = [range_coding.decode(np.frombuffer(each, np.uint8), len(labels)) for each in made]
    assert sum(each is None for each in read) >= 5 and len(set(made)) > 20
    assert all(np.array_equal(each, labels) for each in read if each is not None)


def test_a_file_that_is_taken_apart_is_put_together_again(versions):
    for content in versions[2]:
        values = compact_pieces.opened(content)
        data = b"".join(compact_pieces.taken(values))
        assert compact_format.sealed(values, data) == content


@pytest.mark.parametrize("version", [1, 2])
def test_files_may_be_long_and_are_refused_or_good_all_the_same(versions, version, tmp_path, monkeypatch):
    monkeypatch.setattr(mutations, "LARGE", 1)
    long = [mutations.mutated(versions[version], seed) for seed in range(30)]
    for seed, content in enumerate(long):
        (tmp_path / str(seed)).write_bytes(content)
        assert fuzzing.judge(packing.read, tmp_path / str(seed))[0] in ("accepted", "refused"), seed
    assert sum(_metadata_bytes(each) > 20_000 for each in long) >= 10


def _metadata_bytes(content):
    """Of either version, as they are before they are deflated."""
    if not mutations.of_second(content):
        return int.from_bytes(content[:8], "little")
    try:
        return len(compact_pieces.sections(content)[0])
    except Exception:  # the fault is in the stream
        return 0


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


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("shape", "value", "words"),
    [
        ((1, 2), 0.0, "has the shape [1, 2], declared is"),
        (None, torch.nan, "not finite"),
        (None, "half", "not finite float32"),
        (None, 1000.0, "is not its centroids under its labels"),
    ],
)
def test_a_network_that_is_not_the_declared_one_is_no_good_one(versions, version, shape, value, words, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(versions[version][0])
    assert fuzzing.judge(packing.read, tmp_path / "file")[0] == "accepted"
    good = packing.read(tmp_path / "file").state_dict()
    weight = torch.zeros(shape or good["0.weight"].shape)
    weight = weight.half() if value == "half" else weight + value
    monkeypatch.setattr(packing.Packed, "state_dict", lambda self: good | {"0.weight": weight})
    kind, text = fuzzing.judge(packing.read, tmp_path / "file")
    assert kind == "failed" and words in text


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"more": torch.zeros(1)}, "'more' is either declared or there, but not both"),
        ({"constant3": torch.full((4,), 6)}, "the values of 'constant3' are not all 7"),
        ({"constant4": torch.full((4,), 7)}, "'constant4' is torch.int64, declared is torch.int32"),
        ({"0.bias": torch.full((20,), torch.inf)}, "the coded tensor '0.bias' is not finite"),
        ({"again.weight": torch.zeros(20, 30)}, "'again.weight' is not '0.weight'"),
    ],
)
def test_other_tensors_of_version_2_must_be_the_declared_ones(versions, changed, words, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(versions[2][0])
    good = packing.read(tmp_path / "file").state_dict()
    monkeypatch.setattr(packing.Packed, "state_dict", lambda self: good | changed)
    assert fuzzing.judge(packing.read, tmp_path / "file") == ("failed", words)
