"""The one exception for input that a person can mend, and what a command does with it."""

import sys
from collections.abc import Callable, Iterable


class UserError(ValueError):
    """Wrong input: its message is one sentence that names the value and says what is allowed."""


def choose(kind: str, value: object, allowed: Iterable) -> None:
    """Raise `UserError` unless `value` is one of `allowed`; `kind` names what is being chosen.

    >>> choose("rate", "model", ["storage", "layer_mean"])
    Traceback (most recent call last):
        ...
    weightlab.errors.UserError: unknown rate 'model'; allowed: storage, layer_mean
    """
    allowed = list(allowed)
    if value not in allowed:
        raise UserError(f"unknown {kind} {value!r}; allowed: {', '.join(map(str, allowed))}")


def check_whole(name: str, value: object, least: int = 1, other: str = "") -> None:
    """Raise `UserError` unless a value is a whole number of at least so much; `other`, such as "None or ", says what may stand for it."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name} must be {other}a whole number of at least {least}, got {value!r}")


def plain(text: object) -> str:
    """A text from anywhere as one line, without characters that a terminal would obey."""
    return "".join(each if each.isprintable() else " " if each.isspace() else "\N{REPLACEMENT CHARACTER}" for each in str(text))


def flat(text: object) -> str:
    """A text, such as what an exception says, in one line with single spaces."""
    return " ".join(str(text).split())


def in_a_line(error: BaseException) -> str:
    """An exception of any kind, with its type, in one line."""
    return f"{type(error).__name__}: {flat(error)[:200]}"


def last_line(error: Exception) -> str:
    """What an exception says, or a command that failed said at its end, in at most 200 characters; its type if it says nothing."""
    detail = (getattr(error, "stderr", None) or str(error)).strip()
    return detail.splitlines()[-1][:200] if detail else type(error).__name__


def run(main: Callable[[], None], goes_on: Callable[[], bool] = lambda: False) -> None:
    """Run a command; a `UserError` ends it with its sentence alone and exit status 1, Ctrl-C with a sentence and status 130.

    `goes_on` says, when it is asked, whether the command keeps checkpoints and would go on from them.
    """
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {plain(error)}") from None
    except KeyboardInterrupt:
        promise = "; the same command goes on from the last checkpoints" if goes_on() else ""
        print(f"interrupted: what is complete is kept{promise}", file=sys.stderr)
        raise SystemExit(130) from None
