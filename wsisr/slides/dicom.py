"""DICOM whole-slide images by frame: headers through pydicom, pixels by positioned reads.

A series is a set of files: each holds one level, or a part of one (a concatenation). Frames are
found once per file by walking the item headers, and are decoded like TIFF tiles.
"""

import hashlib
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsisr.errors import SlideError
from wsisr.geometry import level_factor
from wsisr.magnification import MppQuality, MppSource
from wsisr.slides.compression import LOSSY, colour_note, settle_colours, stream_compression
from wsisr.slides.decode import (
    HTJ2K,
    JPEG,
    JPEG2000,
    JPEG_LS,
    NATIVE_422,
    NONE,
    ChunkFormat,
    decode_tile,
)
from wsisr.slides.dicom_files import quiet_pydicom, series_of
from wsisr.slides.dicom_frames import FrameTable, frame_table
from wsisr.slides.dicom_metadata import icc_profile, objective_power, spacing_um
from wsisr.slides.faults import RefusedSlideError
from wsisr.slides.fingerprint import fingerprint, total_bytes
from wsisr.slides.handles import PositionedFile
from wsisr.slides.jpeg import YCBCR_TAG
from wsisr.slides.protocol import Compression, Level, SlideInfo
from wsisr.slides.tiff_directory import MAX_TILE_BYTES
from wsisr.slides.tiff_metadata import choose_resolution
from wsisr.slides.tiles import MISSING, Tile, TileGrid

EXPLICIT_LE, IMPLICIT_LE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_JPEG2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
_CODECS = (
    dict.fromkeys((EXPLICIT_LE, IMPLICIT_LE), "none")
    | dict.fromkeys(_JPEG, "jpeg")
    | dict.fromkeys(_JPEG2000, "jpeg2000")
    | dict.fromkeys(_JPEG_LS, "jpeg-ls")
    | dict.fromkeys(_HTJ2K, "htj2k")
)
_FORMS = {
    "none": NONE,
    "native-422": NATIVE_422,
    "jpeg": JPEG,
    "jpeg2000": JPEG2000,
    "jpeg-ls": JPEG_LS,
    "htj2k": HTJ2K,
}
_PHOTOMETRICS = {"MONOCHROME1": 0, "MONOCHROME2": 1, "RGB": 2} | dict.fromkeys(
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
    photometric: str
    form: ChunkFormat
    frames: FrameTable

    def frame(self, number: int) -> bytes:
        """The stored bytes of a frame."""
        return b"".join(self.file.read(at, size) for at, size in self.frames.pieces(number))


@dataclass(frozen=True, kw_only=True, eq=False)
class DicomLevel:
    """One level: its grid, and for each tile the part and the frame (-1: never scanned)."""

    grid: TileGrid
    parts: tuple[DicomPart, ...]
    part_of: NDArray[np.int32]
    frame_of: NDArray[np.int32]


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
        part_index = int(stored.part_of[row, column])
        if part_index < 0:
            return MISSING
        part = stored.parts[part_index]
        frame = int(stored.frame_of[row, column])
        data = part.frame(frame)
        grid = stored.grid
        try:
            tile = _decode_frame(part.form, data, grid.tile_width_px, grid.tile_height_px)
        except (ValueError, RuntimeError, TypeError, IndexError, MemoryError) as error:
            raise SlideError(
                f"{part.path}: frame {frame + 1} cannot be decoded ({str(error)[:120]}); the file "
                "is damaged, copy it again."
            ) from error
        height = min(grid.tile_height_px, grid.height_px - row * grid.tile_height_px)
        width = min(grid.tile_width_px, grid.width_px - column * grid.tile_width_px)
        pixels = tile.pixels
        if pixels is None or pixels.shape[0] < height or pixels.shape[1] < width:
            raise SlideError(f"{part.path}: frame {frame + 1} is too small; copy the file again.")
        return tile

    def scanned(self, level: int, row: int, column: int) -> bool | None:
        return bool(self._levels[level].part_of[row, column] >= 0)

    def icc_profile(self) -> bytes | None:
        return self._icc

    def close(self) -> None:
        for level in self._levels:
            for part in level.parts:
                part.file.close()


def open_dicom(path: Path) -> tuple[SlideInfo, DicomStore]:
    """Open a DICOM whole-slide series by its folder or any of its files.

    Raises
    ------
    SlideError
        If a file is damaged or cut off, the series has no volume image, or it is stored in a way
        that is not read here (fluorescence channels in grey, unusual transfer syntaxes).
    """
    with quiet_pydicom():
        return _open_series(path)


def _open_series(path: Path) -> tuple[SlideInfo, DicomStore]:
    files = series_of(path)
    headers = [(file, *_read_header(file)) for file in files]
    volume = [item for item in headers if _is_volume(item[1])]
    if not volume:
        raise SlideError(f"{path}: the series has labels or overviews only, no slide image.")
    groups: dict[tuple[int, int], list[tuple[Path, Any, int]]] = defaultdict(list)
    for file, header, position in volume:
        groups[_matrix_size(file, header)].append((file, header, position))
    ordered = sorted(groups.items(), key=lambda item: -item[0][0] * item[0][1])
    levels = tuple(_level(size, members) for size, members in ordered)
    base_header = ordered[0][1][0][1]
    icc = icc_profile(base_header)
    store = DicomStore(levels, icc)
    spacing = spacing_um(base_header)
    stated = [(spacing, MppSource.DICOM, MppQuality.STATED)] if spacing is not None else []
    resolution = choose_resolution(path.name, stated)
    base = levels[0].grid
    quirks = []
    missing = sum(int((level.part_of < 0).sum()) for level in levels)
    if missing:
        quirks.append(f"{missing} frame(s) were never scanned: white and invalid.")
    described = tuple(
        Level(
            index=index,
            width_px=level.grid.width_px,
            height_px=level.grid.height_px,
            factor=level_factor(
                base.width_px, base.height_px, level.grid.width_px, level.grid.height_px
            ),
            tile_width_px=level.grid.tile_width_px,
            tile_height_px=level.grid.tile_height_px,
            compression=_compression(level, ordered[index][1][0][1]),
        )
        for index, level in enumerate(levels)
    )
    quirks += colour_note([level.compression for level in described])
    members = tuple(item[0] for item in volume)
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
    )
    return info, store


def _read_header(path: Path) -> tuple[Any, int]:
    """The data set before the pixels, and the byte where the pixel element starts."""
    import pydicom

    try:
        with open(path, "rb") as file:
            header = pydicom.dcmread(file, stop_before_pixels=True)
            return header, file.tell()
    except Exception as error:
        raise SlideError(
            f"{path}: damaged DICOM file ({str(error)[:120]}); copy it again."
        ) from error


def _is_volume(header: Any) -> bool:
    kinds = [str(kind).upper() for kind in header.get("ImageType", [])]
    return "VOLUME" in kinds or not ({"LABEL", "OVERVIEW", "LOCALIZER", "THUMBNAIL"} & set(kinds))


def _matrix_size(path: Path, header: Any) -> tuple[int, int]:
    width = int(header.get("TotalPixelMatrixColumns", 0) or 0)
    height = int(header.get("TotalPixelMatrixRows", 0) or 0)
    if width < 1 or height < 1:
        raise SlideError(f"{path}: the header states no size of the whole image; copy it again.")
    return width, height


def _level(size: tuple[int, int], members: list[tuple[Path, Any, int]]) -> DicomLevel:
    path, first, _ = members[0]
    grid = TileGrid(
        width_px=size[0],
        height_px=size[1],
        tile_width_px=int(first.get("Columns", 0) or 0) or 1,
        tile_height_px=int(first.get("Rows", 0) or 0) or 1,
    )
    samples = int(first.get("SamplesPerPixel", 3))
    if grid.tile_width_px * grid.tile_height_px * samples > MAX_TILE_BYTES:
        raise SlideError(f"{path}: frames of more than {MAX_TILE_BYTES >> 20} MiB are not read.")
    tiles = grid.columns * grid.rows
    stored = sum(int(header.get("NumberOfFrames", 1)) for _, header, _ in members)
    if tiles > 50_000_000 or (_organisation(first) == "TILED_FULL" and stored < tiles):
        raise RefusedSlideError(
            f"{path}: claims {size[0]} x {size[1]} px in {tiles:,} frames but the series holds "
            f"{stored:,}; a file is missing or damaged."
        )
    part_of = np.full((grid.rows, grid.columns), -1, dtype=np.int32)
    frame_of = np.full((grid.rows, grid.columns), -1, dtype=np.int32)
    parts = []
    members = sorted(members, key=lambda m: int(m[1].get("ConcatenationFrameOffsetNumber", 0)))
    for index, (file, header, position) in enumerate(members):
        part = _part(file, header, position)
        parts.append(part)
        for frame, row, column in _placements(file, header, grid):
            # The first optical path and focal plane that fill a place keep it.
            if part_of[row, column] < 0 and part.frames.size(frame) > 0:
                part_of[row, column] = index
                frame_of[row, column] = frame
    if not bool((part_of >= 0).any()):
        raise SlideError(f"{path}: no frame of this level is stored; copy the series again.")
    return DicomLevel(grid=grid, parts=tuple(parts), part_of=part_of, frame_of=frame_of)


def _part(path: Path, header: Any, position: int) -> DicomPart:
    syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
    bits = int(header.get("BitsAllocated", 8))
    samples = int(header.get("SamplesPerPixel", 3))
    if syntax not in _CODECS:
        raise SlideError(f"{path}: transfer syntax {syntax} is not read here.")
    if bits != 8 or samples not in (1, 3):
        raise SlideError(
            f"{path}: {samples} sample(s) of {bits} bit; only 8-bit grey and RGB are read here."
        )
    photometric = str(header.get("PhotometricInterpretation", "RGB"))
    if photometric not in _PHOTOMETRICS:
        raise RefusedSlideError(f"{path}: its colours are {photometric}, which are not read here.")
    file = PositionedFile(path)
    frames = frame_table(
        path,
        file,
        position,
        count=int(header.get("NumberOfFrames", 1)),
        native_bytes=int(header.Rows) * int(header.Columns) * _native_samples(photometric, samples),
        extended=_extended_offsets(header),
    )
    codec = _CODECS[syntax]
    planar = int(header.get("PlanarConfiguration", 0) or 0)
    if codec == "none" and photometric == "YBR_FULL_422":
        codec, planar = "native-422", 0
    form = ChunkFormat(
        compression=_FORMS[codec],
        photometric=_PHOTOMETRICS[photometric],
        # Only uncompressed frames are stored plane by plane.
        planar=2 if codec == "none" and planar == 1 and samples > 1 else 1,
        samples=samples,
    )
    used = [i for i in range(len(frames.first) - 1) if frames.size(i)]
    some = used[:: max(1, len(used) // DOUBT_TILES)]
    part = DicomPart(
        path=path, file=file, syntax=syntax, photometric=photometric, form=form, frames=frames
    )
    size = (int(header.Columns), int(header.Rows))
    return replace(part, form=settle_colours(form, (part.frame(i) for i in some), size))


def _native_samples(photometric: str, samples: int) -> int:
    """Bytes of a pixel without compression; two where pairs of pixels share their chroma."""
    return 2 if photometric == "YBR_FULL_422" else samples


def _organisation(header: Any) -> str:
    stated = str(header.get("DimensionOrganizationType", "") or "")
    if stated:
        return stated
    return "TILED_SPARSE" if header.get("PerFrameFunctionalGroupsSequence") else "TILED_FULL"


def _placements(path: Path, header: Any, grid: TileGrid) -> list[tuple[int, int, int]]:
    """(frame, tile row, tile column) of the frames of one file, in stored order."""
    count = int(header.get("NumberOfFrames", 1))
    if _organisation(header) != "TILED_SPARSE":
        first = int(header.get("ConcatenationFrameOffsetNumber", 0) or 0)
        tiles = grid.columns * grid.rows
        # Frames beyond the first plane belong to further focal planes or optical paths.
        return [
            (frame, (first + frame) // grid.columns, (first + frame) % grid.columns)
            for frame in range(count)
            if first + frame < tiles
        ]
    placed = []
    for frame, group in enumerate(header.get("PerFrameFunctionalGroupsSequence", [])[:count]):
        try:
            place = group.PlanePositionSlideSequence[0]
            x = int(place.ColumnPositionInTotalImagePixelMatrix) - 1
            y = int(place.RowPositionInTotalImagePixelMatrix) - 1
        except (AttributeError, IndexError) as error:
            raise SlideError(
                f"{path}: frame {frame + 1} has no position; copy the file again."
            ) from error
        row, row_rest = divmod(y, grid.tile_height_px)
        column, column_rest = divmod(x, grid.tile_width_px)
        if row_rest or column_rest or not (0 <= row < grid.rows and 0 <= column < grid.columns):
            raise SlideError(
                f"{path}: frame {frame + 1} lies at ({x}, {y}), off the grid of its frames; such "
                "slides are not read here."
            )
        placed.append((frame, row, column))
    return placed


def _extended_offsets(header: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    offsets = header.get("ExtendedOffsetTable")
    lengths = header.get("ExtendedOffsetTableLengths")
    if not offsets or not lengths:
        return None
    return (
        np.frombuffer(offsets, dtype="<u8").astype(np.int64),
        np.frombuffer(lengths, dtype="<u8").astype(np.int64),
    )


def _decode_frame(form: ChunkFormat, data: bytes, width: int, height: int) -> Tile:
    if form.planar == 2:
        size = width * height
        planes = [data[i * size : (i + 1) * size] for i in range(form.samples)]
        return decode_tile(planes, form, width, height)
    return decode_tile([data], form, width, height)


def _compression(level: DicomLevel, header: Any) -> Compression:
    part = level.parts[0]
    codec = _CODECS[part.syntax]
    lossy = codec in (*LOSSY, "jpeg-ls", "htj2k") and part.syntax not in _REVERSIBLE
    ratios = header.get("LossyImageCompressionRatio")
    told = len(ratios) if isinstance(ratios, list | tuple) or hasattr(ratios, "__len__") else 1
    stated_lossy = str(header.get("LossyImageCompression", "00")) == "01"
    generations = max(1, told if stated_lossy else 1) if lossy else int(stated_lossy)
    row, column = (int(value) for value in np.argwhere(level.part_of >= 0)[0])
    first = level.parts[int(level.part_of[row, column])]
    found = stream_compression(first.form, first.frame(int(level.frame_of[row, column])))
    return replace(found, codec=codec, generations=generations)
