"""How a grid of searches comes on, shown while it runs: in a notebook, on a terminal, or sparsely in a log.

What is shown is read from the grid's folders (see `status`), so it is as true for processes on other machines as for this one.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pandas as pd

from weightlab import status

WINDOW_S = 30  # over which the speed is measured
LOG_S = 60  # between lines of a log


class Progress:
    """A context in which a thread shows the state of a grid every `every_s` seconds, and a last time at the end.

    In a notebook and on a terminal one display is kept up to date; in a log there is a line a minute and one at the end.
    """

    def __init__(self, folder: str | Path, runs: Iterable[str], workers: int = 1, show: bool = True, every_s: float = 1.0):
        self._survey, self._workers, self._every_s = status.Survey(folder, runs), workers, every_s
        self._show, self._ended = show, threading.Event()
        self._seen: deque[tuple[float, int]] = deque()  # when, evaluations by then

    def __enter__(self) -> "Progress":
        if self._show:
            self._started = time.monotonic()
            self._display = _notebook() or (_Terminal() if sys.stderr.isatty() else _Log())
            self._thread = threading.Thread(target=self._follow, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        if self._show:
            self._ended.set()
            self._thread.join()

    def _follow(self) -> None:
        """A display that fails must not end the run."""
        with suppress(Exception):
            while not self._ended.wait(self._every_s):
                self._display.show(self._text(self._survey.now()))
        with suppress(Exception):
            self._display.end(self._text(self._survey.now()))

    def _text(self, table: pd.DataFrame) -> str:
        now, evaluations = time.monotonic(), int(table["evaluations"].sum())
        self._seen.append((now, evaluations))
        while now - self._seen[0][0] > WINDOW_S and len(self._seen) > 2:
            self._seen.popleft()
        since, before = self._seen[0]
        speed = (evaluations - before) / (now - since) if now > since else 0
        told = [status.line(table), f"{status.duration(now - self._started)} so far"]
        if (table["state"] != "complete").any() and not self._ended.is_set():
            left = max(0, int(table["budget"].sum()) - evaluations)
            told.append(f"{speed:.0f} evaluations/s, {status.duration(left / speed)} left" if speed else "measuring")
        shown = status.groups(table).rename(columns={"accuracy": "best accuracy", "rate": "at rate"})
        return "; ".join(told) + "\n" + shown.to_string(index=False, float_format="{:.4f}".format, na_rep="-")


class _Notebook:
    """One output that is replaced, so that an executed notebook keeps the last."""

    def __init__(self):
        from IPython.display import display

        self._handle = display({"text/plain": "searches begin"}, raw=True, display_id=True)

    def show(self, text: str) -> None:
        self._handle.update({"text/plain": text}, raw=True)

    end = show


class _Terminal:
    def __init__(self):
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), auto_refresh=False)
        self._live.start()

    def show(self, text: str) -> None:
        from rich.text import Text

        self._live.update(Text(text), refresh=True)

    def end(self, text: str) -> None:
        self.show(text)
        self._live.stop()


class _Log:
    def __init__(self):
        self._told = time.monotonic()

    def show(self, text: str) -> None:
        if time.monotonic() - self._told >= LOG_S:
            self._told = time.monotonic()
            self._tell(text)

    def end(self, text: str) -> None:
        self._tell(text)

    def _tell(self, text: str) -> None:
        print(text.splitlines()[0], file=sys.stderr, flush=True)


def _notebook() -> _Notebook | None:
    """The display of the notebook that this runs in, if any."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    return _Notebook() if hasattr(get_ipython(), "kernel") else None
