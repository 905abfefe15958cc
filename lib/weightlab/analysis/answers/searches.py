"""Answers about searches: which search, which target, which number format, which clustering method (notebooks 02, 03, 04 and 06)."""

import pandas as pd

from weightlab.analysis.answers.words import chosen_plan, differences, differing, highest, named, optimism
from weightlab.analysis.labels import label


def optimizers(
    compared: dict[str, tuple[pd.DataFrame, pd.DataFrame]],
    fittest: pd.DataFrame,
    published_medians: pd.Series,
    published_plans: pd.DataFrame,
    effort: str,
    chooser: str,
) -> list[str]:
    """Which search reached the highest fitness, a paragraph a network.

    `compared` has the two tables of `compare_runs` by network; `fittest` the fittest acceptable plan by network (NaN if there is none);
    `published_medians` of fitness by network and search; `published_plans` by ascending fitness; `effort` says how much was searched.
    """
    paragraphs = []
    for network, (groups, pairs) in compared.items():
        medians, theirs = (each.sort_values(ascending=False) for each in (groups["median"], published_medians[network]))
        differing_pairs = ", ".join(f"{better} over {other}" for better, other, _ in differing(pairs))
        sentences = [
            f"**{label(network)}**, {effort}. Median best fitness: {named(medians, 1)}; published: {named(theirs, 1)}.",
            f"Beyond chance (Holm p < 0.05): {differing_pairs or 'no difference'}.",
        ]
        own = fittest.loc[network]
        if pd.isna(own["fitness"]):
            sentences.append("No run found an acceptable plan.")
        else:
            sentences.append(
                f"The fittest acceptable plan, {own['plan'].tolist()} ({label(own['search'])}), has layer-mean rate "
                f"{own['layer_mean_rate']:.2f} and **storage rate {own['storage_rate']:.2f}** and loses {own['loss_pp']:.2f} pp on {chooser}, "
                f"{own['test_loss_pp']:.2f} pp on test."
            )
        best = published_plans[published_plans["network"] == network].iloc[-1]
        sentences.append(
            f"Published: layer-mean rate {best['compression_rate_ratio']:.2f} with {best['accuracy_loss_recomputed_pp']:.2f} pp lost "
            f"on the images that chose it ({label(best['search'])})."
        )
        paragraphs.append(" ".join(sentences))
    return paragraphs


def targets(
    groups: pd.DataFrame,
    pairs: pd.DataFrame,
    forms: pd.DataFrame,
    reached: pd.DataFrame,
    best: pd.DataFrame,
    published: pd.DataFrame,
    rate: str,
    chooser: str,
    effort: str,
) -> list[str]:
    """Whether a moving target finds better plans, a paragraph a network.

    `groups` and `pairs` (of `compare_networks`) compare the kinds of target, `forms` has the pairs of the two forms of one kind; `reached`
    is the table of `limits_reached`, its kinds in reading order; `best` has the best acceptable plan by network.
    """
    paragraphs = []
    for network, rows in groups.groupby("network", sort=False):
        own, own_forms, near = (table[table["network"] == network] for table in (pairs, forms, reached))
        medians = ", ".join(f"{label(row.group)} {row.median:.2f} (sd {row.sd:.2f})" for row in rows.itertuples())
        losses = near[near["target_type"].isin(rows["group"])].set_index("target_type")["loss_pp"]
        sentences = [
            f"**{label(network)}**, {effort}. "
            f"Best acceptable {label(rate)} of a run, median: {medians}; beyond chance: {differences(own)}.",
            f"Their mean loss on {chooser}: {named(losses, unit=' pp')}.",
        ]
        sentences += [
            f"A run with {label(row.a)} target beats one with {label(row.b)} with probability {row.effect:.2f} "
            f"(p = {row.p_holm:.2g}; equal spread p = {row.p_spread:.2g})."
            for row in pd.concat([own.query("a == 'extreme' and b == 'preset'"), own_forms]).itertuples()
        ]
        top, theirs = best.loc[network], published[published["network"] == network].sort_values("layer_mean_rate").iloc[-1]
        sentences += [
            f"The fittest plan lost 1 pp or more in {near['misled'].sum()} of {near['runs'].sum()} runs.",
            f"Best plan ({label(top['target_type'])}): {chosen_plan(top, chooser)}. Published: layer-mean rate "
            f"{theirs['layer_mean_rate']:.2f}, {theirs['loss_pp']:.2f} pp lost on the images that chose it ({theirs['target_type']}).",
        ]
        paragraphs.append(" ".join(sentences))
    return paragraphs


def formats(
    groups: pd.DataFrame,
    pairs: pd.DataFrame,
    emptied: pd.Series,
    threshold: float | None,
    best: dict[str, pd.DataFrame],
    published: pd.DataFrame,
    biases: pd.DataFrame,
    rate: str,
    chooser: str,
    effort: str,
) -> list[str]:
    """Which number format reaches the highest rates, a paragraph a network.

    `groups` and `pairs` are those of `compare_networks`; `emptied` has the layers without an allowed k by network and format; `best` a table
    of best plans by rate; `biases` is the table of `optimism`.
    """
    paragraphs = []
    for network, rows in groups.groupby("network", sort=False):
        sentences = [
            f"**{label(network)}**, {effort}. Best acceptable {label(rate)} of a run, median: {named(rows.set_index('group')['median'])}; "
            f"beyond chance: {differences(pairs[pairs['network'] == network])}."
        ]
        for (own, format), layers in emptied.items():
            if own == network:
                sentences.append(
                    f"{label(format)} was not searched: no k of {', '.join(layers)} reaches {threshold:.0%} when shared alone."
                )
        sentences += highest(best, network, "format", chooser)
        theirs = published[published["network"] == network].sort_values("layer_mean_rate").drop_duplicates("format", keep="last")
        printed = ", ".join(
            f"{label(row.format)} {row.layer_mean_rate:.2f} ({row.storage_rate:.2f})" for row in theirs.itertuples()
        )
        sentences.append(f"Published bests by layer-mean rate (and what they store): {printed}.")
        sentences.append(optimism(biases[biases["network"] == network]))
        paragraphs.append(" ".join(sentences))
    return paragraphs


def clusterings(
    groups: pd.DataFrame,
    pairs: pd.DataFrame,
    costs: pd.DataFrame,
    excess: pd.DataFrame,
    best: dict[str, pd.DataFrame],
    biases: pd.DataFrame,
    rate: str,
    chooser: str,
    effort: str,
    plans: int,
    images: int,
) -> list[str]:
    """What the clustering methods cost and reach, a paragraph a network.

    `costs` is the table of `clustering_times`, `excess` has a row per network, method, layer and k (excess_pct); times are
    means of `plans` plans with the accuracy on `images` images; the others are as in `formats`. Of `biases` the rows of K-Means are used,
    which can be compared with the thesis, or all rows without it.
    """
    paragraphs = []
    for network, rows in groups.groupby("network", sort=False):
        cost, own = costs[costs["network"] == network].set_index("method"), biases[biases["network"] == network]
        median_excess = excess[excess["network"] == network].groupby("method")["excess_pct"].median()
        sentences = [f"**{label(network)}**."]
        sentences += [
            f"{label(method)}: {row['clustering_ms']:.0f} ms to cluster a plan, {row['accuracy_share_pct']:.0f} % of the time goes into "
            f"its accuracy; {median_excess[method]:.2g} % above the least inertia."
            for method, row in cost.iterrows()
        ]
        sentences.append(
            f"(Means of {plans} plans, accuracy on {images} images, one thread; excess of inertia: median over layers and k.)"
        )
        if {"kmeans", "minibatch"} <= set(cost.index):
            row = cost.loc["kmeans"]
            sentences.append(
                f"K-Means takes {row['clustering_ratio']:.1f} times as long to cluster as Mini-Batch (published {row['published_clustering_ratio']:.1f}), "
                f"the whole evaluation {row['whole_ratio']:.2f} times as long (published {row['published_whole_ratio']:.2f})."
            )
        sentences.append(
            f"{effort}: best acceptable {label(rate)} of a run, median: {named(rows.set_index('group')['median'])}; "
            f"beyond chance: {differences(pairs[pairs['network'] == network])}."
        )
        sentences += highest(best, network, "method", chooser)
        like_the_thesis = own["method"] == "kmeans" if "kmeans" in cost.index else slice(None)
        sentences.append(optimism(own[like_the_thesis]))
        paragraphs.append(" ".join(sentences))
    return paragraphs
