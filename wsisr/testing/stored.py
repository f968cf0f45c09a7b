"""The pixels that a generated slide really stores, read without any part of `wsisr.slides`.

An oracle for backends: it takes the tile positions that tifffile's parser finds and decodes the
tiles with the codec that the truth names.
"""

from pathlib import Path

import numpy as np
import tifffile

from wsisr.arrays import BoolArray, UInt8Array
from wsisr.testing.slides import codec_of
from wsisr.testing.truth import SlideTruth


class StoredSlide:
    """Random access to a generated slide's stored pixels."""

    def __init__(self, path: Path, truth: SlideTruth) -> None:
        self.path = path
        self.truth = truth
        self._codec = codec_of(truth)
        self._tiles: list[tuple[list[int], list[int], bytes | None]] = []
        with tifffile.TiffFile(path) as file:
            for level in truth.levels:
                page = file.pages[level.page]
                tables = page.jpegtables  # type: ignore[union-attr]
                self._tiles.append(
                    (
                        list(page.dataoffsets),
                        list(page.databytecounts),
                        bytes(tables) if tables else None,
                    )
                )

    def tile(self, level: int, column: int, row: int) -> UInt8Array | None:
        """One whole stored tile, or None where it is missing."""
        where = self.truth.levels[level]
        offsets, counts, tables = self._tiles[level]
        index = row * -(-where.stored_width_px // where.tile_px) + column
        if counts[index] == 0:
            return None
        with self.path.open("rb") as file:
            file.seek(offsets[index])
            data = file.read(counts[index])
        return self._codec.decode(data, tables, (where.tile_px, where.tile_px, 3))

    def read(
        self, level: int, x: int, y: int, width: int, height: int
    ) -> tuple[UInt8Array, BoolArray]:
        """Pixels and validity of a region in level pixels: what `Slide.read_level` owes.

        Returns
        -------
        rgb : ndarray, shape (height, width, 3), uint8
            White outside the picture and in missing tiles.
        valid : ndarray, shape (height, width), bool
        """
        where = self.truth.levels[level]
        size = where.tile_px
        rgb = np.full((height, width, 3), 255, np.uint8)
        valid = np.zeros((height, width), bool)
        x0, y0 = max(0, x), max(0, y)
        x1, y1 = min(where.width_px, x + width), min(where.height_px, y + height)
        if x0 >= x1 or y0 >= y1:
            return rgb, valid
        for row in range(y0 // size, (y1 - 1) // size + 1):
            for column in range(x0 // size, (x1 - 1) // size + 1):
                tile = self.tile(level, column, row)
                if tile is None:
                    continue
                left, top = max(x0, column * size), max(y0, row * size)
                right, bottom = min(x1, (column + 1) * size), min(y1, (row + 1) * size)
                target = slice(top - y, bottom - y), slice(left - x, right - x)
                rgb[target] = tile[
                    top - row * size : bottom - row * size,
                    left - column * size : right - column * size,
                ]
                valid[target] = True
        return rgb, valid
