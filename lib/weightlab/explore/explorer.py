"""The explorer in a notebook: sliders for a plan, and beside them what it saves and costs, a small search, and a packed file."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
import pandas as pd

from weightlab import figures, models, paths, training
from weightlab.compression.sharing.settings import Sharing
from weightlab.errors import UserError
from weightlab.explore import controls, pages
from weightlab.explore.latest import Latest
from weightlab.explore.searching import SearchPanel
from weightlab.explore.sliders import PlanSliders
from weightlab.explore.study import Study
from weightlab.runs.setting import Setting
from weightlab.settings import leaves

START = 16  # k of every layer where no plan is given
PAUSE_S = 0.1  # figures wait until sliders have rested so long
HELP = (
    "Numbers shown at once are measured on <b>validation</b>, which chooses; <b>test</b> is measured when a file is written, to report "
    "and never to choose. A search that was stopped goes on from there when it is started again."
)


class Explorer:
    """Widgets over a `Study`; shown where it is the value of a cell.

    `plan`: a k per layer, one int for the whole net, or None for 16 in every layer. `dataset` is by default what the network was
    trained for. `study`, `plan`, `report` and `measured` hold what is shown; without a kernel a sentence and the figure stand
    in their place. Raises `UserError` for wrong input; what goes wrong later is a sentence among the widgets.
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
        self.output_folder, self._given = paths.resolve(output_folder), (network, dataset, weights)
        self.answers, self.report = 0, pd.DataFrame()
        self._answering, self._drawing = Latest(self._guarded(self._answer)), Latest(self._guarded(self._draw))
        self._job, self._quiet = threading.Thread(), False
        self.searching = SearchPanel(search, budget, seed, self._start, self._show_figures, self._take)
        self._make_widgets()
        self._show_study(self.study.check(ks))
        self._answer(({}, self.plan))
        self.settle()

    @property
    def plan(self) -> list[int]:
        """The k of each slider."""
        return self.sliders.plan

    def settle(self, timeout_s: float | None = None) -> bool:
        """Wait until everything asked for is shown, and whether it is by then."""
        if self._job.is_alive():
            self._job.join(timeout_s)
        return not self._job.is_alive() and self._answering.wait(timeout_s) and self._drawing.wait(timeout_s)

    def _repr_mimebundle_(self, **options: Any) -> dict:
        """The widgets, and for a page without a kernel the numbers and the figure as they are now."""
        plain = f"The explorer's sliders need a running kernel; they were left at plan {pages.plan(self.plan)}."
        shown = self.storage_rate, self.layer_mean_rate, self.accuracy, self.plans
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
        """Sliders and searched plans of the study, which has just changed."""
        self._earlier, self.measured = self.study.searched(), None
        self.searching.reset()
        self.written.value = ""
        self.layer.options = self.study.names
        self.sliders = PlanSliders(self.study.names, plan, self.study.setting.k_max, self._ask)
        self._sliders_box.children = [self.sliders.box]

    # --- answers ----------------------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        if not self._quiet:
            self._answering.ask((self._chosen(), self.plan))

    def _chosen(self) -> dict:
        """The setting that the dropdowns say, as far as it differs from the study's."""
        network, dataset, weights = self.network.value, self.study.setting.dataset, self.study.setting.weights
        if network != self.study.setting.network:
            own = network == self._given[0]
            dataset, weights = self._given[1:] if own else (training.dataset_of(network), None)
        said = {"network": network, "dataset": dataset, "weights": weights}
        said |= {name: choice.value for name, choice in self.choices.items()}
        return {name: value for name, value in said.items() if value != getattr(self.study.setting, name)}

    def _answer(self, request: tuple[dict, list[int]]) -> None:
        """Rates and table, which need no images, then the accuracy, then the figures."""
        chosen, plan = request
        if chosen:
            self._change(chosen, plan)
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
            self._drawing.ask((self.study, self.report, self.measured, self.answers))

    def _change(self, chosen: dict, plan: list[int]) -> None:
        """Another network, format or method; where it cannot be had, all stays as it was, and the dropdowns say so again."""
        self.message.value = "making ready …"
        try:
            old, self.study = self.study, self.study.changed(**chosen)
        except Exception:
            setting = self.study.setting
            self._quiet = True
            self.network.value = setting.network
            for name, choice in self.choices.items():
                choice.value = getattr(setting, name)
            self._quiet = False
            raise
        self._show_study(plan if self.study.names == old.names else [START] * len(self.study.names))
        self._answer(({}, self.plan))

    def _draw(self, shown: tuple[Study, pd.DataFrame, pd.Series, int]) -> None:
        """The figures of an answer, once the sliders have rested: while they are dragged, numbers go first."""
        time.sleep(PAUSE_S)
        if self._drawing.overtaken or self._answering.overtaken:
            return
        study, report, measured, answer = shown
        number = min(self.layer.index or 0, len(report) - 1)
        name, k = report.loc[number, ["layer", "k"]]
        drawn = figures.layer_histogram(study.codebooks.original(number), study.codebooks.get(number, k).centroids, name)
        self.histogram.value = pages.picture(drawn, f"histogram of the weights of {name} with its {k} centroids", answer)
        drawn = figures.plan_among_searched(self._earlier, self.searching.found, measured)
        text = f"loss against storage rate of this plan and of {len(self._earlier) + len(self.searching.found)} searched plans"
        self.plans.value = pages.picture(drawn, text, answer)

    # --- what takes a while -----------------------------------------------------------------------------------------------------

    def _start(self, work: Callable[[Study], None]) -> None:
        """Do one thing beside the answers, for the study as it is now; a second click does nothing."""
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
        """`work`, which tells in a sentence what goes wrong."""

        def guarded(*arguments: object) -> None:
            try:
                work(*arguments)
            except UserError as error:
                self.message.value = pages.message(str(error))
            except Exception as error:
                self.message.value = pages.message(f"{type(error).__name__}: {error}")

        return guarded
