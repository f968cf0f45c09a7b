"""Commands on a finished store: `wsisr verify`, `keep`, `export`, `upload`."""

from pathlib import Path
from typing import Annotated

import typer

from wsisr_cli.progress import console_reporter


def verify(
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


def keep(
    store: Annotated[Path, typer.Argument(help="The pair store, e.g. pairs.zarr.")],
    rule: Annotated[
        str,
        typer.Argument(
            help="Columns, numbers, comparisons, and, or, not, + - * /, abs(): "
            "'spread<0.25 and ncc_band>0.85' (spread in HR px)."
        ),
    ],
) -> None:
    """Re-decide which stored pairs count, from their certificates; reads no slide."""
    from wsisr.store import keep_pairs

    typer.echo(str(keep_pairs(store, rule)))


def export(
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

    with console_reporter() as report:
        counts = export_store(
            store, to, folder, allow_identifiers=allow_identifiers, reporter=report
        )
    for split, count in sorted(counts.items()):
        typer.echo(f"{split}: {count:,} pairs")


def upload(
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
