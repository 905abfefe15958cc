"""The answer about fine-tuning a plan at the same rate (notebook 05)."""

from collections.abc import Mapping

import pandas as pd

from weightlab.analysis.labels import label

CHANGE = "{loss_pp_before:.2f} to {loss_pp_after:.2f} pp on {chooser}, {test_loss_pp_before:.2f} to {test_loss_pp_after:.2f} pp on test"


def fine_tuning(
    arms: pd.DataFrame,
    tuned: pd.DataFrame,
    published_plans: pd.DataFrame,
    correlations: pd.DataFrame,
    gains_of_guesses: pd.DataFrame,
    influence: pd.DataFrame,
    chooser: str,
    spread: float,
    swarm_runs: int,
    images: Mapping[str, int],
) -> list[str]:
    """How much fine-tuning reduces the loss, and what this depends on, a paragraph a network.

    `arms` has a row per plan and way of tuning (gain_pp on the split `chooser`, test_gain_pp); `tuned` and `published_plans` have the losses
    before and after, at the main `spread`; `gains_of_guesses` has columns inertia, weight_delta and measuring; `influence` is the table of
    `analysis.influence`; `images` by split.
    """
    tables = {"r": correlations, "gain": gains_of_guesses, "share": influence, "own": tuned, "published": published_plans}
    paragraphs = []
    for network, rows in arms.groupby("network", sort=False):
        of = {name: table[table["network"] == network] for name, table in tables.items()}
        means = rows.groupby("arm", sort=False)[["gain_pp", "test_gain_pp"]].mean()
        gained = ", ".join(f"{arm} {gain:+.2f} ({on_test:+.2f})" for arm, gain, on_test in means.itertuples())
        omega = of["share"].groupby("factor")["omega_squared"].median().clip(lower=0)
        own, printed = (of[name].mean(numeric_only=True).to_dict() | {"chooser": chooser} for name in ("own", "published"))
        guesses = [
            f"{label(name)} {_signs(of['r'][name])} ({of['gain'][name].mean():+.2f} pp)" for name in ("inertia", "weight_delta")
        ]
        sentences = [
            f"**{label(network)}**, {len(of['own'])} plans, rates unchanged, focus chosen on {chooser} (images of {' and '.join(images)}: "
            f"{' and '.join(map(str, images.values()))}).",
            f"Mean loss with spread {spread:g}: {CHANGE.format(**own)}, {own['train_loss_pp_before']:.2f} to {own['train_loss_pp_after']:.2f} pp on train.",
            f"Mean reduction of the loss on {chooser} (and on test) in pp, for the swarm the median of {swarm_runs} run{'s' * (swarm_runs > 1)}: {gained}.",
            f"Focus explains {omega['focus']:.0%} of the variance of accuracy in the median layer, spread {omega['spread']:.0%}.",
            f"Correlation with accuracy (and gain in accuracy if the focus of its lowest value were taken in a layer): {'; '.join(guesses)}; measuring the accuracy gains {of['gain']['measuring'].mean():+.2f} pp.",
        ]
        if len(of["published"]):
            as_published = (
                "{published_loss_pp:.2f} to {published_loss_after_pp:.2f} pp on the images on which they were chosen".format(
                    **printed
                )
            )
            sentences.append(f"The published plans: {CHANGE.format(**printed)}; as published, {as_published}.")
        paragraphs.append(" ".join(sentences))
    return paragraphs


def _signs(r: pd.Series) -> str:
    """In how many layers a correlation has which sign, of how many in which it is known."""
    known = r.dropna()
    return f"negative in {(known < 0).sum()} and positive in {(known > 0).sum()} of {len(known)} layers"
