"""nbformat, imported without the slowest part of its import.

It imports jsonschema, which builds a grammar of web addresses if `rfc3987_syntax` is installed (JupyterLab brings it): more than a
second in every process that runs a notebook. Without that package it works too, and no notebook has such addresses to check.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """A context in which no module called `name` is found."""
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # import takes this for a missing module
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


with _hidden("rfc3987_syntax"):
    import nbformat as nbformat
