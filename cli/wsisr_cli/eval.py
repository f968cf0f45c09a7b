"""`wsisr eval`: tables, statistics and figures of models on held-out pairs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from wsisr_cli.options import Dask, Plugins, runner, use
from wsisr_cli.progress import console_reporter
from wsisr_cli.usage import MORE


def command(
    scales: Annotated[
        str,
        typer.Option(
            help="HR over LR, separated by commas; from 1; real scales too, e.g. 2,3,4,6,8.",
            metavar="NUMBERS",
        ),
    ] = "2,3,4,6,8",
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A run's folder or name, a saved model, a file of weights, or bicubic; repeat. "
            "All runs below --runs by default. Bicubic is always there.",
            metavar="MODEL",
        ),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="SR pictures that another program made from LR of wsisr export: NAME=FOLDER, or "
            "NAME@ARRAY=FOLDER where the store has several LR; repeat for several.",
            metavar="NAME=FOLDER",
            rich_help_panel=MORE,
        ),
    ] = None,
    data: Annotated[Path, typer.Option(help="Pair store, also s3://...", metavar="STORE")] = Path(
        "pairs.zarr"
    ),
    runs: Annotated[Path, typer.Option(help="Folder of training runs.", metavar="FOLDER")] = Path(
        "runs"
    ),
    split: Annotated[
        str,
        typer.Option(help="test; val is stamped, since models were chosen on it.", metavar="NAME"),
    ] = "test",
    lr_source: Annotated[
        str,
        typer.Option(
            help="auto: simulated LR at every scale, and native LR where the store has it; native; "
            "simulated; the name of an array; or a degradation (wsisr degrade list).",
            metavar="SOURCE",
        ),
    ] = "auto",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of results.", metavar="FOLDER")
    ] = Path("eval"),
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="wsisr, hat-y, liif-rgb, pirm, mihatp, iste, swdnet, cwtnet or masrnet; repeat "
            "for several. The first one is the headline. Default: wsisr.",
            metavar="NAME",
        ),
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            help="More scores, separated by commas: ms-ssim, lpips-alex, lpips-vgg, dists, niqe, "
            "sharpness, spectrum, colour.",
            metavar="NAMES",
        ),
    ] = "",
    self_ensemble: Annotated[
        bool,
        typer.Option(
            help="Average over the eight turns and mirrors of the input.", rich_help_panel=MORE
        ),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(help="At most so many patches, spread over the split.", metavar="N"),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="auto, cpu, cuda or cuda:N; cuda:0,cuda:1 or all: several.", metavar="DEVICE"
        ),
    ] = "auto",
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"],
        typer.Option(help="Of inference.", rich_help_panel=MORE),
    ] = "float32",
    tile: Annotated[
        str,
        typer.Option(
            help="auto: the tiles of wsisr upscale, whose pixels are scored; LR px: tiles of that "
            "side; off: whole images, as papers evaluate.",
            metavar="auto|PX|off",
            rich_help_panel=MORE,
        ),
    ] = "auto",
    weights_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder with weights of LPIPS and DISTS: those that it has are scored.",
            metavar="FOLDER",
            rich_help_panel=MORE,
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help="Encoder (TorchScript or ONNX) for FID and KID. A TorchScript file is a program "
            "that runs with your rights: take it from whom you trust.",
            metavar="FILE",
            rich_help_panel=MORE,
        ),
    ] = None,
    features_input: Annotated[
        str,
        typer.Option(
            help="What the encoder is fed with: side in px or same, and imagenet, half, unit or "
            "uint8.",
            metavar="SIDE,SCALING",
            rich_help_panel=MORE,
        ),
    ] = "224,imagenet",
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="What a reference finds in every model's output, in bicubic and in HR itself: "
            "nuclei, glands or classes (the folder tasks/NAME of wsisr train --task), a folder, "
            "or nuclei=NAME of a --plugin's function; repeat for several.",
            metavar="KIND",
        ),
    ] = None,
    truth: Annotated[
        list[Path] | None,
        typer.Option(
            help="With --task: folder of the labelled images; repeatable.",
            metavar="FOLDER",
            rich_help_panel=MORE,
        ),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole",
            help="Score whole images, put together from the patches that cover them, as challenges "
            "do.",
        ),
    ] = False,
    margin: Annotated[
        float | None,
        typer.Option(
            help="With --task: a loss against HR that would not matter, in the units of the task's "
            "first score (0.02 of AJI); tables say which models are shown to lose less."
        ),
    ] = None,
    reference: Annotated[
        Literal["none", "oracle", "oracle-updown"],
        typer.Option(
            help="oracle: CWT-Net is also fed from HR; no table counts that.", rich_help_panel=MORE
        ),
    ] = "none",
    seed: Annotated[int, typer.Option(help="Of random degradations.", rich_help_panel=MORE)] = 0,
    figures: Annotated[
        int,
        typer.Option(
            help="Example sheets per model and column (best, median, worst), 0-3.",
            rich_help_panel=MORE,
        ),
    ] = 3,
    cost: Annotated[
        bool, typer.Option(help="Measure parameters, GMAC, memory and time.", rich_help_panel=MORE)
    ] = True,
    allow_leak: Annotated[
        bool,
        typer.Option(
            help="Go on with models that have seen test patients; stamps LEAKY.",
            rich_help_panel=MORE,
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            help="Replace results of other settings in the output folder.", rich_help_panel=MORE
        ),
    ] = False,
    dask: Dask = None,
    plugin: Plugins = None,
) -> None:
    """Evaluate every run and bicubic on held-out slides: CSV, Markdown, LaTeX, HTML.

    One table has LR of one origin. Run it again to go on after an interruption.
    """
    from wsisr.locks import refuse_held

    refuse_held(output, "evaluation")
    from wsisr.evaluation import EvalSettings, evaluate, parse_scales
    from wsisr.evaluation.tables import overview
    from wsisr.reporting.evaluation_page import write_evaluation_report
    from wsisr.store.object_files import url_of

    use(plugin)
    if dask is not None:  # workers have folders of their own
        data, runs = data if url_of(data) else data.absolute(), runs.absolute()
        model = [str(Path(m).absolute()) if Path(m).exists() else m for m in model or ()]
    settings = EvalSettings(
        scales=parse_scales(scales),
        data=data,
        models=tuple(model or ()),
        images=tuple(images or ()),
        runs=runs,
        split=split,
        lr_source=lr_source,
        output=output,
        protocols=tuple(protocol or ("wsisr",)),
        metrics=tuple(part.strip() for part in metrics.split(",") if part.strip()),
        self_ensemble=self_ensemble,
        limit=limit,
        device=device,
        precision=precision,
        weights_dir=weights_dir,
        features=features,
        features_input=features_input,
        tasks=tuple(task or ()),
        truth=tuple(truth or ()),
        whole=whole,
        margin=margin,
        tile=tile,
        reference=reference,
        allow_leak=allow_leak,
        overwrite=overwrite,
        seed=seed,
        figures=figures,
        cost=cost,
    )
    with console_reporter() as report, runner(dask, (data,)) as cluster:
        results = evaluate(settings, report, runner=cluster)
        page = write_evaluation_report(output, output / "index.html")
    typer.echo(overview(results))
    typer.echo(f"Written: {output}/images.csv, tables.md, tables.tex; look at {page}")
    if results.failed:
        raise typer.Exit(1)
