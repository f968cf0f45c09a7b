"""`wsisr upload`: a finished store into a bucket, where it is read in place."""

from pathlib import Path
from typing import Annotated

import typer

from wsisr_cli.progress import console_reporter


def command(
    store: Annotated[Path, typer.Argument(help="The pair store, e.g. pairs.zarr.")],
    target: Annotated[str, typer.Argument(help="s3://bucket/pairs.zarr; also gs:// and az://.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another store that is there.")
    ] = False,
) -> None:
    """Put a store into a bucket, slide by slide. Run the same command again to go on.

    Credentials come from the environment or a role, never from the address. Exit codes: 0 all
    there; 2 refused; 130 interrupted.
    """
    from wsisr.store.upload import upload_store

    with console_reporter() as report:
        result = upload_store(store, target, overwrite=overwrite, reporter=report)
    typer.echo(str(result))
