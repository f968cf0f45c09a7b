"""Affine refinement of one pair by enhanced correlation (ECC), the LR patch as template.

Maps send LR px to HR px, pixel edges on both sides. The LR is only ever looked at on its own
grid; it is the (box-averaged) HR that is sampled at the mapped places.
"""

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from wsisr.registration import correlation as corr
from wsisr.registration.certificate import Affine
from wsisr.registration.correlation import FloatImage

FloatArray = NDArray[np.float64]

BLUR_SIGMA_PX = 1.0
"""Blur of both sides before ECC, LR px: without it a difference in sharpness shifts the answer."""
RING_PX = 3
"""Border of the LR that ECC does not look at, LR px."""
MAX_ITERATIONS = 60
EPSILON = 1e-5


def to_matrix(affine: Affine) -> FloatArray:
    """2x3 array of a nested tuple."""
    return np.asarray(affine, dtype=np.float64)


def to_affine(matrix: FloatArray) -> Affine:
    """Nested tuple of a 2x3 array."""
    (a, b, tx), (c, d, ty) = (tuple(float(v) for v in row) for row in matrix)
    return ((a, b, tx), (c, d, ty))


def apply(matrix: FloatArray, points: FloatArray) -> FloatArray:
    """Map points of shape (..., 2), x first."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def compose(outer: FloatArray, inner: FloatArray) -> FloatArray:
    """The 2x3 map that applies `inner`, then `outer`."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], apply(outer, inner[:, 2])])


def invert(matrix: FloatArray) -> FloatArray:
    """The 2x3 map that undoes `matrix`."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def _box(hr: FloatImage, scale: int) -> tuple[FloatImage, float]:
    """HR seen through an LR pixel, at every HR px, and the edge coordinate of its index 0.

    OpenCV anchors an even box half a pixel off: its result belongs to the pixel's corner.
    """
    box = cv2.blur(hr, (scale, scale), borderType=cv2.BORDER_REFLECT)
    return cast(FloatImage, box), 0.0 if scale % 2 == 0 else 0.5


def _index_map(matrix: FloatArray, index_origin: float) -> FloatArray:
    """The same map between pixel indices: centres are at +0.5 in the LR."""
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ [0.5, 0.5] - index_origin
    return moved


def _edge_map(matrix: FloatArray, index_origin: float) -> FloatArray:
    moved = matrix.copy()
    moved[:, 2] += index_origin - matrix[:, :2] @ [0.5, 0.5]
    return moved


def refine_affine(lr: FloatImage, hr: FloatImage, scale: int, first: FloatArray) -> FloatArray:
    """Affine map that makes the HR, seen through LR pixels, correlate best with the LR.

    Parameters
    ----------
    lr : ndarray, shape (h, w), float32
    hr : ndarray, shape (H, W), float32
    scale : int
        HR px per LR px (side of the box).
    first : ndarray, shape (2, 3)
        First guess; within about an LR px everywhere.

    Returns
    -------
    ndarray, shape (2, 3)

    Raises
    ------
    cv2.error
        Where ECC does not converge (unrelated or flat images).

    Notes
    -----
    Evangelidis and Psarakis, IEEE TPAMI 30, 1858 (2008). Both images are blurred here and
    not by OpenCV's own filter, which under-estimates the scale (border ring).
    """
    box, origin = _box(hr, scale)
    blurred = cv2.GaussianBlur(box, (0, 0), BLUR_SIGMA_PX * scale, borderType=cv2.BORDER_REFLECT)
    template = cv2.GaussianBlur(lr, (0, 0), BLUR_SIGMA_PX, borderType=cv2.BORDER_REFLECT)
    # The blur near the border of the LR has no true context; the HR's has. Left in, this
    # ring makes the scale come out small.
    ring = RING_PX
    template = np.ascontiguousarray(template[ring:-ring, ring:-ring])
    inner = np.array([[1.0, 0.0, ring], [0.0, 1.0, ring]])
    first = compose(first, inner)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, MAX_ITERATIONS, EPSILON)
    warp = _index_map(first, origin).astype(np.float32)
    everywhere = np.ones(hr.shape, np.uint8)
    _, found = cv2.findTransformECC(
        template, blurred, warp, cv2.MOTION_AFFINE, criteria, everywhere, 1
    )
    return compose(_edge_map(np.asarray(found, np.float64), origin), invert(inner))


def sample_through(
    hr: FloatImage, scale: int, matrix: FloatArray, width: int, height: int
) -> FloatImage:
    """The HR as the LR's pixels see it through a map, shape (height, width)."""
    box, origin = _box(hr, scale)
    index = _index_map(matrix, origin)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cast(
        FloatImage,
        cv2.warpAffine(box, index, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT),
    )


def prealign(
    lr: FloatImage, hr: FloatImage, scale: int, matrix: FloatArray, max_shift_px: float
) -> FloatArray:
    """The map with its translation corrected by correlation on the LR grid.

    Parameters
    ----------
    lr, hr : ndarray, float32
    scale : int
    matrix : ndarray, shape (2, 3)
        LR px -> HR px, pixel edges; only its translation may be wrong.
    max_shift_px : float
        By how much at the most, LR px.
    """
    height, width = lr.shape
    for limit in (max_shift_px, 2.0):
        sampled = sample_through(hr, scale, matrix, width, height)
        shift = np.array(corr.whitened_shift(lr, sampled, limit))
        matrix = np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ shift])
        if np.abs(shift).max() < 0.02:
            break
    return matrix
