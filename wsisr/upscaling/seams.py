"""Can tile borders be seen? The energy of steps across them against steps nearby.

For every column where a core begins, the mean squared difference between the pixels on either
side is compared with the same at columns 16, 32 and 48 input pixels away, so that the pattern of
the interpolation cancels. The input's own steps at the same places are divided out, because cores
often begin where a tile or a JPEG block of the input does, whose borders are no fault of ours. A
ratio of 1 means that a border is like any other place.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from math import inf, nan

import numpy as np

from wsisr.arrays import UInt8Array

NEIGHBOURS = (-48, -32, -16, 16, 32, 48)
"""Places compared with, in input px from a border."""


@dataclass(frozen=True, kw_only=True)
class SeamEnergy:
    """Sums of squared steps, grey levels squared, and how many there are.

    Attributes
    ----------
    border, interior : float
        Sums over steps across borders and over steps nearby.
    borders, interiors : int
        Counts.
    input_border, input_interior : float
        The same of the input's steps at those places.
    """

    border: float = 0.0
    interior: float = 0.0
    borders: int = 0
    interiors: int = 0
    input_border: float = 0.0
    input_interior: float = 0.0
    input_borders: int = 0
    input_interiors: int = 0

    def __add__(self, other: "SeamEnergy") -> "SeamEnergy":
        return SeamEnergy.of_row([a + b for a, b in zip(self.row(), other.row(), strict=True)])

    @property
    def ratio(self) -> float:
        """Border over interior, of mean energies, over the same of the input; nan without borders.

        The input is left out where it has no energy.
        """
        found = _ratio(self.border, self.borders, self.interior, self.interiors)
        given = _ratio(
            self.input_border, self.input_borders, self.input_interior, self.input_interiors
        )
        return found / given if 0.0 < given < inf else found

    def row(self) -> list[float]:
        """Eight numbers, for the journal."""
        return list(astuple(self))

    @classmethod
    def of_row(cls, row: Sequence[float]) -> "SeamEnergy":
        """Back from `row`."""
        names = [field.name for field in fields(cls)]
        return cls(**dict(zip(names, row, strict=True)))  # type: ignore[arg-type]


def _ratio(border: float, borders: int, interior: float, interiors: int) -> float:
    if not borders or not interiors:
        return nan
    if interior == 0.0:
        return 1.0 if border == 0.0 else inf
    return (border / borders) / (interior / interiors)


def seam_energy(
    rgb: UInt8Array,
    columns: Sequence[int],
    rows: Sequence[int],
    scale: float,
    lr: UInt8Array | None = None,
) -> SeamEnergy:
    """Measure a picture.

    Parameters
    ----------
    rgb : ndarray, shape (h, w, 3), uint8
    columns, rows : sequence of int
        First px of each tile along x and y; 0 is no border.
    scale : float
        Output px per input px.
    lr : ndarray, shape (h / scale, w / scale, 3), uint8, optional
        The input of the same field.
    """
    turned = None if lr is None else lr.transpose(1, 0, 2)
    return _along(rgb, columns, scale, lr) + _along(rgb.transpose(1, 0, 2), rows, scale, turned)


def _along(
    rgb: UInt8Array, starts: Sequence[int], scale: float, lr: UInt8Array | None
) -> SeamEnergy:
    width = rgb.shape[1]
    taken = {s for s in starts if 0 < s < width}
    near = {
        place
        for s in taken
        for k in NEIGHBOURS
        if 0 < (place := s + round(k * scale)) < width and place not in taken
    }
    border, borders = _energy(rgb, taken)
    interior, interiors = _energy(rgb, near)
    given = [(0.0, 0), (0.0, 0)]
    if lr is not None:
        low = (
            {i for place in places if 0 < (i := round(place / scale)) < lr.shape[1]}
            for places in (taken, near)
        )
        given = [_energy(lr, places) for places in low]
    return SeamEnergy(
        border=border,
        interior=interior,
        borders=borders,
        interiors=interiors,
        input_border=given[0][0],
        input_interior=given[1][0],
        input_borders=given[0][1],
        input_interiors=given[1][1],
    )


def _energy(rgb: UInt8Array, places: set[int]) -> tuple[float, int]:
    """Sum of squared steps onto the given columns, and how many steps."""
    if not places:
        return 0.0, 0
    at = np.array(sorted(places))
    steps = rgb[:, at].astype(np.int32) - rgb[:, at - 1]
    return float(np.square(steps).sum(dtype=np.int64)), steps.size
