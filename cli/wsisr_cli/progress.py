"""Progress events as tqdm bars on a terminal and as plain lines anywhere else."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wsisr.progress import ProgressEvent, Reporter

PLAIN_INTERVAL_S = 10.0


@contextmanager
def console_reporter(quiet: bool = False) -> Iterator[Reporter]:
    """A reporter for the terminal; everything goes to stderr, results belong to stdout."""
    console = _Bars() if sys.stderr.isatty() else _Lines()
    try:
        yield _silent if quiet else console.report
    finally:
        console.close()


def _silent(event: ProgressEvent) -> None:
    """For --quiet: warnings still reach the user through the result."""


class _Bars:
    def __init__(self) -> None:
        from tqdm import tqdm  # here: logs, which have no bars, need not wait for it

        self.make = tqdm
        self.bar: tqdm[Any] | None = None
        self.stage = ""

    def report(self, event: ProgressEvent) -> None:
        if event.total and (self.bar is None or self.stage != event.stage):
            self.close()
            self.stage = event.stage
            self.bar = self.make(total=event.total, desc=event.stage, unit=event.unit or "it")
        if event.message:
            self.make.write(event.message, file=sys.stderr)
        if self.bar is not None and event.stage == self.stage:
            self.bar.total = event.total or self.bar.total
            self.bar.set_postfix_str(event.item[-40:], refresh=False)
            self.bar.update(max(0, event.done - self.bar.n))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class _Lines:
    """One line at most every few seconds, so that a log file stays readable."""

    def __init__(self) -> None:
        self.stage = ""
        self.last = 0.0

    def report(self, event: ProgressEvent) -> None:
        now = time.monotonic()
        if event.message:
            sys.stderr.write(event.message + "\n")
        finished = event.total and event.done >= event.total
        if event.total and (
            event.stage != self.stage or finished or now - self.last >= PLAIN_INTERVAL_S
        ):
            unit = f" {event.unit}s" if event.unit else ""
            sys.stderr.write(f"{event.stage}: {event.done}/{event.total}{unit} {event.item}\n")
            self.stage, self.last = event.stage, now
        sys.stderr.flush()

    def close(self) -> None:
        sys.stderr.flush()
