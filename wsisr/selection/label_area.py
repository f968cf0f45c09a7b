"""Exact areas of polygons inside many boxes.

A lesion outline has thousands of vertices and a slide has up to 100,000 candidate boxes, so
clipping each box against the whole outline is hopeless. The outline is cut once into pieces of
few vertices (exactly: no raster is involved). Boxes that contain a piece add its area, boxes over
solid rectangles are arithmetic, and only the few that cross an outline are clipped.
"""

from functools import cached_property

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from wsisr.arrays import BoolArray, Float64Array
from wsisr.selection.regions import polygon_parts

PIECE_VERTICES = 48
MAX_DEPTH = 24


class LabelArea:
    """The union of some areas, ready for many questions.

    Parameters
    ----------
    geometry : shapely geometry
        Valid polygons in level-0 pixels.
    """

    def __init__(self, geometry: BaseGeometry) -> None:
        self.geometry = geometry

    @property
    def area_px2(self) -> float:
        return float(self.geometry.area)

    def areas(self, boxes: ArrayLike) -> Float64Array:
        """Area (level-0 px2) inside boxes (n, 4) of x, y, width, height."""
        values = np.asarray(boxes, np.float64).reshape(-1, 4)
        result = np.zeros(len(values))
        pieces, bounds, sizes, solid = self._pieces
        if not len(pieces) or not len(values):
            return result
        left, top = values[:, 0], values[:, 1]
        right, bottom = left + values[:, 2], top + values[:, 3]
        tiles = shapely.box(left, top, right, bottom)
        box_index, piece_index = self._tree.query(tiles)
        piece_bounds = bounds[piece_index]
        width = np.minimum(right[box_index], piece_bounds[:, 2]) - np.maximum(
            left[box_index], piece_bounds[:, 0]
        )
        height = np.minimum(bottom[box_index], piece_bounds[:, 3]) - np.maximum(
            top[box_index], piece_bounds[:, 1]
        )
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        whole = (
            (left[box_index] <= piece_bounds[:, 0])
            & (top[box_index] <= piece_bounds[:, 1])
            & (right[box_index] >= piece_bounds[:, 2])
            & (bottom[box_index] >= piece_bounds[:, 3])
        )
        crossing = ~whole & ~solid[piece_index] & (shared > 0)
        shared[whole] = sizes[piece_index[whole]]
        shared[crossing] = shapely.area(
            shapely.intersection(pieces[piece_index[crossing]], tiles[box_index[crossing]])
        )
        summed: Float64Array = np.bincount(box_index, weights=shared, minlength=len(values)).astype(
            np.float64
        )
        return summed

    def contains(self, points: ArrayLike) -> BoolArray:
        """Whether points (n, 2) lie inside (the border counts as outside)."""
        values = np.asarray(points, np.float64).reshape(-1, 2)
        shapely.prepare(self.geometry)
        inside: BoolArray = shapely.contains_xy(self.geometry, values[:, 0], values[:, 1])
        return inside

    @cached_property
    def _pieces(
        self,
    ) -> tuple[NDArray[np.object_], Float64Array, Float64Array, BoolArray]:
        pieces: list[Polygon] = []
        for part in polygon_parts(self.geometry):
            _divide(part, pieces, 0)
        array = np.empty(len(pieces), object)
        array[:] = pieces
        bounds = shapely.bounds(array).reshape(-1, 4)
        box_area = (bounds[:, 2] - bounds[:, 0]) * (bounds[:, 3] - bounds[:, 1])
        sizes = np.asarray(shapely.area(array), np.float64)
        return array, bounds, sizes, sizes >= box_area * (1 - 1e-12)

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self._pieces[0])


def _divide(polygon: Polygon, out: list[Polygon], depth: int) -> None:
    """Cut along the longer side until a piece has few vertices."""
    if shapely.get_num_coordinates(polygon) <= PIECE_VERTICES or depth >= MAX_DEPTH:
        out.append(polygon)
        return
    left, top, right, bottom = polygon.bounds
    if right - left >= bottom - top:
        middle = 0.5 * (left + right)
        halves = (left, top, middle, bottom), (middle, top, right, bottom)
    else:
        middle = 0.5 * (top + bottom)
        halves = (left, top, right, middle), (left, middle, right, bottom)
    for half in halves:
        for part in polygon_parts(shapely.intersection(polygon, shapely.box(*half))):
            _divide(part, out, depth + 1)
