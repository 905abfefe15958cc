"""The layers of any network whose weights can be shared, in forward order, and the weights that no plan covers."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from weightlab.errors import UserError, in_a_line


@dataclass(frozen=True)
class Layer:
    """A shareable layer: its module name and the shape of its weight."""

    name: str
    shape: tuple[int, ...]

    @property
    def weights(self) -> int:
        """Number of weights p."""
        return int(torch.Size(self.shape).numel())


def layers(model: nn.Module, example: torch.Tensor | None = None) -> list[Layer]:
    """Convolution and linear layers of any network, in forward order.

    With `example` (one input batch) the order is that of the first call in a forward pass, and layers that are never called are
    left out; without it, the order of definition, which is the same for sequential networks. A weight that several modules share
    is listed once, under its first name. Raises `UserError` if there is none, if a weight is empty, not float32, or holds NaN or
    infinity, or if anything of the network has no values yet (lazy modules, the meta device).

    >>> layers(nn.Sequential(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.Flatten(), nn.Linear(96, 10)))
    [Layer(name='0', shape=(6, 1, 5, 5)), Layer(name='3', shape=(10, 96))]
    """
    refuse_missing(model)
    modules = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)}
    order = list(modules) if example is None else _call_order(model, modules, example)
    listed, seen = [], set()
    for name in order:
        weight = modules[name].weight
        if id(weight) in seen:
            continue
        seen.add(id(weight))
        if not isinstance(weight, nn.Parameter):
            raise UserError(f"layer {name} computes its weight (weight norm, pruning mask …); make it a plain parameter first")
        if not weight.numel():
            raise UserError(f"layer {name} has no weights, its shape is {tuple(weight.shape)}; leave it out of the network")
        if weight.dtype != torch.float32:
            raise UserError(f"layer {name} has weights of {weight.dtype}; rates are relative to float32, so give `model.float()`")
        if not torch.isfinite(weight).all():
            raise UserError(f"layer {name} holds NaN or infinite weights; only finite weights can be shared")
        listed.append(Layer(name, tuple(weight.shape)))
    if not listed:
        raise UserError(f"{type(model).__name__} has no convolution or linear layer whose weights could be shared")
    return listed


def refuse_missing(model: nn.Module) -> None:
    """Raise `UserError` for a network with a tensor that has no values yet (lazy modules, the meta device)."""
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if nn.parameter.is_lazy(value) or value.is_meta:
            raise UserError(
                f"{name} of {type(model).__name__} has no values yet; give the sizes of lazy modules, or load weights"
            )


def left_out(model: nn.Module, planned: Iterable[Layer]) -> str:
    """A sentence on the weights that no layer of a plan covers, "" if there are none.

    These are parameters of two and more dimensions: attention's projections, embeddings, parameters that `forward` uses directly, and
    layers that no image reaches.
    """
    planned_weights = {id(weight(model, layer.name)) for layer in planned}
    parameters = dict(model.named_parameters())
    others = {name: each.nbytes for name, each in parameters.items() if each.ndim > 1 and id(each) not in planned_weights}
    if not others:
        return ""
    share = sum(others.values()) / sum(each.nbytes for each in parameters.values())
    names = ", ".join(list(others)[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
    return (
        f"{names}: {share:.1%} of the bytes of {type(model).__name__}'s parameters are in no convolution or linear layer that "
        "is called, so no plan shares them"
    )


def _call_order(model: nn.Module, modules: Mapping[str, nn.Module], example: torch.Tensor) -> list[str]:
    order: dict[str, None] = {}
    hooks = [m.register_forward_pre_hook(lambda *_, name=name: order.setdefault(name)) for name, m in modules.items()]
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.inference_mode():
            model.eval()(example.clone())  # some networks write into their input
    finally:
        for module, training in modes.items():
            module.training = training
        for hook in hooks:
            hook.remove()
    return list(order)


def copied(model: nn.Module) -> nn.Module:
    """A copy that shares nothing with the network; raises `UserError` if it cannot be copied."""
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever a user's own attributes may raise
        raise UserError(f"{type(model).__name__} cannot be copied ({in_a_line(error)}), so it cannot be compressed") from error


def weight(model: nn.Module, name: str) -> torch.Tensor:
    """The weight of the layer called `name`."""
    return model.get_submodule(name).get_parameter("weight")
