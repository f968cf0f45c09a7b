"""Masks to polygons and back, exactly.

Polygons follow pixel edges, so a mask that goes out as GeoJSON and comes back is the same mask,
and areas agree to the last pixel. (`cv2.findContours` runs through pixel centres and loses half a
pixel all round.)
"""

from collections.abc import Iterable

import cv2
import numpy as np
import shapely
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from wsisr.arrays import BoolArray, Float64Array, Int32Array, UInt8Array


def mask_to_polygons(mask: BoolArray, scale: float = 1.0) -> tuple[Polygon, ...]:
    """One polygon with holes per 4-connected component, along pixel edges.

    Parameters
    ----------
    mask : ndarray, shape (h, w), bool
    scale : float
        Multiplies coordinates: level-0 pixels per mask pixel.

    Returns
    -------
    tuple of shapely Polygon
        Valid polygons, ordered by component; straight runs have no inner vertices.
    """
    if not mask.any():
        return ()
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    loops: dict[int, list[Float64Array]] = {}
    for label, loop in _loops(np.asarray(labels, np.int32)):
        loops.setdefault(label, []).append(loop)
    polygons: list[Polygon] = []
    for label in sorted(loops):
        rings = sorted(loops[label], key=lambda ring: -abs(_signed_area(ring)))
        polygon = Polygon(rings[0] * scale, [ring * scale for ring in rings[1:]])
        if not polygon.is_valid:
            # A ring that touches itself where two pixels meet at a corner.
            polygons.extend(polygon_parts(shapely.make_valid(polygon)))
        else:
            polygons.append(polygon)
    return tuple(polygons)


def polygons_to_mask(
    polygons: Iterable[BaseGeometry], shape: tuple[int, int], scale: float = 1.0
) -> BoolArray:
    """Pixels whose centre lies inside any of the polygons.

    Parameters
    ----------
    polygons : iterable of shapely geometry
        Anything without area is ignored.
    shape : (int, int)
        Height and width of the mask.
    scale : float
        Level-0 pixels per mask pixel; coordinates are divided by it.
    """
    height, width = shape
    mask = np.zeros(shape, np.bool_)
    for geometry in polygons:
        for polygon in polygon_parts(geometry):
            left, top, right, bottom = (value / scale for value in polygon.bounds)
            x0, x1 = max(0, int(np.floor(left))), min(width, int(np.ceil(right)))
            y0, y1 = max(0, int(np.floor(top))), min(height, int(np.ceil(bottom)))
            if x0 >= x1 or y0 >= y1:
                continue
            window = np.zeros((y1 - y0, x1 - x0 + 1), np.uint8)
            for ring in (polygon.exterior, *polygon.interiors):
                _toggle(window, np.asarray(ring.coords)[:, :2] / scale - (x0, y0))
            inside = np.bitwise_xor.accumulate(window, axis=1)[:, :-1].view(np.bool_)
            mask[y0:y1, x0:x1] |= inside
    return mask


def polygon_parts(geometry: BaseGeometry) -> list[Polygon]:
    """The polygons of a geometry; lines and points are left out."""
    if isinstance(geometry, Polygon):
        return [] if geometry.is_empty else [geometry]
    if isinstance(geometry, MultiPolygon) or hasattr(geometry, "geoms"):
        return [part for child in geometry.geoms for part in polygon_parts(child)]
    return []


def _toggle(window: UInt8Array, ring: Float64Array) -> None:
    """Flip parity right of every crossing of a ring with the rows' centre lines."""
    x0, y0 = ring[:-1, 0], ring[:-1, 1]
    x1, y1 = ring[1:, 0], ring[1:, 1]
    low, high = np.minimum(y0, y1), np.maximum(y0, y1)
    first = np.clip(np.ceil(low - 0.5), 0, window.shape[0]).astype(np.int64)
    last = np.clip(np.ceil(high - 0.5), 0, window.shape[0]).astype(np.int64)
    counts = last - first
    edge = np.repeat(np.arange(len(x0)), counts)
    if not edge.size:
        return
    row = np.arange(edge.size) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    t = (row + 0.5 - y0[edge]) / (y1[edge] - y0[edge])
    x = x0[edge] + t * (x1[edge] - x0[edge])
    column = np.clip(np.ceil(x - 0.5), 0, window.shape[1] - 1).astype(np.int64)
    np.bitwise_xor.at(window, (row, column), 1)


def _loops(labels: Int32Array) -> Iterable[tuple[int, Float64Array]]:
    """Closed corner lists around labelled areas, each with its area's label.

    Every unit edge has its area on the right hand (y down): top edges run right, right edges
    down, bottom edges left, left edges up. At a corner where two pixels of one label meet
    diagonally, the loop stays with its pixel.
    """
    padded = np.pad(labels, 1)
    width = padded.shape[1]
    centre = padded[1:-1, 1:-1]
    starts: dict[int, list[tuple[int, int]]] = {}
    # (direction, neighbour, start corner offset (y, x)) in padded corner coordinates.
    for direction, neighbour, dy, dx in (
        (0, padded[:-2, 1:-1], 0, 0),
        (1, padded[1:-1, 2:], 0, 1),
        (2, padded[2:, 1:-1], 1, 1),
        (3, padded[1:-1, :-2], 1, 0),
    ):
        rows, columns = np.nonzero((centre != 0) & (neighbour != centre))
        keys = (rows + dy) * width + columns + dx
        for key, label in zip(keys.tolist(), centre[rows, columns].tolist(), strict=True):
            starts.setdefault(key, []).append((direction, label))
    moves = (1, width, -1, -width)
    while starts:
        first_key = next(iter(starts))
        direction, label = starts[first_key][0]
        key, corners = first_key, [first_key]
        first_direction = direction
        while True:
            starts[key].remove((direction, label))
            if not starts[key]:
                del starts[key]
            key += moves[direction]
            options = [d for d, owner in starts.get(key, ()) if owner == label]
            # Right turn first: it keeps to the same pixel.
            turn = min(options, key=lambda d: (d - direction - 1) % 4) if options else None
            back = (first_direction - direction - 1) % 4 if key == first_key else 4
            if turn is None or back <= (turn - direction - 1) % 4:
                break
            if turn != direction:
                corners.append(key)
            direction = turn
        if direction == first_direction:
            corners = corners[1:]
        y, x = np.divmod(np.asarray(corners), width)
        yield label, np.stack([x, y], axis=1).astype(np.float64)


def _signed_area(ring: Float64Array) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return float(0.5 * (x * np.roll(y, -1) - np.roll(x, -1) * y).sum())


def moved(geometry: BaseGeometry, offset_px: Float64Array) -> BaseGeometry:
    """A geometry shifted by (x, y); itself where that is nothing."""
    if not offset_px.any():
        return geometry
    shifted: BaseGeometry = shapely.transform(geometry, lambda points: points + offset_px)
    return shifted
