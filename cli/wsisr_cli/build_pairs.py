"""`wsisr build-pairs`: a folder of slides becomes a store of LR-HR pairs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from wsisr_cli.options import Dask, FocalPlane, White, runner, share
from wsisr_cli.progress import console_reporter
from wsisr_cli.usage import MORE

if TYPE_CHECKING:
    from wsisr.building import BuildRequest


def command(
    source: Annotated[
        Path, typer.Argument(help="A folder of slides, or one slide; also s3://bucket/slides/.")
    ],
    manifest: Annotated[
        str | None,
        typer.Option(
            help="Name (see `wsisr manifests list`) or YAML file; default: what fits.",
            metavar="NAME|FILE",
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(
            help="record.json.gz of a store: rebuild just that, byte for byte.",
            metavar="FILE",
            rich_help_panel=MORE,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The store to write.", metavar="STORE")
    ] = Path("pairs.zarr"),
    hr: Annotated[
        str | None, typer.Option(help="Magnification of HR, e.g. 40x.", metavar="40x")
    ] = None,
    lr: Annotated[
        str | None, typer.Option(help="Magnifications of LR, e.g. 20x,10x.", metavar="20x,10x")
    ] = None,
    mpp: Annotated[
        float | None,
        typer.Option(help="Physical resolution of HR in um/px; resamples.", metavar="UM_PER_PX"),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of an HR patch in HR pixels.", metavar="PX")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any key of the manifest (`wsisr manifests show NAME` has them all), e.g. "
            "tissue.min_fraction=0.7; repeatable.",
        ),
    ] = None,
    snap_tiles: Annotated[
        bool,
        typer.Option(
            "--snap-tiles",
            help="Grid: patches on the edges of the slide's own tiles.",
            rich_help_panel=MORE,
        ),
    ] = False,
    icc: Annotated[
        str | None,
        typer.Option(
            help="keep or srgb: convert LR and HR alike by the profile.",
            metavar="keep|srgb",
            rich_help_panel=MORE,
        ),
    ] = None,
    native: Annotated[
        str | None,
        typer.Option(
            help="prefer, evidence, require or never: stored levels as LR or made ones.",
            metavar="prefer|evidence|require|never",
            rich_help_panel=MORE,
        ),
    ] = None,
    unchecked: Annotated[
        str | None,
        typer.Option(
            help="refuse or accept slides that no second reader confirms (MRXS, BIF).",
            metavar="refuse|accept",
            rich_help_panel=MORE,
        ),
    ] = None,
    focal_plane: FocalPlane = None,
    white: White = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; default: one per core.")
    ] = None,
    stage: Annotated[
        Path | None,
        typer.Option(
            help="Copy each slide to this folder of a fast disk first, and remove it afterwards. "
            "Slides at addresses always go this way (default: the temporary folder).",
            metavar="FOLDER",
            rich_help_panel=MORE,
        ),
    ] = None,
    dask: Dask = None,
    part: Annotated[
        str | None,
        typer.Option(help="I/N: this run's share, e.g. 3/8 in a job array.", metavar="I/N"),
    ] = None,
    slide: Annotated[
        list[str] | None,
        typer.Option(
            help="This slide alone, by id or file name; repeatable.",
            metavar="ID",
            rich_help_panel=MORE,
        ),
    ] = None,
    phase: Annotated[
        Literal["scan", "plan", "extract", "finish"] | None,
        typer.Option(
            help="Do this phase alone; each can be run again, anywhere.", rich_help_panel=MORE
        ),
    ] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="Short for --phase finish.", rich_help_panel=MORE)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan per slide and build nothing.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing store.")
    ] = False,
    mpp_override: Annotated[
        Path | None,
        typer.Option(
            help="CSV with slide and any of mpp, patient, group, label, split.", metavar="CSV"
        ),
    ] = None,
    patient_from: Annotated[
        str | None,
        typer.Option(
            metavar="folder|REGEX",
            help="Where file names say the patient: the slide's folder, or a group of a regular "
            "expression in its path.",
            rich_help_panel=MORE,
        ),
    ] = None,
    patient_key: Annotated[
        Path | None,
        typer.Option(
            help="Key of patient pseudonyms; default: your own, made at first need.",
            metavar="FILE",
            rich_help_panel=MORE,
        ),
    ] = None,
    private_ids: Annotated[
        bool,
        typer.Option(
            "--private-ids",
            help="Slide ids are pseudonyms too; no file is named.",
            rich_help_panel=MORE,
        ),
    ] = False,
    codec: Annotated[
        str | None, typer.Option(help="raw (default), small, zstd or slide.", metavar="NAME")
    ] = None,
    scale_counts: Annotated[
        float,
        typer.Option(
            help="All counts of the manifest times this, e.g. 0.01 for a trial.",
            metavar="FACTOR",
            rich_help_panel=MORE,
        ),
    ] = 1.0,
) -> None:
    """Build aligned LR-HR pairs from slides. Run the same command again to resume.

    Exit codes: 0 complete; 1 complete, some slides failed; 75 waiting for other shares, run again;
    2 nothing usable; 130 interrupted.
    """
    from wsisr.building import BuildRequest
    from wsisr.building.manifest import assigned
    from wsisr.building.staging import opened_source
    from wsisr.errors import BuildError
    from wsisr.host import usable_cores
    from wsisr.store.object_files import url_of

    overrides: dict[str, Any] = {
        key: value
        for key, value in {
            "hr": hr,
            "lr": lr,
            "mpp": mpp,
            "size": size,
            "icc": icc,
            "sampling.snap_tiles": snap_tiles or None,
            "native": native,
            "unchecked": unchecked,
            "focal_plane": focal_plane,
            "white": white,
            "patient_from": patient_from,
        }.items()
        if value is not None
    }
    for key, value in assigned(set_ or ()).items():
        if key in overrides:
            raise typer.BadParameter(f"--set {key} and --{key.replace('_', '-')} say the same.")
        overrides[key] = value
    url = url_of(source)
    if dask is not None:  # workers have folders of their own
        source, output = source if url else source.absolute(), output.absolute()
        stage = None if stage is None else stage.absolute()
    request = BuildRequest(
        source=source,
        output=output,
        manifest=manifest,
        overrides=overrides,
        workers=workers or usable_cores(),
        part=share(part),
        slides=tuple(slide or ()),
        phase="finish" if finish else phase,
        overwrite=overwrite,
        mpp_override=mpp_override,
        patient_key=patient_key,
        private_ids=private_ids,
        codec=codec,
        stage=stage,
        scale_counts=scale_counts,
    )
    if dry_run and request.shared:
        raise typer.BadParameter(
            "--dry-run plans a whole build; leave out --part, --slide and --phase."
        )
    if record is not None:
        if url or stage:
            raise BuildError(
                "--record tells slides by their content, and reads each where it lies: leave out "
                "--stage, and copy slides at an address here first."
            )
        _rebuild(request, record, dask)
    if url and dask is not None:
        raise BuildError(
            f"{url}: workers of a cluster do not see what is listed here; share the slides out "
            "with --part I/N instead, or copy them to a disk that all see."
        )
    with opened_source(request) as here:
        if url:
            typer.echo(
                f"{url}: each slide is copied to {here.stage} for the time it is worked on "
                "(--stage). Slides that the store has are compared by size and time, while their "
                "scans are there, not by content."
            )
        _build(here, dask, dry_run)


def _build(request: "BuildRequest", dask: str | None, dry_run: bool) -> NoReturn:
    from wsisr.building import build_pairs, describe_plan, prepare
    from wsisr.slides import describe_left_out

    places = [request.output.parent, *([] if request.origin else [request.source])]
    prepared = prepare(request)
    typer.echo(f"{prepared.layout.sentence}; manifest {prepared.manifest.name}.")
    for line in describe_left_out(prepared.layout.left_out):
        typer.echo(line)
    for line in prepared.about_patients():
        typer.echo(line)
    with (
        console_reporter() as report,
        runner(dask, places) as cluster,
    ):
        if dry_run:
            plan = describe_plan(prepared, report, cluster)
            typer.echo(plan.text)
            raise typer.Exit(plan.exit_code)
        summary = build_pairs(prepared, report, cluster)
    typer.echo(summary.text())
    raise typer.Exit(summary.exit_code)


def _rebuild(request: "BuildRequest", record: Path, dask: str | None) -> NoReturn:
    from wsisr.building import rebuild_from

    with (
        console_reporter() as report,
        runner(dask, (request.source, request.output.parent)) as cluster,
    ):
        summary = rebuild_from(request, record, report, cluster)
    typer.echo(summary.text())
    raise typer.Exit(summary.exit_code)
