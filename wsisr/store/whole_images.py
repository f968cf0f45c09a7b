"""Whole images from the patches that cover them: nothing is padded and nothing is read twice.

A store holds squares. Where those of an image leave nothing out (sampling `cover`, or an image of
one patch), the image is there all the same, and can be scored and learnt from as a whole. Patches
begin on the grid of the store's coarsest LR, so that of 775 px at 20x with an LR of 5x the last
three are in none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.errors import ConfigError
from wsisr.store.reader import PairStore


@dataclass(frozen=True, kw_only=True)
class WholeImage:
    """An image and the patches that it is put together from.

    Attributes
    ----------
    rows : tuple of int
        Of the slide.
    places : tuple of (int, int)
        Top and left of each in the image, HR px.
    shape : (int, int)
        Height and width that they cover, HR px: the image's, or less by a part of an LR px.
    """

    slide: str
    rows: tuple[int, ...]
    places: tuple[tuple[int, int], ...]
    shape: tuple[int, int]

    def read(self, store: PairStore) -> UInt8Array:
        """Its HR pixels, shape (h, w, 3)."""
        image = np.empty((*self.shape, 3), np.uint8)
        for row, (y, x) in zip(self.rows, self.places, strict=True):
            patch = store.patch(self.slide, row, store.arrays[0])
            image[y : y + len(patch), x : x + len(patch)] = patch
        return image


def whole_image(store: PairStore, slide: str, rows: Sequence[int]) -> WholeImage:
    """How an image is put together.

    Parameters
    ----------
    rows : sequence of int
        The patches that may be used.

    Raises
    ------
    ConfigError
        They leave pixels out, or HR is not the image's own pixels.
    """
    view = store.slides[slide]
    spec = view.spec(store.arrays[0])
    if spec.factor != 1.0:
        raise ConfigError(
            f"{store.path}: HR is reduced from the images by {spec.factor:g}; whole images are of "
            "their own pixels: build with the images' magnification as --hr"
        )
    level = view.attributes["levels"][0]
    image = (int(level["height_px"]), int(level["width_px"]))
    side = spec.size_px
    tops, lefts = (view.column(axis) for axis in ("y", "x"))
    places = tuple((int(tops[row]), int(lefts[row])) for row in rows)
    shape = (max(y for y, _ in places) + side, max(x for _, x in places) + side)
    covered = np.zeros(shape, np.bool_)
    for y, x in places:
        covered[y : y + side, x : x + side] = True
    grid = max(view.spec(name).factor for name in view.arrays)
    missing = [whole - part for whole, part in zip(image, shape, strict=True)]
    if not covered.all() or not all(0 <= px < grid for px in missing):
        raise ConfigError(
            f"{store.path}: {len(places)} patches show {covered.sum() / np.prod(image):.0%} of "
            f"{slide} and not the whole image; build with sampling: {{kind: cover}}"
        )
    return WholeImage(slide=slide, rows=tuple(rows), places=places, shape=shape)
