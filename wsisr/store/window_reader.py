"""Reading patches that are windows over a slide's own tiles."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from wsisr.arrays import Int64Array, UInt8Array, UInt64Array
from wsisr.errors import CorruptStoreError, damage_is_clear
from wsisr.store.caches import ProcessCache, ShardIndexes
from wsisr.store.columns import read_plain
from wsisr.store.layout import META, SlidePaths, tiles_of
from wsisr.store.places import Place
from wsisr.store.presets import STREAM_DECODERS, STREAM_NAMES
from wsisr.store.schema import WINDOW
from wsisr.store.shard_reader import ShardReader
from wsisr.store.tile_array import TABLE, TilePlan, tile_digest, tiles_under

if TYPE_CHECKING:
    from wsisr.slides.streams import Window

CACHE_BYTES = 32 << 20
"""Decoded tiles that a store keeps: neighbouring patches share theirs."""


class DecodedTiles(ProcessCache[tuple[str, int], UInt8Array]):
    """Tiles that were decoded last, of all slides of a store."""

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        super().__init__(limit_bytes, weigh=lambda tile: tile.nbytes)


@dataclass(frozen=True, eq=False)
class TileTable:
    """The tiles of a slide that are kept, and where its patches begin in their level.

    Attributes
    ----------
    rows, columns : ndarray, shape (tiles,), int64
        Place of each tile in the grid of the level.
    digests : ndarray, shape (tiles,), uint64
        XXH3-64 of what each decodes to.
    corners : ndarray, shape (patches, 2), int64
        x, y of each patch in pixels of the level.
    grid : (int, int)
        Rows and columns of the level's grid.
    """

    rows: Int64Array
    columns: Int64Array
    digests: UInt64Array
    corners: Int64Array
    grid: tuple[int, int]

    @cached_property
    def _sorted(self) -> tuple[Int64Array, list[int]]:
        keys = self.rows * self.grid[1] + self.columns
        order = np.argsort(keys, kind="stable")
        return keys[order], order.tolist()

    def number(self, row: int, column: int) -> int | None:
        """Which tile lies there; None where none is kept."""
        keys, order = self._sorted
        key = row * self.grid[1] + column
        at = int(keys.searchsorted(key))
        return order[at] if at < len(order) and keys[at] == key else None


class WindowReader(ShardReader):
    """Random access to patches that are windows over kept tiles, as if they were stored.

    Parameters
    ----------
    slide : SlidePaths of Place
        The slide's group.
    array : str
        ``"40x"``; ``40x-tiles`` is read.
    patches : int
        How many the slide has.
    verify, indexes
        As for `ShardReader`.
    tiles : DecodedTiles or None
        Shared with other readers.

    Attributes
    ----------
    shape : tuple of int
        (n, s, s, 3), of the patches.
    tile_shape : tuple of int
        (tiles, t, t, 3).
    """

    def __init__(
        self,
        slide: SlidePaths[Place],
        array: str,
        patches: int,
        *,
        verify: bool = True,
        indexes: ShardIndexes | None = None,
        tiles: DecodedTiles | None = None,
    ) -> None:
        self.slide, self._array = slide, array
        super().__init__(slide.array(tiles_of(array)), verify=verify, indexes=indexes)
        meta = self.place / META
        layout = self._layout
        if layout is None or layout.codec not in STREAM_DECODERS or layout.shards.tiles != 1:
            raise CorruptStoreError(f"{meta}: not an array of a slide's own tiles.")
        self.tile_shape = self.shape
        with damage_is_clear(meta, CorruptStoreError, "run wsisr verify"):
            size = int(self.attributes["size_px"])
            rows, columns = (int(count) for count in self.attributes["grid"])
        self._grid = (rows, columns)
        self.shape = (patches, size, size, 3)
        self._tiles = tiles if tiles is not None else DecodedTiles()

    def __getstate__(self) -> dict[str, Any]:
        own = {"slide": self.slide, "array": self._array, "patches": self.shape[0]}
        return super().__getstate__() | own

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(  # type: ignore[misc]
            state["slide"], state["array"], state["patches"], verify=state["verify"]
        )

    @cached_property
    def table(self) -> TileTable:
        """The kept tiles and the windows; CorruptStoreError if they are damaged or contradict."""
        parts = {name: read_plain(self.slide.tiles / name) for name in TABLE}
        corners = [read_plain(self.slide.column(name)) for name in WINDOW]
        if {part.shape for part in parts.values()} != {self.tile_shape[:1]}:
            raise CorruptStoreError(f"{self.slide.tiles}: not a row for each of its tiles.")
        if {part.shape for part in corners} != {self.shape[:1]}:
            raise CorruptStoreError(f"{self.slide.columns}: not a window for each patch.")
        return TileTable(
            rows=parts["row"].astype(np.int64),
            columns=parts["column"].astype(np.int64),
            digests=parts["digest"],
            corners=np.stack(corners, axis=1).astype(np.int64),
            grid=self._grid,
        )

    @property
    def plan(self) -> TilePlan:
        """What a writer needs to keep the same tiles."""
        assert self._layout is not None
        rows, columns = self._grid
        kind = next(k for k in STREAM_NAMES.values() if k == self._layout.codec)
        return TilePlan(
            array=self._array, kind=kind, tile_px=self.tile_shape[1], rows=rows, columns=columns
        )

    def window(self, row: int) -> "Window":
        """A patch with its tiles and their streams, for another store.

        Raises
        ------
        CorruptStoreError
            Where a tile does not decode to what it did when it was stored.
        """
        from wsisr.slides.streams import Window
        from wsisr.slides.tiles import Tile

        tiles = {}
        for number in self.tiles(row):
            pixels = self.tile(number)
            if tile_digest(pixels) != int(self.table.digests[number]):
                raise CorruptStoreError(
                    f"{self.place}: tile {number} does not match its digest; run wsisr verify."
                )
            at = (int(self.table.rows[number]), int(self.table.columns[number]))
            tiles[at] = Tile(pixels, stream=self.stored(number).tobytes())
        x, y = self.table.corners[row].tolist()
        return Window(x, y, tiles)

    def tiles(self, row: int, y: int = 0, x: int = 0, h: int = 0, w: int = 0) -> list[int]:
        """Numbers of the tiles under a patch, or a crop of one, row by row; CorruptStoreError where
        one is not kept."""
        height, width = h or self.shape[1] - y, w or self.shape[2] - x
        return [number for number, _, _ in self._under(row, y, x, height, width)]

    def tile(self, number: int) -> UInt8Array:
        """A decoded tile, shape (t, t, 3); not to be written to."""
        key = (self._address, number)
        tile = self._tiles.get(key)
        if tile is None:
            layout = self._layout
            assert layout is not None
            tile = self._in_shard(
                layout,
                number,
                lambda file, path, chunks: self._read_chunk(
                    layout, file, path, *chunks[0].tolist()
                ),
            )
            self._tiles.put(key, tile)
        return tile

    def read_into(self, row: int, y: int, x: int, out: UInt8Array) -> None:
        height, width = out.shape[:2]
        side = self.tile_shape[1]
        for number, top, left in self._under(row, y, x, height, width):
            # The part of this tile that lies in the crop, in the crop's coordinates.
            y0, y1 = max(0, top), min(height, top + side)
            x0, x1 = max(0, left), min(width, left + side)
            out[y0:y1, x0:x1] = self.tile(number)[y0 - top : y1 - top, x0 - left : x1 - left]

    def _under(
        self, row: int, y: int, x: int, height: int, width: int
    ) -> list[tuple[int, int, int]]:
        """Tiles under a crop: number, and top and left of the tile in the crop's pixels."""
        table, side = self.table, self.tile_shape[1]
        left, top = table.corners[row].tolist()
        left, top = left + x, top + y
        found = []
        for at_row, at_column in tiles_under(left, top, (height, width), side):
            number = table.number(at_row, at_column)
            if number is None:
                raise CorruptStoreError(
                    f"{self.place}: patch {row} needs the tile at row {at_row}, column "
                    f"{at_column}, which is not there; run wsisr verify."
                )
            found.append((number, at_row * side - top, at_column * side - left))
        return found

    def shard_of(self, row: int) -> int:
        """The shard of its first tile."""
        assert self._layout is not None
        return self.tiles(row)[0] // self._layout.shards.patches

    def ranges(self, row: int, y: int, x: int, out: UInt8Array) -> list[tuple[str, int, int]]:
        try:
            numbers = [number for number, _, _ in self._under(row, y, x, *out.shape[:2])]
        except CorruptStoreError:
            return []  # `read_into` says so
        tile = np.empty((1, 1, 3), np.uint8)
        return [place for n in numbers for place in super(WindowReader, self).ranges(n, 0, 0, tile)]
