"""Options that several commands have, and what is done about --plugin and --dask."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsisr_cli.usage import MORE

if TYPE_CHECKING:
    from wsisr.runners import Runner

Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="FILE.py|MODULE",
        rich_help_panel=MORE,
        help="Networks, degradations, recipes of your own: a Python file or a module, which runs "
        "with your rights; repeatable.",
    ),
]

Mpp = Annotated[
    float | None,
    typer.Option(
        metavar="UM_PER_PX",
        help="Resolution of the finest level in um per px, where the file is silent or wrong.",
    ),
]

FocalPlane = Annotated[
    int | None,
    typer.Option(
        min=1, rich_help_panel=MORE, help="Of several focal planes; default: the middle one."
    ),
]

White = Annotated[
    float | None,
    typer.Option(
        metavar="VALUE",
        rich_help_panel=MORE,
        help="Images of more than 8 bits: the sample value of white.",
    ),
]

Dask = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        rich_help_panel=MORE,
        help="Work on a Dask cluster: tcp://host:port, tls://host:port, or local[:N].",
    ),
]


def use(plugins: list[str] | None) -> None:
    """Load what was named, before anything asks for it."""
    from wsisr.plugins import load_plugins

    load_plugins(plugins or ())


def share(text: str | None) -> tuple[int, int] | None:
    """``3/8`` as (3, 8)."""
    if text is None:
        return None
    first, _, second = text.partition("/")
    if first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise typer.BadParameter(f"{text!r} is no share; write I/N with 1 <= I <= N, e.g. 3/8.")


@contextmanager
def runner(address: str | None, places: Sequence[Path]) -> "Iterator[Runner | None]":
    """Where the slides are worked on, which must see these places; None: on this machine."""
    if address is None:
        yield None
        return
    from wsisr.dask_runner import DaskRunner

    with DaskRunner(address, places) as cluster:
        typer.echo(cluster.about())
        yield cluster
