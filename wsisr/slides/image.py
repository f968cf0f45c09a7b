"""Plain images (PNG, JPEG, BMP, and what Pillow reads) as slides of one level."""

import hashlib
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np

from wsisr.arrays import BoolArray, UInt8Array
from wsisr.errors import SlideError
from wsisr.magnification import MppQuality, MppSource
from wsisr.slides.compression import LOSSY, jpeg_compression
from wsisr.slides.fingerprint import fingerprint, total_bytes
from wsisr.slides.jpeg import YCBCR_TAG, parse_jpeg_header, stream_space
from wsisr.slides.plain_images import (
    HEADER_BYTES,
    PictureFacts,
    check_depth,
    read_facts,
    read_picture,
)
from wsisr.slides.protocol import Compression, SlideInfo
from wsisr.slides.tiff_metadata import choose_resolution
from wsisr.slides.tiles import Tile, TileGrid

BLOCK_PX = 1024

_CODECS = {"JPEG": "jpeg", "PNG": "png", "TIFF": "unknown", "WEBP": "webp", "JPEG2000": "jpeg2000"}


class ImageStore:
    """Blocks of a decoded image, held once as grey or RGB; implements `TileStore`."""

    def __init__(self, path: Path, facts: PictureFacts, white: float | None) -> None:
        self._path = path
        self._white = white
        self._icc = facts.icc
        grid = TileGrid(
            width_px=facts.width_px,
            height_px=facts.height_px,
            tile_width_px=min(BLOCK_PX, facts.width_px),
            tile_height_px=min(BLOCK_PX, facts.height_px),
        )
        self.grids = (grid,)
        self._pixels: UInt8Array | None = None
        self._valid: BoolArray | None = None
        self._lock = threading.Lock()

    def fetch(self, level: int, row: int, column: int) -> Tile:
        with self._lock:
            if self._pixels is None:
                self._pixels, self._valid, _ = read_picture(self._path, self._white)
            pixels, whole = self._pixels, self._valid
        x, y, width, height = self.grids[0].box(row, column)
        rows, columns = slice(y, y + height), slice(x, x + width)
        block = pixels[rows, columns]
        block = np.repeat(block, 3, axis=2) if block.shape[2] == 1 else np.ascontiguousarray(block)
        return Tile(block, None if whole is None else whole[rows, columns])

    def scanned(self, level: int, row: int, column: int) -> bool | None:
        return None

    def icc_profile(self) -> bytes | None:
        return self._icc

    def close(self) -> None:
        with self._lock:
            self._pixels = self._valid = None


def open_image(path: Path, white: float | None = None) -> tuple[SlideInfo, ImageStore]:
    """Open a plain image.

    Parameters
    ----------
    white : float, optional
        Sample value that is white, for samples of more than 8 bits.

    Raises
    ------
    SlideError
        If it cannot be read, is larger than 178 MPx, or has deep samples and no `white` is given.
    """
    facts = read_facts(path)
    check_depth(path, facts, white)
    dpi = facts.dpi
    stated = []
    if dpi is not None and min(dpi) > 0:
        um = (25400.0 / dpi[0], 25400.0 / dpi[1])
        stated.append((um, MppSource.TIFF, MppQuality.DERIVED))
    resolution = choose_resolution(path.name, stated)
    icc = facts.icc
    store = ImageStore(path, facts, white)
    grid = store.grids[0]
    info = SlideInfo(
        path=path,
        vendor=f"plain-{facts.kind.lower()}",
        backend="image",
        mpp=resolution.mpp,
        mpp_problem=resolution.problem,
        levels=(replace(grid.level(0, grid), compression=_compression(path, facts)),),
        icc_sha256=hashlib.sha256(icc).hexdigest() if icc else None,
        bytes=total_bytes((path,)),
        fingerprint=fingerprint((path,)),
        quirks=facts.notes(white),
        white=white,
    )
    return info, store


def is_deep(path: Path) -> bool:
    """Whether a file is an image of more than 8 bits, which needs a stated white."""
    try:
        return read_facts(path).deep
    except SlideError:
        return False  # of another kind; its own reader says what is wrong with it


def _compression(path: Path, facts: PictureFacts) -> Compression:
    codec = _CODECS.get(facts.kind, "unknown")
    if codec != "jpeg":
        lossy = codec in LOSSY and codec != "unknown"
        photometric = "minisblack" if facts.grey else "rgb"
        return Compression(codec=codec, photometric=photometric, generations=int(lossy))
    with open(path, "rb") as file:
        header = parse_jpeg_header(file.read(HEADER_BYTES))
    space, by = "minisblack" if facts.grey else "cmyk", "number of components"
    if len(header.components) == 3:
        space, by = stream_space(header, YCBCR_TAG)
    return replace(jpeg_compression(header, space, by), generations=1)
