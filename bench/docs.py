"""Puts the results of a run into the documentation: tables between markers, and a picture.

Must not know how anything was measured.

    python -m bench.docs
"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from bench.build import SOURCES
from bench.picture import picture
from bench.results import Results
from bench.run import RESULTS
from bench.scenarios import Scale
from bench.tables import how_table, machine_line, numbers_table, targets_table
from sidecast_broker.reference import rewrite

PAGE = SOURCES.parent / "docs" / "benchmarks.md"
IMAGE = SOURCES.parent / "docs" / "images" / "bench.svg"


def page_with(text: str, results: Results) -> str:
    """Give the page with the tables of a run.

    Raises:
        MissingMarkers: a pair of markers is missing.
    """
    return rewrite(
        text,
        {
            "results": lambda: f"{machine_line(results)}\n\n{numbers_table(results)}",
            "targets": lambda: targets_table(results.targets),
            "how": lambda: how_table(Scale()),
        },
    )


@click.command()
@click.option(
    "--results",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=RESULTS,
    help="The numbers of a run [default: .cache/bench/results.json].",
)
@click.option("--allow-quick", is_flag=True, help="Also of a quick run.")
def main(path: Path, allow_quick: bool) -> None:
    """Write the tables and the picture of docs/benchmarks.md from the last run."""
    results = msgspec.json.decode(path.read_bytes(), type=Results)
    if results.quick and not allow_quick:
        raise click.ClickException(f"{path} is of a quick run: its numbers say nothing")
    PAGE.write_text(page_with(PAGE.read_text(), results))
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    IMAGE.write_text(picture(results))


if __name__ == "__main__":
    main(prog_name="python -m bench.docs")
