"""`wsisr bench`: speed on the user's own file, with references measured in the same run."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    slide: Annotated[Path, typer.Argument(help="A slide.")],
    most: Annotated[int, typer.Option(min=1, help="At most this many 256-px patches.")] = 1000,
) -> None:
    """Time the extraction of 256-px patches on a slide, beside what it can be compared with."""
    from wsisr.building.bench import bench_slide, machine, ratios, table

    timings = bench_slide(slide, most)
    typer.echo(f"{slide}\n{machine()}\n\n{table(timings)}\n")
    for line in ratios(timings):
        typer.echo(line)
