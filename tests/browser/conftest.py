"""A real JupyterLab and a real browser, Debian's chromium; without one every test here is skipped and says why.

Screenshots go to outputs/browser/. The last line of the terminal is one JSON object of what was measured.
"""

import importlib.util
import json
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from weightlab import experiments, paths

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
BROWSER = shutil.which("chromium")
FOLDER = paths.outputs() / "browser"
measured = {"slider_ms_median": None, "notebooks_run": 0, "pages_checked": 0, "console_errors": 0}
started = time.monotonic()


def pytest_collection_modifyitems(items):
    reason = None if BROWSER else "no browser: chromium is not on the path (Debian: apt-get install chromium)"
    if importlib.util.find_spec("playwright") is None:
        reason = "playwright is not installed: pip install 'weightlab[test]'"
    if reason:
        measured["skipped"] = reason
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_unconfigure(config):
    """The very last line, after pytest's own."""
    config.get_terminal_writer().line(json.dumps(measured | {"seconds": round(time.monotonic() - started, 1)}))


@pytest.fixture(scope="session")
def figures():
    """What the tests measure, for the last line."""
    return measured


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, request):
    """A page in a fresh context; how it looks when the test ends, well or not, is kept under the test's name."""
    context = chromium.new_context(viewport={"width": 1500, "height": 1100})
    context.set_default_timeout(60_000)
    page = context.new_page()
    yield page
    screenshot(page, request.node.name.removeprefix("test_"))
    context.close()


@pytest.fixture
def shot(page):
    return lambda name, **options: screenshot(page, name, **options)


def screenshot(page, name: str, **options) -> None:
    page.screenshot(path=FOLDER / f"{name}.png", **options)


@pytest.fixture(scope="session")
def lab(report_root, tmp_path_factory):
    """`make lab`'s server on a free port in a stand-in repository: its address with the token, and the repository."""
    root, environment = report_root
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port, token = free.getsockname()[1], secrets.token_hex(16)
    make = subprocess.run(
        ["make", "--no-print-directory", "-n", "lab", f"PYTHON={sys.executable}"],
        cwd=paths.root(),
        capture_output=True,
        text=True,
    )
    command = shlex.split(make.stdout.splitlines()[-1])
    command += ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={token}"]
    command += ["--LabApp.expose_app_in_browser=True"]
    home = tmp_path_factory.mktemp("jupyter")
    with open(home / "log.txt", "w") as log:
        server = subprocess.Popen(command, cwd=root, env=environment | _settings(home), stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api?token={token}", server, home / "log.txt")
        yield f"http://127.0.0.1:{port}/{{}}?token={token}", root
    finally:
        server.terminate()
        server.wait(30)


def _settings(home: Path) -> dict:
    """Environment of a JupyterLab with settings of its own, which does not ask whether it may fetch news."""
    quiet = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    folders = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython",
               "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}  # fmt: skip
    return {name: str(home / folder) for name, folder in folders.items()} | {"OMP_WAIT_POLICY": "PASSIVE"}


def _wait_for(address: str, server: subprocess.Popen, log: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            assert server.poll() is None and time.monotonic() < until, log.read_text()[-2000:]
            time.sleep(0.2)


@pytest.fixture(scope="session")
def smoke_notebook(lab):
    """Put a copy of a notebook with the parameters of the smoke profile beside it; returns its address."""
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    address, root = lab

    def copy(name: str) -> str:
        notebook = load_notebook_node(str(root / "notebooks" / f"{name}.ipynb"))
        ready = parameterize_notebook(notebook, experiments.profile_parameters(name, "smoke"))
        nbformat.write(ready, root / "notebooks" / f"smoke_{name}.ipynb")
        return address.format(f"lab/tree/notebooks/smoke_{name}.ipynb")

    return copy
