"""What a run writes as it goes: CSV for people, JSON lines for programs, TensorBoard on demand."""

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsisr.files import replace_file
from wsisr.tables import csv_lines, read_table

LOG_COLUMNS = (
    "step",
    "loss",
    "lr",
    "samples_per_s",
    "data_wait_ms",
    "step_ms",
    "grad_norm",
    "memory_mib",
    "skipped",
)
"""Of ``log.csv`` in every run; a recipe's own terms follow."""
VALIDATION_COLUMNS = (
    "step",
    "psnr_rgb",
    "psnr_y",
    "ssim_rgb",
    "bicubic_psnr_rgb",
    "bicubic_psnr_y",
    "bicubic_ssim_rgb",
    "scale",
)
"""Of ``validation.csv``, one row for each scale."""


class RowLog:
    """A growing CSV file, with JSON lines beside it where `lines` is given.

    Columns are those of the first row. Rows beyond `from_step` of an interrupted run are cut off:
    they will be written again. A run at step 0 validates anew, so that no row stays.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], from_step: int, lines: bool) -> None:
        self.path = path
        self.columns = list(columns)
        self.json = path.with_suffix(".jsonl") if lines else None
        self._cut(from_step)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row; values beyond the columns of the first row are an error."""
        new = not self.path.exists()
        if new:
            self.columns += [key for key in row if key not in self.columns]
        if unknown := row.keys() - set(self.columns):
            raise ValueError(f"{self.path} has no columns {sorted(unknown)}")
        cells = [row.get(name, "") for name in self.columns]
        with self.path.open("ab") as file:
            file.write(csv_lines([self.columns, cells] if new else [cells], ".6g"))
        if self.json is not None:
            with self.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps({k: _plain(v) for k, v in row.items()}) + "\n")

    def _cut(self, from_step: int) -> None:
        if not self.path.exists():
            return
        # A stop may have left half a line.
        lines = [x for x in self.path.read_text(encoding="utf-8").splitlines(True) if x[-1] == "\n"]
        kept = [x for x in lines[1:] if from_step and _number(x.partition(",")[0]) <= from_step]
        if not kept:
            self.path.unlink()
        else:
            self.columns = next(csv.reader(lines[:1]))
            replace_file(self.path, "".join((lines[0], *kept)).encode())
        if self.json is not None and self.json.exists():
            text = self.json.read_text(encoding="utf-8").splitlines(keepends=True)
            replace_file(self.json, "".join(text[: len(kept)]).encode())


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a log as numbers; what is no number is NaN.

    A line that a stop left half-written is passed over.
    """
    if not path.exists():
        return []
    whole = [row for row in read_table(path)[1] if None not in row and None not in row.values()]
    return [{k: _number(v) for k, v in row.items()} for row in whole if row["step"]]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
