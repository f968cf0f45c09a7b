"""TIFF-family slides through tiffslide: the same stored pixels by another road.

The second opinion on the direct reader, and the reader of TIFF variants that it refuses.
tiffslide takes level-0 coordinates and floors them onto the level; asked for the *ceiling* of
``level position * downsample`` it returns stored pixels exactly (asked for the naive product it is
off by one whole level pixel). Blocks are large, because each call has a fixed cost.
"""

import threading
import warnings
from contextlib import closing
from dataclasses import replace
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.errors import SlideError
from wsisr.magnification import MppQuality, MppSource
from wsisr.slides.decode import APERIO_JP2K_YCBCR, JPEG
from wsisr.slides.faults import (
    PlainImageOnlyError,
    RefusedSlideError,
    UnconvertedError,
    quiet,
)
from wsisr.slides.fingerprint import fingerprint, total_bytes
from wsisr.slides.handles import PerProcess, PositionedFile
from wsisr.slides.jpeg import YCBCR_TAG
from wsisr.slides.protocol import SlideInfo
from wsisr.slides.tiff_directory import (
    PLACED_FREELY,
    TiffDirectory,
    read_directory,
)
from wsisr.slides.tiff_metadata import choose_resolution, objective_power, tiff_resolution
from wsisr.slides.tiles import MISSING, Tile, TileGrid, overlap

BLOCK_PX = 1024


class TiffSlideStore:
    """Blocks read through tiffslide; implements `TileStore`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._handle: PerProcess[Any] = PerProcess(self._open, lambda slide: slide.close())
        slide = self._handle.get()
        with warnings.catch_warnings():
            # It warns that it reads only some vendors' metadata; ours come from the tags.
            warnings.simplefilter("ignore")
            self.properties: dict[str, Any] = dict(slide.properties)
        self._downsamples = tuple(float(value) for value in slide.level_downsamples)
        self.grids = tuple(TileGrid.square(w, h, BLOCK_PX) for w, h in slide.level_dimensions)
        self.directory = self._tile_directory()
        """The tags of the same file, where its levels are the ones that tiffslide shows."""
        self._check_form()

    def fetch(self, level: int, row: int, column: int) -> Tile:
        x, y, width, height = self.grids[level].box(row, column)
        valid = self._scanned_block(level, x, y, width, height)
        if valid is not None and not bool(valid.any()):
            return MISSING
        downsample = self._downsamples[level]
        origin = (_level0(x, downsample), _level0(y, downsample))
        try:
            # fsspec files have one cursor: one read at a time.
            with self._lock:
                region = self._handle.get().read_region(
                    origin, level, (width, height), as_array=True
                )
        except Exception as error:
            raise SlideError(
                f"{self._path}: tiffslide cannot read level {level} at ({x}, {y}) "
                f"({str(error)[:160]}); the file is damaged, copy it again."
            ) from error
        pixels = np.asarray(region)
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        if pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
        if pixels.dtype != np.uint8 or pixels.shape[2] < 3:
            raise SlideError(f"{self._path}: pixels are {pixels.dtype} {pixels.shape}, not RGB.")
        pixels = np.array(pixels[:, :, :3])
        if valid is not None:
            pixels[~valid] = 255
        return Tile(pixels, valid)

    def scanned(self, level: int, row: int, column: int) -> bool | None:
        return None

    def icc_profile(self) -> bytes | None:
        return self.directory.icc if self.directory is not None else None

    def close(self) -> None:
        self._handle.close()

    def _open(self) -> Any:
        import tiffslide

        try:
            with quiet("tifffile"):
                return tiffslide.TiffSlide(self._path)
        except Exception as error:
            detail = str(error)[:160] or type(error).__name__
            raise SlideError(f"{self._path}: tiffslide cannot open it ({detail}).") from error

    def _tile_directory(self) -> TiffDirectory | None:
        try:
            directory = read_directory(self._path)
        except (PlainImageOnlyError, RefusedSlideError, UnconvertedError):
            self.close()
            raise
        except SlideError:
            return None
        sizes = [(level.grid.width_px, level.grid.height_px) for level in directory.levels]
        own = [(grid.width_px, grid.height_px) for grid in self.grids]
        return directory if sizes[: len(own)] == own else None

    def _check_form(self) -> None:
        """Refuse what tiffslide shows without converting it to RGB on white."""
        vendor = str(self.properties.get("tiffslide.vendor", ""))
        if self.directory is not None:
            vendor = self.directory.vendor
        if vendor in PLACED_FREELY and vendor != "leica":
            self.close()
            raise SlideError(f"{self._path}: {vendor} slides overlap their tiles; see OpenSlide.")
        if self.directory is None:
            return
        form = self.directory.levels[0].form
        raw = form.compression == APERIO_JP2K_YCBCR or (
            form.photometric == YCBCR_TAG and (form.compression != JPEG or form.planar == 2)
        )
        if raw or form.has_alpha or form.photometric == 0:
            self.close()
            raise SlideError(
                f"{self._path}: tiffslide does not convert its samples (YCbCr, inverted or with "
                "alpha) to RGB."
            )

    def _scanned_block(
        self, level: int, x: int, y: int, width: int, height: int
    ) -> np.ndarray | None:
        """Mask of a block with missing tiles (tiffslide paints them black); None without any."""
        if self.directory is None:
            return None
        stored = self.directory.levels[level]
        if bool((stored.byte_counts > 0).all()):
            return None
        mask = np.ones((height, width), dtype=np.bool_)
        for row, column in stored.grid.touched(x, y, width, height):
            if any(stored.byte_counts[index] == 0 for index in stored.chunks_of(row, column)):
                target, _ = overlap(stored.grid, row, column, (x, y, width, height))
                mask[target] = False
        return None if bool(mask.all()) else mask


def _level0(position: int, downsample: float) -> int:
    """Level-0 coordinate that tiffslide's floor maps back to a level position."""
    value = ceil(position * downsample)
    while floor(value / downsample) < position:
        value += 1
    return value


def open_tiffslide(path: Path) -> tuple[SlideInfo, TiffSlideStore]:
    """Open a TIFF-family slide with tiffslide.

    Raises
    ------
    SlideError
        If tiffslide does not know it or it is damaged.
    """
    from wsisr.slides.compression import tiff_compression
    from wsisr.slides.direct import DirectStore

    store = TiffSlideStore(path)
    directory = store.directory
    properties = store.properties
    if directory is not None:
        resolution = tiff_resolution(directory)
        power = objective_power(directory)
    else:
        x, y = properties.get("tiffslide.mpp-x"), properties.get("tiffslide.mpp-y")
        stated = []
        if x is not None and y is not None:
            stated = [((float(x), float(y)), MppSource.TIFF, MppQuality.DERIVED)]
        resolution = choose_resolution(path.name, stated)
        stated_power = properties.get("tiffslide.objective-power")
        power = float(stated_power) if stated_power is not None else None
    levels = [grid.level(index, store.grids[0]) for index, grid in enumerate(store.grids)]
    if directory is not None:
        with closing(DirectStore(directory, PositionedFile(path))) as chunks:
            levels = [
                replace(level, compression=tiff_compression(directory, level.index, chunks))
                for level in levels
            ]
    info = SlideInfo(
        path=path,
        vendor=directory.vendor if directory is not None else "unknown-tiff",
        backend="tiffslide",
        mpp=resolution.mpp,
        mpp_problem=resolution.problem,
        objective_power=power,
        levels=tuple(levels),
        icc_sha256=directory.icc_sha256 if directory is not None else None,
        bytes=total_bytes((path,)),
        fingerprint=fingerprint((path,)),
        quirks=directory.quirks if directory is not None else (),
        focal_plane=directory.focal_plane if directory is not None else None,
    )
    return info, store
