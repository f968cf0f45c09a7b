"""Plain images (PNG, JPEG, BMP, and what Pillow reads): one level, wholly in memory."""

import hashlib
import threading
import warnings
from pathlib import Path

import numpy as np

from wsisr.errors import SlideError
from wsisr.magnification import MppQuality, MppSource
from wsisr.slides.compression import LOSSY, jpeg_quality
from wsisr.slides.decode import composite_on_white
from wsisr.slides.fingerprint import fingerprint, total_bytes
from wsisr.slides.jpeg import parse_jpeg_header
from wsisr.slides.protocol import BoolArray, Compression, Level, SlideInfo, UInt8Array
from wsisr.slides.tiff_metadata import COARSEST_TIFF_UM_PER_PX, choose_resolution
from wsisr.slides.tiles import WHITE, Tile, TileGrid

BLOCK_PX = 1024
MAX_IMAGE_PX = 178_000_000
"""Largest plain image that is decoded: 0.5 GB as RGB."""
HEADER_BYTES = 1 << 20

_CODECS = {"JPEG": "jpeg", "PNG": "png", "TIFF": "unknown", "WEBP": "webp", "JPEG2000": "jpeg2000"}


class ImageStore:
    """Blocks of a decoded image; implements `TileStore`."""

    def __init__(self, path: Path, width_px: int, height_px: int, icc: bytes | None) -> None:
        self._path = path
        self._icc = icc
        self._grid = TileGrid(
            width_px=width_px,
            height_px=height_px,
            tile_width_px=min(BLOCK_PX, width_px),
            tile_height_px=min(BLOCK_PX, height_px),
        )
        self._pixels: UInt8Array | None = None
        self._valid: BoolArray | None = None
        self._lock = threading.Lock()

    @property
    def grids(self) -> tuple[TileGrid, ...]:
        return (self._grid,)

    def fetch(self, level: int, row: int, column: int) -> Tile:
        with self._lock:
            if self._pixels is None:
                self._pixels, self._valid = _decode(self._path)
                shape = (self._grid.height_px, self._grid.width_px, 3)
                if self._pixels.shape != shape:
                    raise SlideError(
                        f"{self._path}: decodes to {self._pixels.shape}, its header says {shape}; "
                        "the file is damaged."
                    )
        grid = self._grid
        rows = slice(row * grid.tile_height_px, (row + 1) * grid.tile_height_px)
        columns = slice(column * grid.tile_width_px, (column + 1) * grid.tile_width_px)
        valid = None if self._valid is None else self._valid[rows, columns]
        return Tile(np.ascontiguousarray(self._pixels[rows, columns]), valid)

    def scanned(self, level: int, row: int, column: int) -> bool | None:
        return None

    def icc_profile(self) -> bytes | None:
        return self._icc

    def close(self) -> None:
        with self._lock:
            self._pixels = self._valid = None


def open_image(path: Path) -> tuple[SlideInfo, ImageStore]:
    """Open a plain image.

    Raises
    ------
    SlideError
        If Pillow cannot read it, it has more than 8 bits a sample, or is larger than 178 MPx.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                width, height, mode = image.width, image.height, image.mode
                kind = str(image.format)
                pages = int(getattr(image, "n_frames", 1))
                dpi = image.info.get("dpi")
                icc = image.info.get("icc_profile")
    except Exception as error:
        raise SlideError(
            f"{path}: no image that can be read ({type(error).__name__}); the file is damaged or "
            "of another kind."
        ) from error
    if pages > 1:
        raise SlideError(
            f"{path}: holds {pages} pages, so it is no plain image; convert it to a tiled TIFF."
        )
    if width * height > MAX_IMAGE_PX:
        raise SlideError(
            f"{path}: {width} x {height} px is too large for a plain image; convert it to a tiled "
            "pyramidal TIFF."
        )
    if mode not in ("L", "LA", "P", "RGB", "RGBA", "1", "CMYK", "YCbCr"):
        raise SlideError(f"{path}: samples of mode {mode} are not read; convert it to 8-bit RGB.")
    stated = []
    problem = ""
    if isinstance(dpi, tuple) and len(dpi) == 2 and min(dpi) > 0:
        um = (25400.0 / float(dpi[0]), 25400.0 / float(dpi[1]))
        if max(um) <= COARSEST_TIFF_UM_PER_PX:
            stated.append((um, MppSource.TIFF, MppQuality.DERIVED))
        else:
            problem = f"its resolution tag ({float(dpi[0]):.0f} dpi) is no microscope's"
    resolution = choose_resolution(path.name, stated, problem)
    icc = bytes(icc) if icc else None
    store = ImageStore(path, width, height, icc)
    grid = store.grids[0]
    info = SlideInfo(
        path=path,
        vendor=f"plain-{kind.lower()}",
        backend="image",
        mpp=resolution.mpp,
        mpp_problem=resolution.problem,
        levels=(
            Level(
                index=0,
                width_px=width,
                height_px=height,
                factor=1,
                tile_width_px=grid.tile_width_px,
                tile_height_px=grid.tile_height_px,
                compression=_compression(path, kind),
            ),
        ),
        icc_sha256=hashlib.sha256(icc).hexdigest() if icc else None,
        bytes=total_bytes((path,)),
        fingerprint=fingerprint((path,)),
    )
    return info, store


def _decode(path: Path) -> tuple[UInt8Array, BoolArray | None]:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.mode in ("RGBA", "LA") or "transparency" in image.info:
                    tile = composite_on_white(np.asarray(image.convert("RGBA")))
                    if tile.pixels is None:
                        shape = (image.height, image.width)
                        return np.full((*shape, 3), WHITE, np.uint8), np.zeros(shape, np.bool_)
                    return tile.pixels, tile.valid
                return np.array(image.convert("RGB")), None
    except Exception as error:
        raise SlideError(
            f"{path}: cannot be decoded ({str(error)[:120]}); the file is damaged, copy it again."
        ) from error


def _compression(path: Path, kind: str) -> Compression:
    codec = _CODECS.get(kind, "unknown")
    if codec != "jpeg":
        lossy = codec in LOSSY and codec != "unknown"
        return Compression(codec=codec, generations=int(lossy))
    with open(path, "rb") as file:
        header = parse_jpeg_header(file.read(HEADER_BYTES))
    return Compression(
        codec=codec,
        photometric="rgb" if header.adobe_transform == 0 else "ycbcr",
        quality=jpeg_quality(header.luminance),
        tables_sha256=header.tables_sha256,
        subsampling=header.subsampling,
        generations=1,
    )
