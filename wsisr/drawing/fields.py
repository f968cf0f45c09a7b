"""Drawings whose places are px: what is left after each step, and arrows over a slide."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wsisr.arrays import BoolArray, Float64Array
from wsisr.drawing.style import LIGHT, TITLE_PX
from wsisr.drawing.vector import Chart, Readout, canvas, put, text_width_px

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW_PX, HEAD_PX, FOOT_PX = 27.0, 34.0, 28.0
ARROW_SHARE = 0.09
"""The 95th percentile of the residuals is drawn this long, as a share of the longer side."""
LEAST_PX = 0.02
"""Residuals of less are not enlarged to that length: they are noise of the estimate. HR px."""


def funnel(steps: Sequence[tuple[str, int]], *, title: str, width_px: int = 720) -> Chart:
    """Bars from candidates to kept: what is left after each step, and what the step lost."""
    counts = [count for _, count in steps]
    before = [*counts[:1], *counts[:-1]]
    lost = [b - c for b, c in zip(before, counts, strict=True)]
    tails = [
        f"{count:,} (−{less:,})" if less > 0 else f"{count:,}"
        for count, less in zip(counts, lost, strict=True)
    ]

    def paint(figure: "Figure", width: float, height: float) -> list[Readout]:
        axes = canvas(figure)
        put(figure, 10.0, 20.0, title, size=TITLE_PX, weight="bold")
        left = 18.0 + max((text_width_px(name) for name, _ in steps), default=0.0)
        tail = max(map(text_width_px, tails), default=0.0)
        per_pair = max(40.0, width - left - tail - 14.0) / (max(counts, default=0) or 1)
        for row, (name, count) in enumerate(steps):
            y, wide = HEAD_PX + row * ROW_PX, max(1.0, count * per_pair)
            whole = max(wide, before[row] * per_pair)
            middle = y + (ROW_PX - 8) / 2
            axes.barh(middle, whole - wide, ROW_PX - 8, wide + left, color=LIGHT["c2"], alpha=0.35)
            axes.barh(middle, wide, ROW_PX - 8, left, color=LIGHT["c1"])
            put(figure, left - 8, y + 14, name, ha="right")
            put(figure, left + whole + 8, y + 14, tails[row], colour="muted")
        return []

    words = "; ".join(f"{name} {count:,}" for name, count in steps)
    height_px = round(HEAD_PX + ROW_PX * len(steps) + 6)
    description = f"Pairs left after each step: {words}."
    return Chart(title, description, width_px, height_px, paint, fixed=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidualShifts:
    """Residual shifts over a slide, and what else is known of their places.

    Attributes
    ----------
    places : ndarray, shape (n, 2)
        Where, px of the slide.
    residuals : ndarray, shape (n, 2)
        x, y in HR px; what is not finite gets a ring.
    extent : (float, float)
        Width and height of the slide, same px as `places`.
    used : ndarray, shape (n,), bool, optional
        The others get a ring: outliers, or pairs that are not kept.
    errors : ndarray, shape (n,), optional
        Standard error of each residual, HR px: a ring around its end.
    soft : ndarray, shape (n,), bool, optional
        Places out of focus: open squares.
    strips : sequence of (left, top, right, bottom)
        Seams, same px as `places`.
    outlines : sequence of ndarray, shape (k, 2)
        Of the tissue, same px as `places`.
    """

    places: Float64Array
    residuals: Float64Array
    extent: tuple[float, float]
    used: BoolArray | None = None
    errors: Float64Array | None = None
    soft: BoolArray | None = None
    strips: Sequence[tuple[float, float, float, float]] = ()
    outlines: Sequence[Float64Array] = ()


def residual_field(
    shifts: ResidualShifts, *, title: str, words: str = "", side_px: int = 380
) -> Chart:
    """Arrows of residual shifts over a slide, enlarged so that they can be seen.

    Parameters
    ----------
    words : str
        What stands below the field; by default the scale alone.
    side_px : int
        Longer side of the field.
    """
    places = np.asarray(shifts.places, np.float64).reshape(-1, 2)
    residuals = np.asarray(shifts.residuals, np.float64).reshape(-1, 2)
    used, errors, soft = shifts.used, shifts.errors, shifts.soft
    length = np.hypot(residuals[:, 0], residuals[:, 1])
    shown = np.isfinite(length) & (np.ones(len(places), bool) if used is None else used)
    top = float(np.percentile(length[shown], 95)) if shown.any() else 0.0
    unit, scale = max(top, LEAST_PX), side_px / max(shifts.extent)
    enlarge, bar = ARROW_SHARE * side_px / unit, ARROW_SHARE * side_px
    wide, high = (max(1.0, value * scale) for value in shifts.extent)

    def paint(figure: "Figure", width: float, height: float) -> list[Readout]:
        from matplotlib.collections import EllipseCollection, PolyCollection

        axes = canvas(figure)
        frame = [(0.5, 0.5), (wide, 0.5), (wide, high), (0.5, high)]
        axes.add_collection(PolyCollection([frame], edgecolors=LIGHT["grid"], facecolors="none"))
        if shifts.outlines:
            areas = [outline * scale for outline in shifts.outlines]
            axes.add_collection(PolyCollection(areas, facecolors=LIGHT["tissue"], linewidths=0))
        boxes = [np.array([(a, b), (c, b), (c, d), (a, d)]) * scale for a, b, c, d in shifts.strips]
        if boxes:
            axes.add_collection(PolyCollection(boxes, facecolors=LIGHT["grid"], linewidths=0))
        at = places * scale
        moved = np.clip(np.nan_to_num(residuals) * enlarge, -0.25 * side_px, 0.25 * side_px)
        ends = at + moved

        def rings(centres: Float64Array, across: Float64Array | float, colour: str) -> None:
            sizes = np.broadcast_to(across, len(centres))
            axes.add_collection(
                EllipseCollection(
                    sizes, sizes, np.zeros(len(centres)), units="xy", offsets=centres,
                    offset_transform=axes.transData, facecolors="none", edgecolors=colour,
                )
            )  # fmt: skip

        if (~shown).any():
            rings(at[~shown], 5.0, LIGHT["muted"])
        if soft is not None and soft.any():
            axes.plot(*at[soft].T, "s", markersize=9, markerfacecolor="none", markeredgewidth=1,
                      markeredgecolor=LIGHT["c1"])  # fmt: skip
        if errors is not None and shown.any():
            across = np.clip(2 * errors[shown] * enlarge, 2.0, side_px / 10)
            rings(ends[shown], across, LIGHT["muted"])
        if shown.any():
            axes.plot(*at[shown].T, "o", markersize=2.6, color=LIGHT["c7"], markeredgewidth=0)
            axes.quiver(
                *at[shown].T, *moved[shown].T, angles="xy", scale_units="xy", scale=1, units="xy",
                width=1.5, headwidth=4.5, headlength=5, headaxislength=4.5, minlength=0.5,
                color=LIGHT["c7"],
            )  # fmt: skip
        axes.plot([4, 4 + bar], [high + 14, high + 14], color=LIGHT["c7"], linewidth=1.5)
        put(figure, bar + 10, high + 18, f"{unit:.2g} HR px{words and f'; {words}'}")
        return []

    lines = f"{int(shown.sum())} arrows, 95th percentile {top:.3g} HR px."
    description = f"Shifts at {len(places)} places, {lines}"
    tail = text_width_px(f"{unit:.2g} HR px{words and f'; {words}'}") + bar + 14
    size = (round(max(wide + 1, tail if words else 0)), round(high + FOOT_PX))
    return Chart(title, description, *size, paint, fixed=True)
