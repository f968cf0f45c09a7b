"""Drawings of a store: the funnel, a slide's tissue with its patches, residual shifts over it."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from wsisr.reporting.drawing import Drawing, Point, text_width_px

FloatArray = NDArray[np.float64]
OUTLINE_PX = 0.6
"""Tolerance of the tissue's outline, px of the drawing."""
ARROW_SHARE = 0.09
"""The 95th percentile of the residuals is drawn this long, as a share of the longer side."""
LEAST_PX = 0.02
"""Residuals of less are not enlarged to that length: they are noise of the estimate. HR px."""


@dataclass(frozen=True, kw_only=True)
class SlideScene:
    """What is drawn of a slide.

    Attributes
    ----------
    tissue : ndarray, shape (h, w), uint8
        0 is none.
    um_per_px : float
        Of the mask.
    level0_um_per_px : float
    origins : ndarray, shape (n, 2)
        Patches, level-0 px.
    field_px : float
        Side of a patch, level-0 px.
    kept : ndarray, shape (n,), bool
    """

    tissue: NDArray[np.uint8]
    um_per_px: float
    level0_um_per_px: float
    origins: FloatArray
    field_px: float
    kept: NDArray[np.bool_]


def slide_map(scene: SlideScene, *, title: str, side_px: float = 240.0) -> Drawing:
    """Tissue with the patches on it: kept ones framed, refused ones crossed out."""
    canvas, per_px = _tissue(scene, title, side_px)
    boxes = _boxes(scene, per_px)
    kept = [box for box, good in zip(boxes, scene.kept, strict=True) if good]
    refused = [box for box, good in zip(boxes, scene.kept, strict=True) if not good]
    if refused:
        canvas.boxes(refused, stroke="c2", width_px=1.0)
        canvas.path(*(((a, b), (c, d)) for a, b, c, d in refused), stroke="c2", width_px=1.0)
    canvas.boxes(kept, fill="c1", opacity=0.22)
    canvas.boxes(kept, stroke="c1", width_px=1.0)
    return canvas


def residual_map(
    scene: SlideScene, residuals: FloatArray, *, title: str, side_px: float = 380.0
) -> Drawing:
    """An arrow per patch: where the LR lies against its HR crop, greatly enlarged.

    Parameters
    ----------
    scene : SlideScene
    residuals : ndarray, shape (n, 2)
        x, y in HR px, one per patch; pairs that are not kept or not measured get a ring.
    title : str
    side_px : float
        Longer side of the drawing.
    """
    canvas, per_px = _tissue(scene, title, side_px, room_px=26.0)
    length = np.hypot(residuals[:, 0], residuals[:, 1])
    used = np.isfinite(length) & scene.kept
    top = float(np.percentile(length[used], 95)) if used.any() else 0.0
    unit = max(top, LEAST_PX)
    enlarge = ARROW_SHARE * side_px / unit
    centres = (scene.origins + scene.field_px / 2) * per_px
    shafts: list[tuple[Point, ...]] = []
    heads: list[tuple[Point, ...]] = []
    for (x, y), shift in zip(centres[used], residuals[used], strict=True):
        dx, dy = np.clip(shift * enlarge, -0.25 * side_px, 0.25 * side_px)
        end = (x + dx, y + dy)
        shafts.append(((x, y), end))
        size = float(np.hypot(dx, dy))
        if size > 3:
            ux, uy = dx / size, dy / size
            tip = min(5.0, 0.5 * size)
            heads.append(
                (
                    (end[0] - tip * (ux + 0.5 * uy), end[1] - tip * (uy - 0.5 * ux)),
                    end,
                    (end[0] - tip * (ux - 0.5 * uy), end[1] - tip * (uy + 0.5 * ux)),
                )
            )
    rings = [(x - 2.0, y - 2.0, x + 2.0, y + 2.0) for x, y in centres[~used]]
    canvas.boxes(rings, stroke="muted")
    canvas.boxes([(x - 1.3, y - 1.3, x + 1.3, y + 1.3) for x, y in centres[used]], fill="c7")
    canvas.path(*shafts, stroke="c7", width_px=1.5)
    canvas.path(*heads, stroke="c7", width_px=1.5)
    foot = canvas.height_px - 9.0
    bar = ARROW_SHARE * side_px
    canvas.path(((4.0, foot - 4), (4.0 + bar, foot - 4)), stroke="c7", width_px=1.5)
    canvas.text((bar + 10.0, foot), f"{unit:.2g} HR px", size_px=12.0)
    canvas.description += f" {int(used.sum())} arrows, 95th percentile {top:.3g} HR px."
    return canvas


def funnel_drawing(
    steps: Sequence[tuple[str, int]], *, title: str, width_px: float = 720.0
) -> Drawing:
    """Bars from candidates to kept, each with its count and what it lost.

    Parameters
    ----------
    steps : sequence of (str, int)
        What is left after each step.
    title : str
    width_px : float
    """
    row, top = 27.0, 34.0
    words = "; ".join(f"{name} {count:,}" for name, count in steps)
    canvas = Drawing(
        width_px=width_px,
        height_px=top + row * len(steps) + 6.0,
        title=title,
        description=f"Pairs left after each step: {words}.",
    )
    canvas.text((10.0, 20.0), title, size_px=15.0, bold=True)
    left = 18.0 + max((text_width_px(name, 12.5) for name, _ in steps), default=0.0)
    most = max((count for _, count in steps), default=0) or 1
    tail = max((text_width_px(_count(steps, i), 12.5) for i in range(len(steps))), default=0.0)
    room = max(40.0, width_px - left - tail - 14.0)
    for index, (name, count) in enumerate(steps):
        y = top + index * row
        wide = max(1.0, room * count / most)
        lost = (steps[index - 1][1] - count) if index else 0
        if lost > 0:
            ends = (left + wide, left + room * steps[index - 1][1] / most)
            canvas.boxes([(ends[0], y, ends[1], y + row - 8)], fill="c2", opacity=0.35)
        canvas.boxes([(left, y, left + wide, y + row - 8)], fill="c1", opacity=0.9)
        canvas.text((left - 8, y + 14), name, size_px=12.5, anchor="end")
        begin = left + max(wide, room * (steps[index - 1][1] if index else count) / most)
        canvas.text((begin + 8, y + 14), _count(steps, index), size_px=12.5, colour="muted")
    return canvas


def _count(steps: Sequence[tuple[str, int]], index: int) -> str:
    count = steps[index][1]
    lost = steps[index - 1][1] - count if index else 0
    return f"{count:,} (−{lost:,})" if lost > 0 else f"{count:,}"


def _tissue(
    scene: SlideScene, title: str, side_px: float, room_px: float = 0.0
) -> tuple[Drawing, float]:
    """A canvas with the tissue on it, and its px per level-0 px."""
    height, width = scene.tissue.shape
    scale = side_px / max(height, width)
    per_px = scale * scene.level0_um_per_px / scene.um_per_px
    count, kept = len(scene.kept), int(scene.kept.sum())
    canvas = Drawing(
        width_px=round(width * scale) + 2.0,
        height_px=round(height * scale) + 2.0 + room_px,
        title=title,
        description=f"Tissue of the slide with {count} patches, {kept} of them kept.",
    )
    canvas.boxes([(0.5, 0.5, width * scale, height * scale)], stroke="grid")
    # Outlines of a mask of the drawing's size: finer ones would only make the page longer.
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(
        (scene.tissue > 0).astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA
    )
    found, _ = cv2.findContours(
        (small >= 128).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    outlines = [
        cv2.approxPolyDP(contour, OUTLINE_PX, True).reshape(-1, 2).astype(float) + 0.5
        for contour in found
        if cv2.contourArea(contour) >= 6
    ]
    canvas.path(*(outline.tolist() for outline in outlines), fill="tissue")
    return canvas, per_px


def _boxes(scene: SlideScene, per_px: float) -> list[tuple[float, float, float, float]]:
    side = scene.field_px * per_px
    return [(x, y, x + side, y + side) for x, y in (scene.origins * per_px).tolist()]
