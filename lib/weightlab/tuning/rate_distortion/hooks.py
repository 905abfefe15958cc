"""Functions that are called before and after the modules of a network, once each."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def called_once(model: nn.Module, hooks: Mapping[nn.Module, tuple[Callable | None, Callable | None]]) -> Iterator[None]:
    """Call functions before and after the first call of modules, each with the module's name as well."""
    names, handles = {module: name for name, module in model.named_modules()}, []

    def once(register: Callable, function: Callable, name: str) -> None:
        def hook(*given: object) -> object:
            handle.remove()
            return function(*given, name)

        handle = register(hook)
        handles.append(handle)

    try:
        for module, (before, after) in hooks.items():
            if before is not None:
                once(module.register_forward_pre_hook, before, names[module])
            if after is not None:
                once(module.register_forward_hook, after, names[module])
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def largest_activation(model: nn.Module, image: torch.Tensor) -> int:
    """Bytes of the largest output of any module for an image (1, ...)."""
    largest = image.nbytes

    def see(_: nn.Module, __: tuple, output: object, ___: str) -> None:
        nonlocal largest
        largest = max(largest, output.nbytes if isinstance(output, torch.Tensor) else 0)

    with called_once(model, {module: (None, see) for module in model.modules()}):
        model(image.clone())
    return largest
