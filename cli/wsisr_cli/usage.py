"""How help reads: a screen of options and the rest under "More", and types as people write them."""

import re
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

MORE = "More"
"""Heading of what few people need: ``typer.Option(rich_help_panel=MORE)``."""
OPTIONS = "Options"
_KINDS = {"<str>": "TEXT", "<path>": "PATH", "<Path>": "PATH", "<int>": "N", "<float>": "NUMBER"}


class Command(TyperCommand):
    """A command whose options stand under their headings, in plain text."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options by heading, in the order in which they are declared."""
        parts: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            if param.param_type_name == "argument":
                heading = "Arguments"
                record = record[0].removesuffix(" <str>"), record[1]
            else:
                heading = getattr(param, "rich_help_panel", None) or OPTIONS
            parts.setdefault(heading, []).append(_as_written(*record))
        # --help is declared by nobody and comes last, below what is always shown.
        for heading in sorted(
            parts, key=lambda name: (name == MORE, name not in ("Arguments", OPTIONS))
        ):
            with formatter.section(heading):
                formatter.write_dl(parts[heading])


class CommandGroup(TyperGroup):
    """A group that shows the whole first sentence of each of its commands, headings in order."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Commands by heading."""
        parts: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is None or command.hidden:
                continue
            heading = getattr(command, "rich_help_panel", None)
            said = command.get_short_help_str(limit=400)
            parts.setdefault(str(heading or "Commands"), []).append((name, said))
        for heading, rows in parts.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


def mount(app: typer.Typer, name: str, found: Any, heading: str) -> None:
    """Hang a command, or a module with a group of commands, into the program."""
    if callable(found):
        app.command(name, cls=Command, rich_help_panel=heading)(found)
        return
    for info in found.app.registered_commands:
        info.cls = Command
    app.add_typer(found.app, name=name, cls=CommandGroup, rich_help_panel=heading)


def _as_written(name: str, said: str) -> tuple[str, str]:
    """``--size <int range>  [x>=1]`` as ``--size N  [from 1]``."""
    name = re.sub(r"<list\[(.*?)\]>", r"<\1>", name)
    name = name.replace(" range>", ">")
    for kind, word in _KINDS.items():
        name = name.replace(kind, word)
    name = re.sub(r"<([^<>]*\|[^<>]*)>", r"\1", name)  # choices
    said = re.sub(r"([\d.]+)<=x<=([\d.]+)(?=[\];])", r"\1 to \2", said)
    return name, re.sub(r"x>=([\d.]+)(?=[\];])", r"from \1", said)
