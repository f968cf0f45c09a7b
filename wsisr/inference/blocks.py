"""One block: windows in, blended output px back, and never a pixel of a failed run.

Cores fade into each other over `Tiling.blend_px`. What the last cores of a block give to the
next blocks' pixels is kept as weighted partial sums (its right and lower *edges*), so that no
window is run twice and a block's border is no different from any other. When memory runs out,
the same windows are run again in a smaller batch and then in smaller parts.

Arrays of planes may have leading axes: several planes of one frame, whose windows share batches.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from wsisr.arrays import AnyArray, Float32Array, UInt8Array, UInt16Array
from wsisr.errors import MemoryLimitError, OutputError
from wsisr.geometry import Box
from wsisr.host import is_out_of_memory
from wsisr.inference import bicubic
from wsisr.inference.engine import BicubicEngine, Capacity, Engine, WindowBatch
from wsisr.inference.network import release
from wsisr.inference.tiles import (
    Frame,
    NetworkWindow,
    Tiling,
    axis_weights,
    lr_box,
    split_window,
    window_rows,
)

log = logging.getLogger(__name__)

EDGE_UNIT = 256.0
"""Partial sums of edges are kept in 1/256 grey level."""
SMALLEST_PART_PX = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanePixels:
    """What a block is made from.

    Attributes
    ----------
    lr : ndarray, shape (..., h, w, 3), uint8
        Plane pixels of `box`.
    finer : ndarray, shape (..., 2h, 2w, 3), uint8, or None
        References, for a model that takes one.
    """

    lr: UInt8Array
    box: Box
    finer: UInt8Array | None = None

    @property
    def planes(self) -> int:
        return int(np.prod(self.lr.shape[:-3]))

    def crop(self, part: Box) -> UInt8Array:
        """A part of all planes."""
        return _crop(self.lr, self.box, part)

    def one(self, plane: int, part: Box, *, finer: bool = False) -> UInt8Array:
        """A part of one of the planes, or of its reference."""
        if not finer:
            return _crop(self.lr.reshape(-1, *self.lr.shape[-3:])[plane], self.box, part)
        assert self.finer is not None
        images = self.finer.reshape(-1, *self.finer.shape[-3:])
        return _crop(images[plane], _twice(self.box), _twice(part))


@dataclass(frozen=True, kw_only=True, eq=False)
class Edges:
    """Partial sums that a block hands on: to its right (full height and the corner) and below.

    `right` has shape (..., height + blend, blend, 3), `below` (..., blend, width, 3); both uint16
    in 1 / `EDGE_UNIT` grey levels. Empty where nothing follows.
    """

    right: UInt16Array
    below: UInt16Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Rendered:
    """A finished block.

    Attributes
    ----------
    pixels : ndarray, shape (..., height, width, 3)
        Grey levels: uint8, or float32 as they were before they were rounded.
    edges : Edges or None
        None where cores do not blend.
    columns, rows : tuple of int
        Where cores begin inside the block (px of the block), for the seam measure.
    inferred : int
        Windows that the network ran.
    source : ndarray, shape (..., h, w, 3), uint8
        Plane pixels under the block, for the same.
    overlap : (float, int)
        Squared differences of neighbouring windows where both of them were inferred, grey levels
        squared, and how many values they are summed over.
    shrunk : bool
        Memory ran out for a window, so that it was run in parts: pixels may differ from those that
        other machines give.
    """

    pixels: AnyArray
    edges: Edges | None
    columns: tuple[int, ...]
    rows: tuple[int, ...]
    inferred: int
    source: UInt8Array
    overlap: tuple[float, int]
    shrunk: bool


@dataclass(kw_only=True)
class Renderer:
    """Runs an engine over blocks.

    Attributes
    ----------
    capacity : Capacity
        How much runs at once; corrected when memory runs out, and shared by renderers that are to
        learn from one another.
    rounded : bool
        Give pixels as uint8, else as float32.
    on_shrink : callable
        Told in a sentence when memory runs out.
    ahead : bool
        Infer the next row of windows while one is blended, so that a GPU need not wait for that.
    """

    engine: Engine
    frame: Frame
    plan: Tiling
    capacity: Capacity = field(default_factory=Capacity)
    rounded: bool = True
    on_shrink: Callable[[str], None] = field(default=log.warning)
    ahead: bool = False

    def source_box(self, block: Box) -> Box:
        """Plane pixels that a block (region px) needs, blending included."""
        rows = list(window_rows(self.frame, block, self.plan))
        first, last = rows[0][0], rows[-1][-1]
        boxes = [lr_box(self.frame, w.reach, bicubic.HALO_PX, 1) for w in (first, last)]
        boxes += [first.lr, last.lr]
        return Box.between(
            min(box.x for box in boxes),
            min(box.y for box in boxes),
            max(box.right for box in boxes),
            max(box.bottom for box in boxes),
        )

    def render(
        self,
        block: Box,
        source: PlanePixels,
        wanted: Callable[[Box], bool] = lambda core: True,
        *,
        left: UInt16Array | None = None,
        above: UInt16Array | None = None,
    ) -> Rendered:
        """All pixels of a block.

        Parameters
        ----------
        block : Box
            Region px.
        source : PlanePixels
            Of a box that contains `source_box(block)`.
        wanted : callable
            Of a core (output px): whether the network is to see it; otherwise bicubic.
        left, above : ndarray, optional
            Edges handed on by the neighbours.
        """
        region = self.frame.region
        window_grid = list(window_rows(self.frame, block, self.plan))
        # A core that makes the whole region has nothing to fade into.
        alone = len(window_grid) == len(window_grid[0]) == 1 and (
            (block.width, block.height) == (region.width, region.height)
        )
        blend = 0 if alone else self.plan.blend_px
        x0, y0 = region.x + block.x, region.y + block.y
        wide = min(block.width + blend, region.width - block.x)
        lead = source.lr.shape[:-3]
        dtype: Any = np.uint8 if self.rounded else np.float32
        pixels = np.empty((*lead, block.height, block.width, 3), dtype)
        right_sums = np.zeros((*lead, block.height + blend, wide - block.width, 3), np.float32)
        carry = np.zeros((*lead, blend, wide, 3), np.float32)
        if above is not None:
            carry[..., : above.shape[-3], : block.width, :] += _sums(above)
        columns: tuple[int, ...] = ()
        rows: list[int] = []
        inferred = 0
        overlap = _Overlap(blend)
        for windows, rendered in self._inferred(window_grid, source, wanted):
            columns = tuple(w.across.first - x0 for w in windows)
            top, bottom = windows[0].down.first - y0, windows[0].down.last - y0
            rows.append(top)
            if not isinstance(self.engine, BicubicEngine):
                inferred += len(rendered)
            overlap.add(windows, rendered)
            if not blend:
                for window in windows:
                    part = self._part(window, rendered, source)
                    across = slice(window.reach.x - x0, window.reach.right - x0)
                    pixels[..., top:bottom, across, :] = self._finished(part)
                continue
            sums = np.zeros((*lead, bottom - top + blend, wide, 3), np.float32)
            sums[..., :blend, :, :] += carry
            for window in windows:
                part = self._part(window, rendered, source)
                across = slice(window.reach.x - x0, window.reach.right - x0)
                wx = axis_weights(window.across, (window.reach.x, window.reach.right), blend)
                wy = axis_weights(window.down, (window.reach.y, window.reach.bottom), blend)
                sums[..., : len(wy), across, :] += part * wy[:, None, None] * wx[None, :, None]
            if left is not None:
                sums[..., : bottom - top, : left.shape[-2], :] += _sums(left[..., top:bottom, :, :])
            done = sums[..., : bottom - top, : block.width, :]
            pixels[..., top:bottom, :, :] = self._finished(done)
            right_sums[..., top:bottom, :, :] = sums[..., : bottom - top, block.width :, :]
            carry = sums[..., bottom - top :, :, :]
        edges = None
        if blend:
            if left is not None:
                carry[..., : left.shape[-2], :] += _sums(left[..., block.height :, :, :])
            right_sums[..., block.height :, :, :] = carry[..., block.width :, :]
            last = block.y + block.height == region.height
            edges = Edges(
                right=_fixed(right_sums),
                below=_fixed(carry[..., : 0 if last else blend, : block.width, :]),
            )
        return Rendered(
            pixels=pixels,
            edges=edges,
            columns=columns,
            rows=tuple(rows),
            inferred=inferred,
            source=source.crop(lr_box(self.frame, block.moved(region.x, region.y), 0, 1)),
            overlap=(overlap.squares, overlap.count),
            shrunk=self.capacity.shrunk,
        )

    def _finished(self, values: Float32Array) -> AnyArray:
        """What is stored of grey levels. Only bicubic's leave [0, 255]."""
        if not self.rounded:
            return np.clip(values, 0.0, 255.0)
        plain = values.strides[-3:-1] == (0, 0)  # one colour, see `_bicubic`
        return bicubic.to_grey(values[..., :1, :, :] if plain else values)

    def _part(
        self, window: NetworkWindow, rendered: dict[int, Float32Array], source: PlanePixels
    ) -> Float32Array:
        part = rendered.get(window.across.start)
        return self._bicubic(window, source) if part is None else part

    def _inferred(
        self, rows: list[list[NetworkWindow]], source: PlanePixels, wanted: Callable[[Box], bool]
    ) -> Iterator[tuple[list[NetworkWindow], dict[int, Float32Array]]]:
        """Rows of windows, and by where their cores start (x) what the engine made of them."""

        def run(windows: list[NetworkWindow]) -> dict[int, Float32Array]:
            net = [w for w in windows if wanted(w.core)]
            return dict(zip((w.across.start for w in net), self._run(net, source), strict=True))

        if not self.ahead or len(rows) == 1:
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

    def _bicubic(self, window: NetworkWindow, source: PlanePixels) -> Float32Array:
        need = lr_box(self.frame, window.reach, bicubic.HALO_PX, 1)
        part = source.crop(need)
        if part.ndim == 3 and bicubic.one_colour(part):
            shape = (window.reach.height, window.reach.width, 3)
            return np.broadcast_to(part[0, 0].astype(np.float32), shape)
        return bicubic.enlarge(part, need, self.frame, window.reach)

    def _run(self, windows: Sequence[NetworkWindow], source: PlanePixels) -> list[Float32Array]:
        """The engine on windows of any shapes, in batches of equal ones; order is kept."""
        if isinstance(self.engine, BicubicEngine):
            return [self._bicubic(w, source) for w in windows]
        planes = source.planes
        tasks = [(w, plane) for w in windows for plane in range(planes)]
        results: dict[int, Float32Array] = {}
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, (w, _) in enumerate(tasks):
            key = (w.lr.width, w.lr.height, w.reach.width, w.reach.height)
            groups.setdefault(key, []).append(i)
        for indices in groups.values():
            while indices:
                now = indices[: self.capacity.batch]
                largest = self.capacity.largest_px
                try:
                    if largest is None:
                        made = self._render([tasks[i] for i in now], source)
                    else:
                        now = now[:1]
                        made = [self._in_parts(*tasks[now[0]], source, largest)]
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    self._shrink(tasks[now[0]][0], error)
                    continue
                results.update(zip(now, made, strict=True))
                indices = indices[len(now) :]
        parts = [results[i] for i in range(len(tasks))]
        if source.lr.ndim == 3:
            return parts
        return [
            np.stack(parts[i : i + planes]).reshape(*source.lr.shape[:-3], *parts[i].shape)
            for i in range(0, len(parts), planes)
        ]

    def _render(
        self, tasks: Sequence[tuple[NetworkWindow, int]], source: PlanePixels
    ) -> list[Float32Array]:
        """Windows of one shape at once."""
        lr = [source.one(plane, w.lr) for w, plane in tasks]
        finer = None
        if source.finer is not None:
            finer = [source.one(plane, w.lr, finer=True) for w, plane in tasks]
        windows = [w for w, _ in tasks]
        try:
            return self.engine.render(
                WindowBatch(frame=self.frame, windows=windows, lr=lr, finer=finer)
            )
        except OutputError as error:
            error.item = tasks[error.item][1]
            raise

    def _shrink(self, window: NetworkWindow, error: BaseException) -> None:
        release(error)
        capacity = self.capacity
        if capacity.batch > 1:
            capacity.batch //= 2
            self.on_shrink(f"Memory ran out: going on with {capacity.batch} tile(s) at once.")
            return
        side = capacity.largest_px or max(window.reach.width, window.reach.height)
        capacity.largest_px = -(-side // 2)
        if capacity.largest_px < SMALLEST_PART_PX:
            raise MemoryLimitError(
                "Memory runs out even for the smallest tile; close other programs that use it, "
                "or run with --device cpu."
            ) from error
        self.on_shrink(f"Memory ran out: going on with tiles of {capacity.largest_px} output px.")

    def _in_parts(
        self, window: NetworkWindow, plane: int, source: PlanePixels, largest_px: int
    ) -> Float32Array:
        out = np.empty((window.reach.height, window.reach.width, 3), np.float32)
        # Whole images have no halo; their parts need one.
        needs = self.engine.needs
        halo, multiple = (max(self.plan.halo_px, needs.halo_px), needs.multiple_px)
        plan = replace(self.plan, halo_px=halo, multiple_px=multiple)
        for part in split_window(self.frame, plan, window, largest_px):
            place = part.reach.relative_to(window.reach).slices
            out[place] = self._render([(part, plane)], source)[0]
        return out


@dataclass
class _Overlap:
    """How far windows differ where they overlap: the seam that blending has to hide."""

    blend_px: int
    squares: float = 0.0
    count: int = 0
    _above: list[tuple[Box, Float32Array]] = field(default_factory=list)

    def add(self, windows: Sequence[NetworkWindow], rendered: dict[int, Float32Array]) -> None:
        """Compare a row's windows with each other and with those of the row above."""
        if not self.blend_px:
            return
        row = [(w.reach, rendered[w.across.start]) for w in windows if w.across.start in rendered]
        for before, after in pairwise(row):
            self._compare(before, after)
        for above in self._above:
            for below in row:
                if above[0].x == below[0].x:
                    self._compare(above, below)
        # Copies of the ramps alone: views would keep whole windows.
        stop = windows[0].down.last
        self._above = [
            (
                Box.between(reach.x, stop, reach.right, reach.bottom),
                part[..., stop - reach.y :, :, :].copy(),
            )
            for reach, part in row
        ]

    def _compare(self, a: tuple[Box, Float32Array], b: tuple[Box, Float32Array]) -> None:
        both = a[0].within(b[0])
        if both.width < 1 or both.height < 1:
            return
        difference = _crop(a[1], a[0], both) - _crop(b[1], b[0], both)
        self.squares += float(np.square(difference).sum(dtype=np.float64))
        self.count += difference.size


def _crop(pixels: AnyArray, box: Box, part: Box) -> AnyArray:
    return pixels[..., *part.relative_to(box).slices, :]


def _twice(box: Box) -> Box:
    return Box(x=2 * box.x, y=2 * box.y, width=2 * box.width, height=2 * box.height)


def _fixed(sums: Float32Array) -> UInt16Array:
    return np.clip(np.rint(sums * np.float32(EDGE_UNIT)), 0, 65535).astype(np.uint16)


def _sums(edge: UInt16Array) -> Float32Array:
    """Back from `_fixed`."""
    grey: Float32Array = np.divide(edge, EDGE_UNIT, dtype=np.float32)
    return grey
