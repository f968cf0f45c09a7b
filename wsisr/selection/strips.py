"""Maps of a whole slide a strip of rows at a time, so that memory holds strips and masks alone."""

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from wsisr.arrays import AnyArray, BoolArray, UInt8Array

STRIP_PX = 256
"""Rows worked through at a time."""


class RowMap(Protocol):
    """A map that is looked at by rows: an array, or one that is made where it is looked at."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> AnyArray: ...


def strips(height: int) -> Iterator[slice]:
    """Rows of each strip, from above."""
    for top in range(0, height, STRIP_PX):
        yield slice(top, min(height, top + STRIP_PX))


def spaced(values: RowMap, step: int) -> AnyArray:
    """Every `step`-th pixel in reading order, as ``values.ravel()[::step]``."""
    width = values.shape[1]
    return np.concatenate(
        [
            values[rows].ravel()[-rows.start * width % step :: step]
            for rows in strips(values.shape[0])
        ]
    )


def thinned(values: RowMap, step: int) -> AnyArray:
    """Every `step`-th row and column."""
    return np.concatenate(
        [values[rows][-rows.start % step :: step, ::step] for rows in strips(values.shape[0])]
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
