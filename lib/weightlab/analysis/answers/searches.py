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
        medians, printed_medians = (each.sort_values(ascending=False) for each in (groups["median"], published_medians[network]))
        differing_pairs = ", ".join(f"{better} over {other}" for better, other, _ in differing(pairs))
        sentences = [
            f"**{label(network)}**, {effort}. Median best fitness: {named(medians, 1)}; published: {named(printed_medians, 1)}.",
            f"Significant differences (Holm p < 0.05): {differing_pairs or 'none'}.",
        ]
        plan = fittest.loc[network]
        if pd.isna(plan["fitness"]):
            sentences.append("No run found an acceptable plan.")
        else:
            sentences.append(
                f"The fittest acceptable plan, {plan['plan'].tolist()} ({label(plan['search'])}), has layer-mean rate "
                f"{plan['layer_mean_rate']:.2f} and **storage rate {plan['storage_rate']:.2f}** and loses {plan['loss_pp']:.2f} pp on {chooser}, "
                f"{plan['test_loss_pp']:.2f} pp on test."
            )
        best = published_plans[published_plans["network"] == network].iloc[-1]
        sentences.append(
            f"Published: layer-mean rate {best['compression_rate_ratio']:.2f} with {best['accuracy_loss_recomputed_pp']:.2f} pp lost "
            f"on the images on which it was chosen ({label(best['search'])})."
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
        own_pairs, own_forms, own_reached = (table[table["network"] == network] for table in (pairs, forms, reached))
        medians = ", ".join(f"{label(row.group)} {row.median:.2f} (sd {row.sd:.2f})" for row in rows.itertuples())
        losses = own_reached[own_reached["target_type"].isin(rows["group"])].set_index("target_type")["loss_pp"]
        sentences = [
            f"**{label(network)}**, {effort}. "
            f"Best acceptable {label(rate)} of a run, median: {medians}; significant differences: {differences(own_pairs)}.",
            f"Mean loss of these plans on {chooser}: {named(losses, unit=' pp')}.",
        ]
        sentences += [
            f"A run with the {label(row.a)} target beats one with the {label(row.b)} target with probability {row.effect:.2f} "
            f"(p = {row.p_holm:.2g}; equal spread p = {row.p_spread:.2g})."
            for row in pd.concat([own_pairs.query("a == 'extreme' and b == 'preset'"), own_forms]).itertuples()
        ]
        top, printed = best.loc[network], published[published["network"] == network].sort_values("layer_mean_rate").iloc[-1]
        sentences += [
            f"The fittest plan lost 1 pp or more in {own_reached['misled'].sum()} of {own_reached['runs'].sum()} runs.",
            f"Best plan ({label(top['target_type'])}): {chosen_plan(top, chooser)}. Published: layer-mean rate "
            f"{printed['layer_mean_rate']:.2f}, {printed['loss_pp']:.2f} pp lost on the images on which it was chosen ({printed['target_type']}).",
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
            f"significant differences: {differences(pairs[pairs['network'] == network])}."
        ]
        for (searched, format), layers in emptied.items():
            if searched == network:
                sentences.append(
                    f"{label(format)} was not searched: no k of {', '.join(layers)} reaches {threshold:.0%} when shared alone."
                )
        sentences += highest(best, network, "format", chooser)
        highest_printed = (
            published[published["network"] == network].sort_values("layer_mean_rate").drop_duplicates("format", keep="last")
        )
        printed = ", ".join(
            f"{label(row.format)} {row.layer_mean_rate:.2f} ({row.storage_rate:.2f})" for row in highest_printed.itertuples()
        )
        sentences.append(f"Highest published layer-mean rates (and storage rates of these plans): {printed}.")
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
        cost, own_biases = costs[costs["network"] == network].set_index("method"), biases[biases["network"] == network]
        median_excess = excess[excess["network"] == network].groupby("method")["excess_pct"].median()
        sentences = [f"**{label(network)}**."]
        sentences += [
            f"{label(method)}: {row['clustering_ms']:.0f} ms to cluster a plan; measuring accuracy takes {row['accuracy_share_pct']:.0f} % of the "
            f"whole time; inertia {median_excess[method]:.2g} % above the lowest possible."
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
            f"significant differences: {differences(pairs[pairs['network'] == network])}."
        )
        sentences += highest(best, network, "method", chooser)
        like_the_thesis = own_biases["method"] == "kmeans" if "kmeans" in cost.index else slice(None)
        sentences.append(optimism(own_biases[like_the_thesis]))
        paragraphs.append(" ".join(sentences))
    return paragraphs
