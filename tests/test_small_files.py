"""Tables of small files: what becomes of one network at prices and under plans, and the files that it is held against."""

import json

import numpy as np
import pandas as pd
import pytest

from weightlab import analysis, figures, packing, paths, storage
from weightlab.tuning import rate_distortion
from weightlab.tuning.rate_distortion import subject


@pytest.fixture(scope="module")
def lenet():
    return rate_distortion.Subject("lenet5_tanh", images=100, calibration_images=80, threads=1)


def test_a_subject_measures_the_file_of_each_price(lenet):
    table = lenet.at_prices(1, [0.02, 0.2], draw=3)
    assert table["price"].tolist() == [0.02, 0.2] and set(subject.MEASURES) <= set(table)
    assert (table[["network", "level", "draw", "steps", "trained_numbers"]] == ["lenet5_tanh", 1, 3, 0, 0]).all(axis=None)
    found = rate_distortion.compress(lenet.model, lenet.train.images, price=0.2, seed=3)
    size = len(packing.pack_compressed(lenet.model, found.compressed, version=2))
    assert table["file_bytes"].iloc[1] == size and table["bits_per_weight"].iloc[1] == 8 * size / 61470
    assert table["file_bytes"].iloc[0] > 1.5 * size and table["coded_rate"].iloc[0] < table["coded_rate"].iloc[1]
    assert (np.isclose(table["test_loss_pp"] % 1, 0) | np.isclose(table["test_loss_pp"] % 1, 1)).all()  # of 100 images
    for level in (0, 2):
        assert len(lenet.at_prices(level, [0.1], draw=1, steps=2)) == 1


def test_the_numbers_that_level_2_trains_are_few_and_none_where_it_takes_no_step(lenet):
    untrained, trained = (lenet.at_prices(2, [0.05], 1, steps).iloc[0] for steps in (0, 3))
    biases = sum(value.numel() for value in lenet.model.parameters() if value.dim() == 1)
    assert 2 * lenet.layers <= trained["trained_numbers"] - biases < 100 and (untrained["steps"], trained["steps"]) == (0, 3)
    assert abs(untrained["file_bytes"] - trained["file_bytes"]) < 60


def test_the_smallest_file_of_a_subject_keeps_the_loss(lenet):
    row = lenet.smallest(1, 5.0, draw=2).iloc[0]
    assert row["validation_loss_pp"] < 5 and row["prices"] > 2 and row["file_bytes"] < 7000
    at_its_price = lenet.at_prices(1, [row["price"]], draw=2).iloc[0]
    assert at_its_price["file_bytes"] == row["file_bytes"]


def test_plans_become_files_of_version_2_and_plans_of_other_networks_are_left_out(lenet):
    rows = [("float16", "exact", [3, 5, 3, 2, 2], "a"), ("float32", "kmeans", [2] * 5, "b"), ("float32", "exact", [2] * 53, "c")]
    table = lenet.under_plans(pd.DataFrame(rows, columns=["format", "method", "plan", "source"]))
    assert table["source"].tolist() == ["a", "b"] and (table["file_bytes"] < 15_000).all()
    assert table["coded_rate"].between(15, 35).all() and table["test_loss_pp"].notna().all()
    nothing = lenet.under_plans(pd.DataFrame(rows[2:], columns=["format", "method", "plan", "source"]))
    assert nothing.empty and set(subject.MEASURES) <= set(nothing)


def test_plans_of_the_thesis_are_each_listed_once():
    plans = analysis.plans_of_thesis()
    lenets = plans[plans["network"].isin(["lenet5_tanh", "lenet5_relu"])]
    assert set(lenets["plan"].map(len)) == {5} and set(lenets["format"]) == {"float32", "float16", "float8_thesis"}
    assert not plans.assign(plan=plans["plan"].map(str)).duplicated(["network", "format", "plan"]).any()
    best = lenets[(lenets["network"] == "lenet5_tanh") & (lenets["format"] == "float8_thesis")]
    assert best["plan"].iloc[0] == [3, 35, 3, 2, 2]  # of table 5.9
    assert plans.set_index("network").loc["mobilenet_v2_fashion", "plan"][:2] == [98, 95]


def records(*rows):
    return pd.DataFrame(rows, columns=["network", "format", "method", "plan", "storage_rate", "validation_loss_pp"])


def test_searched_plans_are_the_front_of_all_that_notebooks_left(tmp_path):
    assert analysis.searched_plans(tmp_path, ["a"]).empty
    first = records(
        ("a", "float32", "gmm", [2, 3], 8.0, 0.5),
        ("a", "float32", "gmm", [2, 2], 12.0, 3.5),
        ("b", "float32", "exact", [4, 4], 5.0, 0.0),
    )
    second = records(
        ("a", "float16", None, [2, 4], 9.0, 0.4),
        ("a", "float16", None, [3, 3], 10.0, 1.5),
        ("a", "float16", None, None, np.nan, np.nan),
    )
    given = records(("a", "float32", "exact", [1, 1], 99.0, 0.0))
    for folder, name, table in (
        ("06_x", "records", first),
        ("07_y", "plans", second),
        ("11_z", "records", given),
        ("02_w", "best", given),
    ):
        storage.write_table(table, tmp_path / folder, name)
    (tmp_path / "11_z" / "run.json").write_text(json.dumps({"parameters": {"records": "points.csv"}}))
    found = analysis.searched_plans(tmp_path, ["a"])
    assert [list(plan) for plan in found["plan"]] == [[2, 4], [3, 3]] and (found["source"] == "07_y").all()
    assert (found["method"] == "exact").all() and (found["of"] == 4).all()


def programs(*rows):
    return pd.DataFrame(rows, columns=["program", "network", "file_bytes", "validation_loss_pp", "test_loss_pp"])


def test_sizes_of_programs_are_read_where_they_were_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "published", lambda: tmp_path)
    assert analysis.sizes_of_programs(["lenet5_tanh"]).empty
    text = "network,search,bytes,loss_val_pp,loss_test_pp,version\nlenet5_tanh,single,6600,0.9,0.8,2.1.3\nlenet5_relu,single,7000,0.5,0.5,2.1.3\n"
    (tmp_path / "nncodec_sizes.csv").write_text(text)
    expected = programs(("nncodec", "lenet5_tanh", 6600, 0.9, 0.8))
    pd.testing.assert_frame_equal(analysis.sizes_of_programs(["lenet5_tanh"]), expected, check_dtype=False)


def smallest():
    columns = ["network", "level", "draw", "file_bytes", "bits_per_weight", "coded_rate", "validation_loss_pp", "test_loss_pp"]
    rows = [
        ("a", 0, 1, 8000, 1.0, 33.0, 0.5, 0.4),
        ("a", 0, 2, 9000, 1.1, 30.0, 0.7, 0.6),
        ("b", 1, 1, 4000, 0.5, 60.0, 0.9, 1.2),
    ]
    return pd.DataFrame(rows, columns=columns)


def test_smallest_files_stand_beside_the_smallest_of_other_ways():
    plans = pd.DataFrame({"network": ["a", "a", "b"], "file_bytes": [17000, 12000, 9000], "validation_loss_pp": [0.9, 1.0, 1.1]})
    others = programs(("nncodec", "a", 4250, 0.2, 0.1), ("nncodec", "a", 4000, 1.2, 1.1), ("coremltools", "b", 8000, 0.9, 1.0))
    table = analysis.beside_others(smallest(), plans, others, 1.0).set_index("network")
    assert table["draws"].tolist() == [2, 1] and table["file_bytes"].tolist() == [8500, 4000]
    assert table["file_bytes_sd"].iloc[0] == pytest.approx(707.1, abs=0.1) and np.isnan(table["file_bytes_sd"].iloc[1])
    factors = table[["plan_factor", "nncodec_factor", "coremltools_factor"]]
    np.testing.assert_allclose(factors, [[2.0, 0.5, np.nan], [np.nan, np.nan, 2.0]])
    assert analysis.smallest_file(plans, 0.5) is None


def test_gains_are_against_the_same_draw_and_price_without_training():
    columns = [
        "network",
        "level",
        "price",
        "draw",
        "steps",
        "file_bytes",
        "trained_numbers",
        "validation_loss_pp",
        "test_loss_pp",
    ]
    rows = [("a", 1, 0.1, 1, 0, 99, 0, 9.0, 9.0), ("a", 2, 0.1, 1, 0, 100, 20, 2.0, 1.0), ("a", 2, 0.1, 2, 0, 110, 20, 3.0, 4.0)]
    rows += [("a", 2, 0.1, 1, 50, 103, 21, 1.5, 1.25), ("a", 2, 0.1, 2, 50, 108, 22, 1.0, 3.0)]
    gains = analysis.gains_of_training(pd.DataFrame(rows, columns=columns))
    assert gains["validation_gain_pp"].tolist() == [0.5, 2.0] and gains["test_gain_pp"].tolist() == [-0.25, 1.0]
    assert gains["more_bytes"].tolist() == [3, -2] and gains["trained_numbers"].tolist() == [21, 22]
    assert gains["test_before_pp"].tolist() == [1.0, 4.0] and gains["validation_after_pp"].tolist() == [1.5, 1.0]


def test_the_picture_names_each_way_that_has_files():
    curve = smallest().assign(price=[0.1, 0.1, 0.1])
    plans = pd.DataFrame({"network": ["a", "a"], "file_bytes": [17000, 12000], "test_loss_pp": [0.9, 1.0], "of": [None, 40]})
    others = programs(("nncodec", "a", 4250, 0.2, 0.1), ("nncodec", "a", 5000, 0.3, 0.1), ("coremltools", "b", 8000, 0.9, 1.0))
    figure = figures.loss_by_bytes(curve, plans, others)
    named = [
        "level 0 (no data)",
        "plans of the thesis",
        "front of searched plans",
        "nncodec",
        "level 1 (unlabelled images)",
        "coremltools",
    ]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == named
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert lines["nncodec"].get_xdata().tolist() == [4250]  # the other file is larger and loses more
