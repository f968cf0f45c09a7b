"""Antialiased bicubic reduction in numpy, as MATLAB's ``imresize`` does it.

Kernel: Keys' cubic with a = -0.5, stretched by the factor (so that it removes what the coarser
grid cannot hold), half-pixel centres, symmetric padding, weights normalised to one, vertical
pass first, one rounding at the end. Each axis is a sparse matrix product, so that any factor and
any sub-pixel phase costs the same as a whole one.
"""

from functools import lru_cache

import numpy as np

from wsisr.arrays import AnyArray, UInt8Array
from wsisr.cubic import SUPPORT, cubic, mirrored, taps_around
from wsisr.errors import GeometryError
from wsisr.slides.axis_weights import AxisWeights
from wsisr.slides.protocol import Slide

_FAR = 1 << 30


@lru_cache(maxsize=64)
def _weights(
    start: float, factor: float, count: int, low: int, high: int, length: int
) -> AxisWeights:
    """Weights of one axis: ``count`` pixels from ``length``.

    Output pixel k has its centre at ``start + (k + 0.5) * factor`` in pixel edges of the input
    plane ``[low, high)``; columns are the pixels ``0 .. length - 1`` that were read. Pixels
    beyond the plane are mirrored at its edge.
    """
    stretch = max(1.0, factor)
    centres = start + (np.arange(count) + 0.5) * factor - 0.5
    taps = taps_around(centres, SUPPORT * stretch)
    weight = cubic((centres[:, None] - taps) / stretch)
    weight /= weight.sum(axis=1, keepdims=True)
    columns = np.clip(low + mirrored(taps - low, high - low), 0, length - 1)
    rows = np.repeat(np.arange(count), taps.shape[1])
    return AxisWeights.of(rows, columns.ravel(), weight.ravel(), (count, length))


def _apply(rgb: UInt8Array, vertical: AxisWeights, horizontal: AxisWeights) -> UInt8Array:
    height, width, channels = rgb.shape
    rows = vertical @ rgb.reshape(height, width * channels)
    turned = _turn(rows.reshape(-1, width, channels))
    columns = horizontal @ turned.reshape(width, -1)
    # Half up; truncation is floor here, because what is below 0 becomes 0 first.
    columns += np.float32(0.5)
    np.clip(columns, 0, 255, out=columns)
    return _turn(columns.astype(np.uint8).reshape(len(columns), -1, channels))


def _turn(image: AnyArray) -> AnyArray:
    """Swap rows and columns of an interleaved image (several times numpy's speed)."""
    import cv2

    height, width, channels = image.shape
    return np.asarray(cv2.transpose(image)).reshape(width, height, channels)


def reduce_image(
    rgb: UInt8Array, factor: float | None = None, *, size: tuple[int, int] | None = None
) -> UInt8Array:
    """Reduce an image by antialiased bicubic interpolation.

    Parameters
    ----------
    rgb : ndarray, shape (height, width, channels), uint8
    factor : float, optional
        Input pixels per output pixel, >= 1; the output has ``ceil(size / factor)`` pixels.
    size : tuple of int, optional
        (width, height) of the output instead; factors may then differ a little per axis.

    Returns
    -------
    ndarray, uint8
        Rounded half up and clipped to 0-255.

    Raises
    ------
    GeometryError
        Unless exactly one of `factor` and `size` is given, or if it would enlarge.

    Notes
    -----
    The kernel is MATLAB's ``imresize(..., 'bicubic')`` with antialiasing, the convention of the
    super-resolution literature.
    """
    height, width = rgb.shape[:2]
    if (factor is None) == (size is None):
        raise GeometryError("Give either a factor or a size to reduce to.")
    if size is None:
        assert factor is not None
        if not np.isfinite(factor) or factor < 1:
            raise GeometryError(f"A reduction needs a factor of at least 1, not {factor}.")
        size = (int(np.ceil(width / factor - 1e-9)), int(np.ceil(height / factor - 1e-9)))
        factors = (float(factor), float(factor))
    else:
        if not (1 <= size[0] <= width and 1 <= size[1] <= height):
            raise GeometryError(f"Cannot reduce {width} x {height} px to {size[0]} x {size[1]} px.")
        factors = (width / size[0], height / size[1])
    horizontal = _weights(0.0, factors[0], size[0], 0, width, width)
    vertical = _weights(0.0, factors[1], size[1], 0, height, height)
    return _apply(rgb, vertical, horizontal)


def source_span(start: float, factor: float, count: int, limit: int) -> tuple[int, int]:
    """First and last + 1 pixel of one axis that a resampled read needs, inside ``[0, limit)``.

    Both are equal where nothing of it lies inside.
    """
    margin = SUPPORT * max(1.0, factor) + 1.0
    first = max(0, int(np.floor(start + 0.5 * factor - margin)))
    last = min(limit, int(np.ceil(start + (count - 0.5) * factor + margin)))
    return (first, last) if first < last else (0, 0)


def _axis_weights(
    start: float, first: int, length: int, limit: int, factor: float, count: int
) -> AxisWeights:
    # Counted from the box, phases repeat from patch to patch and the matrices are few; where the
    # box ends inside the level the kernel never meets the edge, wherever that is.
    low = 0 if first == 0 else -_FAR
    high = length if first + length == limit else _FAR
    return _weights(start - first, factor, count, low, high, length)


def resample_box(
    pixels: UInt8Array,
    box: tuple[int, int],
    limits: tuple[int, int],
    start: tuple[float, float],
    factor: float,
    size: tuple[int, int],
) -> UInt8Array:
    """Resample pixels of a level that were read from `box` (x, y), see `read_resampled`.

    `limits` is the size (width, height) of the level, `start` the region's corner in level
    pixels, `size` the (width, height) of the output.
    """
    height, width = pixels.shape[:2]
    horizontal = _axis_weights(start[0], box[0], width, limits[0], factor, size[0])
    vertical = _axis_weights(start[1], box[1], height, limits[1], factor, size[1])
    return _apply(pixels, vertical, horizontal)


def read_resampled(
    slide: Slide, level: int, start: tuple[float, float], factor: float, size: tuple[int, int]
) -> UInt8Array:
    """Read a region at any position and any coarser resolution, antialiased.

    Parameters
    ----------
    slide : Slide
    level : int
    start : (float, float)
        Corner (x, y) of the region in pixels of the level (pixel edges; may be fractional).
    factor : float
        Level pixels per output pixel, >= 1.
    size : (int, int)
        Width and height of the output, pixels.

    Returns
    -------
    ndarray, shape (height, width, 3), uint8
        The kernel sees real pixels around the region; beyond the level's edge they are mirrored.
        With a factor of 1 at whole-pixel positions these are the stored pixels.

    Raises
    ------
    GeometryError
        If the factor is below 1 (wsisr never enlarges what it calls data).
    """
    if not np.isfinite(factor) or factor < 1:
        raise GeometryError(f"A resampled read needs a factor of at least 1, not {factor}.")
    (x, y), (width, height) = start, size
    if factor == 1 and float(x).is_integer() and float(y).is_integer():
        return slide.read_level(level, int(x), int(y), width, height)
    info = slide.info.levels[level]
    x0, x1 = source_span(x, factor, width, info.width_px)
    y0, y1 = source_span(y, factor, height, info.height_px)
    if x0 == x1 or y0 == y1:
        return np.full((height, width, 3), 255, dtype=np.uint8)
    pixels = slide.read_level(level, x0, y0, x1 - x0, y1 - y0)
    limits = (info.width_px, info.height_px)
    return resample_box(pixels, (x0, y0), limits, start, factor, size)
