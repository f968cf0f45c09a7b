"""`wsisr verify`: is a store whole, and do its splits not leak?"""

from pathlib import Path
from typing import Annotated

import typer


def command(
    store: Annotated[
        Path, typer.Argument(help="The pair store, e.g. pairs.zarr or s3://bucket/pairs.zarr.")
    ],
    against: Annotated[
        Path | None,
        typer.Option(help="A second store: find patients, files and tissue that both have."),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Names, sizes, metadata and columns only; read no pixels."),
    ] = False,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Also decode the slide's own tiles (--codec slide)."),
    ] = False,
    duplicates: Annotated[
        bool, typer.Option(help="Look for the same tissue under different patients.")
    ] = True,
) -> None:
    """Check checksums, digests, counts, geometry and leaks between splits. Exit 1 on any fault."""
    if quick and deep:
        raise typer.BadParameter("--quick reads no pixels and --deep decodes all; give one.")
    from wsisr.store import verify_store
    from wsisr_cli.progress import console_reporter

    with console_reporter() as report:
        result = verify_store(
            store,
            against,
            deep=not quick,
            decode=deep,
            duplicates=duplicates,
            reporter=report,
        )
    typer.echo(str(result))
    if not result.ok:
        raise typer.Exit(1)
