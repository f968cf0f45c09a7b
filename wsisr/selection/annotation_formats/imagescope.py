"""Aperio ImageScope XML: layers (``Annotation``) of regions in level-0 pixels.

A layer's name is the class; where it has none, the layer's description and then the region's own
text say it, as people use them. A negative region of analysis cuts out.
"""

from math import cos, pi, sin
from pathlib import Path
from typing import Any

from shapely.geometry import Polygon

from wsisr.selection.annotation_formats.names import UNLABELLED, role_of
from wsisr.selection.annotation_formats.shapes import ParsedShape, VertexBudget

ROOT = "Annotations"
ELLIPSE, ARROW, RULER, POINTS = "2", "3", "4", "5"
ELLIPSE_CORNERS = 72


def parse_imagescope(path: Path, root: Any) -> list[ParsedShape]:
    """Read polygons, rectangles and ellipses (stored as two corners); arrows and rulers have no
    area and are left out.

    Raises
    ------
    AnnotationError
        Too many vertices, or coordinates that are none.
    """
    budget = VertexBudget(path)
    shapes = []
    for layer in root.iter("Annotation"):
        described = [
            str(item.get("Value") or "")
            for item in layer.findall("./Attributes/Attribute")
            if (item.get("Name") or "").lower() in ("description", "class", "name")
        ]
        for region in layer.iter("Region"):
            budget.shape()
            words = [layer.get("Name") or "", *described, region.get("Text") or ""]
            words = [word.strip() for word in words if word.strip()]
            shape = _shape(region, words, budget)
            if shape is not None:
                shapes.append(shape)
    return shapes


def _shape(region: Any, words: list[str], budget: VertexBudget) -> ParsedShape | None:
    kind = region.get("Type") or "0"
    corners = budget.coordinates((v.get("X"), v.get("Y")) for v in region.iter("Vertex"))
    label, *others = words or [UNLABELLED]
    name = region.get("Text") or ""
    if kind == POINTS and len(corners):
        return ParsedShape(label=label, parents=tuple(others), name=name, points=corners)
    if kind in (ARROW, RULER):
        return None
    if kind == ELLIPSE and len(corners) == 2:
        (x0, y0), (x1, y1) = corners.tolist()
        angles = [2 * pi * k / ELLIPSE_CORNERS for k in range(ELLIPSE_CORNERS)]
        ring = [
            ((x0 + x1 + (x1 - x0) * cos(a)) / 2, (y0 + y1 + (y1 - y0) * sin(a)) / 2) for a in angles
        ]
    else:
        ring = corners.tolist()
    if len(ring) < 3:
        return None
    cuts = region.get("NegativeROA") == "1"
    return ParsedShape(
        label=label,
        parents=tuple(others),
        name=name,
        geometry=Polygon(ring),
        role="hole" if cuts else role_of(words),
    )
