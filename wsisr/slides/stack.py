"""Many small images of one size as one slide: its tiles are the images.

A data set of 300,000 patches would be as many slides of one pair each; as a stack, the patches of
one file, folder or source slide are the rows of one group of the store. The virtual slide has one
level, whose tile k is image k; nothing is ever resampled across the border of two images.
"""

import hashlib
import threading
from dataclasses import dataclass
from functools import partial
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.errors import SlideError
from wsisr.slides.fingerprint import fingerprint, total_bytes
from wsisr.slides.image import is_deep
from wsisr.slides.opening import open_slide
from wsisr.slides.protocol import ReaderVerdict, Slide, SlideInfo
from wsisr.slides.tiles import MISSING, Tile, TiledSlide, TileGrid

JUDGED = 8
"""Images of a stack that a second reader looks at."""


@dataclass(frozen=True, kw_only=True)
class ImageStack:
    """The images of a stack, before any is opened; picklable.

    Attributes
    ----------
    files : tuple of Path
        One per image; or the one HDF5 file that holds them all.
    rows : tuple of int
        Rows of the HDF5 data set; empty for files.
    dataset : str
        Name of the data set, shape (n, h, w, 3), uint8; empty for files.
    labels : tuple of str
        Class of each image; empty where unknown.
    """

    files: tuple[Path, ...]
    rows: tuple[int, ...] = ()
    dataset: str = ""
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows) if self.dataset else len(self.files)

    @property
    def identity(self) -> list[Any]:
        """What its rows are, besides its files."""
        return [self.dataset, self.rows, self.labels]

    @property
    def columns(self) -> int:
        """Images in one row of the virtual slide."""
        return max(1, ceil(sqrt(len(self))))


def open_stack(
    path: Path, stack: ImageStack, size_px: int, white: float | None = None
) -> TiledSlide:
    """The virtual slide of a stack.

    Parameters
    ----------
    path : Path
        What the stack is called in messages: the folder or the HDF5 file.
    size_px : int
        Side of every image; another size is an error when that image is read.
    white : float, optional
        Sample value that is white, of images of more than 8 bits.

    Raises
    ------
    SlideError
        If two readers show one of the images that are compared differently.
    """
    columns = stack.columns
    height = ceil(len(stack) / columns)
    grid = TileGrid.square(columns * size_px, height * size_px, size_px)
    chosen = hashlib.sha256(np.asarray(stack.rows, "<i8").tobytes()).hexdigest()
    content = fingerprint(stack.files)
    info = SlideInfo(
        path=path,
        vendor="image-stack",
        backend="stack",
        mpp=None,
        mpp_problem=f"{path}: a stack of images states no resolution",
        levels=(grid.level(0, grid),),
        bytes=total_bytes(stack.files),
        fingerprint=hashlib.sha256((content + chosen).encode()).hexdigest(),
        verdict=_judge(stack, white),
    )
    return TiledSlide(
        info,
        _StackStore(path, stack, grid, white),
        reopen=partial(open_stack, path, stack, size_px, white),
    )


def _judge(stack: ImageStack, white: float | None) -> ReaderVerdict:
    """The verdict on a few images, spread evenly; the others are read by the same reader alone."""
    if stack.dataset:
        detail = "read by h5py alone, so 0 regions were compared."
        return ReaderVerdict(status="unchecked", reader="stack", detail=detail)
    last = len(stack) - 1
    chosen = sorted({round(k * last / max(1, JUDGED - 1)) for k in range(JUDGED)})
    verdicts = []
    for index in chosen:
        with _open_one(stack.files[index], white, check=True) as image:
            if image.info.verdict is not None:
                verdicts.append(image.info.verdict)
    agree = [verdict for verdict in verdicts if verdict.status == "agree"]
    regions = sum(verdict.regions for verdict in agree)
    detail = f"{len(agree)} of {len(chosen)} images looked at (of {len(stack):,})"
    if len(agree) < len(chosen):
        detail = f"only {detail} are confirmed by a second reader."
        return ReaderVerdict(status="unchecked", reader="stack", detail=detail)
    return ReaderVerdict(
        status="agree",
        reader="stack",
        second=agree[0].second,
        regions=regions,
        levels=(0,),
        detail=f"two readers agree on every pixel of {regions} regions: {detail}.",
    )


def _open_one(path: Path, white: float | None, *, check: bool) -> Slide:
    deep = white is not None and is_deep(path)
    slide: Slide = open_slide(path, check=check, white=white if deep else None)
    return slide


class _StackStore:
    """Tiles of a stack; implements `TileStore`."""

    def __init__(self, path: Path, stack: ImageStack, grid: TileGrid, white: float | None) -> None:
        self._path = path
        self._white = white
        self._stack = stack
        self.grids = (grid,)
        self._lock = threading.Lock()
        self._data: Any = None
        self._file: Any = None

    def fetch(self, level: int, row: int, column: int) -> Tile:
        index = row * self.grids[0].columns + column
        if index >= len(self._stack):
            return MISSING
        pixels = self._row(index) if self._stack.dataset else self._image(index)
        side = self.grids[0].tile_width_px
        if pixels.shape != (side, side, 3) or pixels.dtype != np.uint8:
            where = (
                self._stack.files[index] if not self._stack.dataset else f"{self._path}[{index}]"
            )
            raise SlideError(
                f"{where}: is {pixels.shape} {pixels.dtype}, and the manifest's patches are "
                f"({side}, {side}, 3) uint8; set size to what the images are."
            )
        return Tile(pixels)

    def scanned(self, level: int, row: int, column: int) -> bool | None:
        return row * self.grids[0].columns + column < len(self._stack)

    def icc_profile(self) -> bytes | None:
        return None

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = self._data = None

    def _image(self, index: int) -> UInt8Array:
        with _open_one(self._stack.files[index], self._white, check=False) as image:
            level = image.info.levels[0]
            return image.read_level(0, 0, 0, level.width_px, level.height_px)

    def _row(self, index: int) -> UInt8Array:
        with self._lock:
            if self._data is None:
                self._file = open_hdf5(self._stack.files[0])
                self._data = self._file[self._stack.dataset]
            return np.ascontiguousarray(self._data[self._stack.rows[index]])


def open_hdf5(path: Path) -> Any:
    """An HDF5 file for reading.

    Raises
    ------
    SlideError
        If h5py is not installed, or the file is none.
    """
    try:
        import h5py
    except ImportError:
        raise SlideError(
            f"{path}: reading HDF5 needs h5py: pip install 'wsisr[hdf5]' (or unpack the patches "
            "to images)."
        ) from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise SlideError(f"{path}: no HDF5 file that can be read ({error}).") from error
