"""`wsisr register`: how two images or two scans lie on each other, with a certificate."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from wsisr_cli.options import White
from wsisr_cli.progress import console_reporter

app = typer.Typer(
    no_args_is_help=True, help="Register a pair of images, or two scans of one glass."
)


@app.command("pair")
def pair(
    lr: Annotated[Path, typer.Argument(help="LR image file.")],
    hr: Annotated[Path, typer.Argument(help="HR image file, a little larger than SCALE x LR.")],
    scale: Annotated[
        int,
        typer.Option(min=1, help="HR pixels per LR pixel; 1: two scanners, or two focal planes."),
    ] = 4,
    method: Annotated[
        str,
        typer.Option(
            help="subpixel, ncc-integer or affine.", metavar="subpixel|ncc-integer|affine"
        ),
    ] = "subpixel",
    any_orientation: Annotated[
        bool, typer.Option("--any-orientation", help="Also try flips and quarter turns of LR.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write an overlay (PNG) here.", metavar="FILE.png"),
    ] = None,
    white: White = None,
) -> None:
    """Find LR in HR: offset in HR pixels (pixel edges), certificate and verdict as JSON."""
    from wsisr.files import save_picture, staged_files
    from wsisr.registration.presentation import read_image, register_images

    images = read_image(lr, white), read_image(hr, white)
    result = register_images(*images, scale, method, any_orientation)
    turned = result.orientation.name.lower()
    _print({"orientation": turned, **result.certificate.columns()})
    if output is not None:
        with staged_files(output.parent, output.name) as staged:
            save_picture(staged / output.name, result.figure)
    raise typer.Exit(0 if result.certificate.accepted else 1)


@app.command("planes")
def planes(
    images: Annotated[list[Path], typer.Argument(help="Focal planes of one field, in order.")],
    white: White = None,
) -> None:
    """Find every focal plane in the sharpest: shift in px, certificate and sharpness as JSON."""
    from wsisr.registration.planes import register_planes
    from wsisr.registration.presentation import read_image

    found = register_planes([read_image(path, white) for path in images])
    rows = [{"file": path.name, **match.row()} for path, match in zip(images, found, strict=True)]
    _print(rows)
    raise typer.Exit(0 if all(row["verdict"] == "accept" for row in rows) else 1)


@app.command("scans")
def scans(
    moving: Annotated[Path, typer.Argument(help="The coarse scan (LR).")],
    fixed: Annotated[Path, typer.Argument(help="The fine scan (HR) of the same glass.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Folder for the transform and the figures.", metavar="FOLDER"
        ),
    ] = Path("registration"),
    mpp_moving: Annotated[
        float | None,
        typer.Option(
            help="Resolution of MOVING in um/px, if its file is wrong.", metavar="UM_PER_PX"
        ),
    ] = None,
    mpp_fixed: Annotated[
        float | None,
        typer.Option(
            help="Resolution of FIXED in um/px, if its file is wrong.", metavar="UM_PER_PX"
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=0, help="Patches to register as a proof.")] = 12,
    landmarks: Annotated[
        list[Path] | None,
        typer.Option(
            help="Landmarks: two files (MOVING's, then FIXED's; ANHIR, BIRL) or one with both "
            "(ACROBAT, BIRL's list). Prints the target registration error.",
            metavar="FILE",
        ),
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=CSV: MOVING's landmarks as another tool (VALIS, DeeperHistReg) mapped "
            "them, to be scored beside ours.",
            metavar="NAME=CSV",
        ),
    ] = None,
    focal_plane_moving: Annotated[
        int | None, typer.Option(min=1, help="Of several focal planes; default: the middle one.")
    ] = None,
    focal_plane_fixed: Annotated[int | None, typer.Option(min=1, help="The same.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Register two scans of one glass: any ratio from 1 to 8, any turn, mirrored or not.

    Sections of one block are told apart from scans of one glass.
    """
    from wsisr.files import staged_files
    from wsisr.registration.landmarks import (
        landmark_report,
        read_landmarks,
        report_lines,
        write_points,
    )
    from wsisr.registration.presentation import sample_pairs, sample_table, save_scan_figures
    from wsisr.registration.scans import register_scans
    from wsisr.slides import open_slide

    others = _named(beside or [])
    if others and not landmarks:
        raise typer.BadParameter("--beside scores landmarks; give them with --landmarks.")
    errors: dict[str, dict[str, Any]] = {}
    with (
        open_slide(moving, mpp=mpp_moving, focal_plane=focal_plane_moving) as coarse,
        open_slide(fixed, mpp=mpp_fixed, focal_plane=focal_plane_fixed) as fine,
        staged_files(output, "registration") as folder,
    ):
        marks = read_landmarks(landmarks, coarse.info, fine.info) if landmarks else None
        with console_reporter() as report:
            found = register_scans(coarse, fine, seed, report=report)
        proof = sample_table(sample_pairs(found, coarse, fine, samples, seed))
        save_scan_figures(folder, found, coarse, fine)
        if marks is not None:
            errors = landmark_report(marks, found.place, coarse, fine, others)
            write_points(folder / "moving-landmarks.csv", marks.moving)
            write_points(folder / "mapped-landmarks.csv", found.place(marks.moving))
        (folder / "transform.json").write_text(json.dumps(found.to_json()), encoding="utf-8")
    summary = {**found.summary(), "samples": proof}
    _print({**summary, "landmarks": errors} if errors else summary)
    if marks is not None:
        typer.echo("\n".join(report_lines(errors)), err=True)
        if marks.unpaired:
            typer.echo(f"{marks.unpaired} landmarks are in one image only: left out.", err=True)
    raise typer.Exit(0 if found.same_glass else 1)


def _print(document: Any) -> None:
    from wsisr.words import finite

    typer.echo(json.dumps(finite(document), indent=1, allow_nan=False))


def _named(texts: list[str]) -> dict[str, Path]:
    """NAME=CSV options by name."""
    named = {}
    for text in texts:
        name, sign, path = text.partition("=")
        if not (sign and name and path):
            raise typer.BadParameter(f"{text!r}: --beside is NAME=CSV, e.g. valis=points.csv.")
        named[name] = Path(path)
    return named
