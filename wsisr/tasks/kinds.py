"""What the three tasks are: what a network learns for them, and how its maps are read."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from wsisr.arrays import Float32Array, Int32Array, UInt8Array
from wsisr.selection.image_labels import ImageLabels

EIGHT = np.ones((3, 3), bool)
NUCLEUS_PX = 16
"""Smaller areas are no nuclei: 1 um2 at 40x."""
SMOOTH_PX, PEAK = 2.5, 0.03
GLAND_PX = 500
"""Smaller areas are no glands: 190 um2 at 20x."""
CONTOUR_PX = 3


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is found in an image.

    Attributes
    ----------
    labels : ndarray, shape (h, w), int32, or None
        Objects; 0 is background.
    classes : mapping of str to float
        Probability of each class of the image; empty where objects are asked for.
    types : mapping of int to str, or None
        What each object is, where the reference says so.
    """

    labels: Int32Array | None = None
    classes: Mapping[str, float] = ()  # type: ignore[assignment]
    types: Mapping[int, str] | None = None


class Kind(ABC):
    """One task.

    Class attributes
    ----------------
    network : str
        Of the reference.
    """

    name: ClassVar[str]
    network: ClassVar[str]

    @abstractmethod
    def channels(self, classes: Sequence[str]) -> int:
        """Of the network's output."""

    @abstractmethod
    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        """Of a batch."""

    @abstractmethod
    def read(self, out: Float32Array, classes: Sequence[str]) -> Answer:
        """What the output for one image, (C, h, w) or (C,), says."""


class Maps(Kind):
    """Tasks whose truth are objects: two maps are drawn of them."""

    network = "unet"

    def channels(self, classes: Sequence[str]) -> int:
        return 2

    @abstractmethod
    def target(self, truth: ImageLabels) -> UInt8Array:
        """What the network is to draw, shape (channels, h, w), 0 to 255."""


class Nuclei(Maps):
    """Inside or not, and how far inside: nuclei that touch part where the distance is small."""

    name = "nuclei"

    def target(self, truth: ImageLabels) -> UInt8Array:
        """Inside; distance to the nucleus's edge over its largest; whether distances are known."""
        inside = truth.map > 0
        distance = np.zeros(truth.map.shape, np.float32)
        if truth.instances:
            for label, box in enumerate(ndimage.find_objects(truth.map), start=1):
                if box is not None:
                    mask = np.pad(truth.map[box] == label, 1)
                    depth = ndimage.distance_transform_edt(mask)[1:-1, 1:-1]
                    distance[box] = np.maximum(distance[box], depth / max(1.0, depth.max()))
        known = np.full(inside.shape, 255 * truth.instances, np.uint8)
        return np.stack([inside * np.uint8(255), np.rint(distance * 255).astype(np.uint8), known])

    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        inside, distance, known = target.unbind(1)
        apart = (out[:, 1].sigmoid() - distance).square() * known
        return _area_loss(out[:, 0], inside) + 4.0 * apart.mean()

    def read(self, out: Float32Array, classes: Sequence[str]) -> Answer:
        """Watershed of the distance from its peaks, within the inside.

        A peak stands `PEAK` above what parts it from a higher one: lower ones are texture.
        Smoothing and height were chosen on three patients whom the network had not seen.
        """
        from skimage.morphology import h_maxima
        from skimage.segmentation import watershed

        inside = ndimage.binary_fill_holes(out[0] > 0)
        distance = ndimage.gaussian_filter(torch.from_numpy(out[1]).sigmoid().numpy(), SMOOTH_PX)
        areas, _ = ndimage.label(inside, EIGHT)
        depth = np.where(inside, distance, 0.0).astype(np.float32)
        peaks = h_maxima(depth, PEAK)  # type: ignore[no-untyped-call]
        markers, count = ndimage.label(peaks > 0, EIGHT)
        # An area without a peak is one nucleus all the same.
        bare = np.setdiff1d(np.unique(areas), np.append(np.unique(areas[markers > 0]), 0))
        markers = np.where(np.isin(areas, bare), areas + count, markers)
        found = watershed(-distance, markers, mask=inside)  # type: ignore[no-untyped-call]
        return Answer(labels=without_small(found, NUCLEUS_PX))


class Glands(Maps):
    """Inside or not, and the contour between glands."""

    name = "glands"

    def target(self, truth: ImageLabels) -> UInt8Array:
        """Inside; a contour of `CONTOUR_PX` to both sides of every gland's edge."""
        largest = ndimage.maximum_filter(truth.map, size=3)
        smallest = ndimage.minimum_filter(truth.map, size=3)
        edge = ndimage.binary_dilation(largest != smallest, EIGHT, CONTOUR_PX - 1)
        return np.stack([truth.map > 0, edge]).astype(np.uint8) * 255

    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        return _area_loss(out[:, 0], target[:, 0]) + _area_loss(out[:, 1], target[:, 1])

    def read(self, out: Float32Array, classes: Sequence[str]) -> Answer:
        """Areas (8-connected) of the inside without contours, grown back, holes filled."""
        from skimage.segmentation import expand_labels

        inside = out[0] > 0
        cores, _ = ndimage.label(inside & (out[1] <= 0), EIGHT)
        cores = without_small(cores, GLAND_PX // 8)
        wider = expand_labels(cores, 2 * CONTOUR_PX)  # type: ignore[no-untyped-call]
        grown = np.where(inside, wider, 0)
        for label, box in enumerate(ndimage.find_objects(grown), start=1):
            if box is not None:
                part = grown[box]
                part[ndimage.binary_fill_holes(part == label) & (part == 0)] = label
        return Answer(labels=without_small(grown, GLAND_PX))


class Classes(Kind):
    """The class of a whole image."""

    name = "classes"
    network = "resnet18"

    def channels(self, classes: Sequence[str]) -> int:
        return len(classes)

    def loss(self, out: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(out, target)

    def read(self, out: Float32Array, classes: Sequence[str]) -> Answer:
        weights = np.exp(out - out.max())
        shares = (weights / weights.sum()).tolist()
        return Answer(classes=dict(zip(classes, shares, strict=True)))


KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (Nuclei(), Glands(), Classes())}


def without_small(labels: NDArray[np.integer[Any]], least_px: int) -> Int32Array:
    """Objects of fewer pixels left out; the others keep their order, from 1.

    scikit-image has it in two functions, whose arguments changed names between the releases that
    are supported.
    """
    area = np.bincount(labels.ravel())
    kept = area >= least_px
    kept[0] = False
    order = np.zeros(len(area), np.int32)
    order[kept] = np.arange(1, kept.sum() + 1)
    return order[labels]


def _area_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy, and Dice of the whole batch: small areas count too."""
    share = logits.sigmoid()
    dice = 2 * (share * target).sum() / (share.sum() + target.sum() + 1.0)
    return F.binary_cross_entropy_with_logits(logits, target) + 1.0 - dice
