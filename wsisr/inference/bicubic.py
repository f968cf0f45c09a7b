"""Bicubic enlargement of any part of a plane, as if the whole had been enlarged.

Keys' cubic convolution with a = -0.5, half-pixel centres, mirrored at the plane's edges: the
operator of `wsisr.resize` (MATLAB's ``imresize``), but for windows, in numpy.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wsisr.geometry import Box
from wsisr.inference.tiles import Frame
from wsisr.slides.resample import cubic

Float32Array = NDArray[np.float32]
UInt8Array = NDArray[np.uint8]

HALO_PX = 3
"""Plane px around a footprint that the kernel can touch."""
_BLOCK_PX = 64
"""Output px per matrix product: wide enough for BLAS, narrow enough to skip most zeros."""


@lru_cache(maxsize=512)
def _axis(
    first: int, last: int, lr_px: int, out_px: int, low: int, high: int
) -> tuple[tuple[int, int, Float32Array], ...]:
    """Banded weights of output px ``[first, last)`` on plane px ``[low, high)``."""
    centres = (np.arange(first, last) + 0.5) * lr_px / out_px - 0.5
    taps = np.floor(centres).astype(np.int64)[:, None] + np.arange(-1, 3)
    weights = cubic(centres[:, None] - taps)
    mirrored = np.mod(taps, 2 * lr_px)
    mirrored = np.where(mirrored >= lr_px, 2 * lr_px - 1 - mirrored, mirrored) - low
    bands = []
    for start in range(0, last - first, _BLOCK_PX):
        index = mirrored[start : start + _BLOCK_PX]
        left, right = int(index.min()), int(index.max()) + 1
        dense = np.zeros((len(index), right - left))
        rows = np.repeat(np.arange(len(index)), 4)
        np.add.at(dense, (rows, (index - left).ravel()), weights[start : start + _BLOCK_PX].ravel())
        bands.append((left, right, dense.astype(np.float32)))
    return tuple(bands)


def enlarge(lr: UInt8Array, box: Box, frame: Frame, out: Box) -> Float32Array:
    """Output pixels of one box.

    Parameters
    ----------
    lr : ndarray, shape (..., h, w, 3), uint8
        Plane pixels of `box`, which must hold the footprint of `out` and `HALO_PX` around it.
    box, out : Box
        Plane px and output px.
    frame : Frame

    Returns
    -------
    ndarray, shape (..., out.height, out.width, 3), float32
        Grey levels, not clipped.
    """
    planes = np.ascontiguousarray(np.moveaxis(lr, -1, -3), np.float32)
    rows = _axis(out.y, out.bottom, frame.lr_height_px, frame.height_px, box.y, box.bottom)
    columns = _axis(out.x, out.right, frame.lr_width_px, frame.width_px, box.x, box.right)
    wide = np.concatenate([planes[..., a:b] @ w.T for a, b, w in columns], axis=-1)
    tall = np.concatenate([w @ wide[..., a:b, :] for a, b, w in rows], axis=-2)
    return np.ascontiguousarray(np.moveaxis(tall, -3, -1))


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
