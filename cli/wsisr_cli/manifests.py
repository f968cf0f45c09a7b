"""`wsisr manifests`: the data sets that are built in."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    help="Built-in data sets: list, show, check a file, files to fetch.", no_args_is_help=True
)


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
        Path | None,
        typer.Option(
            help="A finished store: compare its counts with the expected.", metavar="STORE"
        ),
    ] = None,
) -> None:
    """Whether a manifest is right, and what a build of it holds; with --store, whether one does.

    Exit code 2 with the reason if the manifest is wrong, 1 if the store holds other numbers.
    """
    from wsisr.building.manifest import load_manifest
    from wsisr.checkup.counts import count_store, expected_counts

    manifest = load_manifest(file)
    typer.echo(f"{file}: a valid manifest, {manifest.name} version {manifest.version}.")
    counts = expected_counts(manifest) if store is None else count_store(store, manifest)
    for item in counts:
        found = "" if item.found is None else f", {item.found:,} in the store"
        mark = "" if item.agrees else "  DIFFERS"
        typer.echo(f"  {item.what}: {item.expected:,} expected{found}{mark}")
    if not all(item.agrees for item in counts):
        raise typer.Exit(1)


@app.command("files")
def files_(
    name: Annotated[str, typer.Argument(help="Name of a built-in manifest.")],
    form: Annotated[
        Literal["table", "urls", "s3", "gdc", "checksums"],
        typer.Option(
            "--as",
            help="table; addresses; S3 copy commands; a GDC manifest or its query; checksums.",
        ),
    ] = "table",
    list_: Annotated[
        Path | None,
        typer.Option(
            "--list",
            help="The publisher's own list: checksums (md5sum, sha256sum), a GDC manifest, or the "
            "output of aws s3 ls --recursive.",
            metavar="FILE",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Files of the list whose path fits, e.g. '*images/*'; repeatable.",
            metavar="PATTERN",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Compare this folder with the list; exit code 1 if something is missing.",
            metavar="FOLDER",
        ),
    ] = None,
    read: Annotated[
        bool, typer.Option("--read", help="Also read the files and compare their checksums.")
    ] = False,
) -> None:
    """The publisher's files of a data set, as public sources state them; nothing is downloaded."""
    from wsisr.checkup.folder_comparison import compare_folder
    from wsisr.checkup.published_files import (
        chosen_files,
        describe_files,
        print_as,
        publisher_of,
        read_list,
        unstated,
    )

    given = None if list_ is None else read_list(list_)
    publisher = publisher_of(name) if given is None else unstated(name)
    listed = chosen_files(publisher.files if given is None else given, only or ())
    if folder is not None:
        found = compare_folder(folder, listed, read=read)
        typer.echo("\n".join(found.lines()))
        if not found.complete:
            raise typer.Exit(1)
    elif form == "table":
        typer.echo(describe_files(publisher, listed))
    else:
        typer.echo("\n".join(print_as(form, publisher, listed, "SOURCE")))


@app.command()
def schema() -> None:
    """JSON schema of manifests, for editors."""
    from wsisr.building.manifest import manifest_schema

    typer.echo(json.dumps(manifest_schema(), indent=2))
