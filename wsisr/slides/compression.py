"""How the pixels of a level were compressed, read from the stored streams themselves."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from wsisr.slides.colour import planes_look_like
from wsisr.slides.decode import APERIO_JP2K_YCBCR, CODEC_NAMES, JPEG, PHOTOMETRIC_NAMES, ChunkFormat
from wsisr.slides.jpeg import (
    JpegHeader,
    decode_jpeg,
    is_doubtful,
    parse_jpeg_header,
    stream_space,
)
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
    told = aperio_generations(directory.description) if directory.vendor == "aperio" else 0
    codec = CODEC_NAMES.get(form.compression, "unknown")
    found = stream_compression(form, store.first_chunk(level))
    return replace(
        found,
        generations=max(1, told) if codec in LOSSY else 0,
        sharpened=stated_sharpening(directory.description),
    )


def stream_compression(form: ChunkFormat, chunk: bytes | None) -> Compression:
    """What a stored stream says of its codec and its colours; generations are not known yet.

    Parameters
    ----------
    chunk : bytes or None
        The first stored stream, or its beginning.
    """
    codec = CODEC_NAMES.get(form.compression, "unknown")
    tag = PHOTOMETRIC_NAMES.get(form.photometric, "unknown")
    if form.compression == APERIO_JP2K_YCBCR:
        return Compression(codec=codec, photometric="ycbcr", colour_by="compression tag")
    if form.compression != JPEG:
        return Compression(codec=codec, photometric=tag)
    header = parse_jpeg_header(form.jpeg_header, form.jpeg_tables, chunk)
    space, by = tag, "photometric tag"
    if form.samples == 3 and form.planar != 2 and header.components:
        space, by = stream_space(header, form.photometric, form.doubtful_space)
    return replace(jpeg_compression(header, space, by), tag=tag if tag != space else "")


def jpeg_compression(header: JpegHeader, photometric: str, colour_by: str) -> Compression:
    """What the header of a JPEG stream says, its colours being those."""
    return Compression(
        codec="jpeg",
        photometric=photometric,
        colour_by=colour_by,
        quality=jpeg_quality(header.luminance),
        tables_sha256=header.tables_sha256,
        subsampling=header.subsampling,
    )


def settle_colours(
    form: ChunkFormat, chunks: Iterable[bytes], tile: tuple[int, int]
) -> ChunkFormat:
    """The form with what the pixels say, where a JPEG stream and its tag contradict each other.

    Parameters
    ----------
    chunks : iterable of bytes
        A few stored streams.
    tile : (int, int)
        Width and height of a tile, pixels.
    """
    if form.compression != JPEG or form.samples != 3 or form.planar == 2:
        return form
    votes = []
    for chunk in chunks:
        header = parse_jpeg_header(form.jpeg_header, form.jpeg_tables, chunk)
        if not is_doubtful(header, form.photometric):
            return form
        try:
            raw = decode_jpeg(chunk, form.stated_jpeg(*tile), raw=True)
        except ValueError:
            continue  # a damaged tile is refused when it is read
        votes.append(planes_look_like(raw))
    counted = {space: votes.count(space) for space in ("rgb", "ycbcr")}
    if counted["rgb"] == counted["ycbcr"]:
        return form
    return replace(form, doubtful_space="rgb" if counted["rgb"] > counted["ycbcr"] else "ycbcr")


def colour_note(levels: Sequence[Compression]) -> tuple[str, ...]:
    """A sentence where the stored streams and the container's tag say different things."""
    at = [index for index, how in enumerate(levels) if how.tag]
    if not at:
        return ()
    how = levels[at[0]]
    names = {"rgb": "RGB", "ycbcr": "YCbCr"}
    where = ", ".join(map(str, at))
    return (
        f"Level(s) {where}: the photometric tag says {names.get(how.tag, how.tag)}, the JPEG "
        f"stream is {names.get(how.photometric, how.photometric)} ({how.colour_by}) and is read "
        "so; readers that believe the tag show false colours.",
    )


def _distance(quality: int, wanted: np.ndarray) -> float:
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    table = np.clip((_LUMINANCE_ZIGZAG * scale + 50) // 100, 1, 255)
    return float(np.abs(np.log(table / np.maximum(wanted, 1))).sum())
