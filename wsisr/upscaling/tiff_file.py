"""A tiled pyramidal BigTIFF that every reader takes for what it is.

OpenSlide finds levels only among the file's own pages, marked as reduced images; Bio-Formats
(QuPath) and tifffile's OME reader find them only in the first page's SubIFDs. So each lower level
has two directories, one in either place, and both point at the same tiles: a few hundred bytes
more. tifffile cannot write that, nor tiles in the order in which they are made, so this small
writer does. Tiles come first, in any order; directories last.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from wsisr.arrays import UInt64Array
from wsisr.upscaling.codecs import Codec

ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8, IFD8 = 2, 3, 4, 5, 7, 16, 18
_SIZE = {ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, UNDEFINED: 1, LONG8: 8, IFD8: 8}
HEADER = b"II" + struct.pack("<HHHQ", 43, 8, 0, 0)
_FIRST_DIRECTORY_AT = 8

RawTags = dict[int, tuple[int, bytes]]
"""Tag -> type and the values' bytes."""
Entries = dict[int, bytes]
"""Tag -> the twenty bytes of its directory entry."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LevelImage:
    """One level, its tiles stored.

    Attributes
    ----------
    offsets, byte_counts : ndarray of uint64
        Row by row.
    um_per_px : (float, float) or None
        Of this level.
    """

    width_px: int
    height_px: int
    tile_px: int
    offsets: UInt64Array
    byte_counts: UInt64Array
    um_per_px: tuple[float, float] | None


def write_directories(
    file: BinaryIO,
    levels: Sequence[LevelImage],
    codec: Codec,
    *,
    description: str,
    software: str,
    icc: bytes | None,
) -> None:
    """Append the directories of a file whose tiles are written, and point its header at them.

    Parameters
    ----------
    file : binary file
        Open for reading and writing, starting with `HEADER`.
    levels : sequence of LevelImage
        Finest first.
    description : str
        OME-XML, for the first page.
    icc : bytes or None
        Profile; every level carries it.
    """
    profile = None if icc is None else _put(file, icc)
    directories: list[Entries] = []
    for index, level in enumerate(levels):
        tags = _tags(level, codec, reduced=index > 0)
        tags[305] = (ASCII, software.encode("ascii", "replace") + b"\0")
        if index == 0:
            tags[270] = (ASCII, description.encode("utf-8") + b"\0")
        if icc is not None:
            tags[34675] = (UNDEFINED, icc)
        places = {} if profile is None else {34675: profile}
        directories.append({tag: _entry(file, tag, *tags[tag], places.get(tag)) for tag in tags})
    # Each lower level twice: a directory of its own for the SubIFDs, one for the chain of pages,
    # the last first, because each names the next.
    sub = [_put_directory(file, entries, 0) for entries in directories[1:]]
    following = 0
    for entries in reversed(directories[1:]):
        following = _put_directory(file, entries, following)
    if sub:
        directories[0][330] = _entry(file, 330, IFD8, struct.pack(f"<{len(sub)}Q", *sub), None)
    start = _put_directory(file, directories[0], following)
    file.seek(_FIRST_DIRECTORY_AT)
    file.write(struct.pack("<Q", start))
    file.seek(0, 2)


def _tags(level: LevelImage, codec: Codec, *, reduced: bool) -> RawTags:
    def short(*values: int) -> tuple[int, bytes]:
        return SHORT, struct.pack(f"<{len(values)}H", *values)

    def long(value: int) -> tuple[int, bytes]:
        return LONG, struct.pack("<I", value)

    tags: RawTags = {
        254: long(1 if reduced else 0),
        256: long(level.width_px),
        257: long(level.height_px),
        258: short(*[8] * codec.channels),
        259: short(codec.tiff_code),
        262: short(codec.photometric),
        274: short(1),
        277: short(codec.channels),
        284: short(1),
        322: long(level.tile_px),
        323: long(level.tile_px),
        324: (LONG8, level.offsets.astype("<u8").tobytes()),
        325: (LONG8, level.byte_counts.astype("<u8").tobytes()),
    }
    if codec.predictor is not None:
        tags[317] = short(codec.predictor)
    if codec.subsampling not in (None, (1, 1)):
        # Bio-Formats converts a 4:4:4 stream a second time where this tag says 1, 1: 40 grey
        # levels off (ome/bioformats 2811, 3711). Without it every reader goes by the stream.
        tags[530] = short(*codec.subsampling)
    if level.um_per_px is not None:
        for tag, um in zip((282, 283), level.um_per_px, strict=True):
            tags[tag] = (RATIONAL, struct.pack("<II", *per_centimetre(um)))
        tags[296] = short(3)
    return tags


def per_centimetre(um_per_px: float) -> tuple[int, int]:
    """Pixels per centimetre as a fraction of 32-bit numbers, as fine as they allow."""
    density = 10_000.0 / um_per_px
    unit = 1
    while unit < 1_000_000 and density * unit * 10 < 2**32:
        unit *= 10
    return round(density * unit), unit


def _put(file: BinaryIO, data: bytes) -> int:
    """Append at an even place; returns it."""
    at = file.seek(0, 2)
    if at % 8:
        file.write(b"\0" * (8 - at % 8))
        at += 8 - at % 8
    file.write(data)
    return at


def _entry(file: BinaryIO, tag: int, kind: int, raw: bytes, at: int | None) -> bytes:
    """A directory entry; values that do not fit into it lie at `at`, or are written now."""
    value = raw.ljust(8, b"\0")
    if len(raw) > 8:
        value = struct.pack("<Q", _put(file, raw) if at is None else at)
    return struct.pack("<HHQ", tag, kind, len(raw) // _SIZE[kind]) + value


def _put_directory(file: BinaryIO, entries: Entries, following: int) -> int:
    body = b"".join(entries[tag] for tag in sorted(entries))
    return _put(file, struct.pack("<Q", len(entries)) + body + struct.pack("<Q", following))
