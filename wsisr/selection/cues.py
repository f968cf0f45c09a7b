"""What tells tissue from glass: the white point, optical density and three cues.

Which channel is thresholded matters more than how (Foucart et al., SIPAIM 2023), and no
single one serves every stain: a purple hue misses brown IHC, saturation misses pale fat and
grey stains, texture misses smooth mucus. So three are computed, and two must agree.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from wsisr.arrays import AnyArray, BoolArray, Float32Array, Int16Array, Int64Array, UInt8Array

STRIP_PX = 256
"""Rows worked through at a time."""
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

    Two are maps; hue and chroma follow from a pixel's own colours (`colours`), and are made where
    they are looked at: of a large slide the maps are most of the memory of a scan.

    Attributes
    ----------
    rgb : ndarray, shape (h, w, 3), uint8
    white : WhitePoint
    texture : ndarray, shape (h, w), float32
        Root mean square gradient of the optical density per pixel in a 48 um window.
    density : ndarray, shape (h, w), float32
        Mean optical density, for the second pass.
    """

    rgb: UInt8Array
    white: WhitePoint
    texture: Float32Array
    density: Float32Array

    def colours(self, pixels: UInt8Array) -> tuple[UInt8Array, Float32Array]:
        """Hue and chroma of pixels of the slide, shape (..., 3): each of shape (...).

        Hue is ``max(0, min(R - G, B - G))`` after white balance, grey levels: pink and purple
        (Schreiber et al., Sci Rep 2024, with the minimum in place of the product, so that pale
        tissue is kept). Chroma is ``max - min`` of the optical density over the channels.
        """
        red, green, blue = np.moveaxis(balanced(pixels, self.white), -1, 0)
        hue = np.clip(np.minimum(red, blue) - green, 0, 255).astype(np.uint8)
        first, second, third = _densities(pixels, _density_tables(self.white))
        high = np.maximum(np.maximum(first, second), third)
        return hue, high - np.minimum(np.minimum(first, second), third)


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
    luma = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    spread = pixels.max(axis=1).astype(np.int16) - pixels.min(axis=1)
    glassy = (luma >= GLASS_LUMINANCE) & (spread <= GLASS_CHROMA)
    least = max(16, GLASS_SHARE * len(pixels))
    # Scanners fill what they skip with pure white, brighter than the glass they saw.
    filler = pixels.min(axis=1) == 255
    if (glassy & ~filler).sum() >= max(least, FILLER_SHARE * glassy.sum()):
        glassy &= ~filler
    if glassy.sum() < least:
        return WhitePoint(rgb=DEFAULT_WHITE, noise=1.0, found=False)
    histogram = np.bincount(np.rint(luma[glassy]).astype(np.int64), minlength=256)[:256]
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


def _noise(luma: Float32Array, counts: Int64Array, first: int) -> float:
    """Robust deviation of the glass, from its bright side alone: pale tissue lies on the other.

    `counts` are those of the whole grey levels from `first` on, around the mode.
    """
    fine = cv2.GaussianBlur(
        counts.astype(np.float32)[None], (0, 0), 0.7, borderType=cv2.BORDER_CONSTANT
    )[0]
    ahead, behind = np.append(fine[1:], 0), np.append(0, fine[:-1])
    crests = np.flatnonzero((fine >= ahead) & (fine >= behind) & (fine >= CREST * fine.max()))
    crest = first + int(crests.max())
    return 1.4826 * float(np.median(luma[luma >= crest] - crest))


def balanced(rgb: UInt8Array, white: WhitePoint) -> Int16Array:
    """Grey levels scaled so that glass is 255 in every channel. Shape (..., 3), int16."""
    grey = np.arange(256, dtype=np.float32)
    result = np.empty(rgb.shape, np.int16)
    for channel, level in enumerate(white.rgb):
        table = np.rint(grey * (255.0 / level)).astype(np.int16)
        result[..., channel] = table[rgb[..., channel]]
    return result


def tissue_cues(rgb: UInt8Array, white: WhitePoint, um_per_px: float) -> Cues:
    """Compute the cues of an overview.

    Parameters
    ----------
    rgb : ndarray, shape (h, w, 3), uint8
    white : WhitePoint
    um_per_px : float

    Notes
    -----
    Optical density is ``-log10((I + 1) / (white + 1))``, not below 0. Colours are worked through
    in strips, so that memory holds the maps and little else.
    """
    tables = _density_tables(white)
    density = np.empty(rgb.shape[:2], np.float32)
    for top in range(0, rgb.shape[0], STRIP_PX):
        rows = slice(top, top + STRIP_PX)
        first, second, third = _densities(rgb[rows], tables)
        density[rows] = (first + second + third) / 3
    return Cues(rgb=rgb, white=white, texture=texture_energy(density, um_per_px), density=density)


def _density_tables(white: WhitePoint) -> list[Float32Array]:
    """Optical density of each grey level, a table a channel."""
    grey = np.arange(256, dtype=np.float32)
    return [
        np.maximum(0, -np.log10((grey + 1) / np.float32(level + 1))).astype(np.float32)
        for level in white.rgb
    ]


def _densities(pixels: UInt8Array, tables: list[Float32Array]) -> list[Float32Array]:
    return [table[pixels[..., channel]] for channel, table in enumerate(tables)]


def texture_energy(density: Float32Array, um_per_px: float) -> Float32Array:
    """Root mean square of the density's gradient in a 48 um window, strip by strip."""
    side = odd_px(TEXTURE_WINDOW_UM, um_per_px)
    halo = side // 2 + 1
    height = density.shape[0]
    result = np.empty(density.shape, np.float32)
    for top in range(0, height, STRIP_PX):
        bottom = min(height, top + STRIP_PX)
        first, last = max(0, top - halo), min(height, bottom + halo)
        part = density[first:last]
        across = np.asarray(cv2.Scharr(part, cv2.CV_32F, 1, 0, scale=1 / 32), np.float32)
        down = np.asarray(cv2.Scharr(part, cv2.CV_32F, 0, 1, scale=1 / 32), np.float32)
        energy = across * across + down * down
        mean = cv2.blur(energy, (side, side), borderType=cv2.BORDER_REFLECT_101)
        rows = np.asarray(mean, np.float32)[top - first : bottom - first]
        np.sqrt(np.maximum(rows, 0), out=result[top:bottom])
    return result


def odd_px(length_um: float, um_per_px: float) -> int:
    """Nearest odd number of pixels, at least 3, of a length."""
    return max(3, 2 * round((length_um / um_per_px - 1) / 2) + 1)


def chosen_pieces(labels: AnyArray, keep: BoolArray) -> BoolArray:
    """``keep[labels]`` strip by strip: numpy makes 8 bytes of every label that it looks up."""
    result = np.empty(labels.shape, np.bool_)
    for top in range(0, len(labels), STRIP_PX):
        result[top : top + STRIP_PX] = keep[labels[top : top + STRIP_PX]]
    return result
