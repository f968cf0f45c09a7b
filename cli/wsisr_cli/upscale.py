"""`wsisr upscale`: a slide or image in, a larger one out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsisr_cli.options import Dask, FocalPlane, Mpp, Plugins, White, runner, share, use
from wsisr_cli.progress import console_reporter
from wsisr_cli.usage import MORE

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsisr.geometry import Box


def command(
    source: Annotated[
        Path, typer.Argument(help="A slide, an image, a DICOM folder, or a folder of them.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="OUT.ome.tiff or OUT.ome.zarr, a .png/.jpg of an image, or a folder.",
            metavar="OUT",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="auto: the network that ships which fits the slide; he-x4 or he-any: that "
            "one; a run, a saved model, a file of weights, or bicubic.",
            metavar="MODEL",
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="Output px per input px; default: that of a fixed-scale model."),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Magnification to read, e.g. 10x; default: the finest level.",
            metavar="10x",
        ),
    ] = None,
    level_mpp: Annotated[
        float | None,
        typer.Option(
            help="Resolution to read instead, um per px, e.g. 1.0.",
            metavar="UM_PER_PX",
            rich_help_panel=MORE,
        ),
    ] = None,
    mpp: Mpp = None,
    region: Annotated[
        str | None,
        typer.Option(
            help="Only this part: x,y,width,height in level-0 px.", metavar="X,Y,WIDTH,HEIGHT"
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            help="auto, cpu, cuda or cuda:N; several for a folder: cuda:0,cuda:1 or all.",
            metavar="DEVICE",
        ),
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="auto (bfloat16 on a GPU), float32 or bfloat16.",
            metavar="auto|float32|bfloat16",
            rich_help_panel=MORE,
        ),
    ] = "auto",
    tile: Annotated[
        str,
        typer.Option(
            help="Side of a tile in input px, or auto: from the free memory.", metavar="auto|PX"
        ),
    ] = "auto",
    halo: Annotated[
        int | None,
        typer.Option(
            help="Context around a tile in input px; default: what the model needs.",
            metavar="PX",
            rich_help_panel=MORE,
        ),
    ] = None,
    pool: Annotated[
        str,
        typer.Option(
            help="What networks with global pooling pool over: local (the size of their training "
            "crops around each pixel; tiles then give what the whole would) or tile.",
            metavar="local|tile",
            rich_help_panel=MORE,
        ),
    ] = "local",
    compression: Annotated[
        str | None,
        typer.Option(
            help="jpeg, deflate (= lossless): open everywhere; zstd: not in every libvips; "
            "jpeg2000: not in OpenSlide; jpegxl: in tifffile and tiffslide alone. "
            "Default: jpeg; an OME-Zarr is always zstd, DICOM jpeg or lossless (JPEG 2000).",
            metavar="NAME",
        ),
    ] = None,
    quality: Annotated[
        int, typer.Option(help="Of lossy compression, 1-100; from 90 JPEG keeps full chroma.")
    ] = 90,
    part: Annotated[
        str | None,
        typer.Option(
            help="I/N: this run's share of a folder, e.g. 3/8, one per GPU.",
            metavar="I/N",
            rich_help_panel=MORE,
        ),
    ] = None,
    mask: Annotated[
        bool,
        typer.Option(
            help="Fill background by bicubic instead of the network.", rich_help_panel=MORE
        ),
    ] = True,
    focal_plane: FocalPlane = None,
    white: White = None,
    rgb: Annotated[
        bool, typer.Option("--rgb", help="Write RGB for a grey image too.", rich_help_panel=MORE)
    ] = False,
    compare: Annotated[
        Path | None,
        typer.Option(
            help="A finer slide of the same glass (or the input itself): metrics by region, a "
            "difference map and a viewer in OUT.compare/.",
            metavar="SLIDE",
        ),
    ] = None,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit",
            help="Look at the output before it gets its name: where it contradicts its input, "
            "patterns, tile borders, glass (OUT.audit/); with --compare the viewer has the maps.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing output.")
    ] = False,
    dask: Dask = None,
    plugin: Plugins = None,
) -> None:
    """Make a slide or image sharper. Run the same command again to go on after an interruption."""
    from wsisr.errors import ConfigError
    from wsisr.magnification import parse_magnification
    from wsisr.upscaling import UpscaleOptions, UpscaleRequest, upscale

    use(plugin)
    if model is None:
        raise ConfigError(
            f"Say by which network: wsisr upscale {source} --model auto -o {output}  (auto takes "
            "the one that ships which fits; runs/... is one of your own, bicubic is none)."
        )
    if dask is not None:  # workers have folders of their own
        source, output = source.absolute(), output.absolute()
        model = str(Path(model).absolute()) if Path(model).exists() else model
    request = UpscaleRequest(
        source=source,
        output=output,
        model=model,
        options=UpscaleOptions(
            scale=scale,
            magnification=None if from_ is None else parse_magnification(from_),
            level_um_per_px=level_mpp,
            mpp=mpp,
            region=_region(region),
            tile_px=_tile(tile),
            halo_px=halo,
            compression=compression,
            quality=quality,
            mask=mask,
            overwrite=overwrite,
            white=white,
            focal_plane=focal_plane,
            rgb=rgb,
        ),
        device=device,
        precision=precision,
        pool=pool,
        part=share(part),
        compare=compare,
        audit=_page_writer() if audit else None,
    )
    try:
        with console_reporter() as report, runner(dask, (source, output.parent)) as cluster:
            summary = upscale(request, report, cluster)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    typer.echo(summary.text())
    raise typer.Exit(summary.exit_code)


def _page_writer() -> "Callable[[Path], object]":
    from wsisr.reporting import write_report

    return write_report


def _region(text: str | None) -> "Box | None":
    from wsisr.geometry import Box

    if text is None:
        return None
    fields = text.split(",")
    try:
        x, y, width, height = (int(field) for field in fields)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no region; write x,y,width,height in level-0 px, e.g. 0,0,4096,4096."
        ) from None
    return Box(x=x, y=y, width=width, height=height)


def _tile(text: str) -> int | None:
    if text == "auto":
        return None
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise typer.BadParameter(f"{text!r} is no tile size; write auto or a number of input px.")
