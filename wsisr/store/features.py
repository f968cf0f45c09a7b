"""What a slide's tissue looks like, in a form that survives recompression, shifts and turns.

Each sampled patch is brought to one common resolution and described by SIFT keypoints (Lowe,
IJCV 2004, doi:10.1023/B:VISI.0000029664.99615.94). Descriptors do not depend on where the patch was
cut or how it was turned; those of a mirrored patch are a permutation of the original's, so
mirrored copies are found without looking at more pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

import cv2
import numpy as np

from wsisr.arrays import AnyArray, Float32Array, Int64Array, UInt8Array
from wsisr.store.reader import PairStore
from wsisr.store.shard_reader import ShardReader

RESOLUTIONS_UM_PER_PX = (4.0, 2.0, 1.0, 0.5, 0.25)
MIN_SIDE_PX = 96
"""Smaller patches hold too few keypoints; a finer resolution is taken for them."""
KEYPOINTS_PER_PATCH = 32
MIN_PATCHES = 64
PATCHES_PER_ROOT = 3.0
"""Sampled patches are this times the square root of their number: two complete copies cut on
different grids then share about 4 * 3^2 overlapping sampled patches, however large they are."""
MIN_SAMPLE = 16
PATCH_BUDGET = 100_000
"""Sampled patches over all slides: about 3 million keypoints, 1 GB."""
FLAT_SD = 3.0


@dataclass(frozen=True, kw_only=True)
class GreyPatches:
    """Patches of one slide as grey images of one size, read when they are asked for."""

    reader: ShardReader
    side_px: int

    def __call__(self, row: int) -> UInt8Array:
        """One patch, shape (side_px, side_px), uint8."""
        patch = self.reader.read([row])[0]
        grey = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY)
        kind = cv2.INTER_AREA if self.side_px <= patch.shape[0] else cv2.INTER_CUBIC
        size = (self.side_px, self.side_px)
        return np.asarray(cv2.resize(grey, size, interpolation=kind), np.uint8)


@dataclass(frozen=True, kw_only=True)
class SlideFeatures:
    """Keypoints of sampled patches of one slide.

    Attributes
    ----------
    rows : ndarray, shape (p,), int
        Which patches.
    image : GreyPatches
        The patches themselves; not kept in memory.
    patch : ndarray, shape (k,), int
        Place of each keypoint's patch in `rows`.
    xy_px : ndarray, shape (k, 2), float32
        Where it lies in its image, pixel edges.
    descriptors : ndarray, shape (k, 128), uint8
    """

    rows: Int64Array
    image: GreyPatches
    patch: Int64Array
    xy_px: Float32Array
    descriptors: UInt8Array


def common_resolution(fields_um: Sequence[float]) -> float:
    """Coarsest resolution (um/px) at which the smallest field still has 96 pixels a side."""
    smallest = min(fields_um)
    for um_per_px in RESOLUTIONS_UM_PER_PX:
        if smallest / um_per_px >= MIN_SIDE_PX:
            return um_per_px
    return RESOLUTIONS_UM_PER_PX[-1]


def sample_rows(rows: Int64Array, slides: int = 1) -> Int64Array:
    """Evenly spread rows of one slide: all of a small one, about 3 sqrt(n) of a large one.

    Parameters
    ----------
    rows : ndarray, shape (n,), int
    slides : int
        How many slides are compared; beyond a thousand or so each gives fewer, so that memory stays
        bounded.
    """
    count = len(rows)
    wanted = min(count, max(MIN_PATCHES, ceil(PATCHES_PER_ROOT * sqrt(count))))
    wanted = min(wanted, max(MIN_SAMPLE, PATCH_BUDGET // max(1, slides)))
    return rows[np.linspace(0, count - 1, wanted).round().astype(np.int64)] if count else rows


def field_um(store: PairStore, slide_id: str) -> float:
    """Side of a slide's field of view in um; pixels where no resolution is known."""
    view = store.slides[slide_id]
    spec = view.spec(view.arrays[0])
    return spec.factor * spec.size_px * _mpp(view.attributes)


def describe_slide(
    store: PairStore, slide_id: str, rows: Int64Array, um_per_px: float
) -> SlideFeatures:
    """Read the given patches and find their keypoints.

    Parameters
    ----------
    rows : ndarray, shape (p,), int
    um_per_px : float
        Resolution to compare at; the coarsest array that is not coarser is read and reduced.
    """
    view = store.slides[slide_id]
    mpp = _mpp(view.attributes)
    specs = [view.spec(name) for name in view.arrays]
    fine = [spec for spec in specs if spec.factor * mpp <= um_per_px * 1.1]
    spec = max(fine, key=lambda s: s.factor) if fine else min(specs, key=lambda s: s.factor)
    side = max(16, round(spec.size_px * spec.factor * mpp / um_per_px))
    image = GreyPatches(reader=store.reader(slide_id, spec.name), side_px=side)
    finder: Any = getattr(cv2, "SIFT_create")(nfeatures=KEYPOINTS_PER_PATCH)  # noqa: B009
    places: list[AnyArray] = []
    points: list[AnyArray] = []
    descriptors: list[AnyArray] = []
    for at, row in enumerate(rows.tolist()):
        grey = image(row)
        if grey.std() < FLAT_SD:
            continue
        found, described = finder.detectAndCompute(grey, None)
        if described is None or not len(found):
            continue
        # OpenCV counts from pixel centres, this package from pixel edges.
        points.append(np.array([k.pt for k in found], np.float32) + 0.5)
        descriptors.append(described.astype(np.uint8))
        places.append(np.full(len(found), at))
    return SlideFeatures(
        rows=rows,
        image=image,
        patch=np.concatenate([np.empty(0, np.int64), *places]).astype(np.int64),
        xy_px=np.concatenate([np.empty((0, 2), np.float32), *points]),
        descriptors=np.concatenate([np.empty((0, 128), np.uint8), *descriptors]),
    )


def mirrored(descriptors: UInt8Array) -> UInt8Array:
    """Descriptors of the image mirrored about the keypoint's own axis, shape (k, 128).

    A SIFT descriptor is 4 x 4 cells (across, along the keypoint's direction) of 8 directions;
    mirroring across the direction turns the rows of cells round and negates the directions.
    """
    cells = descriptors.reshape(-1, 4, 4, 8)
    turned = cells[:, ::-1, :, :][..., (-np.arange(8)) % 8]
    return np.ascontiguousarray(turned.reshape(-1, 128))


def _mpp(attributes: Any) -> float:
    mpp = attributes.get("mpp")
    return float(mpp["value"]) if mpp else 1.0
