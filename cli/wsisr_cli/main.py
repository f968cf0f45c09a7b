"""`wsisr`: the commands, and the one place where errors become words and exit codes.

Exit codes: 0 all done; 1 finished, some slides failed; 2 nothing done or bad usage; 75 waiting
for other shares of a build; 130 interrupted.
"""

import atexit
import errno
import gc
import importlib
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from itertools import pairwise
from types import FrameType
from typing import Annotated, Any

import typer

from wsisr_cli.usage import CommandGroup, mount

COMMANDS: dict[str, dict[str, str]] = {
    "From slides to results": {
        "build-pairs": "build_pairs",
        "train": "train",
        "eval": "eval",
        "upscale": "upscale",
        "audit": "audit",
        "report": "report",
    },
    "Stores and slides": {
        "inspect": "inspect",
        "verify": "stores:verify",
        "keep": "stores:keep",
        "export": "stores:export",
        "upload": "stores:upload",
        "tissue": "tissue",
        "register": "register",
        "degrade": "degrade",
    },
    "What is built in": {"manifests": "manifests", "models": "models", "study": "study"},
    "This machine and others": {
        "doctor": "machine:doctor",
        "demo": "machine:demo",
        "bench": "machine:bench",
        "cluster": "cluster",
    },
}
"""Heading -> name -> module of this package with a function `command`, or with a Typer `app`; or a
module and its function."""
_PLACES = {name: (heading, m) for heading, part in COMMANDS.items() for name, m in part.items()}

URLS: dict[str, tuple[str, ...]] = {
    "build-pairs": ("",),
    "inspect": ("",),
    "verify": ("", "--against"),
    "export": ("",),
    "report": ("",),
    "upload": ("",),
    "train": ("--data",),
    "eval": ("--data",),
}
"""Commands that read from addresses: as an argument, or as the value of an option."""

FLAGS = frozenset(
    [
        "--quick",
        "--duplicates",
        "--no-duplicates",
        "--allow-identifiers",
        "--overwrite",
        "--private-ids",
        "--dry-run",
        "--finish",
        "--resume",
    ]
)
"""Options without a value, so that an argument may follow them."""

INTERRUPTED = 130


class Sentences(logging.Formatter):
    """Warnings as sentences, and who says them where it is another library."""

    def format(self, record: logging.LogRecord) -> str:
        if record.levelno < logging.WARNING:
            return f"{record.name}: {super().format(record)}"
        library = record.name.partition(".")[0]
        says = "" if library.startswith("wsisr") else f"{library} says: "
        return f"wsisr: {record.levelname.lower()}: {says}{super().format(record)}"


def _show_warning(message: Warning | str, category: type[Warning], *place: object) -> None:
    """Python's own warnings, without the line of code that they are shown with."""
    logging.getLogger("python").warning("%s (%s)", message, category.__name__)


def _version(asked: bool) -> None:
    if asked:
        import wsisr

        typer.echo(wsisr.__version__)
        raise typer.Exit


class _Commands(CommandGroup):
    """The commands, each module imported when it is named: one run needs one of them."""

    def list_commands(self, ctx: Any) -> list[str]:
        for name in _PLACES:
            self._mounted(name)
        return list(_PLACES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in _PLACES:
            return self._mounted(cmd_name)
        self.list_commands(ctx)  # what a misspelt name may have meant
        return None

    def _mounted(self, name: str) -> Any:
        if name not in self.commands:
            heading, place = _PLACES[name]
            module, _, function = place.partition(":")
            found = importlib.import_module(f"wsisr_cli.{module}")
            parent = _plain_typer()
            mount(parent, name, getattr(found, function or "command", found), heading)
            self.commands[name] = typer.main.get_group(parent).commands[name]
        return self.commands[name]


def _plain_typer(**settings: Any) -> typer.Typer:
    # Plain text: panels of rich wrap paths and commands, which are then not to be copied.
    return typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, **settings)


app = _plain_typer(
    name="wsisr",
    cls=_Commands,
    help="Whole-slide images in, trustworthy super-resolution pairs, models and slides out.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the log of the library.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_version),
    ] = False,
) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(Sentences())
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])
    warnings.showwarning = _show_warning  # type: ignore[assignment]


def _refuse_remote_output(arguments: Sequence[str]) -> None:
    """Of every command, however the option is spelled: ``-o URL``, ``-oURL``, ``--output=URL``."""
    from wsisr.errors import refuse_remote_output

    spelled = [re.sub(r"^(-o|--output=|--picture=)", "", a) for a in arguments if a[:1] == "-"]
    spelled += [b for a, b in pairwise(arguments) if a in ("-o", "--output", "--picture")]
    if arguments[:1] == ["export"]:
        spelled += arguments[2:]
    if arguments[:1] == ["demo"]:
        spelled += arguments[1:]
    for output in spelled:
        refuse_remote_output(output)


def _refuse_remote_input(arguments: Sequence[str]) -> None:
    """A path library makes ``https:/`` of a URL, and then there is no such file."""
    from wsisr.errors import ConfigError

    reads = URLS.get(next(iter(arguments), ""), ())
    for before, argument in pairwise(("", *arguments)):
        option = before if before[:1] == "-" and before not in FLAGS else ""
        if option in (*reads, "--dask"):
            continue
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", argument):
            raise ConfigError(
                f"{argument} is a URL, and local files are read there; copy it here. Stores are "
                "read from addresses by inspect, verify, train --data, eval --data, export and "
                "report, slides by build-pairs; one slide opens in Python with "
                "wsisr.slides.open_slide(url)."
            )


def _take_scheduler_signals() -> None:
    """A scheduler that takes its machine back is a Ctrl-C: exit code 130, what is done is kept."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):  # Windows knows no SIGUSR1
            signal.signal(getattr(signal, name), interrupt)


def _system_fault(error: OSError) -> str:
    """What the system refused, as a sentence with the place and the remedy."""
    places = [os.fsdecode(p) for p in (error.filename, error.filename2) if p is not None]
    where = " -> ".join(places) or "a file"
    remedy = {
        errno.EROFS: "the place is read-only; write to another folder with -o",
        errno.EACCES: "you may not read or write there; write to another folder with -o, or ask "
        "for the permission",
        errno.EPERM: "you may not do that there; write to another folder with -o",
        errno.ENOSPC: "the disk is full; make room, or write to another disk with -o",
        errno.EDQUOT: "the quota is used up; make room, or write to another disk with -o",
        errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
        errno.EFBIG: "no file may grow so large there; write to another disk with -o, or raise the "
        "limit (ulimit -f)",
        errno.ENOTDIR: "a part of that path is a file, not a folder; choose another place with -o",
        errno.EEXIST: "something else of that name is in the way; choose another place with -o",
        errno.EISDIR: "it is a folder, and a file is meant; name a file",
        errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
        errno.ENOENT: "it is not there, or was removed meanwhile",
    }.get(error.errno or 0, "the system refused it; see that the disk is there and whole")
    return f"{where}: {error.strerror or error}: {remedy}."


def main() -> None:
    """Entry point of the `wsisr` script."""
    from wsisr.errors import WsisrError, without_secrets

    # Imports make many objects and no cycles worth the search; at the end the process takes all
    # memory with it, so that nothing has to be searched for once more (0.13 CPU s of a build).
    gc.set_threshold(20_000, 20, 20)
    atexit.register(gc.freeze)
    try:
        _take_scheduler_signals()
        _refuse_remote_output(sys.argv[1:])
        _refuse_remote_input(sys.argv[1:])
        app()
    except WsisrError as error:
        typer.echo(f"wsisr: {error}", err=True)
        raise SystemExit(2) from None
    except BrokenPipeError:
        # Whoever read the output has gone (wsisr ... | head); nothing is left to be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(2) from None
    except OSError as error:
        if error.errno is None:
            raise
        logging.getLogger("wsisr").info("where it happened", exc_info=True)
        typer.echo(f"wsisr: {without_secrets(_system_fault(error))}", err=True)
        raise SystemExit(2) from None
    except Exception as error:
        from wsisr.plugins import at_fault

        place = at_fault(error)
        if not place:
            raise
        logging.getLogger("wsisr").info("where it happened", exc_info=True)
        typer.echo(f"wsisr: a plug-in broke: {place}; mend it there (-v shows it all).", err=True)
        raise SystemExit(2) from None
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            kept = "What was finished is kept; run the same command again to go on (train: with "
            kept += "--resume)."
            if sys.argv[1:2] == ["export"]:
                kept = "What had been exported is removed again and the store is untouched; run "
                kept += "the same command again to export from the start."
            typer.echo(f"wsisr: interrupted. {kept}", err=True)
        raise
