"""Pictures and curves of an evaluation."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.evaluation.columns import Column, Sample, read_pair
from wsisr.evaluation.cost import CostRow
from wsisr.evaluation.inference import Engines
from wsisr.evaluation.plan import Plan
from wsisr.evaluation.scoring import to_uint8
from wsisr.evaluation.settings import scale_label
from wsisr.evaluation.sheets import (
    VIEW_PX,
    Panel,
    choose_examples,
    detail_window,
    draw_sheet,
    enlarge,
)
from wsisr.evaluation.summary import Results, Table
from wsisr.files import save_picture
from wsisr.geometry import Box
from wsisr.inference.tiles import plan_frame
from wsisr.inference.trained import BASELINE, TrainedModel
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.reporting.charts import Chart, Series, chart

FOLDER = "figures"


def draw_examples(
    plan: Plan, results: Results, folder: Path, report: Reporter = silent
) -> list[dict[str, Any]]:
    """Write the example sheets; returns file, caption and place of each.

    Of a patch, the view alone is enlarged once more, to the pixels that were scored; the scores
    beside it are those of the whole patch.
    """
    out = folder / FOLDER
    out.mkdir(parents=True, exist_ok=True)
    engines = Engines(plan, report)
    made: list[dict[str, Any]] = []
    shown = {group.members[0]: group.label for group in results.groups}
    for column in plan.columns:
        entries = [e for e in plan.entries if e.name in shown and e.serves(column.scale)]
        scores = _scores(results, column, [e.name for e in entries])
        trained = {n: v for n, v in scores.items() if n != BASELINE} or scores
        chosen = choose_examples(trained, results.headline["better"], plan.settings.figures)
        samples = {(s.slide, s.row): s for s in column.samples}
        sheets = {place: _Sheet(plan, column, samples[place]) for place in chosen}
        for entry in entries:
            for place, sheet in sheets.items():
                if place in scores[entry.name]:
                    note = _note(scores[entry.name][place], results.headline)
                    sheet.add(engines, entry, note)
        for number, (place, reasons) in enumerate(chosen.items(), start=1):
            sheet = sheets[place]
            name = f"{_slug(column.origin)}-{column.label}-{number}.png"
            save_picture(out / name, draw_sheet(sheet.view, sheet.panels), optimize=True)
            made.append(
                {
                    "file": f"{FOLDER}/{name}",
                    "origin": column.origin,
                    "scale": column.scale,
                    "slide": place[0],
                    "row": place[1],
                    "reasons": reasons,
                    "models": [panel.title for panel in sheet.panels[1:]],
                }
            )
            report(
                ProgressEvent(
                    stage="figures", done=number, total=len(chosen), unit="sheet", item=name
                )
            )
    return made


def _scores(
    results: Results, column: Column, names: Sequence[str]
) -> dict[str, dict[tuple[str, int], float]]:
    score = results.headline["name"]
    found: dict[str, dict[tuple[str, int], float]] = {name: {} for name in names}
    for row in results.rows:
        if row.run in found and row.origin == column.origin and row.scale == column.scale:
            found[row.run][row.slide, row.row] = row.scores[score]
    return found


def _note(value: float, headline: Mapping[str, Any]) -> str:
    if math.isnan(value):
        return ""
    unit = " dB" if headline["name"].startswith("psnr") else ""
    return f"{value:.{headline['digits'] - 1}f}{unit}"


class _Sheet:
    """A view of one patch: its HR, and a panel for each model."""

    def __init__(self, plan: Plan, column: Column, sample: Sample) -> None:
        self.column, self.sample = column, sample
        self.lr, hr = read_pair(plan.store, column, [sample], plan.settings.seed, plan.device)
        whole = to_uint8(hr.float() / 255.0)[0]
        side = min(VIEW_PX, *whole.shape[:2])
        y, x = detail_window(whole, side)
        self.view = whole[y : y + side, x : x + side]
        # The LR px that the view touches, and where it begins in their output.
        height, width = int(self.lr.shape[-2]), int(self.lr.shape[-1])
        top, bottom = y * height // whole.shape[0], -(-(y + side) * height // whole.shape[0])
        left, right = x * width // whole.shape[1], -(-(x + side) * width // whole.shape[1])
        self.region = Box(x=left, y=top, width=right - left, height=bottom - top)
        made = plan_frame(width, height, column.scale, self.region).region
        dy, dx = y - made.y, x - made.x
        self._part = (slice(dy, dy + side), slice(dx, dx + side))
        small = to_uint8(self.lr[..., top:bottom, left:right].float() / 255.0)[0]
        lr = enlarge(small, made.height, made.width)[self._part]
        self.panels = [Panel(title="LR", note=column.label, image=lr, error=False)]

    def add(self, engines: Engines, entry: TrainedModel, note: str) -> None:
        """The panel of a model: the pixels that were scored."""
        sr = engines.predict(entry, self.column, self.lr, region=self.region, samples=[self.sample])
        self.panels.append(Panel(title=entry.name, note=note, image=to_uint8(sr)[0][self._part]))


def scale_chart(results: Results, table: Table) -> Chart | None:
    """Score against scale, one line a model; None below two scales."""
    if len(table.scales) < 2:
        return None
    series = []
    for group, cells in table.lines:
        scales = [scale for scale in table.scales if scale in cells]
        summaries = [cells[scale].summary for scale in scales]
        series.append(
            Series(
                name=group.label,
                x=np.array(scales),
                y=np.array([s.mean for s in summaries]),
                low=np.array([s.low for s in summaries]),
                high=np.array([s.high for s in summaries]),
                kind="line" if len(scales) > 1 else "points",
            )
        )
    return chart(
        series,
        title=f"{_plain(table)} against scale, {table.origin}",
        x_label="scale (HR / LR)",
        y_label=str(table.score["title"]),
    )


def speed_chart(results: Results, costs: Sequence[CostRow], table: Table) -> Chart | None:
    """Score against time per output megapixel at the scale that most models have."""
    scale = reference_scale(table.scales, results)
    times = {row.run: row.ms_per_mpx for row in costs if row.query_px == 0 and row.scale == scale}
    series = []
    for group, cells in table.lines:
        if scale in cells and group.members[0] in times:
            summary = cells[scale].summary
            series.append(
                Series(
                    name=group.label,
                    x=np.array([times[group.members[0]]]),
                    y=np.array([summary.mean]),
                    low=np.array([summary.low]),
                    high=np.array([summary.high]),
                    kind="points",
                )
            )
    if len(series) < 2:
        return None
    return chart(
        series,
        title=f"{_plain(table)} against time, {scale_label(scale)}, {table.origin}",
        x_label=f"ms per 10^6 output px ({costs[0].device})",
        y_label=str(table.score["title"]),
        log_x=True,
    )


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


def draw_charts(results: Results, costs: Sequence[CostRow], folder: Path) -> list[str]:
    """Write the curves as SVG and PNG; returns the files' stems."""
    out = folder / FOLDER
    out.mkdir(parents=True, exist_ok=True)
    stems = []
    for origin in results.origins:
        table = headline_table(results, origin)
        for kind, made in (
            ("scale", scale_chart(results, table)),
            ("speed", speed_chart(results, costs, table)),
        ):
            if made is not None:
                stem = f"{kind}-{_slug(origin)}"
                made.save_png(out / f"{stem}.png")
                made.save_svg(out / f"{stem}.svg")
                stems.append(f"{FOLDER}/{stem}")
    return stems


def headline_table(results: Results, origin: str) -> Table:
    """The table of the headline score on LR of an origin."""
    name = results.headline["name"]
    return next(t for t in results.tables if t.origin == origin and t.score["name"] == name)


def _plain(table: Table) -> str:
    return str(table.score["title"]).partition(",")[0]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:48]
