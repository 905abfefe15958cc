"""Images of a user's own: an `.npz` file, or a folder of pictures by class.

An `.npz` file holds `images`, uint8 (n, channels, height, width), (n, height, width) or (n, height, width, 1 or 3), and `labels`,
integers (n,), which one fixed permutation cuts into validation and test halves; or `validation_images`, `validation_labels`,
`test_images` and `test_labels` (perhaps `train_…`), used as they are.

A folder holds `CLASS/PICTURE`, cut into the same halves, or `validation/CLASS/PICTURE` and `test/CLASS/PICTURE` (perhaps `train/…`).
Classes are numbered by sorted name over all splits. Where all pictures are grey (PIL's modes L, LA and 1) images have one channel,
else three; a palette always counts as coloured, and transparency is dropped. Names that begin with a dot are ignored.

A network gets value/255, as with all datasets; it must standardise images itself if it was trained on such.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from weightlab import backend, rng
from weightlab.errors import UserError, flat

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

Result = TypeVar("Result")
SPLITS = ("train", "validation", "test")
SEED = 42  # of the permutations
ARRAYS = "images and labels, or validation_images, validation_labels, test_images and test_labels"


def absolute(path: str | Path) -> str | None:
    """The absolute path of an `.npz` file or a folder; None if there is none.

    Raises `UserError` for a path that is not UTF-8, which records cannot hold; the files below it may have any names.
    """
    if not isinstance(path, str | os.PathLike):
        return None
    place = Path(os.path.abspath(path))
    if not (place.is_dir() or (place.is_file() and place.suffix == ".npz")):
        return None
    try:
        str(place).encode()
    except UnicodeEncodeError:
        raise UserError(f"the path of data must be UTF-8, got {str(place)!a}; rename the file or folder") from None
    return str(place)


def identity(path: str) -> str:
    """SHA-256 of an `.npz` file, or of all pictures of a folder and their names; files that have not changed are read once."""
    try:
        if os.path.isfile(path):
            names, stats = [""], [os.stat(path)]
        else:
            entries = [entry for entries in _pictures(Path(path)).values() for entry in entries]
            names, stats = [entry.path.removeprefix(f"{path}/") for entry in entries], [entry.stat() for entry in entries]
        return _digest(path, tuple(names), tuple((stat.st_size, stat.st_mtime_ns) for stat in stats))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from None


@lru_cache(maxsize=32)
def _digest(path: str, names: tuple[str, ...], versions: tuple[tuple[int, int], ...]) -> str:
    """`versions`, sizes and times, make the cache notice a changed file."""
    digest = hashlib.sha256()
    for name in names:
        with open(Path(path) / name, "rb") as file:
            digest.update(os.fsencode(f"{name}\n") + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def load(path: str, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, uint8 (n, channels, height, width), and labels, int64 (n,), of a split.

    Raises `UserError` for data that are missing, unreadable or of another form than this module's, and for a missing split.
    """
    images, labels = (_load_arrays if Path(path).is_file() else _load_pictures)(Path(path), split)
    return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.astype(np.int64))


def count(path: str, split: str) -> int:
    """The number of images of a split, without reading them; raises `UserError` as `load` does for a missing split."""
    place = Path(path)
    if place.is_file():
        labels, whole = _read_arrays(place, split, ("labels",))
        return len(_half(len(labels[0]), split, place)) if whole else len(labels[0])
    pictures = _pictures(place)
    return len(_half(len(pictures[""]), split, place)) if "" in pictures else len(pictures[split])


def _half(n: int, split: str, place: Path) -> np.ndarray:
    """The rows of `n` that belong to a split of data that are not divided yet."""
    if split == "train":
        raise UserError(f"{place} has no split 'train': it is cut into validation and test halves")
    if n < 2:
        raise UserError(f"{place} must hold at least 2 images to be cut into validation and test halves, got {n}")
    order = rng.permutation(SEED, "own", n)
    return order[: n // 2] if split == "validation" else order[n // 2 :]


# --- arrays ---------------------------------------------------------------------------------------------------------------------


def _read_arrays(file: Path, split: str, kinds: tuple[str, ...]) -> tuple[list[np.ndarray], bool]:
    """Arrays of a split, and whether the split must still be cut out of them; raises `UserError` for a file of another form."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            whole = "images" in archive.files
            if whole and any(f"{name}_images" in archive.files for name in SPLITS):
                raise UserError(f"{file} must hold either {ARRAYS}; got {', '.join(archive.files)}")
            names = [_array(kind, split, whole) for kind in kinds]
            if missing := [name for name in names if name not in archive.files]:
                raise UserError(f"{file} holds no {missing[0]}; it must hold {ARRAYS}, got {', '.join(archive.files)}")
            return [archive[name] for name in names], whole
    except UserError:
        raise
    except Exception as error:  # a foreign file can make numpy raise nearly anything
        raise UserError(f"{file} is not a readable .npz file of plain arrays ({flat(error)[:200]})") from None


def _array(kind: str, split: str, whole: bool) -> str:
    return kind if whole else f"{split}_{kind}"


def _load_arrays(file: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    (images, labels), whole = _read_arrays(file, split, ("images", "labels"))
    images = _channels_first(images, f"{file}: {_array('images', split, whole)}")
    _check_labels(labels, len(images), f"{file}: {_array('labels', split, whole)}")
    if not whole:
        return images, labels
    rows = _half(len(labels), split, file)
    return images[rows], labels[rows]


def _check_labels(labels: np.ndarray, n: int, name: str) -> None:
    """Raise `UserError` unless labels are `n` classes that int64 can hold."""
    whole = labels.dtype.kind in "iu" and labels.size > 0
    if not whole or labels.shape != (n,) or labels.min() < 0 or labels.max() > np.iinfo(np.int64).max:
        raise UserError(
            f"{name} must be classes from 0, integers ({n},), one for each image and below 2^63, "
            f"got {labels.dtype} {labels.shape}" + (f" from {labels.min()} to {labels.max()}" if whole else "")
        )


def _channels_first(images: np.ndarray, name: str) -> np.ndarray:
    """Images as uint8 (n, channels, height, width)."""
    if images.dtype != np.uint8:
        raise UserError(f"{name} must be uint8, values 0 to 255 (networks get value/255), got {images.dtype}")
    if images.ndim not in (3, 4) or not images.size:
        raise UserError(f"{name} must have the shape (n, channels, height, width) or (n, height, width), got {images.shape}")
    if images.ndim == 3:
        return images[:, None]
    last = images.shape[3] in (1, 3) and images.shape[1] not in (1, 3)
    return images.transpose(0, 3, 1, 2) if last else images


# --- pictures -------------------------------------------------------------------------------------------------------------------


def _load_pictures(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    pictures = {part: [Path(entry.path) for entry in entries] for part, entries in _pictures(folder).items()}
    everything = [file for files in pictures.values() for file in files]
    numbers = _numbered({file.parent.name for file in everything}, folder)
    mode = _common_mode(everything)
    if "" in pictures:
        files = [pictures[""][row] for row in _half(len(everything), split, folder)]
    elif split in pictures:  # permuted, so that the first images are of all classes
        files = [pictures[split][row] for row in rng.permutation(SEED, "own", len(pictures[split]))]
    else:
        raise UserError(f"{folder} has no split {split!r}; it holds {', '.join(pictures)}")
    with ThreadPoolExecutor(backend.cores()) as pool:
        images = np.stack(list(pool.map(lambda file: _pixels(file, mode), files)))
    return images, np.array([numbers[file.parent.name] for file in files])


def _numbered(classes: set[str], folder: Path) -> dict[str, int]:
    """The number of each class; raises `UserError` for two that only their Unicode normal form tells apart."""
    by_normal_form: dict[str, str] = {}
    for name in sorted(classes):
        other = by_normal_form.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise UserError(
                f"{folder} has two classes whose names differ only in Unicode normal form, {other!a} and {name!a}; rename one folder"
            )
    return {name: number for number, name in enumerate(sorted(classes))}


def _pictures(folder: Path) -> dict[str, list[os.DirEntry]]:
    """Files of each split, by class and name; all under the split "" if they are not divided into splits."""
    names = [entry.name for entry in _entries(folder) if entry.is_dir()]
    parts = {name: folder / name for name in SPLITS if name in names} or {"": folder}
    if "" not in parts and not {"validation", "test"} <= set(names) <= set(SPLITS):
        raise UserError(f"{folder} must hold folders of classes, or validation and test (perhaps train), got {', '.join(names)}")
    pictures = {
        split: [file for entry in _entries(part) if entry.is_dir() for file in _files(entry)] for split, part in parts.items()
    }
    if empty := [parts[split] for split, files in pictures.items() if not files]:
        raise UserError(f"{empty[0]} must hold a folder of pictures for each class, got none")
    return pictures


def _files(entry: os.DirEntry) -> list[os.DirEntry]:
    if not (entries := _entries(entry.path)):
        raise UserError(f"{entry.path} holds no pictures; delete it or fill it, because classes are numbered by their folders")
    for inner in entries:
        if inner.is_dir():
            raise UserError(f"{inner.path} is a folder, where only pictures are allowed; splits are called {', '.join(SPLITS)}")
    return entries


def _entries(folder: str | Path) -> list[os.DirEntry]:
    """The entries of a folder, sorted, without hidden ones."""
    try:
        return sorted((entry for entry in os.scandir(folder) if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error}") from None


def _common_mode(files: list[Path]) -> str:
    """PIL's mode for all of them: L if all are grey, else RGB; raises `UserError` unless they have one size and 8 bits a value."""
    headers = [_opened(file, lambda picture: (picture.size, picture.mode, _is_deep(picture))) for file in files]
    sizes, modes, deep = zip(*headers, strict=True)
    for file, size, mode, too_deep in zip(files, sizes, modes, deep, strict=True):
        if size != sizes[0]:
            raise UserError(
                f"{file} has {size[0]}x{size[1]} pixels, {files[0]} has {sizes[0][0]}x{sizes[0][1]}; all must have the same size"
            )
        if mode.startswith(("I", "F")) or too_deep:
            depth = "16" if too_deep else f"PIL's mode {mode}"
            raise UserError(f"{file} must have 8 bits for each value, got {depth}")
    return "L" if {*modes} <= {"L", "LA", "1"} else "RGB"


def _is_deep(picture: "ImageFile") -> bool:
    """Whether values have 16 bits in the file (PNG, TIFF, PPM, SGI); PIL would silently drop the lower 8 of colours."""
    for codec, _, _, how in picture.tile:
        wide = codec.startswith("ppm") and isinstance(how, tuple) and how[0] == "RGB" and how[1] > 255
        if codec == "SGI16" or re.search(";16[BLN]", str(how)) or wide:
            return True
    return False


def _pixels(file: Path, mode: str) -> np.ndarray:
    """uint8 (channels, height, width)."""
    picture = _opened(file, lambda picture: np.asarray(picture.convert(mode)))
    return picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)


def _opened(file: Path, reader: Callable[["ImageFile"], Result]) -> Result:
    """What `reader` returns for a picture, of which only the header has been read."""
    from PIL import Image

    try:
        with Image.open(file) as picture:
            return reader(picture)
    except Exception as error:  # a foreign file can make PIL raise nearly anything
        raise UserError(f"{file} is not a readable picture ({flat(error)[:200]})") from None
