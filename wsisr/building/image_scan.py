"""The scan of ready-made images: every pixel counts, and places follow from the image's size."""

from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsisr.building.image_labels import annotation_attribute, field_classes
from wsisr.building.layout import SlideTask
from wsisr.building.manifest import Manifest
from wsisr.building.records import RankedCandidates
from wsisr.errors import SlideError
from wsisr.geometry import PatchGeometry
from wsisr.magnification import parse_magnification
from wsisr.selection.candidates import grid_candidates, origin_ranges, ranked_order
from wsisr.slides import SlideInfo

MASK_UM_PER_PX = 8.0


def image_candidates(
    info: SlideInfo,
    geometry: PatchGeometry,
    origins: NDArray[np.int64],
    task: SlideTask,
    manifest: Manifest,
) -> tuple[RankedCandidates, dict[str, int]]:
    """Places of an image or stack, best rank first, and the funnel.

    Raises
    ------
    SlideError
        If the image is smaller than a patch, or a stack would have to be resampled.
    """
    if task.stack is not None:
        if geometry.hr.factor != 1.0:
            raise SlideError(
                f"{task.slide_id}: a stack's images are its HR patches; set hr to the "
                "magnification that the manifest declares for them."
            )
        origins = origins[: len(task.stack)]
    if not len(origins):
        level = info.levels[0]
        raise SlideError(
            f"{task.slide_id}: the image is {level.width_px} x {level.height_px} px, smaller than "
            f"one patch of {geometry.field_px} px; choose a smaller size."
        )
    labels = _labels(task, manifest, origins, geometry.field_px)
    order = ranked_order(manifest.seed, task.slide_id, origins)
    classes = manifest.labels.classes
    number = [classes.index(name) if name in classes else -1 for name in labels]
    chosen = [i for i in order.tolist() if number[i] >= 0 or not manifest.labels.required]
    ranked = RankedCandidates(
        x=tuple(origins[chosen, 0].tolist()),
        y=tuple(origins[chosen, 1].tolist()),
        label=tuple(number[i] for i in chosen),
        label_fraction=tuple(float(number[i] >= 0) for i in chosen),
        tissue=(1.0,) * len(chosen),
        texture=(0.0,) * len(chosen),
    )
    return ranked, {"candidates": len(origins), "label": len(chosen)}


def cover_origins(geometry: PatchGeometry, info: SlideInfo) -> NDArray[np.int64]:
    """The fewest evenly spaced fields that leave no pixel of the image out, shape (n, 2).

    >>> # 775 px wide, fields of 416 px: origins 0 and 359
    """
    axes = []
    level = info.levels[0]
    for allowed, side in zip(
        origin_ranges(geometry, info), (level.width_px, level.height_px), strict=True
    ):
        if allowed.count == 0:
            return np.empty((0, 2), np.int64)
        count = max(1, ceil(side / geometry.field_px - 1e-9))
        even = np.linspace(0, allowed.last, count)
        axes.append(np.unique(np.rint(even / allowed.step).astype(np.int64) * allowed.step))
    x, y = np.meshgrid(*axes)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def stack_origins(geometry: PatchGeometry, info: SlideInfo) -> NDArray[np.int64]:
    """One origin per image of a stack, in its order (and those of the unfinished last row)."""
    return grid_candidates(geometry, info)


def whole_mask(info: SlideInfo, manifest: Manifest) -> tuple[NDArray[np.bool_], float]:
    """A mask that counts everything, and its um/px."""
    declared = manifest.images.magnification if manifest.images else None
    if info.mpp is not None:
        mpp = info.mpp.value
    else:
        mpp = 10.0 / parse_magnification(declared or manifest.hr)
    factor = max(1.0, MASK_UM_PER_PX / mpp)
    level = info.levels[0]
    shape = (ceil(level.height_px / factor - 1e-9), ceil(level.width_px / factor - 1e-9))
    return np.ones(shape, np.bool_), mpp * factor


def image_extras(task: SlideTask, root: Path) -> dict[str, Any]:
    """What the store says of an image besides what it says of a slide."""
    extras: dict[str, Any] = {}
    if task.annotation is not None:
        extras["annotation"] = annotation_attribute(task.annotation, root)
    if task.stack is not None:
        extras["images"] = len(task.stack)
    return extras


def _labels(
    task: SlideTask, manifest: Manifest, origins: NDArray[np.int64], field_px: int
) -> list[str]:
    if task.stack is not None and task.stack.labels:
        return list(task.stack.labels)
    if task.annotation is not None and task.annotation.suffix.lower() == ".mat":
        return field_classes(task.annotation, origins, field_px, manifest.labels.classes)
    return [task.label] * len(origins)
