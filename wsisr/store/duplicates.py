"""Finding the same tissue under different names.

File hashes see copies of a file, not its recompressed, cropped or converted relatives. Here the
keypoints of all slides are joined by locality-sensitive hashing, so the cost grows with the number
of keypoints and not with the pairs of slides; patch pairs that share several are then aligned by
a similarity transform and compared pixel by pixel. Only that last comparison convicts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from wsisr.arrays import Float32Array, Float64Array, Int64Array, UInt8Array
from wsisr.store.features import SlideFeatures, mirrored

TABLES = 6
MIN_BITS = 16
MAX_BUCKET = 64
"""Larger buckets hold generic structure and would cost their square."""
MIN_SHARED = 2
MAX_CANDIDATES_PER_SLIDE_PAIR = 100
MAX_CANDIDATES = 200_000

MIN_INLIERS = 4
STRONG_INLIERS = 5
"""Keypoints on which one patch pair convicts alone; with fewer, two pairs must agree. In 260,000
pairs of real patches of different tissue no four keypoints ever agreed with a correlation
above 0.42, and five never agreed at all; true copies reach 0.98 and more."""
INLIER_PX = 2.0
MAX_SCALE_ERROR = 0.15
MIN_NCC = 0.7
MIN_OVERLAP = 0.04
"""Least share of a patch that two must share to be compared."""
ENOUGH_PAIRS = 3
"""Agreeing patch pairs after which two slides are compared no further."""
CLEAR_NCC = 0.9
RATIO = 0.9
"""Lowe's ratio of the nearest to the second nearest descriptor."""


_SEARCH = sorted(
    ((dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)),
    key=lambda d: (abs(d[0]) + abs(d[1]), d),
)
"""Shifts of up to two pixels, the smallest first."""


@dataclass(frozen=True, kw_only=True)
class SameTissue:
    """Two slides that show the same tissue.

    Attributes
    ----------
    first, second : str
        Slide ids, `first` before `second` in the order of the features given.
    patch_pairs : int
        Compared patch pairs that agree; no more than a few are looked for.
    ncc : float
        Best normalised cross-correlation of an overlap.
    rotation_deg : float
        From first to second, image coordinates.
    rows : (int, int)
        Rows of the best pair.
    """

    first: str
    second: str
    patch_pairs: int
    ncc: float
    rotation_deg: float
    mirrored: bool
    rows: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class _Match:
    ncc: float
    inliers: int
    rotation_deg: float


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    first: int
    second: int
    mirrored: bool


def find_same_tissue(
    features: Mapping[str, SlideFeatures], units: Mapping[str, str]
) -> list[SameTissue]:
    """Pairs of slides of different units that show the same tissue.

    Parameters
    ----------
    features : mapping of slide id to SlideFeatures
        All at one resolution.
    units : mapping of slide id to str
        Slides of one unit (patient, glass) may show the same tissue and are not compared.

    Returns
    -------
    list of SameTissue
        In the order of `features`.
    """
    names = list(features)
    if len({units[name] for name in names}) < 2:
        return []
    numbers: dict[str, int] = {}
    unit = np.array([numbers.setdefault(units[name], len(numbers)) for name in names])
    counts = [len(features[name].rows) for name in names]
    starts = np.concatenate([[0], np.cumsum(counts)])
    slide_of_patch = np.repeat(np.arange(len(names)), counts)
    patch = np.concatenate([features[n].patch + starts[i] for i, n in enumerate(names)])
    descriptors = np.concatenate([features[n].descriptors for n in names])
    candidates = _candidates(descriptors, patch, slide_of_patch, unit)
    found: dict[tuple[int, int], list[tuple[_Match, _Candidate]]] = {}
    for candidate in candidates:
        pair = (int(slide_of_patch[candidate.first]), int(slide_of_patch[candidate.second]))
        if len(found.get(pair, ())) >= ENOUGH_PAIRS:
            continue
        one, two = features[names[pair[0]]], features[names[pair[1]]]
        match = _compare(
            one,
            candidate.first - int(starts[pair[0]]),
            two,
            candidate.second - int(starts[pair[1]]),
            candidate.mirrored,
        )
        if match is not None:
            found.setdefault(pair, []).append((match, candidate))
    results = []
    for pair, matches in sorted(found.items()):
        strong = any(match.inliers >= STRONG_INLIERS for match, _ in matches)
        if len(matches) < 2 and not strong:
            continue
        best, candidate = max(matches, key=lambda item: item[0].ncc)
        results.append(
            SameTissue(
                first=names[pair[0]],
                second=names[pair[1]],
                patch_pairs=len(matches),
                ncc=best.ncc,
                rotation_deg=best.rotation_deg,
                mirrored=candidate.mirrored,
                rows=(
                    int(features[names[pair[0]]].rows[candidate.first - starts[pair[0]]]),
                    int(features[names[pair[1]]].rows[candidate.second - starts[pair[1]]]),
                ),
            )
        )
    return results


def _candidates(
    descriptors: UInt8Array,
    patch: Int64Array,
    slide_of_patch: Int64Array,
    unit: Int64Array,
) -> list[_Candidate]:
    """Patch pairs of different units that share keypoints, the most promising first."""
    count = len(patch)
    if not count:
        return []
    bits = max(MIN_BITS, int(np.log2(2 * count)) + 4)
    owner = np.concatenate([patch, patch])
    flipped = np.repeat([False, True], count)
    centre = descriptors.mean(axis=0, dtype=np.float64).astype(np.float32)
    rng = np.random.default_rng(0)
    shared: list[Int64Array] = []
    for _ in range(TABLES):
        planes = rng.standard_normal((128, bits)).astype(np.float32)
        keys = _keys(descriptors, centre, planes)
        one, two = _bucket_pairs(keys)
        # A mirrored keypoint is compared with unmirrored ones only, and each pair once.
        good = ~flipped[one] & (
            unit[slide_of_patch[owner[one]]] != unit[slide_of_patch[owner[two]]]
        )
        good &= flipped[two] | (owner[one] < owner[two])
        one, two = one[good], two[good]
        shared.append(np.stack((one, two), axis=1))
    pairs = np.unique(np.concatenate(shared), axis=0)
    first, second = owner[pairs[:, 0]], owner[pairs[:, 1]]
    swap = first > second
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    triples = np.stack((first, second, flipped[pairs[:, 1]].astype(np.int64)), axis=1)
    triples, votes = np.unique(triples, axis=0, return_counts=True)
    strong = votes >= MIN_SHARED
    triples, votes = triples[strong], votes[strong]
    order = np.argsort(-votes, kind="stable")[:MAX_CANDIDATES]
    taken: dict[tuple[int, int], int] = {}
    chosen = []
    for one_, two_, mirror in triples[order].tolist():
        key = (int(slide_of_patch[one_]), int(slide_of_patch[two_]))
        taken[key] = taken.get(key, 0) + 1
        if taken[key] <= MAX_CANDIDATES_PER_SLIDE_PAIR:
            chosen.append(_Candidate(first=one_, second=two_, mirrored=bool(mirror)))
    return chosen


def _keys(descriptors: UInt8Array, centre: Float32Array, planes: Float32Array) -> Int64Array:
    """Which side of each random plane through the mean a descriptor lies on, as one number.

    First those of the descriptors as they are, then those of their mirror images.
    """
    weights = (1 << np.arange(planes.shape[1])).astype(np.int64)
    count = len(descriptors)
    keys = np.empty(2 * count, np.int64)
    for start in range(0, count, 65536):
        part = descriptors[start : start + 65536]
        for offset, turned in ((0, part), (count, mirrored(part))):
            sides = ((turned.astype(np.float32) - centre) @ planes) > 0
            keys[offset + start : offset + start + len(part)] = sides @ weights
    return keys


def _bucket_pairs(keys: Int64Array) -> tuple[Int64Array, Int64Array]:
    """All ordered pairs of entries with equal keys, from buckets that are not too large."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    edges = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]]))
    sizes = np.diff(edges)
    one: list[Int64Array] = [np.empty(0, np.int64)]
    two: list[Int64Array] = [np.empty(0, np.int64)]
    for size in range(2, MAX_BUCKET + 1):
        buckets = order[edges[:-1][sizes == size][:, None] + np.arange(size)]
        if len(buckets):
            a, b = np.nonzero(~np.eye(size, dtype=bool))
            one.append(buckets[:, a].reshape(-1))
            two.append(buckets[:, b].reshape(-1))
    return np.concatenate(one), np.concatenate(two)


def _compare(
    one: SlideFeatures, place_one: int, two: SlideFeatures, place_two: int, mirror: bool
) -> _Match | None:
    """Align two patches by their keypoints and compare what they share."""
    in_one, in_two = one.patch == place_one, two.patch == place_two
    points, targets = _matches(
        one.descriptors[in_one],
        one.xy_px[in_one],
        mirrored(two.descriptors[in_two]) if mirror else two.descriptors[in_two],
        two.xy_px[in_two],
    )
    if len(points) < MIN_INLIERS:
        return None
    if mirror:
        side = two.image.side_px
        targets = np.stack((side - targets[:, 0], targets[:, 1]), axis=1)
    transform, inliers = cv2.estimateAffinePartial2D(
        points, targets, method=cv2.RANSAC, ransacReprojThreshold=INLIER_PX, maxIters=500
    )
    if transform is None or int(inliers.sum()) < MIN_INLIERS:
        return None
    scale = float(np.hypot(transform[0, 0], transform[1, 0]))
    if abs(scale - 1.0) > MAX_SCALE_ERROR:
        return None
    image = two.image(int(two.rows[place_two]))
    if mirror:
        image = np.ascontiguousarray(image[:, ::-1])
    ours = one.image(int(one.rows[place_one]))
    ncc = _overlap_ncc(ours, image, np.asarray(transform, np.float64))
    if ncc is None or ncc < MIN_NCC:
        return None
    angle = float(np.degrees(np.arctan2(transform[1, 0], transform[0, 0])))
    return _Match(ncc=ncc, inliers=int(inliers.sum()), rotation_deg=angle)


def _matches(
    one: UInt8Array,
    one_xy: Float32Array,
    two: UInt8Array,
    two_xy: Float32Array,
) -> tuple[Float32Array, Float32Array]:
    """Mutual nearest keypoints that pass the ratio test."""
    if len(one) < 2 or len(two) < 2:
        return np.empty((0, 2), np.float32), np.empty((0, 2), np.float32)
    a, b = one.astype(np.float32), two.astype(np.float32)
    distance = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2.0 * (a @ b.T)
    nearest = distance.argmin(axis=1)
    ordered = np.partition(distance, 1, axis=1)
    mutual = distance.argmin(axis=0)[nearest] == np.arange(len(a))
    clear = ordered[:, 0] < RATIO**2 * ordered[:, 1]
    good = np.flatnonzero(mutual & clear)
    return one_xy[good], two_xy[nearest[good]]


def _overlap_ncc(one: UInt8Array, two: UInt8Array, transform: Float64Array) -> float | None:
    """Correlation of the second patch, brought onto the first, where both exist.

    Keypoints give the place to about a pixel; a search of two pixels around it, on slightly
    blurred images, takes that out.
    """
    side = one.shape[0]
    # warpAffine counts from pixel centres: shift the transform of pixel edges accordingly.
    centred = transform.copy()
    centred[:, 2] += transform[:, :2] @ np.array([0.5, 0.5]) - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(two, centred, (side, side), flags=flags)
    ones = np.full(two.shape, 255, np.uint8)
    valid = cv2.warpAffine(ones, centred, (side, side), flags=flags) == 255
    a = cv2.GaussianBlur(one, (0, 0), 1.0).astype(np.float32)
    b = cv2.GaussianBlur(warped, (0, 0), 1.0).astype(np.float32)
    best: float | None = None
    for dy, dx in _SEARCH:
        shifted = np.roll(b, (dy, dx), axis=(0, 1))
        mask = np.roll(valid, (dy, dx), axis=(0, 1))
        mask[:3] = mask[-3:] = False
        mask[:, :3] = mask[:, -3:] = False
        if mask.sum() < MIN_OVERLAP * side * side:
            continue
        value = _ncc(a[mask], shifted[mask])
        best = value if best is None else max(best, value)
        if best > CLEAR_NCC:
            break
    return best


def _ncc(a: Float32Array, b: Float32Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 1e-6 else 0.0
