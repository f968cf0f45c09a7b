"""Where the frames of a DICOM file lie, found without reading them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsisr.arrays import Int64Array
from wsisr.slides.faults import RefusedSlideError
from wsisr.slides.handles import PositionedFile

PIXEL_DATA = b"\xe0\x7f\x10\x00"
ITEM = b"\xfe\xff\x00\xe0"
SEQUENCE_END = b"\xfe\xff\xdd\xe0"
UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameTable:
    """Byte ranges of the fragments of each frame.

    Attributes
    ----------
    offsets, sizes : ndarray of int64
        One a fragment.
    first : ndarray of int64
        First fragment of each frame, and one value more for the end.
    """

    offsets: Int64Array
    sizes: Int64Array
    first: Int64Array

    def pieces(self, frame: int) -> list[tuple[int, int]]:
        """(offset, size) of the fragments of a frame."""
        span = range(int(self.first[frame]), int(self.first[frame + 1]))
        return [(int(self.offsets[i]), int(self.sizes[i])) for i in span]

    def size(self, frame: int) -> int:
        """Stored bytes of a frame."""
        return int(self.sizes[int(self.first[frame]) : int(self.first[frame + 1])].sum())

    def frame_sizes(self) -> Int64Array:
        """Stored bytes of every frame."""
        ends = np.concatenate([[0], np.cumsum(self.sizes)])
        sizes: Int64Array = np.diff(ends[self.first])
        return sizes


def frame_table(
    path: Path,
    file: PositionedFile,
    position: int,
    *,
    count: int,
    native_bytes: int,
    extended: tuple[Int64Array, Int64Array] | None = None,
) -> FrameTable:
    """Find the frames of the pixel data element.

    Parameters
    ----------
    position : int
        Byte where the element's tag starts.
    count : int
        Frames that the header states.
    native_bytes : int
        Bytes of an uncompressed frame.
    extended : tuple of ndarray, optional
        Extended offset table and lengths, where the header has them.

    Raises
    ------
    SlideError
        If there is no pixel data, it is cut off, or holds another number of frames.
    """
    size = path.stat().st_size
    if count < 1 or position + 12 > size:
        raise RefusedSlideError(f"{path}: holds no pixel data; it was cut off, copy it again.")
    head = file.read(position, 12)
    if head[:4] != PIXEL_DATA:
        raise RefusedSlideError(f"{path}: pixel data are not where the header ends; copy it again.")
    explicit = head[4:6] in (b"OB", b"OW", b"UN")
    start = position + (12 if explicit else 8)
    length = int.from_bytes(head[8:12] if explicit else head[4:8], "little")
    if length != UNDEFINED:
        if start + native_bytes * count > size:
            raise RefusedSlideError(f"{path}: cut off within its pixel data; copy it again.")
        offsets = start + native_bytes * np.arange(count, dtype=np.int64)
        sizes = np.full(count, native_bytes, dtype=np.int64)
        return FrameTable(offsets=offsets, sizes=sizes, first=np.arange(count + 1, dtype=np.int64))
    return _encapsulated(path, file, start, size, count, extended)


def _encapsulated(
    path: Path,
    file: PositionedFile,
    start: int,
    size: int,
    count: int,
    extended: tuple[Int64Array, Int64Array] | None,
) -> FrameTable:
    tag, table_size = _item(path, file, start, size)
    if tag != ITEM:
        raise RefusedSlideError(f"{path}: the frames' offset table is broken; copy it again.")
    table = np.frombuffer(file.read(start + 8, table_size), dtype="<u4").astype(np.int64)
    base = start + 8 + table_size
    if extended is not None and extended[0].size == extended[1].size == count:
        offsets = base + extended[0] + 8
        if int((offsets + extended[1]).max()) > size:
            raise RefusedSlideError(f"{path}: cut off within its frames; copy it again.")
        return FrameTable(
            offsets=offsets, sizes=extended[1], first=np.arange(count + 1, dtype=np.int64)
        )
    starts: list[int] = []
    places: list[int] = []
    sizes: list[int] = []
    position = base
    while True:
        tag, length = _item(path, file, position, size)
        if tag == SEQUENCE_END:
            break
        if tag != ITEM or position + 8 + length > size:
            raise RefusedSlideError(f"{path}: cut off or broken within its frames; copy it again.")
        starts.append(position - base)
        places.append(position + 8)
        sizes.append(length)
        position += 8 + length
    fragments = len(starts)
    if fragments == count:
        first = np.arange(count + 1, dtype=np.int64)
    elif table.size == count:
        first = np.append(np.searchsorted(np.array(starts), table), fragments).astype(np.int64)
    elif count == 1:
        first = np.array([0, fragments], dtype=np.int64)
    else:
        raise RefusedSlideError(
            f"{path}: holds {fragments} fragments for {count} frames and no table of them; the "
            "file is damaged or cut off, copy it again."
        )
    return FrameTable(
        offsets=np.array(places, dtype=np.int64),
        sizes=np.array(sizes, dtype=np.int64),
        first=first,
    )


def _item(path: Path, file: PositionedFile, position: int, size: int) -> tuple[bytes, int]:
    if position + 8 > size:
        raise RefusedSlideError(f"{path}: cut off within its frames; copy it again.")
    head = file.read(position, 8)
    return head[:4], int.from_bytes(head[4:], "little")
