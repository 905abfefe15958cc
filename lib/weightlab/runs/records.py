"""Every column of the tables that searches leave, stated once; `docs/records.md` is made from it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from weightlab.runs.specifications import Specification
from weightlab.settings import leaves


@dataclass(frozen=True)
class Column:
    """A column: its name, the type of its values, their unit ("" for none), what it means, and which part of a record it belongs to."""

    name: str
    dtype: str
    unit: str
    meaning: str
    part: str = ""


SEARCH, PLAN, MEASURED, SCORE = "search", "plan", "measured", "score"
PARTS = {
    SEARCH: "which search a row comes from; the same in all rows of a file",
    PLAN: "what was evaluated, known before it is measured",
    MEASURED: "what the plan achieved",
    SCORE: "how the search scored it, known once its whole generation is measured",
}
DTYPES: dict[Any, str] = {str: "str", int: "int64"}  # of fields
EVALUATIONS = (
    *(Column(field.name, DTYPES[field.type], "", role.column, SEARCH) for field, role in leaves(Specification) if role.column),
    Column("target", "str", "", "`fixed`, or how the target moves: `batch` or `pointwise`", SEARCH),
    Column("target_accuracy_start", "float64", "fraction", "accuracy of the target at the start", SEARCH),
    Column("target_rate_start", "float64", "", "rate of the target at the start", SEARCH),
    Column("evaluation", "int64", "", "number of the evaluation, from 0", PLAN),
    Column("generation", "int64", "", "number of the generation, from 0", PLAN),
    Column("plan", "list of int64", "", "one k for each layer, or one for the whole net", PLAN),
    Column("repeated", "bool", "", "whether the search had evaluated this plan before", PLAN),
    Column("uniform", "bool", "", "whether it is a plan with one k in all layers; only of searches that start with such", PLAN),
    Column("storage_rate", "float64", "", "original bits over stored bits of all shared weights", MEASURED),
    Column("layer_mean_rate", "float64", "", "mean of the layers' rates of equation 3.2, the thesis's figure", MEASURED),
    Column("thesis_model_rate", "float64", "", "equation 3.2 for all layers together", MEASURED),
    Column("energy_rate", "float64", "", "energy of exact multipliers over energy of the plan's; only of multipliers", MEASURED),
    Column("validation_accuracy", "float64", "fraction", "correctly classified images of validation", MEASURED),
    Column(
        "validation_loss_pp", "float64", "pp", "accuracy of the unshared network less that of this one, on validation", MEASURED
    ),
    Column("test_accuracy", "float64", "fraction", "correctly classified images of test", MEASURED),
    Column("test_loss_pp", "float64", "pp", "accuracy of the unshared network less that of this one, on test", MEASURED),
    Column("accuracy", "float64", "fraction", "that on the split that chooses", MEASURED),
    Column("loss_pp", "float64", "pp", "that on the split that chooses", MEASURED),
    Column("rate", "float64", "", "the rate that is searched for", MEASURED),
    Column(
        "fitness",
        "float64",
        "",
        "1 / distance to the target as it was after this generation (equation 3.4); higher is better",
        SCORE,
    ),
    Column("target_accuracy", "float64", "fraction", "accuracy of the target after this generation", SCORE),
    Column("target_rate", "float64", "", "rate of the target after this generation", SCORE),
)
TIMES = (
    Column("generation", "int64", "", "number of the generation, from 0"),
    Column("started", "float64", "s", "when it began, since 1970 (UTC)"),
    Column("seconds", "float64", "s", "how long it took"),
    Column("evaluating_seconds", "float64", "s", "of these, how long plans were measured"),
    Column("host", "str", "", "name of the machine"),
    Column("process", "int64", "", "number of the process"),
)
SCANS = (
    Column("layer", "int64", "", "number of the only layer that is shared, from 0"),
    Column("name", "str", "", "its name"),
    Column("k", "int64", "", "number of clusters"),
    Column("validation_accuracy", "float64", "fraction", "correctly classified images of validation"),
    Column("test_accuracy", "float64", "fraction", "correctly classified images of test"),
)


COMMAND = """python -c 'from weightlab.runs import records; print(records.page(), end="")' > docs/records.md"""


def names(part: str) -> list[str]:
    """The columns of a part of a record, in order."""
    return [column.name for column in EVALUATIONS if column.part == part]


def page() -> str:
    """`docs/records.md`."""
    lines = ["# Records", "", "Made from `lib/weightlab/runs/records.py`:", "", "```sh", COMMAND, "```", ""]
    lines += [
        "A search is a folder, `outputs/<profile>/searches/<hash>/`. Its tables are Parquet files, each with its own checksum in it:"
    ]
    lines += ["`weightlab.storage.read_table` reads one and refuses a damaged one, any other reader of Parquet reads it too.", ""]
    lines += [
        "## evaluations.parquet",
        "",
        "A row for each evaluation, repeats included; the same bytes whatever happened on the way.",
        "",
    ]
    for part, meaning in PARTS.items():
        lines += [f"**{part}**: {meaning}.", "", *_table([column for column in EVALUATIONS if column.part == part]), ""]
    lines += ["## times.parquet", "", "A row for each generation, outside every comparison and hash.", "", *_table(TIMES), ""]
    lines += [
        "## scan-<hash>.parquet",
        "",
        "Beside the searches' folders: each layer shared by itself, under each k.",
        "",
        *_table(SCANS),
    ]
    return "\n".join(lines) + "\n"


def _table(columns: Iterable[Column]) -> list[str]:
    rows = [f"| `{each.name}` | {each.dtype} | {each.unit} | {each.meaning} |" for each in columns]
    return ["| column | type | unit | meaning |", "|---|---|---|---|", *rows]
