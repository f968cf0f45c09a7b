"""Pen strokes and black scan borders: what is dark or coloured and is no tissue."""

from collections.abc import Callable, Mapping

import cv2
import numpy as np

from wsisr.arrays import BoolArray, Int16Array, UInt8Array
from wsisr.selection.cues import (
    STRIP_PX,
    Cues,
    WhitePoint,
    balanced,
    chosen_pieces,
)

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
    white : WhitePoint
    cues : Cues
        Of the same picture.
    um_per_px : float
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
    found = []
    smooth = np.empty(valid.shape, np.bool_)
    for top in range(0, len(smooth), STRIP_PX):
        rows = slice(top, top + STRIP_PX)
        density = cues.density[rows]
        smooth[rows] = density > SMOOTH_DENSITY
        smooth[rows] &= cues.texture[rows] < SMOOTH_RATIO * density
    for colour in PEN_COLOURS:
        core = _large(_by_strips(rgb, white, _CORES[colour]) & valid, least)
        if not core.any():
            continue
        found.append(colour)
        seed = _touching(smooth, core)
        near = cv2.dilate(seed.view(np.uint8), reach).view(np.bool_)
        grown = seed | (near & _by_strips(rgb, white, _RIMS[colour]))
        result |= cv2.dilate(grown.view(np.uint8), _disk(1)).view(np.bool_)
    result &= valid
    return _fill(result, HOLE_AREA_UM2 / um_per_px**2), tuple(found)


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


def _by_strips(rgb: UInt8Array, white: WhitePoint, rule: _Rule) -> BoolArray:
    result = np.empty(rgb.shape[:2], np.bool_)
    for top in range(0, rgb.shape[0], STRIP_PX):
        rows = slice(top, top + STRIP_PX)
        red, green, blue = np.moveaxis(balanced(rgb[rows], white), 2, 0)
        result[rows] = rule(red, green, blue)
    return result


def black_border(rgb: UInt8Array, um_per_px: float) -> BoolArray:
    """Black filler: near-black areas that touch the slide's edge or are exactly uniform.

    Returns
    -------
    ndarray, shape (h, w), bool
    """
    dark = rgb.max(axis=2) <= BLACK_LEVEL
    result = np.zeros(dark.shape, np.bool_)
    if not dark.any():
        return result
    count, labels, stats, _ = cv2.connectedComponentsWithStats(dark.view(np.uint8), connectivity=8)
    height, width = dark.shape
    least = BORDER_AREA_UM2 / um_per_px**2
    for index in range(1, count):
        x, y, w, h, area = stats[index]
        touches = x == 0 or y == 0 or x + w == width or y + h == height
        if not touches or area < least:
            continue
        # Ink and tissue that run off the slide are ragged; filler fills its own rectangle's
        # edge or runs along much of the slide's.
        along = max(
            (labels[0] == index).mean(),
            (labels[-1] == index).mean(),
            (labels[:, 0] == index).mean(),
            (labels[:, -1] == index).mean(),
        )
        if along > 0.25 or area > 0.9 * w * h:
            result |= labels == index
    if result.any():
        result = cv2.dilate(result.view(np.uint8), _disk(1)).view(np.bool_)
    return result


def _large(mask: BoolArray, least_px: float) -> BoolArray:
    if not mask.any():
        return mask
    opened = cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_OPEN, _disk(1))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= least_px
    keep[0] = False
    return chosen_pieces(labels, keep) if count > 1 else np.zeros_like(mask)


def _fill(mask: BoolArray, most_px: float) -> BoolArray:
    """Close gaps up to a size: what looks out between ink is not worth a patch."""
    if not mask.any():
        return mask
    _, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).view(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] <= most_px
    small[0] = False
    return mask | chosen_pieces(labels, small)


def _touching(area: BoolArray, core: BoolArray) -> BoolArray:
    """The core and the components of an area that touch it."""
    _, labels = cv2.connectedComponents((area | core).view(np.uint8), connectivity=8)
    hit = np.zeros(int(labels.max()) + 1, np.bool_)
    hit[labels[core]] = True
    hit[0] = False
    return chosen_pieces(labels, hit)


def _disk(radius_px: float) -> UInt8Array:
    radius = max(1, round(radius_px))
    kernel: UInt8Array = cv2.getStructuringElement(
        cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)
    ).astype(np.uint8)
    return kernel
