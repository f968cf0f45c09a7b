"""Areas exported by Sectra's pathology core: coordinates relative to the slide.

The file does not say what they are relative to. Both are seen: x and y as shares of the
width, or each of its own side. An exported area carries its size in mm2 (``"5.33 mm²"``), so where
the slide's resolution is known, the reading that reproduces it is taken.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from shapely.geometry import Polygon

from wsisr.errors import AnnotationError
from wsisr.selection.annotation_formats.names import UNLABELLED
from wsisr.selection.annotation_formats.shapes import ParsedShape, VertexBudget

AGREEMENT = 0.02


def is_sectra(document: Any) -> bool:
    first = document[0] if isinstance(document, list) and document else document
    return isinstance(first, dict) and isinstance(first.get("content"), list)


def parse_sectra(
    path: Path, document: Any, size_px: tuple[int, int] | None, um_per_px: float | None
) -> list[ParsedShape]:
    """Read areas; other kinds (arrows, text) have no area and are left out.

    Parameters
    ----------
    size_px : (int, int) or None
        Width and height of level 0.

    Raises
    ------
    AnnotationError
        Without the slide's size, or if neither reading gives the stated area.
    """
    if size_px is None:
        raise AnnotationError(
            f"{path}: holds coordinates relative to the slide; give the slide along with it."
        )
    budget = VertexBudget(path)
    shapes = []
    for item in document if isinstance(document, list) else [document]:
        budget.shape()
        content = item.get("content") if isinstance(item, dict) else None
        if not isinstance(content, list):
            raise AnnotationError(f"{path}: {str(item)[:60]!r} has no content.")
        if str(item.get("type")).lower() not in ("area", "polygon"):
            continue
        try:
            ring = budget.ring((point["x"], point["y"]) for point in content)
        except (TypeError, KeyError):
            raise AnnotationError(f"{path}: a point of an area has no x and y.") from None
        if not len(ring):
            continue
        scale = _scale(path, Polygon(ring).area, str(item.get("result") or ""), size_px, um_per_px)
        shapes.append(
            ParsedShape(
                label=UNLABELLED,
                name=str(item.get("name") or ""),
                geometry=Polygon(ring * np.asarray(scale)),
            )
        )
    return shapes


def _scale(
    path: Path, area: float, stated: str, size_px: tuple[int, int], um_per_px: float | None
) -> tuple[float, float]:
    width, height = (float(side) for side in size_px)
    by_width, by_side = (width, width), (width, height)
    match = re.match(r"\s*(\d+(?:[.,]\d+)?)\s*(mm|µm|um)\s*(?:²|2)", stated)
    if match is None or um_per_px is None or area <= 0:
        return by_width
    stated_um2 = float(match.group(1).replace(",", ".")) * (1e6 if match.group(2) == "mm" else 1)
    errors = {
        scale: abs(area * scale[0] * scale[1] * um_per_px**2 / stated_um2 - 1)
        for scale in (by_width, by_side)
    }
    best = min(errors, key=lambda scale: errors[scale])
    if errors[best] > AGREEMENT:
        raise AnnotationError(
            f"{path}: the area is stated as {stated!r}, but on this slide it would differ by "
            f"{100 * errors[best]:.0f} %; it belongs to another slide."
        )
    return best
