"""`weightlab multipliers list` and `evaluate`: which approximate multipliers there are, and what an assignment of them costs."""

import json
import math
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weightlab.cli import choices, options, output
from weightlab.cli.options import option
from weightlab.errors import UserError, choose

if TYPE_CHECKING:
    import pandas as pd

    from weightlab.compression.multipliers.method import Multipliers
    from weightlab.compression.multipliers.settings import Multiplying
    from weightlab.evaluation import Evaluator

COLUMNS = {  # of `metrics`: what the table calls them
    "name": "multiplier", "power_mw": "power [mW]", "power_pct": "power [%]", "mae": "MAE", "wce": "WCE", "ep_pct": "wrong [%]",
    "mre_pct": "MRE [%]", "mean_error": "mean error", "rank": "rank",
}  # fmt: skip
SORTS = {"power": "power_mw", "name": "name", "mae": "mae", "wce": "wce", "ep": "ep_pct", "mre": "mre_pct", "mean_error": "mean_error",
         "rank": "rank"}  # fmt: skip
POWERS = {"model": "a model of gates (relative figures)", "pdk45": "synthesis for a 45 nm process (pdk45)"}

Network = Annotated[str, typer.Argument(help="A network here, or module:factory of your own.", show_default=False)]
Library = Annotated[
    str | None,
    option(
        "generated, or a folder of tables mul8u_<id>.bin with circuits.csv.",
        metavar="SOURCE",
        default="the folder that $WEIGHTLAB_MULTIPLIERS names, else generated",
    ),
]
Only = Annotated[str | None, option("Take only these multipliers of the library.", metavar="NAME,NAME...", default="all")]
Tune = Annotated[bool, typer.Option("--tune", help="Change codes of weights so that a multiplier errs less, without data.")]
Signed = Annotated[
    bool | None,
    option(
        "Multiply the magnitudes of weights, with their sign outside, or affine codes.",
        "--signed/--affine",
        default="--signed where power is by a model",
    ),
]


def listed(
    library: Library = None,
    only: Only = None,
    sort: Annotated[str, option(f"{', '.join(SORTS)}.", default=True)] = "power",
    as_json: options.Json = False,
) -> None:
    """Print power and errors of every multiplier of a library."""
    from weightlab.compression.multipliers import metrics, tables

    choose("order of the table", sort, SORTS)
    source = tables.library(library)
    exact, wanted = source.names[source.exact], source.names if only is None else source.only(names(only)).names
    table = metrics.metrics(source.only([*wanted, exact]))  # powers are relative to the exact one, which may be left out
    table = table[table["name"].isin(wanted)]
    table = table.sort_values(
        [SORTS[sort], "name"], kind="stable", key=lambda column: column if sort == "name" else _size(column)
    )
    if as_json:
        rows = table.drop(columns="power_source").to_dict("records")
        print(json.dumps({"power_source": source.power_source, "multipliers": [_known(row) for row in rows]}, indent=1))
        return
    output.table(table[list(COLUMNS)].rename(columns=COLUMNS))
    print(f"{len(table)} multipliers; power from {POWERS[source.power_source]}, in % of {exact}; errors over all 65536 products")


def evaluate(
    network: Network,
    assignment: Annotated[
        str,
        typer.Argument(
            help="A multiplier for each convolution in forward order, such as trunc6/drum4/exact, or each:trunc6.",
            show_default=False,
        ),
    ],
    weights: options.Weights = None,
    data: options.Data = None,
    images: options.Images = None,
    library: Library = None,
    only: Only = None,
    tune: Tune = False,
    signed: Signed = None,
    as_json: options.Json = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Measure energy and accuracy of a network whose convolutions take given multipliers."""
    from weightlab import backend, runs

    backend.device(device)
    backend.check_threads(threads)
    given = {"network": network, "weights": weights, "images": images} | ({} if data is None else {"dataset": data})
    compression = multiplying(library, only, tune=tune, signed=signed)
    setting = runs.Setting(**choices.with_dataset(given), compression=compression)
    evaluator = runs.evaluator(setting, device=device, threads=threads)
    plan = read(assignment, evaluator.variants)
    measured = _measured(plan, evaluator)
    circuits = evaluator.variants.library
    energy = 100 * float(evaluator.variants.energy([plan])[0])
    if as_json:
        result = {"network": network, "layers": evaluator.variants.names, "assignment": circuits.spelled(plan).split("/")}
        result |= {"energy_pct": energy, "power_source": circuits.power_source, "accuracy": measured.to_dict("records")}
        print(json.dumps(result, indent=1))
        return
    output.table(_layers(plan, evaluator.variants))
    source, exact = POWERS[circuits.power_source], circuits.names[circuits.exact]
    print(f"energy: {energy:.2f} % of {exact} in all layers; power from {source}")
    for row in measured.itertuples():
        print(
            f"{row.split}: {accuracy(row.accuracy, row.images)} of {row.images} images, loss {row.loss_pp:.2f} pp against the float "
            f"network, {row.loss_against_exact_pp:.2f} pp against {exact} in all layers"
        )


def multiplying(library: str | None, only: str | None, **more: Any) -> "Multiplying":
    """The settings that options give."""
    from weightlab.compression.multipliers.settings import Multiplying

    return Multiplying(library=library, only=None if only is None else names(only), **more)


def names(text: str) -> tuple[str, ...]:
    """Names between commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def read(text: str, method: "Multipliers") -> list[int]:
    """The numbers, from 1, of the multipliers that a text assigns; raises `UserError` for wrong names or a wrong number of them."""
    layers, known = method.names, method.library.names
    if each := re.fullmatch(r"each:(.+)", text):
        given = [each[1].strip()] * len(layers)
    else:
        given = [name.strip() for name in re.split("[/,]", text)]
    called = f"{len(layers)} convolutions: {', '.join(layers)}"
    if len(given) != len(layers):
        raise UserError(
            f"an assignment must name a multiplier for each of the {called}; or each:NAME; got {len(given)} in {text!r}"
        )
    for name in given:
        if name not in known:
            raise UserError(f"unknown multiplier {name!r} in an assignment to {called}; allowed: {', '.join(known)}")
    return [known.index(name) + 1 for name in given]


def accuracy(fraction: float, images: int) -> str:
    """An accuracy with its standard error."""
    from weightlab import analysis

    return f"{100 * fraction:.2f} ± {analysis.standard_error_pp(fraction, images):.2f} %"


def _measured(plan: list[int], evaluator: "Evaluator[Multipliers]") -> "pd.DataFrame":
    """A row for each split."""
    import pandas as pd

    from weightlab import analysis

    exact = evaluator.variants.library.exact + 1
    one, other = evaluator.measure([plan, [exact] * len(plan)]).to_dict("records")
    rows = []
    for split in evaluator.splits:
        fraction, loss = one[f"{split.name}_accuracy"], one[f"{split.name}_loss_pp"]
        row = {"split": split.name, "images": len(split), "accuracy": fraction}
        row |= {"standard_error": analysis.standard_error_pp(fraction, len(split)) / 100, "loss_pp": loss}
        rows.append(row | {"loss_against_exact_pp": loss - other[f"{split.name}_loss_pp"]})
    return pd.DataFrame(rows)


def _layers(plan: list[int], method: "Multipliers") -> "pd.DataFrame":
    """What each convolution is given."""
    import pandas as pd

    circuits, products = [method.library.multipliers[number - 1] for number in plan], method.multiplications
    power = [100 * each.power_mw / method.library.power_mw[method.library.exact] for each in circuits]
    columns = {"layer": method.names, "multiplications": products, "of all [%]": 100 * products / products.sum()}
    return pd.DataFrame(columns | {"multiplier": [each.name for each in circuits], "power [%]": power})


def _size(column: "pd.Series") -> "pd.Series":
    """What to sort by: a mean error by its size, names of equals as they are."""
    return column.abs() if column.dtype.kind in "if" else column


def _known(row: dict) -> dict:
    """A row without nan, which is no JSON."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
