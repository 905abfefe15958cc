"""Answers about the smallest file from one price of a bit, and about what training with classes adds (notebooks 21 and 22)."""

from collections.abc import Mapping

import pandas as pd

from weightlab.analysis.labels import LEVELS, label
from weightlab.analysis.small_files import PROGRAMS, beside_others, smallest_file


def smallest_files(
    smallest: pd.DataFrame, plans: pd.DataFrame, programs: pd.DataFrame, within: float, images: Mapping[str, int]
) -> list[str]:
    """How small a file gets by one number and how much larger those of other ways are, a paragraph a network.

    `smallest` has a row per network, level and draw; `plans` (source, of) and `programs` (program) are files of other ways, all with
    file_bytes and losses; `images` by split.
    """
    compared, paragraphs = beside_others(smallest, plans, programs, within), []
    for network, rows in compared.groupby("network", sort=False):
        sentences = [
            f"**{label(network)}**, smallest file that loses less than {within:g} pp on {images['validation']} validation images, whose classes "
            f"choose the price; {images['test']} test images only report."
        ]
        for row in rows.itertuples():
            spread = f"± {row.file_bytes_sd:.0f} bytes ({row.draws} draws)" if row.draws > 1 else "bytes (1 draw, so no spread)"
            sentences.append(
                f"{LEVELS[row.level].capitalize()}: **{row.file_bytes:.0f}** {spread}, {row.bits_per_weight:.2f} bits a weight, loss "
                f"{row.validation_loss_pp:.2f} pp on validation and {row.test_loss_pp:.2f} pp on test."
            )
        own = plans[plans["network"] == network]
        searched = int(own["of"].max()) if own["of"].notna().any() else 0
        counted = f"{own['of'].isna().sum()} plans of the thesis and the front of {searched} searched plans"
        sentences.append(_other(f"Of {counted} the smallest such file", smallest_file(own, within), rows, "plan"))
        for program in PROGRAMS:
            made = programs[(programs["network"] == network) & (programs["program"] == program)]
            if made.empty:
                sentences.append(f"Files of {program} were not measured.")
            else:
                counted = f"Of {len(made)} files of {program} the smallest such file"
                sentences.append(_other(counted, smallest_file(made, within), rows, program))
        paragraphs.append(" ".join(sentences))
    return paragraphs


def _other(counted: str, best: pd.Series | None, rows: pd.DataFrame, way: str) -> str:
    """The smallest file of another way, and how many times larger it is than that of each level."""
    if best is None:
        return f"{counted}: none."
    factors = ", ".join(
        f"{factor:.2f} times level {level}" for level, factor in zip(rows["level"], rows[f"{way}_factor"], strict=True)
    )
    plan = f", plan {list(map(int, best['plan']))} in {label(best['format'])}" if way == "plan" and len(best["plan"]) < 10 else ""
    return (
        f"{counted}: {best['file_bytes']:.0f} bytes ({factors}), loss {best['validation_loss_pp']:.2f} pp on validation and "
        f"{best['test_loss_pp']:.2f} pp on test{plan}."
    )


def training_gains(
    gains: pd.DataFrame, level_1: pd.DataFrame, weights: Mapping[str, int], steps: int, images: Mapping[str, int]
) -> list[str]:
    """What training centroids, biases and batch norm with classes adds, a paragraph a network.

    `gains` is the table of `analysis.gains_of_training`, `level_1` has the files of level 1 at the same prices and draws; `weights` by
    network; `steps` is the number of steps that level 2 takes; `images` by split.
    """
    paragraphs = []
    for network, rows in gains.groupby("network", sort=False):
        main, unlabelled = rows[rows["steps"] == steps], level_1[level_1["network"] == network]
        numbers = f"{main['trained_numbers'].min()} to {main['trained_numbers'].max()} numbers"
        sentences = [
            f"**{label(network)}**: {steps} steps train {numbers} (at the prices tried) with the classes of training images, where the network has {weights[network]} "
            f"weights. Loss on {images['validation']} validation and {images['test']} test images:"
        ]
        for price, each in main.groupby("price"):
            one = unlabelled[unlabelled["price"] == price]
            sentences.append(
                f"\n- Price {price:g}: {_change(each, 'test')} on test and {_change(each, 'validation')} on validation "
                f"({len(each)} draw{'s' * (len(each) > 1)}); the file changes by {each['more_bytes'].mean():+.0f} bytes. Level 1 at this price: "
                f"{one['test_loss_pp'].mean():.2f} pp on test, {one['file_bytes'].mean():.0f} bytes."
            )
        by_steps = ", ".join(f"{number} steps {_mean(each['test_gain_pp'])}" for number, each in rows.groupby("steps"))
        better, worse = (main["test_gain_pp"] > 0).sum(), (main["test_gain_pp"] < 0).sum()
        sentences.append(
            f"\n\nMean gain on test over prices and draws (n = {len(main)}), ± their standard deviation: {by_steps}. With {steps} steps the loss "
            f"on test falls in {better} and rises in {worse} of {len(main)} pairs of networks."
        )
        paragraphs.append(sentences[0] + "\n" + "".join(sentences[1:]))
    return paragraphs


def _change(rows: pd.DataFrame, split: str) -> str:
    before, after = rows[f"{split}_before_pp"].mean(), rows[f"{split}_after_pp"].mean()
    return f"{before:.2f} to {after:.2f} pp, gain {_mean(rows[f'{split}_gain_pp'])}"


def _mean(values: pd.Series) -> str:
    """With the standard deviation, where there is more than one value."""
    spread = f" ± {values.std():.2f}" if len(values) > 1 else ""
    return f"{values.mean():+.2f}{spread} pp"
