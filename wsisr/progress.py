"""Progress as typed events: the library reports, whoever calls it decides how to show."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """One step of long work.

    Attributes
    ----------
    stage : str
        What is going on, e.g. ``"scan"`` or ``"extract"``.
    done, total : int
        Units finished and planned; `total` is 0 where it is not known.
    unit : str
        What is counted, e.g. ``"slide"`` or ``"pair"``.
    item : str
        The thing just finished, e.g. a slide id; may be empty.
    message : str
        A sentence for a person, e.g. a warning; may be empty.
    """

    stage: str
    done: int = 0
    total: int = 0
    unit: str = ""
    item: str = ""
    message: str = ""


Reporter = Callable[[ProgressEvent], None]
"""Receives events in order, in the process that started the work."""


def silent(event: ProgressEvent) -> None:
    """A reporter that shows nothing."""
