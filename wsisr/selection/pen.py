"""Pen strokes and black scan borders: what is dark or coloured and is no tissue."""

from collections.abc import Callable, Mapping

import cv2
import numpy as np

from wsisr.arrays import BoolArray, Int16Array, UInt8Array
from wsisr.selection.cues import Cues, WhitePoint, balanced
from wsisr.selection.pieces import find_pieces
from wsisr.selection.strips import blocks, by_strips, strips

PEN_COLOURS = ("blue", "green", "red", "black")
STROKE_AREA_UM2 = 20_000.0
"""Least area of a stroke's core: 0.02 mm2; nuclei and pigment are smaller."""
GROWTH_UM = 150.0
"""A stroke's pale rim reaches this far from its core."""
HOLE_AREA_UM2 = 20_000.0
SMOOTH_DENSITY = 0.08
SMOOTH_RATIO = 0.025
BLACK_LEVEL = 25
"""Grey level at and below which filler and never-scanned areas lie."""
BORDER_AREA_UM2 = 40_000.0


def pen_mask(
    rgb: UInt8Array, white: WhitePoint, cues: Cues, um_per_px: float, valid: BoolArray
) -> tuple[BoolArray, tuple[str, ...]]:
    """All strokes with their rims, and the colours found.

    Parameters
    ----------
    rgb : ndarray, shape (h, w, 3), uint8
    cues : Cues
        Of the same picture.
    valid : ndarray, shape (h, w), bool

    Returns
    -------
    mask : ndarray, shape (h, w), bool
    colours : tuple of str

    Notes
    -----
    Haematoxylin and eosin always leave green the darkest channel, so strokes in which
    green exceeds red (blue, green) separate cleanly. Red ink differs from eosin by blue being as
    dark as green; black ink from nuclei by having no colour at all. Lakes of red cells and
    pigment come close to those two, so a core must be large. From a core a stroke goes on
    through everything that is smooth: ink lies on the cover slip, out of focus, and its
    gradient is below 2.5 % of its density per pixel where tissue at 8 um/px has 5-30 %.
    """
    least = STROKE_AREA_UM2 / um_per_px**2
    reach = _disk(GROWTH_UM / um_per_px)
    result = np.zeros(valid.shape, np.bool_)
    found: list[str] = []
    for colour in PEN_COLOURS:
        core = _coloured(rgb, white, _CORES[colour])
        core &= valid
        core = _large(core, least)
        if not core.any():
            continue
        if not found:
            smooth = _smooth(cues)
        found.append(colour)
        stroke = _touching(smooth, core)
        del core
        grown = _dilated(stroke, reach)
        grown &= _coloured(rgb, white, _RIMS[colour])
        stroke |= grown
        del grown
        result |= _dilated(stroke, _disk(1))
    if found:
        result &= valid
        result = _fill(result, HOLE_AREA_UM2 / um_per_px**2)
    return result, tuple(found)


def _smooth(cues: Cues) -> BoolArray:
    """Where something lies that has hardly any texture."""
    result = np.empty(cues.density.shape, np.bool_)
    for rows in strips(len(result)):
        density = cues.density[rows]
        result[rows] = density > SMOOTH_DENSITY
        result[rows] &= cues.texture[rows] < SMOOTH_RATIO * density
    return result


_Rule = Callable[[Int16Array, Int16Array, Int16Array], BoolArray]


def _top(red: Int16Array, green: Int16Array, blue: Int16Array) -> Int16Array:
    return np.maximum(np.maximum(red, green), blue)


def _chroma(red: Int16Array, green: Int16Array, blue: Int16Array) -> Int16Array:
    return _top(red, green, blue) - np.minimum(np.minimum(red, green), blue)


_CORES: Mapping[str, _Rule] = {
    "blue": lambda r, g, b: (b - r > 45) & (g - r > 6) & (b >= g),
    "green": lambda r, g, b: (g - r > 18) & (g - b > -25) & (_chroma(r, g, b) > 28),
    "red": lambda r, g, b: (r - g > 90) & (r - b > 70) & (b - g < 25),
    "black": lambda r, g, b: (_top(r, g, b) < 95) & (_chroma(r, g, b) < 28),
}
_RIMS: Mapping[str, _Rule] = {
    "blue": lambda r, g, b: (b - r > 12) & (g - r > 0),
    "green": lambda r, g, b: (g - r > 6) & (g - b > -30),
    "red": lambda r, g, b: ((r - g > 25) & (r - b > 10) & (b - g < 30)) | (_top(r, g, b) < 120),
    "black": lambda r, g, b: _top(r, g, b) < 150,
}


def _coloured(rgb: UInt8Array, white: WhitePoint, rule: _Rule) -> BoolArray:
    result = np.empty(rgb.shape[:2], np.bool_)
    for rows in blocks(result.shape):
        red, green, blue = np.moveaxis(balanced(rgb[rows], white), 2, 0)
        result[rows] = rule(red, green, blue)
    return result


def black_border(rgb: UInt8Array, um_per_px: float) -> BoolArray:
    """Black filler: near-black areas that touch the slide's edge or are exactly uniform.

    Returns
    -------
    ndarray, shape (h, w), bool
    """
    dark = np.empty(rgb.shape[:2], np.bool_)
    for rows in blocks(dark.shape):
        dark[rows] = rgb[rows].max(axis=2) <= BLACK_LEVEL
    if not dark.any():
        return dark
    pieces = find_pieces(dark)
    large = pieces.at_edge & (pieces.area >= BORDER_AREA_UM2 / um_per_px**2)
    if not large.any():
        return np.zeros(dark.shape, np.bool_)
    # Ink and tissue that run off the slide are ragged; filler fills its own rectangle's
    # edge or runs along much of the slide's.
    box = (pieces.right - pieces.left) * (pieces.bottom - pieces.top)
    filler = large & ((pieces.along_edges() > 0.25) | (pieces.area > 0.9 * box))
    return _dilated(pieces.where(filler), _disk(1))


def _large(mask: BoolArray, least_px: float) -> BoolArray:
    if not mask.any():
        return mask
    opened = by_strips(mask, 2, lambda part: cv2.morphologyEx(part, cv2.MORPH_OPEN, _disk(1)))
    pieces = find_pieces(opened)
    return pieces.where(pieces.area >= least_px)


def _fill(mask: BoolArray, most_px: float) -> BoolArray:
    """Close gaps up to a size: what looks out between ink is not worth a patch."""
    if not mask.any():
        return mask
    gaps = find_pieces(~mask, connectivity=4)
    closed = gaps.where(gaps.area <= most_px)
    closed |= mask
    return closed


def _touching(area: BoolArray, core: BoolArray) -> BoolArray:
    """The core and the components of an area that touch it."""
    pieces = find_pieces(area | core)
    return pieces.where(pieces.sums(core) > 0)


def _dilated(mask: BoolArray, kernel: UInt8Array) -> BoolArray:
    return by_strips(mask, len(kernel) // 2, lambda part: cv2.dilate(part, kernel))


def _disk(radius_px: float) -> UInt8Array:
    radius = max(1, round(radius_px))
    kernel: UInt8Array = cv2.getStructuringElement(
        cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)
    ).astype(np.uint8)
    return kernel
