"""A slide at a fixed physical resolution: exact area averages, read in bounded memory.

Tissue is found at 8 um/px whatever levels a slide has. A level index or a pixel budget would
make the mask depend on the scanner or on free memory. Each overview pixel ``j`` covers
level-0 ``[j f, (j + 1) f)`` with ``f = 8 / mpp`` (a real number, e.g. 16.03), and its value is
the area-weighted mean of the stored pixels under it.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from wsisr.arrays import BoolArray, Float32Array, UInt8Array
from wsisr.errors import MppError, SlideError
from wsisr.runners import in_threads
from wsisr.slides.axis_weights import AxisWeights
from wsisr.slides.protocol import Level, Slide, SlideInfo
from wsisr.slides.tiles import forget_tiles

OVERVIEW_UM_PER_PX = 8.0
BLOCK_PX = 1024
"""Side of the blocks that are read: 3 MiB of RGB, 12 MiB of floats at a time."""

BAND_BYTES = 8 << 20
"""Of sums of a band of blocks; some bands are at work at a time."""
MIN_BAND_PX = 64
FINISH_PX = 64
"""Rows of sums that become pixels at a time."""

MAX_OVERVIEW_PX = 400_000_000
"""Refuse overviews beyond this many pixels: a wrong resolution, not a slide."""


@dataclass(frozen=True, kw_only=True)
class OverviewPlan:
    """How an overview is read.

    Attributes
    ----------
    level : int
        Level that is read.
    factor : float
        Level-0 pixels per overview pixel.
    reduction : float
        Pixels of the read level per overview pixel, at least 1.
    um_per_px : float
        Resolution of the overview; the slide's own where that is coarser than asked for.
    width_px, height_px : int
        Size of the overview; the last column and row may lie partly outside the slide.
    """

    level: int
    factor: float
    reduction: float
    um_per_px: float
    width_px: int
    height_px: int


@dataclass(frozen=True, kw_only=True)
class Overview:
    """A slide at a fixed resolution.

    Attributes
    ----------
    rgb : ndarray, shape (h, w, 3), uint8
        Area means, white where nothing was scanned.
    valid : ndarray, shape (h, w), bool
        At least half of the pixel was scanned.
    factor : float
        Level-0 pixels per pixel.
    um_per_px : float
    """

    rgb: UInt8Array
    valid: BoolArray
    factor: float
    um_per_px: float


def plan_overview(info: SlideInfo, um_per_px: float = OVERVIEW_UM_PER_PX) -> OverviewPlan:
    """Choose the coarsest stored exact level that is no coarser than `um_per_px`.

    Raises
    ------
    MppError
        If the slide has no resolution.
    SlideError
        If the overview would be absurdly large.
    """
    if info.mpp is None:
        reason = info.mpp_problem.rstrip(". ") or (
            "the file states none; state it with --mpp-override CSV (columns slide, mpp)"
        )
        raise MppError(
            f"{info.path}: tissue needs a resolution, and there is none. {reason}, or open the "
            "slide with --mpp (um per px)."
        )
    mpp = info.mpp.value
    target = max(um_per_px, mpp)
    usable: list[tuple[int, Level]] = [
        (level.factor, level)
        for level in info.levels
        if level.exact and level.factor is not None and level.factor * mpp <= target * (1 + 1e-9)
    ]
    if not usable:
        usable = [(1, info.levels[0])]
    level_factor, level = max(usable, key=lambda item: item[0])
    factor = target / mpp
    base = info.levels[0]
    width, height = ceil(base.width_px / factor - 1e-9), ceil(base.height_px / factor - 1e-9)
    if width * height > MAX_OVERVIEW_PX:
        raise SlideError(
            f"{info.path}: {base.width_px} x {base.height_px} px at {mpp:g} um/px would make an "
            f"overview of {width} x {height} px; the resolution is probably wrong, give the "
            "true one with --mpp-override."
        )
    return OverviewPlan(
        level=level.index,
        factor=factor,
        reduction=factor / level_factor,
        um_per_px=target,
        width_px=width,
        height_px=height,
    )


def read_overview(slide: Slide, um_per_px: float = OVERVIEW_UM_PER_PX) -> Overview:
    """Read a slide at a fixed resolution by exact area averaging.

    Memory holds a block of `BLOCK_PX` and a band of sums (`BAND_BYTES`) for each thread and the
    overview itself, whatever the slide's size.
    Never-scanned pixels take no part in the averages.
    """
    info = slide.info
    plan = plan_overview(info, um_per_px)
    level = info.levels[plan.level]
    rgb = np.full((plan.height_px, plan.width_px, 3), 255, np.uint8)
    valid = np.zeros((plan.height_px, plan.width_px), np.bool_)
    step_y = _band_height(plan, level)
    carried: tuple[int, Float32Array] | None = None

    def read(y0: int) -> tuple[int, Float32Array]:
        return _read_band(slide, plan, level, y0, min(step_y, level.height_px - y0))

    for first, sums in in_threads(read, range(0, level.height_px, step_y)):
        if carried is not None:
            # Two bands can share one row of overview pixels.
            if carried[0] == first:
                sums[0] += carried[1]
            else:
                _finish(rgb, valid, carried[0], carried[1][None], level, plan)
        _finish(rgb, valid, first, sums[:-1], level, plan)
        carried = first + len(sums) - 1, sums[-1]
    if carried is not None:
        _finish(rgb, valid, carried[0], carried[1][None], level, plan)
    forget_tiles(slide)  # those of this level: all of it has been looked at
    return Overview(rgb=rgb, valid=valid, factor=plan.factor, um_per_px=plan.um_per_px)


def _read_band(
    slide: Slide, plan: OverviewPlan, level: Level, y0: int, height: int
) -> tuple[int, Float32Array]:
    """Sums of colour (0-2) and of scanned area (3) of the overview rows under a band of blocks.

    Returns the first row and an array of shape (rows, width, 4).
    """
    row0, rows = _area_weights(y0, height, plan.reduction, plan.height_px)
    sums = np.zeros((len(rows), plan.width_px, 4), np.float32)
    step_x = _snap_block(level.tile_width_px)
    for x0 in range(0, level.width_px, step_x):
        width = min(step_x, level.width_px - x0)
        scanned = slide.read_validity(plan.level, x0, y0, width, height)
        if not scanned.any():
            continue
        column0, columns = _area_weights(x0, width, plan.reduction, plan.width_px)
        block = slide.read_level(plan.level, x0, y0, width, height)
        target = sums[:, column0 : column0 + len(columns)]
        if scanned.all():
            target[..., 3] += np.outer(rows.sums(), columns.sums())
        else:
            block = np.where(scanned[..., None], block, np.uint8(0))
            target[..., 3:] += _reduce(scanned[..., None], rows, columns)
        target[..., :3] += _reduce(block, rows, columns)
    return row0, sums


def _finish(
    rgb: UInt8Array,
    valid: BoolArray,
    first: int,
    sums: Float32Array,
    level: Level,
    plan: OverviewPlan,
) -> None:
    """Turn sums into means, white where nothing was scanned."""
    if len(sums) > FINISH_PX:
        for start in range(0, len(sums), FINISH_PX):
            part = sums[start : start + FINISH_PX]
            _finish(rgb, valid, first + start, part, level, plan)
        return
    rows = slice(first, first + len(sums))
    start_y = np.arange(first, first + len(sums)) * plan.reduction
    start_x = np.arange(plan.width_px) * plan.reduction
    # Share of a pixel that lies on the level: less than 1 only at the far edges, where the last
    # pixel can be a sliver.
    share_y = np.clip((level.height_px - start_y) / plan.reduction, 1e-9, 1.0)
    share_x = np.clip((level.width_px - start_x) / plan.reduction, 1e-9, 1.0)
    covered = np.outer(share_y, share_x)
    weight = sums[..., 3]
    scanned = weight > 1e-4 * covered
    means = sums[..., :3] / np.where(scanned, weight, 1)[..., None]
    rgb[rows][scanned] = np.clip(np.rint(means), 0, 255).astype(np.uint8)[scanned]
    valid[rows] = weight >= 0.5 * covered


def _snap_block(tile_px: int) -> int:
    """Whole tiles per block, so that each tile is decoded once."""
    return max(1, BLOCK_PX // max(1, tile_px)) * tile_px if tile_px <= BLOCK_PX else BLOCK_PX


def _band_height(plan: OverviewPlan, level: Level) -> int:
    """Whole tiles where the sums allow it; less of wide slides, whose tiles are then still kept."""
    height = _snap_block(level.tile_height_px)
    most = plan.reduction * BAND_BYTES / (4 * 4 * plan.width_px)
    while height > max(most, MIN_BAND_PX):
        height = -(-height // 2)
    return height


def _area_weights(start: int, count: int, reduction: float, limit: int) -> tuple[int, AxisWeights]:
    """Shares of source pixels ``start .. start + count`` in each overview pixel they touch.

    Returns the first overview pixel and the overlaps in units of one overview pixel.
    """
    edges = np.arange(start, start + count, dtype=np.float64)
    first = np.minimum(np.floor(edges / reduction), limit - 1).astype(np.int64)
    cut = np.clip((first + 1) * reduction - edges, 0.0, 1.0)
    # Rounding must not make a pixel touch a row that the next band will not start with.
    cut[(cut > 1 - 1e-9) | (first == limit - 1)] = 1.0
    second = np.where(cut < 1, first + 1, first)
    offset = int(first[0])
    size = int(second[-1]) - offset + 1
    index = np.arange(count)
    weights = AxisWeights.of(
        np.concatenate([first, second]) - offset,
        np.concatenate([index, index]),
        np.concatenate([cut, 1.0 - cut]).astype(np.float32) / np.float32(reduction),
        (size, count),
    )
    return offset, weights


def _reduce(block: NDArray[np.generic], rows: AxisWeights, columns: AxisWeights) -> Float32Array:
    height, width, channels = block.shape
    half = rows @ block.reshape(height, width * channels)
    half = half.reshape(-1, width, channels).transpose(1, 0, 2).reshape(width, -1)
    full = columns @ half
    result: Float32Array = full.reshape(len(columns), -1, channels).transpose(1, 0, 2)
    return result
