"""What people drew on a slide: areas and points with labels, from any format, and back out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import shapely
from numpy.typing import ArrayLike
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from wsisr.arrays import BoolArray, Float64Array
from wsisr.errors import AnnotationError
from wsisr.files import replace_file
from wsisr.geometry import Box
from wsisr.selection.annotation_formats import asap, imagescope
from wsisr.selection.annotation_formats.geojson import feature, is_geojson, parse_geojson
from wsisr.selection.annotation_formats.labelmask import DEFAULT_LABELS, parse_label_mask
from wsisr.selection.annotation_formats.markup import decoded, parse_xml
from wsisr.selection.annotation_formats.names import IGNORED
from wsisr.selection.annotation_formats.ncrf import is_ncrf, parse_ncrf
from wsisr.selection.annotation_formats.sectra import is_sectra, parse_sectra
from wsisr.selection.annotation_formats.shapes import ParsedShape, parse_json, read_bytes
from wsisr.selection.label_area import LabelArea
from wsisr.selection.regions import moved, polygon_parts
from wsisr.slides.protocol import SlideInfo

Format = Literal["asap", "imagescope", "geojson", "ncrf", "sectra", "mask"]
INSIDE_SHARE = 0.99
"""An area of normal tissue lies in another where at least this share of it does: it cuts out of
that then, and not where a person outlined all normal tissue around a tumour."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """A labelled area.

    Attributes
    ----------
    polygon : shapely Polygon or MultiPolygon
        Valid, level-0 pixels, holes cut out.
    name : str
        As drawn; may be empty.
    parents : tuple of str
        Groups that hold the label, the nearest first.
    """

    label: str
    polygon: BaseGeometry
    name: str = ""
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledPoints:
    """Points of one label; `xy` has shape (n, 2), level-0 pixels."""

    label: str
    xy: Float64Array
    name: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotations:
    """Everything in one annotation file.

    Attributes
    ----------
    notes : tuple of str
        What was repaired or left out, in words.
    origin_px : (int, int)
        Where QuPath's (0, 0) lies in level-0 pixels: `SlideInfo.origin_px`.
    """

    regions: tuple[Region, ...]
    points: tuple[LabelledPoints, ...] = ()
    source_format: Format
    notes: tuple[str, ...] = ()
    origin_px: tuple[int, int] = (0, 0)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the areas, sorted."""
        return tuple(sorted({region.label for region in self.regions}))

    @overload
    def label_fraction(self, box: Box, label: str) -> float: ...
    @overload
    def label_fraction(self, box: ArrayLike, label: str) -> Float64Array: ...
    def label_fraction(self, box: Box | ArrayLike, label: str) -> float | Float64Array:
        """Exact share of level-0 boxes covered by a label.

        Parameters
        ----------
        box : Box, or array of shape (n, 4)
            x, y, width, height.
        label : str
            A label without areas has share 0.

        Returns
        -------
        float, or ndarray of shape (n,)
            Polygon areas, not raster counts; overlapping regions of one label count once.
        """
        if isinstance(box, Box):
            boxes = np.array([[box.x, box.y, box.width, box.height]], np.float64)
            return float(self._shares(boxes, label)[0])
        return self._shares(np.asarray(box, np.float64).reshape(-1, 4), label)

    def contains(self, points: ArrayLike, label: str) -> BoolArray:
        """Whether level-0 points (n, 2) lie in an area of a label."""
        return self.area(label).contains(points)

    def area(self, label: str) -> LabelArea:
        """The union of a label's areas."""
        if label not in self._areas:
            members = [region.polygon for region in self.regions if region.label == label]
            self._areas[label] = LabelArea(_union(members))
        return self._areas[label]

    def to_geojson(self) -> dict[str, Any]:
        """A FeatureCollection that QuPath opens; coordinates are level-0 pixels of its frame."""
        origin = np.asarray(self.origin_px, np.float64)
        features = [feature(moved(r.polygon, -origin), r.label, r.name) for r in self.regions]
        features += [
            feature(shapely.multipoints(p.xy - origin), p.label, p.name)
            for p in self.points
            if len(p.xy)
        ]
        return {"type": "FeatureCollection", "features": features}

    @cached_property
    def _areas(self) -> dict[str, LabelArea]:
        return {}

    def _shares(self, boxes: Float64Array, label: str) -> Float64Array:
        size = boxes[:, 2] * boxes[:, 3]
        share = np.divide(
            self.area(label).areas(boxes), size, out=np.zeros(len(boxes)), where=size > 0
        )
        return np.where(share > 1 - 1e-9, 1.0, share)


def load_annotations(
    path: Path | str,
    slide_hint: SlideInfo | tuple[int, int] | None = None,
    *,
    origin_px: tuple[int, int] = (0, 0),
) -> Annotations:
    """Read an annotation file; its format is told by its content.

    Parameters
    ----------
    path : Path
        ASAP XML, ImageScope XML, QuPath GeoJSON, NCRF JSON or Sectra JSON.
    slide_hint : SlideInfo or (width, height), optional
        The slide: needed for formats with relative coordinates, and to bring GeoJSON from QuPath's
        frame (OpenSlide's bounds, `SlideInfo.origin_px`) to level 0. ASAP, ImageScope and NCRF
        count from the whole plane, as OpenSlide does.
    origin_px : (int, int)
        The same place where there is no `SlideInfo`.

    Raises
    ------
    AnnotationError
        Unreadable, hostile or of an unknown format; the message names the file.
    """
    path = Path(path)
    data = read_bytes(path)
    text = decoded(data)
    head = (data[:4096].decode("latin-1") if text is None else text[:4096]).lstrip()
    source_format: Format
    if head.startswith("<"):
        root = parse_xml(path, data)
        if root.tag == asap.ROOT:
            return _assemble(asap.parse_asap(path, root), "asap")
        if root.tag == imagescope.ROOT:
            return _assemble(imagescope.parse_imagescope(path, root), "imagescope")
        raise AnnotationError(
            f"{path}: the XML is <{str(root.tag)[:40]}>, neither <{asap.ROOT}> (ASAP) nor "
            f"<{imagescope.ROOT}> (ImageScope); export GeoJSON from QuPath."
        )
    if not head.startswith(("{", "[")):
        raise AnnotationError(
            f"{path}: is neither XML nor JSON; known are ASAP and ImageScope XML, QuPath GeoJSON, "
            "NCRF and Sectra JSON (masks are read with load_label_mask)."
        )
    document = parse_json(path, data)
    if document in ([], {}):
        return Annotations(regions=(), source_format="geojson", notes=("the file is empty",))
    if is_geojson(document):
        source_format, shapes = "geojson", parse_geojson(path, document)
    elif is_ncrf(document):
        source_format, shapes = "ncrf", parse_ncrf(path, document)
    elif is_sectra(document):
        size, mpp = _hint(slide_hint)
        source_format, shapes = "sectra", parse_sectra(path, document, size, mpp)
    else:
        raise AnnotationError(
            f"{path}: is JSON, but neither GeoJSON, NCRF (positive, negative) nor Sectra (content)."
        )
    found = _assemble(shapes, source_format)
    if isinstance(slide_hint, SlideInfo):
        origin_px = slide_hint.origin_px
    return _from_qupath(found, origin_px) if source_format == "geojson" else found


def _from_qupath(found: Annotations, origin_px: tuple[int, int]) -> Annotations:
    offset = np.asarray(origin_px, np.float64)
    return replace(
        found,
        regions=tuple(replace(r, polygon=moved(r.polygon, offset)) for r in found.regions),
        points=tuple(replace(p, xy=p.xy + offset) for p in found.points),
        origin_px=origin_px,
    )


def load_label_mask(
    path: Path | str,
    px_per_mask_px: float,
    labels: Mapping[int, str] = DEFAULT_LABELS,
) -> Annotations:
    """Read a label mask (PNG or TIFF with one channel).

    Parameters
    ----------
    px_per_mask_px : float
        Level-0 pixels per mask pixel, e.g. 32.
    labels : mapping of grey level to label
    """
    if not (np.isfinite(px_per_mask_px) and px_per_mask_px > 0):
        raise AnnotationError(f"{path}: a mask scale of {px_per_mask_px} px is not positive.")
    path = Path(path)
    return _assemble(parse_label_mask(path, read_bytes(path), px_per_mask_px, labels), "mask")


def save_geojson(path: Path, collection: Mapping[str, Any]) -> None:
    """Write GeoJSON compactly, the same bytes for the same content."""
    text = json.dumps(collection, separators=(",", ":"), allow_nan=False) + "\n"
    replace_file(path, text.encode())


def _hint(slide: SlideInfo | tuple[int, int] | None) -> tuple[tuple[int, int] | None, float | None]:
    if isinstance(slide, SlideInfo):
        base = slide.levels[0]
        return (base.width_px, base.height_px), slide.mpp.value if slide.mpp else None
    return slide, None


def _assemble(shapes: list[ParsedShape], source_format: Format) -> Annotations:
    """Repair areas, cut holes out, sort points from areas."""
    notes = []
    repaired = empty = 0
    areas: list[tuple[ParsedShape, BaseGeometry]] = []
    inner: list[BaseGeometry] = []
    holes: list[BaseGeometry] = []
    ignored: list[BaseGeometry] = []
    for shape in shapes:
        if shape.geometry is None:
            continue
        area = shape.geometry
        if not area.is_valid:
            area, repaired = shapely.make_valid(area), repaired + 1
        area = _area_of(area)
        if area is None:
            empty += 1
        elif shape.role in ("hole", "ignore"):
            holes.append(area)
            if shape.role == "ignore":
                ignored.append(area)
        else:
            areas.append((shape, area))
            if shape.role == "inner":
                inner.append(area)
    cut = shapely.union_all(holes) if holes else None
    tree = shapely.STRtree(inner)
    regions = []
    for shape, area in areas:
        left: BaseGeometry | None = area
        for index in tree.query(area) if shape.role == "area" else ():
            if left is not None and _lies_in(inner[index], area):
                left = _area_of(shapely.difference(left, inner[index]))
        if left is not None and cut is not None:
            left = _area_of(shapely.difference(left, cut))
        if left is None:
            empty += 1
        else:
            regions.append(
                Region(label=shape.label, polygon=left, name=shape.name, parents=shape.parents)
            )
    regions += [Region(label=IGNORED, polygon=area) for area in ignored]
    if repaired:
        notes.append(f"{repaired} outline(s) crossed themselves and were repaired")
    if empty:
        notes.append(f"{empty} outline(s) without area were left out")
    return Annotations(
        regions=tuple(regions),
        points=tuple(
            LabelledPoints(label=s.label, xy=s.points, name=s.name) for s in shapes if len(s.points)
        ),
        source_format=source_format,
        notes=tuple(notes),
    )


def _lies_in(inner: BaseGeometry, outer: BaseGeometry) -> bool:
    return bool(shapely.intersection(inner, outer).area >= INSIDE_SHARE * inner.area)


def _union(members: list[BaseGeometry]) -> BaseGeometry:
    """Union; areas whose bounds meet no other's (most cells) need no overlay."""
    parts = np.empty(0, object)
    if members:
        parts = shapely.get_parts(np.asarray(members, object))
    first, second = shapely.STRtree(parts).query(parts)
    crowded = np.zeros(len(parts), np.bool_)
    crowded[first[first != second]] = True
    united = shapely.union_all(parts[crowded])
    return MultiPolygon([*polygon_parts(united), *parts[~crowded]])


def _area_of(geometry: BaseGeometry) -> Polygon | MultiPolygon | None:
    parts = [part for part in polygon_parts(geometry) if part.area > 0]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)
