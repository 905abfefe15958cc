"""Weight sharing: replace each layer's weights by the centroids of a codebook, in a copy of the network."""

import copy
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import nn

from weightlab import accounting, clustering, floats, models
from weightlab.clustering import PLAIN, Codebook, Lift
from weightlab.errors import UserError, choose

WHOLE_NET = "whole net"


class Codebooks:
    """The codebooks of one network for one method and format, each made once, when first asked for.

    A group is what shares one codebook: a layer, or with `whole_net` all layers together. With the exact method the first request
    for a group makes all of `ks` in one pass. `example` (one input batch) finds the forward order, see `models.layers`.
    """

    def __init__(
        self,
        model: nn.Module,
        method: str = "exact",
        format: str = "float32",
        ks: Iterable[int] = range(1, 51),
        whole_net: bool = False,
        example: torch.Tensor | None = None,
    ):
        choose("clustering method", method, clustering.METHODS)
        self.method, self.format, self.whole_net = method, floats.get(format).name, whole_net
        self.layers = models.layers(model, example)
        weights = [models.weight(model, layer.name).detach().cpu().float().numpy().ravel() for layer in self.layers]
        self._groups = [np.concatenate(weights)] if whole_net else weights
        self._ks = list(ks)
        self._books: dict[tuple[int, int], Codebook] = {}

    @property
    def names(self) -> list[str]:
        """Names of the groups."""
        return [WHOLE_NET] if self.whole_net else [layer.name for layer in self.layers]

    @property
    def weights(self) -> np.ndarray:
        """Number of weights of each group, int64 (groups,)."""
        return np.array([len(group) for group in self._groups])

    def original(self, group: int) -> np.ndarray:
        """The unshared weights of a group, float32 (weights,)."""
        return self._groups[group]

    def get(self, group: int, k: int) -> Codebook:
        """The codebook of a group with k clusters; raises `UserError` for k outside 1..65 536."""
        clustering.check_k(k)
        if (group, k) not in self._books:
            ks = {*self._ks, k} if self.method == "exact" else {k}
            made = clustering.cluster(self._groups[group], ks, self.method, self.format)
            self._books |= {(group, each): book for each, book in made.items()}
        return self._books[group, k]

    def values(self, layer: int, k: int) -> np.ndarray:
        """The shared weights of one layer, float32 (weights,), flat; of a whole-net codebook the part that is the layer's."""
        if not self.whole_net:
            return self.get(layer, k).values()
        start = sum(each.weights for each in self.layers[:layer])
        return self.get(0, k).values()[start : start + self.layers[layer].weights]

    def apply(self, model: nn.Module, group: int, book: Codebook) -> None:
        """Write a group's shared weights into `model`, which must have the same layers."""
        layers = self.layers if self.whole_net else [self.layers[group]]
        values = torch.from_numpy(book.values())
        with torch.no_grad():
            for layer, part in zip(layers, values.split([layer.weights for layer in layers]), strict=True):
                models.weight(model, layer.name).copy_(part.reshape(layer.shape))

    def check(self, plans: np.ndarray, least: int = 1) -> np.ndarray:
        """Plans as int64 (n, groups); raises `UserError` for a wrong length or a k outside `least`..65 536."""
        plans = np.atleast_2d(np.asarray(plans))
        if plans.shape[-1] != len(self._groups):
            raise UserError(f"a plan needs {len(self._groups)} numbers ({', '.join(self.names)}), got {plans.shape[-1]}")
        if not np.issubdtype(plans.dtype, np.integer):
            wrong = next((k for k in plans.flat if k != k // 1), plans.flat[0]) if plans.dtype.kind == "f" else plans.flat[0]
            raise UserError(f"a plan holds whole numbers of clusters, got {wrong!r} ({plans.dtype})")
        if ((plans < least) | (plans > clustering.K_MAX)).any():
            wrong = plans[(plans < least) | (plans > clustering.K_MAX)][0]
            raise UserError(f"number of clusters k must be a whole number from {least} to {clustering.K_MAX}, got {wrong}")
        return plans.astype(np.int64)

    def rates(self, plans: np.ndarray) -> dict[str, np.ndarray]:
        """Every rate of plans (..., groups), by name, each (...,)."""
        arguments = self.weights, plans, self.format
        return {
            "storage_rate": accounting.storage_rate(*arguments),
            "layer_mean_rate": accounting.layer_mean_rate(*arguments),
            "thesis_model_rate": accounting.thesis_model_rate(*arguments),
        }


def share(
    model: nn.Module,
    plan: int | Iterable[int],
    format: str = "float32",
    method: str = "exact",
    lifts: Mapping[str, Lift] | None = None,
    example: torch.Tensor | None = None,
) -> tuple[nn.Module, pd.DataFrame]:
    """Share a network's weights as a plan says; returns a compressed copy and a report. `model` is left as it is.

    `plan`: one k per shareable layer in forward order, or one int for the whole net. `lifts` names layers (or "whole net") to be
    clustered in the lifted space of equation 3.1. The report has a row per group: layer, weights, k, entries (distinct values
    left after rounding), stored_bits, rate (original / stored bits), inertia, max_error.
    Raises `UserError` for a wrong plan, an unknown method, format or layer, and NaN weights.
    """
    whole = not isinstance(plan, Iterable) or isinstance(plan, str)
    plan = [plan] if whole else list(plan)
    for k in plan:
        clustering.check_k(k)
    books = Codebooks(model, method, format, ks=(), whole_net=whole, example=example)
    plan = books.check(plan)[0]
    lifts = dict(lifts or {})
    for name in lifts:
        choose("layer", name, books.names)
    shared, rows = copy.deepcopy(model), []
    for group, (name, k) in enumerate(zip(books.names, map(int, plan), strict=True)):
        original = books.original(group)
        book = clustering.cluster(original, k, method, format, lifts.get(name, PLAIN))
        books.apply(shared, group, book)
        bits = int(accounting.stored_bits(len(original), k, format))
        rows.append({
            "layer": name,
            "weights": len(original),
            "k": k,
            "entries": len(np.unique(book.centroids)),
            "stored_bits": bits,
            "rate": len(original) * accounting.ORIGINAL_BITS / bits,
            "inertia": book.inertia(original),
            "max_error": float(np.abs(original - book.values()).max()),
        })  # fmt: skip
    return shared, pd.DataFrame(rows)
