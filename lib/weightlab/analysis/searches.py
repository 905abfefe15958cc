"""Results of searches: final targets, best plans beside the published ones, and the bias of choosing on test."""

import numpy as np
import pandas as pd

from weightlab.analysis.records import ACCEPTABLE_LOSS_PP, best, best_rates, published
from weightlab.search.fitness import fitness


def tally(records: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """How much was searched in each group `by`: runs, evaluations, repeated ones, and evaluations of an acceptable plan."""
    return (
        records.assign(acceptable=records["loss_pp"] < ACCEPTABLE_LOSS_PP)
        .groupby(by, sort=False)
        .agg(runs=("run", "nunique"), evaluations=("run", "size"), repeated=("repeated", "sum"), acceptable=("acceptable", "sum"))
    )


def rates_of_runs(records: pd.DataFrame, group: str, rates: list[str]) -> pd.DataFrame:
    """The best acceptable rate of every run, for each of `rates`: columns network, group, run, rate, rate_name.

    A run without an acceptable plan counts as rate 1.
    """
    tables = [
        best_rates(records, ["network", group], rate).rename(columns={rate: "rate"}).assign(rate_name=rate) for rate in rates
    ]
    return pd.concat(tables, ignore_index=True).rename(columns={group: "group"})


def final_targets(records: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Final targets of each group `by`: medians over its runs of accuracy (fraction) and rate, and the range of the rate.

    `loss_pp` is the loss of the network at the median accuracy, on the split that chose.
    """
    baselines = records.assign(baseline=records["accuracy"] + records["loss_pp"] / 100).groupby("network")["baseline"].first()
    ends = records.groupby([*by, "run"], sort=False)[["target_accuracy", "target_rate"]].last()
    table = ends.groupby(by, sort=False).agg(
        accuracy=("target_accuracy", "median"),
        rate=("target_rate", "median"),
        lowest_rate=("target_rate", "min"),
        highest_rate=("target_rate", "max"),
    )
    table = table.reset_index()
    return table.assign(loss_pp=100 * (table["network"].map(baselines) - table["accuracy"]))


def limits_reached(records: pd.DataFrame, by: list[str], rate: str) -> pd.DataFrame:
    """How close to the limit of 1 pp the runs of each group `by` came, a row each.

    Columns: runs; found (number of runs with an acceptable plan); misled (number of runs whose fittest plan, scored against the final
    target, is not acceptable); the median loss of these fittest plans; means of `rate` and of the losses of the best acceptable plans.
    """
    final = records.groupby("run")[["target_accuracy", "target_rate"]].transform("last")
    scored = records.assign(final_fitness=fitness(records[["accuracy", "rate"]].to_numpy(), final.to_numpy()))
    fittest = scored.loc[scored.groupby("run", sort=False)["final_fitness"].idxmax()].groupby(by, sort=False)["loss_pp"]
    chosen = best(records, [*by, "run"], rate).groupby(by, sort=False)
    columns = {
        "runs": fittest.size(),
        "found": chosen["loss_pp"].count(),
        "misled": fittest.agg(lambda loss: (loss >= ACCEPTABLE_LOSS_PP).sum()),
        "fittest_loss_pp": fittest.median(),
        rate: chosen[rate].mean(),
        "loss_pp": chosen["loss_pp"].mean(),
        "test_loss_pp": chosen["test_loss_pp"].mean(),
    }
    return pd.DataFrame(columns).reset_index()


def beside_published(table: pd.DataFrame, printed: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Best plans beside the printed row with the highest layer-mean rate for the same `keys`, if there is one, in columns published_...."""
    columns = ["layer_mean_rate", "storage_rate", "loss_pp"]
    highest = printed.sort_values("layer_mean_rate", ascending=False, kind="stable").drop_duplicates(keys)[[*keys, *columns]]
    return table.merge(highest.rename(columns={name: f"published_{name}" for name in columns}), how="left", on=keys)


def rates_of_released_plan(k: int) -> pd.DataFrame:
    """Rates of the released plan of MobileNet_v2 with 1 000 outputs in float32, and of `k` clusters in every layer.

    Both are calculated from the numbers of weights; printed_rate is the rate that table 5.11 prints for the released plan.
    """
    from weightlab import accounting  # which imports torch: notebooks that only read tables do without

    weights = published("table_B_4_mobilenet_layers")["weights_count"].to_numpy()
    plans = np.array([published("table_5_11_released_plan")["k"], np.full(len(weights), k)])
    rates = {name: getattr(accounting, name)(weights, plans, "float32") for name in ("layer_mean_rate", "storage_rate")}
    printed = published("table_5_11_mobilenet_results").query("format == 'float32'")["compression_rate_ratio"].iloc[0]
    return pd.DataFrame(rates | {"printed_rate": [printed, np.nan]}, ["released plan", f"{k} in every layer"])


def optimism(records: pd.DataFrame, by: list[str], rate: str) -> pd.DataFrame:
    """The bias of choosing and reporting on the same images: a row per group `by` and `chooser`, which is validation or test.

    From every run, the acceptable plan with the highest `rate` is chosen on each split. Columns: runs (with such a plan), and means over
    them of the plan's `rate`, its loss on the split that chose (`own_loss_pp`), on the other one (`other_loss_pp`) and on test
    (`test_loss_pp`); `acceptable_elsewhere` is the share of plans that are acceptable on the other split too. The searches themselves were
    guided by one split only, so the bias of a search guided by test could be larger.
    """
    choices = []
    for chooser, other in (("validation", "test"), ("test", "validation")):
        chosen = best(records.assign(loss_pp=records[f"{chooser}_loss_pp"]), [*by, "run"], rate)
        choices.append(chosen.assign(chooser=chooser, other_loss_pp=chosen[f"{other}_loss_pp"]))
    chosen_plans = pd.concat(choices, ignore_index=True).dropna(subset="loss_pp")
    means = {"own_loss_pp": "loss_pp", "other_loss_pp": "other_loss_pp", "test_loss_pp": "test_loss_pp", rate: rate}
    table = chosen_plans.groupby([*by, "chooser"], sort=False).agg(
        runs=("run", "size"),
        **{name: (column, "mean") for name, column in means.items()},
        acceptable_elsewhere=("other_loss_pp", lambda loss: (loss < ACCEPTABLE_LOSS_PP).mean()),
    )
    return table.reset_index()


def clustering_times(times: pd.DataFrame, printed: pd.DataFrame) -> pd.DataFrame:
    """Mean milliseconds a plan by network and method, beside table 5.10 without its elite rows, whose time is 0.

    `times` has columns network, method, clustering_s and accuracy_s. `…accuracy_share_pct` is the share of accuracy in the whole
    time; `…clustering_ratio` and `…whole_ratio` are relative to the times of Mini-Batch K-Means.
    """
    keys, parts = ["network", "method"], ["clustering_ms", "accuracy_ms"]
    table = 1000 * times.groupby(keys, sort=False)[["clustering_s", "accuracy_s"]].mean().set_axis(parts, axis=1)
    methods = {"K-Means": "kmeans", "Mini-Batch K-Means": "minibatch", "GMM": "gmm"}
    published_times = printed.assign(method=printed["clustering"].map(methods)).set_index(keys)
    for part, column in zip(parts, ("sharing_time", "accuracy_time"), strict=True):
        table[f"published_{part}"] = published_times[f"{column}_log_without_elites_ms"]
    for ours in ("", "published_"):
        clustering, accuracy = (table[f"{ours}{part}"] for part in parts)
        table[f"{ours}accuracy_share_pct"] = 100 * accuracy / (clustering + accuracy)
        for name, column in {"clustering": clustering, "whole": clustering + accuracy}.items():
            base = column[column.index.get_level_values("method") == "minibatch"].droplevel("method")
            table[f"{ours}{name}_ratio"] = column / base.reindex(column.index.get_level_values("network")).to_numpy()
    return table.reset_index()
