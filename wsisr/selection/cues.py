"""What tells tissue from glass: the white point, optical density and three cues.

Which channel is thresholded matters more than how (Foucart et al., SIPAIM 2023), and no
single one serves every stain: a purple hue misses brown IHC, saturation misses pale fat and
grey stains, texture misses smooth mucus. So three are computed, and two must agree.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from wsisr.arrays import AnyArray, BoolArray, Float32Array, Int16Array, Int64Array, UInt8Array
from wsisr.selection.strips import RowMap, blocks, strips

TEXTURE_WINDOW_UM = 48.0
SAMPLE = 1_000_000
"""Statistics look at no more pixels than about this, evenly spaced."""
DEFAULT_WHITE = (243.0, 243.0, 243.0)
GLASS_LUMINANCE = 170.0
"""Nothing darker is taken for bare glass."""
GLASS_CHROMA = 28.0
"""Nothing more colourful is taken for bare glass, tinted or yellowed."""
FILLER_SHARE = 0.05
"""Least share of other glass among all, for pure white to count as filler."""
GLASS_PURITY = 0.6
"""Least share of the pixels of the mode's brightness that are as colourless as glass."""
GLASS_SHARE = 0.002
"""Least share of the pixels within the mode."""
REACH = 5
"""Grey levels around the mode that are glass."""
CREST = 0.25
"""A local maximum of so much of the largest within them is one of glass, if it is the brightest."""


@dataclass(frozen=True, kw_only=True)
class WhitePoint:
    """The colour of bare glass.

    Attributes
    ----------
    rgb : (float, float, float)
        Grey levels, 0-255.
    noise : float
        Robust standard deviation of the glass's luminance, grey levels, towards the bright.
    found : bool
        False where no glass was seen and a usual white was taken.
    """

    rgb: tuple[float, float, float]
    noise: float
    found: bool


@dataclass(frozen=True, kw_only=True)
class Cues:
    """Three independent signs of tissue; all are about 0 on glass.

    All are made where they are looked at, for some rows at a time: of a large slide their maps
    would be most of the memory of a scan.

    Attributes
    ----------
    rgb : ndarray, shape (h, w, 3), uint8
    texture : RowMap, shape (h, w), float32
        Root mean square gradient of the optical density per pixel in a 48 um window.
    density : DensityMap or ndarray, shape (h, w), float32
        Mean optical density, for the second pass.
    """

    rgb: UInt8Array
    white: WhitePoint
    texture: RowMap
    density: "DensityMap | Float32Array"

    def colours(self, pixels: UInt8Array) -> tuple[UInt8Array, Float32Array]:
        """Hue and chroma of pixels of the slide, shape (..., 3): each of shape (...).

        Hue is ``max(0, min(R - G, B - G))`` after white balance, grey levels: pink and purple
        (Schreiber et al., Sci Rep 2024, with the minimum in place of the product, so that pale
        tissue is kept). Chroma is ``max - min`` of the optical density over the channels.
        """
        flat = pixels.reshape(-1, 3)
        hue, chroma = np.empty(len(flat), np.uint8), np.empty(len(flat), np.float32)
        densities = _density_tables(self.white)
        for block in blocks(flat.shape):
            red, green, blue = balanced(flat[block], self.white).T
            hue[block] = np.clip(np.minimum(red, blue) - green, 0, 255)
            first, second, third = _looked_up(flat[block], densities).T
            high = np.maximum(np.maximum(first, second), third)
            chroma[block] = high - np.minimum(np.minimum(first, second), third)
        return hue.reshape(pixels.shape[:-1]), chroma.reshape(pixels.shape[:-1])


def sample_pixels(rgb: UInt8Array, valid: BoolArray) -> UInt8Array:
    """Valid pixels, shape (n, 3): all of a small picture, evenly spaced ones of a large."""
    # An odd step runs through all columns of the usual even widths.
    step = valid.size // SAMPLE | 1
    chosen: UInt8Array = rgb.reshape(-1, 3)[::step][valid.ravel()[::step]]
    return chosen


def white_point(rgb: UInt8Array, valid: BoolArray) -> WhitePoint:
    """Colour of the brightest mode of a slide, if it can be glass."""
    pixels = sample_pixels(rgb, valid)
    if not len(pixels):
        return WhitePoint(rgb=DEFAULT_WHITE, noise=1.0, found=False)
    luma = _luminance(pixels)
    spread = pixels.max(axis=1).astype(np.int16) - pixels.min(axis=1)
    glassy = (luma >= GLASS_LUMINANCE) & (spread <= GLASS_CHROMA)
    least = max(16, GLASS_SHARE * len(pixels))
    # Scanners fill what they skip with pure white, brighter than the glass they saw.
    filler = pixels.min(axis=1) == 255
    if (glassy & ~filler).sum() >= max(least, FILLER_SHARE * glassy.sum()):
        glassy &= ~filler
    if glassy.sum() < least:
        return WhitePoint(rgb=DEFAULT_WHITE, noise=1.0, found=False)
    histogram = np.zeros(256, np.int64)
    for block in blocks(luma.shape):
        levels = np.rint(luma[block][glassy[block]]).astype(np.int64)
        histogram += np.bincount(levels, minlength=256)
    smooth = cv2.GaussianBlur(
        histogram.astype(np.float32)[None], (0, 0), 2.0, borderType=cv2.BORDER_CONSTANT
    )[0]
    # The brightest local maximum that carries weight: glare and paper dust do not.
    peaks = np.flatnonzero(
        (smooth >= np.roll(smooth, 1)) & (smooth >= np.roll(smooth, -1)) & (smooth > 0)
    )
    heavy = peaks[smooth[peaks] >= 0.1 * smooth.max()]
    mode = int(heavy.max())
    level = np.abs(luma - mode) <= REACH
    near = glassy & level
    if near.sum() < GLASS_PURITY * level.sum():
        # The bright tail of pink tissue, not a mode of its own.
        return WhitePoint(rgb=DEFAULT_WHITE, noise=1.0, found=False)
    red, green, blue = (float(v) for v in np.median(pixels[near], axis=0))
    noise = _noise(luma[near], histogram[mode - REACH : mode + REACH + 1], mode - REACH)
    return WhitePoint(rgb=(red, green, blue), noise=noise, found=True)


def _luminance(pixels: UInt8Array) -> Float32Array:
    """Of pixels (n, 3), grey levels."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    result = np.empty(len(pixels), np.float32)
    for block in blocks(result.shape):
        np.dot(pixels[block].astype(np.float32), weights, out=result[block])
    return result


def _noise(luma: Float32Array, counts: Int64Array, first: int) -> float:
    """Robust deviation of the glass, from its bright side alone: pale tissue lies on the other.

    `counts` are those of the whole grey levels from `first` on, around the mode.
    """
    fine = cv2.GaussianBlur(
        counts.astype(np.float32)[None], (0, 0), 0.7, borderType=cv2.BORDER_CONSTANT
    )[0]
    ahead, behind = np.append(fine[1:], 0), np.append(0, fine[:-1])
    crests = np.flatnonzero((fine >= ahead) & (fine >= behind) & (fine >= CREST * fine.max()))
    # A whole grey level, so that all of the glass can lie up to half a level below it.
    crest = min(float(first + crests.max()), float(luma.max()))
    return 1.4826 * float(np.median(luma[luma >= crest] - crest))


def balanced(rgb: UInt8Array, white: WhitePoint) -> Int16Array:
    """Grey levels scaled so that glass is 255 in every channel. Shape (..., 3), int16."""
    grey = np.arange(256, dtype=np.float32)[:, None]
    scale = np.array([255.0 / level for level in white.rgb], np.float32)
    return np.asarray(_looked_up(rgb, np.rint(grey * scale).astype(np.int16)), np.int16)


def tissue_cues(rgb: UInt8Array, white: WhitePoint, um_per_px: float) -> Cues:
    """The cues of an overview.

    Parameters
    ----------
    rgb : ndarray, shape (h, w, 3), uint8

    Notes
    -----
    Optical density is ``-log10((I + 1) / (white + 1))``, not below 0.
    """
    density = DensityMap(rgb, white)
    return Cues(rgb=rgb, white=white, texture=TextureMap(density, um_per_px), density=density)


class DensityMap:
    """Mean optical density of a picture's channels over its glass."""

    def __init__(self, rgb: UInt8Array, white: WhitePoint) -> None:
        self._rgb, self._tables = rgb, _density_tables(white)
        self.shape = rgb.shape[:2]

    def __getitem__(self, place: slice | tuple[slice, slice], /) -> Float32Array:
        """Of some rows, or of some rows and columns."""
        pixels = self._rgb[place]
        result = np.empty(pixels.shape[:2], np.float32)
        for block in blocks(result.shape):
            first, second, third = np.moveaxis(_looked_up(pixels[block], self._tables), -1, 0)
            total = first + second
            total += third
            np.divide(total, 3, out=result[block])
        return result


class TextureMap:
    """Root mean square of a density's gradient in a 48 um window.

    Strips always begin at the same rows, so that a row has the same values to the last bit
    whatever rows are asked for with it.
    """

    def __init__(self, density: RowMap, um_per_px: float, where: BoolArray | None = None) -> None:
        self._density, self._where = density, where
        self._side = odd_px(TEXTURE_WINDOW_UM, um_per_px)
        self.shape = density.shape

    def __getitem__(self, rows: slice, /) -> Float32Array:
        first, last, _ = rows.indices(self.shape[0])
        result = np.empty((max(0, last - first), self.shape[1]), np.float32)
        for strip in strips(self.shape[0]):
            start, stop = max(first, strip.start), min(last, strip.stop)
            if start < stop:
                made = self._strip(strip)
                result[start - first : stop - first] = made[
                    start - strip.start : stop - strip.start
                ]
        if self._where is not None:
            result[~self._where[rows]] = 0
        return result

    def _strip(self, rows: slice) -> Float32Array:
        halo = self._side // 2 + 1
        first = max(0, rows.start - halo)
        part = self._density[first : rows.stop + halo]
        across = np.asarray(cv2.Scharr(part, cv2.CV_32F, 1, 0, scale=1 / 32), np.float32)
        down = np.asarray(cv2.Scharr(part, cv2.CV_32F, 0, 1, scale=1 / 32), np.float32)
        across *= across
        down *= down
        across += down
        del part, down
        window = (self._side, self._side)
        mean = cv2.blur(across, window, borderType=cv2.BORDER_REFLECT_101)
        inner = np.asarray(mean, np.float32)[rows.start - first :][: rows.stop - rows.start]
        return np.sqrt(np.maximum(inner, 0, out=inner), out=inner)


def _density_tables(white: WhitePoint) -> Float32Array:
    """Optical density of each grey level in each channel. Shape (256, 3)."""
    grey = np.arange(256, dtype=np.float32)
    tables = [np.maximum(0, -np.log10((grey + 1) / np.float32(level + 1))) for level in white.rgb]
    return np.stack(tables, axis=1).astype(np.float32)


def _looked_up(pixels: UInt8Array, tables: AnyArray) -> AnyArray:
    """What stands for each channel of pixels (..., 3) in its column of `tables`, (256, 3)."""
    return cv2.LUT(pixels.reshape(1, -1, 3), tables[None]).reshape(pixels.shape)


def odd_px(length_um: float, um_per_px: float) -> int:
    """Nearest odd number of pixels, at least 3, of a length."""
    return max(3, 2 * round((length_um / um_per_px - 1) / 2) + 1)
