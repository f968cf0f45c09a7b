"""Zarr v3 shards: how patches are laid out in files, and an encoder for whole shards.

zarr-python's shard writer spends several times the copying cost in bookkeeping, and two
writers in one shard lose data silently. So a shard has one writer, is written whole and once,
by this module, and its bytes are those that zarr-python writes (a test compares them).

A shard file is the encoded inner chunks in Morton order, then the index: 16 bytes (offset, length;
little-endian, 2^64-1 twice where a chunk does not exist) per inner chunk in C order, then its
CRC-32C. Chunks past the end of the array are not stored.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import lru_cache

import google_crc32c
import numpy as np

from wsisr.arrays import Int64Array, UInt8Array, UInt64Array
from wsisr.errors import CorruptStoreError, StoreError
from wsisr.store.local_files import NewFile
from wsisr.store.places import OpenFile, Place

ChunkEncoder = Callable[[UInt8Array], bytes]

MIN_SHARD_BYTES = 50_000_000
"""HR shards hold this much raw data at least and less than twice as much."""
MAX_PATCHES_PER_SHARD = 4096
"""Bounds the index (64 KiB) where patches are tiny."""
ABSENT = 2**64 - 1
CRC_BYTES = 4
ENTRY_BYTES = 16
_AHEAD = 32
"""Chunks of an array that may wait for a thread to encode them."""

_Part = tuple[memoryview, bytes]


@dataclass(frozen=True, kw_only=True)
class ShardLayout:
    """How the patches of one image array are cut into inner chunks and shards.

    Attributes
    ----------
    size_px : int
        Side of a patch.
    tile_px : int
        Side of an inner chunk.
    tiles : int
        Inner chunks along a side; ``tiles * tile_px >= size_px``, and what is over is padding.
    patches : int
        Patches per shard.
    """

    size_px: int
    tile_px: int
    tiles: int
    patches: int

    @property
    def inner_shape(self) -> tuple[int, int, int, int]:
        return (1, self.tile_px, self.tile_px, 3)

    @property
    def shard_shape(self) -> tuple[int, int, int, int]:
        side = self.tiles * self.tile_px
        return (self.patches, side, side, 3)

    @property
    def chunks_per_patch(self) -> int:
        return self.tiles * self.tiles

    @property
    def chunk_bytes(self) -> int:
        return self.tile_px * self.tile_px * 3

    @property
    def index_bytes(self) -> int:
        return self.patches * self.chunks_per_patch * ENTRY_BYTES + CRC_BYTES

    def shards(self, patches: int) -> int:
        """How many shards hold this many patches."""
        return -(-patches // self.patches)


def tile_layout(size_px: int, max_tile_px: int) -> tuple[int, int]:
    """Tiles along a side and their size: the fewest tiles of at most `max_tile_px`.

    >>> tile_layout(1024, 256), tile_layout(300, 256), tile_layout(64, 256)
    ((4, 256), (2, 150), (1, 64))
    """
    tiles = -(-size_px // max_tile_px)
    return tiles, -(-size_px // tiles)


def plan_shards(sizes_px: Sequence[int], max_tile_px: int) -> tuple[ShardLayout, ...]:
    """Layouts of the arrays of one slide: the same patches per shard in each.

    Parameters
    ----------
    sizes_px : sequence of int
        Patch sides; the largest decides.
    max_tile_px : int
        Largest side of an inner chunk.

    Returns
    -------
    tuple of ShardLayout
        With the power of two of patches that makes a shard of the largest array 50 to 100 MB.
    """
    if not sizes_px:
        raise StoreError("A slide needs at least one image array.")
    tiles, tile_px = tile_layout(max(sizes_px), max_tile_px)
    patch_bytes = (tiles * tile_px) ** 2 * 3
    patches = 1
    while patches * patch_bytes < MIN_SHARD_BYTES and patches < MAX_PATCHES_PER_SHARD:
        patches *= 2
    layouts = []
    for size_px in sizes_px:
        tiles, tile_px = tile_layout(size_px, max_tile_px)
        layouts.append(ShardLayout(size_px=size_px, tile_px=tile_px, tiles=tiles, patches=patches))
    return tuple(layouts)


@lru_cache(maxsize=16)
def morton_order(grid: tuple[int, ...]) -> Int64Array:
    """C-order numbers of the cells of a grid, sorted along the Morton curve.

    Dimensions take part only with the bits that their extent needs, the last one slowest,
    as in the sharding codec of zarr-python ("compressed Morton code" of Neuroglancer).
    """
    cells = np.indices(grid).reshape(len(grid), -1)
    codes = np.zeros(cells.shape[1], np.int64)
    bits = [(extent - 1).bit_length() for extent in grid]
    position = 0
    for bit in range(max(bits)):
        for axis, width in enumerate(bits):
            if bit < width:
                codes |= ((cells[axis] >> bit) & 1) << position
                position += 1
    return np.argsort(codes, kind="stable")


def encode_index(offsets: UInt64Array, lengths: UInt64Array) -> bytes:
    """The index of a shard from offset and length of each inner chunk in C order."""
    body = np.stack((offsets, lengths), axis=-1).astype("<u8").tobytes()
    return body + google_crc32c.value(body).to_bytes(CRC_BYTES, "little")


def cut_tiles(patch: UInt8Array, layout: ShardLayout) -> list[UInt8Array]:
    """Contiguous inner chunks of one patch in C order, padded with the fill value 0."""
    side = layout.tiles * layout.tile_px
    if side != layout.size_px:
        padded = np.zeros((side, side, 3), np.uint8)
        padded[: layout.size_px, : layout.size_px] = patch
        patch = padded
    if layout.tiles == 1:
        return [np.ascontiguousarray(patch)]
    t = layout.tile_px
    return [
        np.ascontiguousarray(patch[y : y + t, x : x + t])
        for y in range(0, side, t)
        for x in range(0, side, t)
    ]


class ShardFile:
    """A shard that is being written, patch by patch.

    What is whole is written while it is in the processor's cache. Where a patch is several inner
    chunks the Morton order mixes those of many patches, so that these are held until `close`.

    Parameters
    ----------
    place : Place
        The shard's file, on this machine; its folder is made with the first patch.
    encode : callable or None
        From a contiguous inner chunk (tile_px, tile_px, 3) to bytes; None for raw bytes.
    pool : Executor or None
        Encodes chunks in its threads.
    """

    def __init__(
        self,
        place: Place,
        layout: ShardLayout,
        encode: ChunkEncoder | None = None,
        pool: Executor | None = None,
    ) -> None:
        self._place, self._layout = place, layout
        self._encode = encode
        self._pool = None if encode is None else pool
        self._parts: list[_Part | Future[_Part] | None] = []
        self._settled = 0
        self._lengths: list[int] = []
        self._file: NewFile | None = None

    def add(self, patch: UInt8Array) -> None:
        """Add one patch, shape (size_px, size_px, 3), uint8, which may change afterwards."""
        for tile in cut_tiles(patch, self._layout):
            if self._pool is None:
                self._parts.append(_sealed(self._encode, tile))
            else:
                own = tile.copy() if tile.base is not None or tile is patch else tile
                self._parts.append(self._pool.submit(_sealed, self._encode, own))
        self._settle(0 if self._pool is None else _AHEAD)

    def add_chunk(self, data: bytes) -> None:
        """Add a patch of one inner chunk that is encoded already."""
        self._parts.append((memoryview(data), _crc(data)))
        self._settle(0)

    def close(self) -> int:
        """Write what is left and the index; returns the size of the file in bytes."""
        layout = self._layout
        self._settle(0)
        # Only the chunks of existing patches are stored; they come first in C order.
        order = morton_order((layout.patches, layout.tiles, layout.tiles, 1))
        order = order[order < len(self._lengths)]
        lengths = np.full(layout.patches * layout.chunks_per_patch, ABSENT, np.uint64)
        offsets = lengths.copy()
        lengths[: len(self._lengths)] = self._lengths
        ends = np.cumsum(lengths[order])
        offsets[order] = ends - lengths[order]
        held = [self._parts[cell] for cell in order.tolist()]
        buffers = [data for part in held if isinstance(part, tuple) for data in part]
        self._write([*buffers, encode_index(offsets, lengths)])
        self.abandon()
        return int(ends[-1]) + layout.index_bytes

    def abandon(self) -> None:
        """Let go of the file as it is. Harmless after `close`."""
        self._parts = []
        if self._file is not None:
            self._file.close()
            self._file = None

    def _settle(self, ahead: int) -> None:
        """Take encoded chunks in their order, and write them where that is the shard's."""
        while len(self._parts) - self._settled > ahead:
            part = self._parts[self._settled]
            assert part is not None
            done = part if isinstance(part, tuple) else part.result()
            self._lengths.append(len(done[0]) + CRC_BYTES)
            in_order = self._layout.tiles == 1
            self._parts[self._settled] = None if in_order else done
            self._settled += 1
            if in_order:
                self._write(done)

    def _write(self, parts: Sequence[bytes | memoryview]) -> None:
        if self._file is None:
            self._file = NewFile(self._place)
        self._file.write(parts)


def _sealed(encode: ChunkEncoder | None, tile: UInt8Array) -> _Part:
    """An encoded inner chunk and its CRC-32C."""
    if encode is None:
        flat = tile.reshape(-1)
        return flat.data, _crc(flat)
    data = encode(tile)
    return memoryview(data), _crc(data)


def _crc(data: bytes | UInt8Array) -> bytes:
    return google_crc32c.value(data).to_bytes(CRC_BYTES, "little")


def read_index(file: OpenFile, layout_cells: int, where: str) -> UInt64Array:
    """Offset and length of every inner chunk of an open shard, shape (cells, 2), checked.

    Raises
    ------
    CorruptStoreError
        Where the file is too short or its index does not match its checksum.
    """
    need = layout_cells * ENTRY_BYTES + CRC_BYTES
    body, size = file.tail(need)
    if len(body) != need:
        raise CorruptStoreError(f"{where}: the shard is cut short ({size} bytes).")
    if google_crc32c.value(body[:-CRC_BYTES]) != int.from_bytes(body[-CRC_BYTES:], "little"):
        raise CorruptStoreError(f"{where}: the shard's index does not match its CRC-32C.")
    index = np.frombuffer(body[:-CRC_BYTES], "<u8").reshape(layout_cells, 2).astype(np.uint64)
    present = index[:, 0] != ABSENT
    # Compared without adding, because a sum of hostile values would wrap around.
    room = np.uint64(size - need)
    good = (index[:, 0] <= room) & (index[:, 1] <= room - np.minimum(index[:, 0], room))
    if not bool(np.all(good | ~present)):
        raise CorruptStoreError(f"{where}: the shard's index points outside the file.")
    return index
