"""TIFF-family slides by tile: positioned reads and imagecodecs, no slide library at run time."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from wsisr.slides.compression import colour_note, settle_colours, tiff_compression
from wsisr.slides.decode import ChunkFormat, decode_stored
from wsisr.slides.faults import OpenSlideOnlyError
from wsisr.slides.fingerprint import fingerprint, total_bytes
from wsisr.slides.handles import PositionedFile
from wsisr.slides.protocol import SlideInfo
from wsisr.slides.tiff_directory import PLACED_FREELY, TiffDirectory, TiffLevel, read_directory
from wsisr.slides.tiff_metadata import objective_power, tiff_resolution
from wsisr.slides.tiles import MISSING, Tile, TileGrid

DOUBT_TILES = 8
"""Tiles that are decoded where only the pixels tell the colour space."""


class BytesAt(Protocol):
    """Something that is read at positions: a file, or an object on a server."""

    def read(self, offset: int, size: int) -> bytes: ...

    def close(self) -> None: ...


class DirectStore:
    """Tiles of a TIFF-family file; implements `TileStore`."""

    def __init__(self, directory: TiffDirectory, file: BytesAt) -> None:
        self._directory = directory
        self._file = file

    @property
    def grids(self) -> tuple[TileGrid, ...]:
        return tuple(level.grid for level in self._directory.levels)

    def fetch(self, level: int, row: int, column: int) -> Tile:
        stored = self._directory.levels[level]
        data = self._chunks(level, row, column)
        if data is None:
            return MISSING
        name = f"{self._directory.path}: tile at row {row}, column {column} of level {level}"
        return decode_stored(data, stored.form, stored.grid, (row, column), name)

    def _chunks(self, level: int, row: int, column: int) -> list[bytes] | None:
        """What is stored of a tile; None where nothing was scanned."""
        stored = self._directory.levels[level]
        data = []
        for index in stored.chunks_of(row, column):
            count = int(stored.byte_counts[index])
            if count == 0:
                return None
            data.append(self._file.read(int(stored.offsets[index]), count))
        return data

    def stored(self, level: int, row: int, column: int) -> bytes | None:
        """The compressed bytes of a tile of interleaved samples; None where nothing was scanned."""
        data = self._chunks(level, row, column)
        return None if data is None else data[0]

    def form(self, level: int) -> ChunkFormat:
        """How the tiles of a level are coded."""
        return self._directory.levels[level].form

    def scanned(self, level: int, row: int, column: int) -> bool | None:
        stored = self._directory.levels[level]
        if any(stored.byte_counts[index] == 0 for index in stored.chunks_of(row, column)):
            return False
        return None if stored.form.has_alpha else True

    def first_chunk(self, level: int) -> bytes | None:
        """The first stored stream of a level (its header tells the compression)."""
        stored = self._directory.levels[level]
        used = stored.byte_counts.nonzero()[0]
        if used.size == 0:
            return None
        index = int(used[0])
        count = min(int(stored.byte_counts[index]), 1 << 16)
        return self._file.read(int(stored.offsets[index]), count)

    def icc_profile(self) -> bytes | None:
        return self._directory.icc

    def close(self) -> None:
        self._file.close()


def open_direct(path: Path, focal_plane: int | None = None) -> tuple[SlideInfo, DirectStore]:
    """Open a TIFF-family slide.

    Raises
    ------
    SlideError
        If it is none, is damaged, or is of a kind that needs OpenSlide.
    """
    directory = read_directory(path, focal_plane)
    return describe_tiff(
        directory, PositionedFile(path), total_bytes((path,)), fingerprint((path,))
    )


def describe_tiff(
    directory: TiffDirectory, file: BytesAt, size_bytes: int, identity: str
) -> tuple[SlideInfo, DirectStore]:
    """What is known of a TIFF-family slide, and its tiles, wherever the bytes are.

    Raises
    ------
    SlideError
        If it is of a kind that needs OpenSlide.
    """
    if directory.vendor in PLACED_FREELY:
        raise OpenSlideOnlyError(
            f"{directory.path}: {directory.vendor} slides place their tiles freely; OpenSlide "
            "reads them."
        )
    directory = replace(
        directory, levels=tuple(_settled(level, file) for level in directory.levels)
    )
    store = DirectStore(directory, file)
    resolution = tiff_resolution(directory)
    base = directory.levels[0].grid
    levels = tuple(
        replace(
            level.grid.level(index, base), compression=tiff_compression(directory, index, store)
        )
        for index, level in enumerate(directory.levels)
    )
    info = SlideInfo(
        path=directory.path,
        vendor=directory.vendor,
        backend="direct",
        mpp=resolution.mpp,
        mpp_problem=resolution.problem,
        objective_power=objective_power(directory),
        levels=levels,
        icc_sha256=directory.icc_sha256,
        bytes=size_bytes,
        fingerprint=identity,
        quirks=directory.quirks + colour_note([level.compression for level in levels]),
        focal_plane=directory.focal_plane,
        blind_readers=directory.blind_readers,
    )
    return info, store


def _settled(level: TiffLevel, file: BytesAt) -> TiffLevel:
    """The level with its colours settled by a few of its tiles, where tag and stream differ."""

    def chunks() -> Iterator[bytes]:
        used = level.byte_counts.nonzero()[0]
        for index in used[:: max(1, used.size // DOUBT_TILES)].tolist():
            yield file.read(int(level.offsets[index]), int(level.byte_counts[index]))

    size = (level.grid.tile_width_px, level.grid.tile_height_px)
    return replace(level, form=settle_colours(level.form, chunks(), size))
