"""`wsisr study`: tables of the papers, each as one command."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from wsisr_cli.options import Plugins, share, use

app = typer.Typer(
    help="Tables of the papers: list, show, run; ours beside theirs.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="name", help="A built-in study, or a YAML file.")]


@app.command("list")
def list_() -> None:
    """Name, title and number of rows of every built-in study."""
    from wsisr.studies import load_study, study_names

    for name in study_names():
        study = load_study(name)
        typer.echo(f"{name:16} {study.title} ({len(study.rows)} rows)")


@app.command()
def show(name: Name) -> None:
    """Rows, settings, scales, data and readings of a study, and how to build its data."""
    from wsisr.evaluation.settings import scale_label
    from wsisr.studies import load_study

    study = load_study(name)
    typer.echo(f"{study.name}: {study.title}")
    typer.echo(f"scales {', '.join(map(scale_label, study.scales))}; protocol {study.protocol}")
    for dataset, manifest in study.data.items():
        typer.echo(f"data {dataset}: wsisr build-pairs FOLDER --manifest {manifest}")
    for row in study.rows:
        what = " ".join([row.model, *row.set]) if row.model else f"not run: {row.why_not}"
        start = f", from {row.init_from}" if row.init_from else ""
        typer.echo(f"  {row.id:12} {row.label}: {what}{start}")
    for reading in study.readings:
        typer.echo(f"reading: {reading}")


@app.command()
def run(
    name: Name,
    data: Annotated[Path, typer.Option(help="Pair store.", metavar="STORE")] = Path("pairs.zarr"),
    budget: Annotated[
        Literal["tiny", "paper"],
        typer.Option(help="tiny: that it runs, in the title of all it makes; paper: days."),
    ] = "tiny",
    rows: Annotated[
        str | None,
        typer.Option(help="Ids, comma-separated (wsisr study show); default: all.", metavar="IDS"),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            help="I/N: train this share alone; run without --part evaluates.", metavar="I/N"
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of each training.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Trainings of each row.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Test patches.")] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:1.", metavar="DEVICE")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder; default: studies/NAME-BUDGET.", metavar="FOLDER"
        ),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Train and evaluate every row of a study. Run the same command again to resume.

    Writes runs/, eval/, table.md, table.tex and index.html. Exit code 1 where a row failed.
    """
    from wsisr.reporting.study_page import write_study_report
    from wsisr.studies import load_study, run_study
    from wsisr.studies.definition import BUDGETS
    from wsisr.studies.running import StudyRequest
    from wsisr_cli.progress import console_reporter

    use(plugin)
    study = load_study(name)
    changes = {"steps": steps, "seeds": seeds, "limit": limit}
    given = {key: value for key, value in changes.items() if value is not None}
    folder = output or Path("studies") / f"{study.name}-{budget}"
    request = StudyRequest(
        study=study,
        budget=BUDGETS[budget].model_copy(update=given),
        data=data,
        output=folder,
        rows=tuple(part.strip() for part in (rows or "").split(",") if part.strip()),
        part=share(part),
        device=device,
    )
    with console_reporter() as report:
        outcome = run_study(request, report)
    if outcome.interrupted:
        raise typer.Exit(130)
    if outcome.evaluated:
        page = write_study_report(folder)
        typer.echo((folder / "table.md").read_text(encoding="utf-8"))
        typer.echo(f"Written: {page}")
    else:
        typer.echo(f"{outcome.trained} runs are finished; without --part they are evaluated.")
    if outcome.failed:
        raise typer.Exit(1)
