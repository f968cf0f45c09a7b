"""The option --dask, the same for every command that shares out slides."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsisr_cli.usage import MORE

if TYPE_CHECKING:
    from wsisr.runners import Runner

Dask = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        rich_help_panel=MORE,
        help="Work on a Dask cluster: tcp://host:port, tls://host:port, or local[:N].",
    ),
]


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
