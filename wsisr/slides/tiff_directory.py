"""The directory of a TIFF-family slide: which pages are levels, and where their tiles lie.

tifffile reads the tags; what is kept is plain arrays, so that no tifffile object outlives the
opening and a slide with 150,000 tiles costs a few megabytes. Everything that a damaged or
hostile file can claim is checked against the file's size here, before any memory is asked for.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from wsisr.arrays import Int64Array
from wsisr.errors import SlideError
from wsisr.slides.decode import CODEC_NAMES, JPEG, JPEG2000_CODES, ChunkFormat
from wsisr.slides.faults import (
    PlainImageOnlyError,
    RefusedSlideError,
    UnconvertedError,
    quiet,
)
from wsisr.slides.tiff_series import choose_series, is_alike, is_level, refuse_stack
from wsisr.slides.tiff_tags import (
    philips_spacings_um,
    resolution_um,
    text_of,
    vendor_of,
    vendor_tags,
)
from wsisr.slides.tiles import TileGrid

MAX_TILE_BYTES = 512 << 20
"""Largest decoded tile or strip that is accepted, bytes."""
PLACED_FREELY = ("leica", "trestle", "ventana")
"""Vendors whose tiles overlap or lie in regions: OpenSlide's ground."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TiffLevel:
    """One stored level.

    Attributes
    ----------
    grid : TileGrid
        Of the true image; `stored_columns` counts what the file stores across.
    offsets, byte_counts : ndarray of int64
        One a chunk, in bytes; a count of 0 means never scanned.
    """

    grid: TileGrid
    stored_columns: int
    stored_rows: int
    offsets: Int64Array
    byte_counts: Int64Array
    form: ChunkFormat

    def chunks_of(self, row: int, column: int) -> list[int]:
        """Indices of the chunks that make one tile."""
        index = row * self.stored_columns + column
        stride = self.stored_columns * self.stored_rows
        return [index + plane * stride for plane in range(self.form.planes)]


@dataclass(frozen=True, kw_only=True, eq=False)
class TiffDirectory:
    """What a TIFF-family file says of itself.

    Attributes
    ----------
    description : str
        Of the first page.
    levels : tuple of TiffLevel
        Finest first.
    resolution : tuple of float or None
        Micrometres per pixel (x, y) by the general TIFF tags of the first page.
    tags : dict
        The few vendor tags that matter, by name.
    ome_um_per_px : tuple of float or None
        Micrometres per pixel (x, y) by the OME-XML of the image that is read.
    focal_plane : int or None
        Which of several is read, counted from 1.
    blind_readers : tuple of str
        See `SlideInfo`: those that always show the first page.
    """

    path: Path
    vendor: str
    description: str
    levels: tuple[TiffLevel, ...]
    resolution: tuple[float, float] | None
    icc: bytes | None
    tags: dict[str, float] = field(default_factory=dict)
    quirks: tuple[str, ...] = ()
    ome_um_per_px: tuple[float, float] | None = None
    focal_plane: int | None = None
    blind_readers: tuple[str, ...] = ()

    @property
    def icc_sha256(self) -> str | None:
        return hashlib.sha256(self.icc).hexdigest() if self.icc else None


def is_tiff(path: Path) -> bool:
    """Whether the first bytes are those of a TIFF, BigTIFF or NDPI file."""
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except OSError:
        return False
    return magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_directory(path: Path, focal_plane: int | None = None) -> TiffDirectory:
    """Read the directory of a TIFF-family slide; of several focal planes one (`choose_plane`).

    Raises
    ------
    SlideError
        If the file is no TIFF, is cut off, contradicts itself, or stores samples that are not
        8-bit grey, RGB or RGBA.
    """
    with open(path, "rb") as file:
        return read_directory_of(file, path, path.stat().st_size, focal_plane)


def read_directory_of(
    file: BinaryIO, path: Path, size_bytes: int, focal_plane: int | None = None
) -> TiffDirectory:
    """The same from an open file, local or remote; `path` names it.

    Raises
    ------
    SlideError
        As `read_directory`.
    """
    import tifffile

    try:
        with quiet("tifffile"), tifffile.TiffFile(file, name=path.name) as tiff:
            return _from_tiff(path, size_bytes, tiff, focal_plane)
    except SlideError:
        raise
    except Exception as error:  # tifffile raises what it meets: struct, index, key, value errors
        detail = str(error).split("\n", 1)[0][:200]
        raise SlideError(
            f"{path}: not a readable TIFF ({type(error).__name__}: {detail}); the file is damaged "
            "or of another kind, copy it again or leave it out."
        ) from error


def _from_tiff(path: Path, size: int, tiff: Any, focal_plane: int | None) -> TiffDirectory:
    vendor = vendor_of(tiff, tiff.pages[0])
    series = choose_series(path, tiff, vendor, focal_plane)
    base = series.candidates[0].first
    description = text_of(base, "ImageDescription")
    true_sizes = _philips_sizes(description) if vendor == "philips" else {}
    quirks = list(series.quirks)
    levels: list[TiffLevel] = []
    as_large: list[int] = []
    skipped = 0
    for chosen in series.candidates:
        page = chosen.first
        if page is not base and not is_level(base, page, tiff.is_ndpi, vendor):
            if vendor == "generic-tiff" and is_alike(base, page):
                as_large.append(chosen.number)
            continue
        width, height = _true_size(base, page, true_sizes, len(levels))
        if levels:
            last = levels[-1].grid
            if width >= last.width_px or height >= last.height_px:
                # A second directory of the same tiles (for readers that look elsewhere) is no page.
                if _lists_tiles_of(page, levels):
                    continue
                if (width, height) == (levels[0].grid.width_px, levels[0].grid.height_px):
                    as_large.append(chosen.number)
                skipped += 1
                continue
        planes = [_level(path, size, chosen.number, one, width, height) for one in chosen.pages]
        levels.append(planes[0] if len(planes) == 1 else _joined(path, planes))
    refuse_stack(path, base, as_large)
    if skipped:
        quirks.append(f"{skipped} further page(s) as large as a level before them were ignored.")
    missing = sum(int((level.byte_counts == 0).sum()) for level in levels)
    if missing:
        quirks.append(f"{missing} tile(s) were never scanned (byte count 0): white and invalid.")
    if levels[0].form.has_alpha:
        quirks.append("Its transparency was laid on white.")
    icc = base.tags.get("InterColorProfile")
    return TiffDirectory(
        path=path,
        vendor=vendor,
        description=description,
        levels=tuple(levels),
        resolution=resolution_um(base),
        icc=bytes(icc.value) if icc is not None else None,
        tags=vendor_tags(base),
        quirks=tuple(quirks),
        ome_um_per_px=series.um_per_px,
        focal_plane=series.focal_plane,
        blind_readers=series.blind_readers,
    )


def _lists_tiles_of(page: Any, levels: Sequence[TiffLevel]) -> bool:
    """Whether a page points at the very tiles of a level that is known already."""
    return any(np.array_equal(np.asarray(page.dataoffsets), level.offsets) for level in levels)


def _joined(path: Path, planes: list[TiffLevel]) -> TiffLevel:
    """Red, green and blue that lie in pages of their own, as one level with planes apart."""
    first = planes[0]
    if any((plane.grid, plane.form) != (first.grid, first.form) for plane in planes):
        raise RefusedSlideError(
            f"{path}: its red, green and blue are stored in different ways; convert it to RGB."
        )
    if first.form.photometric != 1:
        raise RefusedSlideError(f"{path}: its channels are stored inverted; convert it to RGB.")
    return replace(
        first,
        offsets=np.concatenate([plane.offsets for plane in planes]),
        byte_counts=np.concatenate([plane.byte_counts for plane in planes]),
        form=replace(first.form, photometric=2, planar=2, samples=3),
    )


def _level(path: Path, size: int, number: int, page: Any, width: int, height: int) -> TiffLevel:
    stored_width, stored_height = int(page.imagewidth), int(page.imagelength)
    samples = int(page.samplesperpixel)
    _check_samples(path, number, page)
    if page.is_tiled:
        tile_width, tile_height = int(page.tilewidth), int(page.tilelength)
    else:
        rows = int(page.rowsperstrip) or stored_height
        tile_width, tile_height = stored_width, min(rows, stored_height)
    if min(stored_width, stored_height, tile_width, tile_height) < 1:
        raise RefusedSlideError(f"{path}: page {number} has a size of 0; the file is damaged.")
    if tile_width * tile_height * samples > MAX_TILE_BYTES:
        raise RefusedSlideError(
            f"{path}: page {number} is stored in pieces of {tile_width} x {tile_height} px, more "
            f"than {MAX_TILE_BYTES >> 20} MiB each; convert it to a tiled TIFF."
        )
    columns, rows = -(-stored_width // tile_width), -(-stored_height // tile_height)
    planes = samples if int(page.planarconfig) == 2 else 1
    offsets = np.asarray(page.dataoffsets, dtype=np.int64)
    counts = np.asarray(page.databytecounts, dtype=np.int64)
    if columns * rows * planes != offsets.size or offsets.size != counts.size:
        raise RefusedSlideError(
            f"{path}: page {number} claims {stored_width} x {stored_height} px but lists "
            f"{offsets.size} of {columns * rows * planes} tiles; the file is damaged or cut off, "
            "copy it again."
        )
    used = counts > 0
    end = int((offsets + counts)[used].max()) if bool(used.any()) else 0
    if end > size or bool((counts < 0).any()) or bool((offsets < 0).any()):
        raise RefusedSlideError(
            f"{path}: cut off: it is {size:,} bytes long and its tiles reach to byte {end:,}; "
            "copy it again."
        )
    if not bool(used.any()):
        raise RefusedSlideError(f"{path}: page {number} has no pixel data; the file is damaged.")
    return TiffLevel(
        grid=TileGrid(
            width_px=width, height_px=height, tile_width_px=tile_width, tile_height_px=tile_height
        ),
        stored_columns=columns,
        stored_rows=rows,
        offsets=offsets,
        byte_counts=counts,
        form=_chunk_format(page, samples),
    )


def _check_samples(path: Path, number: int, page: Any) -> None:
    bits = page.bitspersample
    format_ok = int(page.sampleformat) == 1
    if bits != 8 or not format_ok:
        raise PlainImageOnlyError(
            f"{path}: page {number} has {page.samplesperpixel} sample(s) of {bits} bit"
            f"{'' if format_ok else ' that are no unsigned integers'}; only 8-bit grey, RGB and "
            "RGBA are read, convert it to 8-bit RGB."
        )
    turn = page.tags.get("Orientation")
    if turn is not None and int(turn.value) != 1:
        raise PlainImageOnlyError(
            f"{path}: page {number} is to be turned (orientation {int(turn.value)}), which is done "
            "for plain images alone; save it upright."
        )
    if int(page.samplesperpixel) not in (1, 3, 4):
        raise UnconvertedError(
            f"{path}: page {number} has {page.samplesperpixel} sample(s) of {bits} bit; only 8-bit "
            "grey, RGB and RGBA are read, convert it to 8-bit RGB."
        )
    if int(page.compression) not in CODEC_NAMES:
        raise SlideError(
            f"{path}: page {number} is compressed with TIFF code {int(page.compression)}, which "
            "is not read here; convert it to JPEG or JPEG 2000."
        )
    if int(page.photometric) not in (0, 1, 2, 6):
        raise UnconvertedError(
            f"{path}: page {number} has photometric {int(page.photometric)}, neither grey, RGB "
            "nor YCbCr; convert it to RGB."
        )
    image_codec = int(page.compression) == JPEG or int(page.compression) in JPEG2000_CODES
    subsampled = tuple(getattr(page, "subsampling", None) or (1, 1)) != (1, 1)
    if int(page.photometric) == 6 and subsampled and not image_codec:
        raise UnconvertedError(
            f"{path}: page {number} stores subsampled YCbCr without JPEG; convert it to RGB."
        )
    if int(page.photometric) == 6 and not image_codec and not _is_jfif_ycbcr(page):
        raise UnconvertedError(
            f"{path}: page {number} stores YCbCr that JFIF does not define (tags 529, 532); "
            "convert it to RGB."
        )


def _is_jfif_ycbcr(page: Any) -> bool:
    """Whether the tags state the coefficients of Rec. 601 at full range, or nothing."""
    stated = [
        ("YCbCrCoefficients", (0.299, 0.587, 0.114), 1e-3),
        ("ReferenceBlackWhite", (0, 255, 128, 255, 128, 255), 0.5),
    ]
    for name, usual, slack in stated:
        tag = page.tags.get(name)
        if tag is None:
            continue
        parts = np.asarray(tag.value, dtype=np.float64).reshape(-1, 2)
        if len(parts) != len(usual) or not bool((parts[:, 1] > 0).all()):
            return False
        if bool((np.abs(parts[:, 0] / parts[:, 1] - usual) > slack).any()):
            return False
    return True


def _chunk_format(page: Any, samples: int) -> ChunkFormat:
    extra = [int(value) for value in page.extrasamples]
    header = getattr(page, "jpegheader", None)
    return ChunkFormat(
        compression=int(page.compression),
        photometric=int(page.photometric),
        predictor=int(page.predictor),
        planar=int(page.planarconfig) if samples > 1 else 1,
        samples=samples,
        has_alpha=samples == 4 and extra[:1] in ([1], [2]),
        premultiplied=extra[:1] == [1],
        jpeg_tables=bytes(page.jpegtables) if page.jpegtables else None,
        jpeg_header=bytes(header) if header else None,
    )


def _philips_sizes(description: str) -> dict[int, int]:
    """Downsample of every Philips level by the pixel spacings in its XML (index -> factor)."""
    spacings = philips_spacings_um(description)
    if not spacings.levels or spacings.levels[0][0] <= 0:
        return {}
    base = spacings.levels[0][0]
    return {index: round(value[0] / base) for index, value in enumerate(spacings.levels)}


def _true_size(base: Any, page: Any, factors: dict[int, int], index: int) -> tuple[int, int]:
    """True size of a level: Philips stores its levels padded to whole tiles.

    The spacings stand in the order of the levels. Matching them by size instead is wrong for
    small levels: 704 px padded to 1024 look nearer to 1/4 than to 1/8 of 5632 px.
    """
    width, height = int(page.imagewidth), int(page.imagelength)
    factor = factors.get(index, 0)
    if page is base or factor < 2:
        return width, height
    return min(width, base.imagewidth // factor), min(height, base.imagelength // factor)
