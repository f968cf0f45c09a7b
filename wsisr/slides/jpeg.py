"""JPEG streams inside slides: what their headers say, which colours they hold, strict decoding.

libjpeg warns of corrupt data, fills in what is missing and goes on; a slide read that way turns
one flipped bit into pixels that nobody took. So every stream is decoded strictly: a warning is an
error of its tile. About a quarter of all flips of one bit leave a stream that breaks a rule; the
others leave a legal one, which no decoder can tell from the original.

A stream's colour space follows from the stream first and from the container's photometric tag
only then, because writers exist that store YCbCr under a tag that says RGB (Bio-Formats up to
6.7, so QuPath) and RGB under one that says YCbCr.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from wsisr.arrays import AnyArray, UInt8Array

Space = Literal["rgb", "ycbcr"]
YCBCR_TAG = 6
"""Value of the photometric tag (TIFF 6.0, tag 262)."""

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DCT = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
"""Sequential and progressive DCT; what is left is lossless or hierarchical."""
_RED_GREEN_BLUE = (82, 71, 66)
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
    frame : int
        Marker of the frame header (0xC0 for baseline); 0 without one.
    width, height : int
        As the frame header states.
    bits : int
        A sample.
    """

    tables: dict[int, tuple[int, ...]]
    components: tuple[tuple[int, int, int, int], ...] = ()
    jfif: bool = False
    adobe_transform: int | None = None
    frame: int = 0
    width: int = 0
    height: int = 0
    bits: int = 8

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
        if not share_h or not share_v:
            return "mixed"
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
    """Read what the headers of one or more JPEG streams say.

    Parameters
    ----------
    *streams : bytes or None
        E.g. the shared tables of a TIFF and one of its tiles, in this order; later tables win.
        Broken streams give what they hold up to the fault.
    """
    header = JpegHeader(tables={})
    for data in streams:
        segments, _ = _segments(data or b"")
        for marker, start, end in segments:
            if marker == 0xDB and data is not None:
                header.tables.update(_quantisation(data[start + 4 : end]))
        header = _with_facts(header, data or b"", segments)
    return header


def stream_space(
    header: JpegHeader, photometric: int, doubtful: Space | None = None
) -> tuple[Space, str]:
    """Colour space of a stream of three components, and what says so.

    Parameters
    ----------
    header : JpegHeader
        Of the shared tables and a tile.
    photometric : int
        The container's tag: 2 for RGB, 6 for YCbCr.
    doubtful : {"rgb", "ycbcr"}, optional
        What the pixels say where header and tag contradict each other (`is_doubtful`); None
        believes the stream's JFIF marker, or the tag where it has none.

    Notes
    -----
    In this order: the Adobe marker; subsampled chroma, which RGB never has (TIFF Technical Note
    2); components named R, G, B; a tag that says YCbCr. What is left has a tag that says RGB.
    """
    if header.adobe_transform is not None:
        return ("rgb" if header.adobe_transform == 0 else "ycbcr"), "Adobe marker"
    if header.subsampling not in ("4:4:4", None):
        return "ycbcr", f"chroma {header.subsampling}"
    if tuple(part[0] for part in header.components) == _RED_GREEN_BLUE:
        return "rgb", "names of its components"
    if photometric == YCBCR_TAG:
        return "ycbcr", "photometric tag"
    if is_doubtful(header, photometric):
        if doubtful is not None:
            return doubtful, "pixels"
        return ("ycbcr", "JFIF marker") if header.jfif else ("rgb", "photometric tag")
    return "rgb", "photometric tag"


def is_doubtful(header: JpegHeader, photometric: int) -> bool:
    """Whether the tag says RGB and the stream looks like YCbCr without being marked for certain.

    Full chroma under a JFIF marker (which knows YCbCr alone), or with quantisation tables of its
    own: encoders use one table for the three planes of RGB.
    """
    return (
        photometric != YCBCR_TAG
        and header.adobe_transform is None
        and header.subsampling == "4:4:4"
        and tuple(part[0] for part in header.components) != _RED_GREEN_BLUE
        and (header.jfif or len({part[3] for part in header.components}) > 1)
    )


@dataclass(frozen=True, kw_only=True)
class StatedJpeg:
    """What a container says of a JPEG stream, which may lean on it.

    Attributes
    ----------
    samples : int
        Components: 1, 3 (returned as RGB) or 4 (returned as stored).
    width_px, height_px : int
        Largest size that is accepted.
    photometric : int
        The container's tag.
    tables : bytes, optional
        Abbreviated stream with shared tables.
    segment_header : bytes, optional
        Header that a restart segment of an NDPI level needs.
    doubtful : {"rgb", "ycbcr"}, optional
        See `stream_space`.
    """

    samples: int
    width_px: int
    height_px: int
    photometric: int = YCBCR_TAG
    tables: bytes | None = None
    segment_header: bytes | None = None
    doubtful: Space | None = None


def decode_jpeg(data: bytes, stated: StatedJpeg, *, raw: bool = False) -> UInt8Array:
    """Decode one stream, strictly.

    Parameters
    ----------
    data : bytes
        A whole stream, an abbreviated one, or a restart segment.
    raw : bool
        Return three components as they are stored.

    Returns
    -------
    ndarray, shape (height, width, samples), uint8

    Raises
    ------
    ValueError
        If the stream is broken, ends early or has another form than stated.
    """
    import simplejpeg

    out = {1: "GRAY", 3: "RGB", 4: "CMYK"}[stated.samples]
    image: AnyArray = simplejpeg.decode_jpeg(whole_stream(data, stated, raw=raw), colorspace=out)
    return image


def whole_stream(data: bytes, stated: StatedJpeg, *, raw: bool = False) -> bytes:
    """A stream that says everything itself: shared tables merged, its colours by an Adobe marker.

    What `decode_jpeg` decodes; its scan is the file's, byte for byte. Parameters and errors are
    those of `decode_jpeg`.
    """
    if stated.segment_header is not None:
        data = stated.segment_header + (data[:-2] if _ends_with_restart(data) else data)
        data += b"" if data.endswith(EOI) else EOI
    segments, scan = _segments(data)
    if data[:2] != SOI or scan is None:
        raise ValueError("it is no JPEG stream, or its header is broken")
    shared, told = _shared(stated.tables) if stated.tables else (b"", JpegHeader(tables={}))
    header = _with_facts(told, data, segments)
    if header.frame not in _DCT or header.bits != 8:
        raise ValueError("lossless, hierarchical and 12-bit JPEG are not read")
    if len(header.components) != stated.samples:
        raise ValueError(
            f"its stream has {len(header.components)} component(s), not {stated.samples}"
        )
    if header.width > stated.width_px or header.height > stated.height_px:
        raise ValueError(f"its stream states {header.width} x {header.height} px")
    space: Space = "rgb"
    if stated.samples == 3 and not raw:
        space, _ = stream_space(header, stated.photometric, stated.doubtful)
    # An Adobe marker of our own says what was decided; the stream's own markers are taken away,
    # because libjpeg believes JFIF before Adobe and warns of profiles that span streams.
    kept = [data[start:end] for marker, start, end in segments if not _is_remark(marker)]
    # Of four components nothing is known but YCCK, which libjpeg turns into CMYK.
    ycck = stated.samples == 4 and header.adobe_transform == 2
    marker = _ADOBE["ycck" if ycck else space]
    return b"".join((SOI, marker, shared, *kept, data[scan:]))


_ADOBE: dict[str, bytes] = {
    space: b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    for space, transform in (("rgb", 0), ("ycbcr", 1), ("ycck", 2))
}


@lru_cache(maxsize=64)
def _shared(tables: bytes) -> tuple[bytes, JpegHeader]:
    """Segments of a stream of shared tables without its remarks, and what its markers say."""
    segments, _ = _segments(tables)
    kept = [tables[start:end] for marker, start, end in segments if not _is_remark(marker)]
    return b"".join(kept), _with_facts(JpegHeader(tables={}), tables, segments)


def _is_remark(marker: int) -> bool:
    """Application data and comments."""
    return 0xE0 <= marker <= 0xEF or marker == 0xFE


def _ends_with_restart(data: bytes) -> bool:
    return len(data) > 2 and data[-2] == 0xFF and 0xD0 <= data[-1] <= 0xD7


def _with_facts(
    header: JpegHeader, data: bytes, segments: list[tuple[int, int, int]]
) -> JpegHeader:
    """The header with what the frame header and the markers of one more stream say."""
    changes: dict[str, Any] = {}
    for marker, start, end in segments:
        body = data[start + 4 : end]
        if marker in _FRAMES and len(body) >= 6:
            parts = [body[6 + 3 * i : 9 + 3 * i] for i in range(body[5])]
            changes |= {
                "frame": marker,
                "bits": body[0],
                "height": int.from_bytes(body[1:3], "big"),
                "width": int.from_bytes(body[3:5], "big"),
                "components": tuple(
                    (p[0], p[1] >> 4, p[1] & 15, p[2]) for p in parts if len(p) == 3
                ),
            }
        elif marker == 0xE0 and body[:4] == b"JFIF":
            changes["jfif"] = True
        elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            changes["adobe_transform"] = body[11]
    return replace(header, **changes) if changes else header


def _segments(data: bytes) -> tuple[list[tuple[int, int, int]], int | None]:
    """(marker, start, end) of the segments before the first scan, and where that one starts."""
    found: list[tuple[int, int, int]] = []
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker in (0xD8, 0xFF) or 0xD0 <= marker <= 0xD7:
            position += 1 if marker == 0xFF else 2
            continue
        if marker == 0xDA:
            return found, position
        if marker == 0xD9:
            break
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        end = position + 2 + max(2, length)
        found.append((marker, position, end))
        position = end
    return found, None


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
