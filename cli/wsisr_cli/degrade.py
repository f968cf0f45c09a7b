"""`wsisr degrade`: simulate LR, fit a simulation to a scanner, compare the two."""

from pathlib import Path
from typing import Annotated

import typer

from wsisr_cli.options import Plugins, White, use

app = typer.Typer(
    help="Simulate LR by a named degradation, fit one to a scanner, compare with native LR.",
    no_args_is_help=True,
)

HrArray = Annotated[
    str | None, typer.Option(help="HR array; the finest by default.", metavar="ARRAY")
]
LrArray = Annotated[
    str | None, typer.Option(help="LR array; the coarsest native one by default.", metavar="ARRAY")
]
_KIND = typer.Option(
    metavar="NAME|FILE",
    help="Degradation: a name (wsisr degrade list), e.g. iste, realesrgan2:mild, "
    "'optics:na=0.3,defocus_um=0..2+sensor+jpeg:quality=80', or a fitted scanner.json.",
)


@app.command("apply")
def apply(
    source: Annotated[Path, typer.Argument(help="An image file or a pair store.")],
    kind: Annotated[str, _KIND],
    scale: Annotated[float, typer.Option(help="HR over LR, at least 1; real scales for images.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="LR image (PNG, TIFF), or the new store.", metavar="FILE|STORE"
        ),
    ],
    hr: Annotated[
        str | None,
        typer.Option(help="Store: array to degrade; the finest by default.", metavar="ARRAY"),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Store: name of the new array.", metavar="ARRAY")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random draws.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing output.")] = False,
    white: White = None,
    rgb: Annotated[bool, typer.Option("--rgb", help="Write RGB for a grey image too.")] = False,
    plugin: Plugins = None,
) -> None:
    """Make LR from HR, and write it with the full parameters.

    A store is copied with one more array; committed stores are never changed.
    """
    use(plugin)
    if source.is_dir():
        from wsisr.degradation.stores import SimulatedArray, degrade_store
        from wsisr_cli.progress import console_reporter

        added = SimulatedArray.of(kind, scale, seed, hr=hr or "", name=name or "")
        with console_reporter() as report:
            made = degrade_store(source, output, added, overwrite=overwrite, report=report)
        typer.echo(f"{output}: array {made}, simulated:{kind} at x{scale:g}")
        return
    from wsisr.degradation.apply import Simulation
    from wsisr.degradation.files import degrade_image

    simulation = Simulation.of(kind, scale, seed)
    record = degrade_image(source, output, simulation, overwrite=overwrite, white=white, rgb=rgb)
    typer.echo(f"{output}, parameters in {record}")


@app.command("fit")
def fit(
    store: Annotated[Path, typer.Argument(help="A pair store with registered, native LR.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Profile, e.g. scanner.json.", metavar="FILE.json"),
    ],
    hr: HrArray = None,
    lr: LrArray = None,
    split: Annotated[
        str, typer.Option(help="Split to fit on; never the one to be tested.", metavar="NAME")
    ] = "train",
    pairs: Annotated[int, typer.Option(help="Pairs to read; a third of them only scores.")] = 24,
) -> None:
    """Fit kernel, tone, noise and JPEG to registered pairs, with JPEG in the loop.

    Writes the profile, which works wherever a degradation's name does, and the kernel as a PNG.
    """
    from wsisr.degradation.stores import PairSelection, fit_store
    from wsisr_cli.progress import console_reporter

    choice = PairSelection(hr=hr, lr=lr, split=split, limit=pairs)
    with console_reporter() as report:
        profile = fit_store(store, output, choice, report=report)
    typer.echo("\n".join(profile.report.lines()))
    typer.echo(f"Written: {output}, {output.with_suffix('.kernel.png')}")


@app.command("compare")
def compare(
    first: Annotated[
        Path,
        typer.Argument(
            metavar="STORE|PROFILE",
            help="A pair store with registered, native LR; or a profile that degrade fit wrote.",
        ),
    ],
    second: Annotated[
        Path | None, typer.Argument(metavar="[PROFILE]", help="Another scanner's profile.")
    ] = None,
    kinds: Annotated[
        str, typer.Option(help="Store: degradations separated by spaces.", metavar="NAMES")
    ] = "bicubic area gaussian iste optics",
    hr: HrArray = None,
    lr: LrArray = None,
    split: Annotated[str, typer.Option(help="Split to look at.", metavar="NAME")] = "train",
    pairs: Annotated[int, typer.Option(help="Pairs to read.")] = 8,
    picture: Annotated[
        Path | None,
        typer.Option(help="PNG of one pair: native, then each simulation.", metavar="FILE.png"),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Two scanners' profiles: do they differ? One store: which simulation is like its LR?"""
    use(plugin)
    if second is not None:
        from wsisr.degradation.difference import compare_scanners

        typer.echo("\n".join(compare_scanners(first, second).lines()))
        return
    from wsisr.degradation.stores import PairSelection, compare_store

    choice = PairSelection(hr=hr, lr=lr, split=split, limit=pairs)
    comparison = compare_store(first, kinds.split(), choice)
    typer.echo(comparison.markdown())
    if picture is not None:
        comparison.write_picture(picture)


@app.command("list")
def list_names(plugin: Plugins = None) -> None:
    """Name every degradation and preset, those of installed packages too."""
    use(plugin)
    from wsisr.degradation.describe import describe_names

    for name, text in describe_names():
        typer.echo(f"{name:24} {text}")


@app.command("show")
def show(
    kind: Annotated[str, typer.Argument(help="A degradation: name, spec string or JSON file.")],
    json: Annotated[
        bool, typer.Option("--json", help="The record with all parameters, as JSON.")
    ] = False,
    plugin: Plugins = None,
) -> None:
    """Show a degradation's stages, parameters, units and ranges."""
    use(plugin)
    from wsisr.degradation.describe import describe, record_json

    typer.echo(record_json(kind) if json else describe(kind))
