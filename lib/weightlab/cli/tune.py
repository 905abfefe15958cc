"""`weightlab tune`: make a plan more accurate at the same rate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weightlab.cli import options, output, plans
from weightlab.cli.options import option
from weightlab.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


@options.asks(options.planned)
def tune(
    ctx: typer.Context,
    fields: None = None,
    plan: options.Plan = None,
    source: options.Source = None,
    within: options.Within = 1.0,
    spread: Annotated[float | None, option("Spread of the lifted space (equation 3.1).", default="2")] = None,
    focuses: Annotated[str | None, option("Focus values to try, 0 among them.", metavar="LIST", default="0,0.2,...,9.8")] = None,
    folder: Annotated[Path | None, option("Folder that keeps the table of all trials.", default=options.TUNING)] = None,
    save: Annotated[Path | None, option("Write the tuned plan as a file that compress takes.", metavar="FILE.json")] = None,
    force: options.Force = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Make a plan more accurate at the same rate (section 5.5)."""
    from dataclasses import replace

    from weightlab import runs, tuning
    from weightlab.runs.setting import PROTOCOLS

    if save is not None:
        output.check(save, force, (".json",))
    grid: dict[str, Any] = {"spread": spread} if spread is not None else {}
    grid |= {"focuses": _numbers(focuses)} if focuses is not None else {}
    choice = plans.choice(ctx.params)
    if choice.focuses:
        raise UserError(f"{plan} is already tuned; give its plan {choice.plan} as numbers to tune it differently")
    evaluator = runs.evaluator(choice.setting, device=device, threads=threads)
    choice = choice.of(evaluator.variants.names)
    listed = [choice.plan] if isinstance(choice.plan, int) else choice.plan
    place, chooser = options.folder(folder, options.TUNING), PROTOCOLS[choice.setting.protocol]
    row = tuning.tune(evaluator, listed, place, chooser=chooser, **grid).iloc[0]
    _print(row, evaluator.variants.names, listed, chooser)
    if save is not None:
        tuned = replace(choice, spread=float(row["spread"]), focuses=tuple(row["focuses"].tolist()))
        output.write(save, plans.filed(tuned))
        print(f"plan file: {save}")


def _print(row: "pd.Series", names: list[str], plan: list[int], chooser: str) -> None:
    import pandas as pd

    from weightlab.runs.setting import RECORDED_SPLITS

    output.table(pd.DataFrame({"layer": names, "k": plan, "focus": row["focuses"]}))
    losses = {when: [row[f"{split}_loss_pp_{when}"] for split in RECORDED_SPLITS] for when in ("before", "after")}
    output.table(pd.DataFrame({"split": RECORDED_SPLITS} | {f"loss {when} [pp]": values for when, values in losses.items()}))
    print(f"storage rate {row['storage_rate']:.3f}, as before; {chooser} chose, spread {row['spread']:g}")


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"focuses must be numbers separated by commas, such as 0,0.5,1,2,4, got {text!r}") from None
