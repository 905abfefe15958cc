"""Run one search or a grid of searches to their budgets: recorded, checkpointed and resumed exactly, by any number of processes."""

import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from weightlab import backend, data, models, paths, rng, search, settings, storage
from weightlab.compression.contract import Method
from weightlab.errors import UserError
from weightlab.evaluation import Evaluator
from weightlab.networks import answers
from weightlab.networks import own as own_networks
from weightlab.runs import executors, loop, status
from weightlab.runs.folder import RunFolder
from weightlab.runs.progress import Progress, Steps
from weightlab.runs.setting import PROTOCOLS, RECORDED_SPLITS, Setting
from weightlab.runs.specifications import Specification
from weightlab.runs.specifications import grid as grid  # for callers, beside `Specification`
from weightlab.runs.timing import time_plans as time_plans  # as `grid`
from weightlab.search import space
from weightlab.search.fitness import Target
from weightlab.search.space import IntegerSpace

SCANNED = 10  # the most plans of a scan that are measured together, so that progress is seen


def evaluator(
    setting: Setting,
    whole_net: bool = False,
    device: str = "auto",
    threads: int | None = None,
    codebooks_folder: str | Path | None = None,
) -> Evaluator[Any]:
    """An evaluator for plans of a setting on the recorded splits; with `whole_net`, or if the setting says so, a plan is one k.

    Raises `UserError` if network, weights or data are not available, have changed, or do not fit each other.
    """
    setting.check_unchanged()
    model = models.load(setting.network, weights=setting.weights)
    splits = [data.load(setting.dataset, name).first(setting.images) for name in RECORDED_SPLITS]
    variants: Method = setting.compression.make(
        model,
        answers.fitting_images(model, splits),
        codebooks_folder,
        whole_net,
        partial(_training_images, setting.dataset),
    )
    return Evaluator(model, variants, splits, device, threads)


def _training_images(dataset: str, n: int) -> torch.Tensor:
    try:
        return data.load(dataset, "train", first=n).images
    except UserError as error:
        if data.identity(dataset) is None:
            raise
        where = "train_images and train_labels of an .npz file, or train/CLASS/PICTURE of a folder"
        raise UserError(f"ranges of activations come from training images, {where}: {error}") from error


def uniform_plans(evaluator: Evaluator, ks: Iterable[int]) -> pd.DataFrame:
    """`Evaluator.measure` of the same k in every layer, a row for each of `ks`, with columns `k` and `plan` before it."""
    plans = np.repeat(np.array(list(ks))[:, None], len(evaluator.variants.names), axis=1)
    return pd.concat([pd.DataFrame({"k": plans[:, 0], "plan": list(plans)}), evaluator.measure(plans)], axis=1)


class Runner:
    """Runs specifications below one folder; searches on the same network, data, method and format share codebooks and answers.

    A grid is run by `workers` processes of this machine (default: as many as cores; 1: by this process), or by the workers of a dask
    `scheduler`: its address, or a YAML file of `params/cluster`. Each process computes with `threads` threads (default: one each, and
    all cores where one process does everything). None of it changes a record.
    """

    def __init__(
        self,
        folder: str | Path,
        device: str = "auto",
        threads: int | None = None,
        progress: bool = True,
        workers: int | None = None,
        scheduler: str | None = None,
    ):
        self.folder, self.device, self.threads, self.progress = paths.resolve(folder), device, threads, progress
        executors.check(workers, scheduler)
        backend.check_threads(threads)
        one_is_enough = backend.device(device).type == "cuda"
        self.workers, self.scheduler = workers or (1 if one_is_enough else backend.cores()), scheduler
        # By the hash of the measured setting, so that a changed file is noticed.
        self._evaluators: dict[str, Evaluator[Any]] = {}

    def evaluator(self, setting: Setting) -> Evaluator[Any]:
        """The evaluator of a setting, made once."""
        key = setting.measured().hash
        if key not in self._evaluators:
            self._evaluators[key] = evaluator(
                setting, device=self.device, threads=self.threads, codebooks_folder=self.folder / "codebooks"
            )
        return self._evaluators[key]

    def scan(self, spec: Setting) -> pd.DataFrame:
        """The range scan behind a specification's space, kept as `scan-<hash>.parquet`: layer, name, k, accuracies.

        A scan that was interrupted resumes. Raises `UserError` before anything is measured if `spec` has a
        threshold above the unshared accuracy.
        """
        file = self.folder / f"scan-{spec.measured().hash}.parquet"
        if (table := storage.kept_table(file)) is not None:
            return table
        storage.make_writable(self.folder)
        with storage.lock(self.folder / f".{file.name}.lock"):
            if (table := storage.kept_table(file)) is not None:  # another process has made it meanwhile
                return table
            if isinstance(spec, Specification) and spec.threshold is not None:
                self.least_accuracy(spec, spec.threshold)
            evaluator, begun = self.evaluator(spec), self.folder / f"begun-{file.name}"
            accuracy = partial(self._in_steps, lambda plans: evaluator.accuracy(plans, partial=True), begun, spec)
            table = space.scan(accuracy, evaluator.variants.names, spec.candidates)
            evaluator.release()  # a search asks for other plans, and a notebook scans many settings before its first search
            columns = {f"accuracy_{i}": f"{name}_accuracy" for i, name in enumerate(RECORDED_SPLITS)}
            file_of_table = storage.write_table(table.rename(columns=columns), self.folder, file.stem)
            begun.unlink(missing_ok=True)
            return storage.read_table(file_of_table)[0]

    def _in_steps(
        self, accuracy: Callable[[np.ndarray], np.ndarray], begun: Path, spec: Setting, plans: np.ndarray
    ) -> np.ndarray:
        """`accuracy` of plans (n, layers), a few at a time; progress is shown, and saved in the file `begun` for a later call."""
        saved_table = storage.kept_table(begun)
        parts = [] if saved_table is None else [saved_table.to_numpy()[: len(plans)]]
        done, pace, saved = sum(map(len, parts)), loop.Pace(most=SCANNED), time.monotonic()
        with Steps(f"scan {spec.network} {spec.format}", len(plans), done, self.progress) as steps:
            while done < len(plans):
                started, until = time.perf_counter(), done + pace.next(len(plans) - done)
                parts.append(accuracy(plans[done:until]))
                pace.took(time.perf_counter() - started, until - done)
                steps.add(until - done)
                done = until
                if time.monotonic() - saved >= loop.KEPT_S:
                    storage.write_table(pd.DataFrame(np.concatenate(parts)).add_prefix("accuracy_"), self.folder, begun.stem)
                    saved = time.monotonic()
        return np.concatenate(parts)

    def least_accuracy(self, setting: Setting, threshold: float | str) -> float:
        """The accuracy (fraction) that a threshold asks of a k, on the split that chooses.

        Raises `UserError` for a threshold above the unshared accuracy.
        """
        evaluator, split = self.evaluator(setting), PROTOCOLS[setting.protocol]
        column = RECORDED_SPLITS.index(split)
        images = int(evaluator.images[column])
        return space.least_accuracy(threshold, round(evaluator.baseline()[column] * images), images, split)

    def space(self, spec: Specification) -> IntegerSpace:
        """The allowed k of each layer; raises `UserError` for a threshold that is too high, or leaves a layer none."""
        if spec.threshold is None:
            return space.full(len(self.evaluator(spec).variants.names), spec.candidates)
        least = self.least_accuracy(spec, spec.threshold)
        return space.reduce(self.scan(spec), f"{PROTOCOLS[spec.protocol]}_accuracy", least)

    def run(self, spec: Specification, wait: bool = True, **watch: Callable) -> pd.DataFrame | None:
        """The records of one search: read if it is complete, else begun or resumed here.

        If another process is running it: None, or with `wait` the records of that process. `watch` takes `progress` and `stop` of
        `loop.run`, which follow what is done here; with `stop`, `loop.Stopped` may be raised.
        """
        folder = RunFolder(self.folder / spec.hash)
        if (records := folder.records()) is not None:
            return records
        folder.begin(spec.describe())
        with folder.lock(wait) as ours:
            if not ours:
                return None
            if (records := folder.tidy()) is not None:  # another process has completed it meanwhile
                return records
            for key, evaluator in self._evaluators.items():
                if key != spec.measured().hash:
                    evaluator.release()  # or every setting would keep its activations to the end
            try:
                allowed = self.space(spec)
                chance = rng.derive(spec.seed, "search", spec.search)
                optimizer = search.make(spec.search, allowed, chance, spec.uniform_start, **spec.settings)
                target, measure = Target(spec.target), self._measure(spec)
                return loop.run(optimizer, target, measure, spec.budget, folder.path, _identity(spec), **watch)
            except loop.Stopped:
                raise
            except Exception as error:
                folder.fail(error)
                if isinstance(error, OSError):
                    raise UserError(f"the search in {folder.path} stopped ({error}); what was checkpointed is kept") from error
                raise

    def run_all(self, specs: Iterable[Specification]) -> pd.DataFrame:
        """The records of a grid of searches in one table, with a column `run`, the specification's hash, that tells them apart.

        Complete searches are read, partial ones resumed. A search that fails does not stop the others; at the end `UserError`
        names the failures. Several calls on one folder, on any machine, share the work.
        """
        by_hash = {spec.hash: spec for spec in specs}
        tables = {run: RunFolder(self.folder / run).records() for run in by_hash}
        left = [spec for run, spec in by_hash.items() if tables[run] is None]
        for spec in left:
            RunFolder(self.folder / spec.hash).begin(spec.describe())
        # First one search of each setting, so that scans and codebooks are made in parallel; then the searches that share them.
        settings = [spec.measured().hash for spec in left]
        order = sorted(range(len(left)), key=lambda i: (settings[i] in settings[:i], settings[i]))
        left = [left[i] for i in order]
        with Progress(self.folder, list(by_hash), self.workers, show=self.progress and bool(left)):
            failures = self._work_off(left)
        if failures:
            complete = sum(RunFolder(self.folder / run).records() is not None for run in by_hash)
            counted = f"{len(failures)} of {len(by_hash)} searches failed, {complete} are complete and kept; the first"
            raise UserError(f"{'the search failed' if len(by_hash) == 1 else counted}: {failures[0]}")
        tables |= {spec.hash: RunFolder(self.folder / spec.hash).records() for spec in left}
        complete_tables = [table.assign(run=run) for run, table in tables.items() if table is not None]
        if len(complete_tables) < len(tables):
            missing = next(run for run, table in tables.items() if table is None)
            raise UserError(f"records of {missing} are not in {self.folder}; all workers must see the same folder")
        return pd.concat(complete_tables, ignore_index=True)

    def _work_off(self, specs: list[Specification]) -> list[str]:
        """Complete searches, first those that no other process is running; returns the failures, a sentence each."""
        failures = []
        for wait in (False, True):
            if self.scheduler is None and min(self.workers, len(specs)) <= 1:
                task = partial(_attempt, self, wait)
            else:
                task = partial(_attempt_elsewhere, self.folder, self.device, self.threads or 1, wait, own_networks.folders())
            busy = []
            for spec, outcome in executors.execute(task, specs, self.workers, self.scheduler):
                for message in outcome.warnings:
                    warnings.warn(message, stacklevel=3)
                failures += [outcome.failure] if outcome.failure else []
                busy += [spec] if outcome.busy else []
            specs = busy
        return failures

    def _measure(self, spec: Specification) -> Callable[[np.ndarray], pd.DataFrame]:
        evaluator, chooser = self.evaluator(spec), PROTOCOLS[spec.protocol]

        def measure(plans: np.ndarray) -> pd.DataFrame:
            table = evaluator.measure(plans)
            table["accuracy"], table["loss_pp"] = table[f"{chooser}_accuracy"], table[f"{chooser}_loss_pp"]
            table["rate"] = table[f"{spec.objective_rate}_rate"]
            return table

        return measure


def read(folder: str | Path) -> pd.DataFrame:
    """The records of all complete searches below a folder, with a column `run` that tells them apart."""
    files = _complete(folder)
    return pd.concat([storage.read_table(file)[0].assign(run=file.parent.name) for file in files], ignore_index=True)


def records_hash(folder: str | Path, runs: Iterable[str] | None = None) -> str:
    """SHA-256 over the records of all complete searches below a folder (or of `runs`, their hashes), in the order of their names.

    Raises `UserError` if there are none.
    """
    return status.records_hash(folder, [file.parent.name for file in _complete(folder, runs)])


@dataclass(frozen=True)
class Outcome:
    """The result of an attempt at one search."""

    busy: bool = False  # another process is running it
    failure: str = ""
    warnings: tuple[str, ...] = ()


def _attempt(runner: Runner, wait: bool, spec: Specification) -> Outcome:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        records, failure = None, ""
        try:
            records = runner.run(spec, wait)
        except Exception as error:
            sentence = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            failure_file = runner.folder / spec.hash / "failed.json"
            failure = f"{sentence} (see {failure_file})" if failure_file.exists() else sentence
    for each in caught:
        if not issubclass(each.category, UserWarning):  # not about the search, so shown with its source
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    messages = tuple(str(each.message) for each in caught if issubclass(each.category, UserWarning))
    return Outcome(records is None and not failure, failure, messages)


def _attempt_elsewhere(
    folder: Path, device: str, threads: int, wait: bool, places: tuple[str, ...], spec: Specification
) -> Outcome:
    for place in places:  # where the caller stands and looks: a user's own network may lie there
        own_networks.look_in(place)
    return _attempt(_runner_of_this_process(folder, device, threads), wait, spec)


@lru_cache(maxsize=1)
def _runner_of_this_process(folder: Path, device: str, threads: int) -> Runner:
    """Kept for the searches that this worker is given later, so that they share codebooks and answers."""
    return Runner(folder, device, threads, progress=False, workers=1)


def _complete(folder: str | Path, runs: Iterable[str] | None = None) -> list[Path]:
    files = sorted(Path(folder).glob("*/evaluations.parquet")) if runs is None else []
    files += sorted(Path(folder) / run / "evaluations.parquet" for run in runs or ())
    if not files:
        raise UserError(f"{folder} holds no complete search (no */evaluations.parquet)")
    return files


def _identity(spec: Specification) -> dict:
    """The columns by which readers of the records tell searches apart; `target_*_start` is where the target began."""
    columns = {name: getattr(spec, name) for name in settings.names(Specification, "column")}
    target = {"target": spec.target.form, "target_accuracy_start": spec.target.accuracy, "target_rate_start": spec.target.rate}
    return columns | spec.labels() | target
