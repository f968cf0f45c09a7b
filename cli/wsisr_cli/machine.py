"""Commands about this machine: `wsisr doctor`, `demo`, `bench`."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wsisr_cli.options import Plugins, use
from wsisr_cli.progress import console_reporter

if TYPE_CHECKING:
    from wsisr.checkup.doctor import Check


def doctor(
    slide: Annotated[Path | None, typer.Argument(help="A slide to check as well.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Where a store would be written; with --gpu the report (JSON)."
        ),
    ] = None,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Prove training, evaluation and upscaling on the device.")
    ] = False,
    minutes: Annotated[
        float, typer.Option(min=0.01, help="Of --gpu; a report that is there is gone on with.")
    ] = 10.0,
    device: Annotated[
        str | None,
        typer.Option(
            help="Of --gpu: auto, cpu, cuda, cuda:1 or mps. [default: auto]", metavar="DEVICE"
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Of --gpu: a network; repeatable. [default: all]", metavar="NAME"),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Of --gpu. [default: recommended on a GPU, tiny without one]", metavar="NAME"
        ),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Check the installation, the disk and, if asked, a slide or the GPU; faults with their fix."""
    use(plugin)
    if gpu:
        if slide is not None:
            from wsisr.errors import ConfigError

            raise ConfigError("--gpu looks at no slide: leave the slide out, or leave out --gpu")
        raise typer.Exit(_prove(output or Path("gpu.json"), minutes, device, model or [], preset))
    from wsisr.checkup.doctor import Status, examine

    failed = False
    for check in chain(examine(output or Path(), slide), _gpu()):
        typer.echo(check.line())
        failed |= check.status is Status.FAIL
    raise typer.Exit(2 if failed else 0)


def _gpu() -> Iterator["Check"]:
    from wsisr.checkup.doctor import Check, Status

    try:
        from wsisr.device import found_here
    except ImportError:
        return  # that torch is missing was said
    said, fix = found_here()
    yield Check(name="gpu", status=Status.WARN if fix else Status.PASS, detail=said, fix=fix)


def _prove(
    output: Path, minutes: float, device: str | None, models: list[str], preset: str | None
) -> int:
    from wsisr.models import model_spec
    from wsisr.proof.run import ProofRequest, prove
    from wsisr.proof.table import report_text

    for name in models:
        model_spec(name)
    report = prove(
        output,
        ProofRequest(minutes=minutes, device=device, models=models, preset=preset),
        tell=lambda check, row: typer.echo(
            f"{row['state'].upper():4}  {check.key}  {row['seconds']:.1f} s"
            + (f"\n      {row['said']}" if row["state"] == "fail" else ""),
            err=True,
        ),
        note=lambda said: typer.echo(said, err=True),
    )
    typer.echo(f"{report_text(report)}\n\n{output}: the report. The same command goes on with it.")
    return 1 if any(row["state"] == "fail" for row in report["rows"].values()) else 0


def demo(
    folder: Annotated[Path, typer.Argument(help="Folder to write into.")] = Path("demo"),
    slides_only: Annotated[
        bool,
        typer.Option(
            "--slides-only", help="Write just a generated CAMELYON16-like folder, at FOLDER."
        ),
    ] = False,
    layout: Annotated[
        Literal["flat", "official"], typer.Option(help="How the folder is laid out.")
    ] = "flat",
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
        with disk_full_is_clear(slides, "Make room, remove that folder, and run it again."):
            written = write_camelyon16_like(slides, layout=layout)
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


def bench(
    source: Annotated[Path, typer.Argument(help="A slide, or a pair store.")],
    most: Annotated[
        int, typer.Option(min=1, help="Slide: at most this many 256-px patches.")
    ] = 1000,
    array: Annotated[
        str | None,
        typer.Option(help="Store: image array, e.g. 40x. [default: the finest]", metavar="ARRAY"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Store: threads that read ahead. [default: by cores]")
    ] = None,
) -> None:
    """Time 256-px patches of a slide, or random crops of a store, beside a reference."""
    if (source / "zarr.json").is_file():
        from wsisr.training.bench import bench_store, loader_table

        typer.echo(f"{source}\n\n{loader_table(bench_store(source, array=array, workers=workers))}")
        return
    from wsisr.checkup.bench import bench_slide, machine, ratios, table

    timings = bench_slide(source, most)
    typer.echo(f"{source}\n{machine()}\n\n{table(timings)}\n")
    for line in ratios(timings):
        typer.echo(line)
