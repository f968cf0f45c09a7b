"""`wsisr demo`: generated slides and the whole chain on them, offline."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from wsisr_cli.progress import console_reporter


class FolderLayout(StrEnum):
    """Folder layouts of CAMELYON16."""

    FLAT = "flat"
    OFFICIAL = "official"


def command(
    folder: Annotated[Path, typer.Argument(help="Folder to write into.")] = Path("demo"),
    slides_only: Annotated[
        bool,
        typer.Option(
            "--slides-only", help="Write just a generated CAMELYON16-like folder, at FOLDER."
        ),
    ] = False,
    layout: Annotated[
        FolderLayout, typer.Option(help="How the folder is laid out.")
    ] = FolderLayout.FLAT,
) -> None:
    """Write a small generated CAMELYON16, build pairs from it and verify them."""
    from wsisr.files import disk_full_is_clear
    from wsisr.testing.camelyon import write_camelyon16_like

    slides = folder if slides_only else folder / "camelyon16"
    if slides.exists() and any(slides.iterdir()):
        if slides_only:
            raise typer.BadParameter(f"{slides} exists and is not empty; choose another folder.")
        typer.echo(f"{slides} is there already.")
    else:
        chosen: Literal["flat", "official"] = (
            "official" if layout is FolderLayout.OFFICIAL else "flat"
        )
        with disk_full_is_clear(slides, "Make room, remove that folder, and run it again."):
            written = write_camelyon16_like(slides, layout=chosen)
        typer.echo(f"{slides}: {len(written)} generated slides, their truth in truth.json.")
    if slides_only:
        return
    from wsisr.building import BuildRequest, build_pairs, prepare
    from wsisr.store import verify_store

    store = folder / "pairs.zarr"
    prepared = prepare(BuildRequest(source=slides, output=store, overrides={}, workers=2))
    typer.echo(f"{prepared.layout.sentence}; manifest {prepared.manifest.name}.")
    with console_reporter() as report:
        summary = build_pairs(prepared, report)
    assert summary is not None
    typer.echo(summary.text())
    verdict = verify_store(store)
    typer.echo(verdict.text())
    typer.echo(f"Look at it: wsisr inspect {store}")
    raise typer.Exit(summary.exit_code if verdict.ok else 1)
