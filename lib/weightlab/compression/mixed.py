"""Several methods in one plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn

from weightlab import models
from weightlab.compression.contract import Method, Operations, Replacement, Stage, Stored
from weightlab.errors import UserError


@dataclass(frozen=True)
class Mixed:
    """Several methods in one plan: for every layer a list of (method, its variant), numbered from 1 in this order.

    `methods` are by name, and have the same layers, each a group of its own. Raises `UserError` for others, and for an empty list.
    """

    methods: Mapping[str, Method]
    options: Sequence[Sequence[tuple[str, int]]]

    def __post_init__(self) -> None:
        if not self.methods:
            raise UserError("a mix needs at least one method")
        for name, method in self.methods.items():
            if list(method.layers) != list(self.layers) or not np.array_equal(method.groups, self.groups):
                raise UserError(f"methods of a mix must have the same layers, each a group of its own; {name} has different ones")
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

    def weight(self, layer: int, variant: int) -> Replacement:
        name, number = self.options[layer][variant - 1]
        return self.methods[name].weight(layer, number)

    def bits(self, plans: np.ndarray) -> np.ndarray:
        return self._look_up(self._bits, plans)

    def thesis_bits(self, plans: np.ndarray) -> np.ndarray:
        return self._look_up(self._thesis_bits, plans)

    def stage(self, module: nn.Module, layers: Sequence[int], shape: torch.Size) -> Stage | None:
        """The fast way of the only method that replaces operations: it can compute only its own modules."""
        replacing = [method for method in self.methods.values() if isinstance(method, Operations)]
        return replacing[0].stage(module, layers, shape) if len(replacing) == 1 else None

    def stored(self, group: int, variant: int) -> Stored:
        name, number = self.options[group][variant - 1]
        return self.methods[name].stored(group, number)

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
        """The bits of each option of each layer; they do not depend on the plan's other layers."""
        return [
            np.array([getattr(self.methods[name], count)(np.full(len(self.layers), variant))[group] for name, variant in listed])
            for group, listed in enumerate(self.options)
        ]
