"""What searches reached: their targets, their best plans beside the published ones, and what choosing on test flatters."""

import pandas as pd

from weightlab.analysis.records import ACCEPTABLE_LOSS_PP, best, best_rates
from weightlab.search.fitness import fitness


def tally(records: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """How much was searched in each group `by`: runs, evaluations, repeated ones, and evaluations that found an acceptable plan."""
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
    """Where the targets of each group `by` ended: medians over its runs of accuracy (fraction) and rate, and the range of the rate.

    `loss_pp` is what the median accuracy means for the network, on the split that chose.
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
    """How near to the limit of 1 pp the runs of each group `by` came, a row each.

    Columns: runs; found (of them with an acceptable plan); misled (whose fittest plan, scored against the target as it stood at the
    end, is not acceptable) and the median loss of those fittest plans; means of `rate` and of the losses of the best acceptable plans.
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
    """Best plans with the printed row of highest layer-mean rate for the same `keys`, in columns published_..., where there is one."""
    columns = ["layer_mean_rate", "storage_rate", "loss_pp"]
    highest = printed.sort_values("layer_mean_rate", ascending=False, kind="stable").drop_duplicates(keys)[[*keys, *columns]]
    return table.merge(highest.rename(columns={name: f"published_{name}" for name in columns}), how="left", on=keys)


def in_words(plan: pd.Series, chooser: str) -> str:
    """A row of the records with its rates and losses as part of a sentence."""
    if pd.isna(plan["storage_rate"]):
        return "no acceptable plan"
    other = "validation" if chooser == "test" else "test"
    return (
        f"{list(map(int, plan['plan']))} with layer-mean rate {plan['layer_mean_rate']:.2f} and **storage rate "
        f"{plan['storage_rate']:.2f}**, which loses {plan['loss_pp']:.2f} pp on {chooser} and {plan[f'{other}_loss_pp']:.2f} pp on {other}"
    )


def optimism(records: pd.DataFrame, by: list[str], rate: str) -> pd.DataFrame:
    """What choosing and reporting on the same images flatters: a row per group `by` and `chooser`, validation and test.

    Each split chooses the acceptable plan of highest `rate` of every run. Columns: runs (in which it finds one), and means over them
    of the plan's `rate`, its loss on the split that chose (`own_loss_pp`), on the other one (`other_loss_pp`) and on test
    (`test_loss_pp`); `acceptable_elsewhere` is the share of plans that the other split accepts too. Searches were led by one split
    alone, so what the other would have found is a re-reading of their records.
    """
    choices = []
    for chooser, other in (("validation", "test"), ("test", "validation")):
        chosen = best(records.assign(loss_pp=records[f"{chooser}_loss_pp"]), [*by, "run"], rate)
        choices.append(chosen.assign(chooser=chooser, other_loss_pp=chosen[f"{other}_loss_pp"]))
    found = pd.concat(choices, ignore_index=True).dropna(subset="loss_pp")
    means = {"own_loss_pp": "loss_pp", "other_loss_pp": "other_loss_pp", "test_loss_pp": "test_loss_pp", rate: rate}
    table = found.groupby([*by, "chooser"], sort=False).agg(
        runs=("run", "size"),
        **{name: (column, "mean") for name, column in means.items()},
        acceptable_elsewhere=("other_loss_pp", lambda loss: (loss < ACCEPTABLE_LOSS_PP).mean()),
    )
    return table.reset_index()


def optimism_in_words(table: pd.DataFrame) -> str:
    """Rows of `optimism`, averaged, as a sentence."""
    loss = table.groupby("chooser")[["own_loss_pp", "other_loss_pp"]].mean()
    if len(loss) < 2:
        return f"Acceptable plans: {', '.join(f'on {split} only' for split in loss.index) or 'none'}; what choosing on test flatters stays open."
    gaps, (test, validation) = loss["other_loss_pp"] - loss["own_loss_pp"], (loss.loc[split] for split in ("test", "validation"))
    return (
        f"Best plans of runs that test chooses lose {test.own_loss_pp:.2f} pp on test and {test.other_loss_pp:.2f} pp on validation; those that "
        f"validation chooses lose {validation.own_loss_pp:.2f} pp there and {validation.other_loss_pp:.2f} pp on test. Choosing and reporting "
        f"on the same images hides {gaps['test']:.2f} pp and {gaps['validation']:.2f} pp; as reported on test, the two ways differ by "
        f"{validation.other_loss_pp - test.own_loss_pp:.2f} pp."
    )


def clustering_times(times: pd.DataFrame, printed: pd.DataFrame) -> pd.DataFrame:
    """Mean milliseconds a plan by network and method, beside table 5.10 without its elite rows, which carry the time 0.

    `times` has columns network, method, clustering_s and accuracy_s. `…accuracy_share_pct` is accuracy's part of the whole;
    `…clustering_ratio` and `…whole_ratio` say how many times as long as with Mini-Batch K-Means it takes.
    """
    keys, parts = ["network", "method"], ["clustering_ms", "accuracy_ms"]
    table = 1000 * times.groupby(keys, sort=False)[["clustering_s", "accuracy_s"]].mean().set_axis(parts, axis=1)
    methods = {"K-Means": "kmeans", "Mini-Batch K-Means": "minibatch", "GMM": "gmm"}
    theirs = printed.assign(method=printed["clustering"].map(methods)).set_index(keys)
    for part, column in zip(parts, ("sharing_time", "accuracy_time"), strict=True):
        table[f"published_{part}"] = theirs[f"{column}_log_without_elites_ms"]
    for ours in ("", "published_"):
        clustering, accuracy = (table[f"{ours}{part}"] for part in parts)
        table[f"{ours}accuracy_share_pct"] = 100 * accuracy / (clustering + accuracy)
        for name, column in {"clustering": clustering, "whole": clustering + accuracy}.items():
            base = column[column.index.get_level_values("method") == "minibatch"].droplevel("method")
            table[f"{ours}{name}_ratio"] = column / base.reindex(column.index.get_level_values("network")).to_numpy()
    return table.reset_index()
