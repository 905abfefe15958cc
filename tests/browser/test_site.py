"""The report as a visitor without a network opens it: as files, in a browser."""

import subprocess
import sys
from urllib.parse import unquote, urlsplit

import pytest


@pytest.fixture(scope="module")
def site(report_root):
    root, environment = report_root
    subprocess.run([sys.executable, "-m", "weightlab", "report", "--profile", "smoke"], env=environment, check=True)
    return root / "build" / "report" / "smoke"


@pytest.fixture
def watched(page, figures):
    """A page without a network, and what went wrong on it: errors on the console, errors of scripts, requests failed or to elsewhere."""
    page.context.set_offline(True)
    wrong = []
    page.on("console", lambda message: wrong.append(f"{page.url}: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
    page.on("requestfailed", lambda request: wrong.append(f"{page.url}: {request.url} failed"))
    page.on("request", lambda request: wrong.append(f"{page.url}: {request.url}") if request.url.startswith("http") else None)
    yield page, wrong
    figures["console_errors"] += len(wrong)


def test_every_page_loads_without_an_error_and_every_link_inside_resolves(watched, site, figures, shot):
    page, wrong = watched
    for file in sorted(site.rglob("*.html")):
        page.goto(file.as_uri(), wait_until="load")
        assert page.title().strip(), file
        broken = page.locator("img").evaluate_all(
            "all => all.filter(img => img.complete && !img.naturalWidth).map(img => img.src)"
        )
        assert broken == [], file
        for link in page.locator("a[href]").evaluate_all("all => all.map(a => a.href)"):
            parts = urlsplit(link)
            assert parts.scheme != "file" or (site.parent / unquote(parts.path)).is_file(), f"{link} in {file}"
        figures["pages_checked"] += 1
        shot("-".join(("report", *file.relative_to(site).with_suffix("").parts)), full_page=True)
    assert wrong == []


def test_the_search_finds_a_word_and_leads_to_its_page(watched, site, shot):
    page, wrong = watched
    page.goto((site / "index.html").as_uri())
    page.keyboard.press("Control+k")
    page.keyboard.type("palettization")
    page.keyboard.press("Enter")
    result = page.locator("#search-results li a").first
    result.wait_for()
    shot("report-search-results")
    result.click()
    page.wait_for_function("() => document.querySelector('article')?.innerText.includes('Palettization'.toLowerCase())")
    assert "search.html" not in page.url and wrong == []
