"""Synthetic H&E slides with exact truth.

>>> from wsisr.testing import SlideSpec, write_slide
>>> truth = write_slide(path, SlideSpec(layout="philips", seed=1))         # doctest: +SKIP
>>> truth.levels[2].shift, truth.tissue_fraction([(512, 512, 1024, 1024)])  # doctest: +SKIP

`SlideSpec` says what to make; `write_slide` writes it in one pass over blocks of about 2,048 px,
with memory bounded by a few blocks' tiles, and returns the `SlideTruth`. Empty glass is never
rendered, so a 100,000 x 100,000 px slide with some islands of tissue takes seconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import lcm
from pathlib import Path
from typing import Protocol

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.testing import vendors
from wsisr.testing.levels import reduce_shifted
from wsisr.testing.spec import SlideSpec, plan_truth
from wsisr.testing.truth import SlideTruth
from wsisr.testing.writers import CLASSIC_LIMIT, TiffPage, TiffWriter, TileCodec

BLOCK_PX = 2048


def codec_of(truth: SlideTruth) -> TileCodec:
    """How the tiles of a generated slide are stored."""
    return TileCodec(
        name=truth.codec, quality=truth.quality, ycbcr=truth.ycbcr, subsampling=truth.subsampling
    )


def render_level(
    truth: SlideTruth, level: int, x: int, y: int, width: int, height: int
) -> UInt8Array:
    """Pixels of a level before compression, rendered anew from the scene.

    Returns
    -------
    ndarray, shape (height, width, 3), uint8, RGB
        What a lossless slide stores, for regions inside ``width_px x height_px``.
    """
    shift = truth.levels[level].shift
    x0, x1 = shift.source_span("x", x, width)
    y0, y1 = shift.source_span("y", y, height)
    source = truth.scene.render(x0, y0, x1 - x0, y1 - y0)
    return reduce_shifted(source, (x0, y0), shift, (x, y, width, height))


def write_slide(path: Path, spec: SlideSpec | None = None) -> SlideTruth:
    """Write a slide and return its truth.

    Parameters
    ----------
    path : Path
        File to write; its folder must exist.

    Raises
    ------
    ConfigError
        For settings that contradict each other.
    """
    spec = spec or SlideSpec()
    truth = plan_truth(spec, path.name)
    write_picture(path, truth, truth.scene, icc=spec.icc, big_tiff=spec.big_tiff)
    return truth


class Renderable(Protocol):
    """Anything that can be rendered region by region: a `Scene`, or a second scan of one."""

    @property
    def background_rgb(self) -> tuple[int, int, int]: ...

    def is_background(self, x: int, y: int, width: int, height: int) -> bool: ...

    def render(self, x: int, y: int, width: int, height: int) -> UInt8Array: ...


def write_picture(
    path: Path,
    truth: SlideTruth,
    picture: Renderable,
    *,
    icc: bytes | None = None,
    big_tiff: bool | None = None,
) -> None:
    """Write any picture as the slide that a truth describes.

    Parameters
    ----------
    truth : SlideTruth
        Sizes, levels, codec.
    picture : Renderable
        Level-0 pixels; the levels are made from them.
    big_tiff : bool, optional
        None decides by size.
    """
    pages = [
        TiffPage(
            width_px=level.stored_width_px,
            height_px=level.stored_height_px,
            tile_px=level.tile_px,
            codec=codec_of(truth),
        )
        for level in truth.levels
    ]
    big = truth.width_px * truth.height_px > CLASSIC_LIMIT if big_tiff is None else big_tiff
    with TiffWriter(path, big=big) as writer:
        for page in vendors.dress(truth, pages, icc, writer):
            writer.add_page(page)
        store = _TileStore(writer, truth, pages, picture.background_rgb)
        for right, bottom, block in _blocks(truth, picture):
            store.paste(block)
            store.flush(right, bottom)
        store.finish()


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """Rendered pixels of one level."""

    level: int
    x: int
    y: int
    rgb: UInt8Array


def _block_px(truth: SlideTruth) -> int:
    unit = lcm(truth.levels[0].tile_px, *(level.factor for level in truth.levels))
    return max(1, round(BLOCK_PX / unit)) * unit


def _blocks(truth: SlideTruth, picture: Renderable) -> Iterator[tuple[int, int, list[_Piece]]]:
    """Blocks row by row: right and bottom edge (level-0 px) and the pieces of all levels."""
    size = _block_px(truth)
    for top in range(0, truth.height_px, size):
        for left in range(0, truth.width_px, size):
            width, height = min(size, truth.width_px - left), min(size, truth.height_px - top)
            pieces = _render_block(truth, picture, left, top, width, height)
            yield left + width, top + height, pieces


def _render_block(
    truth: SlideTruth, picture: Renderable, x: int, y: int, width: int, height: int
) -> list[_Piece]:
    """All levels' pixels whose boxes start in a block, from one rendering of level 0."""
    wanted = []
    spans = []
    for level in truth.levels:
        f = level.factor
        box = (
            x // f,
            y // f,
            min(-(-(x + width) // f), level.width_px) - x // f,
            min(-(-(y + height) // f), level.height_px) - y // f,
        )
        if box[2] > 0 and box[3] > 0:
            wanted.append((level, box))
            spans.append(
                (
                    *level.shift.source_span("x", box[0], box[2]),
                    *level.shift.source_span("y", box[1], box[3]),
                )
            )
    x0, x1 = min(s[0] for s in spans), max(s[1] for s in spans)
    y0, y1 = min(s[2] for s in spans), max(s[3] for s in spans)
    if picture.is_background(x0, y0, x1 - x0, y1 - y0):
        return []
    source = picture.render(x0, y0, x1 - x0, y1 - y0)
    return [
        _Piece(
            level=level.index,
            x=box[0],
            y=box[1],
            rgb=reduce_shifted(source, (x0, y0), level.shift, box),
        )
        for level, box in wanted
    ]


class _TileStore:
    """Collects pieces into tiles and writes each tile once it is complete."""

    def __init__(
        self,
        writer: TiffWriter,
        truth: SlideTruth,
        pages: list[TiffPage],
        glass_rgb: tuple[int, int, int],
    ) -> None:
        self._writer = writer
        self._truth = truth
        self._pages = pages
        self._open: list[dict[tuple[int, int], UInt8Array]] = [{} for _ in pages]
        self._written: list[set[tuple[int, int]]] = [set(level.missing) for level in truth.levels]
        glass = np.array(glass_rgb, np.uint8)
        self._empty = [np.tile(glass, (page.tile_px, page.tile_px, 1)) for page in pages]

    def paste(self, pieces: list[_Piece]) -> None:
        for piece in pieces:
            tile = self._pages[piece.level].tile_px
            height, width = piece.rgb.shape[:2]
            for row in range(piece.y // tile, (piece.y + height - 1) // tile + 1):
                for col in range(piece.x // tile, (piece.x + width - 1) // tile + 1):
                    self._paste_one(piece, col, row, tile)

    def _paste_one(self, piece: _Piece, col: int, row: int, tile: int) -> None:
        height, width = piece.rgb.shape[:2]
        x0, y0 = max(piece.x, col * tile), max(piece.y, row * tile)
        x1 = min(piece.x + width, (col + 1) * tile)
        y1 = min(piece.y + height, (row + 1) * tile)
        tiles = self._open[piece.level]
        target = tiles.get((col, row))
        if target is None:
            target = tiles[col, row] = self._empty[piece.level].copy()
        target[y0 - row * tile : y1 - row * tile, x0 - col * tile : x1 - col * tile] = piece.rgb[
            y0 - piece.y : y1 - piece.y, x0 - piece.x : x1 - piece.x
        ]

    def flush(self, right_px: int, bottom_px: int) -> None:
        """Write the tiles that no block after the one with this far corner can change."""
        endless = 1 << 60
        right = right_px if right_px < self._truth.width_px else endless
        bottom = bottom_px if bottom_px < self._truth.height_px else endless
        for level, tiles in zip(self._truth.levels, self._open, strict=True):
            side = level.tile_px * level.factor
            ready = [k for k in tiles if (k[1] + 1) * side <= bottom and (k[0] + 1) * side <= right]
            for key in sorted(ready, key=lambda k: (k[1], k[0])):
                self._write(level.index, key, tiles.pop(key))

    def _write(self, level: int, key: tuple[int, int], rgb: UInt8Array) -> None:
        empty = self._empty[level]
        same = np.array_equal(rgb[::32, ::32], empty[::32, ::32]) and np.array_equal(rgb, empty)
        if same or key in self._written[level]:
            return
        self._written[level].add(key)
        self._writer.write_tile(self._pages[level], *key, rgb)

    def finish(self) -> None:
        """Give every tile of empty glass its bytes."""
        for level, page in enumerate(self._pages):
            if self._truth.background == "missing":
                continue
            data = self._writer.encode(page, self._empty[level])
            shared = self._truth.background == "shared"
            for row in range(page.rows):
                for col in range(page.columns):
                    if (col, row) not in self._written[level]:
                        self._writer.write_encoded_tile(page, col, row, data, shared=shared)
