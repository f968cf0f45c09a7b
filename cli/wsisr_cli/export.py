"""`wsisr export`: kept pairs in common formats, lossless."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    store: Annotated[Path, typer.Argument(help="The pair store, e.g. pairs.zarr.")],
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    to: Annotated[str, typer.Option("--to", help="png, webdataset, hdf5 or lmdb.")],
) -> None:
    """Write the kept pairs as PNG files, WebDataset tars, HDF5 or LMDB."""
    from wsisr.store import export_store
    from wsisr_cli.progress import console_reporter

    with console_reporter() as report:
        counts = export_store(store, to, folder, reporter=report)
    for split, count in sorted(counts.items()):
        typer.echo(f"{split}: {count:,} pairs")
