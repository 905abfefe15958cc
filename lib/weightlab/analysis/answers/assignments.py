"""Answers about approximate multipliers: what is saved at which loss, what searches and their settings do, the source's claims (notebook 31)."""

from collections.abc import Mapping

import pandas as pd

from weightlab.analysis.labels import WAYS, label


def savings(chosen: pd.DataFrame, within: float) -> list[str]:
    """What each way of choosing saves and loses, a paragraph a network and coding.

    `chosen` has network, coding, kind, named, saved_pct, evaluations, chosen_on, and losses, standard errors and numbers of images by split.
    """
    paragraphs = []
    for (network, coding), rows in chosen.groupby(["network", "coding"], sort=False):
        first = rows.iloc[0]
        sentences = [
            f"**{label(network)}, {coding} codes**: least energy at a loss of at most {within:g} pp, chosen on {first['chosen_on']} validation images and "
            f"reported on {first['test_images']} test images, ± standard error of the accuracy."
        ]
        for row in rows.itertuples():
            sentences.append(
                f"\n- {WAYS[row.kind].capitalize()} ({row.named}; {row.evaluations} evaluations): **{row.saved_pct:.1f} %** of the multiplication energy saved, "
                f"loss {row.validation_loss_pp:.2f} ± {row.validation_se_pp:.2f} pp on validation, {row.test_loss_pp:.2f} ± {row.test_se_pp:.2f} pp on "
                f"test (McNemar p = {row.mcnemar_p:.2g} against float)."
            )
        missing = [name for kind, name in WAYS.items() if kind not in set(rows["kind"])]
        sentences += [f"\n- No assignment within the limit: {', '.join(missing)}."] if missing else []
        paragraphs.append(sentences[0] + "\n" + "".join(sentences[1:]))
    return paragraphs


def against_truth(quality: pd.DataFrame, gaps: pd.DataFrame) -> list[str]:
    """How near searches come to the true front, and whether they beat random search at equal evaluations, a paragraph a network.

    `quality` is `quality_of_runs`, `gaps` is `gap_to_random`.
    """
    paragraphs = []
    for network, rows in quality.groupby("network", sort=False):
        lines = [
            f"**{label(network)}**, hypervolume of all evaluated assignments / that of the true front, mean ± sd over seeds:\n"
        ]
        for run, part in rows.groupby("run", sort=False):
            each = ", ".join(
                f"{_arm(row.search, row.order)} {row.hypervolume_ratio:.3f} ± {row.hypervolume_ratio_sd:.3f}"
                for row in part.itertuples()
            )
            lines.append(f"\n- {run} ({part['evaluations'].iloc[0]} evaluations, n = {part['n'].min()}): {each}.")
        own = gaps[gaps["network"] == network]
        lines.append(
            "\n\nRuns with a higher mean than random search at equal evaluations (Mann-Whitney; runs of equal budget are held against the same random runs):"
        )
        for (search, order), part in own.groupby(["search", "order"], sort=False):
            better, sure = part["gap"] > 0, part["p"] < 0.05
            worse = ", ".join(part.loc[~better, "run"])
            lines.append(
                f" {_arm(search, order)} {better.sum()} of {len(part)}, {(better & sure).sum()} with p < 0.05{f' (not {worse})' if worse else ''};"
            )
        paragraphs.append("".join(lines).removesuffix(";") + ".")
    return paragraphs


def influences(shares: pd.DataFrame, runs_each: int) -> str:
    """What settings of the search explain of the variance between runs; `shares` has measure, order, setting and share."""
    if shares.empty:
        return "No setting has several values, or the runs do not differ: there is no variance to explain."
    sentences = [
        f"Share of the variance between runs that a setting explains by itself (omega squared, {runs_each} seeds a combination):"
    ]
    for (measure, order), rows in shares.groupby(["measure", "order"], sort=False):
        each = ", ".join(
            f"{row.setting.replace('_', ' ')} {100 * row.share:.0f} %"
            for row in rows.sort_values("share", ascending=False).itertuples()
        )
        sentences.append(f"{label(measure)} ({order}): {each}.")
    return " ".join(sentences)


def in_batches(table: pd.DataFrame) -> str:
    """What an evaluation on so few images, as the source's, can tell; `table` is that of `Assignments.in_batches`, with network, arm and se_pp."""
    images = int(table["images"].iloc[0])
    sentences = [
        f"An accuracy on {images} images has a standard error of {table['se_pp'].min():.1f} to {table['se_pp'].max():.1f} pp."
    ]
    for (network, arm), rows in table.groupby(["network", "arm"], sort=False):
        each = ", ".join(f"{row.loss_pp:.2f} pp with ranges of {_ranges(row.ranges)}" for row in rows.itertuples())
        sentences.append(f"{label(network)}, {WAYS[arm]}: loss {each}.")
    return " ".join(sentences)


def claims_of_source(parts: pd.DataFrame, statements: Mapping[tuple[int, str], str]) -> list[str]:
    """A line for each part of a claim: its verdict, the statistic and what was asked; `parts` is what `replicate` returns."""
    lines = []
    for row in parts.itertuples():
        span = f" ({row.lower:.3g} to {row.upper:.3g})" if pd.notna(row.lower) else ""
        value = (
            f"{row.value:.4g}{span}, asked {row.relation} {row.threshold:g}, n = {row.n} {row.n_of}"
            if pd.notna(row.value)
            else "no value"
        )
        reason = f"; {row.reason}" if row.reason else ""
        lines.append(f"- **{row.verdict}**, {row.claim}{row.part}: {statements[row.claim, row.part]}: {value}{reason}.")
    return lines


def _arm(search: str, order: str) -> str:
    return f"{label(search)}{f' {order}' if order else ''}"


def _ranges(ranges: str) -> str:
    return "each batch" if ranges == "batch" else "calibration"
