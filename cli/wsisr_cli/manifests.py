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
        typer.echo(f"{name:16} {load_manifest(name).description.split('. ')[0].rstrip('.')}.")


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name or YAML file.")]) -> None:
    """The resolved manifest as JSON, with every default filled in."""
    from wsisr.building.manifest import load_manifest

    typer.echo(json.dumps(load_manifest(name).to_dict(), indent=2))


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="YAML file, or the name of a built-in manifest.")],
    store: Annotated[
        Path | None, typer.Option(help="A finished store: compare its counts with the expected.")
    ] = None,
) -> None:
    """Whether a manifest is right, and what a build of it holds; with --store, whether one does.

    Exit code 2 with the reason if the manifest is wrong, 1 if the store holds other numbers.
    """
    from wsisr.building.counts import count_store, expected_counts
    from wsisr.building.manifest import load_manifest

    manifest = load_manifest(file)
    typer.echo(f"{file}: a valid manifest, {manifest.name} version {manifest.version}.")
    counts = expected_counts(manifest) if store is None else count_store(store, manifest)
    for item in counts:
        found = "" if item.found is None else f", {item.found:,} in the store"
        mark = "" if item.agrees else "  DIFFERS"
        typer.echo(f"  {item.what}: {item.expected:,} expected{found}{mark}")
    if not all(item.agrees for item in counts):
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """JSON schema of manifests, for editors."""
    from wsisr.building.manifest import manifest_schema

    typer.echo(json.dumps(manifest_schema(), indent=2))
