"""What small files are held against: the thesis's plans, plans that searches left, and other programs; and the smallest of each."""

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from weightlab import paths
from weightlab.analysis.records import front, published, read_output
from weightlab.errors import UserError

PLANS_OF_THESIS = ("table_5_9_and_B_1_fine_tuning", "table_5_8_quantization_results", "table_5_7_target_results")
SEARCHES = "records", "plans"  # tables of plans, by the notebooks that searched
PROGRAMS = ("nncodec", "coremltools")
RELEASED = "table_5_11_released_plan"
MOST_PP = 3.0  # of a searched plan's loss on validation, to be looked at
PLAN = ["network", "format", "method", "plan", "source"]


def plans_of_thesis() -> pd.DataFrame:
    """The best plans that the thesis states, each once: columns `PLAN`; clustered exactly, in the format that is printed."""
    rows = []
    for table in PLANS_OF_THESIS:
        printed = published(table).rename(columns={"plan_from_log": "plan"}).dropna(subset="plan")
        printed = printed.assign(format=printed.get("format", "float32"))
        rows += [(row.network, row.format, "exact", json.loads(row.plan), table) for row in printed.itertuples()]
    released = published(RELEASED).sort_values("index")["k"].tolist()
    rows += [(network, "float32", "exact", released, RELEASED) for network in ("mobilenet_v2", "mobilenet_v2_fashion")]
    plans = pd.DataFrame(rows, columns=PLAN)
    return plans[~plans.assign(plan=plans["plan"].map(str)).duplicated(["network", "format", "plan"])].reset_index(drop=True)


def searched_plans(outputs_folder: str | Path, networks: Iterable[str]) -> pd.DataFrame:
    """The non-dominated plans (storage rate, loss on validation) among all that the notebooks of a profile have left, by network.

    Columns `PLAN`, source being the notebook, and `of`, the number of plans of this network that were read. Tables made from given records
    and plans that lose `MOST_PP` or more are left out.
    """
    tables = [pd.DataFrame(columns=[*PLAN, "storage_rate", "validation_loss_pp"])]
    for file in sorted(paths.resolve(outputs_folder).glob("[0-9]*/*.parquet")):
        if file.stem in SEARCHES:
            try:
                table = read_output(outputs_folder, file.parent.name, file.stem)
            except UserError:
                continue
            if {"network", "format", "plan", "storage_rate", "validation_loss_pp"} <= set(table):
                kept = table.dropna(subset=["plan", "storage_rate", "validation_loss_pp"]).reindex(columns=tables[0].columns)
                tables.append(kept.assign(method=kept["method"].fillna("exact"), source=file.parent.name))
    plans = pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)
    kept = []
    for _, rows in plans[plans["network"].isin(list(networks))].groupby("network", sort=False):
        good = rows[rows["validation_loss_pp"] < MOST_PP]
        kept.append(front(good, "validation_loss_pp", "storage_rate").assign(of=len(rows)))
    return pd.concat(kept or [plans[:0].assign(of=0)], ignore_index=True)[[*PLAN, "of"]]


def sizes_of_programs(networks: Iterable[str]) -> pd.DataFrame:
    """What other programs make of our networks, as `published/` has it: program, network, file_bytes, validation_ and test_loss_pp.

    A program whose table is not there has no rows.
    """
    names = {"bytes": "file_bytes", "loss_val_pp": "validation_loss_pp", "loss_test_pp": "test_loss_pp"}
    tables = [pd.DataFrame(columns=["program", "network", *names.values()])]
    for program in PROGRAMS:
        if (paths.published() / f"{program}_sizes.csv").exists():
            tables.append(published(f"{program}_sizes").rename(columns=names).assign(program=program)[list(tables[0])])
    table = pd.concat([each for each in tables if len(each)] or tables, ignore_index=True)
    return table[table["network"].isin(list(networks))].reset_index(drop=True)


def smallest_file(files: pd.DataFrame, within: float) -> pd.Series | None:
    """The row of fewest bytes among those that lose less than `within` pp on validation."""
    good = files[files["validation_loss_pp"] < within]
    return None if good.empty else good.loc[good["file_bytes"].astype(float).idxmin()]


def beside_others(smallest: pd.DataFrame, plans: pd.DataFrame, programs: pd.DataFrame, within: float) -> pd.DataFrame:
    """The smallest files by network and level, over draws, and how many times larger the smallest files of other ways are.

    Columns: draws, mean (and sd, missing for one draw) of file_bytes and of bits_per_weight, validation_loss_pp and test_loss_pp; and for
    each other way (plans, and every program) its bytes and factor, missing where nothing loses less than `within` pp on validation.
    """
    by, columns = ["network", "level"], ["file_bytes", "bits_per_weight", "coded_rate", "validation_loss_pp", "test_loss_pp"]
    groups = smallest.groupby(by, sort=False)
    table = groups[columns].mean().assign(file_bytes_sd=groups["file_bytes"].std(), draws=groups.size()).reset_index()
    others = {"plan": plans} | {program: programs[programs["program"] == program] for program in PROGRAMS}
    for name, rows in others.items():
        best = {network: smallest_file(rows[rows["network"] == network], within) for network in table["network"].unique()}
        sizes = {network: row["file_bytes"] for network, row in best.items() if row is not None}
        table[f"{name}_bytes"] = table["network"].map(sizes).astype(float)
        table[f"{name}_factor"] = table[f"{name}_bytes"] / table["file_bytes"]
    return table


def gains_of_training(tuned: pd.DataFrame) -> pd.DataFrame:
    """What training gains at level 2: a row for each network, price, draw and number of steps above 0.

    The rows of `tuned` of 0 steps are the same calibration without training; columns <split>_before_pp, <split>_after_pp, <split>_gain_pp
    (of the loss, positive where training helps), more_bytes and trained_numbers.
    """
    by, level_2 = ["network", "price", "draw"], tuned[tuned["level"] == 2]
    measures = ["file_bytes", "validation_loss_pp", "test_loss_pp"]
    before = level_2[level_2["steps"] == 0][[*by, *measures]]
    pairs = level_2[level_2["steps"] > 0].merge(before, on=by, suffixes=("", "_untrained"), validate="many_to_one")
    table = pairs[[*by, "steps", "trained_numbers"]].assign(more_bytes=pairs["file_bytes"] - pairs["file_bytes_untrained"])
    for split in ("validation", "test"):
        now, then = pairs[f"{split}_loss_pp"], pairs[f"{split}_loss_pp_untrained"]
        table = table.assign(**{f"{split}_before_pp": then, f"{split}_after_pp": now, f"{split}_gain_pp": then - now})
    return table
