"""One block: windows in, blended output px back, and never a pixel of a failed run.

Cores fade into each other over `TilePlan.blend_px`. What the last cores of a block give to the
next blocks' pixels is kept as weighted partial sums (its right and lower *edges*), so that no
window is run twice and a block's border is no different from any other. When memory runs out,
the same windows are run again in a smaller batch and then in smaller parts.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wsisr.errors import ModelError
from wsisr.geometry import Box
from wsisr.host import is_out_of_memory
from wsisr.upscaling import bicubic
from wsisr.upscaling.bicubic import Float32Array, UInt8Array
from wsisr.upscaling.engines import BicubicEngine, Engine, release_device_memory
from wsisr.upscaling.tiling import (
    Frame,
    TilePlan,
    Window,
    axis_weights,
    lr_box,
    split_window,
    window_rows,
)

log = logging.getLogger(__name__)

UInt16Array = NDArray[np.uint16]
EDGE_UNIT = 256.0
"""Partial sums of edges are kept in 1/256 grey level."""
SMALLEST_PART_PX = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class Edges:
    """Partial sums that a block hands on: to its right (full height and the corner) and below.

    `right` has shape (height + blend, blend, 3), `below` (blend, width, 3); both uint16 in
    1 / `EDGE_UNIT` grey levels. Empty where nothing follows.
    """

    right: UInt16Array
    below: UInt16Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Rendered:
    """A finished block.

    Attributes
    ----------
    pixels : ndarray, shape (height, width, 3), uint8
    edges : Edges or None
        None where cores do not blend.
    columns, rows : tuple of int
        Where cores begin inside the block (px of the block), for the seam measure.
    inferred : int
        Windows that the network ran.
    source : ndarray, shape (h, w, 3), uint8
        Plane pixels under the block, for the same.
    overlap : (float, int)
        Squared differences of neighbouring windows where both of them were inferred, grey levels
        squared, and how many values they are summed over.
    """

    pixels: UInt8Array
    edges: Edges | None
    columns: tuple[int, ...]
    rows: tuple[int, ...]
    inferred: int
    source: UInt8Array
    overlap: tuple[float, int]


@dataclass(kw_only=True)
class Renderer:
    """Runs an engine over blocks; remembers how much memory turned out to be too much.

    Attributes
    ----------
    engine : Engine
    frame : Frame
    plan : TilePlan
    batch : int
        Windows at once; halved when memory runs out.
    largest_px : int or None
        Largest side of a part, output px, since a single window did not fit.
    on_shrink : callable
        Told in a sentence when that happens.
    ahead : bool
        Infer the next row of windows while one is blended, so that a GPU need not wait for that.
    """

    engine: Engine
    frame: Frame
    plan: TilePlan
    batch: int = 1
    largest_px: int | None = None
    on_shrink: Callable[[str], None] = field(default=log.warning)
    ahead: bool = False

    def source_box(self, block: Box) -> Box:
        """Plane pixels that a block (region px) needs, blending included."""
        blend = self.plan.blend_px
        region = self.frame.region
        out = Box(
            x=region.x + block.x,
            y=region.y + block.y,
            width=min(block.width + blend, region.width - block.x),
            height=min(block.height + blend, region.height - block.y),
        )
        halo = max(self.plan.halo_px, bicubic.HALO_PX)
        return lr_box(self.frame, out, halo, self.plan.multiple_px)

    def render(
        self,
        block: Box,
        lr: UInt8Array,
        box: Box,
        wanted: Callable[[Box], bool],
        left: UInt16Array | None = None,
        above: UInt16Array | None = None,
    ) -> Rendered:
        """All pixels of a block.

        Parameters
        ----------
        block : Box
            Region px.
        lr : ndarray
            Plane pixels of `box`, which contains `source_box(block)`.
        box : Box
        wanted : callable
            Of a core (output px): whether the network is to see it; otherwise bicubic.
        left, above : ndarray, optional
            Edges handed on by the neighbours.
        """
        region, blend = self.frame.region, self.plan.blend_px
        x0, y0 = region.x + block.x, region.y + block.y
        wide = min(block.width + blend, region.width - block.x)
        pixels = np.empty((block.height, block.width, 3), np.uint8)
        right_sums = np.zeros((block.height + blend, wide - block.width, 3), np.float32)
        carry = np.zeros((blend, wide, 3), np.float32)
        if above is not None:
            carry[: above.shape[0], : block.width] += above / np.float32(EDGE_UNIT)
        columns: tuple[int, ...] = ()
        rows: list[int] = []
        inferred = 0
        overlap = _Overlap(blend)
        for windows, rendered in self._inferred(block, lr, box, wanted):
            columns = tuple(w.core.x - x0 for w in windows)
            top, bottom = windows[0].core.y - y0, windows[0].core.bottom - y0
            rows.append(top)
            if not isinstance(self.engine, BicubicEngine):
                inferred += len(rendered)
            overlap.add(windows, rendered)
            sums = np.zeros((bottom - top + blend, wide, 3), np.float32) if blend else None
            if sums is not None:
                sums[:blend] += carry
            for window in windows:
                part = rendered.get(window.core.x)
                if part is None:
                    part = self._bicubic(window, lr, box)
                across = slice(window.reach.x - x0, window.reach.right - x0)
                if sums is None:
                    plain = part.strides[:2] == (0, 0)  # one colour, see `_bicubic`
                    pixels[top:bottom, across] = bicubic.to_grey(part[:1] if plain else part)
                    continue
                core = window.core
                wx = axis_weights((core.x, core.right), (region.x, region.right), blend)
                wy = axis_weights((core.y, core.bottom), (region.y, region.bottom), blend)
                sums[: len(wy), across] += part * wy[:, None, None] * wx[None, :, None]
            if sums is None:
                continue
            if left is not None:
                sums[: bottom - top, : left.shape[1]] += left[top:bottom] / np.float32(EDGE_UNIT)
            pixels[top:bottom] = bicubic.to_grey(sums[: bottom - top, : block.width])
            right_sums[top:bottom] = sums[: bottom - top, block.width :]
            carry = sums[bottom - top :]
        edges = None
        if blend:
            if left is not None:
                carry[:, : left.shape[1]] += left[block.height :] / np.float32(EDGE_UNIT)
            right_sums[block.height :] = carry[:, block.width :]
            last = block.y + block.height == region.height
            edges = Edges(
                right=_fixed(right_sums),
                below=_fixed(carry[: 0 if last else blend, : block.width]),
            )
        under = Box(x=x0, y=y0, width=block.width, height=block.height)
        return Rendered(
            pixels=pixels,
            edges=edges,
            columns=columns,
            rows=tuple(rows),
            inferred=inferred,
            source=_crop(lr, box, lr_box(self.frame, under, 0, 1)),
            overlap=(overlap.squares, overlap.count),
        )

    def _inferred(
        self, block: Box, lr: UInt8Array, box: Box, wanted: Callable[[Box], bool]
    ) -> Iterator[tuple[list[Window], dict[int, Float32Array]]]:
        """Rows of windows, and by where their cores begin (x) what the engine made of them."""
        rows = list(window_rows(self.frame, block, self.plan))

        def run(windows: list[Window]) -> dict[int, Float32Array]:
            net = [w for w in windows if wanted(w.core)]
            return dict(zip((w.core.x for w in net), self._run(net, lr, box), strict=True))

        if not self.ahead:
            for windows in rows:
                yield windows, run(windows)
            return
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="infer") as worker:
            following = worker.submit(run, rows[0])
            for number, windows in enumerate(rows, 1):
                rendered = following.result()
                if number < len(rows):
                    following = worker.submit(run, rows[number])
                yield windows, rendered

    def _bicubic(self, window: Window, lr: UInt8Array, box: Box) -> Float32Array:
        need = lr_box(self.frame, window.reach, bicubic.HALO_PX, 1)
        part = _crop(lr, box, need)
        if bicubic.one_colour(part):
            shape = (window.reach.height, window.reach.width, 3)
            return np.broadcast_to(part[0, 0].astype(np.float32), shape)
        return bicubic.enlarge(part, need, self.frame, window.reach)

    def _run(self, windows: Sequence[Window], lr: UInt8Array, box: Box) -> list[Float32Array]:
        """The engine on windows of any shapes, in batches of equal ones; order is kept."""
        if isinstance(self.engine, BicubicEngine):
            return [self._bicubic(w, lr, box) for w in windows]
        results: dict[int, Float32Array] = {}
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, w in enumerate(windows):
            key = (w.lr.width, w.lr.height, w.reach.width, w.reach.height)
            groups.setdefault(key, []).append(i)
        for indices in groups.values():
            while indices:
                if self.largest_px is not None:
                    results[indices[0]] = self._in_parts(windows[indices[0]], lr, box)
                    indices = indices[1:]
                    continue
                now = indices[: self.batch]
                try:
                    given = [_crop(lr, box, windows[i].lr) for i in now]
                    parts = self.engine.render(self.frame, [windows[i] for i in now], given)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    self._shrink(windows[now[0]], error)
                    continue
                results.update(zip(now, parts, strict=True))
                indices = indices[len(now) :]
        return [results[i] for i in range(len(windows))]

    def _shrink(self, window: Window, error: BaseException) -> None:
        release_device_memory(error)
        if self.batch > 1:
            self.batch //= 2
            self.on_shrink(f"Memory ran out: going on with {self.batch} tile(s) at once.")
            return
        side = self.largest_px or max(window.reach.width, window.reach.height)
        self.largest_px = -(-side // 2)
        if self.largest_px < SMALLEST_PART_PX:
            raise ModelError(
                "Memory runs out even for the smallest tile; close other programs that use it, "
                "or run with --device cpu."
            ) from error
        self.on_shrink(f"Memory ran out: going on with tiles of {self.largest_px} output px.")

    def _in_parts(self, window: Window, lr: UInt8Array, box: Box) -> Float32Array:
        out = np.empty((window.reach.height, window.reach.width, 3), np.float32)
        while True:
            assert self.largest_px is not None
            try:
                for part in split_window(self.frame, self.plan, window, self.largest_px):
                    pixels = self.engine.render(self.frame, [part], [_crop(lr, box, part.lr)])[0]
                    y, x = part.reach.y - window.reach.y, part.reach.x - window.reach.x
                    out[y : y + part.reach.height, x : x + part.reach.width] = pixels
                return out
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._shrink(window, error)


@dataclass
class _Overlap:
    """How far windows differ where they overlap: the seam that blending has to hide."""

    blend_px: int
    squares: float = 0.0
    count: int = 0
    _above: dict[int, Float32Array] = field(default_factory=dict)

    def add(self, windows: Sequence[Window], rendered: dict[int, Float32Array]) -> None:
        """Compare a row's windows with each other and with those of the row above."""
        if not self.blend_px:
            return
        below: dict[int, Float32Array] = {}
        left: Float32Array | None = None
        for window in windows:
            part = rendered.get(window.core.x)
            if part is None:
                left = None
                continue
            if left is not None:
                self._compare(left, part[:, : left.shape[1]])
            above = self._above.get(window.core.x)
            if above is not None:
                self._compare(above, part[: above.shape[0]])
            # Copies: views would keep whole windows.
            left = part[:, window.core.width :].copy()
            below[window.core.x] = part[window.core.height :].copy()
        self._above = below

    def _compare(self, a: Float32Array, b: Float32Array) -> None:
        height, width = min(a.shape[0], b.shape[0]), min(a.shape[1], b.shape[1])
        difference = a[:height, :width] - b[:height, :width]
        self.squares += float(np.square(difference).sum(dtype=np.float64))
        self.count += difference.size


def _crop(lr: UInt8Array, box: Box, part: Box) -> UInt8Array:
    y, x = part.y - box.y, part.x - box.x
    return lr[y : y + part.height, x : x + part.width]


def _fixed(sums: Float32Array) -> UInt16Array:
    return np.clip(np.rint(sums * np.float32(EDGE_UNIT)), 0, 65535).astype(np.uint16)
