"""`wsisr audit`: where not to trust a super-resolved slide."""

from pathlib import Path
from typing import Annotated

import typer

from wsisr.errors import ConfigError
from wsisr.inference.trained import is_trained
from wsisr_cli.progress import console_reporter

RUN = "To calibrate a run"


def command(
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT|RUN",
            help="A super-resolved slide or picture; or a training run, to be calibrated.",
        ),
    ],
    lr: Annotated[
        Path | None, typer.Option(help="What an output was made from.", metavar="SLIDE")
    ] = None,
    hr: Annotated[
        Path | None,
        typer.Option(
            help="A finer slide of the same glass, in the same place (or the input).",
            metavar="SLIDE",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder; default: OUTPUT.audit.", metavar="FOLDER"),
    ] = None,
    degradation: Annotated[
        str,
        typer.Option(
            help="How the input comes about from a perfect output: a name or a fitted file. "
            "Default: what the model was trained on, unless another fits far better.",
            metavar="NAME|FILE",
        ),
    ] = "",
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Misfit, grey levels, from which a place contradicts the input. Default: what is "
            "unlike the rest of the slide.",
            metavar="GREY_LEVELS",
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="As it was enlarged, where the output does not say (not wsisr's)."),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", help="With --scale: the magnification that was read.", metavar="10x"
        ),
    ] = None,
    trust: Annotated[
        Path | None,
        typer.Option(
            help="The calibrated run that made the output: add its trust mask.", metavar="RUN"
        ),
    ] = None,
    alpha: Annotated[
        float,
        typer.Option(
            help="Expected share of places that are trusted and wrong, at most.",
            metavar="SHARE",
            rich_help_panel=RUN,
        ),
    ] = 0.1,
    bound: Annotated[
        float,
        typer.Option(
            min=1e-3,
            help="Optical density by which a place is off somewhere to be wrong.",
            metavar="DENSITY",
            rich_help_panel=RUN,
        ),
    ] = 0.1,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Pair store; default: the one it was trained on.",
            metavar="STORE",
            rich_help_panel=RUN,
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="val or test.", metavar="NAME", rich_help_panel=RUN)
    ] = "val",
    lr_source: Annotated[
        str,
        typer.Option(
            help="A degradation, or native; default: what it was trained on.",
            metavar="SOURCE",
            rich_help_panel=RUN,
        ),
    ] = "",
    device: Annotated[
        str,
        typer.Option(
            help="Of the network: auto, cpu, cuda.", metavar="DEVICE", rich_help_panel=RUN
        ),
    ] = "auto",
    mpp: Annotated[
        float | None,
        typer.Option(
            help="Resolution of the input, um per px, if not stated.", metavar="UM_PER_PX"
        ),
    ] = None,
) -> None:
    """Say where an output contradicts its input and, with a finer slide, what it invents or omits.

    Agreement is necessary and not enough: detail that the input cannot carry is free.

    Of a RUN: calibrate, on validation pairs by patient, up to which doubt its places are trusted.
    """
    if is_trained(output):
        from wsisr.evaluation.trust import TrustRequest, calibrate

        asked = TrustRequest(
            run=output,
            data=data,
            split=split,
            alpha=alpha,
            bound_od=bound,
            scale=scale,
            lr_source=lr_source,
            device=device,
        )
        with console_reporter() as report:
            typer.echo(calibrate(asked, report).text())
        return
    if lr is None:
        raise ConfigError(f"{output} is no trained model; of an output say --lr, its input.")
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
        trust=trust,
        device=device,
    )
    with console_reporter() as report:
        result = audit(request, report, write_report)
    typer.echo(f"{result.text()}; look at index.html")
