"""`wsisr models`: what can be trained, what it costs, and weights of other programs."""

from pathlib import Path
from typing import Annotated

import typer

from wsisr_cli.options import Plugins, use

app = typer.Typer(
    help="Networks that are built in, and weights: list, show, import, export.",
    no_args_is_help=True,
)


@app.command("list")
def list_command(plugin: Plugins = None) -> None:
    """All networks, also of installed packages, and those of the papers' tables not built."""
    from wsisr.models import NOT_BUILT, list_models, model_spec
    from wsisr.models.registry import MODELS

    use(plugin)
    MODELS.load_installed()
    for name in list_models():
        spec = model_spec(name)
        scales = "any scale" if spec.kind == "arbitrary" else "one scale"
        if spec.scales is not None:
            scales = ", ".join(f"x{scale}" for scale in spec.scales)
        presets = ", ".join(spec.presets)
        origin = MODELS.origin(name)
        of = f"  from {origin.package or origin.source}" if origin is not None else ""
        typer.echo(f"{name:10} {spec.family:9} {scales:10} {spec.summary}  [{presets}]{of}")
    for name, reason in MODELS.broken.items():
        typer.echo(f"{name:10} not usable: {reason}")
    typer.echo("\nNot built, though the papers compare with them:")
    for name, place in NOT_BUILT.items():
        typer.echo(f"{name:10} {place}")


@app.command("show")
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A name from `wsisr models list`; or a run, a saved model, a file of weights."
        ),
    ],
    scale: Annotated[
        float | None, typer.Option(help="Magnification, HR over LR. [default: 4]")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="paper, official, recommended or tiny.", metavar="NAME")
    ] = "recommended",
    lr_px: Annotated[
        int,
        typer.Option("--lr-px", min=1, help="Side of the LR input to count for, px.", metavar="PX"),
    ] = 48,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A setting to change: key=value; repeatable.", metavar="KEY=VALUE"
        ),
    ] = None,
    card: Annotated[
        list[str] | None,
        typer.Option(
            help="Estimate training on this card, or on that of a report of wsisr doctor --gpu; "
            "repeatable. [default: one of 24, 40 and 80 GB]",
            metavar="CARD",
        ),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Parameters, arithmetic and memory of one network, its settings and its paper."""
    from wsisr.models import list_models
    from wsisr.models.describe import describe_model

    use(plugin)
    if name not in list_models() and Path(name).exists():
        from wsisr.inference.opening import describe_trained, open_model

        typer.echo(describe_trained(open_model(name)))
        return
    typer.echo(describe_model(name, scale=scale, preset=preset, lr_px=lr_px, changes=set_ or []))
    if name == "bicubic":
        return
    from wsisr.models import model_spec
    from wsisr.training.cost import choose_cards, cost_table
    from wsisr.training.presets import resolve_config

    fixed = model_spec(name).kind == "fixed"
    config = resolve_config(
        name,
        preset=preset,
        scale=int(scale) if scale is not None and fixed else None,
        assignments=[f"data.crop_lr_px={lr_px}", *(f"model.{change}" for change in set_ or [])],
    ).config
    typer.echo(f"\nTraining with this preset:\n\n{cost_table(config, choose_cards(card or []))}")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="Weights that another program wrote.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write.", metavar="FOLDER")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="The network, where the file's names are those of no known program.",
            metavar="NAME",
        ),
    ] = None,
    scale: Annotated[int | None, typer.Option(help="Its scale, likewise.")] = None,
    preset: Annotated[
        str, typer.Option(help="Of a network given with --model.", metavar="NAME")
    ] = "recommended",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting that the file does not say: key=value; repeatable.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            help="Which network of a file that holds several, e.g. netG_A.", metavar="KEY"
        ),
    ] = None,
    range_: Annotated[
        int | None,
        typer.Option(
            "--range",
            help="1 or 255: largest value it was trained on, if not said.",
            metavar="1|255",
        ),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Make a saved model of EDSR, RDN, RCAN, SwinIR, HAT, ESRGAN, LIIF, LTE, ITSRN or ISTE weights.

    Every tensor of the file is accounted for. What spandrel reads comes in too (needs the extra
    `spandrel`). Files that need no answer here can be given to eval and upscale as they are.
    """
    from wsisr.inference.opening import import_model
    from wsisr.models import WeightsAnswers

    use(plugin)
    said = WeightsAnswers(
        model=model,
        scale=scale,
        preset=preset,
        changes=tuple(set_ or ()),
        part=part,
        span=range_,
    )
    typer.echo("\n".join(import_model(file, output, said).lines()))
    typer.echo(f"Written: {output} (model.safetensors, config.json, README.md)")


@app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(help="A saved model: config.json and its weights.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The ONNX file to write.", metavar="FILE.onnx")
    ],
    lr_px: Annotated[
        int,
        typer.Option(
            "--lr-px", min=1, help="Side of the LR input that the file takes, px.", metavar="PX"
        ),
    ] = 64,
    plugin: Plugins = None,
) -> None:
    """Write a fixed-scale model as ONNX, checked against torch (needs the extra `onnx`)."""
    from wsisr.models import load_model
    from wsisr.models.exporting import export_onnx

    use(plugin)
    difference = export_onnx(load_model(folder), output, lr_px, lr_px)
    typer.echo(f"{output}: differs from torch by at most {difference:.2g} of the range.")
