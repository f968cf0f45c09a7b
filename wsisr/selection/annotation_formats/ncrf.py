"""NCRF polygon JSON: ``{"positive": [{name, vertices}], "negative": [...]}``.

In files of tumour slides ``negative`` are holes to cut out of the tumour. In files of normal
slides ``positive`` is empty and ``negative`` outlines the tissue: taken for holes, the slide
would have no annotation at all.
"""

from pathlib import Path
from typing import Any

from shapely.geometry import Polygon

from wsisr.errors import AnnotationError
from wsisr.selection.annotation_formats.names import NORMAL, TUMOR, Role
from wsisr.selection.annotation_formats.shapes import ParsedShape, VertexBudget


def is_ncrf(document: Any) -> bool:
    return isinstance(document, dict) and "positive" in document and "negative" in document


def parse_ncrf(path: Path, document: dict[str, Any]) -> list[ParsedShape]:
    """Read NCRF polygons; see the module's text for what ``negative`` means.

    Raises
    ------
    AnnotationError
    """
    budget = VertexBudget(path)
    positive = _polygons(path, document["positive"], budget)
    negative = _polygons(path, document["negative"], budget)
    label = TUMOR if positive else NORMAL
    role: Role = "hole" if positive else "area"
    return [
        *(ParsedShape(label=TUMOR, name=name, geometry=area) for name, area in positive),
        *(ParsedShape(label=label, name=name, geometry=area, role=role) for name, area in negative),
    ]


def _polygons(path: Path, items: Any, budget: VertexBudget) -> list[tuple[str, Polygon]]:
    if not isinstance(items, list):
        raise AnnotationError(f"{path}: 'positive' and 'negative' must be lists of polygons.")
    result = []
    for item in items:
        budget.shape()
        if not isinstance(item, dict) or not isinstance(item.get("vertices"), list):
            raise AnnotationError(f"{path}: {str(item)[:60]!r} has no list of vertices.")
        ring = budget.ring(item["vertices"])
        if len(ring):
            result.append((str(item.get("name") or ""), Polygon(ring)))
    return result
