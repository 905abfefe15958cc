"""What evaluation, searches and accounting ask of a compression method, and methods side by side in one plan.

A method lists *variants* of the weights of every group of layers: replacements, each with the bits that it takes when it is stored. A plan
is a row of ints, the number of the variant that each group takes; 0 leaves a group as it is, where that is allowed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from weightlab import accounting, models
from weightlab.errors import UserError


@runtime_checkable
class Method(Protocol):
    """A network's layers and the variants of their weights; for each layer `groups` says which group it is in, int64 (layers,)."""

    layers: Sequence[models.Layer]

    @property
    def names(self) -> list[str]:
        """Names of the groups."""

    @property
    def groups(self) -> np.ndarray: ...

    def count(self, group: int) -> int:
        """How many variants a group has: they are numbered from 1 to this."""

    def weight(self, layer: int, variant: int) -> torch.Tensor:
        """A layer's weight under a variant of its group, float32 of the layer's shape."""

    def bits(self, plans: np.ndarray) -> np.ndarray:
        """Stored bits, int64 (..., groups), of plans (..., groups) of variants from 1."""

    def thesis_bits(self, plans: np.ndarray) -> np.ndarray:
        """As `bits`, counted as the thesis does where it has a formula of its own, which its rates need."""

    def describe(self) -> dict:
        """What its variants depend on, JSON-ready: two methods that describe themselves alike have the same."""


def weights(method: Method) -> np.ndarray:
    """Number of weights of each group, int64 (groups,)."""
    return np.bincount(method.groups, [layer.weights for layer in method.layers], len(method.names)).astype(np.int64)


def check(method: Method, plans: np.ndarray, least: int = 1) -> np.ndarray:
    """Plans as int64 (n, groups); raises `UserError` for a wrong length, or a variant that there is not from `least` on."""
    plans = np.atleast_2d(np.asarray(plans))
    if plans.shape[-1] != len(method.names):
        raise UserError(f"a plan needs {len(method.names)} numbers ({', '.join(method.names)}), got {plans.shape[-1]}")
    if not np.issubdtype(plans.dtype, np.integer):
        wrong = next((k for k in plans.flat if k != k // 1), plans.flat[0]) if plans.dtype.kind == "f" else plans.flat[0]
        raise UserError(f"a plan holds whole numbers, got {wrong!r} ({plans.dtype})")
    most = np.array([method.count(group) for group in range(len(method.names))])
    if (outside := (plans < least) | (plans > most)).any():
        row, group = np.argwhere(outside)[0]
        raise UserError(f"{method.names[group]} takes a whole number from {least} to {most[group]}, got {plans[row, group]}")
    return plans.astype(np.int64)


def rates(method: Method, plans: np.ndarray) -> dict[str, np.ndarray]:
    """Every rate of plans (..., groups), by name, each (...,)."""
    return accounting.rates(weights(method), method.bits(plans), method.thesis_bits(plans))


@dataclass(frozen=True)
class Mixed:
    """Methods side by side in one plan: for every layer a list of (method, its variant), numbered from 1 in this order.

    `methods` are by name, and have the same layers, each a group of its own. Raises `UserError` for others, and for an empty list.
    """

    methods: Mapping[str, Method]
    options: Sequence[Sequence[tuple[str, int]]]

    def __post_init__(self):
        if not self.methods:
            raise UserError("a mix needs at least one method")
        for name, method in self.methods.items():
            if list(method.layers) != list(self.layers) or not np.array_equal(method.groups, self.groups):
                raise UserError(f"methods of a mix must have the same layers, each a group of its own; {name} has others")
        if len(self.options) != len(self.layers) or not all(self.options):
            raise UserError(f"a mix needs a list of options for each of the {len(self.layers)} layers")
        for group, listed in enumerate(self.options):
            for name, variant in listed:
                if name not in self.methods or not 1 <= variant <= self.methods[name].count(group):
                    raise UserError(f"layer {self.names[group]} has no option {(name, variant)!r}")

    @property
    def layers(self) -> Sequence[models.Layer]:
        return next(iter(self.methods.values())).layers

    @property
    def names(self) -> list[str]:
        return [layer.name for layer in self.layers]

    @property
    def groups(self) -> np.ndarray:
        return np.arange(len(self.layers))

    def count(self, group: int) -> int:
        return len(self.options[group])

    def weight(self, layer: int, variant: int) -> torch.Tensor:
        name, chosen = self.options[layer][variant - 1]
        return self.methods[name].weight(layer, chosen)

    def bits(self, plans: np.ndarray) -> np.ndarray:
        return self._look_up(self._bits, plans)

    def thesis_bits(self, plans: np.ndarray) -> np.ndarray:
        return self._look_up(self._thesis_bits, plans)

    def describe(self) -> dict:
        described = {name: method.describe() for name, method in self.methods.items()}
        return {"methods": described, "options": [[list(each) for each in listed] for listed in self.options]}

    def _look_up(self, table: list[np.ndarray], plans: np.ndarray) -> np.ndarray:
        plans = np.asarray(plans)
        return np.stack([each[plans[..., group] - 1] for group, each in enumerate(table)], axis=-1)

    @cached_property
    def _bits(self) -> list[np.ndarray]:
        return self._table("bits")

    @cached_property
    def _thesis_bits(self) -> list[np.ndarray]:
        return self._table("thesis_bits")

    def _table(self, count: str) -> list[np.ndarray]:
        """What each option of each layer takes; the other layers of the plan that asks for it do not matter."""
        return [
            np.array([getattr(self.methods[name], count)(np.full(len(self.layers), variant))[group] for name, variant in listed])
            for group, listed in enumerate(self.options)
        ]


def apply(method: Method, model: nn.Module, plan: Sequence[int]) -> None:
    """Write the weights of a plan into a network that has the same layers."""
    (row,) = check(method, np.asarray(plan), least=0)
    with torch.no_grad():
        for place, (layer, group) in enumerate(zip(method.layers, method.groups.tolist(), strict=True)):
            if row[group]:
                models.weight(model, layer.name).copy_(method.weight(place, int(row[group])))
