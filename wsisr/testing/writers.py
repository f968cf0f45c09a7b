"""A small tiled-TIFF writer that can do what vendors do and libraries do not offer.

Tiles may come in any order, be missing (byte count 0), or share one copy of the same bytes, so that
empty glass costs nothing; JPEG tiles are abbreviated streams with one table segment per
level, without JFIF or Adobe markers, as scanners write them. Directories are written last.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsisr.arrays import UInt8Array, UInt64Array

ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 2, 3, 4, 5, 7, 16
_CODE = {ASCII: "B", SHORT: "H", LONG: "I", RATIONAL: "II", UNDEFINED: "B", LONG8: "Q"}

COMPRESSION_TAG = {"none": 1, "lzw": 5, "jpeg": 7, "deflate": 8, "jpeg2000": 33005}
CLASSIC_LIMIT = 3_500_000_000


@dataclass(frozen=True, kw_only=True)
class TileCodec:
    """How tiles are stored.

    Attributes
    ----------
    name : {"jpeg", "jpeg2000", "deflate", "lzw", "none"}
        Only JPEG is lossy.
    quality : int
        libjpeg quality, 1-100.
    ycbcr : bool
        JPEG colour space; False stores RGB without a colour transform, as Aperio does.
    subsampling : {"444", "422", "420"}
        Chroma subsampling of YCbCr JPEG.
    """

    name: str = "jpeg"
    quality: int = 80
    ycbcr: bool = True
    subsampling: str = "420"

    @property
    def lossless(self) -> bool:
        return self.name != "jpeg"

    def encode(self, rgb: UInt8Array) -> tuple[bytes, bytes | None]:
        """Bytes of a tile, and the shared JPEG tables (None for other codecs)."""
        rgb = np.ascontiguousarray(rgb)
        if self.name == "jpeg":
            stream = imagecodecs.jpeg8_encode(
                rgb,
                level=self.quality,
                colorspace="RGB",
                outcolorspace="YCBCR" if self.ycbcr else "RGB",
                subsampling=self.subsampling if self.ycbcr else "444",
            )
            return _split_jpeg(bytes(stream))
        if self.name == "jpeg2000":
            data = imagecodecs.jpeg2k_encode(rgb, level=0, codecformat="j2k", reversible=True)
        elif self.name == "deflate":
            data = imagecodecs.zlib_encode(rgb.tobytes(), level=4)
        elif self.name == "lzw":
            data = imagecodecs.lzw_encode(rgb.tobytes())
        else:
            data = rgb.tobytes()
        return bytes(data), None

    def decode(self, data: bytes, tables: bytes | None, shape: tuple[int, int, int]) -> UInt8Array:
        """Pixels of a stored tile."""
        if self.name == "jpeg":
            rgb = imagecodecs.jpeg8_decode(
                data,
                tables=tables,
                colorspace="YCBCR" if self.ycbcr else "RGB",
                outcolorspace="RGB",
            )
            return np.asarray(rgb, np.uint8)
        if self.name == "jpeg2000":
            return np.asarray(imagecodecs.jpeg2k_decode(data), np.uint8)
        if self.name == "deflate":
            data = bytes(imagecodecs.zlib_decode(data))
        elif self.name == "lzw":
            data = bytes(imagecodecs.lzw_decode(data))
        return np.frombuffer(data, np.uint8).reshape(shape)


def _split_jpeg(stream: bytes) -> tuple[bytes, bytes]:
    """Split a JPEG file into an abbreviated image and its tables; application markers go."""
    tables, image = bytearray(), bytearray()
    at = 2
    while True:
        marker = stream[at + 1]
        if marker == 0xDA:
            break
        size = 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        segment = stream[at : at + size]
        if marker in (0xDB, 0xC4):
            tables += segment
        elif not 0xE0 <= marker <= 0xEF:
            image += segment
        at += size
    return b"\xff\xd8" + bytes(image) + stream[at:], b"\xff\xd8" + bytes(tables) + b"\xff\xd9"


@dataclass(kw_only=True)
class TiffPage:
    """One image of the file while it is being written.

    Attributes
    ----------
    width_px, height_px : int
        Stored size.
    tile_px : int
        Tile side; 0 for one strip.
    subfile_type : int
        TIFF NewSubfileType.
    um_per_px : float or None
        Written as pixels per centimetre where given.
    """

    width_px: int
    height_px: int
    tile_px: int
    codec: TileCodec
    description: str | None = None
    software: str | None = None
    make: str | None = None
    subfile_type: int = 0
    um_per_px: float | None = None
    icc: bytes | None = None
    offsets: UInt64Array = field(init=False)
    counts: UInt64Array = field(init=False)
    tables: bytes | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.offsets = np.zeros(self.columns * self.rows, np.uint64)
        self.counts = np.zeros(self.columns * self.rows, np.uint64)

    @property
    def columns(self) -> int:
        return -(-self.width_px // self.tile_px) if self.tile_px else 1

    @property
    def rows(self) -> int:
        return -(-self.height_px // self.tile_px) if self.tile_px else 1


class TiffWriter:
    """Write tiles as they come and the directories at the end.

    Parameters
    ----------
    big : bool
        BigTIFF (64-bit offsets).
    """

    def __init__(self, path: Path, *, big: bool) -> None:
        self.big = big
        self._pages: list[TiffPage] = []
        self._shared: dict[bytes, int] = {}
        self._file = path.open("wb")
        self._file.write(b"II" + struct.pack("<HHHQ", 43, 8, 0, 0) if big else b"II*\0\0\0\0\0")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._file.close()

    def add_page(self, page: TiffPage) -> None:
        """Append a page; its tiles can be written before or after."""
        self._pages.append(page)

    def write_tile(self, page: TiffPage, column: int, row: int, rgb: UInt8Array) -> None:
        """Encode and store one tile (or the only strip)."""
        data = self.encode(page, rgb)
        self.place_tile(page, column, row, self._put(data), len(data))

    def write_encoded_tile(
        self, page: TiffPage, column: int, row: int, data: bytes, *, shared: bool
    ) -> None:
        """Store already encoded bytes, or point to the one copy of them in the file."""
        if not shared:
            offset = self._put(data)
        elif data in self._shared:
            offset = self._shared[data]
        else:
            offset = self._shared[data] = self._put(data)
        self.place_tile(page, column, row, offset, len(data))

    def encode(self, page: TiffPage, rgb: UInt8Array) -> bytes:
        """Bytes of a tile of this page; the page remembers the JPEG tables."""
        data, tables = page.codec.encode(rgb)
        page.tables = tables
        return data

    @staticmethod
    def place_tile(page: TiffPage, column: int, row: int, offset: int, count: int) -> None:
        index = row * page.columns + column
        page.offsets[index] = offset
        page.counts[index] = count

    def _put(self, data: bytes) -> int:
        offset = self._file.tell()
        if offset % 2:
            self._file.write(b"\0")
            offset += 1
        self._file.write(data)
        return offset

    def _finish(self) -> None:
        link = 8 if self.big else 4
        pointer = "<Q" if self.big else "<I"
        for page in self._pages:
            entries = [
                self._entry(tag, kind, values) for tag, kind, values in _tags(page, self.big)
            ]
            start = self._put(b"")
            self._file.seek(link)
            self._file.write(struct.pack(pointer, start))
            self._file.seek(start)
            self._file.write(struct.pack("<Q" if self.big else "<H", len(entries)))
            self._file.write(b"".join(entries))
            link = self._file.tell()
            self._file.write(struct.pack(pointer, 0))

    def _entry(self, tag: int, kind: int, values: bytes | NDArray[np.generic]) -> bytes:
        """A directory entry; values too long for it are written now."""
        raw = values if isinstance(values, bytes) else values.tobytes()
        count = len(raw) // struct.calcsize("<" + _CODE[kind])
        room = 8 if self.big else 4
        if len(raw) > room:
            raw = struct.pack("<Q" if self.big else "<I", self._put(raw))
        return struct.pack("<HHQ" if self.big else "<HHI", tag, kind, count) + raw.ljust(
            room, b"\0"
        )


def _tags(page: TiffPage, big: bool) -> list[tuple[int, int, bytes | NDArray[np.generic]]]:
    """All tags of a page, sorted."""

    def short(*values: int) -> NDArray[np.generic]:
        return np.array(values, "<u2")

    def text(value: str) -> bytes:
        return value.encode("utf-8") + b"\0"

    codec = page.codec
    jpeg_ycbcr = codec.name == "jpeg" and codec.ycbcr
    offsets, wide = ("<u8", LONG8) if big else ("<u4", LONG)
    tags: dict[int, tuple[int, bytes | NDArray[np.generic]]] = {
        254: (LONG, np.array([page.subfile_type], "<u4")),
        256: (LONG, np.array([page.width_px], "<u4")),
        257: (LONG, np.array([page.height_px], "<u4")),
        258: (SHORT, short(8, 8, 8)),
        259: (SHORT, short(COMPRESSION_TAG[codec.name])),
        262: (SHORT, short(6 if jpeg_ycbcr else 2)),
        277: (SHORT, short(3)),
        284: (SHORT, short(1)),
    }
    if page.tile_px:
        tags[322] = tags[323] = (SHORT, short(page.tile_px))
        tags[324] = (wide, page.offsets.astype(offsets))
        tags[325] = (LONG, page.counts.astype("<u4"))
    else:
        tags[273] = (wide, page.offsets.astype(offsets))
        tags[278] = (LONG, np.array([page.height_px], "<u4"))
        tags[279] = (LONG, page.counts.astype("<u4"))
    if codec.name == "jpeg" and page.tables is not None:
        tags[347] = (UNDEFINED, page.tables)
    if jpeg_ycbcr:
        across, down = {"444": (1, 1), "422": (2, 1), "420": (2, 2)}[codec.subsampling]
        tags[530] = (SHORT, short(across, down))
    for tag, value in ((270, page.description), (271, page.make), (305, page.software)):
        if value is not None:
            tags[tag] = (ASCII, text(value))
    if page.um_per_px is not None:
        density = np.array([round(10_000.0 / page.um_per_px * 1000), 1000], "<u4")
        tags[282] = tags[283] = (RATIONAL, density)
        tags[296] = (SHORT, short(3))
    if page.icc is not None:
        tags[34675] = (UNDEFINED, page.icc)
    return [(tag, *tags[tag]) for tag in sorted(tags)]
