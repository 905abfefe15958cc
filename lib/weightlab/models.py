"""Networks: build one, load a trained checkpoint, list the layers whose weights can be shared."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from weightlab import backend, paths
from weightlab.errors import UserError, choose


class LeNet5(nn.Module):
    """LeNet-5 of the thesis (table 2.1): (n, 1, 32, 32) -> logits (n, 10); average pooling whatever the activation."""

    def __init__(self, activation: Callable[[], nn.Module] = nn.Tanh):
        super().__init__()
        self.feature_extractor = nn.Sequential(
            nn.Conv2d(1, 6, 5), activation(), nn.AvgPool2d(2, 2),
            nn.Conv2d(6, 16, 5), activation(), nn.AvgPool2d(2, 2),
            nn.Conv2d(16, 120, 5), activation(),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Linear(120, 84), activation(), nn.Linear(84, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.feature_extractor(images).flatten(1))

    def sequence(self) -> list[nn.Module]:
        """Modules that one after the other are the network."""
        return [*self.feature_extractor, nn.Flatten(1), *self.classifier]


def mobilenet_v2(classes: int = 1000) -> nn.Module:
    """torchvision's MobileNet_v2, width 1.0, untrained (table 2.2)."""
    return backend.torchvision().models.mobilenet_v2(num_classes=classes)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "lenet5_tanh": partial(LeNet5, nn.Tanh),
    "lenet5_relu": partial(LeNet5, nn.ReLU),
    "mobilenet_v2": mobilenet_v2,
}


def build(network: str, seed: int = 0) -> nn.Module:
    """A network with torch's default initial weights drawn from `seed`; the global generator is left as it was."""
    choose("network", network, NETWORKS)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return NETWORKS[network]()


def load(network: str, folder: Path | None = None) -> nn.Module:
    """A trained network from `models/`, in evaluation mode.

    Raises `UserError` if the name is unknown, the checkpoint is missing, differs from its card or does not fit the network.
    """
    model = build(network)
    file, details = (folder or paths.models()) / f"{network}.safetensors", card(network, folder)
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != details["sha256"]:
        raise UserError(f"{file} has SHA-256 {found}, but its card says {details['sha256']}; run `make retrain` or restore it")
    try:
        model.load_state_dict(load_file(file))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"{file} does not hold the weights of {network}: {' '.join(str(error).split())[:200]}") from None
    return model.eval()


def card(network: str, folder: Path | None = None) -> dict:
    """The card of a trained checkpoint: recipe, seed, versions, accuracies on all splits, SHA-256 of the file."""
    choose("network", network, NETWORKS)
    folder = folder or paths.models()
    for file in (folder / f"{network}.safetensors", folder / f"{network}.json"):
        if not file.exists():
            raise UserError(f"{file} is missing; `make models` trains the networks this repository has a recipe for")
    try:
        details = json.loads(file.read_text())
        named, _ = details["network"], details["sha256"]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{file} is not the card of a checkpoint (JSON with network and sha256); restore it") from None
    if named != network:
        raise UserError(f"{file} is the card of {named}, not of {network}; restore it")
    return details


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
    is listed once, under its first name. Raises `UserError` if there is none, or if a weight holds NaN or infinity.
    """
    modules = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)}
    order = list(modules) if example is None else _call_order(model, modules, example)
    found, seen = [], set()
    for name in order:
        weight = modules[name].weight
        if id(weight) in seen:
            continue
        seen.add(id(weight))
        if not isinstance(weight, nn.Parameter):
            raise UserError(f"layer {name} computes its weight (weight norm, pruning mask …); make it a plain parameter first")
        if not torch.isfinite(weight).all():
            raise UserError(f"layer {name} holds NaN or infinite weights; only finite weights can be shared")
        found.append(Layer(name, tuple(weight.shape)))
    if not found:
        raise UserError(f"{type(model).__name__} has no convolution or linear layer whose weights could be shared")
    return found


def _call_order(model: nn.Module, modules: dict[str, nn.Module], example: torch.Tensor) -> list[str]:
    order: dict[str, None] = {}
    hooks = [m.register_forward_pre_hook(lambda *_, name=name: order.setdefault(name)) for name, m in modules.items()]
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.inference_mode():
            model.eval()(example)
    finally:
        for module, training in modes.items():
            module.training = training
        for hook in hooks:
            hook.remove()
    return list(order)


def weight(model: nn.Module, name: str) -> torch.Tensor:
    """The weight of the layer called `name`."""
    return model.get_submodule(name).weight


def stages(model: nn.Module) -> list[nn.Module]:
    """Modules that one after the other are the network, cut before each one that holds shareable layers.

    A network says how it is a sequence by a method `sequence()` (LeNet-5 has one); `nn.Sequential` and torchvision's
    MobileNet_v2 are known; any other network is a single stage.
    """
    if hasattr(model, "sequence"):
        parts = model.sequence()
    elif type(model) is nn.Sequential:
        parts = list(model)
    elif isinstance(model, backend.torchvision().models.MobileNetV2):
        parts = [*model.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(1), *model.classifier]
    else:
        return [model]
    groups: list[list[nn.Module]] = [[]]
    for part in parts:
        if groups[-1] and _holds_weights(part) and any(map(_holds_weights, groups[-1])):
            groups.append([])
        groups[-1].append(part)
    return [group[0] if len(group) == 1 else nn.Sequential(*group) for group in groups]


def _holds_weights(module: nn.Module) -> bool:
    return any(isinstance(m, nn.Linear | nn.modules.conv._ConvNd) for m in module.modules())
