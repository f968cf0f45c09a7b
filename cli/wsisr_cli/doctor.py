"""`wsisr doctor`: is this machine, and this slide, fit for a build?"""

from pathlib import Path
from typing import Annotated

import typer


def command(
    slide: Annotated[Path | None, typer.Argument(help="A slide to check as well.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where a store would be written.")
    ] = Path(),
) -> None:
    """Check the installation, the disk and, if given, a slide; each fault with its fix."""
    from wsisr.checkup.doctor import Status, examine

    worst = Status.PASS
    for check in examine(output, slide):
        typer.echo(check.line())
        if check.status is Status.FAIL or worst is Status.PASS:
            worst = check.status if check.status is not Status.PASS else worst
    raise typer.Exit(2 if worst is Status.FAIL else 0)
