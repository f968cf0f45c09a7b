"""A slide's tissue as a mask with exact area fractions and its way out to QuPath."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from wsisr.arrays import AnyArray, BoolArray, Float64Array, Int32Array, UInt8Array
from wsisr.geometry import Box
from wsisr.selection.otsu import Threshold
from wsisr.selection.regions import mask_to_polygons, moved
from wsisr.selection.strips import RowMap

Integral = Float64Array | Int32Array
Edges = tuple[Float64Array, Float64Array, Float64Array, Float64Array]

BAND_ROWS = 256
"""Rows of a map within which the boxes begin that are measured together."""
TissueKind = Literal["brightfield", "fluorescence", "blank"]


@dataclass(frozen=True, kw_only=True)
class TissueHealth:
    """Numbers that tell whether a mask can be trusted.

    Attributes
    ----------
    components : int
        Separate pieces of tissue.
    largest_mm2 : float
        Area of the largest piece.
    stability : float
        Smaller IoU of the mask with those at thresholds 10 % lower and higher; 1 is perfect.
    white_rgb : (float, float, float)
        Colour of bare glass, grey levels.
    thresholds : mapping of cue to Threshold
    flags : tuple of str
        Sentences for a person; empty when nothing is unusual.
    """

    tissue_mm2: float
    scanned_mm2: float
    pen_mm2: float
    components: int
    largest_mm2: float
    stability: float
    white_rgb: tuple[float, float, float]
    thresholds: Mapping[str, Threshold]
    pen_colours: tuple[str, ...]
    flags: tuple[str, ...]

    @property
    def tissue_share(self) -> float:
        """Share of the scanned area that is tissue."""
        return self.tissue_mm2 / self.scanned_mm2 if self.scanned_mm2 else 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class TissueMap:
    """Tissue of one slide.

    Attributes
    ----------
    mask : ndarray, shape (h, w), bool
        Tissue, without pen and never-scanned areas.
    um_per_px : float
        Of the mask.
    factor : float
        Level-0 pixels per mask pixel: pixel j covers level-0 ``[j factor, (j + 1) factor)``.
    pen : ndarray, shape (h, w), bool
    invalid : ndarray, shape (h, w), bool
        Never scanned, or black filler.
    kind : {"brightfield", "fluorescence", "blank"}
        Only brightfield slides have tissue in the mask.
    overview : ndarray, shape (h, w, 3), uint8, optional
        The picture that the mask was made from.
    origin_px : (int, int)
        Where QuPath's (0, 0) lies in level-0 pixels: `SlideInfo.origin_px`.
    """

    mask: BoolArray
    um_per_px: float
    factor: float
    pen: BoolArray
    invalid: BoolArray
    health: TissueHealth
    kind: TissueKind
    overview: UInt8Array | None = None
    origin_px: tuple[int, int] = (0, 0)

    @overload
    def fraction(self, box_level0: Box) -> float: ...
    @overload
    def fraction(self, box_level0: ArrayLike) -> Float64Array: ...
    def fraction(self, box_level0: Box | ArrayLike) -> float | Float64Array:
        """Exact share of a level-0 box that is tissue at the mask's resolution.

        Parameters
        ----------
        box_level0 : Box, or array of shape (n, 4)
            x, y, width, height in level-0 pixels; fractions of pixels are allowed. What lies
            outside the slide counts as no tissue.

        Returns
        -------
        float, or ndarray of shape (n,)
        """
        if not isinstance(box_level0, Box):
            return self.mean_of(self.mask, box_level0)
        box = box_level0
        boxes = np.array([[box.x, box.y, box.width, box.height]], np.float64)
        return float(integral_share(self._integral, boxes, self.factor)[0])

    def mean_of(self, values: RowMap, boxes: ArrayLike) -> Float64Array:
        """Area mean of any map of the mask's shape over level-0 boxes (n, 4)."""
        return box_means(values, np.asarray(boxes, np.float64), self.factor)

    def to_geojson(self) -> dict[str, Any]:
        """A FeatureCollection that QuPath opens: one annotation per piece, class "Tissue".

        Coordinates are level-0 pixels of QuPath's frame along mask-pixel edges; read back with
        `wsisr.selection.tissue.import_tissue` gives the same mask.
        """
        from wsisr.selection.annotation_formats.geojson import feature

        shift = -np.asarray(self.origin_px, np.float64)
        features = [
            feature(moved(polygon, shift), "Tissue", name=f"Tissue {number}")
            for number, polygon in enumerate(mask_to_polygons(self.mask, self.factor), 1)
        ]
        return {"type": "FeatureCollection", "features": features}

    @cached_property
    def _integral(self) -> Integral:
        """For boxes that are asked for one after another."""
        return integral_of(self.mask)


def box_means(values: RowMap, boxes: Float64Array, factor: float) -> Float64Array:
    """`integral_share` of many boxes, with the integral of a band of rows at a time: of a large
    slide the whole one is larger than anything else that a scan holds."""
    boxes = boxes.reshape(-1, 4)
    edges = _edges(boxes, factor)
    height = values.shape[0]
    first = np.clip(np.floor(edges[1]), 0, height - 1).astype(np.int64)
    last = np.clip(np.ceil(edges[3]), 1, height).astype(np.int64)
    result = np.zeros(len(boxes))
    for band in np.unique(first // BAND_ROWS):
        chosen = np.flatnonzero(first // BAND_ROWS == band)
        start = int(band) * BAND_ROWS
        part = integral_of(values[start : int(last[chosen].max())])
        left, top, right, bottom = (edge[chosen] for edge in edges)
        result[chosen] = _between(part, (left, top - start, right, bottom - start))
    return result


def integral_of(values: AnyArray) -> AnyArray:
    """Sums of everything above and left of each pixel corner; shape (h + 1, w + 1).

    Counts of a mask are whole numbers in half the memory; a map that is zero everywhere needs
    only one pixel.
    """
    if values.dtype == np.bool_ and not values.any():
        return np.zeros((2, 2), np.int32)
    kind = np.int32 if values.dtype == np.bool_ else np.float64
    result: AnyArray = np.zeros((values.shape[0] + 1, values.shape[1] + 1), kind)
    for row, above, inner in zip(values, result, result[1:], strict=False):
        inner[1:] = row
        inner[1:] += above[1:]
    for inner in result[1:]:  # numpy copies a whole map that it sums up in place
        np.cumsum(inner, out=inner)
    return result


def integral_share(integral: Integral, boxes: Float64Array, factor: float) -> Float64Array:
    """Mean over level-0 boxes of a map that is constant within its pixels, exactly.

    The integral of such a map is bilinear between pixel corners, so interpolating it there is
    no approximation.
    """
    return _between(integral, _edges(boxes.reshape(-1, 4), factor))


def _edges(boxes: Float64Array, factor: float) -> Edges:
    """Left, top, right and bottom in pixels of the map."""
    left, top = boxes[:, 0] / factor, boxes[:, 1] / factor
    return left, top, left + boxes[:, 2] / factor, top + boxes[:, 3] / factor


def _between(integral: Integral, edges: Edges) -> Float64Array:
    left, top, right, bottom = edges
    total = (
        _at(integral, right, bottom)
        - _at(integral, left, bottom)
        - _at(integral, right, top)
        + _at(integral, left, top)
    )
    area = (right - left) * (bottom - top)
    # Rounding in the sums can leave -1e-12 or 1 + 1e-12.
    share: Float64Array = np.divide(total, area, out=np.zeros_like(total), where=area > 0)
    return np.where(np.abs(share) < 1e-9, 0.0, np.where(np.abs(share - 1) < 1e-9, 1.0, share))


def _at(integral: Integral, x: Float64Array, y: Float64Array) -> Float64Array:
    height, width = integral.shape[0] - 1, integral.shape[1] - 1
    x, y = np.clip(x, 0, width), np.clip(y, 0, height)
    column = np.minimum(x.astype(np.int64), max(0, width - 1))
    row = np.minimum(y.astype(np.int64), max(0, height - 1))
    u, v = x - column, y - row
    upper = integral[row, column] * (1 - u) + integral[row, column + 1] * u
    lower = integral[row + 1, column] * (1 - u) + integral[row + 1, column + 1] * u
    result: Float64Array = upper * (1 - v) + lower * v
    return result
