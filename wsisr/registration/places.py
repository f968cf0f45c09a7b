"""Textured places of a slide, spread over all of it."""

import numpy as np

from wsisr.arrays import Float64Array, Int64Array, UInt8Array
from wsisr.errors import RegistrationError
from wsisr.registration import correlation as corr
from wsisr.slides.protocol import Level, Slide

OVERVIEW_MAX_PX = 4_000_000
CELLS = 8
"""The slide is cut into this many cells a side, and places are taken from all of them."""
BLIND_TRIES = 240
MIN_TEXTURE = 0.5


def exact_factor(level: Level) -> int:
    """The level's downsample; only levels that have one are measured."""
    if level.factor is None:
        raise RegistrationError(f"Level {level.index} has no exact downsample.")
    return level.factor


def textured_places(
    slide: Slide, level: Level, patch_px: int, wanted: int, seed: int, places: Int64Array | None
) -> list[tuple[int, int, UInt8Array]]:
    """At most `wanted` patches of a level worth measuring: top-left corner (level px) and pixels.

    Cell by cell the most textured come first.

    Parameters
    ----------
    level : Level
        Where the patches will be read.
    patch_px : int
        Side of a patch, level px.
    places : ndarray, shape (n, 2), int64, or None
        Level-0 positions to choose from.
    """
    rng = np.random.default_rng([seed, level.index])
    candidates = _candidates(slide, level, patch_px, wanted, rng, places)
    patches = [
        slide.read_level(level.index, x, y, patch_px, patch_px) for x, y in candidates.tolist()
    ]
    texture = np.array([corr.texture(corr.grey(patch)) for patch in patches])
    good = np.flatnonzero(texture >= MIN_TEXTURE)
    chosen = good[_spread_out(candidates[good], texture[good], level, wanted, rng)]
    return [(*map(int, candidates[index]), patches[index]) for index in chosen]


def _limits(level: Level, patch_px: int) -> Int64Array:
    return np.array([level.width_px - patch_px, level.height_px - patch_px], np.int64)


def _candidates(
    slide: Slide,
    level: Level,
    patch_px: int,
    wanted: int,
    rng: np.random.Generator,
    places: Int64Array | None,
) -> Int64Array:
    limits = _limits(level, patch_px)
    if places is not None:
        corners = np.asarray(places) // exact_factor(level) - patch_px // 2
        order = rng.permutation(len(corners))[: 4 * wanted]
        return np.clip(corners[order], 0, limits)
    overview = slide.info.levels[-1]
    small = overview.width_px * overview.height_px <= OVERVIEW_MAX_PX
    if small and overview.factor is not None:
        return _from_overview(slide, overview, level, patch_px, wanted, rng)
    return rng.integers(0, limits + 1, (BLIND_TRIES, 2))


def _from_overview(
    slide: Slide,
    overview: Level,
    level: Level,
    patch_px: int,
    wanted: int,
    rng: np.random.Generator,
) -> Int64Array:
    """Corners around the points of the coarsest level with most local contrast."""
    image = corr.grey(slide.read_level(overview.index, 0, 0, overview.width_px, overview.height_px))
    ratio = exact_factor(overview) / exact_factor(level)
    contrast = np.abs(corr.band_pass(image))
    # Drawn in proportion to contrast, so that neither blank glass nor one bright fold wins.
    weight = np.minimum(contrast, np.percentile(contrast, 99)).ravel().astype(np.float64)
    if weight.sum() <= 0:
        return np.empty((0, 2), np.int64)
    points = rng.choice(weight.size, size=4 * wanted, p=weight / weight.sum())
    rows, columns = np.unravel_index(points, image.shape)
    centres = np.stack([columns, rows], axis=1) * ratio
    corners = np.round(centres - patch_px / 2).astype(np.int64)
    return np.unique(np.clip(corners, 0, _limits(level, patch_px)), axis=0)


def _spread_out(
    corners: Int64Array,
    texture: Float64Array,
    level: Level,
    wanted: int,
    rng: np.random.Generator,
) -> list[int]:
    """Round after round, the best place left of each cell; cells in random order, so that a
    small number of places still covers the whole slide."""
    cells: dict[tuple[int, int], list[int]] = {}
    for index in np.argsort(-texture, kind="stable"):
        x, y = corners[index]
        cell = (int(x * CELLS // level.width_px), int(y * CELLS // level.height_px))
        cells.setdefault(cell, []).append(int(index))
    keys = sorted(cells)
    queues = [cells[keys[index]] for index in rng.permutation(len(keys))]
    chosen: list[int] = []
    depth = 0
    while len(chosen) < min(wanted, len(corners)):
        chosen += [queue[depth] for queue in queues if len(queue) > depth]
        depth += 1
    return chosen[:wanted]
