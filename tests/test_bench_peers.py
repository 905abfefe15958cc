"""What `make bench-files` says of other programs: chosen on validation alone, and a peer that cannot be had does not stop it."""

import json
import subprocess
import sys

import nncodec_peer
import numpy as np
import pandas as pd
import peers
import pytest
import smallest
import torch

CODER = """
import json, sys
import numpy as np
weights = dict(np.load(sys.argv[1]))
for line in sys.stdin:
    settings = json.loads(line)
    if settings["qp"] > 0:
        raise SystemExit(1)
    steps = {name: 2.0 ** (settings["qp_per_tensor"].get(name, settings["nonweight_qp"]) / 4) for name in weights}
    np.savez(sys.argv[2], **{name: (np.round(each / steps[name]) * steps[name]).astype(np.float32) for name, each in weights.items()})
    print(json.dumps({"bytes": sum(int(each.size * max(0, 8 - np.log2(steps[name]))) for name, each in weights.items()) // 8}), flush=True)
"""


class Judge:
    """Loses a point for each hundredth that any weight of the first layer is wrong, and a tenth of it for the others."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(8, 30), torch.nn.Linear(30, 30))

    def losses(self, tensors, splits=("val", "test")):
        state = self.model.state_dict()
        wrong = sum((0.1 if name[0] == "1" else 1) * float((tensors[name] - state[name]).abs().max()) for name in state)
        return {f"loss_{split}_pp": 100 * wrong for split in splits}


@pytest.fixture
def coder(tmp_path):
    judge = Judge()
    np.savez(tmp_path / "weights.npz", **{name: value.numpy() for name, value in judge.model.state_dict().items()})
    command = [sys.executable, "-c", CODER, tmp_path / "weights.npz", tmp_path / "decoded.npz"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield nncodec_peer.Codec("tiny", process, judge, tmp_path / "decoded.npz")
        process.kill()


def test_a_number_for_each_layer_saves_bytes_within_the_loss(coder):
    singles = nncodec_peer.curve(coder, range(-40, -20), [-60])
    start = coder.best(1.0)
    assert start in singles and start == max(
        (each for each in singles if coder.trials[each]["loss_val_pp"] < 1), key=lambda each: each.qps
    )
    nncodec_peer.descend(coder, start, 1.0, 100)
    found = coder.best(1.0)
    assert len(coder.trials) <= len(singles) + 100
    assert coder.trials[found]["bytes"] < coder.trials[start]["bytes"] and coder.trials[found]["loss_val_pp"] < 1
    assert found.qps[1] > found.qps[0], "the layer that matters less takes the larger steps"
    rows = coder.rows([start, found])
    assert list(rows.columns) == nncodec_peer.COLUMNS and rows["search"].tolist() == ["single", "per layer"]
    assert (
        rows["qp"].tolist() == [str(start.qps[0]), " ".join(map(str, found.qps))]
        and (rows["loss_test_pp"] == rows["loss_val_pp"]).all()
    )


def test_a_coder_that_ends_is_told_and_does_not_stop_the_benchmark(coder):
    told = peers.or_why(lambda: coder.trial(coder.single(1, 0, True)))
    assert told.startswith("not measured: nncodec ended without an answer to {'qp': 1")


@pytest.mark.parametrize(
    "error", [OSError("no g++"), subprocess.CalledProcessError(1, "pip", stderr="no\n g++"), peers.Unavailable("no g++")]
)
def test_why_a_peer_cannot_be_had_is_told(error):
    def measure():
        raise error

    assert peers.or_why(measure) == "not measured: no g++"
    assert peers.or_why(lambda: 3) == 3


def test_a_front_has_no_row_that_a_smaller_one_beats():
    rows = pd.DataFrame({"bytes": [10, 8, 9, 7, 8], "loss_val_pp": [0.1, 0.5, 0.5, 2.0, 0.4], "loss_test_pp": 0.0})
    assert peers.front(rows)["bytes"].tolist() == [10, 8, 7] and peers.front(rows)["loss_val_pp"].tolist() == [0.1, 0.4, 2.0]
    assert (
        peers.smallest(rows, 1.0) == {"bytes": 8, "loss_val_pp": 0.5, "loss_test_pp": 0.0}
        or peers.smallest(rows, 0.5)["bytes"] == 8
    )
    assert peers.smallest(rows, 0.1) is None
    json.dumps(peers.smallest(rows, 1.0))


def test_rows_of_a_network_are_replaced_and_others_stay(tmp_path):
    peers.rewrite(tmp_path / "a.csv", pd.DataFrame({"network": ["a", "b"], "bytes": [1, 2]}))
    peers.rewrite(tmp_path / "a.csv", pd.DataFrame({"network": ["a"], "bytes": [3]}))
    assert (tmp_path / "a.csv").read_text() == "network,bytes\nb,2\na,3\n"


def test_at_level_0_one_number_is_the_peer_and_above_whatever_is_smaller(monkeypatch):
    row = {"file_bytes": 5, "loss_val_pp": 0.5, "loss_test_pp": 0.6, "seconds": 1.0, "trials": [[5, 0.9], [6, 0.8], [7, 0.1]]}
    monkeypatch.setattr(smallest, "measure", lambda *_, **__: row)
    peer = {"single": {"bytes": 9, "loss_val_pp": 0.9}, "per layer": {"bytes": 8, "loss_val_pp": 0.8}, "per group": None}
    made = smallest.beside("a", 1.0, peer, lambda _: None)
    assert {level: each["nncodec_bytes"] for level, each in made.items()} == {level: 8 if level else 9 for level in made}
    assert "trials" not in made[1] and made[1]["nncodec_loss_val_pp"] == 0.8 and made[1]["file_bytes"] == 5
    assert (made[0]["file_bytes_at_nncodec_loss"], made[1]["file_bytes_at_nncodec_loss"]) == (5, 6)
    assert smallest.beside("a", 1.0, "not measured", lambda _: None)[0]["nncodec_bytes"] is None


def test_where_no_trial_is_as_good_and_smaller_another_bisection_answers(monkeypatch):
    limits = []

    def measure(network, weights, level, within, draw):
        limits.append(within)
        row = {"file_bytes": 5, "loss_val_pp": 0.9, "loss_test_pp": 0.6, "seconds": 1.0}
        return row | {"trials": [[5, 0.9], [11, 0.1]] if within == 1.0 else [[5, 0.9], [6, 0.6]]}

    monkeypatch.setattr(smallest, "measure", measure)
    made = smallest.beside("a", 1.0, {"single": {"bytes": 9, "loss_val_pp": 0.6}}, lambda _: None)
    assert made[0]["file_bytes_at_nncodec_loss"] == 6 and limits[:2] == [1.0, 0.6 + smallest.ROUNDED]


def test_networks_of_many_layers_share_numbers_by_kind():
    state = {f"{place}.weight": torch.zeros(8, 1 if place % 3 == 1 else 4, 3, 3) for place in range(12)} | {
        "bias": torch.zeros(3)
    }
    assert nncodec_peer.groups(dict(list(state.items())[:5])) == [[f"{place}.weight"] for place in range(5)]
    kinds = nncodec_peer.groups(state)
    assert sorted(map(len, kinds)) == [2, 3, 3, 4] and sorted(name for kind in kinds for name in kind) == sorted(
        name for name in state if name != "bias"
    )
