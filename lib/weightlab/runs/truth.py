"""An enumerated box as the truth that searches are compared with: lookup, the true front, and searches played on it."""

from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np
import pandas as pd

from weightlab import rng, search
from weightlab.errors import UserError
from weightlab.search import Search, pareto
from weightlab.search.base import Fitness
from weightlab.search.nsga2 import NSGA2
from weightlab.search.space import IntegerSpace

REFERENCE = np.ones(2)  # of hypervolumes: costs of no accuracy and of rate 1


class Truth:
    """Accuracy and rate of every plan of a box, from a table with columns plan, accuracy (fraction) and rate, one row per plan.

    Raises `UserError` unless every combination of the variants in the table has exactly one row.
    """

    def __init__(self, table: pd.DataFrame):
        if missing := {"plan", "accuracy", "rate"} - set(table):
            raise UserError(
                f"a table of all plans needs columns plan, accuracy and rate; {', '.join(sorted(missing))} is missing"
            )
        if not len(table):
            raise UserError("a table of all plans must have rows, got none")
        plans = np.stack(table["plan"].to_list())  # (n, d)
        self.box = IntegerSpace(tuple(np.unique(column) for column in plans.T))
        indices = np.ravel_multi_index(tuple(self._indices(plans).T), tuple(self.box.lengths))
        if len(np.unique(indices)) != len(table) or len(table) != self.box.lengths.prod():
            raise UserError(
                f"a table of all plans must have each of the {' x '.join(map(str, self.box.lengths))} plans of its box once, "
                f"got {len(table)} rows with {len(np.unique(indices))} plans"
            )
        order = np.argsort(indices)
        self._plans = plans[order]
        self._objectives = table[["accuracy", "rate"]].to_numpy(dtype=float)[order]

    def objectives(self, plans: np.ndarray) -> np.ndarray:
        """Objectives (n, 2) = accuracy, rate of plans (n, d); raises `UserError` for a plan that the table does not have."""
        plans = np.asarray(plans)
        if plans.ndim != 2 or plans.shape[1] != self.box.dimensions:
            raise UserError(f"plans of this table are (n, {self.box.dimensions}), got {plans.shape}")
        indices = self._indices(plans)
        known = (self.box.decode(indices) == plans).all(axis=1)
        if not known.all():
            raise UserError(f"plan {plans[~known][0].tolist()} is not in the table, whose layers allow {self._allowed()}")
        return self._objectives[np.ravel_multi_index(tuple(indices.T), tuple(self.box.lengths))]

    @cached_property
    def front(self) -> pd.DataFrame:
        """The rows that no other dominates, equal ones included, by ascending rate: columns plan, accuracy, rate."""
        chosen = np.flatnonzero(pareto.non_dominated(pareto.costs(self._objectives)))
        chosen = chosen[np.argsort(self._objectives[chosen, 1], kind="stable")]
        return _table(self._plans[chosen], self._objectives[chosen])

    def _indices(self, plans: np.ndarray) -> np.ndarray:
        """Index (n, d) of each variant in the list of its layer; of another one where it would have its place."""
        columns = zip(self.box.lists, plans.T, strict=True)
        return np.stack([np.searchsorted(allowed, column).clip(max=len(allowed) - 1) for allowed, column in columns], axis=1)

    def _allowed(self) -> str:
        return "; ".join(f"{', '.join(map(str, each[:5]))}{', …' if len(each) > 5 else ''}" for each in self.box.lists)


def play(made: Search, truth: Truth, budget: int, fitness: Fitness | None = None) -> pd.DataFrame:
    """The records of a search whose plans are looked up: columns evaluation, generation, plan, accuracy, rate; repeats are included.

    It is the same as to run the search, as what is measured depends on the plan alone. As in `loop.run`, generations go on until the
    next no longer fits the budget (in evaluations). A search that fitness guides needs `fitness`, which stays as it is.
    """
    if fitness is None and made.guided:
        raise UserError(f"a search of kind {type(made).__name__} needs a fitness to be played")
    scoring = fitness or _accuracy
    asked, told, generations, first = [], [], [], made.evaluations
    while made.evaluations + made.size <= budget:
        generations += [made.generation] * made.size
        asked.append(made.ask())
        told.append(truth.objectives(asked[-1]))
        made.tell(told[-1], scoring)
    if not asked:
        raise UserError(f"a budget of {budget} evaluations is too small for the first generation of {made.size}")
    table = _table(np.concatenate(asked), np.concatenate(told))
    table.insert(0, "evaluation", np.arange(first, first + len(table)))
    table.insert(1, "generation", generations)
    return table


def compare(
    truth: Truth,
    space: IntegerSpace,
    name: str,
    settings: Mapping,
    budget: int,
    seeds: Iterable[int],
    usable: tuple[float, float],
) -> pd.DataFrame:
    """How near one search comes to the truth, a row per seed.

    Columns: the settings, seed, evaluations, distinct (plans), hypervolume_ratio of all evaluated plans to the true front (reference: no
    accuracy, rate 1), front_size (distinct plans that no other evaluated one dominates), final_front (the same of the last population
    alone, which is what a user of NSGA-II is given), usable (distinct plans with at least this accuracy and rate). `space` gives the order in which the search sees the variants. Raises `UserError` as `search.make` and `play` do.
    """
    front, rows = pareto.costs(truth.front[["accuracy", "rate"]].to_numpy()), list[dict]()
    for seed in seeds:
        made = search.make(name, space, rng.derive(seed, "search", name), **settings)
        records = play(made, truth, budget)
        plans = records.assign(key=records["plan"].map(tuple)).drop_duplicates("key")
        costs = pareto.costs(plans[["accuracy", "rate"]].to_numpy())
        enough = (plans["accuracy"] >= usable[0] - 1e-9) & (plans["rate"] >= usable[1] - 1e-9)
        counts = {"evaluations": len(records), "distinct": len(plans), "front_size": int(pareto.non_dominated(costs).sum())}
        ratio, last = pareto.hypervolume_ratio(costs, front, REFERENCE), _last_population(made, plans)
        counts |= {"final_front": int(pareto.non_dominated(pareto.costs(last)).sum()), "usable": int(enough.sum())}
        rows.append({**settings, "seed": seed, **counts, "hypervolume_ratio": ratio})
    return pd.DataFrame(rows)


def _last_population(made: Search, plans: pd.DataFrame) -> np.ndarray:
    """Objectives (n, 2) of the distinct plans of NSGA-II's population; of another search those of all its `plans`."""
    if not isinstance(made, NSGA2) or made.population is None or made.objectives is None:
        return plans[["accuracy", "rate"]].to_numpy()
    first = np.unique(made.space.decode(made.population), axis=0, return_index=True)[1]
    return made.objectives[first]


def _accuracy(objectives: np.ndarray) -> np.ndarray:
    """A fitness (n,) for searches that it does not guide."""
    return objectives[:, 0]


def _table(plans: np.ndarray, objectives: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"plan": list(plans), "accuracy": objectives[:, 0], "rate": objectives[:, 1]})
