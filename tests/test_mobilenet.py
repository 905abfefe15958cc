"""MobileNet_v2: torchvision's network and weights, the stand-in's recipe and checkpoint, Imagenette, top-k, lists of k."""

import dataclasses
import hashlib
import http.server
import math
import os
import shutil
import subprocess
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from warm_python import python

from weightlab import analysis, backend, data, figures, models, paths, rng, runs, sharing, training
from weightlab.data import downloads
from weightlab.errors import UserError
from weightlab.networks import sequences
from weightlab.search.fitness import TargetRule

STAND_IN = "mobilenet_v2_fashion"
SIZES = {"train": 24, "val": 20}  # pictures of the generated folder
CLOSED = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": "", "PATH": "/nonexistent"}


def torchvisions(classes=1000, seed=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return backend.torchvision().models.mobilenet_v2(num_classes=classes).eval()


def pictures(n, channels, size=64):
    return torch.randint(0, 256, (n, channels, size, size), generator=torch.Generator().manual_seed(1)).float() / 255


# --- the network ----------------------------------------------------------------------------------------------------------------


def test_it_is_torchvisions_network_on_standardised_images():
    oracle, own = torchvisions(), models.build("mobilenet_v2").eval()
    own.load_state_dict(oracle.state_dict())  # the same names, nothing more and nothing less
    normalise = backend.torchvision().transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    images = pictures(4, 3)
    with torch.inference_mode():
        torch.testing.assert_close(own(images), oracle(normalise(images)), rtol=1e-4, atol=1e-5)


def test_the_stand_in_repeats_grey_images_and_standardises_nothing():
    oracle, own = torchvisions(10), models.build(STAND_IN).eval()
    own.load_state_dict(oracle.state_dict())
    images = pictures(4, 1, 32)
    with torch.inference_mode():
        torch.testing.assert_close(own(images), oracle(images.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(nn.Sequential(*sequences.stages(own))(images), own(images), rtol=1e-4, atol=1e-5)
    assert len(sequences.stages(own)) == 20 and len(models.layers(own)) == 53


# --- the stand-in's checkpoint ----------------------------------------------------------------------------------------------------


def test_the_committed_stand_in_is_as_good_as_its_card_says_and_small():
    model, card = models.load(STAND_IN), models.card(STAND_IN)
    for split in ("validation", "test"):
        assert training.accuracy(model, data.load("fashion_mnist", split), "cpu") == pytest.approx(
            card["accuracy"][split], abs=4e-4
        )
    assert card["accuracy"]["test"] >= 0.9
    file = paths.models() / f"{STAND_IN}.safetensors"
    assert file.stat().st_size < 6e6
    stored = load_file(file)
    assert {value.dtype for value in stored.values()} == {torch.float16, torch.int64}
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert all(torch.equal(value, model.state_dict()[name].to(value.dtype)) for name, value in stored.items())
    assert "stand-in" in card["note"] and card["recipe"]["dataset"] == "fashion_mnist"
    recipe = training.CHECKPOINTS[STAND_IN]
    assert {name: card["recipe"][name] for name in dataclasses.asdict(recipe)} == dataclasses.asdict(recipe)
    assert card["epoch"] == recipe.epochs - 1 == len(card["history"]) - 1


# --- recipes ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def few_images(monkeypatch):
    """Training sees the first 300 images of each split."""
    load = data.load
    monkeypatch.setattr(data, "load", lambda dataset, split: load(dataset, split).first(300))


def test_the_thesiss_recipe_is_plain_adam(few_images):
    """A loop written out by hand, as the committed LeNet-5 were trained, ends with the same bits."""
    recipe = training.Recipe(epochs=2)
    model, history = training.fit("lenet5_tanh", recipe, "cpu", log=lambda line: None)
    expected, train = models.build("lenet5_tanh", 1), data.load("mnist", "train")
    adam, order = torch.optim.Adam(expected.parameters(), lr=1e-4), torch.Generator().manual_seed(1)
    for _ in range(2):
        for rows in torch.randperm(300, generator=order).split(32):
            adam.zero_grad()
            nn.functional.cross_entropy(expected(train.images[rows].float() / 255), train.labels[rows]).backward()
            adam.step()
    assert history[1]["validation_loss"] < history[0]["validation_loss"]  # so that the last epoch is the one kept
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in model.state_dict().items())


def test_the_stand_ins_recipe_repeats_itself_and_leaves_the_global_generator_alone(few_images):
    """It has dropout, which draws from the global generator."""
    recipe = dataclasses.replace(training.CHECKPOINTS[STAND_IN], epochs=1, batch=100)
    before = torch.random.get_rng_state()
    first, _ = training.fit(STAND_IN, recipe, "cpu", log=lambda line: None)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    second, _ = training.fit(STAND_IN, recipe, "cpu", log=lambda line: None)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    other, _ = training.fit(STAND_IN, dataclasses.replace(recipe, flip=False), "cpu", log=lambda line: None)
    assert not torch.equal(first.features[0][0].weight, other.features[0][0].weight)


def test_a_half_precision_checkpoint_is_measured_as_it_is_stored(few_images, tmp_path, monkeypatch):
    recipe = dataclasses.replace(training.CHECKPOINTS[STAND_IN], epochs=2, batch=100)
    monkeypatch.setitem(training.CHECKPOINTS, STAND_IN, recipe)
    card = training.train_checkpoint(STAND_IN, tmp_path, "cpu")
    loaded = models.load(STAND_IN, tmp_path)
    for name, value in card["accuracy"].items():
        assert value == training.accuracy(loaded, data.load("fashion_mnist", name), "cpu")
    assert card["epoch"] == 1 and models.card(STAND_IN, tmp_path) == card
    assert loaded.features[0][1].num_batches_tracked == 6


# --- top-k ------------------------------------------------------------------------------------------------------------------------


def test_top_k_counts_the_classes_with_the_k_largest_logits():
    class Fixed(nn.Module):
        """Logits by the image's one pixel; class 4 is never among the first, classes 1 and 2 are always level."""

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(255.0))

        def forward(self, images):
            value = images.flatten(1) * self.scale
            return torch.cat([value * 0 + 3, value, value, value * 0 + 5, value * 0 - 9], dim=1)

    split = data.Split("made", "test", torch.tensor([4, 4, 4, 9, 9], dtype=torch.uint8).reshape(-1, 1, 1, 1),
                       torch.tensor([3, 1, 2, 1, 4]))  # fmt: skip
    # Orders: 3 1 2 0 4 for pixel 4, 1 2 3 0 4 for pixel 9.
    hits = {1: [1, 0, 0, 1, 0], 2: [1, 1, 0, 1, 0], 3: [1, 1, 1, 1, 0], 4: [1, 1, 1, 1, 0], 5: [1, 1, 1, 1, 1]}
    assert {top: training.accuracy(Fixed(), split, "cpu", top=top) for top in hits} == {
        top: sum(h) / 5 for top, h in hits.items()
    }
    for top in (0, 6, 1.0, True):
        with pytest.raises(UserError, match="from 1 to the 5 classes"):
            training.accuracy(Fixed(), split, "cpu", top=top)


def test_accuracies_are_those_of_one_split_and_one_k_at_a_time():
    model = models.build("lenet5_relu", 3)
    splits = [data.load("mnist", name).first(150) for name in ("validation", "test")]
    table = training.accuracies(model, splits, tops=(1, 2, 5), device="cpu")
    assert table[["split", "images"]].drop_duplicates().to_numpy().tolist() == [["validation", 150], ["test", 150]]
    for row in table.itertuples():
        split = splits[["validation", "test"].index(row.split)]
        assert row.accuracy == training.accuracy(model, split, "cpu", top=row.top)
    assert (table.pivot(index="split", columns="top", values="accuracy").diff(axis=1).iloc[:, 1:] > 0).all(axis=None)


# --- Imagenette -------------------------------------------------------------------------------------------------------------------


def make_pictures(folder, sizes=SIZES):
    """Folders of real JPEG files as Imagenette has them, of all ten classes; every picture has its own flat colour and size."""
    numbers = iter(range(1_000))
    for part, count in sizes.items():
        for number in range(count):
            wnid = list(data.IMAGENET_INDEX)[number % 10]
            place = folder / part / wnid / f"{part}_{(7 * number) % count:08d}.JPEG"
            place.parent.mkdir(parents=True, exist_ok=True)
            colour = next(numbers)
            Image.new(
                "RGB" if number else "L", (300 + colour, 290), (5 * colour, 0, colour)[: 3 if number else 1] if number else 77
            ).save(place)
    return folder


@pytest.fixture(scope="module")
def imagenette(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("pictures") / "imagenette2")


def test_class_indices_are_imagenets():
    """By the names that torchvision gives ImageNet's classes and Imagenette's folders."""
    torchvision = backend.torchvision()
    names = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]
    for wnid, words in torchvision.datasets.Imagenette._WNID_TO_CLASS.items():
        assert names[data.IMAGENET_INDEX[wnid]] in words
    dogs = ["Shih-Tzu", "Rhodesian ridgeback", "beagle", "English foxhound", "Border terrier", "Australian terrier",
            "golden retriever", "Old English sheepdog", "Samoyed", "dingo"]  # fmt: skip
    assert [names[index] for index in list(data.IMAGENET_INDEX.values())[10:]] == dogs


def test_pictures_are_cut_out_as_torchvisions_weights_prescribe(imagenette, tmp_path):
    """The preset of the weights, undone to bytes, is the oracle; one picture with detail, so that a wrong crop shows."""
    folder = tmp_path / "one"
    detail = np.random.default_rng(1).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    (folder / "val" / "n03028079").mkdir(parents=True)
    Image.fromarray(detail).resize((500, 375), Image.BICUBIC).save(folder / "val" / "n03028079" / "a.JPEG", quality=95)
    split = data.load("imagenette", "test", folder=folder)
    assert split.images.shape == (1, 3, 224, 224) and split.images.dtype == torch.uint8 and split.labels.tolist() == [497]
    preset = backend.torchvision().models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    expected = preset(Image.open(folder / "val" / "n03028079" / "a.JPEG"))
    model = models.build("mobilenet_v2")
    torch.testing.assert_close(model.standardise(split.images.float() / 255), expected[None], rtol=1e-5, atol=1e-5)


def test_splits_of_pictures_are_the_permuted_sorted_names(imagenette):
    """Thesis 5.7: of the 3 925 validation images 70 % are test; here 14 of 20. Every picture is told by its colour."""
    splits = {name: data.load("imagenette", name, folder=imagenette) for name in data.SPLITS}
    assert {name: len(split) for name, split in splits.items()} == {"train": 24, "validation": 6, "test": 14}
    files = sorted((imagenette / "val").glob("*/*"), key=lambda file: file.name)
    order = [files[row] for row in rng.permutation(42, "imagenette", 20)]
    for name, chosen in (("test", order[:14]), ("validation", order[14:])):
        assert splits[name].labels.tolist() == [data.IMAGENET_INDEX[file.parent.name] for file in chosen]
        colours = [np.asarray(Image.open(file).convert("RGB"))[145, 150].tolist() for file in chosen]
        assert splits[name].images[:, :, 112, 112].tolist() == colours
    assert len(set(splits["train"].first(8).labels.tolist())) > 3  # its first images are not all of one class


@pytest.mark.parametrize(("dataset", "sizes"), [("imagenette", (1_177, 2_748)), ("imagewang", (1_178, 2_751))])
def test_published_sizes_follow_from_the_rule(dataset, sizes):
    n = downloads.PICTURES[dataset][1]["val"]
    assert (math.floor(0.3 * n), n - math.floor(0.3 * n)) == sizes


def test_a_folder_of_pictures_that_is_not_whole_is_refused(imagenette, tmp_path, monkeypatch):
    """Without a folder of one's own the published numbers of pictures are demanded."""
    monkeypatch.setenv("WEIGHTLAB_DATA", str(imagenette.parent))
    with pytest.raises(UserError, match=r"imagenette2/val holds 20 pictures, expected 3925; delete"):
        data.load("imagenette", "test")
    with pytest.raises(UserError, match=r"is not in .*imagewang \(it is never downloaded\)"):
        data.load("imagewang", "test")
    with pytest.raises(UserError, match=r"nowhere/val is not a folder of pictures"):
        data.load("imagenette", "test", folder=tmp_path / "nowhere")
    with pytest.raises(UserError, match="a folder can be given for imagenette, imagewang, not for mnist"):
        data.load("mnist", "test", folder=tmp_path)


@pytest.mark.parametrize(("name", "content", "sentence"), [
    ("val/n01440764/a.JPEG", b"no picture", r"a.JPEG is not a readable picture"),
    ("val/n00000001/a.JPEG", b"", r"holds a class folder n00000001; allowed: n01440764"),
])  # fmt: skip
def test_a_foreign_file_or_folder_is_named(tmp_path, name, content, sentence):
    file = make_pictures(tmp_path / "pictures", {"val": 10}) / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    with pytest.raises(UserError, match=sentence) as raised:
        data.load("imagenette", "test", folder=tmp_path / "pictures")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("call", "sentence"), [
    ("data.load('imagenette', 'test')", "imagenette is not in"),
    ("models.load('mobilenet_v2')", "the ImageNet weights of MobileNet_v2 are not in"),
    ("runs.Setting('mobilenet_v2', dataset='imagenette').hash", "the ImageNet weights of MobileNet_v2 are not in"),
])  # fmt: skip
def test_without_a_network_the_way_out_is_one_sentence(tmp_path, call, sentence):
    code = f"from weightlab import data, errors, models, runs\nerrors.run(lambda: {call})"
    done = subprocess.run([*python(), "-c", code], env=os.environ | CLOSED | {"WEIGHTLAB_DATA": str(tmp_path / "data")},
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and sentence in done.stderr and "put " in done.stderr
    assert [file for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".lock"] == []


@pytest.fixture
def server(tmp_path, imagenette, monkeypatch):
    """An address on this machine with an archive of the generated pictures, where Imagenette's is looked for; the archive."""
    (tmp_path / "served").mkdir()
    archive = Path(shutil.make_archive(tmp_path / "served" / "imagenette2", "gztar", imagenette.parent, "imagenette2"))
    archive = archive.rename(archive.with_name("imagenette2.tgz"))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=archive.parent)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        source = f"http://127.0.0.1:{serving.server_port}/{archive.name}", hashlib.md5(archive.read_bytes()).hexdigest()
        monkeypatch.setattr(
            backend.torchvision().datasets.Imagenette, "_ARCHIVES", {"full": source, "320px": source, "160px": source}
        )
        monkeypatch.setitem(downloads.PICTURES, "imagenette", ("imagenette2", SIZES))
        monkeypatch.setenv("WEIGHTLAB_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield archive
        serving.shutdown()
        thread.join()


def test_imagenette_is_downloaded_and_unpacked_once(server, imagenette, tmp_path):
    split = data.load("imagenette", "test")
    assert torch.equal(split.images, data.load("imagenette", "test", folder=imagenette).images)
    server.unlink()
    assert len(data.load("imagenette", "validation")) == 6  # not fetched again
    assert [file.name for file in (tmp_path / "data").iterdir() if file.name != ".imagenette2.lock"] == ["imagenette2"]


def test_a_damaged_archive_leaves_nothing_behind(server, tmp_path):
    raw = bytearray(server.read_bytes())
    raw[-1] ^= 1
    server.write_bytes(raw)
    with pytest.raises(UserError, match=r"imagenette2.tgz arrived with another MD5"):
        data.load("imagenette", "test")
    assert [file for file in (tmp_path / "data").iterdir() if file.name != ".imagenette2.lock"] == []


# --- ImageNet's weights -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def imagenet(tmp_path, monkeypatch):
    """A data folder with weights under a name that ends in their checksum, as torchvision's do; the weights and the file."""
    model = torchvisions()
    torch.save(model.state_dict(), tmp_path / "weights")
    digest = hashlib.sha256((tmp_path / "weights").read_bytes()).hexdigest()
    file = (tmp_path / "weights").rename(tmp_path / f"mobilenet_v2-{digest[:8]}.pth")
    monkeypatch.setattr(downloads, "imagenet_address", lambda: f"https://127.0.0.1:9/{file.name}")
    monkeypatch.setenv("WEIGHTLAB_DATA", str(tmp_path))
    return model, file


def test_weights_that_lie_in_the_data_folder_are_loaded(imagenet):
    model, file = imagenet
    loaded = models.load("mobilenet_v2")
    assert not loaded.training and models.card("mobilenet_v2")["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_corrupt_weights_are_refused(imagenet):
    file = imagenet[1]
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(UserError, match=rf"{file.name} is corrupt \(SHA-256 {hashlib.sha256(raw).hexdigest()}, expected"):
        models.load("mobilenet_v2")


def test_a_checkpoint_of_ones_own_goes_before_the_published_weights(tmp_path, imagenet):
    save_file(torchvisions().state_dict(), tmp_path / "mobilenet_v2.safetensors")
    with pytest.raises(UserError, match=r"mobilenet_v2\.json is missing"):
        models.load("mobilenet_v2", tmp_path)


def test_plans_on_imagenette_from_end_to_end(imagenet, imagenette, tmp_path, monkeypatch):
    """Generated pictures and weights in the places of the real ones: a scan, a search and both accuracies against plain sharing."""
    (tmp_path / "imagenette2").symlink_to(imagenette)
    monkeypatch.setitem(downloads.PICTURES, "imagenette", ("imagenette2", SIZES))
    rule = TargetRule(0.79, 4.7, "batch", limit_accuracy=0.79)
    settings = {"population": 2, "crossover": "uniform", "mutation": 0.01}
    spec = runs.Specification("mobilenet_v2", rule, "genetic", 1, 2, dataset="imagenette", images=2, ks=[20],
                              threshold=None, objective_rate="layer_mean", settings=settings)  # fmt: skip
    runner = runs.Runner(tmp_path / "searches", "cpu", threads=1, progress=False)
    records = runner.run(spec)
    assert len(records) == 2 and (records["dataset"] == "imagenette").all() and records["plan"][0].tolist() == [20] * 53
    shared, _ = sharing.share(models.load("mobilenet_v2"), [20] * 53)
    split = data.load("imagenette", "test").first(2)
    assert records["test_accuracy"][0] == training.accuracy(shared, split, "cpu")
    assert training.accuracy(shared, split, "cpu", top=1000) == 1


# --- lists of k ---------------------------------------------------------------------------------------------------------------------


def test_a_list_of_k_replaces_the_range_and_leaves_other_names_alone():
    plain = runs.Setting("lenet5_tanh", k_max=50)
    assert plain.candidates == tuple(range(1, 51)) and "ks" not in plain.describe()
    listed = runs.Setting("lenet5_tanh", ks=[8, 2, np.int64(4), 2])
    assert listed.candidates == listed.ks == (2, 4, 8) and listed.k_max == 8 and listed.describe()["ks"] == (2, 4, 8)
    assert listed == runs.Setting("lenet5_tanh", ks=(2, 4, 8), k_max=20) and listed.hash != plain.hash
    assert listed.measured().ks == (2, 4, 8)


@pytest.mark.parametrize("wrong", [[], "8", 8, [0, 3], [2.0], [2, None], [65_537]])
def test_a_list_that_holds_no_numbers_of_clusters_is_refused(wrong):
    with pytest.raises(UserError, match="numbers? of clusters"):
        runs.Setting("lenet5_tanh", ks=wrong)


def test_scan_space_and_search_keep_to_the_list(tmp_path):
    spec = runs.Specification("lenet5_tanh", TargetRule(0.99, 18), "random", 1, 20, ks=[2, 7, 30], images=100, threshold=0.5)
    runner = runs.Runner(tmp_path, "cpu", threads=1, progress=False)
    assert sorted(runner.scan(spec)["k"].unique()) == [2, 7, 30] and len(runner.scan(spec)) == 15
    full = runner.space(dataclasses.replace(spec, threshold=None))
    assert [each.tolist() for each in full.lists] == [[2, 7, 30]] * 5
    assert set(np.concatenate(runner.run(spec)["plan"].to_list())) <= {2, 7, 30}


def test_the_same_k_in_every_layer_is_measured_as_any_plan(tmp_path):
    evaluator = runs.evaluator(runs.Setting("lenet5_tanh", ks=[2, 9], images=100), device="cpu", threads=1)
    table = runs.uniform_plans(evaluator, [9, 2])
    assert table["k"].tolist() == [9, 2] and [plan.tolist() for plan in table["plan"]] == [[9] * 5, [2] * 5]
    pd.testing.assert_frame_equal(table.drop(columns=["k", "plan"]), evaluator.measure([[9] * 5, [2] * 5]))


# --- what a scan says -----------------------------------------------------------------------------------------------------------------


def scan_table():
    """Two formats, two layers, four k; validation accuracies in tenths by layer, the other split's one tenth higher."""
    tenths = {("float32", 0): [5, 9, 8, 9], ("float32", 1): [7, 8, 8, 9], ("tiny", 0): [8, 8, 8, 8], ("tiny", 1): [1, 2, 7, 3]}
    rows = [
        {
            "format": format,
            "layer": layer,
            "name": "ab"[layer],
            "k": 2**i,
            "validation_accuracy": each / 10,
            "test_accuracy": each / 10 + 0.1,
        }
        for (format, layer), values in tenths.items()
        for i, each in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_verdicts_on_k_with_holes_and_what_another_split_says():
    table = scan_table()
    table.loc[2, "test_accuracy"] = 0.95  # layer 0 of float32 at k = 4: refused by validation, not by test
    judged = analysis.judge_scans(table.sample(frac=1, random_state=1), {"validation": 0.85, "test": 0.94}).sort_index()
    assert judged["allowed"].tolist() == [False, True, False, True] + [False] * 3 + [True] + [False] * 8
    assert judged.index[judged["hole"]].tolist() == [2] and judged.index[~judged["agreed"]].tolist() == [2]


def test_a_scan_in_a_row_names_emptied_layers_and_the_most_sensitive():
    summary = analysis.summarise_scans(analysis.judge_scans(scan_table(), {"validation": 0.75}), sensitive=1)
    assert summary.index.tolist() == ["float32", "tiny"]
    assert summary["emptied"].tolist() == [[], ["b"]] and summary["most_sensitive"].tolist() == [[0], [1]]
    assert summary.loc["float32", "log10_space"] == pytest.approx(math.log10(3 * 3)) and math.isnan(
        summary.loc["tiny", "log10_space"]
    )
    assert summary["log10_full"].tolist() == pytest.approx([math.log10(16)] * 2)
    assert summary["allowed_share"].tolist() == [6 / 8, 4 / 8] and summary["holed"].tolist() == [0, 0]


def test_the_figure_names_the_layers_that_lose_most_and_no_others():
    """Four layers of which two lose nothing; in the second format none does."""
    rows = [
        {"format": format, "layer": layer, "k": k, "accuracy": 0.9 - (layer % 2) * lost * layer / 100}
        for format, lost in (("float32", 1), ("float16", 0), ("float8_e4m3", 1))
        for layer in range(4)
        for k in (2, 4)
    ]
    shown = figures.sensitive_layers(pd.DataFrame(rows), "accuracy", 0.89)
    legends = [[text.get_text() for text in ax.get_legend().get_texts()] if ax.get_legend() else [] for ax in shown.axes]
    assert legends == [["layer 3", "layer 1"], [], ["layer 3", "layer 1"], []]
    assert [ax.get_visible() for ax in shown.axes] == [True, True, True, False]
    assert [ax.get_title() for ax in shown.axes[:3]] == ["float32", "float16", "float8 (E4M3)"]


def plans_table():
    """Two arms of one format; the searched one's target ends at rate 6."""
    searched = {"format": "float32", "arm": "genetic", "target_accuracy": [0.8, 0.85], "target_rate": [5, 6]}
    plain = {"format": "float32", "arm": "one k for every layer", "target_accuracy": np.nan, "target_rate": np.nan}
    numbers = {"layer_mean_rate": [5.0, 5.5], "storage_rate": [6.0, 7.0], "loss_pp": [1.0, 50.0]}
    return pd.concat([pd.DataFrame(searched | numbers), pd.DataFrame(plain | numbers)], ignore_index=True)


def test_the_figure_of_plans_has_both_rates_the_final_target_and_no_hopeless_plan():
    left, right = figures.searched_plans(plans_table(), 3.9, 0.9, "layer_mean_rate").axes
    assert (left.get_xlabel(), right.get_xlabel()) == ("layer-mean rate", "storage rate")
    stars = [[line.get_xydata().tolist() for line in ax.lines if line.get_marker() == "*"] for ax in (left, right)]
    assert stars == [[[[6, pytest.approx(5)]]], []]  # 0.85 is 5 pp below the baseline
    assert max(line.get_ydata().max() for line in left.lines if len(line.get_xdata()) and line.get_marker() in "os") < 3 * 3.9
