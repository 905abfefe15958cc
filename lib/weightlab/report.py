"""A site to read offline: the executed notebooks of a profile, their answers on the front page, documentation, reference, search."""

import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pandas as pd

from weightlab import experiments, figures, paths, reference
from weightlab.errors import UserError, choose
from weightlab.notebook_files import nbformat

Content = TypeVar("Content")
HEADLINE = "01_total_vs_layerwise"  # its figure and its table stand on the front page
# Tables as in Jupyter: the theme leaves no space between numbers. Examples of the reference are wrapped.
STYLE = """article table.dataframe :is(th, td) { padding: 0.2em 0.6em; text-align: right; font-size: 0.9em; }
dd .doctest pre { white-space: pre-wrap; }
"""
WIDGET = "application/vnd.jupyter.widget-view+json"
SPHINX = {
    "project": "weightlab",
    "extensions": ["myst_nb", *reference.EXTENSIONS],
    "html_title": "weightlab",
    "html_theme": "sphinx_book_theme",
    "html_theme_options": {
        "footer_content_items": [],
        "home_page_in_toc": True,
        "navbar_persistent": [],  # the search stands at the side
        "use_download_button": False,
        "use_fullscreen_button": False,
    },
    "html_use_index": False,
    "html_context": {"default_mode": "auto"},  # light or dark as the reader's system is; unset, the theme complains
    "html_copy_source": False,
    "html_css_files": ["weightlab.css"],
    "html_static_path": ["_static"],
    "html_show_search_summary": False,  # summaries are fetched, which browsers refuse to pages opened as files
    "myst_enable_extensions": [],  # no formulas, so no MathJax from another host
    "nb_execution_mode": "off",
    "nb_ipywidgets_js": {},  # nor require.js
    "nb_merge_streams": True,
} | reference.SETTINGS


def build(profile: str) -> Path:
    """Make the site of a profile as `build/report/<profile>/index.html`, in place of an earlier one, and return that file.

    What has not been executed is named on the front page. Raises `UserError` if nothing has been, or if Sphinx is not installed.
    """
    choose("profile", profile, experiments.profiles())
    sphinx, records = _sphinx(), _records(profile)
    if not records:
        raise UserError(
            f"profile {profile!r} has no executed notebooks in {paths.outputs() / profile}; "
            f"`make experiments PROFILE={profile}` executes them"
        )
    final = paths.root() / "build" / "report" / profile
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=f".{profile}.") as working:
            source, site = Path(working) / "source", Path(working) / "site"
            _write_source(source, profile, records)
            making = sphinx(source, None, site, Path(working) / "doctrees", "html", SPHINX, status=None, warning=sys.stderr)
            making.connect("autodoc-process-docstring", reference.plain_docstring)
            making.build()
            for file in [*site.rglob("*.map"), *site.rglob("*webpack-macros.html")]:  # what themes are made from; no page uses it
                file.unlink()
            shutil.rmtree(final, ignore_errors=True)
            site.rename(final)
    except OSError as error:
        raise UserError(f"the report {final} cannot be written: {error}") from error
    return final / "index.html"


def _records(profile: str) -> dict[str, dict]:
    """The run.json of each executed notebook, by name, in reading order."""
    folders = {name: paths.outputs() / profile / name for name in experiments.names()}
    whole = [name for name, folder in folders.items() if (folder / "run.json").exists() and (folder / "notebook.ipynb").exists()]
    return {name: _read(folders[name] / "run.json", json.loads) for name in whole}


def _read(file: Path, parse: Callable[[str], Content]) -> Content:
    try:
        return parse(file.read_text())
    except ValueError:
        raise UserError(
            f"{file} is damaged or not the output of a notebook; execute the notebook again, or delete its folder"
        ) from None


def _write_source(source: Path, profile: str, records: dict[str, dict]) -> None:
    """Write the source for Sphinx: the front page, executed notebooks, README, documentation and reference."""
    reference.write(source / "reference")
    shutil.copytree(paths.root() / "docs", source / "docs")
    readme = (paths.root() / "README.md").read_text()
    (source / "README.md").write_text(readme)
    for image in re.findall(r"!\[[^]]*\]\(([^):]+)\)", readme):
        (source / image).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(paths.root() / image, source / image)
    for folder in ("notebooks", "_static"):
        (source / folder).mkdir()
    (source / "_static" / "weightlab.css").write_text(STYLE)
    entries, missing = [], []
    for name in experiments.names():
        if name in records:
            file = paths.outputs() / profile / name / "notebook.ipynb"
            notebook = _read(file, partial(nbformat.reads, as_version=4))
            entries.append(_entry(name, notebook, records[name]))
            nbformat.write(_still(notebook), source / "notebooks" / f"{name}.ipynb")
        else:
            missing.append(f"- {experiments.find(name).question} (`make experiment NB={name} PROFILE={profile}`)")
    introduction = readme.split("\n", 1)[1].split("\n## ")[0].strip()
    parts = [
        f"# weightlab: report of profile {profile}",
        introduction,
        _headline(source, profile) if HEADLINE in records else "",
        "## Questions and answers",
        *entries,
        "\n".join(["## Not executed in this profile", "", *missing]) if missing else "",
        "## How this was made",
        _provenance(profile, records),
        _contents("Notebooks", [f"notebooks/{name}" for name in records]),
        _contents("Documentation", ["About weightlab <README>", "docs/*"]),
        _contents("Library", ["Room by room <reference/index>"]),
        _contents("Decisions", ["docs/decisions/*"]),
    ]
    (source / "index.md").write_text("\n\n".join(parts))


def _entry(name: str, notebook: nbformat.NotebookNode, record: dict) -> str:
    """A notebook on the front page: its question as a link, its answer in words, when and from what it was made."""
    sources = [cell.source for cell in notebook.cells]
    after = notebook.cells[sources.index("## Answer") + 1 :] if "## Answer" in sources else []
    outputs = [output for cell in after for output in cell.get("outputs", [])]
    answers = [output.data["text/markdown"] for output in outputs if "text/markdown" in output.get("data", {})]
    origin = f"*{name}, {record['started'][:10]}, {record['minutes']:g} minutes, commit {_short(record['commit'])}*"
    return "\n\n".join([f"### [{experiments.find(name).question}](notebooks/{name}.ipynb)", *answers, origin])


def _still(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An executed notebook for a page: code is folded away, and a sentence replaces controls that work only in JupyterLab."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata.tags = [*cell.metadata.get("tags", []), "hide-input"]
            for output in cell.outputs:
                data = output.get("data", {})
                if data.pop(WIDGET, None) and set(data) <= {"text/plain"}:  # no other likeness of it
                    output.data = {"text/markdown": "*Here are controls to move by hand: `make lab` opens JupyterLab.*"}
    return notebook


def _headline(source: Path, profile: str) -> str:
    """Figure and table of `HEADLINE`: one codebook for the whole net against one k for every layer."""
    folder = paths.outputs() / profile / HEADLINE
    shutil.copy(folder / "whole_net_or_per_layer.png", source / "headline.png")
    columns = {"network": "network", "arm": "codebooks", "format": "format", "k": "k", "storage_rate": "storage rate",
               "loss_pp": "loss, validation (pp)", "test_loss_pp": "loss, test (pp)", "published_rate": "published rate"}  # fmt: skip
    table = pd.read_parquet(folder / "best_and_published.parquet")[list(columns)]
    table["k"] = table["k"].map(lambda k: "none" if pd.isna(k) else f"{k:.0f}")
    table[["network", "format"]] = table[["network", "format"]].map(figures.label)
    return "\n\n".join(
        [
            f"![Loss against storage rate](headline.png)\n\n*Loss against storage rate, of [{HEADLINE}](notebooks/{HEADLINE}.ipynb). "
            "The table: the best k that loses less than 1 pp.*",
            table.rename(columns=columns).to_html(
                index=False, border=0, na_rep="", float_format="{:.2f}".format, classes="table"
            ),
        ]
    )


def _provenance(profile: str, records: dict[str, dict]) -> str:
    """Profile, date, commits, versions and hardware; values that differ between notebooks are all listed."""
    runs = list(records.values())
    facts = {"profile": profile, "report made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}
    facts["notebooks executed"] = f"{len(records)} of {len(experiments.names())}"
    facts["commit"] = ", ".join(dict.fromkeys(_short(run["commit"]) for run in runs))
    facts["hardware"] = ", ".join(dict.fromkeys(f"{run['device']}, {run['cores']} cores" for run in runs))
    for package in runs[0]["versions"]:
        facts[package] = ", ".join(dict.fromkeys(run["versions"].get(package, "unknown") for run in runs))
    head, *rows = (f"| {name} | {value} |" for name, value in facts.items())
    return "\n".join(["A commit with + had uncommitted changes.", "", head, "|---|---|", *rows])


def _short(commit: str | None) -> str:
    return f"{commit[:8]}{'+' if commit.endswith('+') else ''}" if commit else "unknown"


def _contents(caption: str, pages: list[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", ":glob:", f":caption: {caption}", "", *pages, "```"])


def _sphinx() -> type:
    """Sphinx's application, after a check that all it needs is installed."""
    try:
        import myst_nb  # noqa: F401
        import sphinx_book_theme  # noqa: F401
        from sphinx.application import Sphinx
    except ImportError as error:
        raise UserError(f"a report needs {error.name}: pip install 'weightlab[report]'") from None
    return Sphinx
