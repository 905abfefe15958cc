"""Weight sharing: replace each layer's weights by the centroids of a codebook, in a copy of the network (sections 2.5, 3.1)."""

import time
from collections.abc import Iterable, Mapping
from itertools import product
from typing import TypeGuard

import numpy as np
import pandas as pd
import torch
from torch import nn

from weightlab import accounting, backend, models, training
from weightlab.compression.compressed import Compressed
from weightlab.compression.sharing import clustering
from weightlab.compression.sharing.clustering import PLAIN, Lift
from weightlab.compression.sharing.codebooks import WHOLE_NET, Codebooks, stored
from weightlab.compression.sharing.lifts import Lifted
from weightlab.data import Split
from weightlab.errors import choose

__all__ = [
    "WHOLE_NET",
    "Codebooks",
    "check_plan",
    "choose_books",
    "codebooks",
    "compressed",
    "inertia_excess",
    "report",
    "share",
    "time_plans",
]


def share(
    model: nn.Module,
    plan: int | Iterable[int],
    format: str = "float32",
    method: str = "exact",
    lifts: Mapping[str, Lift] | None = None,
    example: torch.Tensor | None = None,
) -> tuple[nn.Module, pd.DataFrame]:
    """Share a network's weights under a plan; returns a compressed copy and a report. `model` is not changed.

    `plan`: one k per shareable layer in forward order, or one int for the whole net. `lifts` names layers (or "whole net") to be
    clustered in the lifted space of equation 3.1. The report has a row per group: layer, weights, k, entries (distinct values
    left after rounding), stored_bits, rate (original / stored bits), inertia, max_error.
    Raises `UserError` for a wrong plan, an unknown method, format or layer, and NaN weights.

    >>> model = models.load("lenet5_tanh")
    >>> shared, table = share(model, plan=[3, 5, 8, 2, 4], format="float16")
    >>> table[["layer", "weights", "k", "stored_bits", "rate"]].round(2)
                     layer  weights  k  stored_bits   rate
    0  feature_extractor.0      150  3          348  13.79
    1  feature_extractor.3     2400  5         7280  10.55
    2  feature_extractor.6    48000  8       144128  10.66
    3         classifier.0    10080  2        10112  31.90
    4         classifier.2      840  4         1744  15.41
    >>> models.weight(shared, "classifier.2").unique().numel()
    4
    """
    books = codebooks(model, plan, format, method, example)
    group_books = choose_books(books, plan, lifts)
    shared = models.copied(model)
    for group, book in enumerate(group_books):
        books.apply(shared, group, book)
    return shared, report(books, plan, group_books)


def codebooks(
    model: nn.Module,
    plan: int | Iterable[int],
    format: str = "float32",
    method: str = "exact",
    example: torch.Tensor | None = None,
) -> Codebooks:
    """The codebooks for a plan: one a layer, or one for the whole net if the plan is one int."""
    return Codebooks(model, method, format, ks=(), whole_net=not _several(plan), example=example)


def choose_books(
    books: Codebooks, plan: int | Iterable[int], lifts: Mapping[str, Lift] | None = None
) -> list[clustering.Codebook]:
    """The codebook of each group under a plan; raises `UserError` as `share` does."""
    plan, lifts = check_plan(books, plan), dict(lifts or {})
    for name in lifts:
        choose("layer", name, books.names)
    lifted = Lifted(books)
    numbers = [lifted.variant(k, lifts.get(name, PLAIN)) for name, k in zip(books.names, plan, strict=True)]
    return [lifted.get(group, number) for group, number in enumerate(numbers)]


def compressed(books: Codebooks, plan: int | Iterable[int], lifts: Mapping[str, Lift] | None = None) -> Compressed:
    """A network under a plan as data for packing; raises `UserError` as `share` does."""
    group_books, ks = choose_books(books, plan, lifts), check_plan(books, plan)
    layers = [books.layers] if books.whole_net else [[layer] for layer in books.layers]
    parts = [stored(book, k, books.format) for book, k in zip(group_books, ks, strict=True)]
    return Compressed(layers, parts, ks[0] if books.whole_net else ks, books.method)


def check_plan(books: Codebooks, plan: int | Iterable[int]) -> list[int]:
    """A plan as one k per group; raises `UserError` unless it fits."""
    ks = list(plan) if _several(plan) else [plan]
    for k in ks:
        clustering.check_k(k)
    return books.check(np.array(ks))[0].tolist()


def report(books: Codebooks, plan: int | Iterable[int], chosen: Iterable[clustering.Codebook]) -> pd.DataFrame:
    """The report of `share` on the codebooks chosen for a plan."""
    rows = []
    for group, (name, k, book) in enumerate(zip(books.names, check_plan(books, plan), chosen, strict=True)):
        original = books.original(group)
        bits = int(accounting.stored_bits(len(original), k, books.format))
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
    return pd.DataFrame(rows)


def _several(plan: int | Iterable[int]) -> TypeGuard[Iterable[int]]:
    return isinstance(plan, Iterable) and not isinstance(plan, str)


def time_plans(
    model: nn.Module, plans: np.ndarray, split: Split, methods: Iterable[str], format: str = "float32"
) -> pd.DataFrame:
    """The time that plans (n, layers) take one by one, with nothing kept between them (section 5.6, table 5.10), on one thread.

    A row per plan and method: clustering_s (every layer clustered again and written into the network, seconds), accuracy_s (a plain
    forward pass over the split, seconds), accuracy (fraction). Methods take turns plan by plan, so that a noisy machine favours none;
    the first plan is run once before, untimed, so that libraries are loaded.
    """
    methods = list(methods)
    for method in methods:
        choose("clustering method", method, clustering.METHODS)
    shared, books = models.copied(model), Codebooks(model, ks=())
    plans = books.check(plans)

    def timed(plan: np.ndarray, method: str) -> dict:
        started = time.perf_counter()
        for group, k in enumerate(plan.tolist()):
            books.apply(shared, group, clustering.cluster(books.original(group), k, method, format))
        clustered = time.perf_counter()
        accuracy = training.accuracy(shared, split, "cpu", threads=1)
        seconds = {"clustering_s": clustered - started, "accuracy_s": time.perf_counter() - clustered}
        return {"method": method, "plan": plan, "accuracy": accuracy} | seconds

    with backend.threads(1):
        for method in methods:
            timed(plans[0], method)
        return pd.DataFrame([timed(plan, method) for plan in plans for method in methods])


def inertia_excess(codebooks: Mapping[str, Codebooks], ks: Iterable[int]) -> pd.DataFrame:
    """The excess of each method's inertia over the least possible: columns method, layer, k, inertia, excess_pct.

    `codebooks` by method, of the same network and format; raises `UserError` unless "exact", the reference, is among them.
    """
    choose("clustering method", "exact", codebooks)
    names, rows = codebooks["exact"].names, []
    for group, k in product(range(len(names)), ks):
        inertia = {method: books.get(group, k).inertia(books.original(group)) for method, books in codebooks.items()}
        for method, value in inertia.items():
            excess = 100 * (value / inertia["exact"] - 1)
            rows.append({"method": method, "layer": names[group], "k": k, "inertia": value, "excess_pct": excess})
    return pd.DataFrame(rows)
