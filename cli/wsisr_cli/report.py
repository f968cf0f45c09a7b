"""`wsisr report`: one self-contained HTML page of a store, a run, an evaluation, ..."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    path: Annotated[
        Path,
        typer.Argument(
            help="A pair store, a run, a folder of runs, an evaluation, a study, or an audit."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="HTML file, or a folder for report.html. Default: pairs.report/report.html beside "
            "a store, report.html in a run's folder, index.html (as eval writes it) in an "
            "evaluation's.",
            metavar="FILE.html|FOLDER",
        ),
    ] = None,
) -> None:
    """Write one HTML page that needs no network, and its figures as PNG beside it."""
    from wsisr.reporting.writing import write_report

    typer.echo(f"Written: {write_report(path, output)}")
