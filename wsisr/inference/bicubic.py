"""Bicubic enlargement of any part of a plane, as if the whole had been enlarged.

Keys' cubic convolution with a = -0.5, half-pixel centres, mirrored at the plane's edges: the
operator of `wsisr.resize` (MATLAB's ``imresize``), but for windows, in numpy.
"""

from functools import lru_cache

import numpy as np

from wsisr.arrays import Float32Array, UInt8Array
from wsisr.cubic import cubic, mirrored
from wsisr.geometry import Box
from wsisr.inference.tiles import Frame

HALO_PX = 3
"""Plane px around a footprint that the kernel can touch."""
_BAND_PX = 64
"""Output px per matrix product: wide enough for BLAS, narrow enough to skip most zeros."""


@lru_cache(maxsize=4096)
def _band(number: int, lr_px: int, out_px: int) -> tuple[int, int, Float32Array]:
    """Plane px ``[low, high)`` and their weights of a band of output px, counted from the plane's
    own corner: the same matrix whatever window asks."""
    first = number * _BAND_PX
    last = min(first + _BAND_PX, out_px)
    centres = (np.arange(first, last) + 0.5) * lr_px / out_px - 0.5
    taps = np.floor(centres).astype(np.int64)[:, None] + np.arange(-1, 3)
    weights = cubic(centres[:, None] - taps)
    inside = mirrored(taps, lr_px)
    low, high = int(inside.min()), int(inside.max()) + 1
    dense = np.zeros((last - first, high - low))
    np.add.at(dense, (np.arange(last - first)[:, None], inside - low), weights)
    return low, high, dense.astype(np.float32)


def enlarge(lr: UInt8Array, box: Box, frame: Frame, out: Box) -> Float32Array:
    """Output pixels of one box.

    Parameters
    ----------
    lr : ndarray, shape (..., h, w, 3), uint8
        Plane pixels of `box`, which must hold the footprint of `out` and `HALO_PX` around it.
    box, out : Box
        Plane px and output px.

    Returns
    -------
    ndarray, shape (..., out.height, out.width, 3), float32
        Grey levels, not clipped.
    """
    rows = _bands(out.y, out.bottom, frame.lr_height_px, frame.height_px)
    columns = _bands(out.x, out.right, frame.lr_width_px, frame.width_px)
    # BLAS sums in an order that follows the matrix sizes, which moves halves. So each product is
    # of a whole square of bands, also where `out` cuts it: zeros stand for what was not read.
    top, bottom = min(r[1] for r in rows), max(r[2] for r in rows)
    left, right = min(c[1] for c in columns), max(c[2] for c in columns)
    planes = np.zeros((*lr.shape[:-3], 3, bottom - top, right - left), np.float32)
    y0, y1 = max(top, box.y), min(bottom, box.bottom)
    x0, x1 = max(left, box.x), min(right, box.right)
    planes[..., y0 - top : y1 - top, x0 - left : x1 - left] = np.moveaxis(
        lr[..., y0 - box.y : y1 - box.y, x0 - box.x : x1 - box.x, :], -1, -3
    )
    enlarged = np.empty((*lr.shape[:-3], out.height, out.width, 3), np.float32)
    for y, a, b, down in rows:
        v0, v1 = max(y, out.y), min(y + len(down), out.bottom)
        for x, c, d, across in columns:
            u0, u1 = max(x, out.x), min(x + len(across), out.right)
            square = down @ (planes[..., a - top : b - top, c - left : d - left] @ across.T)
            enlarged[..., v0 - out.y : v1 - out.y, u0 - out.x : u1 - out.x, :] = np.moveaxis(
                square[..., v0 - y : v1 - y, u0 - x : u1 - x], -3, -1
            )
    return enlarged


def _bands(
    first: int, last: int, lr_px: int, out_px: int
) -> list[tuple[int, int, int, Float32Array]]:
    """The bands that output px ``[first, last)`` touch, each with where it starts."""
    numbers = range(first // _BAND_PX, -(-last // _BAND_PX))
    return [(number * _BAND_PX, *_band(number, lr_px, out_px)) for number in numbers]


def to_grey(values: Float32Array) -> UInt8Array:
    """Grey levels as floats -> uint8: clipped, halves up."""
    scaled = values + np.float32(0.5)
    np.clip(scaled, 0, 255, out=scaled)
    return scaled.astype(np.uint8)


def one_colour(rgb: UInt8Array) -> bool:
    """Whether all pixels are the same: bare filler, which needs no work twice."""
    if not (rgb[::16, ::16] == rgb[0, 0]).all():
        return False
    # Neighbours compared in whole rows: many times the speed of comparing with one pixel.
    return bool((rgb[:, 1:] == rgb[:, :-1]).all() and (rgb[1:, 0] == rgb[:-1, 0]).all())
