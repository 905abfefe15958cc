"""The claims of the thesis and of other sources, and their verdicts. Statistic, threshold and smallest n of each were written down before any run."""

import operator
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import yaml

from weightlab import paths
from weightlab.analysis import assignment_statistics, curve_statistics, search_statistics, table_statistics
from weightlab.analysis.findings import Finding, pick
from weightlab.analysis.records import read_output, read_table
from weightlab.analysis.uncertainty import check_uncertainty, interval
from weightlab.errors import UserError, choose

RELATIONS = MappingProxyType({"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge})
STATISTICS = MappingProxyType({
    function.__name__: function
    for module in (search_statistics, curve_statistics, table_statistics, assignment_statistics)
    for function in vars(module).values()
    if callable(function) and getattr(function, "__module__", None) == module.__name__ and not function.__name__.startswith("_")
})  # fmt: skip
STAND_INS = MappingProxyType({"mobilenet_v2": "mobilenet_v2_fashion"})  # shown where the network itself was not measured
REPLICATED, NOT_REPLICATED, UNDECIDED = "replicated", "not replicated", "undecided"
RATES = ("layer_mean_rate", "storage_rate")
COLUMNS = ("claim", "part", "section", "statement", "tables", "where", "statistic", "arguments", "relation", "threshold",
           "uncertainty", "least_n", "n_of", "published")  # fmt: skip


def read_claims(file: str | Path | None = None) -> pd.DataFrame:
    """`published/claims.csv`, or another file of its form: a row per part of a claim, with what decides it.

    `tables` are names notebook/table, `where` (a YAML mapping) picks their rows, `statistic` with its `arguments` computes one number
    from them; the part is replicated if number `relation` threshold holds, with at least `least_n` of what `n_of` names. Where `uncertainty`
    (a YAML mapping, see `uncertainty.interval`) says what to resample, it must hold at both ends of the interval.
    Raises `UserError` for a file of another form, an unknown statistic, relation or uncertainty.
    """
    table = read_table(file or paths.published() / "claims.csv")
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise UserError(f"claims need the columns {', '.join(COLUMNS)}; {', '.join(missing)} missing")
    for row in table.itertuples():
        choose(f"statistic of claim {row.claim}{row.part}", row.statistic, STATISTICS)
        choose(f"relation of claim {row.claim}{row.part}", row.relation, RELATIONS)
        check_uncertainty(f"claim {row.claim}{row.part}", None if pd.isna(row.uncertainty) else yaml.safe_load(row.uncertainty))
    for column in ("threshold", "least_n"):
        if not np.isfinite(pd.to_numeric(table[column], errors="coerce")).all():
            raise UserError(f"every claim needs a number in column {column}")
    texts = {column: table[column].fillna("").astype(str) for column in ("part", "tables", "where", "arguments", "uncertainty")}
    return table.assign(**texts)


def replicate(claims: pd.DataFrame, tables: str | Path | Mapping[str, pd.DataFrame], protocol: str = "held_out") -> pd.DataFrame:
    """Test each part of each claim on the `tables` of notebooks, by name notebook/table, or saved below the folder of a profile's outputs.

    Of a table with a column protocol, only the rows of `protocol` are used. A part about the layer-mean rate, the thesis's rate, gets a
    second row about the storage rate. Columns: claim, part, rate_name ("" if it is not about a rate), value, lower and upper
    (of its interval, if it has one), relation, threshold, n, least_n, n_of, published, verdict and reason.
    """

    @cache
    def read(name: str) -> pd.DataFrame:
        notebook, table = name.split("/")
        if isinstance(tables, Mapping):
            missing = name not in tables
        else:
            missing = not (paths.resolve(tables) / notebook / f"{table}.parquet").exists()
        if missing:
            raise UserError(f"{name} is missing")
        rows = tables[name] if isinstance(tables, Mapping) else read_output(tables, notebook, table)
        return pick(rows, {"protocol": protocol}) if "protocol" in rows else rows

    rows = []
    for row in claims.to_dict("records"):
        for rate in RATES if RATES[0] in row["where"] + row["arguments"] else [""]:
            part = row | {column: row[column].replace(RATES[0], rate) for column in ("where", "arguments")}
            judged = _judge(part, read)
            kept = {column: row[column] for column in ("relation", "threshold", "least_n", "n_of", "published")}
            rows.append({"claim": row["claim"], "part": row["part"], "rate_name": rate} | judged | kept)
    return pd.DataFrame(rows)


def verdicts(parts: pd.DataFrame, rate: str = RATES[0]) -> pd.Series:
    """One verdict a claim: not replicated if a part is not, else undecided if a part is, else replicated.

    Of the parts that were tested with two rates, the rows of `rate` are used.
    """
    rows = parts[parts["rate_name"].isin(["", rate])]
    order = [NOT_REPLICATED, UNDECIDED, REPLICATED]
    return rows.groupby("claim")["verdict"].agg(lambda verdicts: min(verdicts, key=order.index))


def _judge(row: dict, read: Callable[[str], pd.DataFrame]) -> dict:
    """value, lower, upper, n, verdict and reason of one part."""
    where, arguments, uncertainty = (yaml.safe_load(row[column]) or {} for column in ("where", "arguments", "uncertainty"))
    statistic = STATISTICS[row["statistic"]]
    try:
        tables = [read(name) for name in row["tables"].split()]
        network, stand_in = where.get("network", ""), ""
        if network in STAND_INS and not any((table["network"] == network).any() for table in tables):
            where, stand_in = (
                where | {"network": STAND_INS[network]},
                f"measured on the stand-in {STAND_INS[network]}, not on {network}",
            )
        tables = [pick(table, where) for table in tables]
        finding = statistic(*tables, **arguments)
    except UserError as error:
        return _judged(Finding(np.nan, 0), UNDECIDED, str(error))
    if np.isnan(finding.value):
        return _judged(finding, UNDECIDED, finding.note or "the tables hold no value")
    if stand_in:
        return _judged(finding, UNDECIDED, f"{stand_in}; {finding.note}")
    if finding.n < row["least_n"]:
        return _judged(finding, UNDECIDED, f"n = {finding.n} {row['n_of']}, {row['least_n']} asked for; {finding.note}")
    ends = interval(statistic, tables, arguments, uncertainty) if uncertainty else (finding.value, finding.value)
    holds = {RELATIONS[row["relation"]](end, row["threshold"]) for end in ends}
    span = f"95 % interval {ends[0]:.3g} to {ends[1]:.3g}" if uncertainty else ""
    if np.isnan(ends).any():
        return _judged(
            finding, UNDECIDED, f"no interval: too few to resample, or too few resamples that have a value; {finding.note}"
        )
    reason = "; ".join(filter(None, [f"the {span} holds {row['threshold']:g}" if len(holds) > 1 else span, finding.note]))
    verdict = UNDECIDED if len(holds) > 1 else REPLICATED if holds == {True} else NOT_REPLICATED
    return _judged(finding, verdict, reason, ends if uncertainty else (np.nan, np.nan))


def _judged(finding: Finding, verdict: str, reason: str, ends: tuple[float, float] = (np.nan, np.nan)) -> dict:
    return {"value": finding.value, "lower": ends[0], "upper": ends[1], "n": finding.n, "verdict": verdict, "reason": reason}
