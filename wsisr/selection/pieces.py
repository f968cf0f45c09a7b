"""Connected pieces of a mask, labelled a strip of rows at a time.

Labels take four bytes a pixel: of a large slide more than all of its masks together. So strips are
labelled one by one, pieces that go on in the next strip are joined, and whoever asks which piece a
pixel belongs to has the strips labelled again. (scikit-image's `label`, `remove_small_objects` and
`remove_small_holes` label the whole.)
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from wsisr.arrays import BoolArray, Float64Array, Int32Array, Int64Array
from wsisr.selection.strips import RowMap, strips


@dataclass(frozen=True, kw_only=True, eq=False)
class Pieces:
    """The connected pieces of a mask, in an order of their own.

    Attributes
    ----------
    mask : ndarray, shape (h, w), bool
    connectivity : {4, 8}
    numbers : tuple of ndarray
        For each strip the piece of its labels, from 1; label 0 is no piece.
    area : ndarray, shape (n,), int64
        Pixels of each piece.
    left, top, right, bottom : ndarray, shape (n,), int64
        The smallest box around each; right and bottom lie outside.
    """

    mask: BoolArray
    connectivity: int
    numbers: tuple[Int64Array, ...]
    area: Int64Array
    left: Int64Array
    top: Int64Array
    right: Int64Array
    bottom: Int64Array

    def __len__(self) -> int:
        return len(self.area)

    @property
    def at_edge(self) -> BoolArray:
        """Which pieces reach an edge of the mask. Shape (n,)."""
        height, width = self.mask.shape
        edge: BoolArray = (self.left == 0) | (self.top == 0)
        return edge | (self.right == width) | (self.bottom == height)

    def labels(self) -> Iterator[tuple[slice, Int64Array, Int32Array]]:
        """Rows of each strip, from above, the piece (1 to n, or 0 for none) of each of its labels,
        and the labels of its pixels."""
        for rows, numbers in zip(strips(len(self.mask)), self.numbers, strict=True):
            _, labels = cv2.connectedComponents(
                self.mask[rows].view(np.uint8), connectivity=self.connectivity
            )
            yield rows, numbers, np.asarray(labels, np.int32)

    def where(self, chosen: BoolArray) -> BoolArray:
        """The mask of the pieces that are chosen, shape (n,)."""
        result = np.zeros(self.mask.shape, np.bool_)
        if chosen.any():
            table = np.concatenate([[False], chosen])
            for rows, numbers, labels in self.labels():
                np.take(table[numbers], labels, out=result[rows])
        return result

    def sums(self, values: RowMap) -> Float64Array:
        """Sum of a map over each piece. Shape (n,)."""
        total = np.zeros(len(self) + 1)
        for rows, numbers, labels in self.labels():
            total += np.bincount(numbers[labels].ravel(), values[rows].ravel(), len(total))
        return total[1:]

    def along_edges(self) -> Float64Array:
        """The largest share of one edge of the mask that each piece takes. Shape (n,)."""
        height, width = self.mask.shape
        counts = np.zeros((4, len(self) + 1))
        for rows, numbers, labels in self.labels():
            ends = {2: labels[:, 0], 3: labels[:, -1]}
            if rows.start == 0:
                ends[0] = labels[0]
            if rows.stop == height:
                ends[1] = labels[-1]
            for edge, end in ends.items():
                counts[edge] += np.bincount(numbers[end], minlength=counts.shape[1])
        shares: Float64Array = counts[:, 1:] / np.array([[width, width, height, height]]).T
        return np.asarray(shares.max(axis=0), np.float64)


def find_pieces(mask: BoolArray, connectivity: int = 8) -> Pieces:
    """The pieces of a mask: pixels that touch at a side or, with a connectivity of 8, a corner.

    Parameters
    ----------
    mask : ndarray, shape (h, w), bool
    connectivity : {4, 8}
    """
    parent = array("q", [0])  # of each label of each strip, one strip after another; 0 is no piece
    first, tables, above = [], [], None
    for rows in strips(len(mask)):
        _, labels, table, _ = cv2.connectedComponentsWithStats(
            mask[rows].view(np.uint8), connectivity=connectivity
        )
        first.append(len(parent) - 1)
        parent.extend(range(len(parent), len(parent) + len(table) - 1))
        table[:, cv2.CC_STAT_TOP] += rows.start
        tables.append(table[1:])
        if above is not None:
            for upper, lower in _touching(above, labels[0], connectivity):
                parent[_root(parent, first[-1] + lower)] = _root(parent, first[-2] + upper)
        above = labels[-1].copy()
    roots = np.array([_root(parent, label) for label in range(len(parent))], np.int64)
    _, number = np.unique(roots, return_inverse=True)
    parts = np.concatenate(tables).astype(np.int64)
    left, top, width, height, area = parts.T
    owner, count = number[1:] - 1, int(number.max())
    numbers = tuple(
        np.concatenate([[0], number[start + 1 : start + 1 + len(table)]])
        for start, table in zip(first, tables, strict=True)
    )

    def whole(values: Int64Array, ufunc: np.ufunc, start: int) -> Int64Array:
        result = np.full(count, start, np.int64)
        ufunc.at(result, owner, values)
        return result

    return Pieces(
        mask=mask,
        connectivity=connectivity,
        numbers=numbers,
        area=whole(area, np.add, 0),
        left=whole(left, np.minimum, mask.shape[1]),
        top=whole(top, np.minimum, mask.shape[0]),
        right=whole(left + width, np.maximum, 0),
        bottom=whole(top + height, np.maximum, 0),
    )


def _touching(upper: Int32Array, lower: Int32Array, connectivity: int) -> Iterator[list[int]]:
    """Labels of the last row of a strip and of the first of the next that belong together."""
    shifts = (-1, 0, 1) if connectivity == 8 else (0,)
    width = len(upper)
    for by in shifts:
        pairs = np.stack([upper[max(0, -by) : width - by], lower[max(0, by) : width + by]])
        yield from np.unique(pairs[:, (pairs > 0).all(axis=0)], axis=1).T.tolist()


def _root(parent: "array[int]", label: int) -> int:
    while parent[label] != label:
        parent[label] = parent[parent[label]]
        label = parent[label]
    return label
