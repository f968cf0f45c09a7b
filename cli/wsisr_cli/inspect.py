"""`wsisr inspect`: what a slide or a store is."""

from pathlib import Path
from typing import Annotated

import typer

from wsisr_cli.options import FocalPlane, Mpp, White


def command(
    path: Annotated[
        Path,
        typer.Argument(help="A slide, a folder of slides, a run, or a store (also s3://...)."),
    ],
    backend: Annotated[
        str | None,
        typer.Option(help="direct, dicom, tiffslide, openslide or image.", metavar="NAME"),
    ] = None,
    mpp: Mpp = None,
    focal_plane: FocalPlane = None,
    white: White = None,
) -> None:
    """Describe a slide (resolution, levels, quirks), a store (contents, alignment) or a run."""
    from wsisr.checkup.inspection import describe_alignment, describe_slide, slides_below
    from wsisr.errors import ConfigError, StoreError, WsisrError
    from wsisr.reporting.writing import kind_of
    from wsisr.store import describe_store
    from wsisr.store.object_files import url_of

    kind = kind_of(path)
    if kind == "store":
        typer.echo(describe_store(path))
        alignment = describe_alignment(path)
        if alignment:
            typer.echo(alignment)
        return
    if kind == "run":
        from wsisr.inference.opening import describe_trained, open_model

        typer.echo(describe_trained(open_model(str(path))))
        return
    if kind is not None:
        raise ConfigError(f"{path} holds no slides but results ({kind}): wsisr report {path}")
    if url := url_of(path):
        raise StoreError(
            f"{url}: no pair store lies there. Of addresses, inspect looks at stores; open one "
            "slide in Python with wsisr.slides.open_slide(url), or copy it here."
        )
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
