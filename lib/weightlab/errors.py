"""The exception for wrong input, and how a command reports it."""

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
    """Raise `UserError` unless a value is a whole number of at least `least`; `other`, such as "None or ", names what else is allowed."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name} must be {other}a whole number of at least {least}, got {value!r}")


def plain(text: object) -> str:
    """Any text as one line without control characters, safe to print on a terminal."""
    return "".join(each if each.isprintable() else " " if each.isspace() else "\N{REPLACEMENT CHARACTER}" for each in str(text))


def flat(text: object) -> str:
    """A text, such as the message of an exception, in one line with single spaces."""
    return " ".join(str(text).split())


def in_a_line(error: BaseException) -> str:
    """An exception of any kind, with its type, in one line."""
    return f"{type(error).__name__}: {flat(error)[:200]}"


def last_line(error: Exception) -> str:
    """The last line of an exception's message, or of a failed command's stderr, at most 200 characters; its type if there is none."""
    detail = (getattr(error, "stderr", None) or str(error)).strip()
    return detail.splitlines()[-1][:200] if detail else type(error).__name__


def run(main: Callable[[], None], goes_on: Callable[[], bool] = lambda: False) -> None:
    """Run a command; a `UserError` ends it with its sentence alone and exit status 1, Ctrl-C with a sentence and status 130.

    `goes_on` tells, once the command is interrupted, whether it can resume from checkpoints.
    """
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {plain(error)}") from None
    except KeyboardInterrupt:
        promise = "; the same command resumes from the last checkpoints" if goes_on() else ""
        print(f"interrupted: complete results are kept{promise}", file=sys.stderr)
        raise SystemExit(130) from None
