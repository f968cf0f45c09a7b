"""Progress events as tqdm bars on a terminal and as plain lines anywhere else."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wsisr.progress import ProgressEvent, Reporter
from wsisr.words import duration

PLAIN_INTERVAL_S = 10.0


@contextmanager
def console_reporter() -> Iterator[Reporter]:
    """A reporter for the terminal; everything goes to stderr, results belong to stdout."""
    console = _Bars() if sys.stderr.isatty() else _Lines()
    try:
        yield console.report
    finally:
        console.close()


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
        self.began, self.first = 0.0, 0

    def report(self, event: ProgressEvent) -> None:
        now = time.monotonic()
        if event.message:
            sys.stderr.write(event.message + "\n")
        finished = event.total and event.done >= event.total
        if event.total and event.stage != self.stage:
            self.stage, self.last = event.stage, now - PLAIN_INTERVAL_S
            # What an earlier run had done says nothing of how fast this one is.
            self.began, self.first = now, event.done
        if event.total and (finished or now - self.last >= PLAIN_INTERVAL_S):
            plural = "es" if event.unit.endswith("ch") else "s"
            unit = f" {event.unit}{plural}" if event.unit else ""
            done = f"{event.stage}: {event.done}/{event.total}{unit}"
            said = [done, event.item, self._left(now, event)]
            sys.stderr.write(", ".join(part for part in said if part) + "\n")
            self.last = now
        sys.stderr.flush()

    def _left(self, now: float, event: ProgressEvent) -> str:
        """How long the rest takes at the pace so far; empty where that is not known yet."""
        made, rest = event.done - self.first, event.total - event.done
        left = duration((now - self.began) / made * rest) if made > 0 and rest > 0 else None
        return f"about {left} left" if left else ""

    def close(self) -> None:
        sys.stderr.flush()
