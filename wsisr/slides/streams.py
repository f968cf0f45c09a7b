"""The stored tiles of a level as streams that anybody decodes to the same pixels.

A TIFF-family slide and a DICOM series keep level 0 as JPEG or JPEG 2000 tiles. Where every tile
says all of itself (or can be made to: shared tables merged, its colours by a marker), it can be
kept as it is: the slide's own bytes are the shortest lossless form of its pixels that there is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from wsisr.slides.decode import (
    APERIO_JP2K_YCBCR,
    JPEG,
    JPEG2000_CODES,
    ChunkFormat,
    StreamKind,
    StreamSizeError,
    decode_stream,
    has_colour_transform,
)
from wsisr.slides.faults import DamagedTileError
from wsisr.slides.jpeg import YCBCR_TAG, whole_stream
from wsisr.slides.protocol import Slide
from wsisr.slides.tiles import MISSING, Tile, TiledSlide, TileGrid


class NotKept(ValueError):
    """Why the tiles of a level cannot be kept as they are stored."""


@runtime_checkable
class StoredTiles(Protocol):
    """A `TileStore` that hands out its tiles as they are stored."""

    def stored(self, level: int, row: int, column: int) -> bytes | None:
        """The compressed bytes of a tile of interleaved samples; None where nothing was scanned."""

    def form(self, level: int) -> ChunkFormat | None:
        """How all tiles of a level are coded; None where they are not tiles of one kind."""


@dataclass(frozen=True)
class Window:
    """Where a patch lies in the tiles of its level, and those that it touches.

    Attributes
    ----------
    x, y : int
        Top left corner in pixels of the level.
    tiles : mapping of (row, column) to Tile
        With their streams; in the order of rows and columns.
    """

    x: int
    y: int
    tiles: Mapping[tuple[int, int], Tile]


@dataclass(frozen=True)
class LevelStreams:
    """The tiles of one level of an open slide as self-contained streams.

    Attributes
    ----------
    kind : str
        ``"jpeg"`` or ``"jpeg2k"``.
    grid : TileGrid
        Square tiles; those at the right and lower edge are stored whole.
    """

    kind: StreamKind
    grid: TileGrid
    level: int
    _path: Path
    _store: StoredTiles
    _form: ChunkFormat

    def get(self, row: int, column: int) -> bytes | None:
        """The stream of a tile; None where nothing was scanned.

        Raises
        ------
        NotKept
            If this tile is of another kind than the level promised.
        DamagedTileError
            If the file is cut short or the tile's header is broken.
        """
        data = self._store.stored(self.level, row, column)
        if not data:
            return None
        side = self.grid.tile_width_px
        if self.kind == "jpeg2k":
            if self._form.photometric == YCBCR_TAG and not has_colour_transform(data):
                raise NotKept("JPEG 2000 tiles without a colour transform hold YCbCr")
            return data
        try:
            return whole_stream(data, self._form.stated_jpeg(side, side))
        except ValueError as error:
            raise self._damaged(row, column, error) from error

    def fetch(self, level: int, row: int, column: int) -> Tile:
        """A tile decoded from its stream, strictly, and the stream with it.

        In place of `TileStore.fetch`. Raises as `get` does.
        """
        assert level == self.level
        stream = self.get(row, column)
        if stream is None:
            return MISSING
        try:
            pixels = decode_stream(stream, self.kind, self.grid.tile_width_px)
        except StreamSizeError as error:
            raise NotKept(f"its tiles differ in size: {error}") from error
        except ValueError as error:
            raise self._damaged(row, column, error) from error
        return Tile(pixels, stream=stream)

    def _damaged(self, row: int, column: int, error: ValueError) -> DamagedTileError:
        return DamagedTileError(
            f"{self._path}: tile at row {row}, column {column} of level {self.level} cannot be "
            f"decoded ({str(error)[:120]}); the file is damaged, copy it again."
        )


def level_streams(slide: Slide, level: int = 0) -> LevelStreams:
    """The tiles of a level, if they can be kept as they are.

    Raises
    ------
    NotKept
        With the reason in a few words.
    """
    if not isinstance(slide, TiledSlide):
        raise NotKept("it is not stored in tiles")
    if slide.converts:
        raise NotKept("its colours are converted while it is read")
    store = slide.store
    if not isinstance(store, StoredTiles):
        raise NotKept(f"it is read by {slide.info.backend}, which hands out no stored tiles")
    form, grid, path = store.form(level), slide.grid(level), slide.info.path
    if form is None:
        raise NotKept("its tiles are moved onto level 0, or are coded in several ways")
    if grid.tile_width_px != grid.tile_height_px:
        raise NotKept("it is not stored in square tiles")
    if form.samples != 3 or form.has_alpha or form.planar != 1 or form.jpeg_header is not None:
        raise NotKept("its tiles are not three interleaved colours without opacity")
    if form.compression == JPEG:
        return LevelStreams("jpeg", grid, level, path, store, form)
    if form.compression in JPEG2000_CODES and form.compression != APERIO_JP2K_YCBCR:
        return LevelStreams("jpeg2k", grid, level, path, store, form)
    raise NotKept("its tiles are neither JPEG nor JPEG 2000 in RGB")
