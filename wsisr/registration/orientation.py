"""The eight flips and quarter turns of a rectangle: lossless, so they are never resampling."""

from enum import IntEnum

import numpy as np

from wsisr.arrays import AnyArray, Float64Array
from wsisr.registration.certificate import Affine


class D4(IntEnum):
    """An operation on an image; flips are left-right and come before the turn.

    Turns are counter-clockwise as in `numpy.rot90`.
    """

    IDENTITY = 0
    TURN_90 = 1
    TURN_180 = 2
    TURN_270 = 3
    FLIP = 4
    FLIP_TURN_90 = 5
    FLIP_TURN_180 = 6
    FLIP_TURN_270 = 7

    @property
    def flips(self) -> bool:
        return self >= 4

    @property
    def turns(self) -> int:
        """Counter-clockwise quarter turns."""
        return int(self) % 4

    def apply(self, image: AnyArray) -> AnyArray:
        """The image after the operation (a view), shape (h, w, ...) or (w, h, ...)."""
        if self.flips:
            image = image[:, ::-1]
        return np.rot90(image, self.turns)

    def inverse(self) -> "D4":
        """The operation that undoes this one; every flip undoes itself."""
        return self if self.flips else D4((4 - self.turns) % 4)

    def matrix(self, width_px: float, height_px: float) -> Affine:
        """Where the operation sends the points of a ``width x height`` image, pixel edges."""
        a, b, c, d = 1.0, 0.0, 0.0, 1.0
        tx, ty = 0.0, 0.0
        width, height = float(width_px), float(height_px)
        if self.flips:
            a, tx = -1.0, width
        for _ in range(self.turns):  # (x, y) -> (y, width - x)
            a, b, tx, c, d, ty = c, d, ty, -a, -b, width - tx
            width, height = height, width
        return ((a, b, tx), (c, d, ty))


def nearest_orientation(linear: Float64Array) -> D4:
    """The flip and quarter turn closest to the 2x2 linear part of a map.

    The operation brings an image of the map's source into the orientation of its target, up
    to a rotation of at most 45 degrees.
    """
    unit = linear / np.sqrt(abs(float(np.linalg.det(linear))))

    def agreement(op: D4) -> float:
        (a, b, _), (c, d, _) = op.matrix(1, 1)
        return float(np.sum(unit * np.array([[a, b], [c, d]])))

    return max(D4, key=agreement)
