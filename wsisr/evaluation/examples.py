"""Example sheets: LR, bicubic, every model and HR of one field, with error maps on one scale."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.drawing.sheets import SheetImage, enlarged, framed, heat, heat_scale, sheet
from wsisr.errors import ConfigError
from wsisr.evaluation.columns import Sample, ScaleColumn, read_pair
from wsisr.evaluation.inference import Engines
from wsisr.evaluation.plan import Plan
from wsisr.evaluation.scoring import to_uint8
from wsisr.evaluation.summary import Results
from wsisr.files import save_picture
from wsisr.geometry import Box
from wsisr.inference.tiles import plan_frame
from wsisr.inference.trained import BASELINE, TrainedModel
from wsisr.progress import ProgressEvent, Reporter, silent

FOLDER = "figures"
VIEW_PX = 192
ZOOM = 4


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One column of a sheet.

    Attributes
    ----------
    note : str
        E.g. its PSNR.
    image : ndarray, (h, w, 3), uint8
        On the HR grid.
    error : bool
        Whether its difference from HR is shown.
    """

    title: str
    note: str
    image: UInt8Array
    error: bool = True


def detail_window(hr: UInt8Array, side: int, step: int = 16) -> tuple[int, int]:
    """Top left corner (y, x) of the window with the strongest edges; found in HR alone."""
    height, width = hr.shape[:2]
    if side > min(height, width):
        raise ConfigError(f"A view of {side} px does not fit into {width} x {height} px.")
    luma = hr.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    edges = np.zeros((height + 1, width + 1))
    energy = np.abs(np.diff(luma, axis=0, append=luma[-1:])) + np.abs(
        np.diff(luma, axis=1, append=luma[:, -1:])
    )
    edges[1:, 1:] = energy.cumsum(0).cumsum(1)
    ys = np.arange(0, height - side + 1, step)
    xs = np.arange(0, width - side + 1, step)
    total = (
        edges[np.ix_(ys + side, xs + side)]
        - edges[np.ix_(ys, xs + side)]
        - edges[np.ix_(ys + side, xs)]
        + edges[np.ix_(ys, xs)]
    )
    y, x = np.unravel_index(int(total.argmax()), total.shape)
    return int(ys[y]), int(xs[x])


def example_sheet(hr: UInt8Array, panels: Sequence[Panel]) -> UInt8Array:
    """Three rows: the view, a part of it enlarged, and errors on one colour scale.

    Parameters
    ----------
    hr : ndarray, (h, w, 3), uint8
        The view of HR.
    panels : sequence of Panel
        Columns from left to right, HR's own not among them; it comes last.
    """
    part = min(hr.shape[:2]) // ZOOM
    y, x = detail_window(hr, part, step=4)
    every = [*panels, Panel(title="HR", note="", image=hr, error=False)]
    errors = [
        np.abs(panel.image.astype(np.float64) - hr).mean(axis=2) if panel.error else None
        for panel in every
    ]
    # One scale for the whole sheet: the errors' 99th percentile, in whole grey levels.
    joined = np.concatenate([np.ones(1), *(e.ravel() for e in errors if e is not None)])
    top = float(max(4.0, np.ceil(np.percentile(joined, 99.0))))
    whole = [
        SheetImage(
            image=framed(p.image, (x, y, x + part, y + part)), text=f"{p.title}\n{p.note or ' '}"
        )
        for p in every
    ]
    near = [
        SheetImage(image=enlarged(p.image[y : y + part, x : x + part], part * ZOOM, part * ZOOM))
        for p in every
    ]
    maps = [None if error is None else SheetImage(image=heat(error, top)) for error in errors]
    scale = SheetImage(image=heat_scale(top, hr.shape[0]))
    words = ("1 : 1", f"zoom {ZOOM}", "error, grey levels")
    return sheet([whole, near, [*maps, scale]], labels=words)


def choose_examples(
    scores: Mapping[str, Mapping[tuple[str, int], float]], better: str, kinds: int
) -> dict[tuple[str, int], list[str]]:
    """Best, median and worst images of every model: (slide, row) -> why each was chosen, e.g.
    ``["worst of edsr-x4"]``.

    Parameters
    ----------
    scores : mapping of label to mapping of (slide, row) to score
    better : {"high", "low", "zero"}
    kinds : int
        1: median; 2: best and worst; 3: all.
    """
    chosen: dict[tuple[str, int], list[str]] = {}
    for label, by_place in scores.items():
        finite = {place: v for place, v in by_place.items() if np.isfinite(v)}
        if not finite or kinds < 1:
            continue
        sign = -1.0 if better == "high" else 1.0
        value = {p: abs(v) if better == "zero" else sign * v for p, v in finite.items()}
        order = sorted(finite, key=lambda place: (value[place], place))
        places = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
        wanted = {1: ("median",), 2: ("best", "worst")}.get(kinds, ("best", "median", "worst"))
        for kind in wanted:
            chosen.setdefault(places[kind], []).append(f"{kind} of {label}")
    return chosen


def draw_examples(
    plan: Plan, results: Results, folder: Path, report: Reporter = silent
) -> list[dict[str, Any]]:
    """Write the example sheets; returns file, caption and place of each.

    Of a patch, the view alone is enlarged once more, to the pixels that were scored; the scores
    beside it are those of the whole patch.
    """
    out = folder / FOLDER
    engines = Engines(plan, report)
    made: list[dict[str, Any]] = []
    shown = {group.members[0]: group.label for group in results.groups}
    for column in plan.columns:
        entries = [e for e in plan.entries if e.name in shown and e.serves(column.scale)]
        scores = _scores(results, column, [e.name for e in entries])
        trained = {n: v for n, v in scores.items() if n != BASELINE} or scores
        chosen = choose_examples(trained, results.headline["better"], plan.settings.figures)
        samples = {(s.slide, s.row): s for s in column.samples}
        sheets = {place: _Example(plan, column, samples[place]) for place in chosen}
        for entry in entries:
            for place, example in sheets.items():
                if place in scores[entry.name]:
                    note = _note(scores[entry.name][place], results.headline)
                    example.add(engines, entry, note)
        for number, (place, reasons) in enumerate(chosen.items(), start=1):
            example = sheets[place]
            name = f"{slug(column.origin)}-{column.label}-{number}.png"
            save_picture(out / name, example_sheet(example.view, example.panels), optimize=True)
            made.append(
                {
                    "file": f"{FOLDER}/{name}",
                    "origin": column.origin,
                    "scale": column.scale,
                    "slide": place[0],
                    "row": place[1],
                    "reasons": reasons,
                    "models": [panel.title for panel in example.panels[1:]],
                }
            )
            report(
                ProgressEvent(
                    stage="figures", done=number, total=len(chosen), unit="sheet", item=name
                )
            )
    return made


def _scores(
    results: Results, column: ScaleColumn, names: Sequence[str]
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


class _Example:
    """A view of one patch: its HR, and a panel for each model."""

    def __init__(self, plan: Plan, column: ScaleColumn, sample: Sample) -> None:
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
        self.region = Box.between(left, top, right, bottom)
        made = plan_frame(width, height, column.scale, self.region).region
        dy, dx = y - made.y, x - made.x
        self._part = (slice(dy, dy + side), slice(dx, dx + side))
        small = to_uint8(self.lr[..., top:bottom, left:right].float() / 255.0)[0]
        lr = enlarged(small, made.height, made.width)[self._part]
        self.panels = [Panel(title="LR", note=column.label, image=lr, error=False)]

    def add(self, engines: Engines, entry: TrainedModel, note: str) -> None:
        """The panel of a model: the pixels that were scored."""
        sr = engines.predict(entry, self.column, self.lr, region=self.region, samples=[self.sample])
        self.panels.append(Panel(title=entry.name, note=note, image=to_uint8(sr)[0][self._part]))


def slug(text: str) -> str:
    """A part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:48]
