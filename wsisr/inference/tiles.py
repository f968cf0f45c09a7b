"""Where every output pixel comes from: pure plans, no I/O, the same for every user.

The low-resolution plane has ``w x h`` px, the output ``W x H`` with ``W = round(w s)``. Output
pixel ``i`` covers ``[i w / W, (i + 1) w / W)`` of the plane, for whole and for real scales alike,
so that no tile rounds on its own. The output is cut into *cores* (what one run of the network is
responsible for) by a grid that begins at the plane's corner, and a core is rendered from a
*window* of the plane: the core's footprint, the network's halo, and then out to whole multiples of
the network's window, counted from the plane's own corner. So the pixels of a core depend on the
model, the scale and the plane, and on nothing else: neither on what is made of the output (a
region, a block at a time) nor on how much memory is free.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, log2

import numpy as np

from wsisr.arrays import Float32Array
from wsisr.errors import ConfigError
from wsisr.geometry import Box

TILE_PX = 512
"""Side of a stored tile."""
BLOCK_TILES = 8
"""Stored tiles along one side of a block; a power of two, so that blocks hold whole lower tiles."""
BLOCK_PX = TILE_PX * BLOCK_TILES
BLEND_SHARE = 0.25
"""Ramp between cores as a share of the halo, where the halo is only a recommendation."""
FADE_PX = 8
"""Ramp where the halo is exact, plane px: cores agree there, but fade into bicubic background."""
SMALLEST_CORE_PX = 16


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
        plane = Box(x=0, y=0, width=lr_width_px, height=lr_height_px)
        if min(lr_region.width, lr_region.height) < 1 or not plane.contains(lr_region):
            raise ConfigError(
                f"--region {lr_region} (in px of the level that is read) is not inside its "
                f"{lr_width_px} x {lr_height_px} px."
            )
        x0, x1 = (round(v * width / lr_width_px) for v in (lr_region.x, lr_region.right))
        y0, y1 = (round(v * height / lr_height_px) for v in (lr_region.y, lr_region.bottom))
        part = Box.between(x0, y0, x1, y1)
    return Frame(
        lr_width_px=lr_width_px,
        lr_height_px=lr_height_px,
        width_px=width,
        height_px=height,
        region=part,
    )


@dataclass(frozen=True, kw_only=True)
class TilingNeeds:
    """What a model asks of the tiling; the first four are those of `wsisr.models.ModelInfo`.

    `seamless` models give the same pixels for any tiling: nothing has to fade.
    """

    halo_px: int
    halo_exact: bool
    tile_px: int
    multiple_px: int
    seamless: bool = False


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How a network is run over a plane.

    Attributes
    ----------
    core_px : int
        Side of a core, output px.
    blend_px : int
        Width of the sin^2 ramp between neighbouring cores, output px.
    halo_px : int
        Context around a core, plane px.
    multiple_px : int
        Windows start at multiples of this, plane px.
    exact : bool
        Nothing beyond the halo changes a pixel, so that of a core which a block or region cuts
        only that part's window is read.
    """

    core_px: int
    blend_px: int
    halo_px: int
    multiple_px: int
    exact: bool = False

    def __str__(self) -> str:
        if self == WHOLE:
            return "whole images"
        return (
            f"cores of {self.core_px} output px, ramps of {self.blend_px}, "
            f"halo of {self.halo_px} LR px"
        )


WHOLE = Tiling(core_px=1 << 30, blend_px=0, halo_px=0, multiple_px=1)
"""One window, whatever the size: how papers evaluate."""


def plan_tiles(
    needs: TilingNeeds, scale: float, tile_px: int | None = None, halo_px: int | None = None
) -> Tiling:
    """The tiling of a model at a scale.

    Parameters
    ----------
    tile_px : int, optional
        Side of a core in plane px; None takes the power of two of output px that is nearest to the
        model's recommendation, so that cores fill stored tiles.
    halo_px : int, optional
        Context around a core in plane px; None takes the model's recommendation.

    Raises
    ------
    ConfigError
        If `tile_px` is too small to be useful, or the halo is negative.
    """
    least = max(8, needs.multiple_px)
    if tile_px is not None and tile_px < least:
        raise ConfigError(
            f"--tile {tile_px} is too small; this model needs at least {least} input px."
        )
    if halo_px is not None and halo_px < 0:
        raise ConfigError(f"--halo {halo_px} is negative; give input px, or leave it out.")
    halo = needs.halo_px if halo_px is None else halo_px
    own = 2.0 ** round(log2(needs.tile_px * scale))
    core = round(own if tile_px is None else tile_px * scale)
    core = min(max(core, SMALLEST_CORE_PX), BLOCK_PX)
    exact = needs.halo_exact and halo >= needs.halo_px
    ramp = FADE_PX if exact else max(2.0, BLEND_SHARE * halo)
    return Tiling(
        core_px=core,
        blend_px=0 if needs.seamless else min(round(ramp * scale), core // 2),
        halo_px=halo,
        multiple_px=needs.multiple_px,
        exact=exact,
    )


@dataclass(frozen=True, kw_only=True)
class Span:
    """A core along one axis, output px: ``[start, stop)``, of which ``[first, last)`` is made."""

    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class NetworkWindow:
    """One run of the network.

    Attributes
    ----------
    across, down : Span
        The core, and what of it lies in the block.
    reach : Box
        That and the ramps to its right and below, output px.
    lr : Box
        What the network reads, plane px.
    """

    across: Span
    down: Span
    reach: Box
    lr: Box

    @property
    def core(self) -> Box:
        """The whole core, output px."""
        across, down = self.across, self.down
        return Box.between(across.start, down.start, across.stop, down.stop)


def blocks_of(frame: Frame, block_px: int = BLOCK_PX) -> list[Box]:
    """Blocks of a frame row by row, in px of its region."""
    return frame.region.relative_to(frame.region).blocks(block_px)


def split_evenly(start: int, length: int, largest: int) -> list[tuple[int, int]]:
    """Cut ``[start, start + length)`` into the fewest nearly equal parts of at most `largest`.

    >>> split_evenly(0, 10, 4)
    [(0, 3), (3, 6), (6, 10)]
    """
    count = ceil(length / largest)
    edges = [start + i * length // count for i in range(count + 1)]
    return list(pairwise(edges))


def spans(length: int, region: tuple[int, int], block: tuple[int, int], plan: Tiling) -> list[Span]:
    """The cores of an axis of `length` px that a block of a region needs.

    Where a region begins inside a core's ramp, the core before is needed for what it fades out.
    """
    core, (first, last) = plan.core_px, block
    found = []
    number = first // core
    if first == region[0] and number and first - number * core < plan.blend_px:
        start = (number - 1) * core
        found.append(Span(start=start, stop=start + core, first=first, last=first))
    while number * core < last:
        start, stop = number * core, min((number + 1) * core, length)
        found.append(Span(start=start, stop=stop, first=max(start, first), last=min(stop, last)))
        number += 1
    return found


def window_rows(frame: Frame, block: Box, plan: Tiling) -> Iterator[list[NetworkWindow]]:
    """The windows of a block (region px), one list for each row of cores."""
    region = frame.region
    made = block.moved(region.x, region.y)
    wide, high = (region.x, region.right), (region.y, region.bottom)
    columns = spans(frame.width_px, wide, (made.x, made.right), plan)
    for down in spans(frame.height_px, high, (made.y, made.bottom), plan):
        yield [window_of(frame, plan, across, down) for across in columns]


def window_of(frame: Frame, plan: Tiling, across: Span, down: Span) -> NetworkWindow:
    """The window of a core."""
    region = frame.region
    x1, y1 = (
        min(span.stop + plan.blend_px, end) if span.last >= span.stop else span.last
        for span, end in ((across, region.right), (down, region.bottom))
    )
    reach = Box.between(across.first, down.first, x1, y1)
    seen = reach
    if not plan.exact:
        x1 = min(across.stop + plan.blend_px, frame.width_px)
        y1 = min(down.stop + plan.blend_px, frame.height_px)
        seen = Box.between(across.start, down.start, x1, y1)
    lr = lr_box(frame, seen, plan.halo_px, plan.multiple_px)
    return NetworkWindow(across=across, down=down, reach=reach, lr=lr)


def lr_box(frame: Frame, out: Box, halo_px: int, multiple_px: int) -> Box:
    """Plane pixels under an output box, with a halo, out to whole multiples, inside the plane."""
    x0, x1 = _axis(out.x, out.right, frame.lr_width_px, frame.width_px, halo_px, multiple_px)
    y0, y1 = _axis(out.y, out.bottom, frame.lr_height_px, frame.height_px, halo_px, multiple_px)
    return Box.between(x0, y0, x1, y1)


def _axis(
    first: int, last: int, lr_px: int, out_px: int, halo: int, multiple: int
) -> tuple[int, int]:
    low = floor((first + 0.5) * lr_px / out_px) - halo
    high = floor((last - 0.5) * lr_px / out_px) + 1 + halo
    return (
        max(0, low // multiple * multiple),
        min(lr_px, -(-high // multiple) * multiple),
    )


def split_window(
    frame: Frame, plan: Tiling, window: NetworkWindow, largest_px: int
) -> list[NetworkWindow]:
    """The same reach in parts of at most `largest_px`, each with its own halo, without ramps."""
    reach = window.reach
    parts = []
    for top, bottom in split_evenly(reach.y, reach.height, largest_px):
        for left, right in split_evenly(reach.x, reach.width, largest_px):
            box = Box.between(left, top, right, bottom)
            lr = lr_box(frame, box, plan.halo_px, plan.multiple_px)
            parts.append(NetworkWindow(across=window.across, down=window.down, reach=box, lr=lr))
    return parts


def ramp(length: int) -> Float32Array:
    """Weights of a core that fades in over `length` px: sin^2; fading out is one minus them."""
    position = (np.arange(length) + 0.5) / max(1, length)
    return (np.sin(position * np.pi / 2) ** 2).astype(np.float32)


def axis_weights(span: Span, reach: tuple[int, int], blend_px: int) -> Float32Array:
    """Weights of a core along one axis over its reach.

    It fades in over its first `blend_px` unless it starts the plane, and out over the `blend_px`
    behind it. The weights of all cores sum to one everywhere.
    """
    place = np.arange(*reach)
    weights = np.ones(len(place), np.float32)
    if not blend_px:
        return weights
    fade = ramp(blend_px)
    rising = place - span.start
    if span.start:
        inside = rising < blend_px
        weights[inside] = fade[rising[inside]]
    beyond = place >= span.stop
    weights[beyond] *= 1.0 - fade[place[beyond] - span.stop]
    return weights
