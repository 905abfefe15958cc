"""What evaluation, searches, accounting and packing need from a compression method.

A method lists *variants* of every group of layers: other weights, or other operations that replace layers, each with the bits that it
takes when it is stored. A plan is a row of ints, the number of the variant that each group takes; 0 leaves a group unchanged, where that
is allowed.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from weightlab import accounting, formats, models
from weightlab.errors import UserError


@dataclass(frozen=True)
class Values:
    """Numbers in one of `formats`: float32 (n,), each of them a value of the format."""

    numbers: np.ndarray
    format: str

    @property
    def bits(self) -> int:
        """Bits of all numbers in the format."""
        return len(self.numbers) * formats.get(self.format).bits


@dataclass(frozen=True)
class Labels:
    """Whole numbers below 2**width, unsigned (n,); a file may code them in fewer bits."""

    numbers: np.ndarray
    width: int

    @property
    def bits(self) -> int:
        """Bits of all numbers at `width` bits each."""
        return len(self.numbers) * self.width


@dataclass(frozen=True)
class Stored:
    """A group's weights as stored in a file: `kind` names the reader (see `kinds`) that decodes them from named parts and settings.

    `settings` are JSON-ready and few.
    """

    kind: str
    parts: Mapping[str, Values | Labels]
    settings: Mapping[str, Any] = field(default_factory=dict)


Replacement = torch.Tensor | nn.Module  # of a layer: its weight, float32 of its shape; or a module that is called in its place


@runtime_checkable
class Method(Protocol):
    """A network's layers and the variants of their weights; for each layer `groups` says which group it is in, int64 (layers,)."""

    @property
    def layers(self) -> Sequence[models.Layer]: ...

    @property
    def names(self) -> list[str]:
        """Names of the groups."""

    @property
    def groups(self) -> np.ndarray: ...

    def count(self, group: int) -> int:
        """The number of variants of a group; they are numbered from 1."""

    def weight(self, layer: int, variant: int) -> Replacement:
        """The replacement of a layer under a variant of its group; a module may be called by several threads at once."""

    def bits(self, plans: np.ndarray) -> np.ndarray:
        """Stored bits, int64 (..., groups), of plans (..., groups) of variants from 1."""

    def thesis_bits(self, plans: np.ndarray) -> np.ndarray:
        """As `bits`, by the thesis's formula where it has one; its rates need it."""

    def describe(self) -> dict:
        """What its variants depend on, JSON-ready: methods with equal descriptions have equal variants."""

    def stored(self, group: int, variant: int) -> Stored:
        """A group's weights under a variant as a file holds them; they are read as what `weight` gives, bit for bit."""


class Stage(Protocol):
    """A module of a network, computed for many variants of its layers at once (see `Operations`)."""

    def __call__(self, x: torch.Tensor, variants: Sequence[tuple[nn.Module, ...]]) -> Sequence[torch.Tensor]:
        """The module's outputs for activations x (n, ...), one (n, ...) for each variant, which has a module for each of its layers."""


@runtime_checkable
class Operations(Method, Protocol):
    """A method whose variants are modules; it may compute many of them faster than by one call after the other.

    An attribute `together`, if there is one, says how many images its stages take best at a time.
    """

    def stage(self, module: nn.Module, layers: Sequence[int], shape: torch.Size) -> Stage | None:
        """The faster way for a module of the network with these layers and inputs of this shape (an image's); None: there is none.

        The evaluator compares it with the modules themselves before it is used.
        """


@runtime_checkable
class Energetic(Protocol):
    """A method that changes the energy of a network's operations."""

    def energy(self, plans: np.ndarray) -> np.ndarray:
        """Energy under plans (..., groups), relative to the unchanged operations, float64 (...,)."""


def weights(method: Method) -> np.ndarray:
    """Number of weights of each group, int64 (groups,)."""
    return np.bincount(method.groups, [layer.weights for layer in method.layers], len(method.names)).astype(np.int64)


def check(method: Method, plans: ArrayLike, least: int = 1) -> np.ndarray:
    """Plans as int64 (n, groups); raises `UserError` for a wrong length, or a variant that is not from `least` to the last."""
    plans = np.atleast_2d(np.asarray(plans))
    if plans.shape[-1] != len(method.names):
        raise UserError(f"a plan needs {len(method.names)} numbers ({', '.join(method.names)}), got {plans.shape[-1]}")
    if not np.issubdtype(plans.dtype, np.integer):
        wrong = next((k for k in plans.flat if k != k // 1), plans.flat[0]) if plans.dtype.kind == "f" else plans.flat[0]
        raise UserError(f"a plan must hold whole numbers, got {wrong!r} ({plans.dtype})")
    most = np.array([method.count(group) for group in range(len(method.names))])
    if (outside := (plans < least) | (plans > most)).any():
        row, group = np.argwhere(outside)[0]
        raise UserError(f"{method.names[group]} takes a whole number from {least} to {most[group]}, got {plans[row, group]}")
    return plans.astype(np.int64)


def rates(method: Method, plans: np.ndarray) -> dict[str, np.ndarray]:
    """Every rate of plans (..., groups), by name, each (...,); `energy_rate` of methods that change the energy of operations."""
    rates = accounting.rates(weights(method), method.bits(plans), method.thesis_bits(plans))
    if isinstance(method, Energetic):
        with np.errstate(divide="ignore"):  # operations without energy
            rates["energy_rate"] = 1 / method.energy(plans)
    return rates


def put(model: nn.Module, name: str, replacement: Replacement) -> None:
    """Write a weight into the layer called `name`, or replace the layer by a module."""
    if isinstance(replacement, nn.Module):
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, replacement)
    else:
        with torch.no_grad():
            models.weight(model, name).copy_(replacement)


@contextmanager
def replaced(model: nn.Module, replacements: Mapping[str, Replacement]) -> Iterator[nn.Module]:
    """A network with these replacements of layers, by name; at the end the layers return, but written weights stay."""
    layers = {name: model.get_submodule(name) for name, each in replacements.items() if isinstance(each, nn.Module)}
    try:
        for name, replacement in replacements.items():
            put(model, name, replacement)
        yield model
    finally:
        for name, layer in layers.items():
            put(model, name, layer)


def apply(method: Method, model: nn.Module, plan: Sequence[int]) -> None:
    """Put the variants of a plan into a network that has the same layers."""
    (row,) = check(method, np.asarray(plan), least=0)
    for place, (layer, group) in enumerate(zip(method.layers, method.groups.tolist(), strict=True)):
        if row[group]:
            put(model, layer.name, method.weight(place, int(row[group])))
