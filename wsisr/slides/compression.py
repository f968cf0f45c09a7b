"""How the pixels of a level were compressed, read from the stored streams themselves."""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wsisr.slides.decode import APERIO_JP2K_YCBCR, CODEC_NAMES, JPEG, PHOTOMETRIC_NAMES
from wsisr.slides.protocol import Compression
from wsisr.slides.tiff_directory import TiffDirectory
from wsisr.slides.tiff_metadata import aperio_generations, stated_sharpening

if TYPE_CHECKING:
    from wsisr.slides.direct import DirectStore

LOSSY = ("jpeg", "jpeg2000", "webp", "unknown")

# Annex K.1 luminance table of ITU-T T.81 in zigzag order: the base of libjpeg's quality scale.
# fmt: off
_LUMINANCE_ZIGZAG = np.array([
    16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40,
    26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61, 60, 57, 51,
    56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87,
    95, 98, 103, 104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101, 103, 99,
], dtype=np.int64)
# fmt: on


_SUBSAMPLINGS: dict[tuple[float, float], str] = {
    (1, 1): "4:4:4",
    (2, 1): "4:2:2",
    (2, 2): "4:2:0",
    (1, 2): "4:4:0",
    (4, 1): "4:1:1",
}


@dataclass(frozen=True, kw_only=True)
class JpegHeader:
    """The parts of a JPEG header that tell how it was made.

    Attributes
    ----------
    tables : dict
        Quantisation tables by number, 64 values each in zigzag order.
    components : tuple of (identifier, horizontal, vertical, table)
        From the frame header; empty in an abbreviated table stream.
    jfif : bool
        Whether a JFIF marker declares YCbCr.
    adobe_transform : int or None
        Colour transform of an Adobe marker.
    """

    tables: dict[int, tuple[int, ...]]
    components: tuple[tuple[int, int, int, int], ...]
    jfif: bool
    adobe_transform: int | None

    @property
    def subsampling(self) -> str | None:
        """``"4:4:4"``, ``"4:2:2"``, ``"4:2:0"``, ...; None without chroma."""
        if len(self.components) != 3:
            return None
        _, horizontal, vertical, _ = self.components[0]
        shares = {(h, v) for _, h, v, _ in self.components[1:]}
        if len(shares) != 1:
            return "mixed"
        share_h, share_v = shares.pop()
        ratio = (horizontal / share_h, vertical / share_v)
        return _SUBSAMPLINGS.get(ratio, f"{ratio[0]:g}x{ratio[1]:g}")

    @property
    def luminance(self) -> tuple[int, ...] | None:
        """Table of the first component."""
        number = self.components[0][3] if self.components else 0
        return self.tables.get(number)

    @property
    def tables_sha256(self) -> str | None:
        if not self.tables:
            return None
        text = ";".join(f"{k}:{','.join(map(str, v))}" for k, v in sorted(self.tables.items()))
        return hashlib.sha256(text.encode()).hexdigest()


def parse_jpeg_header(*streams: bytes | None) -> JpegHeader:
    """Read quantisation tables and sampling factors from one or more JPEG streams.

    Parameters
    ----------
    *streams : bytes or None
        E.g. the shared tables of a TIFF and one of its tiles, in this order; later tables win.
        Broken streams give what they hold up to the fault.
    """
    tables: dict[int, tuple[int, ...]] = {}
    components: tuple[tuple[int, int, int, int], ...] = ()
    jfif = False
    adobe: int | None = None
    for data in streams:
        for marker, body in _segments(data or b""):
            if marker == 0xDB:
                tables.update(_quantisation(body))
            elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(body) >= 6:
                count = body[5]
                parts = [body[6 + 3 * i : 9 + 3 * i] for i in range(count)]
                components = tuple((p[0], p[1] >> 4, p[1] & 15, p[2]) for p in parts if len(p) == 3)
            elif marker == 0xE0 and body[:4] == b"JFIF":
                jfif = True
            elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
                adobe = body[11]
    return JpegHeader(tables=tables, components=components, jfif=jfif, adobe_transform=adobe)


def jpeg_quality(luminance: tuple[int, ...] | None) -> int | None:
    """libjpeg quality (1-100) whose luminance table is nearest to the given one.

    Scanners with tables of their own get the quality of about the same coarseness; the hash in
    `Compression.tables_sha256` tells them apart.
    """
    if luminance is None or len(luminance) != 64:
        return None
    wanted = np.asarray(luminance, dtype=np.int64)
    best = min(range(1, 101), key=lambda quality: (_distance(quality, wanted), -quality))
    return int(best)


def tiff_compression(directory: TiffDirectory, level: int, store: "DirectStore") -> Compression:
    """Compression of one level of a TIFF-family slide."""
    stored = directory.levels[level]
    form = stored.form
    codec = CODEC_NAMES.get(form.compression, "unknown")
    photometric = PHOTOMETRIC_NAMES.get(form.photometric, "unknown")
    if form.compression == APERIO_JP2K_YCBCR:
        photometric = "ycbcr"
    generations = 0
    if codec in LOSSY:
        told = aperio_generations(directory.description) if directory.vendor == "aperio" else 0
        generations = max(1, told)
    sharpened = stated_sharpening(directory.description)
    if form.compression != JPEG:
        return Compression(
            codec=codec, photometric=photometric, generations=generations, sharpened=sharpened
        )
    header = parse_jpeg_header(form.jpeg_header, form.jpeg_tables, store.first_chunk(level))
    return Compression(
        codec=codec,
        photometric=photometric,
        quality=jpeg_quality(header.luminance),
        tables_sha256=header.tables_sha256,
        subsampling=header.subsampling,
        generations=generations,
        sharpened=sharpened,
    )


def _distance(quality: int, wanted: np.ndarray) -> float:
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    table = np.clip((_LUMINANCE_ZIGZAG * scale + 50) // 100, 1, 255)
    return float(np.abs(np.log(table / np.maximum(wanted, 1))).sum())


def _segments(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker in (0xD8, 0xFF) or 0xD0 <= marker <= 0xD7:
            position += 1 if marker == 0xFF else 2
            continue
        if marker in (0xD9, 0xDA):
            break
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        found.append((marker, data[position + 4 : position + 2 + length]))
        position += 2 + max(2, length)
    return found


def _quantisation(body: bytes) -> dict[int, tuple[int, ...]]:
    tables = {}
    position = 0
    while position < len(body):
        wide, number = body[position] >> 4, body[position] & 15
        size = 128 if wide else 64
        values = body[position + 1 : position + 1 + size]
        if len(values) < size:
            break
        if wide:
            pairs = np.frombuffer(values, dtype=">u2")
            tables[number] = tuple(int(value) for value in pairs)
        else:
            tables[number] = tuple(values)
        position += 1 + size
    return tables
