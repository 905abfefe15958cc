"""The explorer's slider for lambda, the price of a bit: one number for the whole network instead of a k for every layer."""

from collections.abc import Callable
from pathlib import Path

import ipywidgets
import pandas as pd

from weightlab.explore import controls, pages
from weightlab.explore.latest import Latest
from weightlab.explore.prices import LEVELS, Prices
from weightlab.explore.study import Study
from weightlab.tuning import rate_distortion

EXPONENTS = (-4, 0)  # of ten: the range of prices
NAMES = [f"{level} ({rate_distortion.LEVELS[level]})" for level in LEVELS]


class PricePanel:
    """Widgets of the price: `controls` to move, `numbers` to read.

    `guarded` shows the errors of the work it is given, `start` does a piece of work in the background, `show` draws `points`, and
    files are written to `folder()`.
    """

    def __init__(self, study: Study, guarded: Callable, start: Callable, show: Callable[[], None], folder: Callable[[], Path]):
        self._working, self._show, self._folder = Latest(guarded(self._answer)), show, folder
        self.price = controls.log_slider("price", "lambda", rate_distortion.PRICE, EXPONENTS)
        self.price.tooltip = "what a bit for every weight is worth, in nats of the network's own answers"
        self.level = controls.dropdown("level", NAMES, NAMES[LEVELS.index(1)])
        self.write, self.written = controls.button("Write this file", "write-priced"), controls.html("written-priced")
        self.priced, self._busy = controls.html("priced"), False
        self.level.layout, self.level.style.description_width = self.price.layout, self.price.style.description_width
        self.controls = ipywidgets.VBox([self.price, self.level], layout=controls.column())
        self.numbers = ipywidgets.VBox([self.priced, ipywidgets.HBox([self.write, self.written])])
        for control in (self.price, self.level):
            control.observe(lambda change: self._ask(), "value")
        self.write.on_click(lambda button: start(self._write))
        self._begin(Prices(study))

    def show(self, study: Study) -> None:
        """Be about a study; what was measured stays if that is of the same network and images."""
        if not self._prices.fits(study):
            self._begin(Prices(study))

    @property
    def points(self) -> pd.DataFrame:
        """Those of `Prices`, the latest last."""
        return self._prices.points

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait, and return whether the latest price is answered."""
        return self._working.wait(timeout_s)

    def set_busy(self, busy: bool) -> None:
        self._busy = busy
        self.write.disabled = busy or self.measured is None

    def _begin(self, prices: Prices) -> None:
        self._prices, self.measured, self.answers = prices, None, 0
        self.priced.value, self.written.value = pages.HINT, ""
        self.set_busy(self._busy)

    def _ask(self) -> None:
        request = self._prices, LEVELS[self.level.index], self.price.value
        self._show_numbers(request)
        self._working.ask(request)

    def _answer(self, request: tuple[Prices, int, float]) -> None:
        """The numbers of a price, then the figure; nothing where another network was chosen meanwhile."""
        prices, level, price = request
        if prices is not self._prices:
            return
        self._show_numbers(request)
        try:
            measured = prices.measure(level, price)
            if prices is self._prices:
                self.measured, self.answers, self.written.value = measured, self.answers + 1, ""
                self.set_busy(self._busy)
                self._show()
        finally:
            if prices is self._prices:
                self._show_numbers()

    def _show_numbers(self, next: tuple[Prices, int, float] | None = None) -> None:
        """The latest numbers, pale while the next price is being worked on."""
        numbers = pages.HINT if self.measured is None else pages.priced(self._prices, self.measured, self.answers)
        self.priced.value = numbers if next is None else pages.compressing(numbers, *next[1:])

    def _write(self, study: Study) -> None:
        """Write the network of the latest numbers."""
        assert self.measured is not None  # else the button is disabled
        level, price = int(self.measured["level"]), float(self.measured["price"])
        file = self._folder() / f"{study.setting.network.replace(':', '.')}-level{level}-lambda{price:.3g}.weightlab"
        self.written.value = "measuring and writing …"
        try:
            self.written.value = pages.written(file, self._prices.write(file, level, price), "coded_rate")
        except BaseException:
            self.written.value = ""
            raise
