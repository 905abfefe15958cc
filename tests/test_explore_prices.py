"""The explorer's slider for the price of a bit: what its numbers are, what it shows meanwhile, and what is drawn and written."""

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from weightlab import data, explore, figures, packing, sharing, training
from weightlab.compression.sharing.settings import Sharing
from weightlab.errors import UserError
from weightlab.explore import study as studies
from weightlab.explore.prices import POINTS, Prices
from weightlab.explore.pricing import PricePanel
from weightlab.packing import packed_format
from weightlab.runs.setting import Setting
from weightlab.tuning import rate_distortion
from weightlab.tuning.rate_distortion import calibrated

PLAN, IMAGES = [3, 5], 90
SMALL = f"{__name__}:small"


def small():
    """A network that is compressed in no time."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(54, 10))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Images whose classes are what the small network answers."""
    generator, arrays = np.random.default_rng(1), {}
    for name, n in (("train", 200), ("validation", IMAGES + 9), ("test", IMAGES + 9)):
        images = generator.integers(0, 256, (n, 1, 12, 12), dtype=np.uint8)
        arrays[f"{name}_images"] = images
        arrays[f"{name}_labels"] = small()(torch.from_numpy(images).float() / 255).argmax(1).numpy()
    file = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(file, **arrays)
    return str(file)


@pytest.fixture(scope="module")
def explorer(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("explorer")
    options = {"images": IMAGES, "threads": 1, "k_max": 20}
    return explore.Explorer(
        SMALL, PLAN, dataset=digits, searches_folder=folder / "searches", output_folder=folder / "output", **options
    )


def moved(explorer, price, level=1):
    """Let go of the handle at a price, and see the answer."""
    panel = explorer.pricing
    if (panel.level.index, panel.price.value) == (level, price):  # a handle that stays where it is asks nothing
        panel.price.value = 1.0
    panel.level.value, panel.price.value = panel.level.options[level], price
    explorer.settle()
    return explorer.pricing.points.to_dict("records")[-1]


def read(content):
    return packing.Packed(*packed_format.check(content, limit_bytes=sys.maxsize), content)


# --- numbers --------------------------------------------------------------------------------------------------------------------


def test_numbers_are_those_of_a_network_that_is_compressed_by_itself(explorer, digits):
    """An independent way: `compress` at one price, its file, and a forward pass; in any order and at both levels."""
    study, prices = explorer.study, Prices(explorer.study)
    split, train = data.load(digits, "validation").first(IMAGES), data.load(digits, "train").images
    for level, price in [(1, 0.1), (0, 0.1), (1, 0.01), (1, 0.1)]:
        found = rate_distortion.compress(
            small().eval(), train if level else None, price=price, level=level, example=study.example
        )
        measured, content = prices.measure(level, price), packing.pack_compressed(study.model, found.compressed, version=2)
        told = read(content).summary()
        assert measured["file_bytes"] == len(content)
        assert (measured["coded_rate"], measured["file_rate"]) == (told["coded_rate"], told["file_rate"])
        accuracy = training.accuracy(found.compressed.apply(study.model), split)
        assert measured["validation_accuracy"] == accuracy
        assert measured["validation_loss_pp"] == pytest.approx(100 * (study.original_accuracy - accuracy))
        assert not [name for name in measured.index if "test" in name], "what is answered by a slider is not measured on test"
    points = prices.points
    assert points.columns.tolist() == POINTS
    assert list(zip(points["level"], points["price"], strict=True)) == [(0, 0.1), (1, 0.01), (1, 0.1)], (
        "once each, the latest last"
    )


def test_what_does_not_depend_on_the_price_is_computed_once(explorer, monkeypatch):
    calls, calibrate = [], calibrated.calibrate
    monkeypatch.setattr(calibrated, "calibrate", lambda *arguments: calls.append(1) or calibrate(*arguments))
    prices = Prices(explorer.study)
    sizes = [prices.measure(1, price)["file_bytes"] for price in (0.01, 0.05, 0.2)]
    assert calls == [1] and sizes == sorted(sizes, reverse=True)


def test_where_the_data_have_no_training_images_validation_images_calibrate(explorer, monkeypatch):
    def load(dataset, split):
        raise UserError("there are none")

    monkeypatch.setattr(data, "load", load)
    prices = Prices(explorer.study)
    prices.measure(1, 0.05)
    assert "validation images without their classes" in prices.data_used(1, 0.05)


# --- slider ---------------------------------------------------------------------------------------------------------------------


def test_the_slider_is_logarithmic_and_tells_its_value_when_it_is_let_go(explorer):
    panel = PricePanel(explorer.study, lambda work: work, print, print, Path)
    slider = panel.price
    assert not slider.continuous_update and (slider.base, slider.min, slider.max) == (10, -4, 0)
    assert slider.description == "lambda" and slider.value == rate_distortion.PRICE == 0.01
    assert panel.level.options == ("0 (data-free)", "1 (calibrated)") and panel.level.index == 1
    assert panel.write.disabled and "data-answer" not in panel.priced.value and panel.points.empty


def test_moving_it_answers_and_leaves_the_plan_alone(explorer):
    answers, storage_rate = explorer.answers, explorer.storage_rate.value
    for level, used in enumerate(["Compressed without any image", "training images without their classes"]):
        point, text = moved(explorer, 0.1, level), explorer.pricing.priced.value
        assert f">{point['file_bytes']}</b> bytes" in text and f"coded rate <b>{point['coded_rate']:.2f}" in text
        assert f"file rate <b>{point['file_rate']:.2f}" in text and f"{point['validation_accuracy']:.2%}" in text
        assert f"of {IMAGES} validation images" in text and f"{point['validation_loss_pp']:.2f} pp" in text
        assert f"level {level} ({rate_distortion.LEVELS[level]})" in text and used in text and "no test image" in text
        assert f"lambda <b>{point['price']:.3g}</b>" in text
    assert explorer.answers == answers and explorer.storage_rate.value == storage_rate and explorer.plan == PLAN
    plain = explorer._repr_mimebundle_()["text/html"]
    assert f">{point['file_bytes']}</b> bytes" in plain, "also on a page without a kernel"


def test_it_shows_that_it_is_at_work_and_only_the_latest_place_is_answered(explorer, monkeypatch):
    old, measure, measured, go_on = moved(explorer, 0.1), Prices.measure, [], threading.Event()

    def slow(prices, level, price):
        measured.append(price)
        go_on.wait(10)
        return measure(prices, level, price)

    monkeypatch.setattr(Prices, "measure", slow)
    explorer.pricing.price.value = 0.2
    while not measured:
        time.sleep(0.001)
    text = explorer.pricing.priced.value
    assert "compressing at lambda 0.2, level 1" in text and f">{old['file_bytes']}</b> bytes" in text.split("opacity")[1]
    for price in (0.3, 0.4, 0.5):
        explorer.pricing.price.value = price
    assert "compressing at lambda 0.5" in explorer.pricing.priced.value
    go_on.set()
    explorer.settle()
    assert measured == [0.2, 0.5] and "lambda <b>0.5</b>" in explorer.pricing.priced.value


def test_points_stay_with_another_format_and_go_with_other_images(explorer, monkeypatch):
    moved(explorer, 0.1)
    points = explorer.pricing.points
    explorer.choices["format"].value = "float16"
    explorer.settle()
    assert explorer.pricing.points.equals(points) and "data-answer" in explorer.pricing.priced.value
    measure, measured, go_on = Prices.measure, [], threading.Event()

    def slow(prices, level, price):
        measured.append(price)
        go_on.wait(60)
        return measure(prices, level, price)

    monkeypatch.setattr(Prices, "measure", slow)
    explorer.pricing.price.value = 0.9
    while not measured:
        time.sleep(0.001)
    explorer.pricing.show(explorer.study.changed(images=IMAGES - 1))  # while another one is being compressed
    go_on.set()
    explorer.settle()
    assert explorer.pricing.points.empty and "data-answer" not in explorer.pricing.priced.value
    assert explorer.pricing.write.disabled and not explorer.message.value
    explorer.pricing.show(explorer.study)
    explorer.choices["format"].value = "float32"
    explorer.settle()
    assert explorer.pricing.points.empty and "loss against storage rate" in explorer.plans.value


def test_what_goes_wrong_is_a_sentence_and_the_old_numbers_stay(explorer, monkeypatch):
    point = moved(explorer, 0.1)

    def broken(prices, level, price):
        raise UserError("it cannot be compressed")

    with monkeypatch.context() as patch:
        patch.setattr(Prices, "measure", broken)
        explorer.pricing.price.value = 0.3
        explorer.settle()
    assert "it cannot be compressed" in explorer.message.value and "compressing" not in explorer.pricing.priced.value
    assert f">{point['file_bytes']}</b> bytes" in explorer.pricing.priced.value
    moved(explorer, 0.2)
    assert not explorer.message.value, "the next answer takes it away"


# --- figure and file ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [PLAN, [1, 1], [20, 19]], ids=str)
@pytest.mark.parametrize("format", ["float32", "float16"])
def test_the_coded_rate_of_a_plan_is_that_of_its_file(explorer, plan, format):
    study = explorer.study.changed(format=format)
    content = packing.pack_compressed(study.model, sharing.compressed(study.codebooks, plan), version=2)
    assert study.coded_rates([plan, plan]) == [read(content).summary()["coded_rate"]] * 2


def test_the_coded_rate_of_one_codebook_for_the_whole_net(explorer, digits):
    setting = Setting(SMALL, dataset=digits, images=IMAGES, compression=Sharing(whole_net=True))
    study = studies.Study(setting, explorer.study.folder, threads=1, splits=explorer.study.splits)
    content = packing.pack_compressed(study.model, sharing.compressed(study.codebooks, [9]), version=2)
    assert study.coded_rates([[9]]) == [read(content).summary()["coded_rate"]]


def test_plans_and_prices_are_drawn_at_the_same_rate(explorer, monkeypatch):
    study, drawn, draw = explorer.study, [], figures.plan_among_searched
    explorer.searching.optimizer.value, explorer.searching.budget.value = "random", 20
    explorer.searching.search.click()
    explorer.settle()
    monkeypatch.setattr(figures, "plan_among_searched", lambda *tables: drawn.append(tables) or draw(*tables))
    moved(explorer, 0.07)
    _, here, now, priced, rate = drawn[-1]
    assert rate == "coded_rate" and priced.equals(explorer.pricing.points) and len(here)
    for row, plan in [(now, explorer.plan), *((row, row["plan"]) for _, row in here.iterrows())]:
        content = packing.pack_compressed(study.model, sharing.compressed(study.codebooks, list(plan)), version=2)
        assert row["coded_rate"] == read(content).summary()["coded_rate"]
    assert "loss against coded rate of this plan and of 20 searched plans" in explorer.plans.value
    assert f"and at {len(priced)} prices of a bit" in explorer.plans.value


def test_the_figure_names_its_rate_and_draws_every_point_once():
    plans = pd.DataFrame({"storage_rate": [8.0, 9.0, 9.5], "coded_rate": [10.0, 11, 12], "validation_loss_pp": [0.1, 0.4, 7.0]})
    priced = pd.DataFrame(
        {
            "level": [1, 1, 0, 1],
            "price": [0.1, 0.01, 0.1, 0.05],
            "coded_rate": [50.0, 20, 25, 40],
            "validation_loss_pp": [1.4, 0, 0.2, 0.6],
        }
    )
    plain = figures.plan_among_searched(plans, plans[:0], plans.iloc[0]).axes[0]
    assert plain.get_xlabel() == "storage rate"
    ax = figures.plan_among_searched(plans, plans[:0], plans.iloc[0], priced, "coded_rate").axes[0]
    assert ax.get_xlabel() == "coded rate (labels as coded in a file)" and ax.get_xlim()[1] > 50
    drawn = {line.get_label(): line for line in ax.lines}
    assert drawn["lambda, level 1"].get_xdata().tolist() == [20, 40, 50], "in the order of prices"
    assert drawn["lambda, level 0"].get_xdata().tolist() == [25] and drawn["this plan"].get_xdata() == [10]
    assert drawn["this lambda, 0.05"].get_xydata().tolist() == [[40, 0.6]], "the last row is the latest"
    assert drawn["searched earlier"].get_xdata().tolist() == [10, 11], "what loses more than 5 pp is left out"
    assert ax.get_ylim() == (-0.5, 5)
    priced.loc[4] = [0, 1.0, 90, 60]
    ax = figures.plan_among_searched(plans, plans[:0], plans.iloc[0], priced, "coded_rate").axes[0]
    assert ax.get_ylim()[1] > 60 and ax.get_xlim()[1] > 90, "but for the latest"


def test_the_file_says_what_was_measured_and_reads_back(explorer, digits, monkeypatch):
    moved(explorer, 0.03)
    point = moved(explorer, 0.1)
    explorer.pricing.write.click()
    explorer.settle()
    file = explorer.output_folder / f"{SMALL.replace(':', '.')}-level1-lambda0.1.weightlab"
    packed, text = packing.read(file), explorer.pricing.written.value
    again = packed.load(small())
    assert packed.details.method == "rate-distortion sharing, level 1 (calibrated)" and packed.details.network == SMALL
    assert [stated.split for stated in packed.details.accuracy] == ["validation", "test"]
    for stated in packed.details.accuracy:
        assert stated.packed == training.accuracy(again, data.load(digits, stated.split).first(IMAGES))
        assert f"{stated.split} {stated.packed:.2%}" in text
    assert packed.details.accuracy[0].packed == point["validation_accuracy"]
    assert f"{file}" in text and f"{len(packed.content)} bytes" in text and f"coded rate <b>{point['coded_rate']:.2f}" in text
    monkeypatch.setattr(explorer, "output_folder", file)
    explorer.pricing.write.click()
    explorer.settle()
    assert "cannot be written" in explorer.message.value and not explorer.pricing.written.value
