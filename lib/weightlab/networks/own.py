"""Networks of a user's own: a `module:factory` that is imported, and a state dict that is read without executing anything."""

import hashlib
import importlib
import os
import sys
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from weightlab import backend
from weightlab.errors import UserError, choose, in_a_line

KINDS = (".safetensors", ".pt", ".pth", ".bin")  # of files with weights; all but the first are read by torch.load
_folders: list[str] = []  # that modules are imported from, the first one first


def is_own(network: object) -> bool:
    """Whether a name is `module:factory` rather than that of a network of this library."""
    return isinstance(network, str) and ":" in network


def look_in(folder: str | Path) -> None:
    """Let modules be imported from a folder, before others of their name, as `python -m` does with the working directory."""
    folder = os.path.abspath(folder)
    if folder not in _folders:
        _folders.insert(0, folder)
    if folder not in sys.path:
        sys.path.insert(0, folder)


def folders() -> tuple[str, ...]:
    """The working directory and the folders of `look_in`; a process elsewhere must pass them to its own `look_in`."""
    look_in(os.getcwd())
    return tuple(reversed(_folders))


def make(network: str) -> nn.Module:
    """The network that the factory of `module:factory` returns; raises `UserError` if it returns anything else.

    Module and factory can import torchvision as this library does (see `backend.with_torchvision`).
    """
    module, _, name = network.partition(":")
    look_in(os.getcwd())
    try:
        factory = getattr(backend.with_torchvision(lambda: importlib.import_module(module)), name, None)
    except (Exception, SystemExit) as error:  # a module may raise anything when it is run, scripts even end
        raise UserError(f"network {network!r}: module {module!r} cannot be imported ({in_a_line(error)})") from error
    if not callable(factory):
        raise UserError(
            f"network {network!r}: module {module!r} has no callable {name!r} that returns a network, got {factory!r}"
        )
    generator_state = torch.get_rng_state()

    def call_factory() -> object:
        torch.set_rng_state(generator_state)  # so that a second call draws the same weights
        return factory()

    try:
        model = backend.with_torchvision(call_factory)
    except (Exception, SystemExit) as error:
        raise UserError(f"network {network!r} cannot be made: {name}() failed ({in_a_line(error)})") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"network {network!r}: {name}() must return a torch.nn.Module, got {type(model).__name__}")
    return model


def absolute(weights: str | Path) -> str:
    """The absolute path of a file with weights; raises `UserError` unless there is such a file."""
    if not isinstance(weights, str | os.PathLike):
        raise UserError(f"weights must be None or the path of a file with a state dict, got {weights!r}")
    file = Path(os.path.abspath(weights))
    choose("kind of file with weights", file.suffix, KINDS)
    if not file.is_file():
        raise UserError(f"the file with weights {file} is missing")
    return str(file)


def load_weights(model: nn.Module, file: str | Path, network: str) -> None:
    """Load the state dict of a file into a network; raises `UserError` unless it is plain and fits the network name by name."""
    state = _read(Path(absolute(file)))
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        misfits = _misfits(model.state_dict(), state) or [in_a_line(error)]
        raise UserError(f"{file} does not hold the weights of {network!r}: {'; '.join(misfits)}") from None


def digest(model: nn.Module) -> str:
    """SHA-256 over the names, shapes, types and bytes of a network's parameters and buffers."""
    sha256 = hashlib.sha256()
    tensors = chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False))
    for name, value in sorted(tensors, key=lambda each: each[0]):
        value = value.detach().cpu().contiguous()
        sha256.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        sha256.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()


def _read(file: Path) -> Mapping[str, torch.Tensor]:
    try:
        state = load_file(file) if file.suffix == KINDS[0] else torch.load(file, "cpu", weights_only=True)
    except Exception as error:  # a foreign file can make a reader raise nearly anything
        raise UserError(
            f"{file} is not a file of tensors only, and nothing in it was executed ({in_a_line(error)}); "
            "save `model.state_dict()` with safetensors or torch.save"
        ) from None
    if not isinstance(state, Mapping):
        raise UserError(f"{file} must hold a plain state dict (names and tensors), got {type(state).__name__}")
    for name, value in state.items():
        if not (isinstance(name, str) and isinstance(value, torch.Tensor)):
            raise UserError(f"{file} must hold a plain state dict (names and tensors), got {name!r}: {type(value).__name__}")
    return state


def _misfits(expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> list[str]:
    missing, unexpected = ([name for name in a if name not in b] for a, b in ((expected, state), (state, expected)))
    misfits = [
        f"{len(names)} {kind}, first {names[0]}" for kind, names in (("missing", missing), ("unexpected", unexpected)) if names
    ]
    for name in expected.keys() & state.keys() - set(missing):
        if expected[name].shape != state[name].shape:
            return [*misfits, f"{name} has shape {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}"]
    return misfits
