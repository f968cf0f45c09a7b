"""Where every pixel of an upscaled slide comes from: pure plans, no I/O.

The low-resolution plane has ``w x h`` px, the output ``W x H`` with ``W = round(w s)``. Output
pixel ``i`` covers ``[i w / W, (i + 1) w / W)`` of the plane, for whole and for real scales alike,
so that no tile rounds on its own. The output is made in *blocks* (a whole number of stored
tiles), a block in *cores* (what one run of the network is responsible for), and a core from a
*window* of the plane: the core's footprint, the network's halo, and then out to whole multiples of
the network's window, counted from the plane's own corner.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from wsisr.errors import ConfigError
from wsisr.geometry import Box

Float32Array = NDArray[np.float32]

TILE_PX = 512
"""Side of a stored tile."""
BLOCK_TILES = 8
"""Stored tiles along one side of a block; a power of two, so that blocks hold whole lower tiles."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Sizes of the low-resolution plane and of the output that belongs to all of it.

    Attributes
    ----------
    lr_width_px, lr_height_px : int
        The plane.
    width_px, height_px : int
        The whole plane's output.
    region : Box
        What is made of the output, output px.
    """

    lr_width_px: int
    lr_height_px: int
    width_px: int
    height_px: int
    region: Box

    @property
    def scale_x(self) -> float:
        """Output px per plane px."""
        return self.width_px / self.lr_width_px

    @property
    def scale_y(self) -> float:
        return self.height_px / self.lr_height_px


def plan_frame(
    lr_width_px: int, lr_height_px: int, scale: float, lr_region: Box | None = None
) -> Frame:
    """The output of a plane at a scale, or of a part of the plane.

    Parameters
    ----------
    lr_width_px, lr_height_px : int
    scale : float
        Output px per plane px, at least 1.
    lr_region : Box, optional
        Part of the plane, plane px; must lie inside it.

    Raises
    ------
    ConfigError
        A scale below 1 or beyond 64, or an empty region.

    Examples
    --------
    >>> plan_frame(101, 50, 2.4).width_px
    242
    """
    if not 1.0 <= scale <= 64.0:
        raise ConfigError(
            f"--scale {scale:g} is not between 1 and 64; give output px per input px."
        )
    width, height = max(1, round(lr_width_px * scale)), max(1, round(lr_height_px * scale))
    part = Box(x=0, y=0, width=width, height=height)
    if lr_region is not None:
        if (
            lr_region.width < 1
            or lr_region.height < 1
            or not Box(x=0, y=0, width=lr_width_px, height=lr_height_px).contains(lr_region)
        ):
            raise ConfigError(
                f"--region {lr_region.x},{lr_region.y},{lr_region.width},{lr_region.height} (in px "
                f"of the level that is read) is not inside its {lr_width_px} x {lr_height_px} px."
            )
        x0, x1 = (
            round(v * width / lr_width_px) for v in (lr_region.x, lr_region.x + lr_region.width)
        )
        y0, y1 = (
            round(v * height / lr_height_px) for v in (lr_region.y, lr_region.y + lr_region.height)
        )
        part = Box(x=x0, y=y0, width=x1 - x0, height=y1 - y0)
    return Frame(
        lr_width_px=lr_width_px,
        lr_height_px=lr_height_px,
        width_px=width,
        height_px=height,
        region=part,
    )


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """How a network is run over a plane.

    Attributes
    ----------
    core_px : int
        Largest side of a core, output px.
    blend_px : int
        Width of the cosine ramp between neighbouring cores, output px; 0 where nothing beyond the
        halo can change a pixel.
    halo_px : int
        Context around a core, plane px.
    multiple_px : int
        Windows start at multiples of this, plane px.
    """

    core_px: int
    blend_px: int
    halo_px: int
    multiple_px: int


@dataclass(frozen=True, kw_only=True)
class Window:
    """One run of the network.

    Attributes
    ----------
    core : Box
        Output px.
    reach : Box
        The core and the ramps to its right and below, output px.
    lr : Box
        What the network reads, plane px.
    """

    core: Box
    reach: Box
    lr: Box


def blocks_of(frame: Frame, block_px: int = TILE_PX * BLOCK_TILES) -> list[Box]:
    """Blocks of a frame row by row, in px of its region."""
    region = frame.region
    return [
        Box(
            x=x,
            y=y,
            width=min(block_px, region.width - x),
            height=min(block_px, region.height - y),
        )
        for y in range(0, region.height, block_px)
        for x in range(0, region.width, block_px)
    ]


def split_evenly(start: int, length: int, largest: int) -> list[tuple[int, int]]:
    """Cut ``[start, start + length)`` into the fewest nearly equal parts of at most `largest`.

    >>> split_evenly(0, 10, 4)
    [(0, 3), (3, 6), (6, 10)]
    """
    count = ceil(length / largest)
    edges = [start + i * length // count for i in range(count + 1)]
    return list(pairwise(edges))


def window_rows(frame: Frame, block: Box, plan: TilePlan) -> Iterator[list[Window]]:
    """The windows of a block (region px), one list for each row of cores."""
    region = frame.region
    columns = split_evenly(region.x + block.x, block.width, plan.core_px)
    for top, bottom in split_evenly(region.y + block.y, block.height, plan.core_px):
        yield [
            window_of(frame, plan, Box(x=left, y=top, width=right - left, height=bottom - top))
            for left, right in columns
        ]


def window_of(frame: Frame, plan: TilePlan, core: Box) -> Window:
    """The window that a core needs."""
    right = min(core.right + plan.blend_px, frame.region.right)
    bottom = min(core.bottom + plan.blend_px, frame.region.bottom)
    reach = Box(x=core.x, y=core.y, width=right - core.x, height=bottom - core.y)
    return Window(core=core, reach=reach, lr=lr_box(frame, reach, plan.halo_px, plan.multiple_px))


def lr_box(frame: Frame, out: Box, halo_px: int, multiple_px: int) -> Box:
    """Plane pixels under an output box, with a halo, out to whole multiples, inside the plane."""
    x0, x1 = _axis(out.x, out.right, frame.lr_width_px, frame.width_px, halo_px, multiple_px)
    y0, y1 = _axis(out.y, out.bottom, frame.lr_height_px, frame.height_px, halo_px, multiple_px)
    return Box(x=x0, y=y0, width=x1 - x0, height=y1 - y0)


def _axis(
    first: int, last: int, lr_px: int, out_px: int, halo: int, multiple: int
) -> tuple[int, int]:
    low = floor((first + 0.5) * lr_px / out_px) - halo
    high = floor((last - 0.5) * lr_px / out_px) + 1 + halo
    return (
        max(0, low // multiple * multiple),
        min(lr_px, -(-high // multiple) * multiple),
    )


def split_window(frame: Frame, plan: TilePlan, window: Window, largest_px: int) -> list[Window]:
    """The same reach in parts of at most `largest_px`, each with its own halo, without ramps."""
    reach = window.reach
    parts = []
    for top, bottom in split_evenly(reach.y, reach.height, largest_px):
        for left, right in split_evenly(reach.x, reach.width, largest_px):
            box = Box(x=left, y=top, width=right - left, height=bottom - top)
            lr = lr_box(frame, box, plan.halo_px, plan.multiple_px)
            parts.append(Window(core=box, reach=box, lr=lr))
    return parts


def ramp(length: int) -> Float32Array:
    """Weights of a core that fades in over `length` px: sin^2; fading out is one minus them."""
    position = (np.arange(length) + 0.5) / max(1, length)
    return (np.sin(position * np.pi / 2) ** 2).astype(np.float32)


def axis_weights(core: tuple[int, int], region: tuple[int, int], blend_px: int) -> Float32Array:
    """Weights of a core along one axis, from its start to the end of its reach.

    Fades in over the first `blend_px` unless it starts the region, and out over the `blend_px`
    behind it. The weights of all cores sum to one everywhere.
    """
    start, end = core
    reach = min(end + blend_px, region[1])
    weights = np.ones(reach - start, np.float32)
    if blend_px and start > region[0]:
        count = min(blend_px, len(weights))
        weights[:count] = ramp(blend_px)[:count]
    if reach > end:
        weights[end - start :] *= 1.0 - ramp(blend_px)[: reach - end]
    return weights
