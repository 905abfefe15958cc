"""Datasets as tensors with fixed splits."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from weightlab import backend, errors, paths, rng
from weightlab.data import cifar, downloads
from weightlab.data import own as own_data
from weightlab.data.downloads import CHECKSUMS, DATASETS, PICTURES
from weightlab.data.own import SPLITS
from weightlab.errors import UserError, check_whole, choose

SPLIT_SEED = 42  # the same halving of the 10 000 test images for both MNIST sets; another for CIFAR-10
IMAGE_SIZE = 32
PICTURE_SIZE, SHORTER_SIDE = 224, 256  # pixels: of an Imagenette picture, and of its shorter side before its centre is cut out
SHAPES = {  # of an image: channels, height, width
    **dict.fromkeys(CHECKSUMS, (1, IMAGE_SIZE, IMAGE_SIZE)),
    "cifar10": cifar.SHAPE,
    **dict.fromkeys(PICTURES, (3, PICTURE_SIZE, PICTURE_SIZE)),
}
IMAGENET_INDEX = {  # of the folders of Imagenette, then of the dog breeds that Imagewang has besides
    "n01440764": 0, "n02102040": 217, "n02979186": 482, "n03000684": 491, "n03028079": 497,
    "n03394916": 566, "n03417042": 569, "n03425413": 571, "n03445777": 574, "n03888257": 701,
    "n02086240": 155, "n02087394": 159, "n02088364": 162, "n02089973": 167, "n02093754": 182,
    "n02096294": 193, "n02099601": 207, "n02105641": 229, "n02111889": 258, "n02115641": 273,
}  # fmt: skip


@dataclass(frozen=True)
class Split:
    """Images and their classes; `images` uint8 (n, channels, height, width), used as value/255; `labels` int64 (n,).

    >>> split = Split("mine", "test", torch.zeros(100, 1, 32, 32, dtype=torch.uint8), torch.zeros(100, dtype=torch.int64))
    >>> len(split), len(split.first(10))
    (100, 10)
    """

    dataset: str
    name: str
    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, n: int | None) -> "Split":
        """The first `n` images (all when None); raises `UserError` for anything but None or a whole number from 1."""
        if n is None:
            return self
        check_whole("images", n, other="None or ")
        return Split(self.dataset, self.name, self.images[:n], self.labels[:n])


def check(dataset: str | Path) -> str:
    """One of `DATASETS`, or the absolute path of a user's own `.npz` file or folder; raises `UserError` for anything else."""
    place = None if dataset in DATASETS else own_data.absolute(dataset)
    if place is None:
        choose("dataset", dataset, (*DATASETS, "the path of an existing .npz file or folder of pictures by class"))
    return place or str(dataset)


def identity(dataset: str) -> str | None:
    """SHA-256 over the contents of a user's own data; None for `DATASETS`, which are always the same."""
    return None if dataset in DATASETS else own_data.identity(check(dataset))


def label(dataset: str) -> str:
    """The name of a dataset in tables; for a user's own the file's name and the first digits of its contents' SHA-256."""
    digest = identity(dataset)
    return dataset if digest is None else f"{Path(check(dataset)).name}@{digest[:8]}"


def load(dataset: str, split: str, folder: str | Path | None = None, first: int | None = None) -> Split:
    """One split of a dataset, downloading it first where needed, or of a user's own data (see `data.own`).

    With `first` only its first images; of MNIST's 60 000 training images only those are then prepared.

    MNIST and Fashion-MNIST: 60 000 / 5 000 / 5 000; validation and test are the two halves of the 10 000 test images, cut by one
    fixed permutation (thesis 5). Each 28x28 image goes through torchvision's `Resize((32, 32))`.
    CIFAR-10: 50 000 / 5 000 / 5 000 images of 3x32x32, cut by the same rule.
    Imagenette: 9 469 / 1 177 / 2 748, Imagewang, which is never downloaded: 14 669 / 1 178 / 2 751; a fixed permutation of the
    files in `val`, sorted by name, gives its first 70 % to test (thesis 5.7). Pictures are 3x224x224, labels ImageNet's 1 000.
    A `folder` with `train` and `val` may stand for one of these two, with any number of files.
    Raises `UserError` for unknown names, and if the data can neither be found nor downloaded, or are not as expected.
    """
    dataset = check(dataset)
    choose("split", split, SPLITS)
    if first is not None:
        check_whole("images", first)
    if dataset in PICTURES:
        return Split(dataset, split, *_load_pictures(dataset, split, folder)).first(first)
    if folder is not None:
        raise UserError(f"a folder can be given for {', '.join(PICTURES)}, not for {dataset}: got {folder}")
    if dataset not in DATASETS:
        return Split(label(dataset), split, *own_data.load(dataset, split)).first(first)
    folder = downloads.fetch(dataset)
    coloured = dataset == "cifar10"
    if split == "train":
        images, labels = cifar.read(folder, "train") if coloured else _read_digits(folder, "train", first)
    else:
        images, labels = cifar.read(folder, "test") if coloured else _read_test_digits(folder)
        order = rng.permutation(SPLIT_SEED, "cifar10" if coloured else "mnist", len(labels))
        half = len(labels) // 2
        rows = order[:half] if split == "validation" else order[half:]
        images, labels = images[rows], labels[rows]
    return Split(dataset, split, torch.from_numpy(images), torch.from_numpy(labels)).first(first)


def _read_digits(folder: Path, part: str, first: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (n, 1, 32, 32), and labels, int64 (n,), of one of MNIST's two parts, or the first of them."""
    images, labels = (_read_idx(folder / f"{part}-{what}-ubyte")[:first] for what in ("images-idx3", "labels-idx1"))
    return _resized(images), labels.astype(np.int64)


@lru_cache(maxsize=2)
def _read_test_digits(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """As `_read_digits`, kept: a notebook asks for them dozens of times, and `downloads.fetch` lets only one content pass."""
    return _read_digits(folder, "t10k")


def _read_idx(path: Path) -> np.ndarray:
    """A raw idx file of unsigned bytes: two zero bytes, type 8, number of axes, the axes' lengths (big-endian), the values."""
    raw = path.read_bytes()
    axes = raw[3]
    shape = np.frombuffer(raw, ">i4", count=axes, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _resized(images: np.ndarray) -> np.ndarray:
    """uint8 (n, 28, 28) -> uint8 (n, 1, 32, 32), each by PIL's bilinear resize.

    torchvision's `Resize`, which the thesis used, calls just this; to import torchvision costs a process two seconds. PIL resizes rows, then
    columns; here it gets the rows of all images at once, then all columns.
    """
    wide = _rows_resized(images)
    return np.ascontiguousarray(_rows_resized(wide.transpose(0, 2, 1)).transpose(0, 2, 1))[:, None]


def _rows_resized(images: np.ndarray) -> np.ndarray:
    """uint8 (n, rows, columns) -> uint8 (n, rows, 32)."""
    from PIL import Image

    n, rows, columns = images.shape
    tall = Image.fromarray(images.reshape(n * rows, columns))
    return np.asarray(tall.resize((IMAGE_SIZE, n * rows), Image.Resampling.BILINEAR)).reshape(n, rows, IMAGE_SIZE)


def _load_pictures(dataset: str, split: str, folder: str | Path | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, uint8 (n, 3, 224, 224), and ImageNet labels, int64 (n,), of a split of Imagenette or Imagewang."""
    part = "train" if split == "train" else "val"
    place = (downloads.fetch(dataset) if folder is None else paths.resolve(folder)) / part
    try:
        files = backend.torchvision().datasets.ImageFolder(place)
    except OSError as error:
        raise UserError(f"{place} is not a folder of pictures by class: {errors.last_line(error)}") from None
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
    rows = [samples[row] for row in order]
    images = torch.empty(len(rows), 3, PICTURE_SIZE, PICTURE_SIZE, dtype=torch.uint8)
    with ThreadPoolExecutor(backend.cores()) as pool:
        for row, picture in enumerate(pool.map(_picture, [file for file, _ in rows])):
            images[row] = picture
    return images, torch.tensor([IMAGENET_INDEX[files.classes[number]] for _, number in rows])


def _picture(file: str) -> torch.Tensor:
    """A picture as MobileNet_v2's ImageNet weights want it, before standardising: uint8 (3, 224, 224)."""
    from PIL import Image

    transforms = backend.torchvision().transforms
    try:
        picture = transforms.Resize(SHORTER_SIDE)(Image.open(file).convert("RGB"))
    except OSError as error:
        raise UserError(f"{file} is not a readable picture ({errors.last_line(error)}); restore it") from None
    return transforms.PILToTensor()(transforms.CenterCrop(PICTURE_SIZE)(picture))
