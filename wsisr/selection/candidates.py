"""Where patches could lie: grids, seeded random places and lists of points.

All origins are level-0 pixels, whole multiples of the geometry's step, and leave the whole
field of view inside every level that the patch reads.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wsisr.arrays import Float64Array, Int64Array, UInt64Array
from wsisr.errors import GeometryError
from wsisr.geometry import PatchGeometry
from wsisr.selection.hashing import hash_draws, hash_key, unit_interval
from wsisr.slides.protocol import SlideInfo


def origin_ranges(
    geometry: PatchGeometry, info: SlideInfo, margin_px: int = 0
) -> tuple[range, range]:
    """Allowed origins on x and y, level-0 px.

    Parameters
    ----------
    margin_px : int
        Level-0 pixels to keep free at every edge of the slide.

    Notes
    -----
    Stored levels are truncated (4443 -> 2221 px), so a patch that fits level 0 may stick out
    of a coarser level: the tightest level decides.
    """
    if margin_px < 0:
        raise GeometryError(f"An edge margin of {margin_px} px is negative.")
    limits = [(info.levels[0].width_px, info.levels[0].height_px)]
    for layer in geometry.layers:
        level = info.levels[layer.level]
        factor = level.factor or 1
        limits.append((level.width_px * factor, level.height_px * factor))
    step = geometry.step_px
    first = -(-margin_px // step) * step
    ranges = []
    for axis in (0, 1):
        room = min(limit[axis] for limit in limits) - margin_px - geometry.field_px
        ranges.append(range(first, room // step * step + 1, step))
    return ranges[0], ranges[1]


def grid_candidates(
    geometry: PatchGeometry,
    info: SlideInfo,
    stride_px: int | None = None,
    *,
    offset_px: tuple[int, int] = (0, 0),
    margin_px: int = 0,
) -> Int64Array:
    """Origins on a regular grid, row by row.

    Parameters
    ----------
    stride_px : int, optional
        Level-0 distance of neighbours; by default the field of view, so that patches touch.
        Rounded up to the geometry's step.
    offset_px : (int, int)
        Level-0 place of the first origin, rounded up to the step.
    margin_px : int
        Level-0 pixels to keep free at every edge of the slide.

    Returns
    -------
    ndarray, shape (n, 2), int64
        x, y in level-0 px; n may be 0.
    """
    stride = geometry.field_px if stride_px is None else stride_px
    if stride < 1:
        raise GeometryError(f"A stride of {stride} px is not positive.")
    step = geometry.step_px
    stride = -(-stride // step) * step
    axes = []
    for allowed, offset in zip(origin_ranges(geometry, info, margin_px), offset_px, strict=True):
        start = max(allowed.start, -(-offset // step) * step)
        axes.append(np.arange(start, allowed.stop, stride, dtype=np.int64))
    x, y = np.meshgrid(axes[0], axes[1])
    return np.stack([x.ravel(), y.ravel()], axis=1)


@dataclass(frozen=True, kw_only=True)
class TileSnap:
    """Origins at which HR patches share the edges of the slide's stored tiles (level-0 px).

    Attributes
    ----------
    unit_px : int
        They are this far apart, or a multiple of it.
    offset_px : (int, int)
        The first ones on x and y.
    """

    unit_px: int
    offset_px: tuple[int, int]

    def stride_px(self, wanted_px: int) -> int:
        """The nearest pitch that is not smaller and fits."""
        return -(-wanted_px // self.unit_px) * self.unit_px


def snap_to_tiles(geometry: PatchGeometry, info: SlideInfo) -> TileSnap:
    """The grid that touches the fewest stored tiles.

    Raises
    ------
    GeometryError
        Where patches and tiles have no edges in common, with the reason in a few words.
    """
    hr, step = geometry.hr, geometry.step_px
    level = info.levels[hr.level]
    side = level.tile_width_px
    if not hr.native or level.factor is None:
        raise GeometryError(f"its {hr.name} is resampled")
    if hr.margin_px:
        raise GeometryError("its pairs are registered one by one")
    if side != level.tile_height_px:
        raise GeometryError("it is not stored in square tiles")
    if side % hr.size_px and hr.size_px % side:
        raise GeometryError(
            f"patches of {hr.size_px} px and its tiles of {side} px do not divide each other"
        )
    unit = min(side, hr.size_px) * level.factor
    x, y = (-shift * level.factor % unit for shift in (hr.shift_x_px, hr.shift_y_px))
    if unit % step or x % step or y % step:
        raise GeometryError(
            f"its {hr.name} is moved by {hr.shift_x_px}, {hr.shift_y_px} px to meet LR, and "
            f"origins lie {step} px apart"
        )
    return TileSnap(unit_px=unit, offset_px=(x, y))


def cover_candidates(geometry: PatchGeometry, info: SlideInfo) -> Int64Array:
    """The fewest evenly spaced fields that leave no pixel of the image out, shape (n, 2).

    >>> # 775 px wide, fields of 416 px: origins 0 and 359
    """
    axes = []
    level = info.levels[0]
    for allowed, side in zip(
        origin_ranges(geometry, info), (level.width_px, level.height_px), strict=True
    ):
        if not allowed:
            return np.empty((0, 2), np.int64)
        count = max(1, ceil(side / geometry.field_px - 1e-9))
        even = np.linspace(0, allowed[-1], count)
        axes.append(np.unique(np.rint(even / allowed.step).astype(np.int64) * allowed.step))
    x, y = np.meshgrid(*axes)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def random_candidates(
    geometry: PatchGeometry,
    info: SlideInfo,
    *,
    count: int,
    seed: int,
    slide_id: str,
    margin_px: int = 0,
) -> Int64Array:
    """Distinct origins drawn uniformly, each a hash of (seed, slide id, k).

    Parameters
    ----------
    count : int
        Number of draws. Duplicates are left out and not redrawn, so the first n origins do not
        depend on `count`.
    slide_id : str
        Slides draw independently of one another.
    margin_px : int
        Level-0 pixels to keep free at every edge of the slide.

    Returns
    -------
    ndarray, shape (n, 2), int64
        In drawing order; ``n <= count``.
    """
    if count < 0:
        raise GeometryError(f"{count} random candidates cannot be drawn.")
    range_x, range_y = origin_ranges(geometry, info, margin_px)
    if not (range_x and range_y and count):
        return np.empty((0, 2), np.int64)
    key = hash_key("random", seed, slide_id)
    draw = np.arange(count)
    x = _pick(hash_draws(key, draw, 0), range_x)
    y = _pick(hash_draws(key, draw, 1), range_y)
    return first_occurrences(np.stack([x, y], axis=1))


def point_candidates(
    geometry: PatchGeometry,
    info: SlideInfo,
    centres: ArrayLike,
    *,
    margin_px: int = 0,
    outside: str = "drop",
) -> Int64Array:
    """Origins whose fields of view are centred on given points, snapped to the step.

    Parameters
    ----------
    centres : array, shape (n, 2)
        Level-0 x, y.
    outside : {"drop", "shift"}
        What happens to patches that do not fit: left out, or moved inside.

    Returns
    -------
    ndarray, shape (m, 2), int64
        In the order of the list, duplicates left out.
    """
    points = np.asarray(centres, np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise GeometryError("The list of points has a coordinate that is no number.")
    step = geometry.step_px
    wanted = points - geometry.field_px / 2
    origins = (np.ceil(wanted / step - 0.5) * step).astype(np.int64)
    ranges = origin_ranges(geometry, info, margin_px)
    low = np.array([allowed.start for allowed in ranges])
    high = np.array([allowed.stop - 1 for allowed in ranges])
    if outside == "shift":
        if (high < low).any():
            return np.empty((0, 2), np.int64)
        origins = np.clip(origins, low, high)
    elif outside == "drop":
        origins = origins[((origins >= low) & (origins <= high)).all(axis=1)]
    else:
        raise GeometryError(f"outside={outside!r}: choose 'drop' or 'shift'.")
    return first_occurrences(origins)


def weighted_points(
    weight_map: NDArray[np.floating], map_factor: float, *, count: int, seed: int, slide_id: str
) -> Float64Array:
    """Places drawn with a probability that follows a map, e.g. texture or nuclei.

    Parameters
    ----------
    weight_map : ndarray, shape (h, w), non-negative
        Zero is never drawn.
    map_factor : float
        Level-0 pixels per map pixel.

    Returns
    -------
    ndarray, shape (count, 2), float64
        x, y in level-0 px and drawing order: what `point_candidates` takes. None of an empty map.
    """
    weights = np.asarray(weight_map, np.float64)
    if weights.ndim != 2 or not np.isfinite(weights).all() or (weights < 0).any():
        raise GeometryError("A weight map must be two-dimensional, finite and not negative.")
    cumulative = np.cumsum(weights.ravel())
    if not count or not cumulative.size or cumulative[-1] <= 0:
        return np.empty((0, 2))
    key = hash_key("weighted", seed, slide_id)
    draw = np.arange(count)
    place = np.searchsorted(
        cumulative, unit_interval(hash_draws(key, draw, 2)) * cumulative[-1], side="right"
    )
    row, column = np.divmod(np.minimum(place, weights.size - 1), weights.shape[1])
    x = (column + unit_interval(hash_draws(key, draw, 0))) * map_factor
    y = (row + unit_interval(hash_draws(key, draw, 1))) * map_factor
    return np.stack([x, y], axis=1)


def rank_keys(seed: int, slide_id: str, origins: Int64Array) -> UInt64Array:
    """A patch's place in its slide's reserve: a hash of (seed, slide id, x, y).

    The rank of a patch depends on where it lies, not on how many candidates there were.
    """
    return hash_draws(hash_key("rank", seed, slide_id), origins[:, 0], origins[:, 1])


def ranked_order(seed: int, slide_id: str, origins: Int64Array) -> Int64Array:
    """Indices that sort candidates by rank; equal hashes are ordered by y, then x."""
    keys = rank_keys(seed, slide_id, origins)
    return np.lexsort((origins[:, 0], origins[:, 1], keys)).astype(np.int64)


def boxes_of(origins: Int64Array, field_px: int) -> Int64Array:
    """Origins (n, 2) -> boxes (n, 4): x, y, width, height in level-0 px."""
    boxes = np.empty((len(origins), 4), np.int64)
    boxes[:, :2] = origins
    boxes[:, 2:] = field_px
    return boxes


def first_occurrences(origins: Int64Array) -> Int64Array:
    """Leave out repeated rows, keeping the order."""
    if not len(origins):
        return origins.reshape(0, 2).astype(np.int64)
    _, index = np.unique(origins, axis=0, return_index=True)
    return origins[np.sort(index)]


def greedy_non_overlapping(
    origins: Int64Array, field_px: int, max_overlap: float = 0.0
) -> Int64Array:
    """Indices kept when going through equal squares in order.

    Parameters
    ----------
    origins : ndarray, shape (n, 2)
        In order of preference.
    field_px : int
        Side of the squares.
    max_overlap : float
        Largest share of a square's area that may be shared with any one earlier kept square.

    Returns
    -------
    ndarray of int64
        Ascending indices.
    """
    if max_overlap >= 1.0:
        return np.arange(len(origins), dtype=np.int64)
    limit = max_overlap * field_px * field_px
    cells: dict[tuple[int, int], list[tuple[int, int]]] = {}
    kept = []
    for index, (x, y) in enumerate(origins.tolist()):
        column, row = x // field_px, y // field_px
        clash = False
        for near in ((column + i, row + j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
            for other_x, other_y in cells.get(near, ()):
                shared = max(0, field_px - abs(x - other_x)) * max(0, field_px - abs(y - other_y))
                if shared > limit:
                    clash = True
                    break
            if clash:
                break
        if not clash:
            kept.append(index)
            cells.setdefault((column, row), []).append((x, y))
    return np.asarray(kept, np.int64)


def _pick(words: UInt64Array, allowed: range) -> Int64Array:
    index = (unit_interval(words) * len(allowed)).astype(np.int64)
    return np.minimum(index, len(allowed) - 1) * allowed.step + allowed.start
