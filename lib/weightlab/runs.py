"""Searches run to a budget, recorded, checkpointed and resumed exactly."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from filelock import FileLock
from tqdm import tqdm

from weightlab import accounting, clustering, data, floats, models, paths, rng, search, space
from weightlab.errors import UserError, choose
from weightlab.evaluation import Evaluator
from weightlab.fitness import Target, TargetRule
from weightlab.search import Search
from weightlab.sharing import Codebooks
from weightlab.space import IntegerSpace

PROTOCOLS = {"held_out": "validation", "published": "test"}  # the split on which everything is chosen
RECORDED_SPLITS = ("validation", "test")
SCHEMA = 1  # raised whenever records of an older kind may no longer be reused


@dataclass(frozen=True)
class Specification:
    """Everything a search's records depend on; equal specifications share one folder.

    `threshold` is the accuracy (fraction) at which the range scan keeps a k, None for the full range 1..k_max. `images` limits
    each split to its first images (None: all). `settings` override the search's published ones.
    """

    network: str
    target: TargetRule
    search: str = "genetic"
    seed: int = 0
    budget: int = 400  # evaluations, repeats included
    dataset: str = "mnist"
    method: str = "exact"
    format: str = "float32"
    protocol: str = "held_out"
    objective_rate: str = "storage"
    k_max: int = 50
    threshold: float | None = 0.97
    images: int | None = None
    settings: Mapping = field(default_factory=dict)

    def __post_init__(self):
        choose("network", self.network, models.NETWORKS)
        choose("dataset", self.dataset, data.DATASETS)
        choose("clustering method", self.method, clustering.METHODS)
        choose("format", self.format, floats.FORMATS)
        choose("protocol", self.protocol, PROTOCOLS)
        choose("objective rate", self.objective_rate, accounting.RATES)
        clustering.check_k(self.k_max)
        if self.protocol == "published" and self.method == "exact":
            raise UserError("protocol 'published' is the thesis's own, got method 'exact'; allowed: kmeans, minibatch, gmm")
        for name, least in (("budget", 1), ("images", 1), ("seed", 0)):
            value = getattr(self, name)
            if not (value is None and name == "images") and (not isinstance(value, int) or value < least):
                raise UserError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if self.threshold is not None:
            object.__setattr__(self, "threshold", float(self.threshold))  # so that 1 and 1.0 are one specification
        made = search.make(self.search, space.full(2, [1]), rng.derive(0), **self.settings)  # refuses what does not fit
        object.__setattr__(self, "settings", asdict(made.settings))

    def describe(self) -> dict:
        """All of it as JSON-ready values, with the checkpoint's hash."""
        return asdict(self) | {"checkpoint": models.card(self.network)["sha256"], "schema": SCHEMA}

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that name the search's folder."""
        return _hash(self.describe())


class Runner:
    """Runs specifications below one folder; searches on the same network, data, method and format share codebooks and answers."""

    def __init__(self, folder: str | Path, device: str = "auto", threads: int | None = None, progress: bool = True):
        self.folder, self.device, self.threads, self.progress = Path(folder), device, threads, progress
        self._evaluators: dict[tuple, Evaluator] = {}

    def evaluator(self, spec: Specification) -> Evaluator:
        """The evaluator of a specification, on validation and test."""
        key = spec.network, spec.dataset, spec.method, spec.format, spec.k_max, spec.images
        if key not in self._evaluators:
            model = models.load(spec.network)
            codebooks = Codebooks(model, spec.method, spec.format, range(1, spec.k_max + 1))
            splits = [data.load(spec.dataset, name).first(spec.images) for name in RECORDED_SPLITS]
            self._evaluators[key] = Evaluator(model, codebooks, splits, self.device, self.threads)
        return self._evaluators[key]

    def scan(self, spec: Specification) -> pd.DataFrame:
        """The range scan a specification's space rests on, kept as `scan-<hash>.parquet`: layer, name, k, accuracies."""
        names = "network", "dataset", "method", "format", "k_max", "images", "checkpoint", "schema"
        file = self.folder / f"scan-{_hash({name: spec.describe()[name] for name in names})}.parquet"
        _prepare(self.folder)
        with FileLock(self.folder / f".{file.name}.lock"):
            if not file.exists():
                evaluator = self.evaluator(spec)
                total = len(evaluator.codebooks.names) * spec.k_max
                with tqdm(total=total, desc=f"scan {spec.network} {spec.format}", disable=not self.progress) as bar:
                    accuracy = _in_steps(lambda plans: evaluator.accuracy(plans, partial=True), bar)
                    table = space.scan(accuracy, evaluator.codebooks.names, range(1, spec.k_max + 1))
                columns = {f"accuracy_{i}": f"{name}_accuracy" for i, name in enumerate(RECORDED_SPLITS)}
                paths.write_table(table.rename(columns=columns), self.folder, file.stem)
            return _read(file)

    def space(self, spec: Specification) -> IntegerSpace:
        """The allowed k of each layer; raises `UserError` if the threshold leaves a layer none."""
        if spec.threshold is None:
            return space.full(len(self.evaluator(spec).codebooks.names), range(1, spec.k_max + 1))
        return space.reduce(self.scan(spec), f"{PROTOCOLS[spec.protocol]}_accuracy", spec.threshold)

    def run(self, spec: Specification, progress: Callable[[int], object] = lambda evaluations: None) -> pd.DataFrame:
        """The records of one search: read if it is complete, else begun or resumed; `progress` is told of evaluations done."""
        folder = self.folder / spec.hash
        if (folder / "evaluations.parquet").exists():
            progress(spec.budget)
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
    for name in ("state.json", "partial.parquet"):
        (folder / name).unlink(missing_ok=True)
    return _read(folder / "evaluations.parquet")


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
    """The columns by which readers of the records tell searches apart."""
    names = "network", "dataset", "protocol", "objective_rate", "method", "format", "search", "seed"
    return {name: getattr(spec, name) for name in names} | {"target": spec.target.form}


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
        paths.write_whole(folder / ".writable", b"")
        (folder / ".writable").unlink()
        for name, content in files.items():
            paths.write_whole(folder / name, content)
    except OSError as error:
        raise UserError(f"the outputs folder {folder} cannot be written: {error}") from error


def _hash(described: dict) -> str:
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _read(file: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not a readable table ({error})") from error
