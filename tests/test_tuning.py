"""Fine-tuning of a plan: the greedy grid and the swarm over focus, against the simple path through a shared copy on MNIST."""

import json

import numpy as np
import pandas as pd
import pytest

from weightlab import analysis, data, models, paths, sharing, training, tuning
from weightlab.compression import contract
from weightlab.compression.contract import Method
from weightlab.compression.sharing import clustering
from weightlab.compression.sharing.clustering import K_MAX, Lift
from weightlab.compression.sharing.codebooks import Codebooks
from weightlab.compression.sharing.lifts import Lifted
from weightlab.errors import UserError
from weightlab.evaluation import Evaluator
from weightlab.runs import loop

IMAGES = 200
PLAN = [2, 3, 3, 3, 3]  # on which several layers gain by another focus, and some focus values tie
FOCUSES = [0.0, 1.4, 4.8, 9.8]
NAMES = ["feature_extractor.0", "feature_extractor.3", "feature_extractor.6", "classifier.0", "classifier.2"]
RATES = ["storage_rate", "layer_mean_rate", "thesis_model_rate"]


@pytest.fixture(scope="module")
def lenet5():
    return models.load("lenet5_tanh")


@pytest.fixture(scope="module")
def splits():
    return [data.load("mnist", name).first(IMAGES) for name in ("validation", "test")]


@pytest.fixture(scope="module")
def evaluator(lenet5, splits):
    return Evaluator(lenet5, Codebooks(lenet5, format="float16", ks=()), splits, device="cpu", threads=1)


@pytest.fixture(scope="module")
def grid(evaluator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    return tuning.focus_grid(evaluator, PLAN, folder, focuses=FOCUSES, progress=False)


def plainly(model, plan, focuses, spread, split):
    """Accuracy by the simple path: a shared copy of the network, a plain forward pass."""
    lifts = {name: Lift(focus, spread) for name, focus in zip(NAMES, focuses, strict=True)}
    return training.accuracy(sharing.share(model, plan, "float16", lifts=lifts)[0], split, "cpu", threads=1)


# --- measuring ------------------------------------------------------------------------------------------------------------------


def test_random_focus_vectors_measure_as_shared_copies_do(lenet5, splits, evaluator):
    focuses = np.random.default_rng(5).uniform(0, 9.8, (6, 5)).round(2)
    table = tuning.measure(evaluator, PLAN, focuses, spread=1.5)
    for name, split in zip(("validation", "test"), splits, strict=True):
        assert table[f"{name}_accuracy"].tolist() == [plainly(lenet5, PLAN, row, 1.5, split) for row in focuses]
    assert table["validation_accuracy"].nunique() > 1


@pytest.mark.parametrize(("focuses", "spread"), [([0] * 5, 2.0), ([9.8, 3.0, 1.0, 5.0, 0.2], 0.0)])
def test_focus_0_and_spread_0_are_no_lifting(evaluator, focuses, spread):
    pd.testing.assert_frame_equal(tuning.measure(evaluator, PLAN, focuses, spread), evaluator.measure([PLAN]))


def test_lifting_leaves_every_rate_as_it_was(evaluator, grid):
    before = evaluator.measure([PLAN])[RATES].iloc[0]
    assert (grid[RATES] == before).all().all()
    assert (grid.groupby("layer")["weight_delta"].nunique() > 1).all()  # though the codebooks did change


def test_lifted_codebooks_are_variants_numbered_as_they_are_asked_for(lenet5, evaluator, tmp_path):
    books = Codebooks(lenet5, ks=())
    lifted = Lifted(books)
    assert isinstance(lifted, Method)
    pairs = [(3, Lift(2.0)), (4, Lift(2.0)), (3, Lift(5.0)), (3, Lift(2.0)), (3, Lift(0.0)), (3, Lift(5.0, spread=0.0))]
    numbers = [lifted.variant(k, lift) for k, lift in pairs]
    assert numbers == [1, 2, 3, 1, 4, 4] and lifted.count(0) == 4
    rates = contract.rates(lifted, np.array([numbers[:5]]))
    assert all((rate == books.rates(np.array([[3, 4, 3, 3, 3]]))[name]).all() for name, rate in rates.items())
    for group, (k, lift) in enumerate(pairs[:5]):
        book = clustering.cluster(books.original(group), k, lift=lift)
        np.testing.assert_array_equal(lifted.get(group, numbers[group]).values(), book.values())
        np.testing.assert_array_equal(lifted.weight(group, numbers[group]).numpy().ravel(), book.values())
    with pytest.raises(UserError, match=f"from 1 to {K_MAX}, got {K_MAX + 1}"):
        lifted.variant(K_MAX + 1, Lift(2.0))
    tuning.measure(evaluator, PLAN, np.ones((1, 5)))
    with pytest.raises(UserError, match=f"from 1 to {K_MAX}, got {K_MAX + 1}"):  # also after tuning
        evaluator.correct([[K_MAX + 1, 3, 3, 3, 3]])


def test_an_evaluator_for_other_variants_knows_nothing_of_the_first(lenet5, evaluator, splits):
    other = Codebooks(lenet5, method="kmeans", ks=())
    first, second = evaluator.correct([PLAN]), evaluator.under(other)
    expected = Evaluator(lenet5, other, splits, device="cpu", threads=1)
    np.testing.assert_array_equal(second.correct([PLAN]), expected.correct([PLAN]))
    np.testing.assert_array_equal(evaluator.correct([PLAN]), first)
    assert evaluator.describe() != second.describe() == expected.describe()
    with pytest.raises(UserError, match=r"variants must have the layers feature_extractor\.0"):
        evaluator.under(Codebooks(models.load("mobilenet_v2_fashion"), ks=()))


def test_a_whole_net_plan_is_lifted_as_one_group(lenet5, splits, tmp_path):
    evaluator = Evaluator(lenet5, Codebooks(lenet5, ks=(), whole_net=True), splits, device="cpu", threads=1)
    grid = tuning.focus_grid(evaluator, [6], tmp_path, focuses=FOCUSES, progress=False)
    shared = [sharing.share(lenet5, 6, lifts={sharing.WHOLE_NET: Lift(focus)})[0] for focus in FOCUSES]
    assert grid["test_accuracy"].tolist() == [training.accuracy(model, splits[1], "cpu", threads=1) for model in shared]


# --- the grid -------------------------------------------------------------------------------------------------------------------


def test_the_grid_is_the_greedy_procedure(lenet5, splits, grid):
    """Section 5.5, step by step: strictly better replaces, so the first of equals stays."""
    focuses = [0.0] * 5
    for layer in range(5):
        rows = grid[grid["layer"] == layer]
        highest, kept = -1.0, None
        for row in rows.itertuples():
            focuses[layer] = row.focus
            assert row.validation_accuracy == plainly(lenet5, PLAN, focuses, 2.0, splits[0])
            if row.validation_accuracy > highest:
                highest, kept = row.validation_accuracy, row.focus
        focuses[layer] = kept
        assert rows["focus"].tolist() == FOCUSES and (rows["k"] == PLAN[layer]).all() and (rows["name"] == NAMES[layer]).all()
        assert rows.loc[rows["chosen"], "focus"].tolist() == [kept]
    assert tuning.chosen(grid).tolist() == focuses and sum(focus > 0 for focus in focuses) > 1


@pytest.mark.parametrize("chooser", ["validation", "test"])
def test_a_tuned_plan_is_never_worse_on_the_split_that_chose(evaluator, tmp_path, chooser):
    for plan in (PLAN, [2, 2, 2, 2, 2], [3, 3, 8, 2, 2]):
        grid = tuning.focus_grid(evaluator, plan, tmp_path, focuses=FOCUSES, chooser=chooser, progress=False)
        before, after = tuning.measure(evaluator, plan, [[0] * 5, tuning.chosen(grid)])[f"{chooser}_accuracy"]
        assert after >= before
        course = grid.loc[grid["chosen"], f"{chooser}_accuracy"]
        assert course.is_monotonic_increasing and course.iloc[-1] == after


def test_tuning_tells_before_and_after_on_every_split(lenet5, evaluator, grid, tmp_path):
    train = data.load("mnist", "train").first(IMAGES)
    plans = {("tanh", "float16"): (evaluator, PLAN), ("tanh", "again"): (evaluator, [3, 3, 8, 2, 2])}
    arguments = {"focuses": FOCUSES, "chooser": "test", "progress": False}
    table = tuning.for_plans(
        plans, ["network", "format"], lambda *plan: [tuning.tune(*plan, tmp_path, lenet5, [train], **arguments)], progress=False
    )
    assert table[["network", "format"]].to_numpy().tolist() == [list(key) for key in plans]
    row = table.iloc[0]
    assert row["plan"] == PLAN and row["loss_pp_after"] == row["test_loss_pp_after"] <= row["loss_pp_before"]
    for when, focuses in (("before", [0] * 5), ("after", row["focuses"])):
        assert row[f"train_accuracy_{when}"] == plainly(lenet5, PLAN, focuses, 2.0, train)
        assert row[f"validation_accuracy_{when}"] == tuning.measure(evaluator, PLAN, focuses)["validation_accuracy"][0]


def test_predictors_are_what_they_say(lenet5, grid):
    row = grid[(grid["layer"] == 1) & (grid["focus"] == 4.8)].iloc[0]
    w = models.weight(lenet5, NAMES[1]).detach().numpy().ravel().astype(float)
    stored = models.weight(sharing.share(lenet5, PLAN, "float16", lifts={NAMES[1]: Lift(4.8, 2.0)})[0], NAMES[1])
    stored = stored.detach().numpy().ravel().astype(float)
    assert row["weight_delta"] == pytest.approx(np.abs(w - stored).sum(), rel=1e-12)
    y = 2.0 * (w.max() - w.min()) * np.tanh(4.8 * (w - w.mean()))  # equation 3.1
    inertia = 0.0
    for value in np.unique(stored):
        for coordinate in (w[stored == value], y[stored == value]):
            inertia += ((coordinate - coordinate.mean()) ** 2).sum()
    assert row["inertia"] == pytest.approx(inertia, rel=1e-9)


def test_an_interrupted_grid_goes_on_where_it_was_and_a_repeated_one_costs_nothing(lenet5, splits, grid, tmp_path, monkeypatch):
    fresh = Evaluator(lenet5, Codebooks(lenet5, format="float16", ks=()), splits, device="cpu", threads=1)
    real, asked = Evaluator.measure, []

    def breaking(self, plans):
        asked.append(len(plans))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return real(self, plans)

    monkeypatch.setattr(Evaluator, "measure", breaking)
    arguments = {"focuses": FOCUSES[::-1], "progress": False}  # their order does not matter
    with pytest.raises(KeyboardInterrupt):
        tuning.focus_grid(fresh, PLAN, tmp_path, **arguments)
    resumed = tuning.focus_grid(fresh, PLAN, tmp_path, **arguments)
    assert asked == [4] * 6  # two layers, the broken one, the three that were left
    pd.testing.assert_frame_equal(resumed, grid)
    pd.testing.assert_frame_equal(tuning.focus_grid(fresh, PLAN, tmp_path, **arguments), grid)
    assert len(asked) == 6 and len(list(tmp_path.glob("*.parquet"))) == 1


def test_other_plans_spreads_splits_and_images_are_kept_apart(lenet5, splits, evaluator, tmp_path):
    fewer = Evaluator(lenet5, evaluator.variants, [split.first(50) for split in splits], device="cpu", threads=1)
    for each, plan, spread, chooser in (
        (evaluator, PLAN, 2.0, "validation"),
        (evaluator, [3, 4, 3, 2, 3], 2.0, "validation"),
        (evaluator, PLAN, 1.0, "validation"),
        (evaluator, PLAN, 2.0, "test"),
        (fewer, PLAN, 2.0, "validation"),
    ):
        before = len(list(tmp_path.glob("*.parquet")))
        tuning.focus_grid(each, plan, tmp_path, spread, [0, 5], chooser, progress=False)
        assert len(list(tmp_path.glob("*.parquet"))) == before + 1


def test_one_by_one_lifts_a_single_layer(evaluator, tmp_path):
    table = tuning.one_by_one(evaluator, PLAN, tmp_path, spreads=[1, 2], focuses=[0, 3])
    assert len(table) == 5 * 2 * 2 and (table.groupby("layer").size() == 4).all()
    for row in table.itertuples():
        focuses = np.where(np.arange(5) == row.layer, row.focus, 0)
        assert row.test_accuracy == tuning.measure(evaluator, PLAN, focuses, row.spread)["test_accuracy"].iloc[0]
    pd.testing.assert_frame_equal(table, tuning.one_by_one(evaluator, PLAN, tmp_path, spreads=[1, 2], focuses=[0, 3]))


def test_clustered_points_are_those_that_are_clustered(lenet5):
    books = Codebooks(lenet5, ks=())
    table = tuning.clustered_points(books, 2, 5, [7.0, 0.0], spread=1.5)
    w = books.original(2)
    for focus, points in table.groupby("focus"):
        assert (points["weight"] == w).all() and points["cluster"].nunique() == 5
        expected = 1.5 * (w.max() - w.min()) * np.tanh(focus * (w - w.mean(dtype=float)))
        np.testing.assert_allclose(points["lifted"], expected, atol=1e-6)
        centroids = clustering.cluster(w, 5, lift=Lift(focus, 1.5)).centroids
        np.testing.assert_allclose(points.groupby("cluster")["weight"].mean(), centroids, rtol=1e-6)


# --- the swarm ------------------------------------------------------------------------------------------------------------------

SMALL = {"focuses": FOCUSES, "particles": 5, "progress": False}  # 20 evaluations


def test_the_swarm_stays_in_its_box_and_records_what_copies_measure(lenet5, splits, evaluator, tmp_path):
    records = tuning.swarm(evaluator, PLAN, tmp_path, spread=1.0, chooser="test", seed=3, **SMALL | {"focuses": [0, 2, 4, 6]})
    focuses = np.stack(records["focuses"])
    assert focuses.shape == (20, 5) and focuses.min() >= 0 and focuses.max() <= 6 and (focuses.round(2) == focuses).all()
    assert records["accuracy"].tolist() == [plainly(lenet5, PLAN, row, 1.0, splits[1]) for row in focuses]
    assert records["fitness"].rank().equals(records["accuracy"].rank())  # so that the search is led by accuracy alone


def test_same_seed_same_swarm_and_another_seed_another(evaluator, tmp_path):
    first, again, other = (
        tuning.swarm(evaluator, PLAN, tmp_path / str(number), seed=seed, **SMALL) for number, seed in enumerate((1, 1, 2))
    )
    pd.testing.assert_frame_equal(first, again)
    assert np.stack(first["focuses"]).tolist() != np.stack(other["focuses"]).tolist()


def test_an_interrupted_swarm_ends_as_an_undisturbed_one(evaluator, tmp_path, monkeypatch):
    whole = tuning.swarm(evaluator, PLAN, tmp_path / "whole", **SMALL)
    seconds = iter(range(1000))
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(seconds))  # a checkpoint after every generation
    real, calls = Evaluator.measure, []

    def breaking(self, plans):
        calls.append(len(plans))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, plans)

    monkeypatch.setattr(Evaluator, "measure", breaking)
    with pytest.raises(KeyboardInterrupt):
        tuning.swarm(evaluator, PLAN, tmp_path / "broken", **SMALL)
    resumed = tuning.swarm(evaluator, PLAN, tmp_path / "broken", **SMALL)
    assert calls == [1, 4, 5, 1, 4, 5, 5]  # four generations, one of them twice; each call measures its first plan by itself
    pd.testing.assert_frame_equal(resumed, whole)
    tuning.swarm(evaluator, PLAN, tmp_path / "broken", **SMALL)
    assert len(calls) == 7


def test_the_published_grid_has_250_evaluations():
    assert 5 * len(tuning.FOCUSES) == 250 and (np.array(tuning.FOCUSES) == np.arange(0, 10, 0.2).round(1)).all()


# --- what is refused ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"plan": [3, 3]}, "a plan needs 5 numbers"),
        ({"plan": [3, 0, 3, 2, 2]}, r"feature_extractor.3 takes a whole number from 1 to \d+, got 0"),
        ({"spread": -1}, "spread must be a finite number of at least 0, got -1"),
        ({"spread": float("nan")}, "spread must be a finite number"),
        ({"focuses": [1, 2]}, r"hold 0, so that tuning cannot make a plan worse, got \[1, 2\]"),
        ({"focuses": [0, float("inf")]}, "must be finite"),
        ({"chooser": "train"}, "unknown split 'train'; allowed: validation, test"),
    ],
)
def test_wrong_input_is_refused_before_work(evaluator, tmp_path, arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        tuning.focus_grid(evaluator, **{"plan": PLAN, "folder": tmp_path, "progress": False} | arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"focuses": [0]}, "a finite number above 0"),
        ({"focuses": [1, 2]}, "hold 0"),
        ({"particels": 5}, "unknown setting of particle_swarm 'particels'"),
        ({"focuses": [0, 9]}, "a budget of 10 evaluations is too small for the first generation of 20"),
        ({"chooser": "train"}, "unknown split 'train'"),
    ],
)
def test_a_wrong_swarm_is_refused(evaluator, tmp_path, arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        tuning.swarm(evaluator, PLAN, tmp_path, progress=False, **{"particles": 20} | arguments)


def test_focus_vectors_of_a_wrong_length_are_refused(evaluator):
    with pytest.raises(UserError, match="a plan of 5 numbers needs as many focus values, got 4"):
        tuning.measure(evaluator, PLAN, [1, 2, 3, 4])


def test_a_damaged_table_is_told_and_made_again(evaluator, tmp_path):
    whole = tuning.focus_grid(evaluator, PLAN, tmp_path, focuses=[0], progress=False)
    (file,) = tmp_path.glob("*.parquet")
    content = file.read_bytes()
    file.write_bytes(b"not a table")
    with pytest.warns(UserWarning, match=f"{file.name} is damaged .*; it is made again"):
        again = tuning.focus_grid(evaluator, PLAN, tmp_path, focuses=[0], progress=False)
    pd.testing.assert_frame_equal(again, whole)
    assert file.read_bytes() == content


def test_an_unwritable_folder_is_said_in_one_sentence(evaluator, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        tuning.focus_grid(evaluator, PLAN, file / "below", progress=False)


# --- what is asked of the tables ------------------------------------------------------------------------------------------------


def test_correlations_are_pearsons(grid):
    table = analysis.correlations(grid.assign(plan="one"), ["plan", "layer"], ["weight_delta"], "validation_accuracy")
    assert table["layer"].tolist() == list(range(5)) and (table["n"] == len(FOCUSES)).all()
    rows = grid[grid["layer"] == 2]
    x, y = rows["weight_delta"], rows["validation_accuracy"]
    r = ((x - x.mean()) * (y - y.mean())).sum() / np.sqrt(((x - x.mean()) ** 2).sum() * ((y - y.mean()) ** 2).sum())
    assert table["weight_delta"][2] == pytest.approx(r) and 0 < table["weight_delta_p"][2] < 1


def test_a_constant_accuracy_has_no_correlation():
    table = pd.DataFrame({"layer": 0, "guess": [1.0, 2.0, 3.0], "accuracy": 0.9})
    row = analysis.correlations(table, ["layer"], ["guess"], "accuracy").iloc[0]
    assert np.isnan(row["guess"]) and np.isnan(row["guess_p"])
    with pytest.raises(UserError, match="unknown column 'accurcy'"):
        analysis.correlations(table, ["layer"], ["guess"], "accurcy")


def test_gains_of_guesses_are_read_at_the_least_guess(grid):
    found = analysis.gains_of_guesses(grid, ["spread", "layer"], ["inertia", "weight_delta"], "validation_accuracy")
    for layer, row in found.set_index("layer").iterrows():
        course = grid[grid["layer"] == layer].set_index("focus")
        for guess in ("inertia", "weight_delta"):
            least = min(FOCUSES, key=lambda focus, guess=guess, course=course: course.at[focus, guess])
            expected = 100 * (course.at[least, "validation_accuracy"] - course.at[0.0, "validation_accuracy"])
            assert row[guess] == pytest.approx(expected)
        assert row["measuring"] == pytest.approx(100 * (course["validation_accuracy"].max() - course["validation_accuracy"][0.0]))
    assert found["measuring"].gt(0).any()


def test_influence_is_a_two_way_analysis_of_variance():
    """Sums of squares written out: of the means of each level, and of what both leave."""
    noise = np.random.default_rng(2)
    focus, spread = (axis.ravel() for axis in np.meshgrid(np.arange(10), [0.5, 1, 2, 4], indexing="ij"))
    value = np.sin(focus) + 0.1 * spread + noise.normal(0, 0.1, 40)
    table = pd.DataFrame({"layer": 3, "focus": focus, "spread": spread, "value": value})
    found = analysis.influence(table, ["layer"], ["focus", "spread"], "value").set_index("factor")
    squares = {name: ((table.groupby(name)["value"].transform("mean") - value.mean()) ** 2).sum() for name in ("focus", "spread")}
    total = ((value - value.mean()) ** 2).sum()
    error = (total - sum(squares.values())) / 27
    for name, df in (("focus", 9), ("spread", 3)):
        assert found.loc[name, "df"] == df and found.loc[name, "f"] == pytest.approx(squares[name] / df / error)
        assert found.loc[name, "omega_squared"] == pytest.approx((squares[name] - df * error) / (total + error))
    assert found.loc["focus", "omega_squared"] > 0.8
    constant = analysis.influence(table.assign(value=1.0), ["layer"], ["focus", "spread"], "value")
    assert constant["omega_squared"].isna().all() and constant["df"].tolist() == [9, 3]


def test_published_correlations_and_plans_are_those_of_the_thesis():
    """Figure 5.12 gives ten correlations; the layer-mean rates of table B.1 follow from its plans."""
    assert len(pd.read_csv(paths.published() / "notebook_finetuning_correlations.csv")) == 5
    books = {name: Codebooks(models.build(name), ks=()) for name in ("lenet5_tanh", "lenet5_relu")}
    for row in analysis.published("table_5_9_and_B_1_fine_tuning").itertuples():
        books[row.network].format = row.format
        rate = books[row.network].rates(np.array(json.loads(row.plan)))["layer_mean_rate"]
        assert float(rate) == pytest.approx(row.layer_mean_rate, abs=1e-4)
