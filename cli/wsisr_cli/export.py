"""`wsisr export`: kept pairs in common formats, lossless."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    store: Annotated[
        Path, typer.Argument(help="The pair store, e.g. pairs.zarr or s3://bucket/pairs.zarr.")
    ],
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FORMAT",
            help="png (BasicSR folders, imagefolder), huggingface, webdataset, hdf5, lmdb "
            "(BasicSR's) or geojson (places, for QuPath).",
        ),
    ],
    allow_identifiers: Annotated[
        bool,
        typer.Option(
            help="Pass on folder names of the source, and patient names of stores from before "
            "pseudonyms."
        ),
    ] = False,
) -> None:
    """Write the kept pairs in a common format, each with its whole record."""
    from wsisr.store import export_store
    from wsisr_cli.progress import console_reporter

    with console_reporter() as report:
        counts = export_store(
            store, to, folder, allow_identifiers=allow_identifiers, reporter=report
        )
    for split, count in sorted(counts.items()):
        typer.echo(f"{split}: {count:,} pairs")
