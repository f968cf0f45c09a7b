"""Keys' cubic convolution with a = -0.5, the kernel of every bicubic of ours, and its taps.

Pixel centres are at half-integers; what lies beyond a plane is mirrored at its edge. OpenCV's and
torch's kernels have a = -0.75 and are other operators.

References
----------
.. [1] R. G. Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981,
   eq. 15. DOI:10.1109/TASSP.1981.1163711
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsisr.arrays import Float64Array, Int64Array

SUPPORT = 2.0
"""Half width of the kernel, in pixels of the coarser grid."""


def cubic_pieces(distance: Any) -> tuple[Any, Any]:
    """The kernel's polynomials of a distance >= 0: up to 1, and from 1 to 2 (0 beyond).

    Plain arithmetic, so that arrays, tensors and graphs of tensors go through the same formula.
    """
    near = (1.5 * distance - 2.5) * distance * distance + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    return near, far


def cubic(distance: NDArray[np.floating[Any]]) -> Float64Array:
    """Weight of a pixel at a distance from the place that is asked for, in pixels of its grid."""
    d = np.abs(distance)
    near, far = cubic_pieces(d)
    return np.where(d <= 1.0, near, np.where(d <= SUPPORT, far, 0.0))


def taps_around(centres: NDArray[np.floating[Any]], reach: float) -> Int64Array:
    """Pixels that a kernel of half width `reach` (px) can touch around each place.

    Returns
    -------
    ndarray, shape (n, ceil(2 reach) + 2), int64
        Counted on without end; see `mirrored`.
    """
    first = np.floor(centres - reach).astype(np.int64)
    return first[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)


def mirrored(index: Int64Array, px: int) -> Int64Array:
    """Pixels of an axis of `px` pixels, mirrored at its edges as often as it takes."""
    index = np.mod(index, 2 * px)
    return np.where(index >= px, 2 * px - 1 - index, index)
