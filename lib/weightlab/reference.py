"""The library's reference for the report: a page for each room, made from the docstrings."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any

# In the order in which they may import one another, which tests/test_structure.py holds.
ROOMS = (
    "errors", "paths", "storage", "rng", "backend", "values", "settings", "formats", "accounting", "data", "networks", "models", "training",
    "search", "compression", "sharing", "evaluation", "packing", "runs", "tuning", "analysis", "figures", "notebook_files",
    "experiments", "notebooks", "reference", "report", "explore", "cli",
)  # fmt: skip
EXTENSIONS = ("sphinx.ext.autodoc",)
SETTINGS = {
    "add_module_names": False,
    "autodoc_preserve_defaults": True,
    "autodoc_typehints_format": "short",
    "autodoc_use_type_comments": False,  # none here, and looking for them takes long
    "python_maximum_signature_line_length": 100,
    "python_use_unqualified_type_names": True,
    "toc_object_entries": False,
}
HELP_WIDTH = 88  # characters, as many as fit a page


def write(folder: Path) -> None:
    """Write the pages as reStructuredText for Sphinx: `index.rst`, and `weightlab.<room>.rst` for each of `ROOMS`."""
    folder.mkdir(parents=True)
    rooms = [importlib.import_module(f"weightlab.{room}") for room in ROOMS]
    text = "A room imports only those before it. What a page lists first, under a shorter name, is what users import from there."
    entries = [f"* :doc:`{room.__name__}`: {as_rst(_first_paragraph(room))}" for room in rooms]
    contents = [".. toctree::", "   :hidden:", "", *(f"   {room.__name__}" for room in rooms)]
    index = [*_title("The library, room by room"), text, "", *entries, "", *contents]
    (folder / "index.rst").write_text("\n".join(index) + "\n")
    for room in rooms:
        (folder / f"{room.__name__}.rst").write_text("\n".join(_page(room)) + "\n")


def _page(room: ModuleType) -> list[str]:
    """The page of a room: its docstring, the names users import from it, and the public names of its modules; for the command its help."""
    lines = [*_title(room.__name__), as_rst(inspect.getdoc(room) or ""), ""]
    if room.__name__ == "weightlab.cli":
        return lines + _help(room.app)
    offered = [getattr(room, name) for name in getattr(room, "__all__", ())]
    lines += [*(_link(room, each) for each in offered if _is_described(each)), ""]
    inner = [each.name for each in pkgutil.walk_packages(getattr(room, "__path__", ()), f"{room.__name__}.")]
    for module in map(importlib.import_module, [room.__name__, *(name for name in inner if not name.endswith("__main__"))]):
        public = [each for name, each in vars(module).items() if not name.startswith("_") and _is_described(each)]
        own = [each for each in public if each.__module__ == module.__name__]
        if own and module is not room:
            lines += [*_title(module.__name__, "-"), as_rst(inspect.getdoc(module) or ""), ""]
        for each in own:
            lines += _directive(each)
    return lines


def _is_described(value: Any) -> bool:
    return (inspect.isclass(value) or inspect.isroutine(value)) and bool(value.__doc__) and "weightlab" in str(value.__module__)


def _link(room: ModuleType, value: Any) -> str:
    """A name as it is imported from a room, with a link to its description and its first paragraph."""
    name = f"{room.__name__.removeprefix('weightlab.')}.{value.__qualname__}"
    return f"* :py:obj:`{name} <{value.__module__}.{value.__qualname__}>`: {as_rst(_first_paragraph(value))}"


def _directive(value: Any) -> list[str]:
    name = f"{value.__module__}.{value.__qualname__}"
    return [f".. autoclass:: {name}", "   :members:", ""] if inspect.isclass(value) else [f".. autofunction:: {name}", ""]


def _help(app: Any) -> list[str]:
    """The text of `weightlab COMMAND --help` for each command."""
    import typer

    lines = []
    for name, command in typer.main.get_group(app).commands.items():
        context = typer.Context(command, info_name=f"weightlab {name}", terminal_width=HELP_WIDTH, max_content_width=HELP_WIDTH)
        help_lines = [f"   {line}" for line in command.get_help(context).splitlines()]
        lines += [*_title(f"weightlab {name}", "-"), ".. code-block:: text", "", *help_lines, ""]
    return lines


def _title(text: str, under: str = "=") -> list[str]:
    return [text, under * len(text), ""]


def _first_paragraph(value: object) -> str:
    return " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())


def as_rst(text: str) -> str:
    r"""Prose, in which only `names` are marked, as reStructuredText that says the same; examples stay as they are.

    >>> print(as_rst("`share` takes *one* k, or k * n of weights_"))
    ``share`` takes *one* k, or k \* n of weights\_
    """
    blocks = re.split(r"(\n\s*\n)", text)
    return "".join(block if block.lstrip().startswith(">>>") else _escaped(block) for block in blocks)


def _escaped(prose: str) -> str:
    """Names as literals, and markup characters escaped, except around a stressed *word*."""
    parts = prose.split("`")
    markup = re.compile(r"(\*\w+\*)|([\\*_|])")
    parts[::2] = [markup.sub(lambda match: match[1] or f"\\{match[2]}", part) for part in parts[::2]]
    return "".join(f"``{part}``" if i % 2 else part for i, part in enumerate(parts))


def plain_docstring(app: Any, what: str, name: str, value: object, options: Any, lines: list[str]) -> None:
    """Sphinx's event `autodoc-process-docstring`: docstrings here are prose."""
    lines[:] = as_rst("\n".join(lines)).split("\n")
