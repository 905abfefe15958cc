"""The report, made by the command and read as a visitor's browser would find it: pages, links, anchors, images, search index."""

import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from warm_python import python

from weightlab import experiments, paths, reference, report
from weightlab.errors import UserError


class Page(HTMLParser):
    """What a page loads, where it leads, and the anchors in it."""

    def __init__(self, file):
        super().__init__()
        self.loads, self.leads, self.anchors = [], [], set()
        self.feed(file.read_text())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a":
            self.leads += [given["href"]] if given.get("href") else []
        else:
            self.loads += [given[key] for key in ("src", "href") if given.get(key)]


def run(environment, *arguments):
    command = [*python(), "-m", "weightlab", "report", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(report_root):
    root, environment = report_root
    done = run(environment, "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    folder = root / "build" / "report" / "smoke"
    assert done.stdout.startswith(f"{folder / 'index.html'} (")
    assert [file.name for file in folder.parent.iterdir()] == ["smoke"]  # nothing temporary stays
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {file: Page(file) for file in site.rglob("*.html")}


def test_every_executed_notebook_and_document_has_a_page(site):
    assert {file.stem for file in (site / "notebooks").glob("*.html")} == {"00_explore", "01_total_vs_layerwise"}
    documents = [*(paths.root() / "docs").rglob("*.md"), paths.root() / "README.md"]
    for file in documents:
        assert (site / file.relative_to(paths.root()).with_suffix(".html")).exists(), file


def test_the_reference_describes_what_users_import_and_links_it_from_each_room(site, pages):
    for room in (importlib.import_module(f"weightlab.{name}") for name in reference.ROOMS):
        page = pages[site / "reference" / f"{room.__name__}.html"]
        offered = [getattr(room, name) for name in getattr(room, "__all__", ())]
        for each in [each for each in offered if inspect.isclass(each) or inspect.isfunction(each)]:
            name = f"{each.__module__}.{each.__qualname__}"
            links = [link for link in page.leads if link.endswith(f"#{name}")]
            assert links or name in page.anchors, name  # that a link leads to its anchor is another test
    assert (
        "weightlab.compression.html#weightlab.compression.sharing.share.share"
        in pages[site / "reference/weightlab.sharing.html"].leads
    )
    assert "reference/index.html" in pages[site / "index.html"].leads


def test_docstrings_read_as_prose_with_names_as_code_and_examples_as_examples(site):
    for file in (site / "reference").glob("weightlab.*.html"):
        article = file.read_text().split("<article")[1].split("</article>")[0]
        assert not re.search(r"`|\\[*_|]|system-message", re.sub(r"(?s)<pre>.*?</pre>", "", article)), file
    text = (site / "reference" / "weightlab.accounting.html").read_text()
    assert '<span class="pre">weights</span>' in text and 'class="doctest' in text and "array([0, 1, 2, 2, 3])" in text
    assert "--objective" in (site / "reference" / "weightlab.cli.html").read_text()


def test_every_link_and_image_inside_the_site_is_there(site, pages):
    checked = 0
    for file, page in pages.items():
        for link in page.loads + page.leads:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto", "data"):
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            assert target.is_relative_to(site.resolve()) and target.is_file(), f"{link} in {file}"
            if parts.fragment and target.suffix == ".html":
                assert unquote(parts.fragment) in pages[site / target.relative_to(site.resolve())].anchors | {""}, (
                    f"{link} in {file}"
                )
            checked += 1
    assert checked > 200


def test_no_page_loads_anything_from_another_host(site, pages):
    for file, page in pages.items():
        assert not [link for link in page.loads if urlsplit(link).netloc], file
        assert not re.search(r"cdn\.jsdelivr|cdnjs|unpkg|googleapis", file.read_text()), file
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )['\"]?(https?:)?//", style.read_text()), style


def test_it_is_small(site):
    assert sum(file.stat().st_size for file in site.rglob("*")) < 20e6


def test_the_front_page_says_what_was_run_and_names_what_was_not(site):
    text = (site / "index.html").read_text()
    record = json.loads((site.parents[2] / "outputs/smoke/01_total_vs_layerwise/run.json").read_text())
    commit = (record["commit"] or "unknown")[:8]
    for fact in (commit, record["versions"]["torch"], record["device"], "smoke", record["started"][:10]):
        assert fact in text
    for name in experiments.names():
        executed = name in ("00_explore", "01_total_vs_layerwise")
        assert (f'href="notebooks/{name}.html"' in text) == executed
        assert (f"make experiment NB={name} PROFILE=smoke" in re.sub(r"<[^>]+>", "", text)) != executed


def test_the_front_page_holds_the_answers_of_the_notebooks_and_the_headline_table(site):
    text = re.sub(r"<[^>]+>|\s+", " ", (site / "index.html").read_text())
    executed = nbformat.read(site.parents[2] / "outputs/smoke/01_total_vs_layerwise/notebook.ipynb", as_version=4)
    after = executed.cells[[cell.source for cell in executed.cells].index("## Answer") + 1 :]
    data = [output.get("data", {}) for cell in after for output in cell.get("outputs", [])]
    rates = re.findall(r"\*\*storage rate (\d+\.\d+)", " ".join(each.get("text/markdown", "") for each in data))
    assert len(rates) >= 2 and all(f"storage rate {rate}" in text for rate in rates)
    assert text.count(rates[0]) >= 2  # in the answer and in the table


def test_the_search_knows_the_words_of_notebooks_and_documents(site):
    index = (site / "searchindex.js").read_text()
    for document in ("notebooks/01_total_vs_layerwise", "docs/glossary", "docs/decisions/0001-a-thin-library-in-layers"):
        assert f'"{document}"' in index
    assert "centroid" in index and "palett" in index


def test_what_only_moves_in_jupyterlab_becomes_a_sentence():
    """A widget's output would otherwise be a page's only hint, such as `IntSlider(value=3)`; its state is not published."""
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "IntSlider(value=3)"}
    cell = nbformat.v4.new_code_cell("slider", outputs=[nbformat.v4.new_output("display_data", data=widget)])
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})
    likeness = {"application/vnd.jupyter.widget-view+json": {"model_id": "2"}, "text/html": "<p>k = 3</p>"}
    cell.outputs.append(nbformat.v4.new_output("display_data", data=likeness))
    still = report._still(notebook)
    assert still.cells[0].outputs[1].data == {"text/html": "<p>k = 3</p>"}
    assert "make lab" in still.cells[0].outputs[0].data["text/markdown"] and len(still.cells[0].outputs[0].data) == 1
    assert "widgets" not in still.metadata


def test_without_executed_notebooks_one_sentence_says_how_to_make_them(own_root):
    root, environment = own_root
    done = run(environment, "--profile", "smoke")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "profile 'smoke' has no executed notebooks" in done.stderr and "make experiments PROFILE=smoke" in done.stderr
    assert not (root / "build").exists()


def test_without_sphinx_one_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sphinx_book_theme", None)
    with pytest.raises(UserError, match=r"a report needs sphinx_book_theme: pip install 'weightlab\[report\]'"):
        report.build("smoke")


def test_an_unknown_profile_is_refused():
    with pytest.raises(UserError, match="'tiny'.*quick"):
        report.build("tiny")


def test_a_damaged_notebook_leaves_the_earlier_report(own_root, report_root):
    """One sentence names the file."""
    root, environment = own_root
    shutil.copytree(report_root[0] / "outputs" / "smoke", root / "outputs" / "smoke")
    (root / "outputs" / "full").symlink_to(paths.outputs() / "full")
    earlier = root / "build" / "report" / "smoke" / "index.html"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("earlier")
    notebook = root / "outputs" / "smoke" / "00_explore" / "notebook.ipynb"
    notebook.write_text(notebook.read_text()[:500])
    done = run(environment, "--profile", "smoke")
    assert done.returncode == 1 and done.stderr.startswith("error: ") and str(notebook) in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and earlier.read_text() == "earlier"
