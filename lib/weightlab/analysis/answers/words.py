"""Parts of sentences that several answers have in common."""

from collections.abc import Iterator

import pandas as pd

from weightlab.analysis.labels import label

SURE = 0.05  # p below it is called a difference


def named(values: pd.Series, digits: int = 2, unit: str = "") -> str:
    """Numbers with the names of their index: `float32 10.65, float16 10.70`."""
    return ", ".join(f"{label(name)} {value:.{digits}f}{unit}" for name, value in values.items())


def effort(runs_each: int, budget: int, searches: int | None = None) -> str:
    """How much was searched in each group that is compared: by each of so many `searches`, if they are not the groups."""
    if searches is None:
        return f"{runs_each} runs of up to {budget} evaluations"
    return f"{runs_each} runs of each of {searches} searches, up to {budget} evaluations"


def differing(pairs: pd.DataFrame) -> Iterator[tuple[str, str, float]]:
    """The pairs of `compare_runs` whose p after Holm is below 0.05: the better group, the other, and the probability that it wins."""
    for pair in pairs[pairs["p_holm"] < SURE].itertuples():
        a_wins = pair.effect > 0.5
        better, other = (pair.a, pair.b) if a_wins else (pair.b, pair.a)
        yield label(better), label(other), pair.effect if a_wins else 1 - pair.effect


def differences(pairs: pd.DataFrame) -> str:
    """The pairs of `compare_runs` that differ significantly, with the probability that a run of the better group wins."""
    return ", ".join(f"{a} over {b} (probability {effect:.2f})" for a, b, effect in differing(pairs)) or "none"


def chosen_plan(plan: pd.Series, chooser: str) -> str:
    """A row of the records with its rates, and its losses on the split `chooser` and on the other one."""
    if pd.isna(plan["storage_rate"]):
        return "no acceptable plan"
    other = "validation" if chooser == "test" else "test"
    return (
        f"{list(map(int, plan['plan']))} with layer-mean rate {plan['layer_mean_rate']:.2f} and **storage rate "
        f"{plan['storage_rate']:.2f}**, which loses {plan['loss_pp']:.2f} pp on {chooser} and {plan[f'{other}_loss_pp']:.2f} pp on {other}"
    )


def highest(best: dict[str, pd.DataFrame], network: str, group: str, chooser: str) -> list[str]:
    """For each rate the best plan of a network, and the `group` that it comes from; `best` has a table of best plans by rate."""
    sentences = []
    for rate, table in best.items():
        top = table[table["network"] == network].sort_values(rate, na_position="first").iloc[-1]
        sentences.append(f"Highest {label(rate)}: {label(top[group])}, {chosen_plan(top, chooser)}.")
    return sentences


def optimism(table: pd.DataFrame) -> str:
    """Rows of `analysis.optimism`, averaged, as a sentence."""
    loss = table.groupby("chooser")[["own_loss_pp", "other_loss_pp"]].mean()
    if len(loss) < 2:
        return f"Acceptable plans: {', '.join(f'on {split} only' for split in loss.index) or 'none'}; the bias of choosing on test is not known."
    gaps, (test, validation) = loss["other_loss_pp"] - loss["own_loss_pp"], (loss.loc[split] for split in ("test", "validation"))
    return (
        f"The best plans of the runs, if chosen on test, lose {test.own_loss_pp:.2f} pp on test and {test.other_loss_pp:.2f} pp on validation; "
        f"if chosen on validation, they lose {validation.own_loss_pp:.2f} pp on validation and {validation.other_loss_pp:.2f} pp on test. "
        f"Choosing and reporting on the same images hides {gaps['test']:.2f} pp and {gaps['validation']:.2f} pp; the losses reported on test "
        f"differ by {validation.other_loss_pp - test.own_loss_pp:.2f} pp between the two ways."
    )
