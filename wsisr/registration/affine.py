"""Affine refinement of one pair by enhanced correlation (ECC), the LR patch as template.

Maps send LR px to HR px, pixel edges on both sides. The LR is only ever looked at on its own
grid; it is the HR, seen through a pixel of the LR's size, that is sampled at the mapped places.
That size follows from the map, so that any ratio of two scanners is treated alike.
"""

from math import ceil
from typing import cast

import cv2
import numpy as np

from wsisr.arrays import Float32Array, Float64Array
from wsisr.registration import correlation as corr
from wsisr.registration.certificate import Affine

BLUR_SIGMA_PX = 1.0
"""Blur of both sides before ECC, LR px: without it a difference in sharpness shifts the answer."""
RING_PX = 3
"""Border of the LR that ECC does not look at, LR px."""
WHOLE = 0.02
"""Relative distance from a whole number of HR px up to which a pixel counts as that wide."""
FINE_PX = 3.0
"""Pixels below this side leave detail that linear interpolation would blur, HR px."""
MAX_ITERATIONS = 60
EPSILON = 1e-5


def to_matrix(affine: Affine) -> Float64Array:
    """2x3 array of a nested tuple."""
    return np.asarray(affine, dtype=np.float64)


def to_affine(matrix: Float64Array) -> Affine:
    """Nested tuple of a 2x3 array."""
    (a, b, tx), (c, d, ty) = (tuple(float(v) for v in row) for row in matrix)
    return ((a, b, tx), (c, d, ty))


def apply(matrix: Float64Array, points: Float64Array) -> Float64Array:
    """Map points of shape (..., 2), x first."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def compose(outer: Float64Array, inner: Float64Array) -> Float64Array:
    """The 2x3 map that applies `inner`, then `outer`."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], apply(outer, inner[:, 2])])


def invert(matrix: Float64Array) -> Float64Array:
    """The 2x3 map that undoes `matrix`."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def corners_of(x: float, y: float, width: float, height: float) -> Float64Array:
    """Corners of a rectangle, shape (4, 2)."""
    return np.array([[x, y], [x + width, y], [x, y + height], [x + width, y + height]], float)


def pixel_side(matrix: Float64Array) -> float:
    """Side of an LR pixel under a map, HR px."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def through_pixel(hr: Float32Array, side_px: float) -> tuple[Float32Array, float]:
    """HR seen through a pixel of `side_px` HR px, at every HR px, and the edge coordinate of
    its index 0.

    OpenCV anchors an even box half a pixel off: its result belongs to the pixel's corner.
    A pixel that is no whole number of HR px wide takes a share of the outermost two.
    """
    whole = round(side_px)
    if side_px <= 1.0:
        return hr, 0.5
    if abs(side_px - whole) <= WHOLE * whole:
        box = cv2.blur(hr, (whole, whole), borderType=cv2.BORDER_REFLECT)
        return cast(Float32Array, box), 0.0 if whole % 2 == 0 else 0.5
    reach = ceil((side_px - 1) / 2)
    taps = np.ones(2 * reach + 1)
    taps[[0, -1]] = (side_px - 2 * reach + 1) / 2
    taps /= side_px
    box = cv2.sepFilter2D(hr, cv2.CV_32F, taps, taps, borderType=cv2.BORDER_REFLECT)
    return cast(Float32Array, box), 0.5


def _index_map(matrix: Float64Array, index_origin: float) -> Float64Array:
    """The same map between pixel indices: centres are at +0.5 in the LR."""
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2] @ [0.5, 0.5] - index_origin
    return moved


def _edge_map(matrix: Float64Array, index_origin: float) -> Float64Array:
    moved = matrix.copy()
    moved[:, 2] += index_origin - matrix[:, :2] @ [0.5, 0.5]
    return moved


def refine_affine(
    lr: Float32Array, hr: Float32Array, first: Float64Array, side_px: float | None = None
) -> Float64Array:
    """Affine map (2, 3) that makes the HR, seen through LR pixels, correlate best with the LR.

    Parameters
    ----------
    lr : ndarray, shape (h, w), float32
    hr : ndarray, shape (H, W), float32
    first : ndarray, shape (2, 3)
        First guess; within about an LR px everywhere.
    side_px : float, optional
        Side of an LR pixel, HR px; by default that of the first guess.

    Raises
    ------
    cv2.error
        Where ECC does not converge (unrelated or flat images).

    Notes
    -----
    Evangelidis and Psarakis, IEEE TPAMI 30, 1858 (2008). Both images are blurred here and
    not by OpenCV's own filter, which under-estimates the scale (border ring).
    """
    side = pixel_side(first) if side_px is None else side_px
    box, origin = through_pixel(hr, side)
    blurred = cv2.GaussianBlur(box, (0, 0), BLUR_SIGMA_PX * side, borderType=cv2.BORDER_REFLECT)
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


def sample_through(hr: Float32Array, matrix: Float64Array, width: int, height: int) -> Float32Array:
    """The HR as the LR's pixels see it through a map, shape (height, width)."""
    side = pixel_side(matrix)
    box, origin = through_pixel(hr, side)
    index = _index_map(matrix, origin)
    if side < FINE_PX:
        # ndimage counts rows first.
        from scipy import ndimage

        return ndimage.affine_transform(
            box,
            index[::-1, 1::-1],
            index[::-1, 2],
            output_shape=(height, width),
            order=3,
            mode="reflect",
        )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cast(
        Float32Array,
        cv2.warpAffine(box, index, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT),
    )


def prealign(
    lr: Float32Array, hr: Float32Array, matrix: Float64Array, max_shift_px: float
) -> Float64Array:
    """The map with its translation corrected by correlation on the LR grid.

    Parameters
    ----------
    lr, hr : ndarray, float32
    matrix : ndarray, shape (2, 3)
        LR px -> HR px, pixel edges; only its translation may be wrong.
    max_shift_px : float
        By how much at the most, LR px.
    """
    height, width = lr.shape
    for limit in (max_shift_px, 2.0):
        sampled = sample_through(hr, matrix, width, height)
        shift = np.array(corr.whitened_shift(lr, sampled, limit))
        matrix = np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ shift])
        if np.abs(shift).max() < 0.02:
            break
    return matrix


def least_squares(
    source: Float64Array, target: Float64Array, weights: Float64Array | None = None
) -> Float64Array:
    """Affine map, shape (2, 3), that sends `source` nearest to `target` (both (n, 2))."""
    root = np.sqrt(weights)[:, None] if weights is not None else np.ones((len(source), 1))
    middle = source.mean(axis=0)
    design = np.column_stack([source - middle, np.ones(len(source))])
    solution, *_ = np.linalg.lstsq(design * root, target * root, rcond=None)
    linear = solution[:2].T
    return np.column_stack([linear, solution[2] - linear @ middle])


def robust_least_squares(source: Float64Array, target: Float64Array) -> Float64Array:
    """Affine map by reweighted least squares (Cauchy weights): drift and seams stay out."""
    weights = np.ones(len(source))
    matrix = least_squares(source, target)
    for _ in range(20):
        matrix = least_squares(source, target, weights)
        distance = np.linalg.norm(apply(matrix, source) - target, axis=1)
        unit = max(float(np.median(distance)), 0.05)
        weights = 1 / (1 + (distance / (2 * unit)) ** 2)
    return matrix
