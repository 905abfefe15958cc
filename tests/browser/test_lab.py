"""The notebooks as a person uses them: opened, run and moved in JupyterLab."""

import statistics
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from weightlab import experiments

CELLS = "jupyterapp.shell.currentWidget.content.model.sharedModel.cells.filter(cell => cell.cell_type == 'code')"
ERRORS = f"{CELLS}.flatMap(cell => cell.outputs).filter(output => output.output_type == 'error')"
ENDED = f"""() => {{
    const kernel = jupyterapp.shell.currentWidget.sessionContext.session?.kernel;
    return {ERRORS}.length > 0 || (kernel?.status == 'idle' && {CELLS}.length > 0 && {CELLS}.every(cell => cell.execution_count));
}}"""
READY = """path => {  // not a notebook of an earlier test, which JupyterLab opens again
    const shown = window.jupyterapp?.shell.currentWidget;
    return shown?.context?.path == path && shown.sessionContext.session?.kernel?.status == 'idle';
}"""
ANSWER = ".weightlab-accuracy [data-answer]"
WATCH_FOR_ANSWER = """before => {  // from the next key press to the first measured answer that the page shows after it
    window.answered = new Promise(resolve => {
        let pressed = null;
        document.addEventListener('keydown', () => { pressed = performance.now(); }, {capture: true, once: true});
        const observer = new MutationObserver(() => {
            const answer = document.querySelector('.weightlab-accuracy [data-answer]');
            if (pressed !== null && answer?.dataset.state != 'measuring' && Number(answer?.dataset.answer) > before) {
                observer.disconnect();
                resolve(performance.now() - pressed);
            }
        });
        observer.observe(document.body, {subtree: true, childList: true, attributes: true});
    });
}"""


def run_all_cells(page, address: str, timeout_s: float) -> None:
    """Open a notebook, run all its cells and see that none ends with an error."""
    page.goto(address)
    page.wait_for_function(READY, arg=urlsplit(address).path.removeprefix("/lab/tree/"))
    page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells'); }")  # its promise would be waited for
    page.wait_for_function(ENDED, timeout=timeout_s * 1000)
    assert page.evaluate(ERRORS) == []


@pytest.fixture
def explorer(page, smoke_notebook):
    """`00_explore`, run to its end, with the sliders in view."""
    run_all_cells(page, smoke_notebook("00_explore"), 90)
    page.locator(".weightlab-slider-0").scroll_into_view_if_needed()
    return page


def test_lab_opens_on_the_landing_notebook_whose_links_open_notebooks(page, lab, shot):
    address, _ = lab
    page.goto(address.format(""))
    page.get_by_role("heading", name="Where to begin").wait_for()
    links = page.locator(".jp-NotebookPanel .jp-RenderedMarkdown li a[href*='.ipynb']")
    links.nth(len(experiments.names()) - 1).wait_for(state="attached")  # cells are rendered one after the other
    assert [link.split("/")[-1].split(".")[0] for link in links.evaluate_all("all => all.map(a => decodeURI(a.href))")] == [
        experiments.find(name).notebook.stem for name in experiments.names()
    ]
    shot("landing")
    for name in (experiments.names()[0], experiments.names()[-1]):
        page.get_by_role("tab", name="index.ipynb").first.click()
        question = page.locator(f".jp-RenderedMarkdown a[href*='{name}.ipynb']:visible")
        text = question.inner_text()
        question.click()
        page.wait_for_function("name => jupyterapp.shell.currentWidget?.title.label == name", arg=f"{name}.ipynb")
        page.get_by_role("heading", name=text, level=1).locator("visible=true").wait_for()


def test_a_slider_move_changes_the_numbers(explorer, figures, shot):
    """Twenty moves over five layers, each with an arrow key; the milliseconds are those that a person waits."""
    figures["notebooks_run"] += 1
    shot("explore")
    waited, numbers = [], ("storage-rate", "layer-mean-rate", "accuracy", "table")
    shown = [{mark: explorer.locator(f".weightlab-{mark}").inner_text() for mark in numbers}]
    for layer in range(5):
        handle = explorer.locator(f".weightlab-slider-{layer} .noUi-handle")
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowRight"):
            handle.focus()
            explorer.evaluate(WATCH_FOR_ANSWER, int(explorer.locator(ANSWER).get_attribute("data-answer")))
            explorer.keyboard.press(key)
            waited.append(explorer.evaluate("() => window.answered"))
            shown.append({mark: explorer.locator(f".weightlab-{mark}").inner_text() for mark in numbers})
            assert shown[-1]["table"] != shown[-2]["table"]  # it holds k; a rate of two digits may stay
    for mark in numbers:
        assert len({each[mark] for each in shown}) > 1, mark
    figures["slider_ms_median"] = round(statistics.median(waited), 1)


def test_lambda_compresses_when_it_is_let_go(explorer, shot):
    """While the handle is dragged nothing is compressed; then the page says that it is at work, and the plot shows the point."""
    handle = explorer.locator(".weightlab-price .noUi-handle")
    handle.scroll_into_view_if_needed()
    place = handle.bounding_box()
    across, down = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    explorer.mouse.move(across, down)
    explorer.mouse.down()
    for step in range(1, 11):
        explorer.mouse.move(across + 4 * step, down)
    explorer.wait_for_timeout(500)
    assert explorer.locator(".weightlab-priced [data-state]").count() == 0
    explorer.mouse.up()
    explorer.locator(".weightlab-priced [data-state=compressing]").wait_for()
    shot("lambda-at-work")
    explorer.locator(".weightlab-priced > .widget-html-content > [data-answer='1']").wait_for()
    text = explorer.locator(".weightlab-priced").inner_text()
    assert "level 1 (calibrated)" in text and "bytes as a file" in text and "lambda 0.01," not in text
    explorer.locator(".weightlab-plans img[alt*='coded rate'][alt*='at 1 prices']").wait_for()
    for count in (2, 3):
        handle.focus()
        explorer.keyboard.press("ArrowRight")
        explorer.locator(f".weightlab-priced > .widget-html-content > [data-answer='{count}']").wait_for()
    explorer.locator(".weightlab-plans img[alt*='at 3 prices']").wait_for()
    shot("lambda")
    explorer.locator(".weightlab-write-priced").click()
    explorer.locator(".weightlab-written-priced code").wait_for()
    assert Path(explorer.locator(".weightlab-written-priced code").inner_text()).stat().st_size > 1000


def test_a_search_starts_moves_and_stops_and_a_file_is_written(explorer, shot):
    stop, progress = explorer.locator(".weightlab-stop"), explorer.locator(".weightlab-progress [data-evaluations]")
    explorer.locator(".weightlab-budget input").fill("100000")  # more than could end meanwhile
    explorer.locator(".weightlab-budget input").press("Tab")
    explorer.locator(".weightlab-search").click()
    progress.wait_for()
    before = progress.get_attribute("data-evaluations")
    explorer.wait_for_function(
        "before => Number(document.querySelector('.weightlab-progress [data-evaluations]').dataset.evaluations) > Number(before)",
        arg=before,
    )
    shot("search")
    stop.click()
    explorer.locator(".weightlab-progress").get_by_text("stopped").wait_for()
    assert stop.is_disabled() and 0 < int(progress.get_attribute("data-evaluations")) < 100_000
    explorer.locator(".weightlab-write").click()
    explorer.locator(".weightlab-written code").wait_for()
    assert Path(explorer.locator(".weightlab-written code").inner_text()).stat().st_size > 1000
    assert explorer.locator(".weightlab-message").inner_text().strip() == ""


def test_the_optimizers_run_to_the_end(page, smoke_notebook, figures):
    run_all_cells(page, smoke_notebook("02_optimizers"), 180)
    figures["notebooks_run"] += 1
    page.evaluate("() => { const all = jupyterapp.shell.currentWidget.content; all.scrollToItem(all.widgets.length - 1); }")
    page.get_by_role("heading", name="Answer").wait_for()
