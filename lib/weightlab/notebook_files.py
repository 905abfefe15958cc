"""nbformat, imported without what takes most of its import's time.

It imports jsonschema, which builds a grammar of web addresses where it finds `rfc3987_syntax` (JupyterLab brings it): more than a
second in every process that runs a notebook. Where that cannot be found it does without, and no notebook has such addresses to check.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """A context in which no module called `name` is found."""
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # so import is told that there is none
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


with _hidden("rfc3987_syntax"):
    import nbformat as nbformat
