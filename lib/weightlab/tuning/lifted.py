"""Make a chosen plan more accurate at the same rate: cluster every layer again in a lifted space (equation 3.1, section 5.5).

A vector of focus values, float (L,), has one for each layer of the plan (one in all for a whole-net plan); 0 does not change a layer.
Losses and accuracies stand in tables under the names that `Evaluator.measure` gives them, for every split of the evaluator.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn
from tqdm import tqdm

from weightlab import paths, rng, search, storage
from weightlab.compression.sharing.clustering import Codebook, Lift
from weightlab.compression.sharing.codebooks import Codebooks
from weightlab.compression.sharing.lifts import Lifted
from weightlab.data import Split
from weightlab.errors import UserError, choose
from weightlab.evaluation import Evaluator
from weightlab.runs import loop
from weightlab.runs.folder import RunFolder
from weightlab.search.fitness import Target, TargetRule
from weightlab.search.space import BoxSpace

FOCUSES = tuple(round(0.2 * step, 1) for step in range(50))  # 0, 0.2 … 9.8
SPREAD = 2.0
SWARM = {"particles": 10, "max_velocity": 2.0}  # where its settings differ from those of section 5.2
SCHEMA = 2  # raised whenever tables of an older kind may no longer be read


def focus_grid(
    evaluator: Evaluator[Codebooks],
    plan: Sequence[int],
    folder: str | Path,
    spread: float = SPREAD,
    focuses: Sequence[float] = FOCUSES,
    chooser: str = "validation",
    progress: bool = True,
) -> pd.DataFrame:
    """Try every focus on one layer after the other, from input to output; keep the first of highest accuracy on split `chooser`.

    Earlier layers stay at their chosen focus, later ones are clustered plainly. A row per layer and focus: spread, layer, name,
    k, focus, chosen (bool), `predictors`, rates, accuracy and loss on every split. The table is saved in `folder` layer by layer:
    an interrupted call is resumed, a repeated one costs nothing. `chosen` reads the result.
    Raises `UserError` for a wrong plan, spread, split or folder, and for focuses that are not finite or lack 0.
    """
    plan, focuses = _plan(evaluator, plan), _focuses(focuses)
    choose("split", chooser, [split.name for split in evaluator.splits])
    identity = {"plan": plan, "spread": _spread(spread), "focuses": focuses, "chooser": chooser}
    with _locked_file(folder, "focus", evaluator, identity) as file, _lifting(evaluator) as lifting:
        books = lifting.variants
        saved_table = storage.kept_table(file)
        tables = [] if saved_table is None else [rows for _, rows in saved_table.groupby("layer")]
        layers, done = range(len(tables), len(plan)), len(tables)
        for layer in tqdm(
            layers, initial=done, total=len(plan), desc=f"focus, spread {spread:g}", unit="layer", disable=not progress
        ):
            trials = np.zeros((len(focuses), len(plan)))
            trials[:, :layer] = [chosen(table)[0] for table in tables]
            trials[:, layer] = focuses
            table = _measure(lifting, plan, trials, spread)
            lifts = [Lift(focus, spread) for focus in focuses]
            guesses = [
                predictors(books.codebooks.original(layer), books.get(layer, books.variant(plan[layer], lift)), lift)
                for lift in lifts
            ]
            columns = {"layer": layer, "name": books.names[layer], "k": plan[layer], "focus": focuses}
            columns["chosen"] = np.arange(len(focuses)) == table[f"{chooser}_accuracy"].argmax()  # the first of the highest
            tables.append(pd.concat([pd.DataFrame(columns), pd.DataFrame(guesses), table], axis=1))
            storage.write_table(pd.concat(tables, ignore_index=True), file.parent, file.stem)
        table = pd.concat(tables, ignore_index=True)
    table.insert(0, "spread", float(spread))
    return table


def chosen(grid: pd.DataFrame) -> np.ndarray:
    """The focus that a `focus_grid` chose for each of its layers, float64 (layers,)."""
    return grid.loc[grid["chosen"]].sort_values("layer")["focus"].to_numpy()


def measure(evaluator: Evaluator[Codebooks], plan: Sequence[int], focuses: np.ndarray, spread: float = SPREAD) -> pd.DataFrame:
    """`Evaluator.measure` of a plan under vectors of focus values (n, L); `focuses` that are all 0 give the plan itself."""
    plan, focuses = _plan(evaluator, plan), np.atleast_2d(focuses)
    if focuses.shape[1] != len(plan):
        raise UserError(f"a plan of {len(plan)} numbers needs as many focus values, got {focuses.shape[1]}")
    with _lifting(evaluator) as lifting:
        return _measure(lifting, plan, focuses, _spread(spread))


def compare(
    evaluator: Evaluator[Codebooks], plan: Sequence[int], focuses: Sequence[float] | np.ndarray, spread: float = SPREAD
) -> dict[str, float]:
    """A plan before and after one vector of focus values: rates, accuracy and loss as `<split>_loss_pp_before`, `…_after`."""
    table = measure(evaluator, plan, np.stack([np.zeros(len(focuses)), focuses]), spread)
    rates = [column for column in table if column.endswith("_rate")]
    comparison = table[rates].iloc[0].to_dict()
    for when, row in zip(("before", "after"), table.drop(columns=rates).to_dict("records"), strict=True):
        comparison |= {f"{column}_{when}": value for column, value in row.items()}
    return comparison


def tune(
    evaluator: Evaluator[Codebooks],
    plan: Sequence[int],
    folder: str | Path,
    model: nn.Module | None = None,
    also: Sequence[Split] = (),
    **grid: Any,
) -> pd.DataFrame:
    """A plan before and after a `focus_grid`, whose arguments `grid` are.

    One row: spread, the chosen focuses, and the columns of `compare`; `loss_pp_before` and `loss_pp_after` are those on the split
    that chose. Splits in `also`, for which `model` is needed, are measured too, but nothing is chosen on them.
    """
    spread, chooser = grid.get("spread", SPREAD), grid.get("chooser", "validation")
    focuses = chosen(focus_grid(evaluator, plan, folder, **grid))
    row = {"spread": float(spread), "focuses": focuses} | compare(evaluator, plan, focuses, spread)
    if also:
        if model is None:
            raise UserError("splits besides those of the evaluator need the network, got none")
        elsewhere = Evaluator(model, evaluator.variants, also, str(evaluator.device), evaluator.threads, memory=0)
        row |= compare(elsewhere, plan, focuses, spread)
    return pd.DataFrame([row | {f"loss_pp_{when}": row[f"{chooser}_loss_pp_{when}"] for when in ("before", "after")}])


def for_plans(
    plans: Mapping[tuple, tuple],
    by: Sequence[str],
    tables: Callable[..., Sequence[pd.DataFrame]],
    title: str = "",
    progress: bool = True,
) -> pd.DataFrame:
    """The tables that `tables(evaluator, plan, …)` returns for each of `plans`, concatenated.

    The values of `plans` are the arguments of `tables`; columns `by` hold the keys, column `plan` the plan.
    """
    parts = [pd.DataFrame(columns=[*by, "plan"])]
    for key, arguments in tqdm(plans.items(), desc=title, unit="plan", disable=not progress):
        rows = pd.concat(tables(*arguments), ignore_index=True)
        columns = dict(zip(by, key, strict=True)) | {"plan": pd.Series([arguments[1]] * len(rows))}
        parts.append(pd.concat([pd.DataFrame(columns), rows], axis=1))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def predictors(weights: np.ndarray, book: Codebook, lift: Lift) -> dict[str, float]:
    """The measures that section 5.5 proposes to predict a good focus without accuracy, from weights (n,) and their lifted codebook.

    `inertia`: sum of squared distances to the cluster means in the lifted space; `weight_delta`: Σ|w − w'|, w' as stored.
    """
    weights = weights.astype(np.float64)
    members = np.maximum(np.bincount(book.labels), 1)
    inertia = 0.0
    for coordinate in (weights, lift(weights, weights.mean())):
        means = np.bincount(book.labels, coordinate) / members
        inertia += float(((coordinate - means[book.labels]) ** 2).sum())
    return {"inertia": inertia, "weight_delta": float(np.abs(weights - book.values()).sum())}


def lifted_points(weights: np.ndarray, focuses: Sequence[float], spread: float = SPREAD) -> pd.DataFrame:
    """Weights, in the order given, in the lifted space of every focus: columns focus, weight, lifted (its second coordinate)."""
    x = np.asarray(weights, dtype=np.float64)
    lifts = {focus: Lift(focus, _spread(spread))(x, x.mean()) for focus in focuses}
    return pd.concat([pd.DataFrame({"focus": focus, "weight": x, "lifted": y}) for focus, y in lifts.items()], ignore_index=True)


def clustered_points(codebooks: Codebooks, layer: int, k: int, focuses: Sequence[float], spread: float = SPREAD) -> pd.DataFrame:
    """As `lifted_points`, of the weights of a layer, with a column cluster (from 0): what figure B.1 shows."""
    points = lifted_points(codebooks.original(layer), focuses, spread)
    lifted = Lifted(codebooks)
    labels = [lifted.get(layer, lifted.variant(k, Lift(focus, spread))).labels for focus in focuses]
    return points.assign(cluster=np.concatenate(labels))


def one_by_one(
    evaluator: Evaluator[Codebooks],
    plan: Sequence[int],
    folder: str | Path,
    spreads: Sequence[float],
    focuses: Sequence[float] = FOCUSES,
) -> pd.DataFrame:
    """Every focus with every spread on each layer by itself, all others clustered plainly; kept in `folder`.

    A row each: layer, name, k, spread, focus, and the columns of `Evaluator.measure`. Raises `UserError` as `focus_grid` does.
    """
    plan, focuses, spreads = _plan(evaluator, plan), _focuses(focuses), [_spread(spread) for spread in spreads]
    identity = {"plan": plan, "spreads": spreads, "focuses": focuses}
    with _locked_file(folder, "one-by-one", evaluator, identity) as file, _lifting(evaluator) as lifting:
        if (table := storage.kept_table(file)) is None:
            tables = []
            for layer, name in enumerate(evaluator.variants.names):
                trials = np.outer(focuses, np.arange(len(plan)) == layer)  # (focuses, L)
                for spread in spreads:
                    columns = {"layer": layer, "name": name, "k": plan[layer], "spread": spread, "focus": focuses}
                    tables.append(pd.concat([pd.DataFrame(columns), _measure(lifting, plan, trials, spread)], axis=1))
            table = pd.concat(tables, ignore_index=True)
            storage.write_table(table, file.parent, file.stem)
        return table


def swarm(
    evaluator: Evaluator[Codebooks],
    plan: Sequence[int],
    folder: str | Path,
    spread: float = SPREAD,
    focuses: Sequence[float] = FOCUSES,
    chooser: str = "validation",
    seed: int = 0,
    progress: bool = True,
    **settings: Any,
) -> pd.DataFrame:
    """A particle swarm over the focus of all layers at once, towards the highest accuracy on split `chooser`.

    To compare with a `focus_grid` over the same `focuses`: positions range from 0 to the highest, with as many evaluations.
    `settings` override those of section 5.5. Returns the records of `loop.run` with the vectors in column `focuses` and a column
    spread; kept in `folder`, resumed there if interrupted. Raises `UserError` as `focus_grid` does, and for a wrong setting.
    """
    plan, focuses = _plan(evaluator, plan), _focuses(focuses)
    choose("split", chooser, [split.name for split in evaluator.splits])
    box, budget = BoxSpace((focuses[-1],) * len(plan)), len(focuses) * len(plan)
    optimizer = search.make("particle_swarm", box, rng.derive(seed, "focus swarm"), **SWARM | settings)
    rate = float(evaluator.variants.rates(np.array(plan))["storage_rate"])

    # The rate never changes, so the fittest by equation 3.4 is the most accurate.
    target = Target(TargetRule(accuracy=1, rate=rate))
    identity = {
        "plan": plan,
        "spread": _spread(spread),
        "highest": box.highest,
        "chooser": chooser,
        "seed": seed,
        "budget": budget,
    }
    with _locked_file(folder, "swarm", evaluator, identity | {"settings": asdict(optimizer.settings)}) as file:
        place = RunFolder(file.with_suffix(""))
        place.path.mkdir(exist_ok=True)
        if (table := place.tidy()) is None:
            with tqdm(total=budget, desc=f"focus swarm {seed}", disable=not progress) as bar, _lifting(evaluator) as lifting:

                def measured(focuses: np.ndarray) -> pd.DataFrame:
                    table = _measure(lifting, plan, focuses, spread)
                    return table.assign(accuracy=table[f"{chooser}_accuracy"], loss_pp=table[f"{chooser}_loss_pp"], rate=rate)

                columns = {"chooser": chooser, "seed": seed}
                table = loop.run(
                    optimizer, target, measured, budget, place.path, columns, lambda records: bar.update(len(records))
                )
        table = table.rename(columns={"plan": "focuses"})
    table.insert(0, "spread", float(spread))
    return table


@contextmanager
def _locked_file(folder: str | Path, kind: str, evaluator: Evaluator[Codebooks], identity: dict) -> Iterator[Path]:
    """The file of results that depend on the evaluator and `identity`, locked against other processes."""
    text = json.dumps([SCHEMA, kind, evaluator.describe(), identity], sort_keys=True)
    file = paths.resolve(folder) / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.parquet"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {file.parent} cannot be written: {error}") from error
    with storage.lock(file.parent / f".{file.name}.lock"):
        yield file


@contextmanager
def _lifting(evaluator: Evaluator[Codebooks]) -> Iterator[Evaluator[Lifted]]:
    """The evaluator for lifted variants of its codebooks."""
    evaluator.release()  # or two would keep activations
    lifting = evaluator.under(Lifted(evaluator.variants))
    yield lifting
    lifting.release()  # the activations of one plan are of no use to the next


def _measure(lifting: Evaluator[Lifted], plan: Sequence[int], focuses: np.ndarray, spread: float) -> pd.DataFrame:
    """`Evaluator.measure` of a plan under vectors of focus values (n, L), by an evaluator for lifted variants."""
    variant = lifting.variants.variant
    numbers = [[variant(k, Lift(focus, spread)) for k, focus in zip(plan, row, strict=True)] for row in focuses.tolist()]
    return lifting.measure(np.array(numbers))


def _plan(evaluator: Evaluator[Codebooks], plan: Sequence[int]) -> list[int]:
    return evaluator.variants.check(plan)[0].tolist()


def _spread(spread: float) -> float:
    if isinstance(spread, bool) or not isinstance(spread, int | float) or not 0 <= spread < np.inf:
        raise UserError(f"spread must be a finite number of at least 0, got {spread!r}")
    return float(spread)


def _focuses(focuses: Sequence[float]) -> list[float]:
    """Ascending, each once."""
    values = np.unique(np.asarray(focuses, dtype=float))
    if 0 not in values or not np.isfinite(values).all():
        raise UserError(f"focus values must be finite and hold 0, so that tuning cannot make a plan worse, got {list(focuses)}")
    return values.tolist()
