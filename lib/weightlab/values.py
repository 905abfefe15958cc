"""Values that people write as text: YAML 1.2 by its core schema, in which 1e-3 is a number, and `on`, 1:12 and a date are text."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
import yamlcore

from weightlab.errors import UserError, flat


class _Text(yamlcore.CommonLoader):
    """Mappings and lists of texts: no value is taken for a number."""


def read(text: str, what: str, as_text: bool = False) -> Any:
    """The value of a YAML text, or with `as_text` one in which all values stay as they are written.

    Raises `UserError`, which names `what`, for text that is not YAML, and for a repeated key.
    """
    try:
        return yaml.load(text, Loader=_Text if as_text else yamlcore.CoreLoader)
    except yaml.MarkedYAMLError as error:
        place = f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
        raise UserError(f"{what} is not valid YAML: {' '.join(filter(None, [error.context, error.problem]))} ({place})") from None
    except (yaml.YAMLError, ValueError, LookupError, RecursionError) as error:  # a tag, such as !!int, may not fit its value
        raise UserError(f"{what} is not valid YAML: {flat(error)}") from None


def read_file(file: Path, as_text: bool = False) -> dict:
    """The values of a YAML file of 'name: value' lines; raises `UserError` for any other file, and one that cannot be read."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    entries = read(text, str(file), as_text)
    if entries is not None and not isinstance(entries, dict):
        raise UserError(f"{file} must hold 'name: value' lines, got {type(entries).__name__}")
    return entries or {}


def assigned(pairs: Iterable[str]) -> dict:
    """Values by name from NAME=VALUE; raises `UserError` for any other text, and for a repeated name.

    >>> assigned(["images=500", "threshold=1e-3", "networks=[lenet5_tanh]", "search=off"])
    {'images': 500, 'threshold': 0.001, 'networks': ['lenet5_tanh'], 'search': 'off'}
    """
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--set takes NAME=VALUE, got {pair!r}")
        if name in values:
            raise UserError(f"--set takes each name once, got {name!r} again in {pair!r}")
        values[name] = read(text, f"the value in {pair!r}")
    return values
