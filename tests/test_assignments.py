"""A network under assignments of multipliers: all of them measured, the front and what is chosen confirmed, searches held against them."""

import itertools

import numpy as np
import pandas as pd
import pytest

from weightlab import models, training
from weightlab.compression import contract
from weightlab.compression.multipliers.settings import Multiplying
from weightlab.errors import UserError
from weightlab.evaluation import Evaluator
from weightlab.runs import Runner, assignment_searches, truth
from weightlab.runs.assignments import Assignments
from weightlab.search import space
from weightlab.search.greedy import greedy

NAMES = ["operand3", "trunc6", "drum4", "exact"]  # by ascending power
IMAGES = 60
EVERY = [list(plan) for plan in itertools.product(range(1, 5), repeat=3)]


def assignments(names, images=IMAGES):
    return Assignments("lenet5_fashion", Multiplying(library="generated", only=names, calibration_images=50), images, 1, "cpu")


@pytest.fixture(scope="module")
def subject():
    return assignments(NAMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("searches")


@pytest.fixture(scope="module")
def measured(subject, folder):
    return subject.every(folder, progress=False)


@pytest.fixture
def nothing_is_measured(monkeypatch):
    def fail(*arguments, **named):
        raise AssertionError("something is measured")

    monkeypatch.setattr(Evaluator, "correct", fail)


def right(subject, split, plan=None):
    """Which images the network classifies correctly, by one forward pass; without a plan the float network."""
    network = models.copied(subject.model)
    if plan is not None:
        contract.apply(subject.method, network, list(plan))
    images = subject.splits[split]
    return (training.logits(network, images.images, "cpu").argmax(1) == images.labels).numpy()


# --- what is measured -------------------------------------------------------------------------------------------------------------


def test_layers_share_the_multiplications(subject):
    layers = subject.layers
    assert layers["layer"].tolist() == ["feature_extractor.0", "feature_extractor.3", "feature_extractor.6"]
    assert layers["weights"].tolist() == [150, 2400, 48_000] and layers["multiplications"].tolist() == [117_600, 240_000, 48_000]
    assert layers["share_pct"].tolist() == pytest.approx([100 * each / 405_600 for each in (117_600, 240_000, 48_000)])


def test_the_exact_and_the_uniform_assignments(subject):
    assert subject.exact.tolist() == [4, 4, 4] and subject.method.energy(subject.exact) == 1
    assert subject.uniform.tolist() == [[each] * 3 for each in (1, 2, 3, 4)]
    assert subject.named([1, 4, 3]) == "operand3/exact/drum4"


@pytest.mark.parametrize(("order", "names"), [("power", NAMES), ("alphabetical", sorted(NAMES))])
def test_a_search_sees_the_multipliers_in_an_order(subject, order, names):
    searched = subject.space(order)
    plans = searched.decode(np.array([[0, 1, 2], [3, 3, 0]]))
    assert [subject.named(plan) for plan in plans] == ["/".join(names[:3]), f"{names[3]}/{names[3]}/{names[0]}"]
    assert all(sorted(each) == [1, 2, 3, 4] for each in searched.lists) and searched.dimensions == 3


def test_every_assignment_is_measured_once(subject, measured):
    assert [list(plan) for plan in measured["plan"]] == EVERY
    known = Evaluator(subject.model, subject.method, [subject.splits["validation"]], "cpu", threads=1)
    assert (measured["accuracy"] * IMAGES).round(6).tolist() == known.correct(EVERY)[:, 0].tolist()
    assert measured["validation_accuracy"].equals(measured["accuracy"])
    losses = 100 * (right(subject, "validation").mean() - measured["accuracy"])
    assert measured["validation_loss_pp"].tolist() == pytest.approx(losses.tolist())
    assert measured["energy"].tolist() == subject.method.energy(np.array(EVERY)).tolist()
    assert measured["rate"].tolist() == pytest.approx((1 / measured["energy"]).tolist())
    assert not [column for column in measured if column.startswith("test")]  # which no choice sees


def test_what_was_measured_is_read(subject, measured, folder, nothing_is_measured):
    assert subject.every(folder, progress=False).equals(measured)


def test_other_images_have_a_folder_of_their_own(measured, folder):
    own = set(folder.glob("box-*"))
    other = assignments(["trunc6", "exact"], images=20)
    assert [list(plan) for plan in other.every(folder, progress=False)["plan"]] == [
        list(plan) for plan in itertools.product((1, 2), repeat=3)
    ]
    assert len(set(folder.glob("box-*")) - own) == 1


def test_some_assignments_are_measured_as_all_are(subject, measured):
    rows = [63, 0, 23]
    some = subject.on_validation(measured["plan"][rows])
    assert [list(plan) for plan in some["plan"]] == [EVERY[row] for row in rows]
    columns = ["energy", "validation_accuracy", "validation_loss_pp"]
    assert some[columns].equals(measured.loc[rows, columns].reset_index(drop=True))
    for wrong in ([[0, 1, 1]], [[5, 1, 1]], [[1, 1]]):
        with pytest.raises(UserError):
            subject.on_validation(wrong)


# --- what is confirmed ------------------------------------------------------------------------------------------------------------


def test_assignments_are_confirmed_by_the_plain_forward_pass(subject, measured):
    plans = [(4, 4, 4), (1, 2, 4), (3, 3, 1)]
    table = subject.confirmed(plans)
    assert [tuple(plan) for plan in table["plan"]] == plans
    assert table["energy"].tolist() == [measured["energy"][EVERY.index(list(plan))] for plan in plans]
    for plan, row in zip(plans, table.to_dict("records"), strict=True):
        for split in ("validation", "test"):
            before, after = right(subject, split), right(subject, split, plan)
            assert row[f"{split}_accuracy"] == after.mean() and row[f"{split}_images"] == IMAGES
            assert (row[f"{split}_lost"], row[f"{split}_gained"]) == ((before & ~after).sum(), (after & ~before).sum())
            assert row[f"{split}_loss_pp"] == pytest.approx(100 * (before.mean() - after.mean()))
        assert row["validation_accuracy"] == measured["accuracy"][EVERY.index(list(plan))]
    network = models.copied(subject.model)
    contract.apply(subject.method, network, [1, 2, 4])
    assert table["test_accuracy"][1] == training.accuracy(network, subject.splits["test"], "cpu")


def test_the_front_is_what_nothing_beats_up_to_a_loss(subject, measured):
    costs = measured[["validation_loss_pp", "energy"]].to_numpy()
    best = [not ((costs <= row).all(1) & (costs < row).any(1)).any() and row[0] <= 20 for row in costs]
    front = subject.front(measured.sample(frac=1, random_state=0).iloc[[*range(64), *range(9)]], 20)  # some of them twice
    expected = [EVERY[place] for place in np.flatnonzero(best)]
    assert sorted(list(plan) for plan in front["plan"]) == expected and 2 < len(expected) < 10
    assert set(front) == set(subject.confirmed([subject.exact]))


def test_a_front_without_any_assignment_is_the_exact_one(subject, measured):
    front = subject.front(measured[measured["validation_loss_pp"] > 20], 20)
    assert [list(plan) for plan in front["plan"]] == [[4, 4, 4]]


@pytest.mark.parametrize("within", [8.4, 30])
def test_the_chosen_save_most_within_the_loss(subject, measured, within):
    """Each way finds what a search of the whole table finds in its own part of it."""
    chosen = subject.chosen(subject.front(measured, 100), len(measured), within).set_index("kind")
    assert list(chosen.index) == ["assignment", "uniform", "greedy", "exact"]
    kept = measured[measured["validation_loss_pp"] <= within]
    by_plan = dict(zip(map(tuple, measured["plan"]), measured["accuracy"], strict=True))
    least = right(subject, "validation").mean() - within / 100
    greedily, tried = greedy(
        lambda plans: np.array([by_plan[tuple(plan)] for plan in plans]), [4, 4, 4], [[1, 2, 3, 4]] * 3, least
    )
    assert chosen["energy"].to_dict() == {
        "assignment": kept["energy"].min(),
        "uniform": kept.loc[[len(set(plan)) == 1 for plan in kept["plan"]], "energy"].min(),
        "greedy": measured["energy"][EVERY.index(greedily.tolist())],
        "exact": 1,
    }
    assert (chosen["validation_loss_pp"] <= within).all() and (chosen["energy"] >= chosen["energy"]["assignment"]).all()
    assert chosen["evaluations"].to_dict() == {"assignment": 64, "uniform": 4, "greedy": tried, "exact": 1}
    assert (chosen["chosen_on"] == IMAGES).all() and (chosen["test_images"] == IMAGES).all()
    assert chosen["named"].tolist() == [subject.named(plan) for plan in chosen["plan"]]


def test_of_equal_energies_the_one_that_loses_less_is_chosen(subject):
    front = subject.confirmed([[2, 4, 4], [1, 2, 4]]).assign(energy=0.5, validation_loss_pp=[1.0, 0.5])
    assert subject.chosen(front, 2, 1.0)["named"][0] == "operand3/trunc6/exact"


def test_a_way_that_finds_nothing_within_the_loss_has_no_row(subject):
    """The exact multiplier is there whatever it loses; a search may have found nothing where one multiplier everywhere is enough."""
    front = subject.confirmed([[1, 1, 1]])
    assert subject.chosen(front, 64, -50)["kind"].tolist() == ["exact"]
    assert subject.chosen(front, 64, 1.0)["kind"].tolist() == ["uniform", "greedy", "exact"]


# --- ranges of a batch ------------------------------------------------------------------------------------------------------------


def test_ranges_of_batches_beside_calibrated_ones(subject):
    plans, images = [(4, 4, 4), (2, 2, 2)], 40
    table = subject.in_batches(plans, images, batch=20)
    assert table["ranges"].tolist() == ["batch", "calibrated"] * 2 and (table["images"] == images).all()
    assert [tuple(plan) for plan in table["plan"]] == [plan for plan in plans for _ in range(2)]
    split, before = subject.splits["test"].first(images), right(subject, "test")[:images]
    for row in table.to_dict("records"):
        after = right(subject, "test", row["plan"])[:images]
        if row["ranges"] == "batch":
            network = subject.method.in_batches(subject.model, list(row["plan"]))
            x = split.images.float() / 255
            answers = np.concatenate([network(part).argmax(1).numpy() for part in (x[:20], x[20:])])
            after = answers == split.labels.numpy()
        assert (row["lost"], row["gained"]) == ((before & ~after).sum(), (after & ~before).sum())
        assert row["accuracy"] == after.mean() and row["loss_pp"] == pytest.approx(100 * (before.mean() - after.mean()))


# --- searches ---------------------------------------------------------------------------------------------------------------------

RUN = [4, 2, 1.0, 3.0]


def test_a_run_has_a_name_and_settings():
    assert assignment_searches.name([40, 20, 1.0, 3.0]) == "40x20"
    assert assignment_searches.settings([40, 20, 0.5, 30]) == {
        "population": 40, "crossover_probability": 0.5, "mutation": 0.5, "eta": 30.0,
    }  # fmt: skip


def test_searches_are_held_against_all_assignments(subject, measured):
    known, usable = truth.Truth(measured), (10.0, 0.1)
    played = assignment_searches.against_truth(subject, known, [RUN, [4, 3, 1.0, 3.0]], [1, 2], usable)
    arms = [("nsga2", "power"), ("nsga2", "alphabetical"), ("categorical", ""), ("random", "")]
    expected = [(run, *arm, seed) for run in ("4x2", "4x3") for arm in arms for seed in (1, 2)]
    assert list(played[["run", "search", "order", "seed"]].itertuples(index=False, name=None)) == expected
    assert played["evaluations"].tolist() == [8] * 8 + [12] * 8 and (played["network"] == "lenet5_fashion").all()
    assert "batch" not in played
    assert played["hypervolume_ratio"].between(0, 1).all() and (played["usable"] <= played["distinct"]).all()
    least = float(subject.chooser.baseline()[0]) - 0.1, 1 / 0.9
    first = truth.compare(known, subject.space("power"), "nsga2", assignment_searches.settings(RUN), 8, [1], least)
    pd.testing.assert_frame_equal(played.loc[:0, list(first)], first, check_dtype=False)  # random search has no population
    everything = truth.compare(known, subject.space(), "random", {}, 3000, [1], least)
    enough = (measured["validation_loss_pp"] <= 10) & (measured["energy"] <= 0.9)
    assert everything["usable"].item() == enough.sum() > 0


def test_every_combination_of_settings_is_searched_in_both_orders(subject, measured):
    values = {"population": [4, 6], "eta": [3.0], "mutation": [0.2, 0.5]}
    table = assignment_searches.every_setting(subject, truth.Truth(measured), values, 12, [1, 2], (10.0, 0.1))
    combinations = list(itertools.product(["power", "alphabetical"], [4, 6], [3.0], [0.2, 0.5], [1, 2]))
    assert list(table[["order", *values, "seed"]].itertuples(index=False, name=None)) == combinations
    assert (table["evaluations"] == 12).all() and (table["network"] == "lenet5_fashion").all()


def test_searches_without_a_truth_are_recorded_and_read(subject, tmp_path, monkeypatch):
    def searched():
        runner = Runner(tmp_path, workers=1, threads=1, progress=False)
        return assignment_searches.searched(subject, runner, [RUN], 1, 40)

    records = searched()
    assert len(records) == 8 and (records["run_name"] == "4x2").all()
    plans = np.stack(records["plan"])
    assert records["energy"].tolist() == pytest.approx((1 / records["energy_rate"]).tolist())
    # The runner calibrates on images of its own data set, as the subject does.
    assert records["energy"].tolist() == pytest.approx(subject.method.energy(plans).tolist())
    assert {tuple(plan) for plan in plans} <= set(map(tuple, space.full(3, [1, 2, 3, 4]).decode(np.array(EVERY) - 1).tolist()))
    assert (records["validation_loss_pp"] * 40 / 100).tolist() == pytest.approx(
        (records["validation_loss_pp"] * 40 / 100).round().tolist()
    )
    monkeypatch.setattr(Evaluator, "measure", None)
    assert searched().equals(records)
