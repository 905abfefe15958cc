"""The explorer in a notebook: sliders for a plan and for a price of a bit, with rate and loss beside them, a small search, packed files."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
import pandas as pd
from matplotlib.figure import Figure

from weightlab import figures, models, paths, training
from weightlab.compression.sharing.settings import Sharing
from weightlab.errors import UserError
from weightlab.explore import controls, pages
from weightlab.explore.latest import Latest
from weightlab.explore.pricing import PricePanel
from weightlab.explore.searching import SearchPanel
from weightlab.explore.sliders import PlanSliders
from weightlab.explore.study import Study
from weightlab.runs.setting import Setting
from weightlab.settings import leaves

START = 16  # k of every layer where no plan is given
PAUSE_S = 0.1  # figures wait until sliders have rested so long
HELP = (
    "Numbers shown at once are measured on <b>validation</b>, which chooses; <b>test</b> is measured when a file is written, to report "
    "and never to choose. A search that was stopped resumes when it is started again."
)


class Explorer:
    """Widgets over a `Study`; displayed as the value of a cell.

    `plan`: a k per layer, one int for the whole net, or None for 16 in every layer. `dataset` is by default what the network was
    trained for. `study`, `plan`, `report` and `measured` hold what is shown; without a kernel a sentence and the figure replace the
    widgets. Raises `UserError` for wrong input; later errors appear as a sentence among the widgets.
    """

    def __init__(
        self,
        network: str,
        plan: int | Sequence[int] | None = None,
        format: str = "float32",
        method: str = "exact",
        *,
        dataset: str | None = None,
        weights: str | None = None,
        images: int | None = None,
        k_max: int = 50,
        search: str = "genetic",
        budget: int = 200,
        seed: int = 1,
        threads: int | None = None,
        searches_folder: str | Path = "outputs/by_hand/searches",
        output_folder: str | Path = "outputs/by_hand/00_explore",
    ):
        dataset = training.dataset_of(network) if dataset is None else dataset
        shared = Sharing(method=method, format=format, k_max=k_max, whole_net=isinstance(plan, int))
        setting = Setting(network, dataset=dataset, weights=weights, images=images, compression=shared)
        self.study = Study(setting, searches_folder, threads)
        ks = [plan] if isinstance(plan, int) else [START] * len(self.study.names) if plan is None else plan
        self.output_folder, self._first_choice = paths.resolve(output_folder), (network, dataset, weights)
        self.answers, self.report = 0, pd.DataFrame()
        self._answering, self._drawing = Latest(self._guarded(self._answer)), Latest(self._guarded(self._draw))
        self._job, self._quiet = threading.Thread(), False
        self.searching = SearchPanel(search, budget, seed, self._start, self._show_figures, self._take)
        self.pricing = PricePanel(self.study, self._guarded, self._start, self._show_priced, lambda: self.output_folder)
        self._make_widgets()
        self._show_study(self.study.check(ks))
        self._answer(({}, self.plan))
        self.settle()

    @property
    def plan(self) -> list[int]:
        """The k of each slider."""
        return self.sliders.plan

    def settle(self, timeout_s: float | None = None) -> bool:
        """Wait until everything requested is shown; returns whether it is."""
        if self._job.is_alive():
            self._job.join(timeout_s)
        answering = self.pricing, self._answering, self._drawing
        return not self._job.is_alive() and all(each.wait(timeout_s) for each in answering)

    def _repr_mimebundle_(self, **options: Any) -> dict:
        """The widgets, and for a page without a kernel the current numbers and figure."""
        plain = f"The explorer's sliders need a running kernel; they were left at plan {pages.plan(self.plan)}."
        shown = [self.storage_rate, self.layer_mean_rate, self.accuracy, self.pricing.priced, self.plans]
        if self.pricing.measured is None:
            shown.remove(self.pricing.priced)
        text = f"<p>{plain}</p>" + "".join(f"<p>{each.value}</p>" for each in shown)
        return self.widget._repr_mimebundle_(**options) | {"text/html": text, "text/plain": plain}

    # --- what is where ----------------------------------------------------------------------------------------------------------

    def _make_widgets(self) -> None:
        setting, row = self.study.setting, ipywidgets.HBox
        self.network = controls.dropdown("network", dict.fromkeys([*models.NETWORKS, setting.network]), setting.network)
        self.choices = {
            field.name: controls.dropdown(field.name, role.allowed(), getattr(setting, field.name))
            for field, role in leaves(Setting)
            if role.allowed
        }
        dropdowns = [self.network, *self.choices.values()]
        self.layer = controls.dropdown("layer", self.study.names, self.study.names[0])
        self.write, self.written = controls.button("Write the file", "write"), controls.html("written")
        self.storage_rate, self.layer_mean_rate = controls.html("storage-rate"), controls.html("layer-mean-rate")
        self.accuracy, self.table, self.message = controls.html("accuracy"), controls.html("table"), controls.html("message")
        self.histogram, self.plans = controls.html("histogram"), controls.html("plans")
        self._sliders_box = ipywidgets.VBox()
        rates = row([self.storage_rate, self.layer_mean_rate], layout=ipywidgets.Layout(grid_gap="2em"))
        numbers = ipywidgets.VBox([rates, self.accuracy, self.table])
        self.widget = ipywidgets.VBox([
            row(dropdowns),
            self.message,
            row([self._sliders_box, numbers]),
            row([self.pricing.controls, self.pricing.numbers]),
            row([ipywidgets.VBox([self.layer, self.histogram]), self.plans]),
            self.searching.box,
            row([self.write, self.written]),
            ipywidgets.HTML(HELP),
        ]).add_class("weightlab-explorer")  # fmt: skip
        for choice in dropdowns:
            choice.observe(lambda change: self._ask(), "value")
        self.layer.observe(lambda change: self._show_figures(), "value")
        self.write.on_click(lambda button: self._start(self._write))

    def _show_study(self, plan: Sequence[int]) -> None:
        """Show sliders and searched plans of the study, which has just changed."""
        self._earlier, self.measured = self.study.searched(), None
        self.searching.reset()
        self.pricing.show(self.study)
        self.written.value = ""
        self.layer.options = self.study.names
        self.sliders = PlanSliders(self.study.names, plan, self.study.setting.k_max, self._ask)
        self._sliders_box.children = [self.sliders.box]

    # --- answers ----------------------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        if not self._quiet:
            self._answering.ask((self._changed_choices(), self.plan))

    def _changed_choices(self) -> dict:
        """The values of the dropdowns that differ from the study's setting."""
        network, dataset, weights = self.network.value, self.study.setting.dataset, self.study.setting.weights
        if network != self.study.setting.network:
            own = network == self._first_choice[0]
            dataset, weights = self._first_choice[1:] if own else (training.dataset_of(network), None)
        values = {"network": network, "dataset": dataset, "weights": weights}
        values |= {name: choice.value for name, choice in self.choices.items()}
        return {name: value for name, value in values.items() if value != getattr(self.study.setting, name)}

    def _answer(self, request: tuple[dict, list[int]]) -> None:
        """Rates and table, which need no images, then the accuracy, then the figures."""
        choices, plan = request
        if choices:
            self._change(choices, plan)
            return
        answer = self.answers + 1
        if self.measured is not None:
            self.accuracy.value = pages.accuracy(self.study, self.measured, self.answers, pale=True)
        self.report, rates = self.study.report(plan), self.study.rates(plan)
        self.table.value = pages.table(self.report, answer)
        self.storage_rate.value = pages.rate("storage_rate", rates["storage_rate"], answer)
        self.layer_mean_rate.value = pages.rate("layer_mean_rate", rates["layer_mean_rate"], answer)
        self.measured, self.answers = self.study.measure(plan), answer
        self.accuracy.value, self.message.value = pages.accuracy(self.study, self.measured, answer), ""
        self._show_figures()

    def _show_figures(self) -> None:
        if self.measured is not None:
            tables = self._earlier, self.searching.found, self.pricing.points
            self._drawing.ask((self.study, self.report, self.measured, tables, self.answers))

    def _show_priced(self) -> None:
        self.message.value = ""
        self._show_figures()

    def _change(self, choices: dict, plan: list[int]) -> None:
        """Change network, format or method; if that fails, nothing changes, and the dropdowns return to their old values."""
        self.message.value = "making ready …"
        try:
            old, study = self.study, self.study.changed(**choices)
        except Exception:
            setting = self.study.setting
            self._quiet = True
            self.network.value = setting.network
            for name, choice in self.choices.items():
                choice.value = getattr(setting, name)
            self._quiet = False
            raise
        self.measured, self.study = None, study  # in this order: until the new plan is measured nothing is drawn
        self._show_study(plan if self.study.names == old.names else [START] * len(self.study.names))
        self._answer(({}, self.plan))

    def _draw(self, answered: tuple[Study, pd.DataFrame, pd.Series, Sequence[pd.DataFrame], int]) -> None:
        """The figures of an answer, once the sliders have rested: while they are dragged, numbers go first."""
        time.sleep(PAUSE_S)
        if self._drawing.overtaken or self._answering.overtaken:
            return
        study, report, measured, tables, answer = answered
        number = min(self.layer.index or 0, len(report) - 1)
        name, k = report.loc[number, ["layer", "k"]]
        figure = figures.layer_histogram(study.codebooks.original(number), study.codebooks.get(number, k).centroids, name)
        self.histogram.value = pages.picture(figure, f"histogram of the weights of {name} with its {k} centroids", answer)
        self.plans.value = pages.picture(*_plans_figure(study, report["k"].tolist(), measured, *tables), answer)

    # --- what takes a while -----------------------------------------------------------------------------------------------------

    def _start(self, work: Callable[[Study], None]) -> None:
        """Do one job in the background for the current study; a second click does nothing."""
        if self._job.is_alive():
            return
        self._set_busy(True)

        def job() -> None:
            self._guarded(work)(self.study)
            self._set_busy(False)

        self.message.value = ""
        self._job = threading.Thread(target=job, daemon=True)
        self._job.start()

    def _set_busy(self, busy: bool) -> None:
        for control in (self.write, self.network, *self.choices.values()):
            control.disabled = busy
        self.searching.set_busy(busy)
        self.pricing.set_busy(busy)

    def _write(self, study: Study) -> None:
        file = self.output_folder / f"{study.setting.network.replace(':', '.')}-{study.setting.format}.packed.safetensors"
        self.written.value = "measuring and writing …"
        try:
            self.written.value = pages.written(file, study.write(file, self.plan))
        except BaseException:
            self.written.value = ""
            raise

    def _take(self, plan: Sequence[int]) -> None:
        self.sliders.plan = list(plan)

    def _guarded(self, work: Callable) -> Callable:
        """`work`, with its errors shown as a sentence."""

        def guarded(*arguments: object) -> None:
            try:
                work(*arguments)
            except UserError as error:
                self.message.value = pages.message(str(error))
            except Exception as error:
                self.message.value = pages.message(f"{type(error).__name__}: {error}")

        return guarded


def _plans_figure(
    study: Study, plan: list[int], measured: pd.Series, earlier: pd.DataFrame, here: pd.DataFrame, priced: pd.DataFrame
) -> tuple[Figure, str]:
    """The plan among others, and in words; beside prices, which have no storage rate of a plan, all have their rate as coded."""
    text = f"this plan and of {len(earlier) + len(here)} searched plans"
    if priced.empty:
        return figures.plan_among_searched(earlier, here, measured), f"loss against storage rate of {text}"
    earlier, here = (each.assign(coded_rate=study.coded_rates(each["plan"])) for each in map(figures.in_reach, (earlier, here)))
    now = pd.concat([measured, pd.Series({"coded_rate": study.coded_rates([plan])[0]})])
    figure = figures.plan_among_searched(earlier, here, now, priced, "coded_rate")
    return figure, f"loss against coded rate of {text}, and at {len(priced)} prices of a bit"
