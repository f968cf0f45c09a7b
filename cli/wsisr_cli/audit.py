"""`wsisr audit`: where not to trust a super-resolved slide."""

from pathlib import Path
from typing import Annotated

import typer

from wsisr_cli.progress import console_reporter


def command(
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="A super-resolved slide or picture.")
    ],
    lr: Annotated[Path, typer.Option(help="What it was made from.")],
    hr: Annotated[
        Path | None,
        typer.Option(help="A finer slide of the same glass, in the same place (or the input)."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder; default: OUTPUT.audit.")
    ] = None,
    degradation: Annotated[
        str,
        typer.Option(
            help="How the input comes about from a perfect output: a name or a fitted file. "
            "Default: what the model was trained on, unless another fits far better."
        ),
    ] = "",
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Misfit, grey levels, from which a place contradicts the input. Default: what is "
            "unlike the rest of the slide.",
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="As it was enlarged, where the output does not say (not wsisr's)."),
    ] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="With --scale: the magnification that was read.")
    ] = None,
    mpp: Annotated[
        float | None, typer.Option(help="Resolution of the input, um per px, if not stated.")
    ] = None,
) -> None:
    """Say where an output contradicts its input and, with a finer slide, what it invents or omits.

    Agreement is necessary and not enough: detail that the input cannot carry is free.
    """
    from wsisr.magnification import parse_magnification
    from wsisr.reporting import write_report
    from wsisr.upscaling.audit import AuditRequest, audit

    request = AuditRequest(
        output=output,
        lr=lr,
        hr=hr,
        folder=folder,
        scale=scale,
        magnification=None if from_ is None else parse_magnification(from_),
        mpp=mpp,
        degradation=degradation,
        threshold=threshold,
    )
    with console_reporter() as report:
        result = audit(request, report, write_report)
    typer.echo(f"{result.text()}; look at index.html")
