"""Notes beside a result: what was done before, how much one image counts, and why a search ended before its budget."""

from typing import TYPE_CHECKING

from weightlab.cli import choices, output

if TYPE_CHECKING:
    from pathlib import Path

    from weightlab.runs.setting import Setting
    from weightlab.runs.specifications import Specification

FEW = 2  # images: a limit of the loss worth fewer than this is too fine


def begun(folder: "Path", specs: "list[Specification]") -> None:
    """Say which searches are complete, and which go on."""
    from weightlab.runs import status

    rows = status.survey(folder, [spec.hash for spec in specs])
    for row in rows[rows["evaluations"] > 0].itertuples():
        if row.state == "complete":
            output.note(f"the search with seed {row.seed} is complete and only read")
        else:
            output.note(f"the search with seed {row.seed} goes on after {row.evaluations} of {row.budget} evaluations")


def few_images(setting: "Setting", limit_pp: float) -> None:
    """Warn if there are so few images that one or two of them decide whether the loss is below a limit (percentage points)."""
    from weightlab.data import DATASETS
    from weightlab.data import own as own_data
    from weightlab.runs.setting import PROTOCOLS

    chooser, n = PROTOCOLS[setting.protocol], setting.images
    if setting.dataset not in DATASETS:  # which have more than enough
        there = own_data.count(setting.dataset, chooser)
        n = there if n is None else min(n, there)
    if n is not None and limit_pp > 0 and n * limit_pp < 100 * FEW:
        output.note(f"warning: one of {n} images of {chooser} is {100 / n:.2f} pp, so a loss below {limit_pp:g} pp says little")


def early_end(spec: "Specification", evaluations: int) -> None:
    """Say why a search ended after fewer `evaluations` than its budget."""
    if evaluations < spec.budget:
        generations = 1
        while (end := choices.evaluations(spec.search, spec.settings, generations)) <= spec.budget:
            generations += 1
        output.note(f"the search ended after {evaluations} of {spec.budget} evaluations; one more generation would end at {end}")
