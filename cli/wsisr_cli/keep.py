"""`wsisr keep`: decide anew which registered pairs count."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    store: Annotated[Path, typer.Argument(help="The pair store, e.g. pairs.zarr.")],
    rule: Annotated[
        str,
        typer.Argument(
            help="Columns, numbers, comparisons, and, or, not, + - * /, abs(): "
            "'spread<0.25 and ncc_band>0.85' (spread in HR px)."
        ),
    ],
) -> None:
    """Re-decide which stored pairs count, from their certificates; reads no slide."""
    from wsisr.store import keep_pairs

    typer.echo(str(keep_pairs(store, rule)))
