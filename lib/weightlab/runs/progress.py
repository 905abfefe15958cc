"""Show the progress of a grid of searches: in a notebook, on a terminal, or sparsely in a log.

It is read from the grid's folders (see `status`), so it includes processes on other machines.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from weightlab.runs import status

WINDOW_S = 30  # over which the speed is measured
LEAST_CHANGES = 4  # the speed is measured over at least so many
LOG_S = 60  # between lines of a log
PATIENCE_S = 10  # the wait for a display that hangs, at the end


class Progress:
    """A context in which a thread shows the state of a grid every `every_s` seconds, and a last time at the end.

    In a notebook and on a terminal one display is kept up to date; a log gets a line a minute and the whole at the end. Nothing goes
    to stdout, and a display that fails does not end the run. `workers` is used to guess the time left until a speed is known.
    """

    def __init__(self, folder: str | Path, runs: Iterable[str], workers: int = 1, show: bool = True, every_s: float = 1.0):
        self._survey, self._workers, self._every_s = status.Survey(folder, runs), workers, every_s
        self._show, self._ended = show, threading.Event()
        self._thread: threading.Thread | None = None
        self._display: _Notebook | _Terminal | _Log
        self._evaluations = 0  # since it started, by all processes
        self._changes: deque[tuple[float, int]] = deque()  # time, evaluations by then
        self._last: pd.DataFrame | None = None  # by run
        self._failed_before: set[str] = set()  # and not resumed since: they will be

    def __enter__(self) -> "Progress":
        self._started = time.monotonic()
        if self._show:
            with suppress(Exception):
                self._display = _Notebook() if _in_notebook() else _Terminal() if sys.stderr.isatty() else _Log()
                self._thread = threading.Thread(target=self._follow, daemon=True)
                self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._ended.set()
            self._thread.join(PATIENCE_S)
            if not self._thread.is_alive():
                with suppress(Exception):
                    self._display.end(*self._state())

    def _follow(self) -> None:
        with suppress(Exception):
            self._state()  # counts what was done before
        while not self._ended.wait(max(self._every_s, self._display.least_s)):
            with suppress(Exception):
                self._display.show(*self._state())

    def _state(self) -> tuple[str, pd.DataFrame]:
        """The progress in one line, and the best so far of each group."""
        table, seconds = self._survey.now(), time.monotonic() - self._started
        speed, elapsed = self._speed(table), status.duration(seconds)
        if self._ended.is_set():
            mean = f" ({status.pace(self._evaluations / seconds)})" if self._evaluations else ""
            return f"{status.line(table)}; {self._evaluations} evaluations in {elapsed}{mean}", status.bests(table)
        parts = [status.line(table), status.evaluations(table), f"{elapsed} so far"]
        if speed:
            parts += [status.pace(speed), f"about {status.duration(self._left_seconds(table, speed))} left"]
        else:
            guess = status.remaining_seconds(table, self._workers)
            parts += ["measuring" + (f" (about {status.duration(guess)} left by earlier records)" if guess else "")]
        return "; ".join(parts), status.bests(table)

    def _speed(self, table: pd.DataFrame) -> float:
        """Evaluations a second of all processes; 0 before there were any."""
        now, table = time.monotonic(), table.set_index("run")
        failed = set(table.index[table["state"] == "failed"])
        if self._last is None:
            self._last, self._failed_before = table, failed
        self._failed_before &= failed
        # Search by search, since the count of one that starts again falls.
        self._evaluations += int((table["evaluations"] - self._last["evaluations"]).clip(lower=0).sum())
        self._last = table
        if not self._changes or self._evaluations != self._changes[-1][1]:
            self._changes.append((now, self._evaluations))
        while len(self._changes) > LEAST_CHANGES and now - self._changes[1][0] > WINDOW_S:
            self._changes.popleft()
        since, before = self._changes[0]
        return (self._evaluations - before) / (now - since) if now > since else 0

    def _left_seconds(self, table: pd.DataFrame, speed: float) -> float:
        """Estimated seconds left, at least those of the longest search at its share of the speed; failed searches are left out."""
        given_up = (table["state"] == "failed") & ~table["run"].isin(self._failed_before)
        left = (table["budget"] - table["evaluations"])[(table["state"] != "complete") & ~given_up].clip(lower=0)
        at_work = max(1, (table["state"] == "running").sum())
        return 0 if left.empty else max(left.sum(), left.max() * at_work) / speed


class Steps:
    """A context for one piece of work in many steps, `done` of which were done before: a bar, or a line a minute in a log."""

    def __init__(self, what: str, total: int, done: int = 0, show: bool = True):
        self._what, self._total, self._done, self._before, self._show = what, total, done, done, show
        self._bar: tqdm | None = None
        self._started = self._printed_at = time.monotonic()

    def __enter__(self) -> "Steps":
        if self._show and (sys.stderr.isatty() or _in_notebook()):
            self._bar = tqdm(total=self._total, initial=self._done, desc=self._what)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._show:
            self._print_line()

    def add(self, steps: int) -> None:
        self._done += steps
        if self._bar is not None:
            self._bar.update(steps)
        elif self._show and time.monotonic() - self._printed_at >= LOG_S:
            self._print_line()

    def _print_line(self) -> None:
        self._printed_at = time.monotonic()
        here, seconds = self._done - self._before, self._printed_at - self._started
        parts = [f"{self._what}: {self._done} of {self._total} evaluations"]
        if here and seconds:
            left = (self._total - self._done) * seconds / here
            parts += [status.pace(here / seconds), *([f"about {status.duration(left)} left"] if left else [])]
        with suppress(OSError, ValueError):  # a log that fails does not end the work
            print("; ".join(parts), file=sys.stderr, flush=True)


class _Notebook:
    """One output that is replaced, so that an executed notebook keeps the last."""

    least_s = 0

    def __init__(self) -> None:
        from IPython.display import display

        self._handle = display({"text/plain": "searches begin"}, raw=True, display_id=True)

    def show(self, line: str, bests: pd.DataFrame) -> None:
        self._handle.update({"text/plain": f"{line}\n\n{bests.to_string(index=False)}"}, raw=True)

    end = show


class _Terminal:
    least_s = 0

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        # What the run prints goes above the table, but stays on stdout where that is a file or a pipe.
        self._live = Live(console=Console(stderr=True), auto_refresh=False, redirect_stdout=sys.stdout.isatty())
        self._live.start()

    def show(self, line: str, bests: pd.DataFrame) -> None:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None)
        for number, name in enumerate(bests):
            table.add_column(name, justify="right" if number else "left")
        for row in bests.itertuples(index=False):
            table.add_row(*map(Text, row))
        self._live.update(Group(Text(line), table), refresh=True)

    def end(self, line: str, bests: pd.DataFrame) -> None:
        try:
            self.show(line, bests)
        finally:  # or the terminal stays without its cursor
            self._live.stop()


class _Log:
    least_s = LOG_S

    def show(self, line: str, bests: pd.DataFrame) -> None:
        print(line, file=sys.stderr, flush=True)

    def end(self, line: str, bests: pd.DataFrame) -> None:
        self.show(f"{line}\n{bests.to_string(index=False)}", bests)


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")
