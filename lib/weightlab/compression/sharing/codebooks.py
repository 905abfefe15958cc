"""The codebooks of a network, each made once and kept in memory, and on disk for other processes and later runs."""

import hashlib
import json
import warnings
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import nn

from weightlab import accounting, formats, models, paths, storage
from weightlab.compression import contract
from weightlab.compression.sharing import clustering
from weightlab.compression.sharing.clustering import Codebook
from weightlab.errors import choose

WHOLE_NET = "whole net"
KEPT_BYTES = 128 << 20  # labels of codebooks
SCHEMA = 1  # raised whenever files of an older kind may no longer be used


class Codebooks:
    """The codebooks of one network for one method and format, each made once, when first asked for.

    The weights of a group share one codebook: a layer, or with `whole_net` all layers together. With the exact method the first request
    for a group makes all of `ks` in one pass. `example` (one input batch) finds the forward order, see `models.layers`. In
    `folder`, if given, codebooks are kept under a hash of weights, method, format and k; several processes may share it.

    >>> books = Codebooks(models.build("lenet5_tanh"), format="float16")
    >>> books.names[:2], books.get(group=0, k=4).centroids.shape
    (['feature_extractor.0', 'feature_extractor.3'], (4,))
    >>> print(books.rates([4, 8, 16, 8, 4])["storage_rate"].round(2))
    8.48
    """

    def __init__(
        self,
        model: nn.Module,
        method: str = "exact",
        format: str = "float32",
        ks: Iterable[int] = range(1, 51),
        whole_net: bool = False,
        example: torch.Tensor | None = None,
        folder: str | Path | None = None,
    ):
        choose("clustering method", method, clustering.METHODS)
        self.method, self.format, self.whole_net = method, formats.get(format).name, whole_net
        self.layers = models.layers(model, example)
        if sentence := models.left_out(model, self.layers):
            warnings.warn(sentence, stacklevel=3)
        weights = [models.weight(model, layer.name).detach().cpu().float().numpy().ravel() for layer in self.layers]
        self._groups = [np.concatenate(weights)] if whole_net else weights
        self._ks = list(ks)
        self._folder = None if folder is None else paths.resolve(folder)
        self._books: OrderedDict[tuple[int, int], Codebook] = OrderedDict()  # the most recent, `KEPT_BYTES` of them
        self._stored: dict[tuple[int, int], Kept] = {}

    @property
    def names(self) -> list[str]:
        """Names of the groups."""
        return [WHOLE_NET] if self.whole_net else [layer.name for layer in self.layers]

    @property
    def weights(self) -> np.ndarray:
        """Number of weights of each group, int64 (groups,)."""
        return np.array([len(group) for group in self._groups])

    def describe(self) -> dict:
        """What they depend on, JSON-ready: method, format, grouping, and a hash of the weights."""
        digest = hashlib.sha256(b"".join(group.tobytes() for group in self._groups)).hexdigest()
        return {"method": self.method, "format": self.format, "whole_net": self.whole_net, "weights": digest}

    def original(self, group: int) -> np.ndarray:
        """The unshared weights of a group, float32 (weights,)."""
        return self._groups[group]

    def get(self, group: int, k: int) -> Codebook:
        """The codebook of a group with k clusters; raises `UserError` for k outside 1..65 536."""
        clustering.check_k(k)
        if (group, k) in self._books:
            self._books.move_to_end((group, k))
            return self._books[group, k]
        if (group, k) not in self._stored:
            ks = sorted({*self._ks, int(k)}) if self.method == "exact" else [int(k)]
            self._stored |= {(group, each): stored for each, stored in self._fetch(group, ks).items()}
        book = self._books[group, k] = unpacked(*self._stored[group, k], self._groups[group])
        while len(self._books) > 1 and sum(each.labels.nbytes for each in self._books.values()) > KEPT_BYTES:
            self._books.popitem(last=False)
        return book

    @property
    def groups(self) -> np.ndarray:
        """The group of each layer, int64 (layers,)."""
        return np.zeros(len(self.layers), np.int64) if self.whole_net else np.arange(len(self.layers))

    def count(self, group: int) -> int:
        """The largest k: a variant is a number of clusters."""
        return clustering.K_MAX

    def weight(self, layer: int, variant: int) -> torch.Tensor:
        """The shared weights of one layer, float32 of its shape; from a whole-net codebook only the layer's part."""
        return self.part(layer, self.get(0 if self.whole_net else layer, variant))

    def part(self, layer: int, book: Codebook) -> torch.Tensor:
        """The weights of a layer from the codebook of its group, float32 of its shape."""
        start = sum(each.weights for each in self.layers[:layer]) if self.whole_net else 0
        values = book.values()[start : start + self.layers[layer].weights]
        return torch.from_numpy(values).reshape(self.layers[layer].shape)

    def bits(self, plans: np.ndarray) -> np.ndarray:
        """Stored bits of each group, int64 (..., groups)."""
        return accounting.stored_bits(self.weights, plans, self.format)

    def thesis_bits(self, plans: np.ndarray) -> np.ndarray:
        """Bits of each group by the denominator of equation 3.2, int64 (..., groups)."""
        return accounting.thesis_bits(self.weights, plans, self.format)

    def stored(self, group: int, variant: int) -> contract.Stored:
        """A group's codebook as a file holds it."""
        return stored(self.get(group, variant), variant, self.format)

    def apply(self, model: nn.Module, group: int, book: Codebook) -> None:
        """Write a group's shared weights into `model`, which must have the same layers."""
        layers = self.layers if self.whole_net else [self.layers[group]]
        values = torch.from_numpy(book.values())
        with torch.no_grad():
            for layer, part in zip(layers, values.split([layer.weights for layer in layers]), strict=True):
                models.weight(model, layer.name).copy_(part.reshape(layer.shape))

    def check(self, plans: ArrayLike, least: int = 1) -> np.ndarray:
        """Plans as int64 (n, groups); raises `UserError` for a wrong length or a k outside `least`..65 536."""
        return contract.check(self, plans, least)

    def rates(self, plans: np.ndarray) -> dict[str, np.ndarray]:
        """Every rate of plans (..., groups), by name, each (...,)."""
        return contract.rates(self, plans)

    def _fetch(self, group: int, ks: list[int]) -> "dict[int, Kept]":
        """Codebooks of a group, read from the folder if they are there, else made and written there."""
        if self._folder is None:
            return self._make(group, ks)
        file = self._folder / f"{self._key(group, ks)}.safetensors"
        self._folder.mkdir(parents=True, exist_ok=True)
        with storage.lock(self._folder / f".{file.stem}.lock"):
            if file.exists():
                try:
                    return _read(file, ks)
                except (SafetensorError, KeyError, ValueError, TypeError) as error:
                    warnings.warn(f"{file} is damaged ({error}) and is made again", stacklevel=2)
            books = self._make(group, ks)
            storage.write_whole(file, _bytes(books))
            return books

    def _make(self, group: int, ks: list[int]) -> "dict[int, Kept]":
        books = clustering.cluster(self._groups[group], ks, self.method, self.format)
        return {k: packed(book, self._groups[group]) for k, book in books.items()}

    def _key(self, group: int, ks: list[int]) -> str:
        digest = hashlib.sha256(json.dumps([SCHEMA, self.method, self.format, ks]).encode())
        digest.update(self._groups[group].tobytes())
        return digest.hexdigest()[:32]


# Centroids (k,) and either the least weight of each cluster, float32 (k,), where clusters are intervals, or all labels, unsigned (n,).
Kept = tuple[np.ndarray, np.ndarray]


def stored(book: Codebook, k: int, format: str) -> contract.Stored:
    """A codebook of k clusters as a file holds it; all k are counted, even if there are fewer distinct weights."""
    parts: dict = {"centroids": contract.Values(book.centroids, format)}
    if width := int(accounting.key_bits(np.array(k))):
        parts["labels"] = contract.Labels(book.labels, width)
    return contract.Stored("codebook", parts, {"k": int(k)})


def packed(book: Codebook, weights: np.ndarray) -> Kept:
    """A codebook of weights (n,) in the least memory."""
    edges = np.full(len(book.centroids), np.inf, dtype=np.float32)
    np.minimum.at(edges, book.labels, weights)
    intervals = (np.diff(edges) > 0).all() and (_labels(edges, weights) == book.labels).all()
    return book.centroids, edges if intervals else book.labels


def unpacked(centroids: np.ndarray, edges_or_labels: np.ndarray, weights: np.ndarray) -> Codebook:
    """The codebook of weights (n,) that `packed` made small."""
    is_edges = edges_or_labels.dtype == np.float32
    return Codebook(centroids, _labels(edges_or_labels, weights) if is_edges else edges_or_labels)


def _labels(edges: np.ndarray, weights: np.ndarray) -> np.ndarray:
    labels = np.searchsorted(edges, weights, side="right") - 1
    return labels.astype(np.min_scalar_type(len(edges) - 1))


def _bytes(books: dict[int, Kept]) -> bytes:
    tensors = {f"{k}.{i}": part for k, stored in books.items() for i, part in enumerate(stored)}
    return save(tensors, metadata={"sha256": _digest(tensors)})


def _digest(tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].tobytes())
    return digest.hexdigest()


def _read(file: Path, ks: list[int]) -> dict[int, Kept]:
    raw = file.read_bytes()
    tensors = load(raw)
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    if header["__metadata__"]["sha256"] != _digest(tensors):
        raise ValueError("its checksum is wrong")
    return {k: (tensors[f"{k}.0"], tensors[f"{k}.1"]) for k in ks}
