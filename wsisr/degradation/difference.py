"""Whether two fitted scanners differ: each number's difference against what both are known to."""

from dataclasses import dataclass
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.degradation.fitted import Fitted
from wsisr.degradation.spec import parse_degradation
from wsisr.degradation.uncertainty import tones
from wsisr.errors import DegradationError
from wsisr.tables import markdown_table

BEYOND_CHANCE = 3.3
"""Standard errors that a difference must reach: 1 in 1,000 by chance, for a dozen numbers at once
about 1 in 100."""


NEEDED = {"um_per_px", "uncertainty", "noise_at_200", "width_px", "centroid_x_px", "centroid_y_px"}
"""What must stand in a fit's report."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One number of two scanners.

    Attributes
    ----------
    error : float or None
        Standard error of the difference; None where one of them is not known.
    """

    name: str
    first: float
    second: float
    error: float | None

    @property
    def differs(self) -> bool | None:
        """Whether they differ beyond chance; None where that cannot be told."""
        if self.error is None:
            return None
        return abs(self.first - self.second) > BEYOND_CHANCE * self.error


@dataclass(frozen=True, kw_only=True)
class ScannerComparison:
    """All numbers of two scanners, and the verdict."""

    names: tuple[str, str]
    rows: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """In one sentence."""
        apart = [row.name for row in self.rows if row.differs]
        untold = [row.name for row in self.rows if row.differs is None]
        if apart:
            return f"The scanners differ: {', '.join(apart)}."
        if untold:
            return f"It cannot be told: no uncertainty is known of {', '.join(untold)}."
        return "No difference beyond chance was found; that is no proof that there is none."

    def lines(self) -> list[str]:
        """A Markdown table, the notes and the verdict."""
        rows = []
        words = {True: "yes", False: "no", None: "not known"}
        for row in self.rows:
            error = "-" if row.error is None else f"{row.error:.3g}"
            values = (f"{row.first:.4g}", f"{row.second:.4g}", f"{row.second - row.first:+.3g}")
            rows.append((row.name, *values, error, words[row.differs]))
        header = ["", *self.names, "difference", "standard error", "differs"]
        return [*markdown_table(header, rows), "", *self.notes, self.verdict]


def compare_scanners(first: Path, second: Path) -> ScannerComparison:
    """Compare two profiles that `degrade fit` wrote.

    Raises
    ------
    DegradationError
        A file that is no fitted profile, or one without a report.
    """
    (scanner, report), (other, other_report) = _profile(first), _profile(second)
    reports = [report, other_report]
    um = [float(report["um_per_px"]) for report in reports]
    errors = [dict(report["uncertainty"]) for report in reports]

    def row(name: str, values: tuple[float, float], key: str, units: tuple[float, float]) -> None:
        known = [e.get(key) for e in errors]
        error = None
        if known[0] is not None and known[1] is not None:
            error = hypot(units[0] * float(known[0]), units[1] * float(known[1]))
        rows.append(Difference(name=name, first=values[0], second=values[1], error=error))

    rows: list[Difference] = []
    for key, name in (
        ("width_px", "width of the kernel, um"),
        ("centroid_x_px", "centroid x, um"),
        ("centroid_y_px", "centroid y, um"),
    ):
        values = (um[0] * float(reports[0][key]), um[1] * float(reports[1][key]))
        row(name, values, key, (um[0], um[1]))
    noise = (float(reports[0]["noise_at_200"]), float(reports[1]["noise_at_200"]))
    row("noise at 200, grey levels", noise, "noise_at_200", (1.0, 1.0))
    seen = [tones(np.asarray(stage.tone)) for stage in (scanner, other)]
    for name in seen[0]:
        row(f"{name}, grey levels", (seen[0][name], seen[1][name]), name, (1.0, 1.0))
    return ScannerComparison(
        names=(first.stem, second.stem), rows=tuple(rows), notes=tuple(_notes(reports))
    )


def _profile(path: Path) -> tuple[Fitted, dict[str, Any]]:
    """The scanner and the report of its fit."""
    profile = parse_degradation(path)
    stage, report = profile.stages[0], profile.report or {}
    if not isinstance(stage, Fitted) or not report.keys() >= NEEDED:
        raise DegradationError(
            f"{path}: no fitted scanner with its report; write one with wsisr degrade fit."
        )
    return stage, report


def _notes(reports: list[dict[str, Any]]) -> list[str]:
    notes = []
    a, b = reports
    for key, words in (("origin", "origins"), ("scale", "scales")):
        if a.get(key) != b.get(key):
            notes.append(
                f"Their {words} differ ({a.get(key)} and {b.get(key)}): what is compared is not "
                "the scanners alone."
            )
    if (a.get("quality"), a.get("subsampling")) != (b.get("quality"), b.get("subsampling")):
        notes.append(
            f"JPEG: Q{a.get('quality')} {a.get('subsampling')} and Q{b.get('quality')} "
            f"{b.get('subsampling')}."
        )
    notes.append("Each kernel is that of the LR scanner against its own HR scanner.")
    return notes
