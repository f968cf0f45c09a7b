"""`wsisr models`: what can be trained, and what it costs."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Networks that are built in: list, show, export.", no_args_is_help=True)


@app.command("list")
def list_command() -> None:
    """All networks, and those of the papers' tables that are not built."""
    from wsisr.models import NOT_BUILT, list_models, model_spec

    for name in list_models():
        spec = model_spec(name)
        scales = "any scale" if spec.kind == "arbitrary" else "one scale"
        if spec.scales is not None:
            scales = ", ".join(f"x{scale}" for scale in spec.scales)
        presets = ", ".join(spec.presets)
        typer.echo(f"{name:10} {spec.family:9} {scales:10} {spec.summary}  [{presets}]")
    typer.echo("\nNot built, though the papers compare with them:")
    for name, place in NOT_BUILT.items():
        typer.echo(f"{name:10} {place}")


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A name from `wsisr models list`.")],
    scale: Annotated[
        float | None, typer.Option(help="Magnification, HR over LR. [default: 4]")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="paper, official, recommended or tiny.")
    ] = "recommended",
    lr_px: Annotated[
        int, typer.Option("--lr-px", min=1, help="Side of the LR input to count for, px.")
    ] = 48,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting to change: key=value; repeatable.")
    ] = None,
) -> None:
    """Parameters, arithmetic and memory of one network, its settings and its paper."""
    from wsisr.models.describe import describe_model

    typer.echo(describe_model(name, scale=scale, preset=preset, lr_px=lr_px, changes=set_ or []))


@app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(help="A saved model: config.json and its weights.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file to write.")],
    lr_px: Annotated[
        int, typer.Option("--lr-px", min=1, help="Side of the LR input that the file takes, px.")
    ] = 64,
) -> None:
    """Write a fixed-scale model as ONNX, checked against torch (needs the extra `onnx`)."""
    from wsisr.models import load_model
    from wsisr.models.exporting import export_onnx

    difference = export_onnx(load_model(folder), output, lr_px, lr_px)
    typer.echo(f"{output}: differs from torch by at most {difference:.2g} of the range.")
