"""Build a network, load a trained checkpoint, and say which weights it has."""

import hashlib
import json
import pickle
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from weightlab import paths
from weightlab.data import downloads
from weightlab.errors import UserError, choose, flat
from weightlab.networks import own as own_networks
from weightlab.networks.architectures import BY_NAME, NETWORKS
from weightlab.networks.layers import layers, refuse_missing


def build(network: str, seed: int = 0) -> nn.Module:
    """One of `NETWORKS` with torch's default initial weights drawn from `seed`, or what a `module:factory` returns.

    The global generator is not changed. Raises `UserError` for an unknown name and a factory that fails.

    >>> model = build("lenet5_tanh", seed=1)
    >>> sum(parameter.numel() for parameter in model.parameters())
    61706
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

    >>> model = load("lenet5_tanh")
    >>> for layer in layers(model):
    ...     print(layer.name, layer.shape, layer.weights)
    feature_extractor.0 (6, 1, 5, 5) 150
    feature_extractor.3 (16, 6, 5, 5) 2400
    feature_extractor.6 (120, 16, 5, 5) 48000
    classifier.0 (84, 120) 10080
    classifier.2 (10, 84) 840
    """
    model = build(network)
    if own_networks.is_own(network):
        if weights is not None:
            own_networks.load_weights(model, weights, network)
        refuse_missing(model)
        return model.cpu().eval()
    _check_ours(network, weights)
    details, file = card(network, folder), _file(network, folder)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != details["sha256"]:
        raise UserError(f"{file} has SHA-256 {digest}, but its card says {details['sha256']}; run `make retrain` or restore it")
    try:
        model.load_state_dict(torch.load(file, "cpu", weights_only=True) if file.suffix == ".pth" else load_file(file))
    except (SafetensorError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(f"{file} does not hold the weights of {network}: {flat(error)[:200]}") from None
    return model.eval()


def check(network: str, weights: str | Path | None = None) -> str | None:
    """The absolute path of the weights of a user's own network, if there is one; raises `UserError` as `load` and `identity` do."""
    if not own_networks.is_own(network):
        _check_ours(network, weights)
        return None
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
    """`version`, size and time of the file, makes the cache notice a changed file."""
    model = load(network, weights=weights)
    layers(model)  # refuses weights that cannot be shared
    digest = own_networks.digest(model)
    if weights is None and own_networks.digest(build(network, seed=1)) != digest:
        raise UserError(f"network {network!r} has other weights at each call of its factory; give a file of trained weights")
    return digest


def label(network: str, weights: str | Path | None = None) -> str:
    """The name of a network in tables, with the first digits of its `identity` if it is a user's own."""
    return f"{network}@{identity(network, weights)[:8]}" if own_networks.is_own(network) else network


def _check_ours(network: str, weights: str | Path | None = None) -> None:
    choose("network", network, (*NETWORKS, "module:factory of your own"))
    if weights is not None:
        raise UserError(f"network {network} has its own checkpoint, so weights must be None, got {str(weights)!r}")


def card(network: str, folder: Path | None = None) -> dict:
    """The card of a trained checkpoint: recipe, seed, versions, accuracies on all splits, SHA-256 of the file.

    The card of the ImageNet weights has only their SHA-256 and their address.
    """
    choose("network", network, NETWORKS)
    file = _file(network, folder)
    if file.suffix == ".pth":
        return {
            "network": network,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "source": downloads.imagenet_address(),
        }
    card_file = file.with_suffix(".json")
    for each in (file, card_file):
        if not each.exists():
            way = f"`python -m weightlab.training {network}` trains it, which takes hours without a GPU"
            if network not in BY_NAME:
                way = "`make models` trains the networks this repository has a recipe for"
            raise UserError(f"{each} is missing; {way}")
    try:
        details = json.loads(card_file.read_text())
        card_network, _ = details["network"], details["sha256"]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{card_file} is not the card of a checkpoint (JSON with network and sha256); restore it") from None
    if card_network != network:
        raise UserError(f"{card_file} is the card of {card_network}, not of {network}; restore it")
    return details


def _file(network: str, folder: Path | None) -> Path:
    """Where a network's weights are; ImageNet's are downloaded into the data folder if nobody has put a checkpoint in `models/`."""
    file = (folder or paths.models()) / f"{network}.safetensors"
    return downloads.imagenet_weights() if network == "mobilenet_v2" and not file.exists() else file
