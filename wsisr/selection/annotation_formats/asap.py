"""ASAP XML, as CAMELYON16 and CAMELYON17 use it."""

from pathlib import Path
from typing import Any

from shapely.geometry import Polygon

from wsisr.selection.annotation_formats.names import TUMOR, TUMOR_NAMES, UNLABELLED, fold, role_of
from wsisr.selection.annotation_formats.shapes import NO_POINTS, ParsedShape, VertexBudget

ROOT = "ASAP_Annotations"
MAX_GROUPS = 64
"""Deepest nesting of groups that is followed; a group that holds itself ends there."""


def parse_asap(path: Path, root: Any) -> list[ParsedShape]:
    """Read ``ASAP_Annotations``: polygons, splines, rectangles, dots and point sets.

    A spline is taken as the polygon of its control points. A group may be part of another: what
    its name alone does not say is said by the group that holds it.

    Raises
    ------
    AnnotationError
        Too many vertices, or coordinates that are none.
    """
    parents = {
        group.get("Name") or "": group.get("PartOfGroup") or "" for group in root.iter("Group")
    }
    budget = VertexBudget(path)
    shapes = []
    for node in root.iter("Annotation"):
        budget.shape()
        shape = _shape(node, parents, budget)
        if shape is not None:
            shapes.append(shape)
    return shapes


def label_of(group: str) -> str:
    """A group's name as a label: CAMELYON's names for tumour are one."""
    key = fold(group)
    if key in ("", "none"):
        return UNLABELLED
    return TUMOR if key in TUMOR_NAMES else key


def _shape(node: Any, parents: dict[str, str], budget: VertexBudget) -> ParsedShape | None:
    kind = (node.get("Type") or "").lower()
    groups: list[str] = []
    group = node.get("PartOfGroup") or ""
    while fold(group) not in ("", "none") and len(groups) < MAX_GROUPS:
        groups.append(group)
        group = parents.get(group, "")
    labels = [label_of(name) for name in groups] or [UNLABELLED]
    corners = sorted(node.iter("Coordinate"), key=_order)
    values = budget.coordinates((c.get("X"), c.get("Y")) for c in corners)
    is_points = kind in ("dot", "pointset")
    if not len(values) or (not is_points and len(values) < 3):
        return None
    return ParsedShape(
        label=labels[0],
        parents=tuple(labels[1:]),
        name=node.get("Name") or "",
        geometry=None if is_points else Polygon(values),
        points=values if is_points else NO_POINTS,
        role="area" if is_points else role_of(groups),
    )


def _order(node: Any) -> float:
    try:
        return float(node.get("Order") or 0)
    except ValueError:
        return 0.0
