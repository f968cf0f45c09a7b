"""`wsisr bench`: speed on the user's own file, with references measured in the same run."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    source: Annotated[Path, typer.Argument(help="A slide, or a pair store.")],
    most: Annotated[
        int, typer.Option(min=1, help="Slide: at most this many 256-px patches.")
    ] = 1000,
    array: Annotated[
        str | None,
        typer.Option(help="Store: image array, e.g. 40x. [default: the finest]", metavar="ARRAY"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Store: threads that read ahead. [default: by cores]")
    ] = None,
) -> None:
    """Time 256-px patches of a slide, or random crops of a store, beside a reference."""
    if (source / "zarr.json").is_file():
        from wsisr.training.bench import bench_store, loader_table

        typer.echo(f"{source}\n\n{loader_table(bench_store(source, array=array, workers=workers))}")
        return
    from wsisr.checkup.bench import bench_slide, machine, ratios, table

    timings = bench_slide(source, most)
    typer.echo(f"{source}\n{machine()}\n\n{table(timings)}\n")
    for line in ratios(timings):
        typer.echo(line)
