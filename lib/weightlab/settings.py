"""Settings, stated once: lists of options, columns and hashes are derived from the fields of frozen dataclasses.

`chosen` gives a field its role. A dataclass that holds another as a field can take that one's fields as its own arguments
(`takes_fields_of`).
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Option:
    """The option of a command for a field: its name (in Python), help, text for the default, type, flags and metavar."""

    name: str
    help: str
    shown: str | bool = False
    type: Any = str
    flags: tuple[str, ...] = ()
    metavar: str | None = None


@dataclass(frozen=True)
class Role:
    """What is derived from a field.

    `measured`: answers depend on it. `later`: it is left out of descriptions if it is not set, so that settings from before there was
    such a field keep their hash. `tried`: it says which variants are tried. `implied`: a plan itself says it. `apart`: it distinguishes
    searches in one folder.
    `column`: the meaning of its column in records, "" for none. `allowed`: the values it may have, if they are a list.
    """

    measured: bool = False
    later: bool = False
    tried: bool = False
    implied: bool = False
    apart: bool = False
    column: str = ""
    option: Option | None = None
    allowed: Callable[[], Iterable[str]] | None = None


def chosen(default: Any = dataclasses.MISSING, option: Option | None = None, kw_only: bool = False, **roles: Any) -> Any:
    """A field with a `Role`."""
    role = Role(option=option, **roles)
    return dataclasses.field(default=default, metadata={"role": role}, kw_only=kw_only or dataclasses.MISSING)


def leaves(cls: type) -> Iterator[tuple[dataclasses.Field, Role]]:
    """Fields and their roles; a field that holds a dataclass is replaced by that one's fields."""
    for field in dataclasses.fields(cls):
        inner = field.default_factory
        if isinstance(inner, type) and dataclasses.is_dataclass(inner):
            yield from leaves(inner)
        else:
            yield field, field.metadata.get("role", Role())


def names(cls: type, role: str) -> list[str]:
    """The names of all leaves that have a role."""
    return [field.name for field, its in leaves(cls) if getattr(its, role)]


def takes_fields_of(name: str) -> Callable[[type], type]:
    """Let a dataclass take the fields of the one in its field `name` as arguments too; they override those of a given `name`."""

    def decorate(cls: Any) -> Any:  # a dataclass, whose `__init__` is replaced
        own_init = cls.__init__
        inner: Any = next(field for field in dataclasses.fields(cls) if field.name == name).default_factory

        @functools.wraps(own_init)
        def init(self: Any, *arguments: Any, **values: Any) -> None:
            inner_value = values.get(name) or inner()
            own = {field.name: values.pop(field.name) for field in dataclasses.fields(inner_value) if field.name in values}
            own_init(self, *arguments, **values | ({name: dataclasses.replace(inner_value, **own)} if own else {}))

        signature = inspect.signature(own_init)
        inside = [each for each in inspect.signature(inner).parameters.values()]
        outside = list(signature.parameters.values())
        init.__signature__ = signature.replace(parameters=[*outside, *inside])  # type: ignore[attr-defined]
        cls.__init__ = init
        return cls

    return decorate
