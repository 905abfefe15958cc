"""`weightlab run`, `results`, `status` and `report`: run notebooks, list their files, show their searches, make a site of all."""

import os
from pathlib import Path
from typing import Annotated

import typer

from weightlab.cli import options
from weightlab.cli.options import option
from weightlab.errors import UserError, choose, plain


def run(
    notebook: Annotated[str, typer.Argument(help="Its name, such as 02_optimizers.", show_default=False)],
    profile: Annotated[str, option("Folder of params/ to take: smoke, quick or full.", default=True)] = "quick",
    set: Annotated[
        list[str] | None,
        option(
            "A parameter, its value as in YAML 1.2; relative paths mean the working directory.",
            "-p",
            "--set",
            metavar="NAME=VALUE",
        ),
    ] = None,
    workers: options.Workers = None,
    scheduler: options.Scheduler = None,
) -> None:
    """Run a notebook headless with the parameters of a profile.

    Results go to outputs/<profile>/<notebook>/, or to a folder that -p output_folder=FOLDER names.

    11_anova_quantization and 12_anova_clustering also take points of your own: -p records=FILE, a CSV or parquet file with columns group
    (text), rate and loss (percentage points) and, if known, network and run, such as docs/points.csv. Their results get a folder of their
    own below outputs/<profile>/given/. More: docs/points.md.
    """
    from weightlab import experiments, notebooks

    choose("profile", profile, experiments.profiles())
    print(f"{notebook}: {notebooks.run(notebook, profile, experiments.overrides(notebook, set or [], workers, scheduler))}")


def results(profile: Annotated[str, option("Whose results to list.", default=True)] = "quick") -> None:
    """List the files that a profile's notebooks have written."""
    from weightlab import notebooks

    print(notebooks.results(profile))


def status(
    folder: Annotated[
        Path | None, typer.Argument(help="A folder of searches, in place of a profile's.", show_default=False)
    ] = None,
    profile: Annotated[str, option("Whose searches to look at.", default=True)] = "quick",
    workers: Annotated[int, option("Processes that will do the rest (for the time it takes).", default=True)] = 1,
    as_json: options.Json = False,
) -> None:
    """Print the state of the searches in a folder."""
    from weightlab.runs import status

    if folder is None:
        place, where = status.folder_of(profile), f"of profile {profile}"
    else:
        place, where = Path(os.path.abspath(folder)), f"in {folder}"
        if not place.is_dir():
            raise UserError(f"{folder} is not a folder; give a folder of searches, or a --profile")
    for line in status.tell(place, where, workers, as_json).split("\n"):
        print(plain(line))


def report(profile: Annotated[str, option("Whose results to show.", default=True)] = "quick") -> None:
    """Make a site of a profile's executed notebooks, the documentation and the library's reference."""
    from weightlab import report

    page = report.build(profile)
    files = [file for file in page.parent.rglob("*") if file.is_file()]
    pages, megabytes = sum(file.suffix == ".html" for file in files), sum(file.stat().st_size for file in files) / 1e6
    print(f"{page} ({pages} pages, {megabytes:.1f} MB)")
