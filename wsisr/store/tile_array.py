"""`--codec slide`: HR kept as the slide's own compressed tiles, each once, and patches as windows.

In the group of such a slide ``40x-tiles`` (shape (tiles, t, t, 3)) takes the place of ``40x``: its
inner chunks are the tiles' streams as the scanner wrote them, made self-contained. ``tiles`` is
their table: `row` and `column` in the grid of the level, and `digest`, XXH3-64 of what each decodes
to. The columns `window_x` and `window_y` say where a patch begins, in pixels of that level; its
tiles follow from that and its size. Tiles stand in the order of their first use.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from xxhash import xxh3_64_intdigest

from wsisr.arrays import AnyArray, UInt8Array
from wsisr.errors import StoreError
from wsisr.store.columns import write_plain
from wsisr.store.layout import META, SlidePaths, tiles_of
from wsisr.store.metadata import array_document, group_document, sharding_codec, to_json
from wsisr.store.places import Place
from wsisr.store.presets import stream_codecs
from wsisr.store.schema import WINDOW, ArraySpec
from wsisr.store.shards import MAX_PATCHES_PER_SHARD, ShardFile, ShardLayout

if TYPE_CHECKING:
    from wsisr.slides.decode import StreamKind
    from wsisr.slides.streams import Window

MIN_SHARD_BYTES: Final = 500_000_000
"""Decoded bytes of a shard at least, a tenth of it or so on disk."""
TABLE: Final = {
    "row": ("i4", "row in the level's grid of tiles"),
    "column": ("i4", "column in the level's grid of tiles"),
    "digest": ("u8", "XXH3-64 of the decoded bytes of the tile"),
}
"""Columns of the group `tiles`: type and meaning."""


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """Which array of a slide is kept as tiles, and what they are.

    Attributes
    ----------
    array : str
        ``"40x"``.
    kind : {"jpeg", "jpeg2k"}
    tile_px : int
        Side of a tile.
    rows, columns : int
        Of the level's grid.
    """

    array: str
    kind: "StreamKind"
    tile_px: int
    rows: int
    columns: int


def tile_layout(tile_px: int) -> ShardLayout:
    """Layout of the shards of an array of tiles."""
    per_shard = 1
    while per_shard * tile_px**2 * 3 < MIN_SHARD_BYTES and per_shard < MAX_PATCHES_PER_SHARD:
        per_shard *= 2
    return ShardLayout(size_px=tile_px, tile_px=tile_px, tiles=1, patches=per_shard)


def tile_digest(pixels: UInt8Array) -> int:
    """XXH3-64 (seed 0) of a decoded tile."""
    return int(xxh3_64_intdigest(np.ascontiguousarray(pixels).data))


class TileWriter:
    """Writes the tiles of one slide as its patches come, each the first time it is used.

    Parameters
    ----------
    put : SlidePaths of Place
        The staged group.
    spec : ArraySpec
        Of the patches.
    """

    def __init__(self, put: SlidePaths[Place], spec: ArraySpec, plan: TilePlan) -> None:
        self._put, self._spec, self._plan = put, spec, plan
        self._layout = tile_layout(plan.tile_px)
        self._numbers: dict[tuple[int, int], int] = {}
        self._digests: list[int] = []
        self._windows: list[tuple[int, int]] = []
        self._shard: ShardFile | None = None

    def add(self, window: "Window") -> None:
        """Add one patch.

        Raises
        ------
        StoreError
            If a tile comes without its stream, or the window does not lie in the grid.
        """
        plan, size = self._plan, self._spec.size_px
        needed = tiles_under(window.x, window.y, (size, size), plan.tile_px)
        row, column = needed[-1]
        if window.x < 0 or window.y < 0 or row >= plan.rows or column >= plan.columns:
            raise StoreError(f"{self._put.root}: a window at {window.x}, {window.y} is outside.")
        for at in needed:
            if at not in self._numbers:
                tile = window.tiles[at]
                if tile.stream is None or tile.pixels is None:
                    raise StoreError(f"{self._put.root}: tile {at} came without its stream.")
                self._store(tile.stream)
                self._digests.append(tile_digest(tile.pixels))
                self._numbers[at] = len(self._numbers)
        self._windows.append((window.x, window.y))

    def _store(self, stream: bytes) -> None:
        number = len(self._numbers)
        if number % self._layout.patches == 0:
            self._close_shard()
            place = self._put.shard(tiles_of(self._plan.array), number // self._layout.patches)
            self._shard = ShardFile(place, self._layout)
        assert self._shard is not None
        self._shard.add_chunk(stream)

    def _close_shard(self) -> None:
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def abandon(self) -> None:
        """Let go of what is open."""
        if self._shard is not None:
            self._shard.abandon()
            self._shard = None

    def close(self) -> dict[str, AnyArray]:
        """Write what is left, metadata and the table; returns the columns of the windows."""
        self._close_shard()
        plan, layout = self._plan, self._layout
        document = array_document(
            shape=(len(self._numbers), plan.tile_px, plan.tile_px, 3),
            dtype=np.dtype(np.uint8),
            chunk_shape=layout.shard_shape,
            codecs=[sharding_codec(layout.inner_shape, stream_codecs(plan.kind))],
            attributes=self._spec.attributes() | {"grid": [plan.rows, plan.columns]},
            dimensions=("tile", "y", "x", "channel"),
        )
        (self._put.array(tiles_of(plan.array)) / META).put(to_json(document))
        (self._put.tiles / META).put(to_json(group_document({})))
        places = np.array(list(self._numbers), np.int64).reshape(-1, 2)
        table = {"row": places[:, 0], "column": places[:, 1], "digest": self._digests}
        for name, (dtype, meaning) in TABLE.items():
            values = np.array(table[name], np.dtype(dtype))
            write_plain(self._put.tiles / name, values, {"meaning": meaning}, ("tile",))
        corners = np.array(self._windows, np.int64).reshape(-1, 2)
        return {name: corners[:, axis].astype(np.int32) for axis, name in enumerate(WINDOW)}


def tiles_under(x: int, y: int, shape: tuple[int, int], tile_px: int) -> list[tuple[int, int]]:
    """Rows and columns of the tiles under a window of some height and width, row by row."""
    down = range(y // tile_px, (y + shape[0] - 1) // tile_px + 1)
    across = range(x // tile_px, (x + shape[1] - 1) // tile_px + 1)
    return [(row, column) for row in down for column in across]
