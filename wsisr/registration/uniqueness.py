"""Whether two scans fit each other in one place alone: tissue that repeats itself fits in many.

A phantom, a picture put together from tiles, or a test target looks the same one tile further on,
and the features of an overview cannot tell which tile is which.
"""

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from wsisr.arrays import BoolArray, Float32Array, Float64Array, UInt8Array
from wsisr.registration import affine as aff
from wsisr.registration import correlation as corr

MAX_SIDE_PX = 800
"""Longest side at which the two are compared."""
MIN_SHIFT_PX = 12
"""Nearer shifts are the same place, px of that size."""
MIN_OVERLAP = 0.25
"""Share of the smaller scan, and of the detail that the map compares, that another place must."""
AS_GOOD = 0.6
"""Correlation at another place, over that at the map's, from which the two cannot be told apart.
Tissue that differs from place to place measured 0.13 and less, exact repeats up to 1."""


@dataclass(frozen=True, kw_only=True)
class OtherPlace:
    """The best place beside the one that a map gives.

    Attributes
    ----------
    shift_x, shift_y : float
        From the map's place, moving overview px.
    share : float
        Correlation of detail there over that at the map's place.
    """

    shift_x: float
    shift_y: float
    share: float

    @property
    def as_good(self) -> bool:
        return self.share >= AS_GOOD


def other_place(moving: UInt8Array, fixed: UInt8Array, matrix: Float64Array) -> OtherPlace:
    """Best place of the moving overview in the fixed one beside that of a map.

    Parameters
    ----------
    moving, fixed : ndarray, shape (h, w, 3), uint8, RGB
    matrix : ndarray, shape (2, 3)
        Moving px -> fixed px, pixel edges.

    Notes
    -----
    Normalised correlation over the overlap of every shift (Padfield, IEEE Trans. Image Process.
    21, 2706 (2012)), of the band-passed greys.
    """
    height, width = moving.shape[:2]
    shrink = max(1.0, max(height, width) / MAX_SIDE_PX)
    size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
    scale = np.array([width / size[0], height / size[1]])
    small = cast(Float32Array, cv2.resize(corr.grey(moving), size, interpolation=cv2.INTER_AREA))
    to_fixed = np.column_stack([matrix[:, :2] * scale, matrix[:, 2]])
    seen = aff.sample_through(corr.grey(fixed), to_fixed, *size)
    columns, rows = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    place = aff.apply(to_fixed, np.stack([columns, rows], axis=-1))
    inside = np.all((place >= 0) & (place <= [fixed.shape[1], fixed.shape[0]]), axis=-1)
    everywhere = np.ones(inside.shape, bool)
    surface = _overlap_ncc(corr.band_pass(small), everywhere, corr.band_pass(seen) * inside, inside)
    near = (
        np.hypot(*np.meshgrid(_shifts(surface.shape[1]), _shifts(surface.shape[0]))) <= MIN_SHIFT_PX
    )
    here = float(surface[near].max())  # drift and seams move the best place a little
    surface[near] = -1.0
    row, column = np.unravel_index(int(np.argmax(surface)), surface.shape)
    best = max(0.0, float(surface[row, column]))
    return OtherPlace(
        shift_x=float(_shifts(surface.shape[1])[column] * scale[0]),
        shift_y=float(_shifts(surface.shape[0])[row] * scale[1]),
        share=best / here if here > 0 else 1.0,
    )


def why_not_unique(
    moving: UInt8Array, fixed: UInt8Array, matrix: Float64Array, um_per_px: float
) -> str:
    """In a sentence, that another place fits as well; empty where none does."""
    other = other_place(moving, fixed, matrix)
    if not other.as_good:
        return ""
    distance_um = float(np.hypot(other.shift_x, other.shift_y)) * um_per_px
    return (
        f"the tissue repeats itself: {distance_um:.0f} um further on, the two scans agree nearly "
        f"as well ({other.share:.0%} of the correlation), and nothing tells which place is right"
    )


def _shifts(count: int) -> Float64Array:
    return fft.fftfreq(count, 1 / count)


def _overlap_ncc(
    a: Float32Array,
    a_known: BoolArray,
    b: Float32Array,
    b_known: BoolArray,
) -> Float64Array:
    """Correlation of ``a(x + s)`` and ``b(x)`` where both are known, of every shift `s` (wrapped
    as FFTs have it); -1 where too little is compared."""
    shape = [fft.next_fast_len(2 * side, real=True) for side in a.shape]

    def spectrum(image: NDArray[np.generic]) -> NDArray[np.complex64]:
        return cast(NDArray[np.complex64], fft.rfft2(image.astype(np.float32), shape))

    def together(first: NDArray[np.complex64], second: NDArray[np.complex64]) -> Float64Array:
        return fft.irfft2(first * np.conj(second), shape).astype(np.float64)

    masks = spectrum(a_known), spectrum(b_known)
    power_a = together(spectrum(a * a), masks[1])
    power_b = together(masks[0], spectrum(b * b))
    area = together(*masks)
    enough = area >= MIN_OVERLAP * min(a_known.sum(), b_known.sum())
    for power in (power_a, power_b):
        enough &= power >= MIN_OVERLAP * power[0, 0]
    product = together(spectrum(a), spectrum(b))
    norm = np.sqrt(np.maximum(power_a, 1e-9) * np.maximum(power_b, 1e-9))
    return np.where(enough, product / norm, -1.0)
