"""Reading patches straight from shards: one positioned read per inner chunk, into the batch.

zarr-python reads 230 to 450 patches per second and core whatever the codec, and batch indexing on
Python 3.11 is 15 times slower still. This reader parses ``zarr.json`` once, keeps shard indexes
and does nothing else between the disk and the array. Layouts that it does not know go to
zarr-python, one patch at a time.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import google_crc32c
import numpy as np
from numpy.typing import ArrayLike

from wsisr.arrays import Int64Array, UInt8Array, UInt64Array
from wsisr.errors import CorruptStoreError, StoreError, damage_is_clear
from wsisr.store.caches import ShardIndexes
from wsisr.store.layout import META
from wsisr.store.metadata import read_node
from wsisr.store.places import Address, OpenFile, place_of
from wsisr.store.shard_layouts import DECODERS, KnownLayout, known_layout
from wsisr.store.shards import ABSENT, CRC_BYTES

R = TypeVar("R")


class ShardReader:
    """Random access to one image array of a store.

    Safe to share between threads, to fork and to pickle (descriptors stay behind).

    Parameters
    ----------
    path : path or Place
        Folder of the array, e.g. ``pairs.zarr/slides/a/40x``; readers of places of the same
        `Files` share what is open.
    verify : bool
        Check the CRC-32C of every inner chunk that is read (about 8 GB/s).
    indexes : ShardIndexes or None
        Shared with other readers.
    strict : bool or None
        Whether a missing chunk is an error instead of the fill value. None: for arrays that wsisr
        wrote, which never leave one out.

    Attributes
    ----------
    shape : tuple of int
        (n, s, s, 3).
    direct : bool
        False where zarr-python reads.
    """

    def __init__(
        self,
        path: Address,
        *,
        verify: bool = True,
        indexes: ShardIndexes | None = None,
        strict: bool | None = None,
    ) -> None:
        self.place = place_of(path)
        node = read_node(self.place)
        if node.is_group:
            raise StoreError(f"{self.place} is a group, not an image array.")
        self.attributes = node.attributes
        with damage_is_clear(self.place / META, CorruptStoreError, "run wsisr verify"):
            self.shape: tuple[int, ...] = tuple(int(n) for n in node.document.get("shape", ()))
        if (
            node.document.get("node_type") != "array"
            or len(self.shape) != 4
            or node.document.get("data_type") != "uint8"
        ):
            raise StoreError(f"{self.place / META}: not an array of uint8 images (n, h, w, 3).")
        self._layout = known_layout(node.document)
        self._verify = verify
        self._strict = "size_px" in node.attributes if strict is None else strict
        self._files = self.place.files
        self._address = str(self.place)
        self._folder = f"{self.place.key}/" if self.place.key else ""
        self._indexes = indexes if indexes is not None else ShardIndexes()
        self._scratch = threading.local()
        self._fallback: Any = None

    @property
    def direct(self) -> bool:
        return self._layout is not None

    def __len__(self) -> int:
        return self.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        return {"place": self.place, "verify": self._verify, "strict": self._strict}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["place"], verify=state["verify"], strict=state["strict"])  # type: ignore[misc]

    def read(
        self,
        rows: ArrayLike,
        *,
        y: ArrayLike = 0,
        x: ArrayLike = 0,
        h: int | None = None,
        w: int | None = None,
        out: UInt8Array | None = None,
    ) -> UInt8Array:
        """Patches, or crops of them, in the order asked for.

        Parameters
        ----------
        rows : int array, shape (k,)
            Which patches; repeats are fine, negative numbers are not.
        y, x : int or int array, shape (k,)
            Top left corner of the crop in pixels of this array, one for all or one per patch.
        h, w : int or None
            Size of the crop; None reaches to the lower and right edge of the patch.
        out : ndarray, shape (k, h, w, 3), uint8, C-contiguous, or None
            Filled and returned where given.

        Returns
        -------
        ndarray, shape (k, h, w, 3), uint8

        Raises
        ------
        StoreError
            For rows or crops outside the array.
        CorruptStoreError
            Where stored bytes are missing or do not match their checksum.
        """
        index = _integers(rows, "rows").reshape(-1)
        count = len(index)
        tops = np.broadcast_to(_integers(y, "y"), (count,))
        lefts = np.broadcast_to(_integers(x, "x"), (count,))
        height = self.shape[1] - int(tops.max(initial=0)) if h is None else int(h)
        width = self.shape[2] - int(lefts.max(initial=0)) if w is None else int(w)
        self.check(index, tops, lefts, height, width)
        shape = (count, height, width, 3)
        if out is None:
            out = np.empty(shape, np.uint8)
        elif out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise StoreError(f"out must be a C-contiguous uint8 array of shape {shape}.")
        jobs = list(zip(index.tolist(), tops.tolist(), lefts.tolist(), out, strict=True))
        fetch_ahead([(self, *job) for job in jobs])
        for job in jobs:
            self.read_into(*job)
        return out

    def read_into(self, row: int, y: int, x: int, out: UInt8Array) -> None:
        """One crop, unchecked, into a C-contiguous array of shape (h, w, 3)."""
        if self._layout is None:
            self._read_fallback(row, y, x, out)
        else:
            self._read_direct(self._layout, row, y, x, out)

    def check(
        self,
        rows: Int64Array,
        tops: Int64Array,
        lefts: Int64Array,
        height: int,
        width: int,
    ) -> None:
        if not len(rows):
            return
        if rows.min() < 0 or rows.max() >= self.shape[0]:
            raise StoreError(f"{self.place} has {self.shape[0]} patches; rows are outside of that.")
        for name, start, size, extent in (
            ("y", tops, height, self.shape[1]),
            ("x", lefts, width, self.shape[2]),
        ):
            if size < 1 or start.min() < 0 or start.max() + size > extent:
                raise StoreError(
                    f"{self.place}: a crop of {size} px at {name} = {int(start.min())} to "
                    f"{int(start.max())} does not lie in patches of {extent} px."
                )

    def shard_of(self, row: int) -> int:
        """Which shard holds a patch."""
        return 0 if self._layout is None else row // self._layout.shards.patches

    def ranges(self, row: int, y: int, x: int, out: UInt8Array) -> list[tuple[str, int, int]]:
        """What `read_into` will read: key, offset and length; nothing where that is not known."""
        layout = self._layout
        if layout is None:
            return []
        try:
            index = self._in_shard(layout, row, lambda file, path, chunks: chunks)
        except CorruptStoreError:
            return []  # `read_into` says so
        key = f"{self._folder}c/{row // layout.shards.patches}/0/0/0"
        tile, height, width = layout.shards.tile_px, out.shape[0], out.shape[1]
        return [
            (key, *index[ty * layout.shards.tiles + tx].tolist())
            for ty in range(y // tile, (y + height - 1) // tile + 1)
            for tx in range(x // tile, (x + width - 1) // tile + 1)
            if index[ty * layout.shards.tiles + tx, 0] != ABSENT
        ]

    def stored(self, row: int) -> UInt8Array:
        """The encoded bytes of a patch that is one inner chunk; their checksum is checked.

        Raises
        ------
        StoreError
            Where patches are several inner chunks, or zarr-python reads.
        CorruptStoreError
            As for `read`.
        """
        layout = self._layout
        if layout is None or layout.shards.chunks_per_patch != 1:
            raise StoreError(f"{self.place}: its patches are not one stored chunk each.")
        return self._in_shard(
            layout,
            row,
            lambda file, path, chunks: self._stored_chunk(layout, file, path, *chunks[0].tolist()),
        )

    def _in_shard(
        self,
        layout: KnownLayout,
        row: int,
        take: Callable[[OpenFile, str, UInt64Array], R],
    ) -> R:
        """What `take` makes of the open shard of a row: what messages call it, and offset and
        length of the row's own chunks."""
        shards = layout.shards
        shard, place = divmod(row, shards.patches)
        path = f"{self._address}/c/{shard}/0/0/0"
        try:
            with self._files.open(f"{self._folder}c/{shard}/0/0/0") as file:
                cells = shards.patches * shards.chunks_per_patch
                index = self._indexes.get(path, file, cells)
                return take(file, path, index[place * shards.chunks_per_patch :])
        except FileNotFoundError as err:
            raise CorruptStoreError(f"{path} is missing.") from err

    def _read_direct(self, layout: KnownLayout, row: int, y: int, x: int, out: UInt8Array) -> None:
        # As `_in_shard`, without its functions: this is what a training step waits for.
        shard, place = divmod(row, layout.shards.patches)
        path = f"{self._address}/c/{shard}/0/0/0"
        try:
            with self._files.open(f"{self._folder}c/{shard}/0/0/0") as file:
                each = layout.shards.chunks_per_patch
                index = self._indexes.get(path, file, layout.shards.patches * each)
                self._read_tiles(layout, file, path, index[place * each :], (y, x), out)
        except FileNotFoundError as err:
            if self._strict:
                raise CorruptStoreError(f"{path} is missing.") from err
            out[:] = layout.fill

    def _read_tiles(
        self,
        layout: KnownLayout,
        file: OpenFile,
        path: str,
        index: UInt64Array,
        corner: tuple[int, int],
        out: UInt8Array,
    ) -> None:
        (y, x), shards, tile = corner, layout.shards, layout.shards.tile_px
        height, width = out.shape[:2]
        whole = shards.tiles == 1 and height == width == tile
        for ty in range(y // tile, (y + height - 1) // tile + 1):
            for tx in range(x // tile, (x + width - 1) // tile + 1):
                offset, length = index[ty * shards.tiles + tx].tolist()
                if whole and layout.codec == "raw" and offset != ABSENT:
                    self._read_raw(layout, file, path, offset, length, out.reshape(-1))
                    return
                data = self._read_chunk(layout, file, path, offset, length)
                # The part of this tile that lies in the crop, in the crop's coordinates.
                top, left = ty * tile - y, tx * tile - x
                y0, y1 = max(0, top), min(height, top + tile)
                x0, x1 = max(0, left), min(width, left + tile)
                out[y0:y1, x0:x1] = data[y0 - top : y1 - top, x0 - left : x1 - left]

    def _read_raw(
        self,
        layout: KnownLayout,
        file: OpenFile,
        path: str,
        offset: int,
        length: int,
        out: UInt8Array,
    ) -> None:
        """A raw chunk into a flat array."""
        if length != layout.raw_chunk_bytes:
            raise CorruptStoreError(f"{path}: a raw chunk of {length} bytes at {offset}.")
        sums = bytearray(length - len(out))
        got = file.read_into(offset, (out.data, sums))
        if got != length:
            raise CorruptStoreError(f"{path}: the shard is cut short at {offset + got}.")
        if layout.checksums and self._verify:
            _check_crc(out, sums, path, offset)

    def _read_chunk(
        self, layout: KnownLayout, file: OpenFile, path: str, offset: int, length: int
    ) -> UInt8Array:
        """One decoded inner chunk, (t, t, 3); may be this thread's scratch space."""
        tile = layout.shards.tile_px
        if offset == ABSENT:
            if self._strict:
                raise CorruptStoreError(f"{path}: a chunk is missing from the shard.")
            return np.full((tile, tile, 3), layout.fill, np.uint8)
        if layout.codec == "raw":
            buffer: UInt8Array | None = getattr(self._scratch, "tile", None)
            if buffer is None:
                buffer = self._scratch.tile = np.empty((tile, tile, 3), np.uint8)
            self._read_raw(layout, file, path, offset, length, buffer.reshape(-1))
            return buffer
        data = self._stored_chunk(layout, file, path, offset, length)
        try:
            return DECODERS[layout.codec](data, tile)
        except ValueError as err:
            raise CorruptStoreError(f"{path}: chunk at {offset}: {err}.") from err

    def _stored_chunk(
        self, layout: KnownLayout, file: OpenFile, path: str, offset: int, length: int
    ) -> UInt8Array:
        """The bytes of an inner chunk without their checksum, which is checked."""
        if offset == ABSENT:
            raise CorruptStoreError(f"{path}: a chunk is missing from the shard.")
        data = np.empty(length, np.uint8)
        got = file.read_into(offset, (data.data,))
        if got != length:
            raise CorruptStoreError(f"{path}: the shard is cut short at {offset + got}.")
        if layout.checksums:
            data, sums = data[:-CRC_BYTES], data[-CRC_BYTES:].tobytes()
            if self._verify:
                _check_crc(data, sums, path, offset)
        return data

    def _read_fallback(self, row: int, y: int, x: int, out: UInt8Array) -> None:
        if self._fallback is None:
            import zarr

            from wsisr.store import codecs

            codecs.register()
            try:
                self._fallback = zarr.open_array(self.place.for_zarr(), mode="r")
            except Exception as error:
                # zarr names neither the file nor a common base of its errors.
                raise CorruptStoreError(
                    f"{self.place / META}: zarr-python cannot open it ({type(error).__name__}: "
                    f"{error}); run wsisr verify."
                ) from error
        height, width = out.shape[:2]
        try:
            out[:] = self._fallback[row, y : y + height, x : x + width]
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            raise CorruptStoreError(
                f"{self.place}, patch {row}: {text}; run wsisr verify."
            ) from error


Job = tuple[ShardReader, int, int, int, UInt8Array]
"""Reader, row, top and left of a crop, and where it goes."""


def fetch_ahead(jobs: Sequence[Job]) -> None:
    """Where reading is a journey, fetch what the readers of one store will read, together."""
    if not jobs or not jobs[0][0].place.files.remote:
        return
    files = jobs[0][0].place.files
    # One job of each shard first: each shard's index is asked for once.
    firsts = {(job[0].place.key, job[0].shard_of(job[1])): job for job in jobs}
    files.together(lambda job: job[0].ranges(*job[1:]), list(firsts.values()))
    files.ahead(place for job in jobs for place in job[0].ranges(*job[1:]))


def _integers(values: ArrayLike, what: str) -> Int64Array:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" and array.size:
        raise StoreError(f"{what} must be whole numbers, not {array.dtype}.")
    return array.astype(np.int64)


def _check_crc(data: Any, sums: bytes | bytearray, path: str, offset: int) -> None:
    if google_crc32c.value(data) != int.from_bytes(sums, "little"):
        raise CorruptStoreError(
            f"{path}: the chunk at byte {offset} does not match its CRC-32C. The file is damaged: "
            "restore it from a copy or rebuild the slide."
        )
