"""Networks that are a sequence of modules, cut into stages."""

import inspect
from collections.abc import Callable, Iterable

from torch import nn

from weightlab.errors import UserError, in_a_line


def stages(model: nn.Module) -> list[nn.Module]:
    """The modules of a network in the order of their calls, grouped into stages: a new one begins before each shareable layer.

    A network can name its modules by a method `sequence()` (those of this library have one); `nn.Sequential`, of any nesting, needs
    none; any other network is a single stage, and so is one with hooks. Raises `UserError` for a `sequence()` of other objects.
    """
    method = getattr(model, "sequence", None)  # in a user's own network this may be a submodule, or take arguments
    if inspect.ismethod(method) and not inspect.signature(method).parameters:
        parts = _sequence(model, method)
    elif type(model) is nn.Sequential:
        parts = [model]
    else:
        return [model]
    if not is_bare(model):
        return [model]
    groups: list[list[nn.Module]] = [[]]
    for part in flat(parts):
        if groups[-1] and _holds_weights(part) and any(map(_holds_weights, groups[-1])):
            groups.append([])
        groups[-1].append(part)
    return [group[0] if len(group) == 1 else nn.Sequential(*group) for group in groups]


def flat(parts: Iterable[nn.Module]) -> list[nn.Module]:
    """Modules in the order of calls, with those of an `nn.Sequential` (no subclass, no hooks) in its place, however nested."""
    modules = []
    for part in parts:
        modules += flat(part) if type(part) is nn.Sequential and is_bare(part) else [part]
    return modules


def is_bare(module: nn.Module) -> bool:
    """Whether a call of a module runs its class's `forward` only: it has no hooks, and no `forward` of its own."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, nn.modules.module._has_any_global_hook())
    return not any(hooks) and "forward" not in vars(module)


def _sequence(model: nn.Module, method: Callable[[], object]) -> list[nn.Module]:
    try:
        parts = method()
        parts = list(parts) if isinstance(parts, Iterable) else parts
    except Exception as error:  # a user's own method may raise anything
        raise UserError(f"sequence() of {type(model).__name__} failed ({in_a_line(error)})") from error
    if not isinstance(parts, list) or not parts or not all(isinstance(part, nn.Module) for part in parts):
        raise UserError(
            f"sequence() of {type(model).__name__} must return the modules of the network in the order of their calls, got {parts!r:.80}"
        )
    return parts


def _holds_weights(module: nn.Module) -> bool:
    return any(isinstance(m, nn.Linear | nn.modules.conv._ConvNd) for m in module.modules())
