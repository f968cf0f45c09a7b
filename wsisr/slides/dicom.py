"""DICOM whole-slide images by frame: headers through pydicom, pixels by positioned reads.

A series is a set of files: each holds one level, or a part of one (a concatenation). Frames are
found once per file by walking the item headers, and are decoded like TIFF tiles.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.arrays import Int64Array
from wsisr.errors import SlideError
from wsisr.geometry import level_factor
from wsisr.magnification import MppQuality, MppSource
from wsisr.slides.compression import LOSSY, colour_note, settle_colours, stream_compression
from wsisr.slides.decode import (
    CODEC_NAMES,
    HTJ2K,
    JPEG,
    JPEG2000,
    JPEG_LS,
    NATIVE_422,
    NONE,
    ChunkFormat,
    decode_stored,
)
from wsisr.slides.dicom_files import (
    icc_profile,
    objective_power,
    quiet_pydicom,
    series_of,
    spacing_um,
)
from wsisr.slides.dicom_frames import FrameTable, frame_table
from wsisr.slides.dicom_layout import FACTOR_TOLERANCE, DicomFile, LevelLayout, lay_out
from wsisr.slides.faults import RefusedSlideError
from wsisr.slides.fingerprint import fingerprint, total_bytes
from wsisr.slides.handles import PositionedFile
from wsisr.slides.jpeg import YCBCR_TAG
from wsisr.slides.protocol import Compression, SlideInfo
from wsisr.slides.tiff_directory import MAX_TILE_BYTES
from wsisr.slides.tiff_metadata import choose_resolution
from wsisr.slides.tiles import MISSING, WHITE, Tile, TileGrid, overlap

EXPLICIT_LE, IMPLICIT_LE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_JPEG2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
_COMPRESSIONS = (
    dict.fromkeys((EXPLICIT_LE, IMPLICIT_LE), NONE)
    | dict.fromkeys(_JPEG, JPEG)
    | dict.fromkeys(_JPEG2000, JPEG2000)
    | dict.fromkeys(_JPEG_LS, JPEG_LS)
    | dict.fromkeys(_HTJ2K, HTJ2K)
)
_PHOTOMETRICS = {"RGB": 2} | dict.fromkeys(
    ("YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"), YCBCR_TAG
)
"""DICOM's words as values of the TIFF tag; ICT and RCT are undone by JPEG 2000 itself."""
DOUBT_TILES = 8
_REVERSIBLE = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80", *_HTJ2K[:2])


@dataclass(frozen=True, kw_only=True, eq=False)
class DicomPart:
    """One file: all or some of the frames of one level."""

    path: Path
    file: PositionedFile
    syntax: str
    form: ChunkFormat
    frames: FrameTable

    def frame(self, number: int) -> bytes:
        """The stored bytes of a frame."""
        return b"".join(self.file.read(at, size) for at, size in self.frames.pieces(number))


@dataclass(frozen=True, kw_only=True, eq=False)
class DicomLevel:
    """One level: where its frames lie, its files, and its grid after it was moved onto level 0."""

    layout: LevelLayout
    parts: tuple[DicomPart, ...]
    grid: TileGrid

    @property
    def moved(self) -> bool:
        return self.layout.moved_px != (0, 0)


class DicomStore:
    """Frames of a DICOM series; implements `TileStore`."""

    def __init__(self, levels: tuple[DicomLevel, ...], icc: bytes | None) -> None:
        self._levels = levels
        self._icc = icc

    @property
    def grids(self) -> tuple[TileGrid, ...]:
        return tuple(level.grid for level in self._levels)

    def fetch(self, level: int, row: int, column: int) -> Tile:
        stored = self._levels[level]
        if stored.moved:
            return self._moved_tile(stored, row, column)
        return self._frame(stored, row, column)

    def _frame(self, stored: DicomLevel, row: int, column: int) -> Tile:
        part_index = int(stored.layout.file_of[row, column])
        if part_index < 0:
            return MISSING
        part = stored.parts[part_index]
        frame = int(stored.layout.frame_of[row, column])
        data = part.frame(frame)
        if not data:
            return MISSING
        grid, chunks = stored.layout.grid, [data]
        if part.form.planar == 2:
            size = grid.tile_width_px * grid.tile_height_px
            chunks = [data[i * size : (i + 1) * size] for i in range(part.form.samples)]
        name = (
            f"{part.path}: frame {frame + 1} (row {row}, column {column} of the level of "
            f"{grid.width_px} x {grid.height_px} px)"
        )
        return decode_stored(chunks, part.form, grid, (row, column), name)

    def stored(self, level: int, row: int, column: int) -> bytes | None:
        """The compressed bytes of a frame that was not moved; None where nothing was scanned."""
        layout = self._levels[level].layout
        part_index = int(layout.file_of[row, column])
        if part_index < 0:
            return None
        part = self._levels[level].parts[part_index]
        return part.frame(int(layout.frame_of[row, column])) or None

    def form(self, level: int) -> ChunkFormat | None:
        """How all frames of a level are coded; None where it was moved or has several forms."""
        stored = self._levels[level]
        forms = {part.form for part in stored.parts}
        return forms.pop() if len(forms) == 1 and not stored.moved else None

    def _moved_tile(self, stored: DicomLevel, row: int, column: int) -> Tile:
        """A tile of a level that lies off level 0: put together from the frames under it."""
        grid, frames = stored.grid, stored.layout.grid
        width, height = grid.tile_width_px, grid.tile_height_px
        x = column * width - stored.layout.moved_px[0]
        y = row * height - stored.layout.moved_px[1]
        pixels = np.full((height, width, 3), WHITE, np.uint8)
        valid = np.zeros((height, width), np.bool_)
        for at_row, at_column in frames.touched(x, y, width, height):
            tile = self._frame(stored, at_row, at_column)
            if tile.pixels is None:
                continue
            target, source = overlap(frames, at_row, at_column, (x, y, width, height))
            pixels[target] = tile.pixels[source]
            valid[target] = True
        return Tile(pixels, valid) if bool(valid.any()) else MISSING

    def scanned(self, level: int, row: int, column: int) -> bool | None:
        stored = self._levels[level]
        if stored.moved:
            return None
        part_index = int(stored.layout.file_of[row, column])
        frame = int(stored.layout.frame_of[row, column])
        return part_index >= 0 and stored.parts[part_index].frames.size(frame) > 0

    def icc_profile(self) -> bytes | None:
        return self._icc

    def close(self) -> None:
        for level in self._levels:
            for part in level.parts:
                part.file.close()


def open_dicom(path: Path, focal_plane: int | None = None) -> tuple[SlideInfo, DicomStore]:
    """Open a DICOM whole-slide series by its folder or any of its files.

    Raises
    ------
    SlideError
        If a file is damaged or cut off, the series has no volume image, or it is stored in a way
        that is not read here (grey channels, frames off their grid, unusual transfer syntaxes).
    """
    with quiet_pydicom():
        return _open_series(path, focal_plane)


def _open_series(path: Path, focal_plane: int | None) -> tuple[SlideInfo, DicomStore]:
    headers = [_read_header(file) for file in series_of(path)]
    volume = [file for file in headers if _is_volume(file.header)]
    if not volume:
        raise SlideError(f"{path}: the series has labels or overviews only, no slide image.")
    series = lay_out(path, volume, focal_plane)
    base_header = series.levels[0].files[0].header
    base = series.levels[0].grid
    factors = [_factor(base_header, base, layout) for layout in series.levels]
    levels = tuple(
        DicomLevel(
            layout=layout,
            parts=tuple(_part(file) for file in layout.files),
            grid=_grid_on_level_0(base, layout, factor),
        )
        for layout, factor in zip(series.levels, factors, strict=True)
    )
    icc = icc_profile(base_header)
    store = DicomStore(levels, icc)
    spacing = spacing_um(base_header)
    stated = [(spacing, MppSource.DICOM, MppQuality.STATED)] if spacing is not None else []
    resolution = choose_resolution(path.name, stated)
    quirks = list(series.quirks)
    missing = sum(_missing(level) for level in levels)
    if missing:
        quirks.append(f"{missing} frame(s) were never scanned: white and invalid.")
    described = tuple(
        replace(
            level.grid.level(index, base),
            factor=factors[index],
            compression=_compression(level),
            moved_px=level.layout.moved_px,
        )
        for index, level in enumerate(levels)
    )
    quirks += colour_note([level.compression for level in described])
    members = tuple(file.path for file in volume)
    info = SlideInfo(
        path=path,
        vendor="dicom",
        backend="dicom",
        mpp=resolution.mpp,
        mpp_problem=resolution.problem,
        objective_power=objective_power(base_header),
        levels=described,
        icc_sha256=hashlib.sha256(icc).hexdigest() if icc else None,
        bytes=total_bytes(members),
        fingerprint=fingerprint(members),
        quirks=tuple(quirks),
        focal_plane=series.focal_plane,
    )
    return info, store


def _missing(level: DicomLevel) -> int:
    """Tiles of a level without a frame, or with an empty one."""
    layout = level.layout
    missing = int((layout.file_of < 0).sum())
    for number, part in enumerate(level.parts):
        mine = layout.frame_of[layout.file_of == number]
        missing += int((part.frames.frame_sizes()[mine] == 0).sum())
    return missing


def _factor(base_header: Any, base: TileGrid, layout: LevelLayout) -> int | None:
    """The downsample of a level: by its size, or by its spacing where it was moved.

    A level that starts elsewhere may end elsewhere too, and then its size says nothing.
    """
    grid = layout.grid
    if layout.moved_px == (0, 0):
        return level_factor(base.width_px, base.height_px, grid.width_px, grid.height_px)
    fine, coarse = spacing_um(base_header), spacing_um(layout.files[0].header)
    if fine is None or coarse is None:
        return None
    ratio = coarse[0] / fine[0]
    whole = round(ratio)
    return whole if whole >= 1 and abs(ratio - whole) <= FACTOR_TOLERANCE * whole else None


def _grid_on_level_0(base: TileGrid, layout: LevelLayout, factor: int | None) -> TileGrid:
    """A level's own grid, or the one of level 0 reduced where the level was moved onto it."""
    if layout.moved_px == (0, 0) or factor is None:
        return layout.grid
    return replace(
        layout.grid,
        width_px=max(1, base.width_px // factor),
        height_px=max(1, base.height_px // factor),
    )


def _read_header(path: Path) -> DicomFile:
    """A file's data set before the pixels."""
    import pydicom

    try:
        with open(path, "rb") as file:
            header = pydicom.dcmread(file, stop_before_pixels=True)
            return DicomFile(path=path, header=header, position=file.tell())
    except Exception as error:
        raise SlideError(
            f"{path}: damaged DICOM file ({str(error)[:120]}); copy it again."
        ) from error


def _is_volume(header: Any) -> bool:
    kinds = [str(kind).upper() for kind in header.get("ImageType", [])]
    return "VOLUME" in kinds or not ({"LABEL", "OVERVIEW", "LOCALIZER", "THUMBNAIL"} & set(kinds))


def _part(file: DicomFile) -> DicomPart:
    path, header = file.path, file.header
    syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
    bits = int(header.get("BitsAllocated", 8))
    samples = int(header.get("SamplesPerPixel", 3))
    photometric = str(header.get("PhotometricInterpretation", "RGB"))
    if photometric.startswith("MONOCHROME"):
        raise RefusedSlideError(
            f"{path}: {photometric}, a single channel of {bits} bit (fluorescence, or one stain); "
            "only RGB slides are read."
        )
    if syntax not in _COMPRESSIONS:
        raise SlideError(f"{path}: transfer syntax {syntax} is not read here.")
    if bits != 8 or samples != 3:
        raise SlideError(f"{path}: {samples} sample(s) of {bits} bit; only 8-bit RGB is read here.")
    if photometric not in _PHOTOMETRICS:
        raise RefusedSlideError(f"{path}: its colours are {photometric}, which are not read here.")
    if int(header.Rows) * int(header.Columns) * samples > MAX_TILE_BYTES:
        raise SlideError(f"{path}: frames of more than {MAX_TILE_BYTES >> 20} MiB are not read.")
    opened = PositionedFile(path)
    # Without compression two bytes a pixel where pairs of pixels share their chroma.
    native = 2 if photometric == "YBR_FULL_422" else samples
    frames = frame_table(
        path,
        opened,
        file.position,
        count=file.frames,
        native_bytes=int(header.Rows) * int(header.Columns) * native,
        extended=_extended_offsets(header),
    )
    compression = _COMPRESSIONS[syntax]
    if compression == NONE and photometric == "YBR_FULL_422":
        compression = NATIVE_422
    apart = int(header.get("PlanarConfiguration", 0) or 0) == 1
    form = ChunkFormat(
        compression=compression,
        photometric=_PHOTOMETRICS[photometric],
        # Only uncompressed frames are stored plane by plane.
        planar=2 if compression == NONE and apart else 1,
        samples=samples,
    )
    used = [i for i in range(len(frames.first) - 1) if frames.size(i)]
    some = used[:: max(1, len(used) // DOUBT_TILES)]
    part = DicomPart(path=path, file=opened, syntax=syntax, form=form, frames=frames)
    size = (int(header.Columns), int(header.Rows))
    return replace(part, form=settle_colours(form, (part.frame(i) for i in some), size))


def _extended_offsets(header: Any) -> tuple[Int64Array, Int64Array] | None:
    offsets = header.get("ExtendedOffsetTable")
    lengths = header.get("ExtendedOffsetTableLengths")
    if not offsets or not lengths:
        return None
    return (
        np.frombuffer(offsets, dtype="<u8").astype(np.int64),
        np.frombuffer(lengths, dtype="<u8").astype(np.int64),
    )


def _compression(level: DicomLevel) -> Compression:
    part, header = level.parts[0], level.layout.files[0].header
    codec = CODEC_NAMES[part.form.compression]
    lossy = codec in (*LOSSY, "jpeg-ls", "htj2k") and part.syntax not in _REVERSIBLE
    ratios = header.get("LossyImageCompressionRatio")
    told = len(ratios) if hasattr(ratios, "__len__") else 1
    stated_lossy = str(header.get("LossyImageCompression", "00")) == "01"
    generations = max(1, told if stated_lossy else 1) if lossy else int(stated_lossy)
    layout = level.layout
    row, column = (int(value) for value in np.argwhere(layout.file_of >= 0)[0])
    first = level.parts[int(layout.file_of[row, column])]
    found = stream_compression(first.form, first.frame(int(layout.frame_of[row, column])))
    return replace(found, codec=codec, generations=generations)
