"""Numbers that the papers print, as reference rows: other data, other conventions.

`published.csv` beside this file holds them (PSNR in dB and SSIM as printed), ablations at its end.
Rows of ablations stand in the tables of their studies alone; CWT-Net's IV.5 (9.947 dB) is the
untrained SR branch, as printed.
"""

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

HEADING = "published, other data"
NON_INTEGER = (
    "ISTE's rows of non-integer scales (ISTE 2025, table 2) lie 0.5 to 1 dB off its own integer "
    "rows: compare them with one another only."
)
REFERENCE = "CWT-Net's row at x2 was computed with the HR image fed to its wavelet branch."

ABLATIONS = {
    ("MiHATP 2024", "3"),
    ("ISTE 2023", "2"),
    *(("ISTE 2025", table) for table in ("4", "7", "9")),
    *(("CWT-Net 2024", table) for table in ("II", "III", "IV", "V")),
    *(("MASRGAN 2023", table) for table in ("2", "3")),
}
"""Paper and table of variants of one method."""


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One printed result.

    Attributes
    ----------
    model : str
        Our name of the method; empty where it is not built.
    printed : (str, str)
        Both with the digits that the paper prints.
    """

    paper: str
    table: str
    dataset: str
    method: str
    model: str
    scale: float
    psnr_db: float
    ssim: float
    printed: tuple[str, str]

    @property
    def ablation(self) -> bool:
        """Whether it is a variant, which no line of its method shows."""
        return (self.paper, self.table) in ABLATIONS


@cache
def published() -> tuple[PublishedRow, ...]:
    """Every row."""
    text = files("wsisr.evaluation").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(
        PublishedRow(
            paper=row["paper"],
            table=row["table"],
            dataset=row["dataset"],
            method=row["method"],
            model=row["model"],
            scale=float(row["scale"]),
            psnr_db=float(row["psnr"]),
            ssim=float(row["ssim"]),
            printed=(row["psnr"], row["ssim"]),
        )
        for row in csv.DictReader(text.splitlines())
    )


def published_lines(
    models: Collection[str], scales: Sequence[float]
) -> tuple[tuple[str, dict[float, tuple[float, float]]], ...]:
    """Reference lines of some models (registry names): label, and scale to (PSNR in dB, SSIM)."""
    lines: dict[str, dict[float, tuple[float, float]]] = {}
    for row in published():
        if row.model in models and row.scale in scales and not row.ablation:
            label = f"{row.method}: {row.paper}, {row.dataset}"
            lines.setdefault(label, {})[row.scale] = (row.psnr_db, row.ssim)
    return tuple(lines.items())


def published_notes(models: Collection[str], scales: Sequence[float]) -> tuple[str, ...]:
    """Warnings that belong to the reference lines shown."""
    shown = [row for row in published() if row.model in models and row.scale in scales]
    notes = []
    if any((row.paper, row.table) == ("ISTE 2025", "2") for row in shown):
        notes.append(NON_INTEGER)
    if any(row.model == "cwtnet" and row.scale == 2 for row in shown):
        notes.append(REFERENCE)
    return tuple(notes)
