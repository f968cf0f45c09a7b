"""The stored tiles of a level as streams that anybody decodes to the same pixels.

A TIFF-family slide keeps level 0 as JPEG or JPEG 2000 tiles. Where every tile says all of itself
(or can be made to: shared tables merged, its colours by a marker), it can be kept as it is: the
slide's own bytes are the shortest lossless form of its pixels that there is.
"""

from dataclasses import dataclass
from typing import Literal

from wsisr.slides.decode import (
    APERIO_JP2K_YCBCR,
    JPEG,
    JPEG2000_CODES,
    ChunkFormat,
    decode_chunk,
    has_colour_transform,
)
from wsisr.slides.direct import DirectStore
from wsisr.slides.faults import DamagedTileError
from wsisr.slides.jpeg import YCBCR_TAG, whole_stream
from wsisr.slides.protocol import Slide, UInt8Array
from wsisr.slides.tiles import TiledSlide, TileGrid

Kind = Literal["jpeg", "jpeg2k"]
"""Names that imagecodecs has for them."""


class NotKept(ValueError):
    """Why the tiles of a level cannot be kept as they are stored."""


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

    kind: Kind
    grid: TileGrid
    level: int
    _store: DirectStore
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
        if data is None:
            return None
        side = self.grid.tile_width_px
        if self.kind == "jpeg2k":
            if self._form.photometric == YCBCR_TAG and not has_colour_transform(data):
                raise NotKept("JPEG 2000 tiles without a colour transform hold YCbCr")
            return data
        try:
            return whole_stream(
                data,
                samples=3,
                width=side,
                height=side,
                photometric=self._form.photometric,
                tables=self._form.jpeg_tables,
                doubtful=self._form.doubtful_space,
            )
        except ValueError as error:
            raise DamagedTileError(f"tile at row {row}, column {column}: {error}") from error


def level_streams(slide: Slide, level: int = 0) -> LevelStreams:
    """The tiles of a level, if they can be kept as they are.

    Raises
    ------
    NotKept
        With the reason in a few words.
    """
    if not isinstance(slide, TiledSlide) or slide.converts:
        raise NotKept("its pixels are converted while they are read")
    store = slide.store
    if not isinstance(store, DirectStore):
        raise NotKept(f"it is read by {slide.info.backend}, which hands out no stored tiles")
    form, grid = store.form(level), slide.grid(level)
    if grid.tile_width_px != grid.tile_height_px:
        raise NotKept("it is not stored in square tiles")
    if form.samples != 3 or form.has_alpha or form.planar != 1 or form.jpeg_header is not None:
        raise NotKept("its tiles are not three interleaved colours without opacity")
    if form.compression == JPEG:
        return LevelStreams("jpeg", grid, level, store, form)
    if form.compression in JPEG2000_CODES and form.compression != APERIO_JP2K_YCBCR:
        return LevelStreams("jpeg2k", grid, level, store, form)
    raise NotKept("its tiles are neither JPEG nor JPEG 2000 in RGB")


def decode_stream(data: bytes, kind: Kind, side_px: int) -> UInt8Array:
    """Strictly decode a self-contained stream, shape (side, side, 3).

    Raises
    ------
    ValueError
        If it is broken, or not of this kind and size.
    """
    code = JPEG if kind == "jpeg" else JPEG2000_CODES[2]
    # Its own marker, or its own transform, says the colours: the tag is not asked.
    form = ChunkFormat(compression=code, photometric=2)
    image = decode_chunk(data, form, side_px, side_px)
    if image.shape != (side_px, side_px, 3):
        raise ValueError(f"decoded to {image.shape}, not {(side_px, side_px, 3)}")
    return image
