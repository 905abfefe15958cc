"""The explorer's small search: start it, watch it, stop and resume it, and take its best plan."""

import threading
import time
from collections.abc import Callable

import ipywidgets
import pandas as pd

from weightlab.errors import choose
from weightlab.explore import controls, pages
from weightlab.explore.study import POINTS, Study, best
from weightlab.runs.loop import Stopped
from weightlab.search import SEARCHES

SHOWN_EVERY_S = 1  # of the figure: numbers are shown after each generation


class SearchPanel:
    """Widgets of a search; `best` is the best acceptable plan of the last one.

    `start` does a piece of work in the background, `show` draws `found`, `take` puts a plan on the sliders.
    """

    def __init__(self, search: str, budget: int, seed: int, start: Callable, show: Callable[[], None], take: Callable):
        choose("search", search, SEARCHES)
        self._seed, self._show, self._stopping = seed, show, threading.Event()
        self.optimizer = controls.dropdown("optimizer", SEARCHES, search)
        self.budget = ipywidgets.IntText(budget, description="budget").add_class("weightlab-budget")
        self.search, self.stop = controls.button("Search", "search"), controls.button("Stop", "stop", disabled=True)
        self.take_best = controls.button("Take the best plan", "take-best", disabled=True)
        self.progress = controls.html("progress")
        row = ipywidgets.HBox([self.optimizer, self.budget, self.search, self.stop, self.take_best])
        self.box = ipywidgets.VBox([row, self.progress])
        self.search.on_click(lambda button: start(self._run))
        self.stop.on_click(lambda button: self._stopping.set())
        self.take_best.on_click(lambda button: None if self.best is None else take(self.best["plan"]))
        self.reset()

    def reset(self) -> None:
        """Forget the searched plans, which belong to another network, format or method."""
        self._plans: dict[tuple[str, int], pd.DataFrame] = {}  # by search and budget, so that a resumed one counts once
        self.best: pd.Series | None = None
        self.progress.value, self.take_best.disabled = "", True

    @property
    def found(self) -> pd.DataFrame:
        """The plans searched here, columns `POINTS`."""
        return pd.concat(self._plans.values(), ignore_index=True) if self._plans else pd.DataFrame(columns=POINTS)

    def set_busy(self, busy: bool) -> None:
        self.search.disabled, self.take_best.disabled = busy, busy or self.best is None

    def _run(self, study: Study) -> None:
        """Search with the current values of the widgets."""
        search, budget = self.optimizer.value, self.budget.value
        arrivals: list[tuple[float, pd.DataFrame]] = []  # when which records came
        drawn_at = time.monotonic()

        def receive(records: pd.DataFrame) -> None:
            nonlocal drawn_at
            arrivals.append((time.monotonic(), records))
            self._show_progress(arrivals, search, budget, "searching")
            if time.monotonic() - drawn_at > SHOWN_EVERY_S:
                drawn_at = time.monotonic()
                self._show()

        self._stopping.clear()
        self.stop.disabled = False
        try:
            records = study.search(search, budget, self._seed, receive, self._stopping.is_set)
            state = "done"
            arrivals = arrivals or [(time.monotonic(), records)]
        except Stopped:
            state = "stopped; the same search resumes here"
        finally:
            self.stop.disabled = True
        self._show_progress(arrivals, search, budget, state)
        self._show()

    def _show_progress(self, arrivals: list[tuple[float, pd.DataFrame]], search: str, budget: int, state: str) -> None:
        """Show progress; the speed leaves out the first records, which may be those of an earlier call."""
        records = pd.concat([table for _, table in arrivals], ignore_index=True)
        self.best, self._plans[search, budget] = best(records), records.assign(search=search)[POINTS]
        (first, earlier), (last, _) = arrivals[0], arrivals[-1]
        speed = (len(records) - len(earlier)) / (last - first) if len(arrivals) > 1 else None
        self.progress.value = pages.progress(len(records), budget, speed, self.best, state)
