"""Networks: build one, load a trained checkpoint, list the layers whose weights can be shared."""

import copy
import hashlib
import json
import pickle
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from weightlab import backend, own_networks, paths
from weightlab.data import downloads
from weightlab.errors import UserError, choose, in_a_line

IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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


class MobileNetV2(nn.Module):
    """torchvision's MobileNet_v2, width 1.0 (table 2.2): (n, 1 or 3, height, width) -> logits (n, classes).

    Images as they are stored come in; grey ones are repeated to three channels, and all are standardised by `mean` and `sd`.
    """

    def __init__(self, classes: int = 1000, mean: Sequence[float] = (0, 0, 0), sd: Sequence[float] = (1, 1, 1)):
        super().__init__()
        # Channels last in memory: on a CPU about twice as fast, in training too.
        inner = backend.torchvision().models.mobilenet_v2(num_classes=classes).to(memory_format=torch.channels_last)
        self.standardise = Standardise(mean, sd)
        self.features, self.classifier = inner.features, inner.classifier  # torchvision's names of all parameters

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.features(self.standardise(images))
        return self.classifier(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))

    def sequence(self) -> list[nn.Module]:
        """Modules that one after the other are the network."""
        return [self.standardise, *self.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(1), *self.classifier]


class Standardise(nn.Module):
    """Images (n, 1 or 3, height, width) -> (n, 3, height, width), minus mean, divided by sd, channels last in memory."""

    def __init__(self, mean: Sequence[float], sd: Sequence[float]):
        super().__init__()
        for name, values in (("mean", mean), ("sd", sd)):  # not persistent: no checkpoint holds them
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).reshape(3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        standard = (images.expand(-1, 3, -1, -1) - self.mean) / self.sd
        return standard.contiguous(memory_format=torch.channels_last)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "lenet5_tanh": partial(LeNet5, nn.Tanh),
    "lenet5_relu": partial(LeNet5, nn.ReLU),
    "mobilenet_v2": partial(MobileNetV2, 1000, IMAGENET_MEAN, IMAGENET_SD),
    "mobilenet_v2_fashion": partial(MobileNetV2, 10),
}


def build(network: str, seed: int = 0) -> nn.Module:
    """One of `NETWORKS` with torch's default initial weights drawn from `seed`, or what a `module:factory` returns.

    The global generator is left as it was. Raises `UserError` for an unknown name and a factory that cannot be had.
    """
    if not own_networks.is_own(network):
        _check_ours(network)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return own_networks.make(network) if own_networks.is_own(network) else NETWORKS[network]()


def load(network: str, folder: Path | None = None, weights: str | Path | None = None) -> nn.Module:
    """A trained network from `models/` (or `folder`), or MobileNet_v2 with its ImageNet weights, in evaluation mode.

    A user's own, `module:factory`, is imported, from the working directory too, and has the `weights` of a plain state dict
    (`.safetensors`, or `.pt`, `.pth`, `.bin` of torch; nothing else in them is executed), or with None those the factory gives it.
    Raises `UserError` if the name is unknown, or weights are missing, differ from their card or do not fit the network.
    """
    model = build(network)
    if own_networks.is_own(network):
        if weights is not None:
            own_networks.load_weights(model, weights, network)
        _refuse_missing(model)
        return model.cpu().eval()
    _check_ours(network, weights)
    details, file = card(network, folder), _file(network, folder)
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != details["sha256"]:
        raise UserError(f"{file} has SHA-256 {found}, but its card says {details['sha256']}; run `make retrain` or restore it")
    try:
        model.load_state_dict(torch.load(file, "cpu", weights_only=True) if file.suffix == ".pth" else load_file(file))
    except (SafetensorError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(f"{file} does not hold the weights of {network}: {' '.join(str(error).split())[:200]}") from None
    return model.eval()


def check(network: str, weights: str | Path | None = None) -> str | None:
    """The absolute path of the weights of a user's own network, if there is one; raises `UserError` as `load` and `identity` do."""
    if not own_networks.is_own(network):
        return _check_ours(network, weights)
    weights = None if weights is None else own_networks.absolute(weights)
    identity(network, weights)
    return weights


def identity(network: str, weights: str | Path | None = None) -> str:
    """SHA-256 that stands for a network's weights: of a checkpoint's file, of a user's own network over names, shapes and values.

    Raises `UserError` as `load` does, and for a network of a user's own whose factory gives other weights at each call.
    """
    if not own_networks.is_own(network):
        _check_ours(network, weights)
        return card(network)["sha256"]
    if weights is None:
        return _own_identity(network, None, None)
    stat = Path(weights := own_networks.absolute(weights)).stat()
    return _own_identity(network, weights, (stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=32)
def _own_identity(network: str, weights: str | None, version: tuple[int, int] | None) -> str:
    """`version`, size and time of the file, is there to tell the cache that the file has changed."""
    model = load(network, weights=weights)
    layers(model)  # refuses weights that cannot be shared
    found = own_networks.digest(model)
    if weights is None and own_networks.digest(build(network, seed=1)) != found:
        raise UserError(f"network {network!r} has other weights each time it is made; give the file of its trained weights")
    return found


def label(network: str, weights: str | Path | None = None) -> str:
    """What tables call a network: its name, with the first digits of its `identity` where it is a user's own."""
    return f"{network}@{identity(network, weights)[:8]}" if own_networks.is_own(network) else network


def _check_ours(network: str, weights: str | Path | None = None) -> None:
    choose("network", network, (*NETWORKS, "module:factory of your own"))
    if weights is not None:
        raise UserError(f"network {network} has its own checkpoint, so weights must be None, got {str(weights)!r}")


def card(network: str, folder: Path | None = None) -> dict:
    """The card of a trained checkpoint: recipe, seed, versions, accuracies on all splits, SHA-256 of the file.

    Of the ImageNet weights there are only their SHA-256 and their address.
    """
    choose("network", network, NETWORKS)
    file = _file(network, folder)
    if file.suffix == ".pth":
        return {
            "network": network,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "source": downloads.imagenet_address(),
        }
    written = file.with_suffix(".json")
    for each in (file, written):
        if not each.exists():
            raise UserError(f"{each} is missing; `make models` trains the networks this repository has a recipe for")
    try:
        details = json.loads(written.read_text())
        named, _ = details["network"], details["sha256"]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{written} is not the card of a checkpoint (JSON with network and sha256); restore it") from None
    if named != network:
        raise UserError(f"{written} is the card of {named}, not of {network}; restore it")
    return details


def _file(network: str, folder: Path | None) -> Path:
    """Where a network's weights are; ImageNet's are downloaded into the data folder if nobody has put a checkpoint in `models/`."""
    file = (folder or paths.models()) / f"{network}.safetensors"
    return downloads.imagenet_weights() if network == "mobilenet_v2" and not file.exists() else file


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
    """
    _refuse_missing(model)
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
        if not weight.numel():
            raise UserError(f"layer {name} has no weights, its shape is {tuple(weight.shape)}; leave it out of the network")
        if weight.dtype != torch.float32:
            raise UserError(
                f"layer {name} has weights of {weight.dtype}; rates are stated against float32, so give `model.float()`"
            )
        if not torch.isfinite(weight).all():
            raise UserError(f"layer {name} holds NaN or infinite weights; only finite weights can be shared")
        found.append(Layer(name, tuple(weight.shape)))
    if not found:
        raise UserError(f"{type(model).__name__} has no convolution or linear layer whose weights could be shared")
    return found


def _refuse_missing(model: nn.Module) -> None:
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if nn.parameter.is_lazy(value) or value.is_meta:
            raise UserError(f"{name} of {type(model).__name__} has no values yet; say the sizes of lazy modules, or load weights")


def left_out(model: nn.Module, found: Iterable[Layer]) -> str:
    """A sentence on the weights that no layer of a plan holds, "" where there are none.

    Meant are parameters of two and more dimensions: attention's projections, embeddings, what `forward` uses by itself, and layers
    that no image reaches.
    """
    held = {id(weight(model, layer.name)) for layer in found}
    parameters = dict(model.named_parameters())
    others = {name: each.nbytes for name, each in parameters.items() if each.ndim > 1 and id(each) not in held}
    if not others:
        return ""
    share = sum(others.values()) / sum(each.nbytes for each in parameters.values())
    names = ", ".join(list(others)[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
    return (
        f"{names}: {share:.1%} of the bytes of {type(model).__name__}'s parameters are in no convolution or linear layer that "
        "is called, so no plan shares them"
    )


def _call_order(model: nn.Module, modules: dict[str, nn.Module], example: torch.Tensor) -> list[str]:
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
    return model.get_submodule(name).weight
