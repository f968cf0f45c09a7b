"""Weighted sums of rows of pixels: one axis of a reduction as a sparse matrix.

Sums are taken tap by tap in float32, so that they depend on no BLAS. The loop is scipy's compiled
one; its package `scipy.sparse`, of which nothing else is needed, takes a tenth of a second to
import, longer than all sums of many a slide.
"""

from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from wsisr.arrays import AnyArray, Float32Array, Int64Array

BLOCK_PX = 512
"""Columns that are summed at a time."""


@cache
def _loops() -> Any:
    """scipy's compiled module of sparse products, without its package."""
    import scipy

    found = PathFinder.find_spec("_sparsetools", [str(Path(scipy.__path__[0]) / "sparse")])
    if found is None or found.loader is None:
        from scipy.sparse import _sparsetools

        return _sparsetools
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class AxisWeights:
    """Which pixels of one axis make each pixel of a shorter one, and how much of each.

    Attributes
    ----------
    starts : ndarray, shape (rows + 1,), int32
        Where the taps of each row begin.
    columns : ndarray of int32
        Pixels, ascending within a row.
    weights : ndarray of float32
    length : int
        Pixels of the longer axis.
    """

    starts: NDArray[np.int32]
    columns: NDArray[np.int32]
    weights: Float32Array
    length: int

    @classmethod
    def of(
        cls, rows: Int64Array, columns: Int64Array, weights: AnyArray, shape: tuple[int, int]
    ) -> Self:
        """From taps in any order; those of one pixel in one row are added up."""
        order = np.lexsort((columns, rows))
        cells = rows[order] * shape[1] + columns[order]
        first = np.flatnonzero(np.diff(cells, prepend=-1))
        total = np.add.reduceat(weights[order].astype(np.float32), first)
        first = first[total != 0]
        taken = order[first]
        return cls(
            starts=np.searchsorted(rows[taken], np.arange(shape[0] + 1)).astype(np.int32),
            columns=columns[taken].astype(np.int32),
            weights=total[total != 0],
            length=shape[1],
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def sums(self) -> Float32Array:
        """The weights of each row together; no row may be without any."""
        return np.add.reduceat(self.weights, self.starts[:-1])

    def __matmul__(self, pixels: AnyArray) -> Float32Array:
        """Weighted sums of the rows of `pixels`, shape (length, n), shape (rows, n)."""
        if len(pixels) != self.length:
            raise ValueError(f"{len(pixels)} rows of pixels for weights of {self.length}")
        # A column's sums are its own, so that other numbers are floats for a block at a time.
        step = pixels.shape[1] if pixels.dtype == np.float32 else BLOCK_PX
        parts = []
        for start in range(0, pixels.shape[1], step):
            values = np.ascontiguousarray(pixels[:, start : start + step], np.float32)
            made = np.zeros((len(self), values.shape[1]), np.float32)
            _loops().csr_matvecs(
                *(len(self), self.length, values.shape[1]),
                *(self.starts, self.columns, self.weights, values.ravel(), made.reshape(-1)),
            )
            parts.append(made)
        return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
