"""ASAP XML, as CAMELYON16 and CAMELYON17 use it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException
from shapely.geometry import Polygon

from wsisr.errors import AnnotationError
from wsisr.selection.annotation_formats.shapes import (
    NO_POINTS,
    UNLABELLED,
    ParsedShape,
    VertexBudget,
)

TUMOR = "tumor"
LABELS: Mapping[str, str] = {
    "_0": TUMOR,
    "_1": TUMOR,
    "tumor": TUMOR,
    "tumour": TUMOR,
    "metastases": TUMOR,
    "none": UNLABELLED,
    "": UNLABELLED,
}
"""CAMELYON16 calls its tumour groups ``_0`` and ``_1`` on most slides, ``Tumor`` on others."""
HOLES = frozenset({"_2", "exclusion"})
"""Groups of areas to cut out of the tumour."""


def parse_asap(path: Path, data: bytes) -> list[ParsedShape]:
    """Read ``ASAP_Annotations``: polygons, splines, rectangles, dots and point sets.

    A spline is taken as the polygon of its control points.

    Raises
    ------
    AnnotationError
        Broken or hostile XML (entities and DTDs are refused), or another kind of XML.
    """
    try:
        root = defusedxml.ElementTree.fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        raise AnnotationError(
            f"{path}: uses XML entities or a DTD, which annotation files do not need; refused."
        ) from error
    except (defusedxml.ElementTree.ParseError, ValueError, LookupError) as error:
        raise AnnotationError(f"{path}: is no valid XML ({str(error)[:120]}).") from error
    if root.tag != "ASAP_Annotations":
        raise AnnotationError(
            f"{path}: the XML is <{str(root.tag)[:40]}>, not <ASAP_Annotations>; export it from "
            "ASAP, or as GeoJSON from QuPath."
        )
    budget = VertexBudget(path)
    shapes = []
    for node in root.iter("Annotation"):
        budget.shape()
        shape = _shape(node, budget)
        if shape is not None:
            shapes.append(shape)
    return shapes


def label_of(group: str) -> tuple[str, bool]:
    """Group name -> label, and whether it is a group of holes."""
    key = group.strip().lower()
    if key in HOLES:
        return TUMOR, True
    return LABELS.get(key, key), False


def _shape(node: Any, budget: VertexBudget) -> ParsedShape | None:
    kind = (node.get("Type") or "").lower()
    name = node.get("Name") or ""
    label, hole = label_of(node.get("PartOfGroup") or "")
    corners = sorted(node.iter("Coordinate"), key=_order)
    values = budget.coordinates((c.get("X"), c.get("Y")) for c in corners)
    if kind in ("dot", "pointset"):
        return ParsedShape(label=label, name=name, points=values) if len(values) else None
    if len(values) < 3:
        return None
    return ParsedShape(
        label=label, name=name, geometry=Polygon(values), points=NO_POINTS, hole=hole
    )


def _order(node: Any) -> float:
    try:
        return float(node.get("Order") or 0)
    except ValueError:
        return 0.0
