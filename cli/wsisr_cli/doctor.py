"""`wsisr doctor`: is this machine, this slide, this GPU fit for what is asked of it?"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsisr_cli.options import Plugins, use

if TYPE_CHECKING:
    from wsisr.checkup.doctor import Check


def command(
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

    worst = Status.PASS
    for check in chain(examine(output or Path(), slide), _gpu()):
        typer.echo(check.line())
        if check.status is Status.FAIL or worst is Status.PASS:
            worst = check.status if check.status is not Status.PASS else worst
    raise typer.Exit(2 if worst is Status.FAIL else 0)


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
