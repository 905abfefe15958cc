"""Weight sharing: replace each layer's weights by the centroids of a codebook, in a copy of the network (sections 2.5, 3.1)."""

import copy
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import nn

from weightlab import accounting, clustering
from weightlab.clustering import PLAIN, Lift
from weightlab.codebooks import WHOLE_NET, Codebooks
from weightlab.errors import choose

__all__ = ["WHOLE_NET", "Codebooks", "share"]


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
