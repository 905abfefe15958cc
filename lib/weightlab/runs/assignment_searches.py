"""Searches over assignments of multipliers: those of the source, played on a measured truth, and run where there is none."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from tqdm import tqdm

from weightlab.runs.assignments import Assignments
from weightlab.runs.runner import Runner
from weightlab.runs.specifications import Specification
from weightlab.runs.truth import Truth, compare
from weightlab.search.fitness import TargetRule

MUTATION = 0.5  # probability per variable of all the source's runs
ORDERS = ("power", "alphabetical")
Subject = tuple[str, str]  # network and coding of weights
Run = Sequence[float]  # population, generations, probability of crossover, eta of crossover and mutation


def name(run: Run) -> str:
    """A run by its population and generations.

    >>> name([40, 20, 1.0, 3.0])
    '40x20'
    """
    return f"{run[0]:g}x{run[1]:g}"


def settings(run: Run) -> dict:
    """The settings of NSGA-II for a run."""
    population, _, probability, eta = run
    return {"population": int(population), "crossover_probability": float(probability), "mutation": MUTATION, "eta": float(eta)}


def against_truth(
    subject: Assignments, known: Truth, runs: Iterable[Run], seeds: Iterable[int], usable: tuple[float, float]
) -> pd.DataFrame:
    """`truth.compare` of the runs: NSGA-II in either order, without an order (categorical), and random search at equal evaluations.

    Besides its columns: network, run, search and order. `usable` is a loss (pp) and an energy saved (fraction).
    """
    tables = []
    for run in runs:
        arms = [("nsga2", order, settings(run)) for order in ORDERS]
        arms += [("categorical", "", settings(run) | {"crossover": "uniform"}), ("random", "", {"batch": int(run[0])})]
        for search, order, chosen in arms:
            played = compare(
                known, subject.space(order or "power"), "random" if search == "random" else "nsga2", chosen,
                int(run[0] * run[1]), seeds, _least(subject, usable),
            )  # fmt: skip
            tables.append(played.assign(network=subject.network, run=name(run), search=search, order=order))
    return pd.concat(tables, ignore_index=True).drop(columns="batch")


def every_setting(
    subject: Assignments,
    known: Truth,
    values: Mapping[str, Sequence],
    budget: int,
    seeds: Iterable[int],
    usable: tuple[float, float],
) -> pd.DataFrame:
    """`truth.compare` of NSGA-II under every combination of `values` of its settings, in either order; columns network and order besides."""
    tables = []
    for order, *combination in itertools.product(ORDERS, *values.values()):
        chosen = dict(zip(values, combination, strict=True))
        played = compare(known, subject.space(order), "nsga2", chosen, budget, seeds, _least(subject, usable))
        tables.append(played.assign(network=subject.network, order=order))
    return pd.concat(tables, ignore_index=True)


def searched(subject: Assignments, runner: Runner, runs: Iterable[Run], seed: int, images: int | None) -> pd.DataFrame:
    """All assignments that the runs evaluate on the first images of validation: records, with columns energy and run_name."""
    aim = TargetRule(1.0, 2.0)  # which NSGA-II does not look at
    tables = []
    for run in runs:
        spec = Specification(
            subject.network, aim, "nsga2", seed, int(run[0] * run[1]), dataset=subject.dataset, images=images, threshold=None,
            objective_rate="energy", compression=subject.compression, settings=settings(run),
        )  # fmt: skip
        tables.append(runner.run_all([spec]).assign(run_name=name(run)))
    records = pd.concat(tables, ignore_index=True)
    return records.assign(energy=1 / records["energy_rate"])


def outcome(
    subjects: Mapping[Subject, Assignments], measured: Mapping[Subject, pd.DataFrame], within: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`Assignments.front` of what was measured, and `Assignments.chosen` of it, of all subjects; columns network and coding come first."""
    fronts = {key: subject.front(measured[key]) for key, subject in tqdm(subjects.items(), "fronts")}
    chosen = {key: subject.chosen(fronts[key], len(measured[key]), within) for key, subject in tqdm(subjects.items(), "chosen")}
    return _joined(fronts), _joined(chosen)


def in_batches(subjects: Mapping[Subject, Assignments], chosen: pd.DataFrame, images: int) -> pd.DataFrame:
    """`Assignments.in_batches` of the chosen and the exact assignment of each network; columns network and arm besides."""
    tables, arms = [], chosen[chosen["kind"].isin(["assignment", "exact"])]
    for (network, coding), rows in tqdm(arms.groupby(["network", "coding"], sort=False), "batches"):
        measured = subjects[network, coding].in_batches(rows["plan"], images)
        tables.append(measured.assign(network=network, arm=rows["kind"].repeat(2).to_numpy()))
    return pd.concat(tables, ignore_index=True)


def _joined(tables: Mapping[Subject, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, names=["network", "coding"]).reset_index(["network", "coding"]).reset_index(drop=True)


def _least(subject: Assignments, usable: tuple[float, float]) -> tuple[float, float]:
    """The least accuracy and rate of an assignment that loses and saves so much."""
    loss_pp, saved = usable
    return float(subject.chooser.baseline()[0]) - loss_pp / 100, 1 / (1 - saved)
