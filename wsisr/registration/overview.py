"""Rough place of one scan in another: features of two overviews, either mirrored or not.

OpenCV's SIFT places its keypoints with a fixed sub-pixel offset that turns with the image, so
it does not cancel between two scans: half an overview pixel is 8 HR px at 4 um/px. With
`enable_precise_upscale` the error is 0.03 px and less.
"""

from dataclasses import dataclass, replace
from typing import Any, cast

import cv2
import numpy as np

from wsisr.arrays import BoolArray, Float32Array, Float64Array, UInt8Array
from wsisr.errors import RegistrationError
from wsisr.registration import affine as aff
from wsisr.registration import correlation as corr
from wsisr.registration.orientation import D4

_Features = tuple[Float64Array, Float32Array]

MAX_SIDE_PX = 2400
"""Longest side of an overview that is looked at in one piece."""
MIN_INLIERS = 12
CLEAR = 2
"""How many times the inliers of the other mirror hypothesis decide without a look at pixels."""
MIN_AGREEMENT = 0.9
"""Least `_agreement` that decides where features do not. One glass measures 0.96; two with the
same mark on them 0.2, and two that repeat the same tissue at other places up to 0.83."""
MIRROR_GAIN = 0.02
"""By how much mirroring must agree better: scanners rarely mirror, so it is no toss-up."""
MATCH_PAIRS = 12_000_000
"""Descriptors compared at once: bounds memory."""
TILE_OVERLAP_PX = 64
TILE_FEATURES = 3_000


@dataclass(frozen=True, kw_only=True)
class OverviewMatch:
    """The affine map between two overviews.

    Attributes
    ----------
    matrix : ndarray, shape (2, 3)
        Moving px -> fixed px, pixel edges.
    inliers, matches : int
        Feature pairs that agree with the map, and all that passed the ratio test.
    other_inliers : int
        The same for the other mirror hypothesis.
    rms_px : float
        Root mean square distance of the inliers, overview px.
    loose : bool
        Whether only the second, tolerant attempt succeeded: other sections, stains or bends.
    """

    matrix: Float64Array
    mirrored: bool
    inliers: int
    matches: int
    other_inliers: int
    rms_px: float
    loose: bool


@dataclass(frozen=True, kw_only=True)
class _Effort:
    """How features are found and how strictly they must agree.

    `stretch` is the largest relative difference of scale, along any direction: two scans of
    one glass differ by how wrong their resolutions are, sections also by how they were laid.
    """

    equalise: bool
    similarity: bool
    features: int
    contrast: float
    ratio: float
    reprojection_px: float
    stretch: float
    shrink: int = 1


SAME_GLASS = _Effort(
    equalise=False,
    similarity=False,
    features=8_000,
    contrast=0.03,
    ratio=0.8,
    reprojection_px=1.5,
    stretch=0.1,
)
OTHER_SECTION = _Effort(
    equalise=True,
    similarity=True,
    features=12_000,
    contrast=0.02,
    ratio=0.9,
    reprojection_px=12.0,
    stretch=0.2,
)
EFFORTS = (
    SAME_GLASS,
    OTHER_SECTION,
    # The finest structures differ most between sections.
    replace(OTHER_SECTION, shrink=2),
    replace(OTHER_SECTION, shrink=4),
)


def _features(image: UInt8Array, effort: _Effort) -> _Features:
    """Keypoints (pixel edges) and root-SIFT descriptors, of large images tile by tile."""
    if max(image.shape[:2]) <= MAX_SIDE_PX:
        return _tile_features(image, effort)
    side = MAX_SIDE_PX // 2
    found = []
    for top in range(0, image.shape[0], side):
        for left in range(0, image.shape[1], side):
            tile = image[top : top + side + TILE_OVERLAP_PX, left : left + side + TILE_OVERLAP_PX]
            points, descriptors = _tile_features(tile, replace(effort, features=TILE_FEATURES))
            found.append((points + np.array([left, top]), descriptors))
    return np.concatenate([p for p, _ in found]), np.concatenate([d for _, d in found])


def _tile_features(image: UInt8Array, effort: _Effort) -> _Features:
    """Keypoints and descriptors of an image that is looked at in one piece."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if effort.shrink > 1:
        width, height = (size // effort.shrink for size in (grey.shape[1], grey.shape[0]))
        grey = grey[: height * effort.shrink, : width * effort.shrink]
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    if effort.equalise:
        grey = cv2.createCLAHE(3.0, (8, 8)).apply(grey)
    sift: Any = cv2.SIFT_create(  # type: ignore[attr-defined]
        nfeatures=effort.features,
        contrastThreshold=effort.contrast,
        enable_precise_upscale=True,
    )
    keypoints, descriptors = sift.detectAndCompute(grey, None)
    if descriptors is None or len(keypoints) < MIN_INLIERS:
        return np.empty((0, 2)), np.empty((0, 128), np.float32)
    points = effort.shrink * (np.array([k.pt for k in keypoints], dtype=np.float64) + 0.5)
    normal = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6)
    return points, np.sqrt(normal).astype(np.float32)


def _match(
    moving: _Features, fixed: _Features, effort: _Effort
) -> tuple[Float64Array, Float64Array]:
    """Pairs of points that pass the ratio test.

    Descriptors have unit length, so that all distances are one matrix product: several times
    faster than OpenCV's brute-force matcher.
    """
    if len(moving[0]) < 2 or len(fixed[0]) < 2:
        return np.empty((0, 2)), np.empty((0, 2))
    source, target = [], []
    rows_at_once = max(64, MATCH_PAIRS // len(fixed[0]))
    for start in range(0, len(moving[0]), rows_at_once):
        likeness = moving[1][start : start + rows_at_once] @ fixed[1].T
        rows = np.arange(len(likeness))
        best = np.argmax(likeness, axis=1)
        nearest = 2 - 2 * likeness[rows, best]
        likeness[rows, best] = -1.0
        second = 2 - 2 * likeness.max(axis=1)
        good = nearest < effort.ratio**2 * second
        source.append(moving[0][start : start + rows_at_once][good])
        target.append(fixed[0][best[good]])
    return np.concatenate(source), np.concatenate(target)


def _estimate(
    source: Float64Array, target: Float64Array, seed: int, effort: _Effort
) -> tuple[Float64Array | None, BoolArray]:
    """Affine map by random sampling, then least squares on its inliers.

    Where few matches are right, two of them at a time (a similarity) are drawn with far better
    odds than three (an affine map).
    """
    none = np.zeros(len(source), bool)
    if len(source) < MIN_INLIERS:
        return None, none
    cv2.setRNGSeed(seed)
    estimate, method = (
        (cv2.estimateAffinePartial2D, cv2.RANSAC)
        if effort.similarity
        else (cv2.estimateAffine2D, cv2.USAC_MAGSAC)
    )
    matrix, mask = estimate(
        source,
        target,
        method=method,
        ransacReprojThreshold=effort.reprojection_px,
        maxIters=20_000,
        confidence=0.9999,
    )
    if matrix is None or not np.isfinite(matrix).all():
        return None, none
    fitted = np.asarray(matrix, dtype=np.float64)
    inlier = np.asarray(mask).ravel().astype(bool)
    for _ in range(3):
        if inlier.sum() < MIN_INLIERS:
            return None, none
        fitted = aff.least_squares(source[inlier], target[inlier])
        distance = np.linalg.norm(aff.apply(fitted, source) - target, axis=1)
        # Three robust deviations of a two-dimensional Gaussian, but not below a quarter pixel.
        limit = max(0.25, 3 * float(np.median(distance[inlier])) / 1.1774)
        inlier = distance < min(limit, 2 * effort.reprojection_px)
    return fitted, inlier


def _plausible(matrix: Float64Array, mirrored: bool, stretch_error: float) -> bool:
    """Whether a map is a turn with at most a little stretch: both overviews have one scale."""
    stretch = np.linalg.svd(matrix[:, :2], compute_uv=False)
    upright = bool(np.linalg.det(matrix[:, :2]) > 0)
    within = stretch[1] >= 1 - stretch_error and stretch[0] <= 1 + stretch_error
    return bool(within) and upright != mirrored


def register_overviews(
    moving: UInt8Array, fixed: UInt8Array, seed: int = 0, *, same_glass_only: bool = False
) -> OverviewMatch:
    """Affine map between two overviews of one scale, at any turn, mirrored or not.

    Parameters
    ----------
    moving, fixed : ndarray, shape (h, w, 3), uint8, RGB
        At the same um/px, to about 3 %.
    seed : int
        Of the sampling of matches.
    same_glass_only : bool
        Without the tolerant attempts that neighbouring sections need.

    Raises
    ------
    RegistrationError
        If neither the image nor its mirror image has enough features in common.
    """
    for effort in EFFORTS[:1] if same_glass_only else EFFORTS:
        fixed_features = _features(fixed, effort)
        answers = [
            answer
            for mirrored in (False, True)
            if (answer := _hypothesis(moving, fixed_features, mirrored, seed, effort)) is not None
        ]
        answers.sort(key=lambda answer: -answer.inliers)
        if not answers:
            continue
        best = _decide(moving, fixed, answers)
        if best is not None:
            return _refine_by_intensity(moving, fixed, best) if best.loose else best
    raise RegistrationError(
        "The two scans have too little in common: no map agrees with enough of their features, "
        "neither as they are nor mirrored. Check that both show the same glass."
    )


def _decide(
    moving: UInt8Array, fixed: UInt8Array, answers: list[OverviewMatch]
) -> OverviewMatch | None:
    """The hypothesis to believe, of one or two with the most inliers first; None if neither.

    Chance gives both about as many inliers, but so does tissue that mirrors itself: then the
    pixels decide, whether there is a match at all and which.
    """
    first, *others = answers
    if not others:
        return first
    (second,) = others
    if first.inliers < CLEAR * second.inliers:
        upright, mirrored = sorted(answers, key=lambda answer: answer.mirrored)
        straight, turned = (_agreement(moving, fixed, a.matrix) for a in (upright, mirrored))
        if max(straight, turned) < MIN_AGREEMENT:
            return None
        swap = turned > straight + MIRROR_GAIN
        first, second = (mirrored, upright) if swap else (upright, mirrored)
    return replace(first, other_inliers=second.inliers)


def _agreement(moving: UInt8Array, fixed: UInt8Array, matrix: Float64Array) -> float:
    """Correlation of detail between the moving overview and the fixed one seen through a map.

    What the map sends outside the fixed overview counts as not found.
    """
    height, width = moving.shape[:2]
    detail = corr.band_pass(corr.grey(moving))
    seen = corr.band_pass(aff.sample_through(corr.grey(fixed), matrix, width, height))
    rows, columns = np.indices((height, width)) + 0.5
    x, y = ((a * columns + b * rows + c) for a, b, c in matrix)
    seen *= (x >= 0) & (y >= 0) & (x <= fixed.shape[1]) & (y <= fixed.shape[0])
    norm = float(np.sqrt(np.mean(detail**2) * np.mean(seen**2)))
    return float(np.mean(detail * seen)) / norm if norm > corr.FLAT**2 else 0.0


def _refine_by_intensity(
    moving: UInt8Array, fixed: UInt8Array, match: OverviewMatch
) -> OverviewMatch:
    """The map that makes the blurred overviews correlate best (ECC, coarse to fine).

    A few dozen features of two sections lie in a few places, and an affine map through them
    is far off elsewhere; their outlines and large structures say more.
    """
    matrix = match.matrix
    everything = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 200, 1e-6)
    for shrink in (4, 2):
        first, second = _shrunk(moving, shrink), _shrunk(fixed, shrink)
        warp = matrix.copy()
        warp[:, 2] = warp[:, 2] / shrink + warp[:, :2] @ [0.5, 0.5] - 0.5
        try:
            _, found = cv2.findTransformECC(
                first,
                second,
                warp.astype(np.float32),
                cv2.MOTION_AFFINE,
                everything,
                np.ones(second.shape, np.uint8),
                1,
            )
        except cv2.error:
            break  # no correlation to climb: the features' map stands
        refined = np.asarray(found, np.float64)
        refined[:, 2] = shrink * (refined[:, 2] + 0.5 - refined[:, :2] @ [0.5, 0.5])
        if not _plausible(refined, match.mirrored, OTHER_SECTION.stretch):
            break
        matrix = refined
    return replace(match, matrix=matrix)


def _shrunk(image: UInt8Array, shrink: int) -> Float32Array:
    """Reduced, blurred grey overview."""
    height, width = (size // shrink for size in image.shape[:2])
    grey = cv2.cvtColor(image[: height * shrink, : width * shrink], cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return cast(Float32Array, cv2.GaussianBlur(small, (0, 0), 2.0))


def _hypothesis(
    moving: UInt8Array, fixed: _Features, mirrored: bool, seed: int, effort: _Effort
) -> OverviewMatch | None:
    image = np.ascontiguousarray(moving[:, ::-1]) if mirrored else moving
    source, target = _match(_features(image, effort), fixed, effort)
    matrix, inlier = _estimate(source, target, seed, effort)
    if matrix is None or not inlier.any():
        return None
    misfit = np.linalg.norm(aff.apply(matrix, source[inlier]) - target[inlier], axis=1)
    if mirrored:  # back to the coordinates of the image that was given
        flip = aff.to_matrix(D4.FLIP.matrix(moving.shape[1], moving.shape[0]))
        matrix = aff.compose(matrix, flip)
    if not _plausible(matrix, mirrored, effort.stretch):
        return None
    return OverviewMatch(
        matrix=matrix,
        mirrored=mirrored,
        inliers=int(inlier.sum()),
        matches=len(source),
        other_inliers=0,
        rms_px=float(np.sqrt(np.mean(misfit**2))),
        loose=effort is not SAME_GLASS,
    )
