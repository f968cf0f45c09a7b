"""Pictures and curves of an evaluation."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.evaluation.columns import Column, Sample, read_pair
from wsisr.evaluation.cost import CostRow
from wsisr.evaluation.entries import BASELINE, Entry
from wsisr.evaluation.inference import super_resolve
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
from wsisr.models import SRModel
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.reporting.charts import Chart, Series, chart

FOLDER = "figures"
MARGIN_LR_PX = 16


def draw_examples(
    plan: Plan, results: Results, folder: Path, report: Reporter = silent
) -> list[dict[str, Any]]:
    """Write the example sheets; returns file, caption and place of each.

    A view of a patch is enlarged with a margin around it, not the whole patch once more; the scores
    beside it are those of the whole patch.
    """
    out = folder / FOLDER
    out.mkdir(parents=True, exist_ok=True)
    models: dict[str, SRModel] = {}
    made: list[dict[str, Any]] = []
    shown = {group.members[0]: group.label for group in results.groups}
    for column in plan.columns:
        entries = [e for e in plan.entries if e.name in shown and e.serves(column.scale)]
        scores = _scores(results, column, [e.name for e in entries])
        trained = {n: v for n, v in scores.items() if n != BASELINE} or scores
        chosen = choose_examples(trained, results.headline["better"], plan.settings.figures)
        samples = {(s.slide, s.row): s for s in column.samples}
        for number, (place, reasons) in enumerate(chosen.items(), start=1):
            sample = samples[place]
            for entry in entries:
                if entry.name not in models:
                    models[entry.name] = entry.load(plan.device)
            sheet = _sheet(plan, column, sample, entries, models, scores, results.headline)
            name = f"{_slug(column.origin)}-{column.label}-{number}.png"
            sheet.save(out / name, optimize=True)
            made.append(
                {
                    "file": f"{FOLDER}/{name}",
                    "origin": column.origin,
                    "scale": column.scale,
                    "slide": sample.slide,
                    "row": sample.row,
                    "reasons": reasons,
                    "models": [entry.name for entry in entries],
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


def _sheet(
    plan: Plan,
    column: Column,
    sample: Sample,
    entries: Sequence[Entry],
    models: Mapping[str, SRModel],
    scores: Mapping[str, Mapping[tuple[str, int], float]],
    headline: Mapping[str, Any],
) -> Any:
    lr, hr = read_pair(plan.store, column, [sample], plan.settings.seed, plan.device)
    whole = to_uint8(hr.float() / 255.0)[0]
    side = min(VIEW_PX, *whole.shape[:2])
    y, x = detail_window(whole, side)
    window = [
        _window(int(lr.shape[2 + i]), int(hr.shape[2 + i]), at, side) for i, at in ((0, y), (1, x))
    ]
    (top, bottom, up), (left, right, along) = window
    part = lr[..., top:bottom, left:right]
    size = (round((bottom - top) * up), round((right - left) * along))
    # Where the view begins in the enlarged part.
    dy, dx = y - round(top * up), x - round(left * along)
    small = to_uint8(part.float() / 255.0)[0]
    view = whole[y : y + side, x : x + side]
    lr_view = enlarge(small, *size)[dy : dy + side, dx : dx + side]
    panels = [Panel(title="LR", note=column.label, image=lr_view, error=False)]
    place = (sample.slide, sample.row)
    for entry in entries:
        sr = super_resolve(
            models[entry.name],
            part,
            size,
            tile=plan.settings.tile,
            self_ensemble=plan.settings.self_ensemble,
            precision=plan.settings.precision,
        )
        image = to_uint8(sr)[0][dy : dy + side, dx : dx + side]
        value = scores[entry.name].get(place, math.nan)
        note = "" if math.isnan(value) else f"{value:.{headline['digits'] - 1}f}"
        if headline["name"].startswith("psnr") and note:
            note += " dB"
        panels.append(Panel(title=entry.name, note=note, image=image))
    return draw_sheet(view, panels)


def _window(lr_px: int, hr_px: int, start: int, side: int) -> tuple[int, int, float]:
    """LR range around an HR range, with margin, that begins and ends on whole HR pixels."""
    step = lr_px // math.gcd(lr_px, hr_px)
    factor = hr_px / lr_px
    low = max(0, math.floor(start / factor) - MARGIN_LR_PX) // step * step
    high = min(lr_px, -(-(math.ceil((start + side) / factor) + MARGIN_LR_PX) // step) * step)
    return low, high, factor


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
