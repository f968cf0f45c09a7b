"""What a page says of a training run: its record and its logs, read without torch."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsisr.inference.trained import TrainedModel
from wsisr.reporting.charts import Chart, Series, chart
from wsisr.training.logs import LOG_COLUMNS, VALIDATION_COLUMNS

FloatArray = NDArray[np.float64]
Log = Mapping[str, FloatArray]

KNOWN_COLUMNS = frozenset((*LOG_COLUMNS, *VALIDATION_COLUMNS))
"""Columns that every run has; others are terms of its recipe."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A run with its logs.

    Attributes
    ----------
    run : TrainedModel
    log, validation : mapping of str to ndarray
        Columns of ``log.csv`` and ``validation.csv``; empty where there is none.
    """

    run: TrainedModel
    log: Log
    validation: Log

    @property
    def skipped(self) -> int:
        """Steps whose update was left out because a value was not finite."""
        # The log counts from the start of the run, and so the last row has them all.
        values = self.log.get("skipped", np.empty(0))
        values = values[np.isfinite(values)]
        return int(values.max()) if len(values) else 0

    def scales(self) -> list[float]:
        """Scales of the validation."""
        values = self.validation.get("scale", np.empty(0))
        return [float(value) for value in np.unique(values[np.isfinite(values)])]

    def validation_at(self, scale: float) -> Log:
        """Rows of one scale."""
        rows = self.validation["scale"] == scale
        return {name: values[rows] for name, values in self.validation.items()}

    def best(self) -> dict[str, float]:
        """Validation row of the best step: at its first scale, or where PSNR was highest."""
        if not self.scales():
            return {}
        rows = self.validation_at(self.scales()[0])
        best = self.run.document.get("best") or {}
        at = np.flatnonzero(rows["step"] == best.get("step", -1))
        psnr = np.where(np.isfinite(rows["psnr_rgb"]), rows["psnr_rgb"], -np.inf)
        index = int(at[-1]) if len(at) else int(np.argmax(psnr))
        return {name: float(values[index]) for name, values in rows.items()}

    def seconds(self) -> float:
        """Time spent in steps and in waiting for data, from the log; NaN where it has none."""
        need = ("step", "step_ms")
        if any(name not in self.log for name in need) or not len(self.log["step"]):
            return float("nan")
        steps = np.diff(self.log["step"], prepend=0.0)
        wait = self.log.get("data_wait_ms", np.zeros(len(steps)))
        each = np.nan_to_num(self.log["step_ms"]) + np.nan_to_num(wait)
        return float((np.maximum(steps, 0.0) * each).sum() / 1000)


def read_run(run: TrainedModel) -> RunFacts:
    """The logs of a run; a line that a stop left half-written is passed over."""
    return RunFacts(
        run=run,
        log=read_columns(run.folder / "log.csv"),
        validation=read_columns(run.folder / "validation.csv"),
    )


def read_columns(path: Path) -> Log:
    """Columns of a CSV file as numbers; what is no number is NaN."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as lines:
        reader = csv.reader(lines)
        names = next(reader, [])
        rows = [row for row in reader if len(row) == len(names)]
    return {
        name: np.array([_number(row[index]) for row in rows], np.float64)
        for index, name in enumerate(names)
    }


def curves(facts: RunFacts) -> dict[str, Chart]:
    """Charts of a run by file name."""
    found: dict[str, Chart] = {}
    log = facts.log
    for name, key, label in (("psnr-rgb", "psnr_rgb", "RGB"), ("psnr-y", "psnr_y", "Y")):
        series = _validation_series(facts, key)
        if series:
            found[name] = chart(
                series, title=f"Validation PSNR-{label}", x_label="step", y_label="dB", **_SIZE
            )
    series = _validation_series(facts, "ssim_rgb")
    if series:
        found["ssim-rgb"] = chart(
            series, title="Validation SSIM-RGB", x_label="step", y_label="SSIM", **_SIZE
        )
    for name, title, keys, unit in (
        ("loss", "Loss", ("loss",), "loss"),
        ("learning-rate", "Learning rate", ("lr",), "learning rate"),
        ("gradient", "Norm of the gradient", ("grad_norm",), "norm"),
        ("speed", "Speed", ("samples_per_s",), "samples per second"),
        ("times", "Time of a step", ("step_ms", "data_wait_ms"), "ms"),
        ("memory", "Memory", ("memory_mib",), "MiB"),
    ):
        lines = [Series(_WORDS.get(key, key), log["step"], log[key]) for key in keys if key in log]
        if lines and any(np.isfinite(log[key]).any() for key in keys if key in log):
            found[name] = chart(lines, title=title, x_label="step", y_label=unit, **_SIZE)
    for key in log:
        if key not in KNOWN_COLUMNS and np.isfinite(log[key]).any():
            one = [Series(key, log["step"], log[key])]
            found[f"term-{key}"] = chart(
                one, title=f"Term of the recipe: {key}", x_label="step", y_label=key, **_SIZE
            )
    return found


_SIZE: dict[str, Any] = {"width_px": 580, "height_px": 320}
_WORDS = {"step_ms": "step", "data_wait_ms": "waiting for data"}


def _validation_series(facts: RunFacts, key: str) -> list[Series]:
    """The model over steps at each scale, and bicubic, which does not change, beside it."""
    if key not in facts.validation:
        return []
    series = []
    for scale in facts.scales():
        at = facts.validation_at(scale)
        rows = after_start(at)
        series.append(Series(f"{facts.run.model} x{scale:g}", at["step"][rows], at[key][rows]))
        base = at.get(f"bicubic_{key}")
        if base is not None:
            series.append(Series(f"bicubic x{scale:g}", at["step"][rows], base[rows]))
    return series


def after_start(validation: Log) -> NDArray[np.bool_]:
    """Rows to draw: an untrained model at step 0 would squeeze all others into one line."""
    started = validation["step"] > 0
    return started if started.sum() >= 2 else np.ones(len(started), bool)


def duration(seconds: float) -> str | None:
    """Hours and minutes, or seconds; None if not known."""
    if not isfinite(seconds) or seconds <= 0:
        return None
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
