"""`wsisr manifests`: the data sets that are built in."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Built-in data sets: list, show, check a file.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """Name and first sentence of every built-in manifest."""
    from wsisr.building.manifest import load_manifest, manifest_names

    for name in manifest_names():
        typer.echo(f"{name:12} {load_manifest(name).description.split('. ')[0].rstrip('.')}.")


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name or YAML file.")]) -> None:
    """The resolved manifest as JSON, with every default filled in."""
    from wsisr.building.manifest import load_manifest

    typer.echo(json.dumps(load_manifest(name).to_dict(), indent=2))


@app.command()
def check(file: Annotated[Path, typer.Argument(help="YAML file.")]) -> None:
    """Whether a manifest is right; exit code 2 with the reason if not."""
    from wsisr.building.manifest import load_manifest

    manifest = load_manifest(file)
    typer.echo(f"{file}: a valid manifest, {manifest.name} version {manifest.version}.")


@app.command()
def schema() -> None:
    """JSON schema of manifests, for editors."""
    from wsisr.building.manifest import Manifest

    typer.echo(json.dumps(Manifest.model_json_schema(), indent=2))
