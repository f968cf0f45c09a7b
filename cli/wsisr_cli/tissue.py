"""`wsisr tissue`: find tissue, look at it, compare masks."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from wsisr_cli.options import FocalPlane, Mpp, White

app = typer.Typer(no_args_is_help=True, help="Find tissue on slides and compare masks.")


@app.command()
def mask(
    slide: Annotated[
        Path, typer.Argument(help="Slide file, or folder of a DICOM series.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="Folder for mask, overlay, GeoJSON and health.", metavar="FOLDER"
        ),
    ] = Path("tissue"),
    method: Annotated[
        Literal["consensus", "clam-like"],
        typer.Option(help="consensus: three cues, two votes. clam-like: saturation threshold."),
    ] = "consensus",
    um_per_px: Annotated[
        float,
        typer.Option(
            help="Resolution of the mask in um per px.", min=1.0, max=64.0, metavar="UM_PER_PX"
        ),
    ] = 8.0,
    mpp: Mpp = None,
    focal_plane: FocalPlane = None,
    white: White = None,
    min_area_mm2: Annotated[
        float, typer.Option(help="Drop pieces smaller than this, in mm2.", min=0.0, metavar="MM2")
    ] = 0.02,
    max_hole_mm2: Annotated[
        float, typer.Option(help="Fill holes up to this size, in mm2.", min=0.0, metavar="MM2")
    ] = 0.5,
) -> None:
    """Write a slide's tissue as mask PNG, overlay PNG, GeoJSON for QuPath, and health numbers."""
    from wsisr.selection import TissueSettings, tissue_of
    from wsisr.selection.mask_files import write_tissue_files
    from wsisr.slides import open_slide

    settings = TissueSettings(min_area_mm2=min_area_mm2, max_hole_mm2=max_hole_mm2)
    with open_slide(slide, mpp=mpp, focal_plane=focal_plane, white=white) as opened:
        found = tissue_of(opened, um_per_px, method=method, settings=settings)
    name = slide.name if slide.is_dir() else slide.stem
    paths = write_tissue_files(found, output, name)
    health = found.health
    typer.echo(
        f"{slide.name}: {found.kind}, {health.tissue_mm2:.3f} mm2 of tissue "
        f"({100 * health.tissue_share:.1f} % of {health.scanned_mm2:.2f} mm2 scanned) in "
        f"{health.components} piece(s), stability {health.stability:.2f}"
    )
    for flag in health.flags:
        typer.echo(f"  note: {flag}")
    for path in paths:
        typer.echo(f"  {path}")


@app.command()
def compare(
    masks: Annotated[
        list[Path],
        typer.Argument(
            help="Masks (PNG, TIFF, GeoJSON) or folders of them, matched by file name.",
            show_default=False,
        ),
    ],
    truth: Annotated[
        Path | None, typer.Option(help="Mask or folder of masks to measure the others against.")
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="Annotation file or folder: the share of tumour inside each mask."),
    ] = None,
    um_per_px: Annotated[
        float | None, typer.Option(help="um per px of masks that do not say.", metavar="UM_PER_PX")
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="Write a PNG of where the masks disagree, worst slides first.", metavar="FILE.png"
        ),
    ] = None,
) -> None:
    """Measure how far tissue masks agree: IoU, boundary within 50 um, tiles, lost lesion."""
    from wsisr.selection.compare import compare_sources, table_text

    rows = compare_sources(masks, truth=truth, annotations=annotations, um_per_px=um_per_px)
    typer.echo(table_text(rows))
    if sheet is not None:
        from wsisr.files import save_picture, staged_files
        from wsisr.selection.compare import disagreement_sheet

        with staged_files(sheet.parent, sheet.name) as staged:
            save_picture(staged / sheet.name, disagreement_sheet(rows))
        typer.echo(f"{sheet}: red is missed, blue is extra")
