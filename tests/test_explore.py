"""The explorer: what its numbers are, and what its widgets do, in this process; `tests/browser` moves real sliders."""

import threading
import time

import ipywidgets
import nbformat
import numpy as np
import pytest
from nbconvert import HTMLExporter

from weightlab import accounting, analysis, data, explore, models, packing, paths, runs, sharing, training
from weightlab.errors import UserError
from weightlab.explore import study as studies
from weightlab.explore.latest import Latest
from weightlab.explore.sliders import PlanSliders
from weightlab.runs import loop

PLAN, IMAGES, BUDGET = [3, 5, 8, 2, 4], 100, 60
MARKS = [
    "network",
    "format",
    "method",
    "message",
    "slider-0",
    "slider-4",
    "price",
    "level",
    "priced",
    "write-priced",
    "written-priced",
    "storage-rate",
    "layer-mean-rate",
    "accuracy",
    "table",
    "layer",
    "histogram",
    "plans",
    "optimizer",
    "budget",
    "search",
    "stop",
    "take-best",
    "progress",
    "write",
    "written",
]


def explorer_in(folder, plan=PLAN, **options):
    options = {"images": IMAGES, "threads": 1, "budget": BUDGET} | options
    return explore.Explorer("lenet5_tanh", plan, searches_folder=folder / "searches", output_folder=folder / "output", **options)


@pytest.fixture(scope="module")
def explorer(tmp_path_factory):
    return explorer_in(tmp_path_factory.mktemp("explorer"))


@pytest.fixture(scope="module")
def fresh(explorer, tmp_path_factory):
    """An explorer of the same network that nobody has searched with; codebooks are made already."""
    folder = tmp_path_factory.mktemp("fresh")
    (folder / "searches").mkdir()
    (folder / "searches" / "codebooks").symlink_to(explorer.study.folder / "codebooks")
    return explorer_in(folder)


def widgets_within(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from widgets_within(child)


# --- numbers --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [PLAN, [1, 1, 1, 1, 1], [50, 49, 48, 47, 46]], ids=str)
def test_numbers_are_those_of_a_plain_copy_with_shared_weights(explorer, plan):
    """An independent way: `sharing.share` and a forward pass."""
    study = explorer.study
    shared, report = sharing.share(study.model, plan)
    splits = {name: data.load("mnist", name).first(IMAGES) for name in ("validation", "test")}
    ours = study.report(plan)
    assert ours.drop(columns="bits").equals(report)
    assert ours["bits"].tolist() == [int(np.ceil(np.log2(k))) for k in plan]
    accuracies = {name: training.accuracy(shared, split) for name, split in splits.items()}
    measured, reported = study.measure(plan), study.reported(plan).set_index("split")
    assert measured["validation_accuracy"] == accuracies["validation"]
    original = training.accuracy(study.model, splits["validation"])
    assert measured["validation_loss_pp"] == pytest.approx(100 * (original - accuracies["validation"]))
    assert reported["packed"].to_dict() == accuracies and reported["original"]["validation"] == original
    assert study.rates(plan)["storage_rate"] == pytest.approx(report["weights"].sum() * 32 / report["stored_bits"].sum())
    assert study.rates(plan)["layer_mean_rate"] == measured["layer_mean_rate"]
    assert not [name for name in measured.index if "test" in name], "what is answered at once is not measured on test"


def test_one_number_is_a_codebook_for_the_whole_net(explorer):
    explorer = explore.Explorer("lenet5_tanh", 9, images=IMAGES, threads=1, searches_folder=explorer.study.folder)
    shared, _ = sharing.share(explorer.study.model, 9)
    assert explorer.plan == [9] and len(explorer.report) == 1
    split = data.load("mnist", "validation").first(IMAGES)
    assert explorer.measured["validation_accuracy"] == training.accuracy(shared, split)


# --- sliders --------------------------------------------------------------------------------------------------------------------


def test_moving_a_slider_answers_everywhere(explorer):
    explorer.sliders.plan = PLAN
    explorer.settle()
    before, pictures = explorer.answers, (explorer.histogram.value, explorer.plans.value)
    explorer.sliders.layers[0].value = 29
    explorer.settle()
    plan = [29, *PLAN[1:]]
    measured, rates = explorer.study.measure(plan), explorer.study.rates(plan)
    assert explorer.plan == explorer.report["k"].tolist() == plan and explorer.answers == before + 1
    shown = explorer.storage_rate, explorer.layer_mean_rate, explorer.accuracy, explorer.table, explorer.histogram, explorer.plans
    assert all(f'data-answer="{before + 1}"' in each.value for each in shown)
    assert f"{rates['storage_rate']:.2f}" in explorer.storage_rate.value and "storage rate" in explorer.storage_rate.value
    assert f"{rates['layer_mean_rate']:.2f}" in explorer.layer_mean_rate.value
    assert (
        f"{measured['validation_accuracy']:.2%}" in explorer.accuracy.value
        and f"of {IMAGES} validation" in explorer.accuracy.value
    )
    assert f"{measured['validation_loss_pp']:.2f} pp" in explorer.accuracy.value
    assert "<td>29</td>" in explorer.table.value and all(name in explorer.table.value for name in explorer.study.names)
    assert explorer.histogram.value != pictures[0] and explorer.plans.value != pictures[1]
    assert "feature_extractor.0 with its 29 centroids" in explorer.histogram.value


def test_the_histogram_is_of_the_layer_that_is_chosen(explorer):
    explorer.layer.value = "classifier.2"
    explorer.settle()
    assert f"classifier.2 with its {explorer.plan[4]} centroids" in explorer.histogram.value
    explorer.layer.value = "feature_extractor.0"


def test_requests_while_work_is_going_on_are_replaced_by_the_latest():
    worked, go_on = [], threading.Event()

    def work(request):
        worked.append(request)
        go_on.wait(10)

    latest = Latest(work)
    latest.ask(0)
    while not worked:
        time.sleep(0.001)
    for request in range(1, 20):
        latest.ask(request)
    assert latest.overtaken and not latest.wait(0.01)
    go_on.set()
    assert latest.wait(10) and worked == [0, 19] and not latest.overtaken


def test_a_dragged_slider_is_answered_for_its_last_place_without_a_queue(explorer, monkeypatch):
    measure, measured, go_on = explorer.study.measure, [], threading.Event()

    def slow(plan):
        measured.append(plan[4])
        go_on.wait(10)
        return measure(plan)

    monkeypatch.setattr(explorer.study, "measure", slow)
    explorer.sliders.layers[4].value = 10
    while not measured:
        time.sleep(0.001)
    assert 'data-state="measuring"' in explorer.accuracy.value, "an old number is not to pass for the new plan's"
    for k in range(11, 40):
        explorer.sliders.layers[4].value = k
    go_on.set()
    explorer.settle()
    assert measured == [10, 39] and explorer.report["k"].tolist()[4] == 39 and 'data-state="measured"' in explorer.accuracy.value


def test_many_layers_have_a_slider_for_each_block_that_sets_exactly_its_own():
    names = [layer.name for layer in models.layers(models.build("mobilenet_v2_fashion"))]
    called = []
    sliders = PlanSliders(names, [16] * 53, 50, lambda: called.append(sliders.plan))
    assert [slider.description for slider in sliders.layers] == names
    assert list(sliders.groups) == [f"features.{i}" for i in range(1, 18)] and not called
    sliders.groups["features.4"].value = 7
    expected = [7 if name.startswith("features.4.") else 16 for name in names]
    assert called == [expected] and expected.count(7) == 3
    sliders.layers[names.index("features.4.conv.0.0")].value = 30
    sliders.layers[names.index("features.4.conv.1.0")].value = 31
    assert sliders.groups["features.4"].value == 30, "the median of its layers"
    assert sliders.plan.count(7) == 1 and len(called) == 3
    sliders.plan = list(range(2, 55))
    assert sliders.plan == list(range(2, 55)) and len(called) == 4


def test_every_element_has_one_class_to_find_it_by(explorer):
    classes = [name for widget in widgets_within(explorer.widget) for name in widget._dom_classes]
    assert all(classes.count(f"weightlab-{mark}") == 1 for mark in MARKS)
    sliders = [widget for widget in widgets_within(explorer.widget) if isinstance(widget, ipywidgets.IntSlider)]
    assert len(sliders) == 5 and all(slider.continuous_update for slider in sliders)


def test_another_format_keeps_the_plan_and_changes_what_is_stored(explorer):
    explorer.sliders.plan = PLAN
    explorer.choices["format"].value = "float8_e4m3"
    explorer.settle()
    weights = [layer.weights for layer in models.layers(explorer.study.model)]
    assert explorer.plan == PLAN and explorer.study.setting.format == "float8_e4m3"
    assert f"{accounting.storage_rate(weights, PLAN, 'float8_e4m3'):.2f}" in explorer.storage_rate.value
    explorer.choices["format"].value = "float32"
    explorer.settle()
    assert f"{accounting.storage_rate(weights, PLAN, 'float32'):.2f}" in explorer.storage_rate.value


# --- search ---------------------------------------------------------------------------------------------------------------------


def test_a_search_shows_its_progress_and_its_best_plan_is_taken(explorer):
    panel = explorer.searching
    assert panel.take_best.disabled and panel.stop.disabled and len(explorer.study.searched()) == 0
    panel.search.click()
    panel.search.click()  # in haste
    assert panel.search.disabled and explorer.network.disabled
    explorer.settle()
    records = runs.read(explorer.study.folder)
    acceptable = records[records["validation_loss_pp"] < analysis.ACCEPTABLE_LOSS_PP]
    best = acceptable.loc[acceptable["storage_rate"].idxmax()]
    assert BUDGET - 12 < len(records) == len(panel.found) <= BUDGET, "whole generations, as many as fit"
    assert f"done: {len(records)} of {BUDGET} evaluations" in panel.progress.value
    assert f"best: storage rate {best['storage_rate']:.2f}" in panel.progress.value and "a second" in panel.progress.value
    assert f"and of {len(records)} searched plans" in explorer.plans.value and not panel.search.disabled
    panel.take_best.click()
    explorer.settle()
    assert explorer.plan == best["plan"].tolist() and explorer.measured["validation_accuracy"] == best["validation_accuracy"]


def test_only_searches_on_the_same_network_images_method_and_format_are_shown(fresh):
    study = fresh.study
    assert study.search("random", 20)["uniform"].tolist()[:5] == [True] * 5
    assert len(study.searched()) == 20
    assert len(study.changed(format="float16").searched()) == 0 and len(study.changed(images=IMAGES + 1).searched()) == 0
    assert len(study.changed(network="lenet5_relu").searched()) == 0
    (study.folder / "foreign").mkdir()
    (study.folder / "foreign" / "specification.json").write_text("[not json")
    assert len(study.searched()) == 20


def test_a_search_stopped_after_a_generation_goes_on_from_there(fresh, tmp_path):
    """Nothing of what was tried is lost, and the records are in the end those of a search that nobody stopped."""
    heard = []
    with pytest.raises(loop.Stopped, match=r"stopped after \d+ of 60"):
        fresh.study.search("genetic", BUDGET, 5, heard.append, lambda: len(heard) == 2)
    tried = sum(map(len, heard))
    assert 0 < tried < BUDGET
    again = []
    records = fresh.study.search("genetic", BUDGET, 5, again.append)
    assert len(again[0]) == tried and sum(map(len, again)) == len(records)
    undisturbed = studies.Study(fresh.study.setting, tmp_path, threads=1, splits=fresh.study.splits)
    undisturbed.search("genetic", BUDGET, 5)
    runs_of_it = [file.parent.name for file in tmp_path.glob("*/evaluations.parquet")]
    assert runs.records_hash(tmp_path) == runs.records_hash(fresh.study.folder, runs_of_it)


def test_the_stop_button_stops_and_the_search_button_resumes(fresh):
    panel = fresh.searching
    panel.budget.value, panel.optimizer.value = 400, "particle_swarm"
    panel.search.click()
    while "searching" not in panel.progress.value:
        time.sleep(0.005)
    panel.stop.click()
    fresh.settle()
    tried = len(panel.found)
    assert tried < 400 and f"stopped; the same search resumes here: {tried} of 400" in panel.progress.value
    assert not fresh.message.value and panel.stop.disabled and not panel.search.disabled
    moved = fresh.answers
    fresh.sliders.layers[4].value += 1
    fresh.settle()
    assert fresh.answers == moved + 1
    panel.budget.value = 400
    panel.search.click()
    while f"{tried} of 400" in panel.progress.value:
        time.sleep(0.005)
    panel.stop.click()
    fresh.settle()
    assert len(panel.found) > tried, "those of before are its beginning, and count once"
    assert len(panel.found) == int(panel.progress.value.split('data-evaluations="')[1].split('"')[0])


# --- file and errors ------------------------------------------------------------------------------------------------------------


def test_the_file_says_what_was_measured_and_reads_back(explorer):
    explorer.sliders.plan = PLAN
    explorer.settle()
    explorer.write.click()
    explorer.settle()
    (file,) = explorer.output_folder.iterdir()
    packed = packing.read(file)
    again = packed.load(models.build("lenet5_tanh"))
    assert packed.details.plan == PLAN and packed.details.network == "lenet5_tanh"
    for stated in packed.details.accuracy:
        assert stated.packed == training.accuracy(again, data.load("mnist", stated.split).first(IMAGES))
        assert f"{stated.split} {stated.packed:.2%}" in explorer.written.value
    assert [stated.split for stated in packed.details.accuracy] == ["validation", "test"]
    told = packed.summary()
    for part in (
        str(file),
        f"{told['file_bytes']} bytes",
        f"{told['storage_rate']:.2f}",
        f"file rate <b>{told['file_rate']:.2f}",
    ):
        assert part in explorer.written.value


def test_what_goes_wrong_is_a_sentence_among_the_widgets(explorer, tmp_path, monkeypatch):
    def told():
        explorer.settle()
        assert "Traceback" not in explorer.message.value and explorer.message.value.count("<span") == 1
        return explorer.message.value

    explorer.searching.budget.value = 3
    explorer.searching.search.click()
    assert "budget must be at least the" in told() and "got 3" in told()
    (tmp_path / "file").touch()
    monkeypatch.setattr(explorer, "output_folder", tmp_path / "file")
    explorer.write.click()
    assert "cannot be written" in told() and not explorer.written.value
    monkeypatch.setattr(paths, "models", lambda: tmp_path)
    explorer.network.value = "lenet5_relu"
    assert str(tmp_path / "lenet5_relu") in told()
    assert explorer.network.value == explorer.study.setting.network == "lenet5_tanh", "all is as it was"
    explorer.sliders.layers[4].value = 12
    explorer.settle()
    assert not explorer.message.value, "the next answer takes it away"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"plan": [3, 5]}, "a plan needs 5 numbers"),
        ({"plan": [0, 5, 8, 2, 4]}, "from 1 to 65536, got 0"),
        ({"format": "float7"}, "unknown format 'float7'; allowed: float32"),
        ({"search": "hill"}, "unknown search 'hill'; allowed: random"),
        ({"images": 0}, "images must be None or a whole number of at least 1, got 0"),
    ],
    ids=str,
)
def test_wrong_parameters_are_refused_at_once(tmp_path, wrong, sentence):
    with pytest.raises(UserError, match=sentence):
        explorer_in(tmp_path, **wrong)


def test_a_network_of_ones_own_needs_its_dataset(tmp_path):
    with pytest.raises(UserError, match="is your own, so give the dataset"):
        explore.Explorer("digits_network:network", searches_folder=tmp_path)


# --- without a kernel -----------------------------------------------------------------------------------------------------------


def test_an_executed_notebook_reads_sensibly_as_a_page(smoke_outputs):
    """The numbers stand where the widgets were, and nothing asks for a kernel's widgets that a page cannot have."""
    notebook = nbformat.read(smoke_outputs("00_explore") / "notebook.ipynb", as_version=4)
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert "need a running kernel; they were left at plan [3, 5, 8, 2, 4]" in page
    report = sharing.share(models.load("lenet5_tanh"), PLAN)[1]
    assert f">{report['weights'].sum() * 32 / report['stored_bits'].sum():.2f}</b>" in page
    assert (
        'alt="loss against storage rate of this plan' in page and "widget-view" not in page and "widgets" not in notebook.metadata
    )
    (view,) = [cell.outputs[0] for cell in notebook.cells if cell.source.rstrip().endswith("\nexplorer")]
    assert set(view.data) == {"text/html", "text/plain"}
