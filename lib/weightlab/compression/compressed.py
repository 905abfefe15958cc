"""A network under a chosen plan, as data: the content of a file, and the object of changes after the choice of a plan.

A change that depends on the choices for other layers, or that concerns other tensors than the compressed weights (compensation, bias
correction, tuning), is not a variant. It takes a `Compressed` and returns another, with other stored weights and other `tensors`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from weightlab import models
from weightlab.compression import contract, kinds
from weightlab.compression.contract import Method, Stored
from weightlab.errors import UserError


@dataclass(frozen=True)
class Compressed:
    """`stored` weights of every group, with the `plan` and the name of the `method` that they come from.

    `layers` are those of each group, in the order in which their weights follow each other. A plan that is one int is about all
    layers together. `tensors` are other parameters and buffers of the network that were changed, by name; `others` are those whose values
    a file stores in fewer bits, float32 as decoded.
    """

    layers: Sequence[Sequence[models.Layer]]
    stored: Sequence[Stored]
    plan: int | Sequence[int]
    method: str
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    others: Mapping[str, tuple[Stored, tuple[int, ...]]] = field(default_factory=dict)

    def changed(self) -> dict[str, torch.Tensor]:
        """All other parameters and buffers that differ from the network's, by name."""
        return dict(self.tensors) | {
            name: torch.from_numpy(kinds.weights(stored, math.prod(shape))).reshape(shape)
            for name, (stored, shape) in self.others.items()
        }

    def weights(self) -> dict[str, torch.Tensor]:
        """The weight of every layer in a group, by the layer's name, float32 of its shape."""
        weights: dict[str, torch.Tensor] = {}
        for layers, stored in zip(self.layers, self.stored, strict=True):
            sizes = [layer.weights for layer in layers]
            parts = torch.from_numpy(kinds.weights(stored, sum(sizes))).split(sizes)
            weights |= {layer.name: part.reshape(layer.shape) for layer, part in zip(layers, parts, strict=True)}
        return weights

    def apply(self, model: nn.Module) -> nn.Module:
        """A copy of the network with these weights and tensors; raises `UserError` for an unknown tensor, or one of another shape."""
        copy = models.copied(model)
        state = copy.state_dict()
        with torch.no_grad():
            for name, weight in self.weights().items():
                models.weight(copy, name).copy_(weight)
            for name, tensor in self.changed().items():
                if name not in state or state[name].shape != tensor.shape:
                    raise UserError(f"the network has no tensor {name} of shape {tuple(tensor.shape)}")
                state[name].copy_(tensor)
        return copy


def compressed(method: Method, plan: Sequence[int], name: str) -> Compressed:
    """A network under a plan; `name` is the method's name in files. Raises `UserError` for a wrong plan."""
    (row,) = contract.check(method, np.asarray(plan))
    layers = [[layer for layer, its in zip(method.layers, method.groups, strict=True) if its == i] for i in range(len(row))]
    return Compressed(layers, [method.stored(group, variant) for group, variant in enumerate(row.tolist())], row.tolist(), name)
