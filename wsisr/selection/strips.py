"""Maps of a whole slide a strip of rows at a time, so that memory holds strips and masks alone."""

from collections.abc import Callable, Iterator
from math import prod
from typing import Protocol

import cv2
import numpy as np

from wsisr.arrays import AnyArray, BoolArray, Float32Array, UInt8Array

STRIP_PX = 256
"""Rows worked through at a time."""
BLOCK_PIXELS = 1 << 16


class RowMap(Protocol):
    """A map that is looked at by rows: an array, or one that is made where it is looked at."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> AnyArray: ...


def strips(height: int) -> Iterator[slice]:
    """Rows of each strip, from above."""
    for top in range(0, height, STRIP_PX):
        yield slice(top, min(height, top + STRIP_PX))


def blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows of each part of a map that is worked through at once, so that it stays in cache."""
    rows = max(1, BLOCK_PIXELS // max(1, prod(shape[1:2])))
    for top in range(0, shape[0], rows):
        yield slice(top, min(shape[0], top + rows))


def spaced(values: RowMap, step: int) -> AnyArray:
    """Every `step`-th pixel in reading order, as ``values.ravel()[::step]``.

    Copied, because what is left of a strip would keep all of it.
    """
    width = values.shape[1]
    return np.concatenate(
        [
            values[rows].ravel()[-rows.start * width % step :: step].copy()
            for rows in strips(values.shape[0])
        ]
    )


def thinned(values: RowMap, step: int) -> AnyArray:
    """Every `step`-th row and column."""
    return np.concatenate(
        [
            values[rows][-rows.start % step :: step, ::step].copy()
            for rows in strips(values.shape[0])
        ]
    )


def by_strips(mask: BoolArray, reach: int, make: Callable[[UInt8Array], AnyArray]) -> BoolArray:
    """A mask each pixel of which follows from those of `mask` up to `reach` rows away.

    Parameters
    ----------
    mask : ndarray, shape (h, w), bool
    reach : int
        Rows above and below a strip that `make` is given with it.
    make : callable
        From a part of the mask (0 and 1, uint8) to one of the same shape.
    """
    result = np.empty(mask.shape, np.bool_)
    for rows in strips(len(mask)):
        first = max(0, rows.start - reach)
        part = make(mask[first : rows.stop + reach].view(np.uint8))
        result[rows] = part[rows.start - first :][: rows.stop - rows.start]
    return result


def area_means(
    make: Callable[[slice], Float32Array], shape: tuple[int, ...], size: tuple[int, int]
) -> Float32Array:
    """A map of `shape` reduced to a width and height by the means of areas.

    The same as ``cv2.resize(values, size, interpolation=cv2.INTER_AREA)`` to the last bit: OpenCV
    reduces rows, then columns, and so does this, with the narrow map between them in memory.
    Where a side is a whole multiple of the reduced one OpenCV sums areas in another order, which
    gives the same bits for multiples of 1 and 4 alone: for others the whole map is made.

    Parameters
    ----------
    make : callable
        The values of a strip of rows.
    """
    ratios = shape[1] / size[0], shape[0] / size[1]
    apart = all(ratio % 1 or ratio in (1, 4) for ratio in ratios)
    width = size[0] if apart else shape[1]
    narrow = np.empty((shape[0], width), np.float32)
    for rows in strips(shape[0]):
        part = make(rows)
        narrow[rows] = _areas(part, (width, len(part)))
    if not apart:
        return _areas(narrow, size)
    result = np.empty((size[1], size[0]), np.float32)
    for columns in _spans(size[0]):
        part = np.ascontiguousarray(narrow[:, columns])
        result[:, columns] = _areas(part, (part.shape[1], size[1]))
    return result


def _areas(values: Float32Array, size: tuple[int, int]) -> Float32Array:
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float32)


def enlarged(
    values: AnyArray, shape: tuple[int, ...], interpolation: int
) -> Iterator[tuple[slice, AnyArray]]:
    """Strips of columns of a map that is enlarged to `shape`, from the left.

    The same as of the whole, which OpenCV enlarges along its rows first.
    """
    height, width = shape
    if width < 2 * STRIP_PX:
        yield slice(0, width), cv2.resize(values, (width, height), interpolation=interpolation)
        return
    for columns in _spans(width):
        part = np.empty((len(values), columns.stop - columns.start), values.dtype)
        for rows in _spans(len(values)):
            size = (width, rows.stop - rows.start)
            part[rows] = cv2.resize(values[rows], size, interpolation=interpolation)[:, columns]
        yield columns, cv2.resize(part, (part.shape[1], height), interpolation=interpolation)


def _spans(length: int) -> Iterator[slice]:
    """Strips of which the last takes what is left over: lone rows and columns go another way
    through OpenCV's loops, to other last bits."""
    starts = list(range(0, max(1, length - STRIP_PX // 2), STRIP_PX))
    for start, stop in zip(starts, [*starts[1:], length], strict=True):
        yield slice(start, stop)
