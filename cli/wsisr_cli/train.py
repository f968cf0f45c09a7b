"""`wsisr train`: a pair store becomes a trained model."""

import os
from pathlib import Path
from typing import Annotated

import typer

from wsisr_cli.options import Plugins, use
from wsisr_cli.progress import console_reporter
from wsisr_cli.usage import MORE

TASK = "With --task"


def command(
    model: Annotated[
        str | None,
        typer.Option(help="Network, e.g. mihatp (see `wsisr models list`).", metavar="NAME"),
    ] = None,
    data: Annotated[
        Path, typer.Option(help="The pair store, also s3://...", metavar="STORE")
    ] = Path("pairs.zarr"),
    scale: Annotated[
        int | None,
        typer.Option(help="HR over LR of a fixed-scale model. [default: 4]", metavar="N"),
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="paper, official, recommended, tiny; auto: by whether there is a GPU.",
            metavar="NAME",
        ),
    ] = "auto",
    lr_source: Annotated[
        str | None,
        typer.Option(
            help="native, a degradation (`wsisr degrade list`), or auto: native LR where the "
            "store has the scale, else simulated. [default: auto]",
            metavar="SOURCE",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="section.key=value, e.g. optim.lr=2e-4; repeatable.", metavar="KEY=VALUE"
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file of any part of the configuration.", metavar="FILE"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Run folder. [default: runs/MODEL-xSCALE]", metavar="FOLDER"
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder, exactly.")
    ] = False,
    init_from: Annotated[
        Path | None,
        typer.Option(
            help="A run, a saved model or foreign weights to start from.", metavar="MODEL"
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of all draws. [default: 0]", rich_help_panel=MORE),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda, cuda:1. [default: a GPU if there is one]", metavar="DEVICE"),
    ] = None,
    synthetic: Annotated[
        bool,
        typer.Option(
            "--synthetic", help="Time the model alone, on random batches.", rich_help_panel=MORE
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Two steps, a validation, and what the run will cost.")
    ] = False,
    card: Annotated[
        list[str] | None,
        typer.Option(
            help="With --dry-run: estimate memory and hours on this card, or on that of a report "
            "of wsisr doctor --gpu; repeatable. [default: one of 24, 40 and 80 GB]",
            metavar="CARD",
            rich_help_panel=MORE,
        ),
    ] = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print the resolved configuration and stop.")
    ] = False,
    json_schema: Annotated[
        bool,
        typer.Option(
            "--json-schema",
            help="Print the configuration's JSON schema and stop.",
            rich_help_panel=MORE,
        ),
    ] = False,
    plugin: Plugins = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="nuclei, glands or classes: fit a reference for wsisr eval --task, in place of a "
            "super-resolution model.",
            metavar="KIND",
            rich_help_panel=TASK,
        ),
    ] = None,
    truth: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of the labelled images; repeatable.",
            metavar="FOLDER",
            rich_help_panel=TASK,
        ),
    ] = None,
    images: Annotated[
        str,
        typer.Option(
            help="What is learnt on. hr, or bicubic or a run: what it makes of LR at --scale.",
            metavar="SOURCE",
            rich_help_panel=TASK,
        ),
    ] = "hr",
    split: Annotated[
        str,
        typer.Option(
            help="Whose images; several with commas.",
            metavar="NAMES",
            rich_help_panel=TASK,
        ),
    ] = "train",
    folds: Annotated[
        int,
        typer.Option(
            min=0,
            help="So many networks, each fitted without a part of the patients, so "
            "that all of them can be tested on.",
            rich_help_panel=TASK,
        ),
    ] = 0,
    runs: Annotated[
        Path,
        typer.Option(help="Where --images finds a run.", metavar="FOLDER", rich_help_panel=TASK),
    ] = Path("runs"),
) -> None:
    """Train a super-resolution model on a pair store; with --task, a reference for a task."""
    from wsisr.errors import ConfigError
    from wsisr.locks import refuse_held

    # At once, but for processes that torchrun starts: one of them holds it for all.
    one = not (dry_run or show_config or synthetic or json_schema or "WORLD_SIZE" in os.environ)
    if output is not None and one:
        refuse_held(output, "training")
    if json_schema:
        from wsisr.training.config import schema_text

        typer.echo(schema_text())
        return
    use(plugin)
    if task is not None:
        if given := [n for n, v in (("model", model), ("config", config), ("init-from", init_from))
                     if v is not None]:  # fmt: skip
            raise ConfigError(f"--{given[0]} does not go with --task")
        from wsisr.tasks import TaskRequest, train_task

        asked = TaskRequest(
            task=task,
            data=data,
            truth=tuple(truth or ()),
            images=images,
            scale=scale,
            lr_source=lr_source or "bicubic",
            split=split,
            folds=folds,
            preset="recommended" if preset == "auto" else preset,
            assignments=tuple(set_ or ()),
            output=output,
            resume=resume,
            seed=seed,
            steps=steps,
            device=device,
            runs=runs,
        )
        with console_reporter() as report:
            ended, place = train_task(asked, report)
        if ended[-1].state == "interrupted":
            typer.echo(f"{place}: interrupted; the same command with --resume goes on.")
            raise typer.Exit(130)
        typer.echo(f"{place}: finished; wsisr eval --task {task}={place} asks it.")
        return
    if model is None:
        raise ConfigError("say which network: --model mihatp (wsisr models list has all)")
    from wsisr.training.request import TrainRequest, config_text

    request = TrainRequest(
        model=model,
        data=data,
        scale=scale,
        preset=preset,
        lr_source=lr_source,
        assignments=tuple(set_ or ()),
        config=config,
        output=output,
        resume=resume,
        init_from=init_from,
        seed=seed,
        steps=steps,
        device=device,
    )
    if show_config:
        typer.echo(config_text(request))
        return
    if card:
        from wsisr.training.cost import choose_cards

        choose_cards(card)
    from wsisr.training.start import outcome_text, train

    with console_reporter() as report:
        if synthetic:
            from wsisr.training.bench import measure_synthetic

            typer.echo(measure_synthetic(request, report))
            return
        outcome, folder = train(request, report, dry_run=dry_run)
    if outcome.main and (outcome.validation or not dry_run):
        typer.echo(outcome_text(outcome, folder, dry_run=dry_run))
    if outcome.main and dry_run:
        from wsisr.training.cost import cost_text

        typer.echo(f"\n{cost_text(request, card or ())}")
    if outcome.state == "interrupted":
        raise typer.Exit(130)
