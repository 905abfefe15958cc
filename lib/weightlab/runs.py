"""Searches run to a budget, recorded, checkpointed and resumed exactly."""

import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from filelock import FileLock
from tqdm import tqdm

from weightlab import data, models, paths, rng, search, space
from weightlab.codebooks import Codebooks
from weightlab.errors import UserError
from weightlab.evaluation import Evaluator
from weightlab.fitness import Target
from weightlab.search import Search
from weightlab.space import IntegerSpace
from weightlab.specifications import PROTOCOLS, RECORDED_SPLITS, Setting, Specification


def evaluator(
    setting: Setting,
    whole_net: bool = False,
    device: str = "auto",
    threads: int | None = None,
    codebooks_folder: str | Path | None = None,
) -> Evaluator:
    """An evaluator for plans of a setting, layer by layer or for the whole net, on the splits that are recorded."""
    model = models.load(setting.network)
    codebooks = Codebooks(model, setting.method, setting.format, setting.candidates, whole_net, folder=codebooks_folder)
    splits = [data.load(setting.dataset, name).first(setting.images) for name in RECORDED_SPLITS]
    return Evaluator(model, codebooks, splits, device, threads)


def uniform_plans(evaluator: Evaluator, ks: Iterable[int]) -> pd.DataFrame:
    """`Evaluator.measure` of the same k in every layer, a row for each of `ks`, with columns `k` and `plan` before it."""
    plans = np.repeat(np.array(list(ks))[:, None], len(evaluator.codebooks.names), axis=1)
    return pd.concat([pd.DataFrame({"k": plans[:, 0], "plan": list(plans)}), evaluator.measure(plans)], axis=1)


class Runner:
    """Runs specifications below one folder; searches on the same network, data, method and format share codebooks and answers."""

    def __init__(self, folder: str | Path, device: str = "auto", threads: int | None = None, progress: bool = True):
        self.folder, self.device, self.threads, self.progress = paths.resolve(folder), device, threads, progress
        self._evaluators: dict[Setting, Evaluator] = {}

    def evaluator(self, setting: Setting) -> Evaluator:
        """The evaluator of a setting, made once."""
        key = setting.measured()
        if key not in self._evaluators:
            self._evaluators[key] = evaluator(
                setting, device=self.device, threads=self.threads, codebooks_folder=self.folder / "codebooks"
            )
        return self._evaluators[key]

    def scan(self, spec: Specification) -> pd.DataFrame:
        """The range scan a specification's space rests on, kept as `scan-<hash>.parquet`: layer, name, k, accuracies."""
        file = self.folder / f"scan-{spec.measured().hash}.parquet"
        _prepare(self.folder)
        with FileLock(self.folder / f".{file.name}.lock"):
            if not file.exists():
                evaluator = self.evaluator(spec)
                total = len(evaluator.codebooks.names) * len(spec.candidates)
                with tqdm(total=total, desc=f"scan {spec.network} {spec.format}", disable=not self.progress) as bar:
                    accuracy = _in_steps(lambda plans: evaluator.accuracy(plans, partial=True), bar)
                    table = space.scan(accuracy, evaluator.codebooks.names, spec.candidates)
                columns = {f"accuracy_{i}": f"{name}_accuracy" for i, name in enumerate(RECORDED_SPLITS)}
                paths.write_table(table.rename(columns=columns), self.folder, file.stem)
            return _read(file)

    def space(self, spec: Specification) -> IntegerSpace:
        """The allowed k of each layer; raises `UserError` if the threshold leaves a layer none."""
        if spec.threshold is None:
            return space.full(len(self.evaluator(spec).codebooks.names), spec.candidates)
        return space.reduce(self.scan(spec), f"{PROTOCOLS[spec.protocol]}_accuracy", spec.threshold)

    def run(self, spec: Specification, progress: Callable[[int], object] = lambda evaluations: None) -> pd.DataFrame:
        """The records of one search: read if it is complete, else begun or resumed; `progress` is told of evaluations done."""
        folder = self.folder / spec.hash
        if (folder / "evaluations.parquet").exists():
            progress(spec.budget)
            _drop_checkpoint(folder)  # which a kill may have left
            return _read(folder / "evaluations.parquet")
        _prepare(folder, {"specification.json": json.dumps(spec.describe(), indent=1).encode()})
        allowed = self.space(spec)
        made = search.make(spec.search, allowed, rng.derive(spec.seed, "search", spec.search), **spec.settings)
        with FileLock(folder / ".lock"):
            if (folder / "evaluations.parquet").exists():  # another process has completed it meanwhile
                return self.run(spec, progress)
            return run(made, Target(spec.target), self._measure(spec), spec.budget, folder, _identity(spec), progress)

    def run_all(self, specs: Iterable[Specification]) -> pd.DataFrame:
        """The records of many searches in one table, with a column `run` that tells them apart."""
        specs, tables = list(specs), []
        with tqdm(total=sum(spec.budget for spec in specs), unit="plan", disable=not self.progress) as bar:
            for number, spec in enumerate(specs, 1):
                bar.set_description(f"search {number}/{len(specs)}: {spec.network} {spec.search} {spec.seed}")
                for setting, evaluator in self._evaluators.items():
                    if setting != spec.measured():
                        evaluator.release()  # or every setting would keep its activations to the end
                tables.append(self.run(spec, bar.update).assign(run=spec.hash))
        return pd.concat(tables, ignore_index=True)

    def _measure(self, spec: Specification) -> Callable[[np.ndarray], pd.DataFrame]:
        evaluator, chooser = self.evaluator(spec), PROTOCOLS[spec.protocol]

        def measure(plans: np.ndarray) -> pd.DataFrame:
            table = evaluator.measure(plans)
            table["accuracy"], table["loss_pp"] = table[f"{chooser}_accuracy"], table[f"{chooser}_loss_pp"]
            table["rate"] = table[f"{spec.objective_rate}_rate"]
            return table

        return measure


def run(
    search: Search,
    target: Target,
    measure: Callable[[np.ndarray], pd.DataFrame],
    budget: int,
    folder: Path,
    identity: Mapping = MappingProxyType({}),
    progress: Callable[[int], object] = lambda evaluations: None,
) -> pd.DataFrame:
    """The one loop between search and evaluation: generations until the next no longer fits the budget (in evaluations).

    `measure` takes plans (n, d) and returns a row for each, among its columns `accuracy` (fraction) and `rate`, the objectives.
    Records go to `folder`, at most one checkpoint a second, after a whole generation; a call on a folder with a checkpoint goes
    on from there, and ends with the same file, byte for byte, as a call that was never interrupted. Times are kept apart.
    """
    records, times = _resume(search, target, folder)
    progress(search.evaluations)
    seen = {tuple(plan) for table in records for plan in table["plan"]}
    saved = time.monotonic()
    while search.evaluations + search.size <= budget:
        started = time.time()
        plans = search.ask()
        table = measure(plans)
        objectives = table[["accuracy", "rate"]].to_numpy()
        target.update(objectives)
        table["fitness"] = target.fitness(objectives)
        table["target_accuracy"], table["target_rate"] = target.now
        first = search.evaluations
        search.tell(objectives, target.fitness)
        table.insert(0, "evaluation", np.arange(first, search.evaluations))
        table.insert(1, "generation", search.generation - 1)
        table.insert(2, "plan", list(plans))
        keys = [tuple(plan) for plan in plans]
        table.insert(3, "repeated", [key in seen or key in keys[:i] for i, key in enumerate(keys)])
        seen.update(keys)
        records.append(table)
        times.append({"generation": search.generation - 1, "seconds": time.time() - started, "host": platform.node(),
                      "process": os.getpid()})  # fmt: skip
        progress(len(plans))
        if time.monotonic() - saved >= 1:
            _checkpoint(search, target, records, times, folder)
            saved = time.monotonic()
    if not records:
        raise UserError(f"a budget of {budget} evaluations does not hold the first generation of {search.size}")
    table = pd.concat(records, ignore_index=True)
    for column, value in reversed(identity.items()):
        table.insert(0, column, value)
    paths.write_table(pd.DataFrame(times), folder, "times")
    paths.write_table(table, folder, "evaluations")
    _drop_checkpoint(folder)
    return _read(folder / "evaluations.parquet")


def enumerate_box(
    evaluator: Evaluator, box: IntegerSpace, folder: str | Path, batch: int = 4096, progress: bool = True
) -> Iterator[pd.DataFrame]:
    """Every plan of a box of the space, in ascending order, a table of at most `batch` rows at a time.

    Columns: `plan` and those of `Evaluator.measure`. Each table is kept in `folder`, and a call on a folder that holds some
    measures only the others. Raises `UserError` if the folder belongs to another box, network, format or set of images.
    """
    folder = paths.resolve(folder)
    belongs = json.dumps(evaluator.describe() | {"lists": [each.tolist() for each in box.lists], "batch": batch}).encode()
    _prepare(folder)
    if (folder / "box.json").exists() and (folder / "box.json").read_bytes() != belongs:
        raise UserError(f"{folder} holds the plans of another box or network; give another folder or delete it")
    paths.write_whole(folder / "box.json", belongs)
    total = int(np.prod(box.lengths, dtype=object))
    with tqdm(total=total, unit="plan", desc="box", disable=not progress) as bar:
        for start in range(0, total, batch):
            file = folder / f"part-{start // batch:08d}.parquet"
            if not file.exists():
                indices = np.stack(np.unravel_index(np.arange(start, min(start + batch, total)), box.lengths), axis=1)
                plans = box.decode(indices)
                table = evaluator.measure(plans)
                table.insert(0, "plan", list(plans))
                paths.write_table(table, folder, file.stem)
            table = _read(file)
            bar.update(len(table))
            yield table


def read(folder: str | Path) -> pd.DataFrame:
    """The records of all complete searches below a folder, with a column `run` that tells them apart."""
    files = sorted(Path(folder).glob("*/evaluations.parquet"))
    if not files:
        raise UserError(f"{folder} holds no complete search (no */evaluations.parquet)")
    return pd.concat([_read(file).assign(run=file.parent.name) for file in files], ignore_index=True)


def _checkpoint(search: Search, target: Target, records: list[pd.DataFrame], times: list[dict], folder: Path) -> None:
    """Records first, then the state that says how many of them count: a kill in between leaves the older state with more rows."""
    paths.write_table(pd.concat(records, ignore_index=True), folder, "partial")
    state = {"search": search.state(), "target": target.now.tolist(), "times": times}
    paths.write_whole(folder / "state.json", json.dumps(state).encode())


def _drop_checkpoint(folder: Path) -> None:
    for name in ("state.json", "partial.parquet"):
        (folder / name).unlink(missing_ok=True)


def _resume(search: Search, target: Target, folder: Path) -> tuple[list[pd.DataFrame], list[dict]]:
    if not (folder / "state.json").exists():
        return [], []
    try:
        state = json.loads((folder / "state.json").read_bytes())
        table = _read(folder / "partial.parquet")
        search.restore(state["search"])
        target.now = np.array(state["target"], dtype=float)
        if len(table) < search.evaluations:
            raise ValueError(f"{len(table)} records for {search.evaluations} evaluations")
        return [table[: search.evaluations]], state["times"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the checkpoint in {folder} is damaged ({error}); delete that folder to search anew") from error


def _identity(spec: Specification) -> dict:
    """The columns by which readers of the records tell searches apart; `target_*_start` is where the target began."""
    names = "network", "dataset", "protocol", "objective_rate", "method", "format", "search", "seed"
    target = {"target": spec.target.form, "target_accuracy_start": spec.target.accuracy, "target_rate_start": spec.target.rate}
    return {name: getattr(spec, name) for name in names} | target


def _in_steps(function: Callable[[np.ndarray], np.ndarray], bar: tqdm, step: int = 10) -> Callable[[np.ndarray], np.ndarray]:
    """`function` applied to a few rows at a time, so that the bar moves."""

    def stepped(rows: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(rows), step):
            parts.append(function(rows[start : start + step]))
            bar.update(len(parts[-1]))
        return np.concatenate(parts)

    return stepped


def _prepare(folder: Path, files: Mapping[str, bytes] = MappingProxyType({})) -> None:
    """Make a folder and prove that it can be written before any work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        proof = folder / f".writable-{os.getpid()}"
        paths.write_whole(proof, b"")
        proof.unlink()
        for name, content in files.items():
            paths.write_whole(folder / name, content)
    except OSError as error:
        raise UserError(f"the outputs folder {folder} cannot be written: {error}") from error


def _read(file: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not a readable table ({error})") from error
