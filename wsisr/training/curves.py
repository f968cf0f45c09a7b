"""Curves of a run, from its logs: for the page, and as ``curves.png`` in the run's folder."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from wsisr.arrays import BoolArray, Float64Array
from wsisr.drawing.charts import ChartSeries, chart
from wsisr.drawing.vector import Chart
from wsisr.files import save_picture
from wsisr.training.logs import LOG_COLUMNS, VALIDATION_COLUMNS, read_rows

Log = Mapping[str, Float64Array]
KNOWN_COLUMNS = frozenset((*LOG_COLUMNS, *VALIDATION_COLUMNS))
"""Columns that every run has; others are terms of its recipe."""
SIZE_PX = (420, 290)


def read_columns(path: Path) -> Log:
    """Columns of a log as numbers; what is no number is NaN."""
    rows = read_rows(path)
    return {name: np.array([row[name] for row in rows], np.float64) for name in (rows or [{}])[0]}


def scales_of(validation: Log) -> list[float]:
    """Scales of a validation."""
    values = validation.get("scale", np.empty(0))
    return [float(value) for value in np.unique(values[np.isfinite(values)])]


def at_scale(validation: Log, scale: float) -> Log:
    """Rows of one scale."""
    rows = validation["scale"] == scale
    return {name: values[rows] for name, values in validation.items()}


def after_start(validation: Log) -> BoolArray:
    """Rows to draw: an untrained model at step 0 would squeeze all others into one line."""
    started = validation["step"] > 0
    return started if started.any() else np.ones(len(started), bool)


def run_curves(model: str, log: Log, validation: Log) -> dict[str, Chart]:
    """Charts of a run by file name."""
    found: dict[str, Chart] = {}
    for name, key, title, unit in (
        ("psnr-rgb", "psnr_rgb", "Validation PSNR-RGB", "PSNR-RGB, dB"),
        ("psnr-y", "psnr_y", "Validation PSNR-Y", "PSNR-Y, dB"),
        ("ssim-rgb", "ssim_rgb", "Validation SSIM-RGB", "SSIM-RGB"),
    ):
        series = _validation_series(model, validation, key)
        if series:
            found[name] = _chart(series, title, unit)
    for name, title, keys, unit in (
        ("loss", "Loss", {"loss": "loss"}, "loss"),
        ("learning-rate", "Learning rate", {"lr": "learning rate"}, "learning rate"),
        ("gradient", "Norm of the gradient", {"grad_norm": "norm"}, "norm"),
        ("speed", "Speed", {"samples_per_s": "speed"}, "samples per second"),
        ("times", "Time of a step", {"step_ms": "step", "data_wait_ms": "waiting for data"}, "ms"),
        ("memory", "Memory", {"memory_mib": "memory"}, "MiB"),
        *((f"term-{k}", f"Term of the recipe: {k}", {k: k}, k) for k in log),
    ):
        known = [key for key in keys if key in log and np.isfinite(log[key]).any()]
        if known and not (name.startswith("term-") and known[0] in KNOWN_COLUMNS):
            lines = [ChartSeries(keys[key], log["step"], log[key]) for key in known]
            found[name] = _chart(lines, title, unit)
    return found


def _chart(series: list[ChartSeries], title: str, unit: str) -> Chart:
    return chart(series, title=title, x_label="step", y_label=unit, size_px=SIZE_PX)


def _validation_series(model: str, validation: Log, key: str) -> list[ChartSeries]:
    """The model over steps at each scale, and bicubic, which does not change, beside it."""
    series = []
    for scale in scales_of(validation) if key in validation else ():
        at = at_scale(validation, scale)
        rows = after_start(at)
        series.append(ChartSeries(f"{model} x{scale:g}", at["step"][rows], at[key][rows]))
        base = at.get(f"bicubic_{key}")
        if base is not None:
            series.append(ChartSeries(f"bicubic x{scale:g}", at["step"][rows], base[rows]))
    return series


def write_curves(folder: Path, model: str) -> None:
    """Draw ``curves.png``: validation PSNR beside bicubic and, below it, the loss."""
    logs = (read_columns(folder / name) for name in ("log.csv", "validation.csv"))
    drawn = run_curves(model, *logs)
    pictures = [drawn[name].image() for name in ("psnr-rgb", "loss") if name in drawn]
    if pictures:
        save_picture(folder / "curves.png", np.concatenate(pictures, axis=0))
