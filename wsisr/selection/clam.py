"""Tissue as CLAM finds it, written anew from its public description.

Saturation of HSV, median blur, a fixed or Otsu's threshold, closing; then pieces of tissue and
the holes in them are kept by area. CLAM states lengths in pixels of a level of about 16 um/px
(downsample 64 of a 40x slide) and areas in fields of 512 x 512 level-0 pixels; here both stand
on the glass, in um and mm2, so that they mean the same on every slide.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from wsisr.arrays import AnyArray, BoolArray, Int64Array, UInt8Array
from wsisr.selection.cues import odd_px


@dataclass(frozen=True, kw_only=True)
class ClamSettings:
    """What decides about tissue; the defaults are CLAM's published values for TCGA at 40x.

    Attributes
    ----------
    saturation : int
        Smallest saturation (0-255) after the blur; not used with `otsu`.
    otsu : bool
        Take Otsu's threshold instead.
    median_um, close_um : float
        Sides of the median window and of the closing's square.
    min_tissue_mm2, min_hole_mm2 : float
        Smaller pieces are dropped, smaller holes filled.
    max_holes : int
        Holes kept in one piece, the largest first.
    """

    saturation: int = 8
    otsu: bool = True
    median_um: float = 112.0
    close_um: float = 64.0
    min_tissue_mm2: float = 0.262144
    min_hole_mm2: float = 0.065536
    max_holes: int = 8


TCGA = ClamSettings()


def clam_mask(rgb: UInt8Array, um_per_px: float, settings: ClamSettings = TCGA) -> BoolArray:
    """Mask of a picture.

    Parameters
    ----------
    rgb : ndarray, shape (h, w, 3), uint8

    Returns
    -------
    ndarray, shape (h, w), bool
    """
    side_px = max(1, round(settings.close_um / um_per_px))
    return filter_areas(saturated(rgb, um_per_px, settings, side_px), um_per_px, settings)


def saturated(
    rgb: UInt8Array, um_per_px: float, settings: ClamSettings, close_px: int
) -> BoolArray:
    """Saturation of HSV, median blur, fixed or Otsu's threshold, closing; all pieces and holes."""
    saturation = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 1]
    blurred = cv2.medianBlur(saturation, odd_px(settings.median_um, um_per_px))
    mode = cv2.THRESH_BINARY + (cv2.THRESH_OTSU if settings.otsu else 0)
    _, mask = cv2.threshold(blurred, settings.saturation, 255, mode)
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((close_px, close_px), np.uint8))
    result: BoolArray = closed > 0
    return result


def filter_areas(mask: BoolArray, um_per_px: float, settings: ClamSettings) -> BoolArray:
    """Drop small pieces, fill small holes and all but the largest few of each piece.

    The rule of the largest few needs the labels of pieces and holes, which scikit-image's removal
    of small objects and holes makes and does not give.
    """
    px_per_mm2 = (1000.0 / um_per_px) ** 2
    pieces, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8
    )
    large = stats[:, cv2.CC_STAT_AREA] > settings.min_tissue_mm2 * px_per_mm2
    large[0] = False
    kept: BoolArray = large[labels]
    # Holes are background that does not reach the border; 4-connected, as pieces are 8-connected.
    padded = np.pad(~kept, 1, constant_values=True).astype(np.uint8)
    count, holes, sizes, _ = cv2.connectedComponentsWithStats(padded, connectivity=4)
    holes = holes[1:-1, 1:-1]
    outside = 1 if count > 1 else 0
    owner = _owners(np.asarray(holes), np.asarray(labels), count)
    stay = np.zeros(count, np.bool_)
    stay[[0, outside]] = True
    for piece in range(1, pieces):
        own = [
            (-int(sizes[h, cv2.CC_STAT_AREA]), h)
            for h in np.flatnonzero(owner == piece).tolist()
            if h > outside and sizes[h, cv2.CC_STAT_AREA] > settings.min_hole_mm2 * px_per_mm2
        ]
        stay[[h for _, h in sorted(own)[: settings.max_holes]]] = True
    result: BoolArray = kept | ~stay[holes]
    return result


def _owners(holes: AnyArray, labels: AnyArray, count: int) -> Int64Array:
    """The piece above the first pixel of each hole: what a hole is in encloses it from above."""
    owner = np.zeros(count, np.int64)
    flat, first = np.unique(holes, return_index=True)
    for hole, index in zip(flat.tolist(), first.tolist(), strict=True):
        row, column = divmod(index, holes.shape[1])
        if hole and row:
            owner[hole] = labels[row - 1, column]
    return owner
