"""Read many patches so that each stored tile is decoded once, in bounded memory.

*Plan*: patches are put in bands of rows, left to right inside a band, and for every tile it is
written down which patches need it, over all layers. *Read*: a tile is decoded when it is first
needed, kept until its last patch is cut, and dropped. Only if more live tiles than the budget
allows are waiting is one dropped early, the one that is needed latest; it is decoded again then.
The pixels are those of `read_layer`, whatever the order, the budget and the number of threads.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np

from wsisr.arrays import Int64Array, UInt8Array
from wsisr.errors import GeometryError
from wsisr.geometry import Layer, PatchGeometry
from wsisr.slides.protocol import Slide
from wsisr.slides.reading import source_origin_px, source_size_px
from wsisr.slides.resample import resample_box, source_span
from wsisr.slides.streams import LevelStreams, Window
from wsisr.slides.tiles import DAMAGED, Tile, TiledSlide, TileGrid, assemble_pixels, overlap

SEGMENT_PATCHES = 8192
"""Patches planned at a time, so that the plan's memory is bounded as well."""
BAND_PX = 2048
"""Least height of a band, level-0 pixels."""
BLOCK_PX = 1024
"""Side of the blocks read from slides that are no `TiledSlide`."""

TileKey = tuple[int, int, int]
Part = tuple[int, int, Tile]
"""Row and column of a tile in its level, and the tile."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """One layer of one patch: the region of its level, and what is made of it.

    `box` is (x, y, width, height) of the pixels to assemble; `field` is the part that must have
    been scanned; `start` is None for stored pixels, else the corner to resample from.
    """

    layer: Layer
    box: tuple[int, int, int, int]
    field: tuple[int, int, int, int]
    start: tuple[int, int] | None


def plan_cuts(
    geometry: PatchGeometry, sizes: Sequence[tuple[int, int]], x0: int, y0: int
) -> tuple[Cut, ...]:
    """The regions that one patch needs; `sizes` are the (width, height) of the slide's levels."""
    cuts = []
    for layer in geometry.layers:
        x, y = source_origin_px(geometry, layer, x0, y0)
        side = source_size_px(layer)
        field = (x, y, side, side)
        if layer.native:
            cuts.append(Cut(layer=layer, box=field, field=field, start=None))
            continue
        width, height = sizes[layer.level]
        left, right = source_span(float(x), layer.reduction, layer.read_size_px, width)
        top, bottom = source_span(float(y), layer.reduction, layer.read_size_px, height)
        box = (left, top, right - left, bottom - top)
        cuts.append(Cut(layer=layer, box=box, field=field, start=(x, y)))
    return tuple(cuts)


def reading_order(origins: Int64Array, band_px: int) -> Int64Array:
    """Order of patches that keeps few tiles alive: by band of rows, then column, then row."""
    return np.lexsort((origins[:, 1], origins[:, 0], origins[:, 1] // band_px)).astype(np.int64)


def iter_patches(
    slide: Slide,
    geometry: PatchGeometry,
    origins: Int64Array,
    *,
    threads: int = 1,
    cache_mib: float = 128,
) -> Iterator[tuple[int, dict[str, UInt8Array], bool]]:
    """Read the patches of one slide, each tile decoded once for all of them and all layers.

    Parameters
    ----------
    origins : ndarray, shape (n, 2), int64
        Level-0 origins (x, y), multiples of `geometry.step_px`.
    threads : int
        Threads that decode ahead; 1 decodes in the calling thread.
    cache_mib : float
        Bound on the decoded tiles that wait for later patches, MiB.

    Yields
    ------
    index : int
        Row in `origins`; rows come in the order that is cheapest to read.
    layers : dict of str to ndarray, shape (size, size, 3), uint8
        By layer name; equal to `read_layer`.
    valid : bool
        Whether every source pixel of every layer was scanned (`read_layer_validity`); False too
        where the patch needs a damaged tile of a slide that tolerates them (`TiledSlide.tolerate`).

    Raises
    ------
    GeometryError
        If an origin is off the grid or `origins` has another shape.
    SlideError
        If the file cannot be read.
    """
    read = _read(slide, None, geometry, origins, threads, cache_mib)
    return ((row, patch, valid) for row, patch, valid, _ in read)


def iter_windows(
    slide: Slide,
    streams: LevelStreams,
    geometry: PatchGeometry,
    origins: Int64Array,
    *,
    threads: int = 1,
    cache_mib: float = 128,
) -> Iterator[tuple[int, dict[str, UInt8Array], bool, Window | None]]:
    """`iter_patches`, and of each valid patch where its HR lies in the stored tiles.

    Parameters
    ----------
    slide, geometry, origins, threads, cache_mib
        As for `iter_patches`; HR must be native.
    streams : LevelStreams
        Of the level that HR is read from: its tiles are decoded from what is to be kept of them.

    Raises
    ------
    NotKept
        If a tile turns out not to be one that can be kept.
    """
    if not geometry.hr.native or geometry.hr.level != streams.level:
        raise GeometryError("HR is not read as it is stored in the level whose tiles are kept.")
    return _read(slide, streams, geometry, origins, threads, cache_mib)


def _read(
    slide: Slide,
    streams: LevelStreams | None,
    geometry: PatchGeometry,
    origins: Int64Array,
    threads: int,
    cache_mib: float,
) -> Iterator[tuple[int, dict[str, UInt8Array], bool, Window | None]]:
    """The patches, each with its window where streams are given."""
    origins = np.asarray(origins, dtype=np.int64)
    if origins.ndim != 2 or origins.shape[1] != 2:
        raise GeometryError(f"Origins must have shape (n, 2), not {origins.shape}.")
    if threads < 1:
        raise GeometryError(f"At least one thread has to decode, not {threads}.")
    order = reading_order(origins, max(BAND_PX, geometry.field_px))
    sizes = [(level.width_px, level.height_px) for level in slide.info.levels]
    source = _TileSource(slide, streams)
    for first in range(0, len(order), SEGMENT_PATCHES):
        rows = order[first : first + SEGMENT_PATCHES].tolist()
        plans = [plan_cuts(geometry, sizes, *origins[row].tolist()) for row in rows]
        with _LiveTiles(source, plans, int(cache_mib * 2**20), threads) as tiles:
            for step, (row, cuts) in enumerate(zip(rows, plans, strict=True)):
                taken = tiles.take(step)
                patch, valid = _cut_patch(source, taken, cuts, sizes)
                if any(tile is DAMAGED for parts in taken for _, _, tile in parts):
                    valid = False  # what it is resampled from may not be invented either
                    source.count_damaged()
                window = None
                if valid and streams is not None:
                    x, y, _, _ = cuts[0].box
                    window = Window(x, y, {(down, across): tile for down, across, tile in taken[0]})
                yield row, patch, valid, window


class _TileSource:
    """Tiles of any slide: stored ones of a `TiledSlide`, blocks of another."""

    def __init__(self, slide: Slide, streams: LevelStreams | None = None) -> None:
        self._slide = slide
        self._streams = streams
        self._tiled = slide if isinstance(slide, TiledSlide) else None
        self.grids = tuple(
            self._tiled.grid(level.index)
            if self._tiled is not None
            else TileGrid(
                width_px=level.width_px,
                height_px=level.height_px,
                tile_width_px=BLOCK_PX,
                tile_height_px=BLOCK_PX,
            )
            for level in slide.info.levels
        )

    def decode(self, key: TileKey) -> Tile:
        level, row, column = key
        if self._tiled is not None:
            if self._streams is not None and level == self._streams.level:
                return self._tiled.decode_tile(level, row, column, self._streams.fetch)
            return self._tiled.decode_tile(level, row, column)
        grid = self.grids[level]
        x, y = column * BLOCK_PX, row * BLOCK_PX
        width, height = min(BLOCK_PX, grid.width_px - x), min(BLOCK_PX, grid.height_px - y)
        pixels = self._slide.read_level(level, x, y, width, height)
        valid = self._slide.read_validity(level, x, y, width, height)
        return Tile(pixels, None if bool(valid.all()) else valid)

    def count_damaged(self) -> None:
        """One more patch lies on a damaged tile."""
        if self._tiled is not None and self._tiled.damage is not None:
            self._tiled.damage.patches += 1

    def needed(self, cuts: Iterable[Cut]) -> list[list[TileKey]]:
        """Tiles of each layer of one patch."""
        return [
            [(level, *at) for at in self.grids[level].touched(*cut.box)]
            for cut in cuts
            for level in (cut.layer.level,)
        ]


class _LiveTiles:
    """Decoded tiles between their first and their last use, in plan order."""

    def __init__(
        self,
        source: _TileSource,
        plans: Sequence[tuple[Cut, ...]],
        limit_bytes: int,
        threads: int,
    ) -> None:
        self._source = source
        self._limit_bytes = limit_bytes
        self._layers = [source.needed(cuts) for cuts in plans]
        self._steps = [list(dict.fromkeys(chain(*layers))) for layers in self._layers]
        self._uses: dict[TileKey, list[int]] = defaultdict(list)
        for step in range(len(self._steps) - 1, -1, -1):
            for key in self._steps[step]:
                self._uses[key].append(step)
        self._tiles: dict[TileKey, Tile] = {}
        self._bytes = 0
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._ahead = iter(dict.fromkeys(key for step in self._steps for key in step))
        self._pending: dict[TileKey, Future[Tile]] = {}
        self._lookahead = 4 * threads

    def __enter__(self) -> "_LiveTiles":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def take(self, step: int) -> list[list[Part]]:
        """The tiles of each layer of one patch; those that no later patch needs are let go."""
        taken = {}
        for key in self._steps[step]:
            tile = self._tiles.get(key)
            if tile is None:
                tile = self._decode(key)
                self._tiles[key] = tile
                self._bytes += tile.nbytes
            taken[key] = tile
        for key in self._steps[step]:
            uses = self._uses[key]
            uses.pop()
            if not uses:
                self._bytes -= self._tiles.pop(key).nbytes
        while self._bytes > self._limit_bytes and self._tiles:
            latest = max(self._tiles, key=lambda key: self._uses[key][-1])
            self._bytes -= self._tiles.pop(latest).nbytes
        return [[(key[1], key[2], taken[key]) for key in keys] for keys in self._layers[step]]

    def _decode(self, key: TileKey) -> Tile:
        if self._pool is None:
            return self._source.decode(key)
        self._submit()
        future = self._pending.pop(key, None)
        tile = self._source.decode(key) if future is None else future.result()
        self._submit()
        return tile

    def _submit(self) -> None:
        assert self._pool is not None
        while len(self._pending) < self._lookahead:
            key = next(self._ahead, None)
            if key is None:
                return
            self._pending[key] = self._pool.submit(self._source.decode, key)


def _cut_patch(
    source: _TileSource,
    tiles: list[list[Part]],
    cuts: tuple[Cut, ...],
    sizes: Sequence[tuple[int, int]],
) -> tuple[dict[str, UInt8Array], bool]:
    patch: dict[str, UInt8Array] = {}
    valid = True
    for cut, parts in zip(cuts, tiles, strict=True):
        level, size = cut.layer.level, cut.layer.read_size_px
        grid = source.grids[level]
        valid = valid and _all_scanned(grid, parts, cut.field)
        x, y, width, height = cut.box
        if width == 0 or height == 0:
            patch[cut.layer.name] = np.full((size, size, 3), 255, dtype=np.uint8)
            continue
        pixels = assemble_pixels(grid, parts, x, y, width, height)
        if cut.start is not None:
            start = (float(cut.start[0]), float(cut.start[1]))
            factor = cut.layer.reduction
            pixels = resample_box(pixels, (x, y), sizes[level], start, factor, (size, size))
        patch[cut.layer.name] = pixels
    return patch, valid


def _all_scanned(grid: TileGrid, parts: list[Part], field: tuple[int, int, int, int]) -> bool:
    """Whether all of a field was scanned; `parts` are its tiles, and others around it."""
    x, y, width, height = field
    if x < 0 or y < 0 or x + width > grid.width_px or y + height > grid.height_px:
        return False
    bare = [part for part in parts if part[2].pixels is None or part[2].valid is not None]
    touched = set(grid.touched(*field)) if bare else ()
    for row, column, tile in bare:
        if (row, column) not in touched:
            continue
        if tile.pixels is None or tile.valid is None:
            return False
        _, inside = overlap(grid, row, column, field)
        if not bool(tile.valid[inside].all()):
            return False
    return True
