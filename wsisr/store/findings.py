"""What `verify` says: findings with a severity, a place and a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, or that a person should know.

    Attributes
    ----------
    severity : "error" or "warning"
        Errors make `verify` fail.
    check : str
        What was checked: ``"files"``, ``"metadata"``, ``"checksum"``, ``"digest"``, ``"counts"``,
        ``"geometry"``, ``"splits"``, ``"patients"``, ``"footprint"``, ``"duplicates"``.
    slide : str
        Slide id; empty where the store as a whole is meant.
    array : str
        Array or column; may be empty.
    """

    severity: Severity
    check: str
    text: str
    slide: str = ""
    array: str = ""

    def __str__(self) -> str:
        place = "/".join(part for part in (self.slide, self.array) if part)
        return f"{self.severity.upper()} {self.check}{f' {place}' if place else ''}: {self.text}"


def error(check: str, text: str, slide: str = "", array: str = "") -> Finding:
    return Finding(severity="error", check=check, text=text, slide=slide, array=array)


def warning(check: str, text: str, slide: str = "", array: str = "") -> Finding:
    return Finding(severity="warning", check=check, text=text, slide=slide, array=array)


def shorten(names: Sequence[object]) -> str:
    """``a, b, c and 4 more``."""
    shown = ", ".join(map(str, names[:5]))
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
