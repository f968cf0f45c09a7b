"""Overlays: masks, outlines and patches over a slide, and two images over one another."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFilter

from wsisr.arrays import BoolArray, Int32Array, UInt8Array

Colour = tuple[int, int, int]

TISSUE: Colour = (0, 150, 90)
PEN: Colour = (255, 200, 0)
INVALID: Colour = (200, 0, 200)
PATCH: Colour = (40, 100, 245)
REFUSED: Colour = (240, 120, 0)
BOTH: Colour = (190, 200, 195)
MISSED: Colour = (200, 30, 30)
EXTRA: Colour = (30, 80, 220)
TRUTH: Colour = (0, 210, 90)
FOUND: Colour = (255, 225, 0)
BAND_PX = 256
"""Rows, then columns that are reduced at a time: Pillow copies what it is given."""
MAP_TISSUE = (205, 130, 160, 110)
"""Of a slide without a picture: a veil that suits a light page and a dark one."""


def slide_overlay(
    tissue: BoolArray,
    *,
    overview: UInt8Array | None = None,
    veils: Iterable[tuple[BoolArray, Colour]] = (),
    rings: Iterable[tuple[ArrayLike, Colour]] = (),
    px_per_mask_px: float = 1.0,
    max_side_px: int = 2400,
) -> UInt8Array:
    """An overview with the tissue's outline, marked areas and drawn rings.

    Parameters
    ----------
    tissue : ndarray, shape (h, w), bool
    overview : ndarray, shape (h, w, 3), uint8, optional
        Without one the outline stands on white.
    veils : iterable of (mask, colour)
        Areas that are tinted: pen, outside of the scan.
    rings : iterable of (array of shape (n, 2), colour)
        Annotations, level-0 px.
    px_per_mask_px : float
        Level-0 px per px of the mask.
    max_side_px : int
        Larger overviews are reduced.
    """
    size = fitted_size(tissue.shape, min(max_side_px, max(tissue.shape)))
    if overview is None:
        picture = np.full((size[1], size[0], 3), 255, np.uint8)
    else:
        picture = _shrunk(overview, size)
    for mask, colour in veils:
        small = _reduced(mask, size)
        picture[small] = picture[small] // 2 + np.asarray(colour, np.uint8) // 2
    inside = Image.fromarray(_reduced(tissue, size)).convert("L")
    wide, narrow = (inside.filter(f(3)) for f in (ImageFilter.MaxFilter, ImageFilter.MinFilter))
    picture[np.asarray(wide) != np.asarray(narrow)] = TISSUE
    drawn = Image.fromarray(picture)
    del picture
    pen, per_px = ImageDraw.Draw(drawn), size[0] / tissue.shape[1] / px_per_mask_px
    line = 2 if max(size) > 600 else 1
    for ring, colour in rings:
        corners = np.rint(np.asarray(ring, np.float64)[:, :2] * per_px).astype(int)
        pen.line(
            [*map(tuple, corners.tolist()), tuple(corners[0].tolist())], fill=colour, width=line
        )
    return np.asarray(drawn)


def patch_overlay(
    picture: UInt8Array, width_px: float, origins: ArrayLike, kept: ArrayLike, field_px: float
) -> UInt8Array:
    """A picture with the frame of every stored patch: blue where kept, orange where refused.

    Frames cover those that were drawn there before; refused ones lie on top of their neighbours'.

    Parameters
    ----------
    picture : ndarray, shape (h, w, 3) or (h, w, 4), uint8
        Of the whole slide.
    width_px : float
        Level-0 width that it spans.
    origins : array, shape (n, 2)
        Level-0 px.
    kept : array of bool, shape (n,)
    field_px : float
        Level-0 side of the field of view.
    """
    drawn = Image.fromarray(np.ascontiguousarray(picture)).copy()
    draw_patches(drawn, width_px, origins, kept, field_px)
    return np.asarray(drawn)


def draw_patches(
    picture: Image.Image, width_px: float, origins: ArrayLike, kept: ArrayLike, field_px: float
) -> None:
    """`patch_overlay` on an image that is there, in place."""
    pen = ImageDraw.Draw(picture)
    line = 2 if max(picture.size) > 600 else 1
    places, flags = np.asarray(origins, np.float64).reshape(-1, 2), np.asarray(kept, np.bool_)
    per_px = picture.width / width_px
    for shown, colour in ((flags, PATCH), (~flags, REFUSED)):
        for x, y in places[shown].tolist():
            ends = [round(v * per_px) for v in (x, y, x + field_px, y + field_px)]
            pen.rectangle(ends, outline=colour, width=line)


def outlined(picture: UInt8Array, labels: Int32Array, colour: Colour) -> UInt8Array:
    """A picture with a line along the inner edge of every object of a label map.

    Parameters
    ----------
    picture : ndarray, shape (h, w, 3), uint8
    labels : ndarray, shape (h, w)
        0 is background; objects that touch have a line each.
    colour : (int, int, int)
    """
    padded = np.pad(labels, 1, mode="edge")
    height, width = labels.shape
    edge = np.zeros(labels.shape, np.bool_)
    for y, x in ((0, 1), (2, 1), (1, 0), (1, 2)):
        edge |= padded[y : y + height, x : x + width] != labels
    drawn = np.array(picture)
    drawn[edge & (labels > 0)] = colour
    return drawn


def tissue_map(tissue: UInt8Array, side_px: int) -> UInt8Array:
    """A mask alone as a picture, see-through where there is no tissue; shape (h, w, 4)."""
    size = fitted_size(tissue.shape, side_px)
    made = np.zeros((size[1], size[0], 4), np.uint8)
    made[_reduced(tissue > 0, size)] = MAP_TISSUE
    return made


def fitted_size(shape: tuple[int, ...], side_px: float) -> tuple[int, int]:
    """Width and height of a picture of a height and width that is brought to a longer side."""
    height, width = shape[:2]
    scale = side_px / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _reduced(mask: BoolArray, size: tuple[int, int]) -> BoolArray:
    """Where at least half of the mask is set."""
    return _shrunk(mask, size) >= 128


def _shrunk(image: UInt8Array | BoolArray, size: tuple[int, int]) -> UInt8Array:
    """An image (of a mask: 0 and 255) reduced to a width and height by the means of its pixels."""
    height = len(image)
    narrow = np.empty((height, size[0], *image.shape[2:]), np.uint8)
    for top in range(0, height, BAND_PX):
        part = image[top : top + BAND_PX]
        shown = part.view(np.uint8) * np.uint8(255) if part.dtype == np.bool_ else part
        narrow[top : top + BAND_PX] = _boxes(np.asarray(shown, np.uint8), (size[0], len(part)))
    small = np.empty((size[1], *narrow.shape[1:]), np.uint8)
    for left in range(0, size[0], BAND_PX):
        columns = slice(left, min(size[0], left + BAND_PX))
        small[:, columns] = _boxes(narrow[:, columns], (columns.stop - left, size[1]))
    return small


def _boxes(image: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def disagreement(mask: BoolArray, reference: BoolArray) -> UInt8Array:
    """Grey where both have tissue, red where only the reference, blue where only the mask."""
    picture = np.full((*mask.shape, 3), 255, np.uint8)
    for shown, colour in ((mask & reference, BOTH), (reference & ~mask, MISSED),
                          (mask & ~reference, EXTRA)):  # fmt: skip
        picture[shown] = colour
    return picture


def checkerboard(lr: UInt8Array, hr: UInt8Array, squares: int = 8) -> UInt8Array:
    """Squares of the enlarged LR and of the HR in turn: structures must run on.

    Parameters
    ----------
    lr : ndarray, shape (h, w, 3), uint8
    hr : ndarray, shape (H, W, 3), uint8
        The same field.
    squares : int
        Per side.
    """
    height, width = hr.shape[:2]
    rows = np.arange(height) * squares // height
    columns = np.arange(width) * squares // width
    odd = (rows[:, None] + columns[None, :]) % 2 == 1
    return np.where(odd[..., None], _smooth(lr, hr.shape), hr)


def red_cyan(lr: UInt8Array, hr: UInt8Array) -> UInt8Array:
    """LR in red over HR in cyan: grey where aligned, coloured fringes where not."""
    weights = np.array([0.299, 0.587, 0.114])
    first, second = (image.astype(np.float64) @ weights for image in (_smooth(lr, hr.shape), hr))
    if first.std() > 0:  # the same contrast on both sides, so that only places differ
        first = (first - first.mean()) * (second.std() / first.std()) + second.mean()
    red, cyan = (np.clip(np.rint(image), 0, 255).astype(np.uint8) for image in (first, second))
    return np.stack([red, cyan, cyan], axis=-1)


def _smooth(lr: UInt8Array, shape: Sequence[int]) -> UInt8Array:
    size = (int(shape[1]), int(shape[0]))
    return np.asarray(
        Image.fromarray(np.ascontiguousarray(lr)).resize(size, Image.Resampling.BICUBIC)
    )
