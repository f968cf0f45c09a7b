"""Curves of an evaluation: scores against scale and against time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsisr.drawing.charts import ChartSeries, chart
from wsisr.drawing.vector import Chart, save_charts
from wsisr.evaluation.cost import CostRow
from wsisr.evaluation.downstream import agreement_charts
from wsisr.evaluation.examples import FOLDER, slug
from wsisr.evaluation.groups import Group
from wsisr.evaluation.settings import scale_label
from wsisr.evaluation.summary import Cell, Results, ScoreTable


def _scale_chart(table: ScoreTable) -> Chart | None:
    """Score against scale, one line a model; None below two scales."""
    if len(table.scales) < 2:
        return None
    series = []
    for group, cells in table.lines:
        scales = [scale for scale in table.scales if scale in cells]
        if scales:
            series.append(_series(group, scales, [cells[scale] for scale in scales]))
    return chart(
        series,
        title=f"{_plain(table)} against scale, LR {table.origin}",
        x_label="scale (HR / LR)",
        y_label=str(table.score["title"]),
    )


def _speed_chart(results: Results, costs: Sequence[CostRow], table: ScoreTable) -> Chart | None:
    """Score against time per output megapixel at the scale that most models have."""
    scale = reference_scale(table.scales, results)
    times = {row.run: row.ms_per_mpx for row in costs if row.query_px == 0 and row.scale == scale}
    series = [
        _series(group, [times[group.members[0]]], [cells[scale]])
        for group, cells in table.lines
        if scale in cells and group.members[0] in times
    ]
    if len(series) < 2:
        return None
    return chart(
        series,
        title=f"{_plain(table)} against time, {scale_label(scale)}, LR {table.origin}",
        x_label=f"ms per 10^6 output px ({costs[0].device})",
        y_label=str(table.score["title"]),
        log_x=True,
    )


def _series(group: Group, x: Sequence[float], cells: Sequence[Cell]) -> ChartSeries:
    """Means with their intervals; one alone is a point."""
    mean, low, high = np.array([(c.summary.mean, c.summary.low, c.summary.high) for c in cells]).T
    return ChartSeries(group.label, x, mean, low, high, "line" if len(x) > 1 else "points")


def reference_scale(scales: Sequence[float], results: Results | None = None) -> float:
    """The scale that stands for all: that of most fixed-scale models, else 4, else the middle."""
    own = [
        float(record["scale"])
        for group in (results.groups if results is not None else ())
        for record in group.records
        if record["scale"] in scales
    ]
    if own:
        return max(sorted(set(own)), key=own.count)
    return 4.0 if 4.0 in scales else sorted(scales)[len(scales) // 2]


def score_charts(results: Results, costs: Sequence[CostRow]) -> dict[str, Chart]:
    """The headline's curves of each origin, by name; those that can be drawn."""
    drawn: dict[str, Chart | None] = {}
    for origin in results.origins:
        table = headline_table(results, origin)
        drawn[f"scale-{slug(origin)}"] = _scale_chart(table)
        drawn[f"speed-{slug(origin)}"] = _speed_chart(results, costs, table)
    return {name: one for name, one in drawn.items() if one is not None}


def draw_charts(results: Results, costs: Sequence[CostRow], folder: Path) -> list[str]:
    """Write the curves as PNG, and as PDF and SVG for papers; returns the files' stems."""
    made = score_charts(results, costs) | agreement_charts(results)
    save_charts(folder / FOLDER, made)
    return [f"{FOLDER}/{name}" for name in made]


def headline_table(results: Results, origin: str) -> ScoreTable:
    """The table of the headline score on LR of an origin."""
    name = results.headline["name"]
    return next(t for t in results.tables if t.origin == origin and t.score["name"] == name)


def _plain(table: ScoreTable) -> str:
    return str(table.score["title"]).partition(",")[0]
