"""The option --plugin, the same for every command that can meet code of one's own."""

from typing import Annotated

import typer

from wsisr_cli.usage import MORE

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


def use(plugins: list[str] | None) -> None:
    """Load what was named, before anything asks for it."""
    from wsisr.plugins import load_plugins

    load_plugins(plugins or ())
