"""GeoJSON as QuPath writes it, old and new, and the way back out.

Seen in the wild: a FeatureCollection, a bare list of features, a single feature or geometry;
``properties.classification.name`` or (QuPath 0.5 and newer) ``classification.names``; holes as
inner rings; MultiPolygon for brush and wand; ellipses and rectangles as polygons; points as
Point or MultiPoint; cells with a second outline in ``nucleusGeometry``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import shapely
from shapely.geometry import MultiPolygon, mapping
from shapely.geometry.base import BaseGeometry

from wsisr.arrays import Float64Array
from wsisr.errors import AnnotationError
from wsisr.selection.annotation_formats.names import UNLABELLED, role_of
from wsisr.selection.annotation_formats.shapes import ParsedShape, VertexBudget

GEOMETRIES = (
    "Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon",
    "GeometryCollection",
)  # fmt: skip
NUCLEUS = "Nucleus"
"""Label of the second outline that QuPath gives to a cell."""
COLOURS = {"tumor": (200, 0, 0), "Tissue": (0, 140, 90), "normal": (0, 110, 200)}
OTHER_COLOUR = (140, 90, 180)


def is_geojson(document: Any) -> bool:
    """Whether a JSON document looks like GeoJSON features or geometries."""
    first = document[0] if isinstance(document, list) and document else document
    kinds = ("Feature", "FeatureCollection", *GEOMETRIES)
    return isinstance(first, dict) and first.get("type") in kinds


def parse_geojson(path: Path, document: Any) -> list[ParsedShape]:
    """Read QuPath objects; lines have no area and are left out.

    Raises
    ------
    AnnotationError
        Broken structure, coordinates or counts.
    """
    budget = VertexBudget(path)
    shapes: list[ParsedShape] = []
    for feature_dict in _features(path, document):
        properties = feature_dict.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        label = _label(properties)
        name = str(properties.get("name") or "")
        for geometry in _geometries(path, feature_dict.get("geometry"), depth=0):
            budget.shape()
            shapes.extend(_parse(path, geometry, label, name, budget))
        for geometry in _geometries(path, feature_dict.get("nucleusGeometry"), depth=0):
            budget.shape()
            shapes.extend(_parse(path, geometry, NUCLEUS, name, budget))
    return shapes


def feature(
    geometry: BaseGeometry, label: str, name: str = "", colour: tuple[int, int, int] | None = None
) -> dict[str, Any]:
    """One QuPath annotation with a class, its colour (RGB) and a stable id."""
    colour = colour or COLOURS.get(label, OTHER_COLOUR)
    properties: dict[str, Any] = {"objectType": "annotation", "isLocked": False}
    if name:
        properties["name"] = name
    if label != UNLABELLED:
        properties["classification"] = {"name": label, "color": list(colour)}
    return {
        "type": "Feature",
        # QuPath 0.4 and newer want a UUID; derived from the shape, so that files compare equal.
        "id": str(uuid5(NAMESPACE_URL, f"{label}/{name}/{shapely.to_wkb(geometry, hex=True)}")),
        "geometry": _plain(mapping(geometry)),
        "properties": properties,
    }


def _features(path: Path, document: Any) -> Iterator[dict[str, Any]]:
    items = document if isinstance(document, list) else [document]
    for item in items:
        if not isinstance(item, dict):
            raise AnnotationError(f"{path}: {str(item)[:40]!r} is no GeoJSON feature.")
        if item.get("type") == "FeatureCollection":
            members = item.get("features")
            if not isinstance(members, list):
                raise AnnotationError(f"{path}: the FeatureCollection has no list of features.")
            for member in members:
                if not isinstance(member, dict):
                    raise AnnotationError(f"{path}: {str(member)[:40]!r} is no GeoJSON feature.")
                yield member
        elif item.get("type") in GEOMETRIES:
            yield {"type": "Feature", "geometry": item, "properties": {}}
        else:
            yield item


def _label(properties: dict[str, Any]) -> str:
    classification = properties.get("classification")
    if isinstance(classification, dict):
        names = classification.get("names")
        if isinstance(names, list) and names:
            return ": ".join(str(part) for part in names)
        if classification.get("name"):
            return str(classification["name"])
    if isinstance(classification, str) and classification:
        return classification
    return UNLABELLED


def _geometries(path: Path, geometry: Any, depth: int) -> Iterator[dict[str, Any]]:
    if geometry is None:
        return
    if not isinstance(geometry, dict) or geometry.get("type") not in GEOMETRIES:
        raise AnnotationError(f"{path}: {str(geometry)[:60]!r} is no GeoJSON geometry.")
    if geometry["type"] != "GeometryCollection":
        yield geometry
        return
    if depth > 4:
        raise AnnotationError(f"{path}: geometry collections are nested too deeply.")
    members = geometry.get("geometries")
    for member in members if isinstance(members, list) else ():
        yield from _geometries(path, member, depth + 1)


def _parse(
    path: Path, geometry: dict[str, Any], label: str, name: str, budget: VertexBudget
) -> Iterator[ParsedShape]:
    kind, values = geometry["type"], geometry.get("coordinates")
    if not isinstance(values, list):
        raise AnnotationError(f"{path}: a {kind} has no coordinates.")
    try:
        if kind in ("Point", "MultiPoint"):
            points: Float64Array = budget.coordinates([values] if kind == "Point" else values)
            yield ParsedShape(label=label, name=name, points=points)
        elif kind in ("Polygon", "MultiPolygon"):
            drawn = map(budget.polygon, [values] if kind == "Polygon" else values)
            parts = [polygon for polygon in drawn if polygon is not None]
            if parts:
                area = parts[0] if kind == "Polygon" else MultiPolygon(parts)
                yield ParsedShape(label=label, name=name, geometry=area, role=role_of([label]))
    except TypeError:
        raise AnnotationError(f"{path}: the coordinates of a {kind} are misshapen.") from None


def _plain(value: Any) -> Any:
    """Tuples to lists, and whole numbers without a decimal point."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
