"""A user's own network, weights and data, wherever a search runs."""

import json
import os
import pickle
import shlex
import struct
import subprocess
import sys
import zlib
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from warm_python import python

from weightlab import backend, data, models, packing, paths, runs, sharing, training
from weightlab.data import own as own_data
from weightlab.errors import UserError
from weightlab.networks import answers, checkpoints
from weightlab.networks import own as own_networks
from weightlab.runs import Runner, Setting, Specification, status
from weightlab.runs.specifications import from_description
from weightlab.search.fitness import TargetRule

MODULE = '''
import torch
from torch import nn


class Small(nn.Module):
    """Two convolutions side by side, so no sequence, and a layer that is never called."""

    def __init__(self):
        super().__init__()
        self.head, self.unused = nn.Linear(400, 10), nn.Linear(3, 3)
        self.left, self.right = nn.Conv2d(1, 4, 5, 3), nn.Conv2d(1, 4, 5, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images):
        return self.head(torch.relu(self.norm(self.left(images) + self.right(images))).flatten(1))


def constant(outputs=10, value=0.1):
    model = nn.Sequential(nn.Flatten(), nn.Linear(1024, outputs))
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    return model


def failing():
    raise OSError("no such disk")


def ending():
    raise SystemExit(0)


def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))


def lazily_normed():
    return nn.Sequential(nn.LazyBatchNorm2d(), constant())


def few():
    return constant(3)


def unknowing():
    return constant(value=float("nan"))


def without_layers():
    return nn.Flatten()


def wide():
    return nn.Sequential(constant(), nn.Unflatten(1, (5, 2)))


def number():
    return 3


class Named(nn.Module):
    """Its `sequence` is not the method that says how a network is one."""

    def __init__(self):
        super().__init__()
        self.sequence = constant()

    def forward(self, images):
        return self.sequence(images)


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = constant()

    def forward(self, images):
        return self.inner(images), images
'''
RULE = TargetRule(0.9, 12.0, "batch")
COMMON = {
    "dataset": "digits.npz",
    "weights": "small.safetensors",
    "budget": 24,
    "k_max": 4,
    "threshold": None,
    "search": "random",
}


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """A working directory of a user's own: a module with networks, trained weights, and data in every form that is read."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "own_net.py").write_text(MODULE)
    (folder / "package" / "inner").mkdir(parents=True)
    (folder / "package" / "inner" / "deep.py").write_text("from own_net import Small as Net\n")
    (folder / "broken_net.py").write_text("import no_such_library\n")
    (folder / "ending_net.py").write_text("raise SystemExit(2)\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", sys.path.copy())
        digits = data.load("mnist", "test").first(400)
        np.savez("digits.npz", images=digits.images.numpy(), labels=digits.labels.numpy())
        _write_pictures(folder / "pictures", digits)
        model = _trained(digits)
        save_file(model.state_dict(), "small.safetensors")
        for kind in ("pt", "pth", "bin"):
            torch.save(model.state_dict(), f"small.{kind}")
        yield folder


def _write_pictures(folder, split, mode="L"):
    """The images as PNG by class, numbered."""
    for number, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
        place = folder / f"digit {label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).convert(mode).save(place / f"{number:05d}.png")


def _trained(digits):
    model = models.build("own_net:Small", seed=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(digits.images.float() / 255), digits.labels).backward()
        optimizer.step()
    return model.eval()


def own(**changed):
    return Specification("own_net:Small", RULE, **COMMON | changed)


def runner_in(folder, **rest):
    return Runner(folder, **{"device": "cpu", "threads": 1, "progress": False, "workers": 1} | rest)


def refused(match, function, *arguments, **named):
    with pytest.raises(UserError, match=match) as caught:
        function(*arguments, **named)
    assert "\n" not in str(caught.value)


# --- names of before ------------------------------------------------------------------------------------------------------------


def test_what_was_named_before_there_were_own_networks_keeps_its_name():
    """Computed before; the committed checkpoints are part of them."""
    spec = Specification("lenet5_tanh", TargetRule(0.99, 18.0, "batch"), budget=60, k_max=8, images=200, threshold=0.9)
    assert spec.hash == "1f1e901334ddc27a" and spec.measured().hash == "e8fa5592aea033ce"
    assert replace(spec, search="random", settings={}, ks=(2, 5)).hash == "3d66e832418d5a9f"
    assert Setting("lenet5_relu", dataset="fashion_mnist").hash == "26ac78888142aaed"
    assert not {"weights", "whole_net", "data", "ks"} & spec.describe().keys()


# --- networks -------------------------------------------------------------------------------------------------------------------


def test_a_factory_is_imported_from_the_working_directory_also_from_within_packages():
    for network in ("own_net:Small", "package.inner.deep:Net"):
        assert type(models.build(network)).__name__ == "Small"
        assert not models.load(network).training


VISION = {
    "at the top": {"vision_net": "import torchvision\n\ndef net():\n    return torchvision.models.squeezenet1_1(num_classes=3)"},
    "by name": {
        "vision_net": "from torchvision.models import squeezenet1_1\n\ndef net():\n    return squeezenet1_1(num_classes=3)"
    },
    "in another module": {
        "vision_net": "import vision_plain, vision_parts\n\ndef net():\n    return vision_parts.squeezenet1_1(num_classes=3)",
        "vision_plain": "from torch import nn",
        "vision_parts": "from torchvision.models import squeezenet1_1",
    },
    "in the factory": {
        "vision_net": "from torch import nn\n\ndef net():\n    first = nn.Conv2d(3, 3, 1)\n    from torchvision.models import squeezenet1_1\n"
        "    return nn.Sequential(first, squeezenet1_1(num_classes=3))",
    },
}


@pytest.mark.parametrize("place", VISION)
def test_a_module_that_imports_torchvision_gets_the_help_that_the_library_gives_itself(place, tmp_path):
    """Beside a CPU-only torch the plain import stops at missing operators; and the same seed still draws the same weights."""
    for name, text in VISION[place].items():
        (tmp_path / f"{name}.py").write_text(text)
    code = (
        "import sys; assert not any(name.startswith('torchvision') for name in sys.modules)\n"
        "import torch; from weightlab import models; from weightlab.networks import own as own_networks\n"
        "digests = [own_networks.digest(models.build('vision_net:net')) for _ in range(2)]\n"
        "print(digests[0] == digests[1], models.load('vision_net:net')(torch.zeros(1, 3, 64, 64)).shape)"
    )
    done = subprocess.run([*python(), "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "True torch.Size([1, 3])\n", done.stderr[-2000:]


def test_the_torchvision_network_of_the_documentation_becomes_a_file(tmp_path):
    """Its lines as they stand there, with the README's command, on pictures of three colours, and torchvision's own answers to these."""
    text = (paths.root() / "docs" / "own.md").read_text()
    module, command = (text.split(f"```{language}\n")[1].split("```")[0] for language in ("python", "sh"))
    assert len([line for line in module.splitlines() if line]) <= 10
    torchvision = backend.torchvision()
    network = torchvision.models.mobilenet_v3_small(num_classes=10)
    torch.save(network.state_dict(), tmp_path / "my.pt")
    (tmp_path / "my_module.py").write_text(module)
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), np.uint8)
    normalise = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.inference_mode():
        labels = network.eval()(normalise(torch.from_numpy(images).float() / 255)).argmax(1)
    np.savez(tmp_path / "my.npz", images=images, labels=labels.numpy())
    assert f"```sh\n{command}```" in (paths.root() / "README.md").read_text()
    words = shlex.split(command)
    assert words[0] == "weightlab"
    words += ["--lambda", "0.01"]  # which saves the search of it
    done = subprocess.run([*python(), "-m", *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" of 20 images, 100.00 % before") == 2, "before it was compressed it gave torchvision's answers"
    assert packing.read(tmp_path / "my.weightlab").details.method == "rate-distortion sharing, level 1 (calibrated)"


def test_a_module_that_fails_otherwise_is_imported_once(tmp_path):
    (tmp_path / "net_failing.py").write_text("print('imported')\nraise RuntimeError('no such operator')")
    code = "from weightlab import models; models.build('net_failing:net')"
    done = subprocess.run([*python(), "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (
        done.stdout == "imported\n" and "module 'net_failing' cannot be imported (RuntimeError: no such operator)" in done.stderr
    )


def test_a_process_standing_elsewhere_imports_what_it_is_told_the_place_of(tmp_path, monkeypatch):
    (tmp_path / "net_elsewhere.py").write_text(MODULE)
    refused("module 'net_elsewhere' cannot be imported", models.build, "net_elsewhere:few")
    monkeypatch.setattr(sys, "path", sys.path.copy())
    own_networks.look_in(tmp_path)
    assert models.build("net_elsewhere:few")[1].out_features == 3


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        ("lenet6", "unknown network 'lenet6'; allowed: lenet5_tanh, .*module:factory"),
        ("no_such_module:Net", "'no_such_module' cannot be imported .*No module named 'no_such_module'"),
        ("broken_net:Net", "'broken_net' cannot be imported .*No module named 'no_such_library'"),
        ("ending_net:Net", "'ending_net' cannot be imported .*SystemExit: 2"),
        (":Net", "module '' cannot be imported"),
        ("own_net:", "'own_net' has no callable ''"),
        ("own_net:Large", "'own_net' has no callable 'Large'"),
        ("own_net:__doc__", "has no callable '__doc__' .* got None"),
        ("own_net:number", r"number\(\) must return a torch.nn.Module, got int"),
        ("own_net:failing", r"failing\(\) failed \(OSError: no such disk\)"),
        ("own_net:ending", r"ending\(\) failed \(SystemExit: 0\)"),
        ("own_net:lazy", "1.weight of Sequential has no values yet; give the sizes of lazy modules, or load weights"),
        ("own_net:lazily_normed", "0.weight of Sequential has no values yet"),
        ("own_net:unknowing", "layer 1 holds NaN"),
        ("own_net:without_layers", "has no convolution or linear layer"),
        ("own_net:Small", "has other weights at each call of its factory; give a file"),
    ],
)
def test_a_network_that_cannot_be_had_is_refused_in_a_sentence(network, sentence):
    refused(sentence, Setting, network)


def test_networks_of_this_library_have_weights_of_their_own():
    for call in (models.load, models.identity):
        refused("lenet5_tanh has its own checkpoint, so weights must be None, got 'a.pt'", call, "lenet5_tanh", weights="a.pt")
    refused("weights must be None", Setting, "lenet5_tanh", weights="small.pt")


# --- weights --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["safetensors", "pt", "pth", "bin"])
def test_weights_are_read_whatever_the_kind_of_file(kind):
    model, images = models.load("own_net:Small", weights=f"small.{kind}"), data.load("digits.npz", "test")
    assert training.accuracy(model, images, "cpu") > 0.8
    assert models.identity("own_net:Small", f"small.{kind}") == models.identity("own_net:Small", "small.safetensors")


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def _malicious(file, marker):
    content = {"head.weight": Malicious(marker)}
    if file.suffix == ".npz":
        np.savez(file, images=np.array([Malicious(marker)]), labels=np.zeros(1, int))
    elif file.suffix == ".pth":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("name", ["evil.pt", "evil.pth", "evil.bin", "evil.npz"])
def test_a_file_that_would_execute_code_is_refused_without_executing_any(name, tmp_path):
    file, marker = tmp_path / name, tmp_path / "executed"
    _malicious(file, marker)
    if name == "evil.npz":
        refused("is not a readable .npz file of plain arrays", data.load, file, "test")
    else:
        for call in (models.load, models.identity):
            refused(f"{name} is not a file of tensors only, and nothing", call, "own_net:Small", weights=file)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Malicious(marker)))
    assert marker.exists(), "had it been executed, it would have been seen"


def _changed_state(change):
    state = torch.load("small.pt", weights_only=True)
    change(state)
    return state


WRONG_WEIGHTS = {
    "3 missing, first left.weight": lambda s: [s.pop(name) for name in ("left.weight", "right.bias", "norm.weight")],
    "1 unexpected, first extra": lambda s: s.update(extra=torch.ones(1)),
    r"1 missing, first head.bias; 1 unexpected, first head.bais": lambda s: s.update({"head.bais": s.pop("head.bias")}),
    r"head.weight has shape \(10, 300\), expected \(10, 400\)": lambda s: s.update({"head.weight": torch.ones(10, 300)}),
    "must hold a plain state dict .* got 'epoch': int": lambda s: s.update(epoch=3),
    "must hold a plain state dict .* got 7: Tensor": lambda s: s.update({7: torch.ones(1)}),
    "layer head holds NaN or infinite weights": lambda s: s["head.weight"].fill_(float("nan")),
}


@pytest.mark.parametrize("sentence", WRONG_WEIGHTS)
def test_a_state_dict_that_does_not_fit_is_refused_by_the_first_name(sentence, tmp_path):
    torch.save(_changed_state(WRONG_WEIGHTS[sentence]), tmp_path / "wrong.pt")
    refused(sentence, own, weights=str(tmp_path / "wrong.pt"))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("absent.pt", None, "absent.pt is missing"),
        ("weights.h5", b"", "unknown kind of file with weights '.h5'; allowed: .safetensors, .pt, .pth, .bin"),
        ("empty.safetensors", b"", "empty.safetensors is not a file of tensors only"),
        ("empty.pt", b"", "empty.pt is not a file of tensors only"),
        ("text.bin", b"weights", "text.bin is not a file of tensors only"),
    ],
)
def test_a_file_without_weights_is_refused(name, content, sentence, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refused(sentence, own, weights=tmp_path / name)


def test_a_whole_pickled_network_and_a_list_are_no_state_dicts(tmp_path):
    torch.save(models.load("own_net:Small"), tmp_path / "whole.pt")
    refused("whole.pt is not a file of tensors only", own, weights=str(tmp_path / "whole.pt"))
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    refused(r"list.pt must hold a plain state dict \(names and tensors\), got list", own, weights=str(tmp_path / "list.pt"))
    refused("weights must be None or the path of a file with a state dict, got 7", own, weights=7)


def test_the_identity_tells_weights_names_shapes_and_types_apart():
    def digest(**state):
        model = torch.nn.Module()
        for name, value in state.items():
            model.register_buffer(name, value)
        return own_networks.digest(model)

    zeros = torch.zeros(4)
    different = [{"a": zeros}, {"b": zeros}, {"a": torch.zeros(2, 2)}, {"a": torch.zeros(4, dtype=torch.int32)}]
    different += [{"a": zeros + 1}, {"a": zeros, "b": zeros}, {"a": torch.zeros(4, dtype=torch.bfloat16)}]
    assert len({digest(**state) for state in different}) == len(different)
    assert digest(a=zeros, b=zeros + 1) == digest(b=zeros + 1, a=torch.zeros(4))


def test_a_factory_with_weights_of_its_own_needs_no_file():
    setting = Setting("own_net:constant")
    assert setting.describe()["checkpoint"] == models.identity("own_net:constant") != models.identity("own_net:few")
    assert models.label("own_net:constant") == f"own_net:constant@{models.identity('own_net:constant')[:8]}"


# --- data: arrays ---------------------------------------------------------------------------------------------------------------


def _rows(images, labels):
    """Images with their labels, in an order of their own."""
    return sorted((int(label), image.numpy().tobytes()) for image, label in zip(images, labels, strict=True))


def test_arrays_are_halved_by_a_fixed_permutation():
    digits = data.load("mnist", "test").first(400)
    halves = [data.load("digits.npz", name) for name in ("validation", "test")]
    assert [len(half) for half in halves] == [200, 200]
    images, labels = torch.cat([half.images for half in halves]), torch.cat([half.labels for half in halves])
    assert _rows(images, labels) == _rows(digits.images, digits.labels)
    assert not torch.equal(images, digits.images)
    assert halves[0].labels[:12].tolist() == data.load(os.path.abspath("digits.npz"), "validation").labels[:12].tolist()
    refused("digits.npz has no split 'train'", data.load, "digits.npz", "train")


def test_splits_of_ones_own_are_used_as_they_are(tmp_path):
    images, labels = np.random.default_rng(1).integers(0, 256, (6, 3, 8, 9), dtype=np.uint8), np.arange(6, dtype=np.uint8)
    parts = {"train": slice(0, 3), "validation": slice(3, 4), "test": slice(4, 6)}
    arrays = {f"{name}_images": images[rows] for name, rows in parts.items()}
    np.savez(tmp_path / "cut.npz", **arrays, **{f"{name}_labels": labels[rows] for name, rows in parts.items()})
    for name, rows in parts.items():
        split = data.load(tmp_path / "cut.npz", name)
        assert split.images.numpy().tolist() == images[rows].tolist() and split.labels.tolist() == labels[rows].tolist()
        assert split.labels.dtype == torch.int64 and split.images.dtype == torch.uint8


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1)], ids=["channels first", "channels last"])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_may_stand_first_or_last(axes, channels, tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (4, channels, 8, 9), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images.transpose(axes), labels=np.zeros(4, int))
    both = torch.cat([data.load(tmp_path / "a.npz", name).images for name in ("validation", "test")])
    assert _rows(both, [0] * 4) == _rows(torch.from_numpy(images), [0] * 4)


def test_grey_images_need_no_axis_of_channels(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.full((4, 8, 9), 7, np.uint8), labels=np.zeros(4, int))
    assert data.load(tmp_path / "a.npz", "test").images.shape == (2, 1, 8, 9)


EIGHT, LABELS = np.zeros((8, 1, 5, 5), np.uint8), np.zeros(8, int)
WRONG_ARRAYS = {
    "images must be uint8, values 0 to 255 .* got float32": {"images": EIGHT.astype("f4"), "labels": LABELS},
    r"images must have the shape .* got \(8, 5\)": {"images": EIGHT[:, 0, 0], "labels": LABELS},
    r"images must have the shape .* got \(0, 1, 5, 5\)": {"images": EIGHT[:0], "labels": LABELS[:0]},
    r"labels must be classes from 0, integers \(8,\), .* got float64 \(8,\)": {"images": EIGHT, "labels": LABELS / 1},
    r"labels must be classes .* got int64 \(7,\)": {"images": EIGHT, "labels": LABELS[1:]},
    r"labels must be classes .* got int64 \(8,\) from -1 to -1": {"images": EIGHT, "labels": LABELS - 1},
    r"labels must be classes .* below 2\^63, got uint64 \(8,\) from 0 to 9223372036854775808": {
        "images": EIGHT,
        "labels": np.array([1 << 63, *LABELS[1:]], np.uint64),
    },
    "holds no test_images; it must hold images and labels, or .* got pixels": {"pixels": EIGHT},
    "holds no labels; it must hold": {"images": EIGHT},
    "must hold either images and labels, or": {"images": EIGHT, "labels": LABELS, "test_images": EIGHT},
    "must hold at least 2 images to be cut .* got 1": {"images": EIGHT[:1], "labels": LABELS[:1]},
}


@pytest.mark.parametrize("sentence", WRONG_ARRAYS)
def test_arrays_of_another_form_are_refused(sentence, tmp_path):
    np.savez(tmp_path / "wrong.npz", **WRONG_ARRAYS[sentence])
    refused(f"wrong.npz.* ?{sentence}", data.load, tmp_path / "wrong.npz", "test")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing more", b"text"])
def test_a_file_that_is_no_archive_is_refused(content, tmp_path):
    (tmp_path / "wrong.npz").write_bytes(content)
    refused("wrong.npz is not a readable .npz file", data.load, tmp_path / "wrong.npz", "test")


@pytest.mark.parametrize("dataset", ["cifar", "absent.npz", "own_net.py", 5, None])
def test_what_is_neither_a_name_nor_a_place_of_data_is_refused(dataset):
    for call in (data.load, lambda dataset, _: Setting("lenet5_tanh", dataset=dataset)):
        refused(f"unknown dataset {dataset!r}; allowed: mnist, .* existing .npz file or folder", call, dataset, "test")
    refused("unknown split 'val'; allowed: train, validation, test", data.load, "digits.npz", "val")


# --- data: pictures -------------------------------------------------------------------------------------------------------------


def test_a_folder_of_pictures_holds_the_same_images_as_the_arrays():
    halves = [[data.load(dataset, name) for name in ("validation", "test")] for dataset in ("pictures", "digits.npz")]
    images, labels = ([torch.cat([getattr(half, kind) for half in each]) for each in halves] for kind in ("images", "labels"))
    assert images[0].shape == (400, 1, 32, 32)
    assert _rows(images[0], labels[0]) == _rows(images[1], labels[1])
    first = data.load("pictures", "validation").first(60).labels
    assert len(set(first.tolist())) == 10, "the first images are of all classes"


def test_folders_of_splits_are_kept_and_classes_numbered_over_all(tmp_path):
    digits = data.load("mnist", "test")
    rows = {"train": digits.labels < 9, "validation": digits.labels > 3, "test": digits.labels != 5}
    for name, chosen in rows.items():
        few = data.Split("mnist", name, digits.images[chosen][:40], digits.labels[chosen][:40])
        _write_pictures(tmp_path / "cut" / name, few)
    for name, chosen in rows.items():
        split = data.load(tmp_path / "cut", name)
        assert _rows(split.images, split.labels) == _rows(digits.images[chosen][:40], digits.labels[chosen][:40])


def test_images_are_counted_as_they_are_loaded(tmp_path):
    for name in (
        "uncut/a/0.png",
        "uncut/a/1.png",
        "uncut/b/2.png",
        "cut/validation/a/0.png",
        "cut/test/a/1.png",
        "cut/test/a/2.png",
    ):
        _save(tmp_path / name)
    np.savez(tmp_path / "cut.npz", **{f"{split}_{kind}": np.zeros((n, 4, 5)[: 3 if kind == "images" else 1], np.uint8)
                                      for split, n in (("validation", 3), ("test", 2)) for kind in ("images", "labels")})  # fmt: skip
    for dataset in (tmp_path / "uncut", tmp_path / "cut", tmp_path / "cut.npz", "pictures", "digits.npz"):
        for split in ("validation", "test"):
            assert own_data.count(data.check(dataset), split) == len(data.load(dataset, split))


def test_pictures_are_grey_only_if_all_are(tmp_path):
    digits = data.load("mnist", "test").first(6)
    _write_pictures(tmp_path / "a", digits, "1")
    assert data.load(tmp_path / "a", "test").images.unique().tolist() == [0, 255]
    (tmp_path / "a" / ".hidden").write_text("passed over")
    _save(tmp_path / "a" / "digit 1" / "half.png", (32, 32), "LA")
    assert data.load(tmp_path / "a", "test").images.shape == (4, 1, 32, 32)
    (tmp_path / "a" / "digit 1" / "half.png").unlink()
    assert data.load(tmp_path / "a", "test").images.shape == (3, 1, 32, 32)
    _save(tmp_path / "a" / "digit 1" / "colour.png", (32, 32), "RGB")
    assert data.load(tmp_path / "a", "test").images.shape == (4, 3, 32, 32)
    _save(tmp_path / "a" / "digit 1" / "colour.png", (32, 32), "P")
    assert data.load(tmp_path / "a", "test").images.shape == (4, 3, 32, 32), "a palette counts as coloured"


def _save(file, size=(4, 5), mode="L"):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(file)


def _other_size(folder):
    _save(folder / "b" / "z.png", (6, 4))


def _text(folder):
    (folder / "a" / "notes.txt").write_text("not a picture")


def _cut_short(folder):
    Image.effect_noise((4, 5), 60).save(folder / "a" / "c.png")
    (folder / "a" / "c.png").write_bytes((folder / "a" / "c.png").read_bytes()[:-25])


def _deep_png(kind):
    """4x5 pixels of 16 bits a value; kinds as PNG numbers them: 2 colours, 4 grey and alpha, 6 colours and alpha."""
    row = b"\0" + b"\x12\x34" * 4 * {2: 3, 4: 2, 6: 4}[kind]
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 4, 5, 16, kind, 0, 0, 0), b"IDAT": zlib.compress(row * 5), b"IEND": b""}
    parts = [
        struct.pack(">I", len(held)) + name + held + struct.pack(">I", zlib.crc32(name + held)) for name, held in chunks.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _deep_tiff():
    """4x5 pixels in colours of 16 bits a value, one strip, not compressed."""
    tags = [
        (256, 4),
        (257, 5),
        (258, 122),
        (259, 1),
        (262, 2),
        (273, 128),
        (277, 3),
        (278, 5),
        (279, 120),
    ]  # 122: where the depths lie
    entries = b"".join(struct.pack("<HHII", tag, 3, 3 if tag == 258 else 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + struct.pack("<3H", 16, 16, 16) + b"\x34\x12" * 60


WRONG_FOLDERS = {
    "z.png has 6x4 pixels, .*0.png has 4x5; all must have the same size": _other_size,
    "notes.txt is not a readable picture": _text,
    "c.png is not a readable picture": _cut_short,
    "d.tif must have 8 bits for each value, got PIL's mode I;16": lambda f: _save(f / "a" / "d.tif", mode="I;16"),
    "d.png must have 8 bits for each value, got 16": lambda f: (f / "a" / "d.png").write_bytes(_deep_png(2)),
    "alpha.png must have 8 bits for each value, got 16": lambda f: (f / "a" / "alpha.png").write_bytes(_deep_png(6)),
    "grey.png must have 8 bits for each value, got 16": lambda f: (f / "a" / "grey.png").write_bytes(_deep_png(4)),
    "d.tiff must have 8 bits for each value, got 16": lambda f: (f / "a" / "d.tiff").write_bytes(_deep_tiff()),
    "d.ppm must have 8 bits for each value, got 16": lambda f: (f / "a" / "d.ppm").write_bytes(b"P6 4 5 1023\n" + bytes(120)),
    "plain.ppm must have 8 bits for each value, got 16": lambda f: (f / "a" / "plain.ppm").write_text(
        "P3 4 5 1023\n" + "9 " * 60
    ),
    "two classes whose names differ only in Unicode normal form, 'cafe.u0301' and 'caf.xe9'": lambda f: [
        _save(f / name / "0.png") for name in ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}")
    ],
    "deeper is a folder, where only pictures are allowed; splits are called train, validation": lambda f: (
        f / "a/deeper"
    ).mkdir(),
    "cannot be read: .*gone.png": lambda f: (f / "a" / "gone.png").symlink_to(f / "nowhere.png"),
    "empty holds no pictures": lambda f: (f / "empty").mkdir(),
    "must hold folders of classes, or validation and test .* got a, b, test": lambda f: _save(f / "test" / "a" / "0.png"),
}


@pytest.mark.parametrize("sentence", WRONG_FOLDERS)
def test_folders_of_another_form_are_refused(sentence, tmp_path):
    for name in ("a/0.png", "a/1.png", "b/2.png"):
        _save(tmp_path / "set" / name)
    assert len(data.load(tmp_path / "set", "test")) == 2
    WRONG_FOLDERS[sentence](tmp_path / "set")
    with pytest.raises(UserError, match=sentence):
        for split in ("validation", "test"):
            data.load(tmp_path / "set", split)


def test_names_that_are_not_utf_8_are_names_like_others(tmp_path):
    """A folder of pictures from an older system; its own path is in records, and must be UTF-8."""
    _save(tmp_path / "set" / "a" / "0.png")
    strange = os.fsdecode(b"caf\xe9")
    for name in (f"{strange}/{strange}.png", f"{strange}/1.png"):
        _save(tmp_path / "set" / name)
    labels = torch.cat([data.load(tmp_path / "set", split).labels for split in ("validation", "test")])
    assert sorted(labels.tolist()) == [0, 1, 1]
    before = data.identity(tmp_path / "set")
    (tmp_path / "set" / strange / "1.png").rename(tmp_path / "set" / strange / os.fsdecode(b"\xff.png"))
    assert data.identity(tmp_path / "set") != before
    (tmp_path / "set").rename(tmp_path / strange)
    refused("the path of data must be UTF-8, got '.*caf.udce9'", data.load, tmp_path / strange, "test")


def test_sixteen_bits_a_pixel_are_not_sixteen_bits_a_value(tmp_path):
    """A BMP with 5, 6 and 5 bits for its three colours is read as always."""
    _save(tmp_path / "set" / "a" / "0.png", mode="RGB")
    header = struct.pack("<IiiHHIIiiIIIII", 40, 4, 5, 1, 16, 3, 40, 0, 0, 0, 0, 0xF800, 0x07E0, 0x001F)
    (tmp_path / "set" / "a" / "1.bmp").write_bytes(b"BM" + struct.pack("<III", 106, 0, 66) + header + b"\xff" * 40)
    images = torch.cat([data.load(tmp_path / "set", split).images for split in ("validation", "test")])
    assert images.shape == (2, 3, 5, 4) and images.unique().tolist() == [0, 255]


def test_an_empty_folder_and_a_split_that_is_not_there_are_refused(tmp_path):
    (tmp_path / "set").mkdir()
    refused("set must hold a folder of pictures for each class, got none", data.load, tmp_path / "set", "test")
    for name in ("validation/a/0.png", "test/a/1.png"):
        _save(tmp_path / "set" / name)
    refused("set has no split 'train'; it holds validation, test", data.load, tmp_path / "set", "train")


def test_the_identity_of_data_changes_with_any_file_and_with_nothing_else(tmp_path):
    for name in ("a/0.png", "a/1.png", "b/2.png"):
        _save(tmp_path / "set" / name)
    before = data.identity(tmp_path / "set")
    (tmp_path / "set" / "README").write_text("not of it")
    assert data.identity(tmp_path / "set") == before and data.identity("mnist") is None
    (tmp_path / "set").rename(tmp_path / "moved")
    assert data.identity(tmp_path / "moved") == before
    (tmp_path / "moved" / "a" / "1.png").rename(tmp_path / "moved" / "b" / "1.png")
    moved = data.identity(tmp_path / "moved")
    _save(tmp_path / "moved" / "a" / "0.png", mode="RGB")
    assert len({before, moved, data.identity(tmp_path / "moved")}) == 3


def test_a_grid_reads_weights_and_data_once():
    caches = own_data._digest, checkpoints._own_identity
    specs = runs.grid(["own_net:Small"], [RULE], seeds=range(20), dataset="pictures", weights="small.bin", k_max=3)
    assert len({spec.hash for spec in specs}) == 20
    before = [cache.cache_info().misses for cache in caches]
    assert len({replace(spec, seed=99).measured().hash for spec in specs}) == 1
    assert [cache.cache_info().misses for cache in caches] == before


# --- network and data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        ("own_net:few", "Sequential has 3 outputs, but digits.npz@.{8} has images of class 9"),
        ("own_net:wide", r"must give logits of shape \(2, classes\) for 2 images, got \(2, 5, 2\)"),
        ("own_net:Several", "must give logits .* got tuple"),
    ],
)
def test_a_network_whose_outputs_do_not_fit_is_refused(network, sentence):
    refused(sentence, runs.evaluator, Setting(network, dataset="digits.npz"), device="cpu", threads=1)


def test_a_network_may_use_the_name_sequence_for_something_else():
    plans = [[1], [3]]
    counts = [
        runs.evaluator(Setting(network, dataset="digits.npz"), device="cpu", threads=1).correct(plans)
        for network in ("own_net:Named", "own_net:constant")
    ]
    np.testing.assert_array_equal(*counts)


def test_images_that_the_network_cannot_take_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", images=np.zeros((4, 3, 20, 20), np.uint8), labels=np.zeros(4, int))
    for setting in (own(dataset=tmp_path / "other.npz"), Setting("lenet5_tanh", dataset=tmp_path / "other.npz")):
        refused(r"cannot take images of shape \(3, 20, 20\), those of other.npz@.{8} \(RuntimeError", runs.evaluator, setting)
    splits = {"validation_images": np.zeros((4, 1, 32, 32), np.uint8), "test_images": np.zeros((4, 1, 28, 28), np.uint8)}
    np.savez(tmp_path / "two.npz", **splits, validation_labels=np.zeros(4, int), test_labels=np.zeros(4, int))
    refused(r"one shape in all splits, got \(1, 32, 32\) and \(1, 28, 28\)", runs.evaluator, own(dataset=tmp_path / "two.npz"))


# --- settings -------------------------------------------------------------------------------------------------------------------


def test_paths_are_kept_absolute_and_are_not_part_of_the_name(home, tmp_path):
    spec = own()
    assert spec.weights == str(home / "small.safetensors") and spec.dataset == str(home / "digits.npz")
    for name in ("small.pt", "digits.npz"):
        (tmp_path / name).write_bytes((home / name).read_bytes())
    assert own(weights=tmp_path / "small.pt", dataset=tmp_path / "digits.npz").hash == spec.hash
    assert own(weights=tmp_path / "small.pt").labels() == spec.labels()


def test_other_weights_data_or_grouping_have_other_names(tmp_path):
    torch.save(_changed_state(lambda state: state["head.bias"].add_(1)), tmp_path / "other.pt")
    np.savez(tmp_path / "other.npz", images=EIGHT, labels=LABELS)
    others = [own(weights=tmp_path / "other.pt"), own(dataset=tmp_path / "other.npz"), own(whole_net=True), own(), own(seed=1)]
    assert len({spec.hash for spec in others}) == 5
    assert len({spec.measured().hash for spec in others}) == 4
    refused("whole_net must be True or False, got 1", own, whole_net=1)


def test_files_that_change_after_they_were_chosen_are_noticed(tmp_path):
    file = tmp_path / "weights.pt"
    torch.save(_changed_state(lambda state: None), file)
    runner, spec = runner_in(tmp_path / "outputs"), own(weights=file)
    before = runner.run(spec)
    torch.save(_changed_state(lambda state: state["head.bias"][0].add_(50)), file)
    refused("weights of own_net:Small or data of .* have changed", runner_in(tmp_path / "other").run, spec)
    again = own(weights=file)
    after = runner.run(again)
    assert again == spec and again.hash != spec.hash
    assert before["validation_accuracy"].max() > 0.5 > after["validation_accuracy"].max()
    pd.testing.assert_frame_equal(runner.run(spec), before)


@pytest.mark.parametrize(
    "changed", [{}, {"whole_net": True}, {"ks": (2, 3)}, {"dataset": "pictures", "search": "black_hole"}], ids=str
)
def test_a_description_gives_the_specification_back(changed):
    spec = own(**changed)
    for values in (spec.describe(), json.loads(json.dumps(spec.describe()))):
        assert from_description(values) == spec and from_description(values).hash == spec.hash


def test_a_description_of_a_network_of_this_library_gives_the_specification_back():
    spec = Specification("lenet5_tanh", RULE, threshold=None, settings={"mutation": 0.3}, images=100)
    assert from_description(json.loads(json.dumps(spec.describe()))) == spec


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"speed": 3}, "unknown entry of a search's description 'speed'; allowed: network, "),
        ({"seed": None}, "seed must be a whole number"),
        ({"target": 3}, "description of a search is wrong"),
        ({"target": {"accuracy": 1, "rate": 2, "hope": 3}}, "description of a search is wrong .*hope"),
        ({"schema": 2}, "a search of schema 2 cannot be resumed; this version writes schema 3"),
        ({"checkpoint": "beb2"}, "weights of own_net:Small have changed since the search: SHA-256 .* now, beb2 then"),
        ({"data": "beb2"}, "data of .*digits.npz have changed since the search: SHA-256 .* now, beb2 then"),
        ({"weights": "/nowhere/small.pt"}, "/nowhere/small.pt is missing"),
    ],
    ids=str,
)
def test_a_description_that_no_longer_holds_is_refused(change, sentence):
    refused(sentence, from_description, own().describe() | change)


@pytest.mark.parametrize("name", ["network", "target", "seed", "settings", "schema", "checkpoint"])
def test_a_description_that_leaves_something_out_is_refused(name):
    values = own().describe()
    del values[name]
    refused(f"the description of a search must hold {name}", from_description, values)
    refused("must be a mapping, got list", from_description, [name])


# --- searches -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(home, tmp_path_factory):
    """A grid on a user's own network and data, run by this process: its folder and specifications."""
    folder, specs = tmp_path_factory.mktemp("outputs"), [own(search=search, seed=1) for search in ("random", "genetic")]
    specs += [own(whole_net=True, threshold=0.3), own(dataset="pictures")]
    runner_in(folder).run_all(specs)
    return folder, specs


def test_two_workers_give_the_same_records_as_one(searched, tmp_path):
    folder, specs = searched
    table = runner_in(tmp_path / "two", workers=2).run_all(specs)
    assert runs.records_hash(tmp_path / "two") == runs.records_hash(folder)
    pd.testing.assert_frame_equal(table, runner_in(folder).run_all(specs))


def test_workers_of_a_scheduler_that_stand_elsewhere_give_the_same_records(searched, home, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="dask is the extra weightlab[cluster]")
    folder, specs = searched
    (tmp_path / "elsewhere").mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path / "elsewhere")
        patch.setattr(sys, "path", [place for place in sys.path if place != str(home)])
        cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None)
    with cluster:
        runner_in(tmp_path / "dask", scheduler=cluster.scheduler_address).run_all(specs[:2])
    names = [spec.hash for spec in specs[:2]]
    assert runs.records_hash(tmp_path / "dask") == runs.records_hash(folder, names)


def test_workers_look_for_a_network_wherever_their_caller_does(home, tmp_path, monkeypatch):
    """As for a notebook that names the folder of its module, with workers that were there before."""
    distributed = pytest.importorskip("distributed", reason="dask is the extra weightlab[cluster]")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "net_told_of.py").write_text(MODULE)
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None)
    with cluster, monkeypatch.context() as patch:
        patch.setattr(sys, "path", sys.path.copy())
        own_networks.look_in(tmp_path / "modules")
        spec = Specification("net_told_of:Small", RULE, **COMMON | {"budget": 3, "settings": {"batch": 3}})
        assert len(runner_in(tmp_path / "dask", scheduler=cluster.scheduler_address).run_all([spec])) == 3


def test_a_search_that_fails_alone_says_so(tmp_path):
    spec = own(threshold=1.1)
    refused(
        "^the search failed: threshold 1.1 is above the accuracy of the unshared network, 0",
        runner_in(tmp_path).run_all,
        [spec],
    )


def test_recorded_accuracies_are_those_of_the_shared_network(searched):
    folder, specs = searched
    for spec in specs:
        records = runner_in(folder).run(spec)
        model, splits = models.load(spec.network, weights=spec.weights), [data.load(spec.dataset, "validation")]
        example = answers.fitting_images(model, splits)
        for row in (0, len(records) - 1):
            plan = records["plan"][row].tolist()
            shared, report = sharing.share(model, plan[0] if spec.whole_net else plan, example=example)
            assert records["validation_accuracy"][row] == training.accuracy(shared, splits[0], "cpu")
            assert report["layer"].tolist() == (["whole net"] if spec.whole_net else ["left", "right", "head"])


def test_records_and_status_name_network_and_data(searched):
    folder, specs = searched
    records, states = runs.read(folder), status.survey(folder)
    identity = models.identity("own_net:Small", "small.pt")
    assert records["network"].unique().tolist() == [f"own_net:Small@{identity[:8]}"]
    assert {name.split("@")[0] for name in records["dataset"]} == {"digits.npz", "pictures"}
    assert (states["state"] == "complete").all() and set(states["network"]) == {"own_net:Small"}
    assert "4 of 4 searches complete" in status.summary(states)
    for spec in specs:
        kept = json.loads((folder / spec.hash / "specification.json").read_text())
        assert from_description(kept) == spec


@pytest.mark.parametrize("search", ["random", "genetic", "particle_swarm", "black_hole"])
def test_every_search_works_on_one_k_for_the_whole_net(search, tmp_path):
    spec = own(search=search, whole_net=True, threshold=0.3, k_max=16, budget=60)
    runner = runner_in(tmp_path)
    records = runner.run(spec)
    scan = runner.scan(spec)
    assert scan["name"].unique().tolist() == ["whole net"] and len(scan) == 16
    plans = np.stack(records["plan"])
    assert plans.shape[1] == 1 and len(np.unique(plans)) > 3
    allowed = scan.loc[scan["validation_accuracy"] >= 0.3, "k"]
    assert np.isin(plans, allowed).all()
    # With all others unshared there are none: alone in the scan, a whole-net k is the plan itself.
    accuracy = scan.set_index("k")["validation_accuracy"]
    assert (records["validation_accuracy"].to_numpy() == accuracy[plans[:, 0]].to_numpy()).all()


def test_a_whole_net_search_survives_interruption(tmp_path, monkeypatch):
    spec = own(search="black_hole", whole_net=True, k_max=16, budget=80)
    whole = runner_in(tmp_path / "whole")
    whole.run(spec)
    monkeypatch.setattr("time.monotonic", iter(range(0, 10_000, 2)).__next__)  # a checkpoint after each generation
    runner = runner_in(tmp_path / "cut")
    measure, calls = runner._measure(spec), []

    def interrupted(plans):
        calls.append(len(plans))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(plans)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "_measure", lambda spec: interrupted)
        with pytest.raises(KeyboardInterrupt):
            runner.run(spec)
    assert (tmp_path / "cut" / spec.hash / "checkpoint.parquet").exists()
    runner.run(spec)
    assert runs.records_hash(tmp_path / "cut") == runs.records_hash(tmp_path / "whole")


def test_a_setting_is_unchanged_by_looking_at_it():
    spec = own()
    before = asdict(spec)
    assert spec.hash and spec.describe() and spec.measured() and asdict(spec) == before
    assert pickle.loads(pickle.dumps(spec)) == spec
