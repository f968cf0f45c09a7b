"""`wsisr inspect`: what a slide or a store is."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    path: Annotated[Path, typer.Argument(help="A slide, a folder of slides or a store.")],
    backend: Annotated[
        str | None, typer.Option(help="direct, dicom, tiffslide, openslide or image.")
    ] = None,
    mpp: Annotated[float | None, typer.Option(help="Resolution override in um/px.")] = None,
    focal_plane: Annotated[
        int | None, typer.Option(min=1, help="Of several focal planes; default: the middle one.")
    ] = None,
    white: Annotated[
        float | None, typer.Option(help="Image of more than 8 bits: the sample value of white.")
    ] = None,
) -> None:
    """Describe a slide (resolution, levels, quirks) or a store (contents, funnel, alignment)."""
    from wsisr.checkup.inspection import describe_alignment, describe_slide, slides_below
    from wsisr.errors import WsisrError

    if (path / "zarr.json").is_file():
        from wsisr.store import describe_store

        typer.echo(describe_store(path))
        alignment = describe_alignment(path)
        if alignment:
            typer.echo(alignment)
        return
    paths, left_out = slides_below(path) if path.is_dir() else ([path], [])
    for line in left_out:
        typer.echo(line)
    if len(paths) == 1:
        typer.echo(describe_slide(paths[0], backend, mpp, focal_plane, white))
        return
    failed = 0
    for one in paths:
        try:
            typer.echo(describe_slide(one, backend, mpp, focal_plane, white))
        except WsisrError as error:
            failed += 1
            typer.echo(f"{one}\n  FAULT       {error}")
    if failed or not paths:
        raise typer.Exit(2 if failed == len(paths) else 1)
