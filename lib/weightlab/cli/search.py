"""`weightlab search`: the best k for every layer."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weightlab.cli import choices, hints, options, output
from weightlab.cli.options import option
from weightlab.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from weightlab.runs.specifications import Specification

SHOWN = 5  # plans


@options.asks(lambda role: True)
def search(
    ctx: typer.Context,
    fields: None = None,
    threshold: options.Threshold = None,
    search: Annotated[
        str | None,
        option("genetic, particle_swarm, black_hole or random; nsga2 seeks a front instead of the target.", default="genetic"),
    ] = None,
    population: Annotated[int | None, option("Plans in a generation.", default="the search's own")] = None,
    iterations: Annotated[int | None, option("Generations, in place of a budget.")] = None,
    budget: Annotated[int | None, option("Evaluations, repeats included.", default="400")] = None,
    set: Annotated[list[str] | None, option("Another setting of the search, such as mutation=0.1.", metavar="NAME=VALUE")] = None,
    uniform_start: Annotated[
        bool,
        option(
            "Whether up to a quarter of the first generation are plans with one k in all layers.",
            "--uniform-start/--no-uniform-start",
            default="uniform-start",
        ),
    ] = True,
    target: Annotated[str | None, option("The accuracy (fraction) and rate to aim at.", default=options.TARGET)] = None,
    target_form: Annotated[str | None, option("fixed, or how it moves: batch or pointwise.", default="fixed")] = None,
    target_limit: Annotated[str | None, option("Only plans beyond move the target.", default="0.97,1")] = None,
    target_offset: Annotated[str | None, option("How far beyond the best it moves.", default="0.001,0.1")] = None,
    seed: options.Seed = None,
    runs: Annotated[int, option("Searches, each with the next seed.", default=True)] = 1,
    folder: options.SearchesFolder = None,
    plot: Annotated[
        Path | None, option("Write loss against rate of all plans as a PNG file, replacing an existing one.", metavar="FILE.png")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show that plot in this machine's viewer.")] = False,
    config: Annotated[
        Path | None,
        option(
            "Take options from a YAML file; those on the command line take precedence.",
            metavar="FILE",
            callback=choices.load,
            is_eager=True,
        ),
    ] = None,
    save_config: Annotated[
        Path | None, option("Write all options as such a file, replacing an existing one.", metavar="FILE")
    ] = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
) -> None:
    """Search for the best plan; a search that was stopped resumes."""
    from weightlab.runs import Runner

    specs = choices.specifications(ctx)
    if plot is not None:
        output.check(plot, True, (".png",))
    place = options.folder(folder, options.SEARCHES)
    if save_config is not None:
        output.check(save_config, True)
        choices.save(save_config, specs[0], runs, place)
    runner = Runner(place, device, threads, workers=workers, scheduler=scheduler)
    hints.begun(place, specs)
    records = runner.run_all(specs)
    hints.early_end(specs[0], len(records) // len(specs))
    best_plans = best(records)
    _print(best_plans, records, specs[0])
    _print_uniform(records, specs[0])
    print(f"kept in {', '.join(str(place / spec.hash) for spec in specs[:3])}{' ...' * (len(specs) > 3)}")
    if plot is not None or show:
        _draw(records, best_plans, plot or place / specs[0].hash / "loss_by_rate.png", show)


def best(records: "pd.DataFrame") -> "pd.DataFrame":
    """The acceptable plans of highest storage rate, each once."""
    from weightlab import analysis

    order = {"by": ["storage_rate", "loss_pp"], "ascending": [False, True], "kind": "stable"}
    plans = analysis.acceptable(records).assign(plan=lambda table: table["plan"].map(tuple))
    return plans.sort_values(**order).drop_duplicates("plan").head(SHOWN)


def _print(best_plans: "pd.DataFrame", records: "pd.DataFrame", spec: "Specification") -> None:
    import pandas as pd

    from weightlab import analysis
    from weightlab.runs.setting import PROTOCOLS, RECORDED_SPLITS

    chooser, limit = PROTOCOLS[spec.protocol], analysis.ACCEPTABLE_LOSS_PP
    hints.few_images(spec, limit)
    if not len(best_plans):
        print(
            f"none of {len(records)} plans loses less than {limit:g} pp on {chooser}; the least is {records['loss_pp'].min():.2f}"
        )
        return
    columns = {"plan": [options.spelled(plan) for plan in best_plans["plan"]]}
    columns |= {name.replace("_", " "): best_plans[name].to_numpy() for name in ("storage_rate", "layer_mean_rate")}
    columns |= {f"loss on {split} [pp]": best_plans[f"{split}_loss_pp"].to_numpy() for split in RECORDED_SPLITS}
    output.table(pd.DataFrame(columns), apart="plan")
    print(f"of {len(records)} plans, {len(analysis.acceptable(records))} lose less than {limit:g} pp on {chooser}, which chose")


def _print_uniform(records: "pd.DataFrame", spec: "Specification") -> None:
    """Print the best plan with one k in all layers, to compare with the best found, or that there is none."""
    from weightlab.runs.setting import RECORDED_SPLITS

    if spec.whole_net:  # all its plans have one k
        return
    same = records["plan"].map(lambda plan: len(set(plan)) == 1)
    plans = records[same | records["uniform"] if "uniform" in records else same]
    if not len(best_plans := best(plans)):
        what = "none was measured" if plans.empty else f"none of the {len(plans)} measured loses so little"
        print(f"best plan with one k in all layers: {what}")
        return
    row = best_plans.iloc[0]
    least, most = min(row["plan"]), max(row["plan"])
    k = f"k = {least}" if least == most else f"k from {least} to {most}, in each layer the nearest that is allowed"
    losses = ", ".join(f"{row[f'{split}_loss_pp']:.3f} pp on {split}" for split in RECORDED_SPLITS)
    print(f"best plan with one k in all layers: {k}, storage rate {row['storage_rate']:.3f}, loss {losses}")


def _draw(records: "pd.DataFrame", best_plans: "pd.DataFrame", file: Path, show: bool) -> None:
    import io

    from weightlab import figures

    buffer = io.BytesIO()
    figures.all_plans(records, "storage_rate", best_plans.head(1)).savefig(buffer, format="png", dpi=150)
    output.write(file, buffer.getvalue())
    print(f"plot: {file}")
    if show and typer.launch(str(file)):
        raise UserError(f"no image viewer could be started; the plot is {file}")
