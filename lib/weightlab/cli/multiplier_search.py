"""`weightlab multipliers search`: the front of energy and loss over assignments of multipliers."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weightlab.cli import choices, hints, multipliers, options, output
from weightlab.cli.options import option
from weightlab.errors import UserError, check_whole

if TYPE_CHECKING:
    import pandas as pd

    from weightlab.compression.multipliers.settings import Multiplying
    from weightlab.runs.specifications import Specification

SEARCH, BUDGET, TARGET, WITHIN_PP = "nsga2", 800, "1,2", 0.6


def search(
    ctx: typer.Context,
    network: multipliers.Network,
    weights: options.Weights = None,
    data: options.Data = None,
    images: options.Images = None,
    library: multipliers.Library = None,
    only: multipliers.Only = None,
    order: Annotated[str, option("How a search sees them: by power, or alphabetical.", default=True)] = "power",
    tune: multipliers.Tune = False,
    signed: multipliers.Signed = None,
    search: Annotated[
        str, option("nsga2, which seeks a front; or random, genetic, particle_swarm or black_hole.", default=True)
    ] = SEARCH,
    population: Annotated[int | None, option("Assignments in a generation.", default="the search's own, 40 of nsga2")] = None,
    budget: Annotated[int, option("Evaluations, repeats included.", default=True)] = BUDGET,
    set: Annotated[list[str] | None, option("Another setting of the search, such as eta=30.", metavar="NAME=VALUE")] = None,
    target: Annotated[
        str, option("Accuracy (fraction) and exact energy / energy that searches other than nsga2 aim at.", default=True)
    ] = TARGET,
    seed: options.Seed = None,
    runs: Annotated[int, option("Searches, each with the next seed.", default=True)] = 1,
    within: Annotated[float, option("The largest loss on validation, in percentage points.", default=True)] = WITHIN_PP,
    folder: options.SearchesFolder = None,
    plot: Annotated[
        Path | None, option("Write energy against loss as a PNG file, replacing an existing one.", metavar="FILE.png")
    ] = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    workers: options.Workers = None,
) -> None:
    """Search for assignments of little energy and little loss; a search that was stopped resumes."""
    from weightlab.runs import Runner
    from weightlab.runs.uniform import uniform

    specs = _specifications(ctx.params)
    if not math.isfinite(within):
        raise UserError(f"within must be a finite number of percentage points, got {within}")
    if plot is not None:
        output.check(plot, True, (".png",))
    place = options.folder(folder, options.SEARCHES)
    runner = Runner(place, device, threads, workers=workers)
    hints.begun(place, specs)
    same = _energetic(uniform(runner, specs[0]))  # first: what does not fit is refused before a search has begun
    records = _energetic(runner.run_all(specs))
    hints.early_end(specs[0], len(records) // len(specs))
    hints.few_images(specs[0], within)
    found = _front(records)
    _print(records, found, same, specs, within)
    print(f"kept in {', '.join(str(place / spec.hash) for spec in specs[:3])}{' ...' * (len(specs) > 3)}")
    if plot is not None:
        _draw(records, found, plot)


def _specifications(params: Mapping) -> "list[Specification]":
    """One a run, as the options say."""
    from weightlab.runs.specifications import Specification
    from weightlab.search.fitness import TargetRule

    check_whole("runs", params["runs"])
    compression = multipliers.multiplying(
        params["library"], params["only"], order=params["order"], tune=params["tune"], signed=params["signed"]
    )
    values = {name: params[name] for name in ("network", "weights", "images", "search", "budget")}
    if params["data"] is not None:
        values["dataset"] = params["data"]
    values |= {"settings": choices.search_settings(params["search"], params), "compression": compression}
    values |= {"target": TargetRule(*options.pair("target", params["target"])), "objective_rate": "energy", "threshold": None}
    values, first = choices.with_dataset(values), Specification.seed if params["seed"] is None else params["seed"]
    return [Specification(**values, seed=first + run) for run in range(params["runs"])]


def _energetic(table: "pd.DataFrame") -> "pd.DataFrame":
    """Records with the energy relative to exact multipliers."""
    return table.assign(energy=1 / table["energy_rate"], plan=table["plan"].map(tuple))


def _front(records: "pd.DataFrame") -> "pd.DataFrame":
    """The front on validation, by falling energy."""
    from weightlab import analysis

    return analysis.front(records, "validation_loss_pp", "energy_rate")


def _print(
    records: "pd.DataFrame", found: "pd.DataFrame", same: "pd.DataFrame", specs: "list[Specification]", within: float
) -> None:
    from weightlab.compression.multipliers.settings import Multiplying
    from weightlab.runs.assignments import least_energy

    compression, images = specs[0].compression, _images(same)
    assert isinstance(compression, Multiplying)
    output.table(_table(found, images, compression), apart="assignment")
    exact = same[same["k"] == compression.chosen.exact + 1].iloc[0]
    rows = {
        f"least energy within {within:g} pp on validation": least_energy(records, within),
        f"least energy of one multiplier within {within:g} pp": least_energy(same, within),
    }
    for what, row in rows.items():
        text = "none evaluated loses so little" if row.empty else _told(row.iloc[0], images, compression)
        print(f"{what}: {text}")
    print(f"exact multipliers: {_told(exact, images, compression)}")
    different, possible = records["plan"].nunique(), len(compression.candidates) ** len(exact["plan"])
    budget = sum(spec.budget for spec in specs)
    print(
        f"{len(records)} of {budget} evaluations, {different} different of {possible} assignments; {len(same)} of one multiplier"
    )
    counted = " and ".join(f"{n} of {split}" for split, n in images.items())
    print(f"images: {counted}; validation chose, test only reports; ± is the standard error of an accuracy")


def _images(same: "pd.DataFrame") -> dict[str, int]:
    """How many each split has."""
    from weightlab.runs.setting import RECORDED_SPLITS

    return {split: int(same[f"{split}_images"].iloc[0]) for split in RECORDED_SPLITS}


def _table(rows: "pd.DataFrame", images: dict[str, int], compression: "Multiplying") -> "pd.DataFrame":
    import pandas as pd

    from weightlab import analysis

    columns: dict = {"energy [%]": 100 * rows["energy"]}
    for split, n in images.items():
        errors = analysis.standard_error_pp(rows[f"{split}_accuracy"], n)
        columns |= {f"loss on {split} [pp]": rows[f"{split}_loss_pp"], f"± {split}": errors}
    return pd.DataFrame(columns | {"assignment": [compression.chosen.spelled(plan) for plan in rows["plan"]]})


def _told(row: "pd.Series", images: dict[str, int], compression: "Multiplying") -> str:
    from weightlab import analysis

    losses = [
        f"{row[f'{split}_loss_pp']:.2f} ± {analysis.standard_error_pp(row[f'{split}_accuracy'], n):.2f} pp on {split}"
        for split, n in images.items()
    ]
    assignment = compression.chosen.spelled(row["plan"])
    if len({*row["plan"]}) == 1:
        assignment = f"{compression.chosen.names[row['plan'][0] - 1]} in all layers"
    return f"{assignment}, energy {100 * row['energy']:.2f} %, loss {', '.join(losses)}"


def _draw(records: "pd.DataFrame", found: "pd.DataFrame", file: Path) -> None:
    import io

    from weightlab import figures

    buffer = io.BytesIO()
    figure = figures.evaluated_assignments(records, found)
    figure.axes[0].set_title(figures.label(records["network"].iloc[0]))
    figure.savefig(buffer, format="png", dpi=150)
    output.write(file, buffer.getvalue())
    print(f"plot: {file}")
