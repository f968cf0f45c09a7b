"""LR that is made from the HR patch alone, where that is what a paper did.

Usually a missing level is reduced from the level's own pixels, those around the patch included
(`wsisr.slides.iter_patches`). Papers that start from patches cannot see around them, and some take
every n-th pixel or reduce by 2 over and over. Stacks have neighbours that are other images.
"""

from dataclasses import replace

import numpy as np

from wsisr.building.manifest import Manifest
from wsisr.geometry import Layer, PatchGeometry
from wsisr.slides import reduce_image
from wsisr.slides.protocol import UInt8Array


def from_patch(manifest: Manifest, *, stacked: bool) -> bool:
    """Whether missing LR is made from the patch that was read."""
    return stacked or manifest.reduction != "bicubic"


def read_geometry(geometry: PatchGeometry) -> PatchGeometry:
    """The layers that must be read: HR and what the file stores."""
    read = tuple(la for n, la in enumerate(geometry.layers) if n == 0 or la.native)
    return replace(geometry, layers=read)


def made_layers(
    hr: UInt8Array, geometry: PatchGeometry, manifest: Manifest
) -> dict[str, UInt8Array]:
    """Every LR that the file does not store, shape (size, size, 3) each, from an HR patch.

    Parameters
    ----------
    hr : ndarray, shape (size, size, 3), uint8
    geometry : PatchGeometry
    manifest : Manifest
        `reduction` says how: antialiased bicubic in one step or by 2 over and over (each step
        rounded to whole grey levels), or the pixel nearest to each centre.
    """
    made = {}
    for layer in geometry.layers[1:]:
        if not layer.native:
            made[layer.name] = reduce_patch(hr, layer.size_px, manifest.reduction)
    return made


def reduce_patch(hr: UInt8Array, size_px: int, how: str) -> UInt8Array:
    """An image of `size_px` squared from a larger one; see `made_layers`."""
    if how == "nearest":
        index = ((np.arange(size_px) + 0.5) * hr.shape[0] / size_px + 1e-9).astype(np.int64)
        return np.ascontiguousarray(hr[index][:, index])
    if how == "bicubic-repeated":
        small = hr
        while small.shape[0] > size_px:
            small = reduce_image(small, size=(small.shape[1] // 2, small.shape[0] // 2))
        return small
    return reduce_image(hr, size=(size_px, size_px))


def kernel_of(layer: Layer, manifest: Manifest, *, stacked: bool) -> dict[str, object]:
    """What the store says of how a made LR was made."""
    if manifest.reduction == "nearest":
        return {"kernel": "nearest", "from": "patch"}
    kernel: dict[str, object] = {"kernel": "bicubic-antialias", "a": -0.5}
    if manifest.reduction == "bicubic-repeated":
        kernel["steps"] = int(np.log2(layer.reduction) + 0.5)
    return kernel | ({"from": "patch"} if from_patch(manifest, stacked=stacked) else {})
