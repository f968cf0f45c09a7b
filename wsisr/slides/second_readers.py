"""Who checks whom, and three plain readers that only check.

OpenSlide and tiffslide check the readers of TIFF and DICOM where they can. What they do not open
(OME-TIFF with its channels apart, DICOM in JPEG-LS or with several focal planes, plain images) is
checked by the way in which tifffile, pydicom and OpenCV read it: their idea of pages, frames and
colours, not ours. They are slow or hold a whole image, so nothing is built from them.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.arrays import AnyArray, UInt8Array
from wsisr.errors import SlideError
from wsisr.slides.decode import CODEC_NAMES, composite_on_white, ycbcr_to_rgb
from wsisr.slides.dicom_files import quiet_pydicom, series_of
from wsisr.slides.faults import quiet
from wsisr.slides.jpeg import YCBCR_TAG
from wsisr.slides.plain_images import TRANSPARENT, read_facts
from wsisr.slides.protocol import Level, SlideInfo
from wsisr.slides.readers import BACKENDS, WITH_FOCAL_PLANES, backends_for, open_with
from wsisr.slides.tiles import Tile, TiledSlide, TileGrid, TileStore

logger = logging.getLogger(__name__)

SECOND_READERS: dict[str, tuple[str, ...]] = {
    "direct": ("openslide", "tiffslide", "tifffile"),
    "dicom": ("openslide", "pydicom"),
    "tiffslide": ("openslide", "direct"),
    "openslide": ("direct", "dicom", "tiffslide", "image"),
    "image": ("tifffile", "opencv"),
}
"""Second readers of each first one, in the order in which they are asked."""

BLOCK_PX = 512
ASSOCIATED, UNASSOCIATED = 1, 2
"""Kinds of opacity in TIFF: already multiplied into the colours, or not."""
COLOURLESS = ("none", "lzw", "deflate", "packbits", "zstd")
MAX_WHOLE_PX = 64_000_000
"""Plain images larger than this are not decoded a second time, for the memory it takes."""


def open_second(info: SlideInfo, name: str) -> TiledSlide | None:
    """The same file by another reader; None where that one does not read it."""
    try:
        store: TileStore
        if name in _PLAIN:
            store = _PLAIN[name](info)
            return TiledSlide(_info(info, name, store.grids), store, cache_mib=16)
        if name not in BACKENDS or name not in backends_for(info.path):
            return None
        if info.focal_plane is not None and name not in WITH_FOCAL_PLANES:
            return None  # it shows the first plane
        other, store = open_with(info.path, (name,))
        return TiledSlide(other, store, cache_mib=16)
    except Exception as error:  # slide libraries raise anything on what they do not read
        logger.debug("no second opinion from %s: %s", name, error)
        return None


def _info(info: SlideInfo, name: str, grids: tuple[TileGrid, ...]) -> SlideInfo:
    return SlideInfo(
        path=info.path,
        vendor=info.vendor,
        backend=name,
        mpp=None,
        levels=tuple(grid.level(index, grids[0]) for index, grid in enumerate(grids)),
        bytes=info.bytes,
        fingerprint=info.fingerprint,
    )


class _Bare:
    """A reader that says nothing of its tiles but their pixels, and holds nothing open."""

    def scanned(self, level: int, row: int, column: int) -> bool | None:
        return True

    def icc_profile(self) -> bytes | None:
        return None

    def close(self) -> None:
        pass


class TifffileStore:
    """The series of a TIFF as tifffile understands it; blocks through its Zarr view."""

    def __init__(self, info: SlideInfo) -> None:
        import tifffile
        import zarr

        with quiet("tifffile"):
            self._tiff = tifffile.TiffFile(info.path)
            base = info.levels[0]
            for series in self._tiff.series:
                axes = "".join(axis for axis in series.axes if axis in "YXSCZ")
                if len(axes) == len(series.axes) and _size(series) == _px(base):
                    break
            else:
                self._tiff.close()
                raise SlideError("tifffile sees no series of this size")
            page = series.keyframe
            photometric, samples = int(page.photometric), int(page.samplesperpixel)
            self._opacity = [int(kind) for kind in page.extrasamples]
            turn = page.tags.get("Orientation")
            if (
                photometric not in (1, 2, 6)
                or samples - len(self._opacity) not in (1, 3)
                or self._opacity not in ([], [ASSOCIATED], [UNASSOCIATED])
                or (turn is not None and int(turn.value) != 1)
            ):
                self._tiff.close()
                raise SlideError("tifffile hands out samples that are not RGB, or lie on a side")
            # Samples of codecs that know no colours come as they are stored.
            coded = CODEC_NAMES.get(int(page.compression), "")
            self._stored_ycbcr = photometric == YCBCR_TAG and coded in COLOURLESS
            plane = None if info.focal_plane is None else info.focal_plane - 1
            self._white = info.white
            self._axes = series.axes
            self._plane = (plane or 0) if not self._tiff.is_ndpi else _by_height(series, plane or 0)
            levels = [level for level in series.levels if level.axes == series.axes]
            self._arrays = [
                zarr.open_array(series.aszarr(level=number), mode="r")
                for number in range(len(levels))
            ]
            self._channels = _channel_order(series) if "C" in series.axes else [0, 1, 2]
        self._lock = threading.Lock()
        self.grids = tuple(TileGrid.square(*_size(level), BLOCK_PX) for level in levels)

    def fetch(self, level: int, row: int, column: int) -> Tile:
        rows = slice(row * BLOCK_PX, (row + 1) * BLOCK_PX)
        columns = slice(column * BLOCK_PX, (column + 1) * BLOCK_PX)
        chosen: dict[str, Any] = {"Y": rows, "X": columns, "Z": self._plane}
        with self._lock, quiet("tifffile"):
            block = np.asarray(
                self._arrays[level][tuple(chosen.get(axis, slice(None)) for axis in self._axes)]
            )
        left = [axis for axis in self._axes if axis != "Z"]
        if "C" in left and "S" in left:
            raise SlideError("several channels of several samples")
        if "C" in left or "S" in left:
            apart = left.index("C" if "C" in left else "S")
            block = np.moveaxis(block, apart, 2)
        else:
            block = block[:, :, None]
        block = _to_bytes(block, self._white)
        if self._opacity and block.dtype == np.uint8 and self._white is None:
            return _laid_on_white(block, self._opacity == [ASSOCIATED])
        if block.shape[2] == 1:
            block = np.repeat(block, 3, axis=2)
        if block.dtype != np.uint8 or block.shape[2] != 3:
            raise SlideError(f"tifffile gives {block.dtype} {block.shape}")
        block = np.ascontiguousarray(block[:, :, self._channels])
        return Tile(ycbcr_to_rgb(block) if self._stored_ycbcr else block)

    def scanned(self, level: int, row: int, column: int) -> bool | None:
        return True

    def icc_profile(self) -> bytes | None:
        return None

    def close(self) -> None:
        self._tiff.close()


def _laid_on_white(block: UInt8Array, premultiplied: bool) -> Tile:
    """Grey or RGB with its opacity behind."""
    colours, alpha = block[:, :, :-1], block[:, :, -1:]
    rgba = np.concatenate([np.broadcast_to(colours, (*alpha.shape[:2], 3)), alpha], axis=2)
    if not premultiplied:
        return composite_on_white(rgba)
    shown = rgba[:, :, :3].astype(np.int16) + 255 - alpha
    return Tile(np.minimum(shown, 255).astype(np.uint8), alpha[:, :, 0] > 0)


def _to_bytes(samples: AnyArray, white: float | None) -> AnyArray:
    """Deep samples by the white that was stated; others as they are."""
    if white is None or samples.dtype == np.uint8:
        return samples
    return np.floor(samples.astype(np.float64) * 255.0 / white + 0.5).clip(0, 255).astype(np.uint8)


def _by_height(series: Any, plane: int) -> int:
    """Where the plane of a height, counted from the lowest, stands in an NDPI: in any order."""
    heights = [int((page.aspage().ndpi_tags or {})["ZOffsetFromSlideCenter"]) for page in series]
    return int(np.argsort(heights, kind="stable")[plane])


def _channel_order(series: Any) -> list[int]:
    """Indices of red, green and blue among the channels that the OME-XML names; 0, 1, 2 if none."""
    from wsisr.slides.ome import ome_images, rgb_order

    text = series.parent.ome_metadata if series.parent is not None else None
    for image in ome_images(text or ""):
        if (image.width_px, image.height_px) == _size(series):
            order = rgb_order(image)
            return list(order) if order is not None else [0, 1, 2]
    return [0, 1, 2]


def _size(series: Any) -> tuple[int, int]:
    axes, shape = series.axes, series.shape
    return int(shape[axes.index("X")]), int(shape[axes.index("Y")])


def _px(level: Level) -> tuple[int, int]:
    return level.width_px, level.height_px


class PydicomStore(_Bare):
    """Frames of a tiled-full DICOM series, found and turned to RGB by pydicom.

    Only JPEG-LS and HTJ2K are decoded by imagecodecs, for which pydicom needs further packages.
    """

    def __init__(self, info: SlideInfo) -> None:
        import pydicom

        found: dict[tuple[int, int], list[tuple[int, Path, Any]]] = {}
        with quiet_pydicom():
            for path in series_of(info.path):
                header = pydicom.dcmread(path, stop_before_pixels=True)
                size = int(header.TotalPixelMatrixColumns), int(header.TotalPixelMatrixRows)
                kinds = set(header.ImageType)
                if kinds & {"LABEL", "OVERVIEW", "THUMBNAIL"}:
                    continue
                if header.get("DimensionOrganizationType") != "TILED_FULL":
                    raise SlideError("pydicom's check reads TILED_FULL only")
                if int(header.get("NumberOfOpticalPaths", 1)) != 1:
                    raise SlideError("pydicom's check reads one optical path only")
                start = int(header.get("ConcatenationFrameOffsetNumber", 0))
                found.setdefault(size, []).append((start, path, header))
        self._levels = [
            sorted(members, key=lambda item: item[0])
            for _, members in sorted(found.items(), key=lambda item: -item[0][0] * item[0][1])
        ]
        self._plane = (info.focal_plane or 1) - 1
        self.grids = tuple(
            TileGrid(
                width_px=int(members[0][2].TotalPixelMatrixColumns),
                height_px=int(members[0][2].TotalPixelMatrixRows),
                tile_width_px=int(members[0][2].Columns),
                tile_height_px=int(members[0][2].Rows),
            )
            for members in self._levels
        )

    def fetch(self, level: int, row: int, column: int) -> Tile:
        grid = self.grids[level]
        number = self._plane * grid.rows * grid.columns + row * grid.columns + column
        for start, path, header in self._levels[level]:
            frames = int(header.NumberOfFrames)
            if start <= number < start + frames:
                return Tile(_frame(path, header, number - start))
        raise SlideError("pydicom finds no such frame")


def _frame(path: Path, header: Any, index: int) -> UInt8Array:
    import imagecodecs
    from pydicom.pixels.processing import convert_color_space
    from pydicom.pixels.utils import pixel_array

    syntax = str(header.file_meta.TransferSyntaxUID)
    with quiet_pydicom():
        decoder = {"80": "jpegls", "81": "jpegls", "01": "htj2k", "02": "htj2k", "03": "htj2k"}
        family = decoder.get(syntax[-2:]) if ".4.8" in syntax or ".4.20" in syntax else None
        if family is None:
            image: AnyArray = pixel_array(path, index=index)  # to RGB, by pydicom
        else:
            image = getattr(imagecodecs, f"{family}_decode")(_stored_frame(path, header, index))
            if str(header.PhotometricInterpretation).startswith("YBR_FULL"):
                image = convert_color_space(image, "YBR_FULL", "RGB")
    if image.dtype != np.uint8 or image.ndim != 3:
        raise SlideError(f"pydicom gives {image.dtype} {image.shape}")
    return np.ascontiguousarray(image)


def _stored_frame(path: Path, header: Any, index: int) -> bytes:
    import pydicom
    from pydicom.encaps import get_frame

    # Read with the pixels: files of these two codecs are rare, and checked once.
    data = pydicom.dcmread(path).PixelData
    return bytes(get_frame(data, index, number_of_frames=int(header.NumberOfFrames)))


class OpenCvStore(_Bare):
    """A plain image as OpenCV shows it: turned by its EXIF tag, colours from the stream."""

    def __init__(self, info: SlideInfo) -> None:
        import cv2

        base = info.levels[0]
        if base.width_px * base.height_px > MAX_WHOLE_PX:
            raise SlideError("too large to be decoded a second time")
        data = np.fromfile(info.path, np.uint8)
        image: Any = None
        with suppress(cv2.error):
            image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        deep = image is not None and image.dtype != np.uint8
        if image is None or deep != (info.white is not None):
            raise SlideError("OpenCV does not read such samples")
        self._pixels: UInt8Array
        opaque = image.ndim < 3 or image.shape[2] < 4
        if opaque and read_facts(info.path).mode in TRANSPARENT:
            raise SlideError("OpenCV leaves its opacity out")
        if not opaque:
            full = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1
            alpha = _to_bytes(image[:, :, 3:], full)
            image = np.concatenate([_to_bytes(image[:, :, :3], info.white), alpha], axis=2)
            tile = composite_on_white(image[:, :, [2, 1, 0, 3]])
            if tile.pixels is None:
                raise SlideError("nothing is opaque")
            self._pixels = tile.pixels
        else:
            # With its colours asked for, it turns the image as EXIF says.
            depth = cv2.IMREAD_ANYDEPTH if deep else 0
            shown: Any = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | depth)
            self._pixels = _to_bytes(shown, info.white)
        height, width = self._pixels.shape[:2]
        self.grids = (TileGrid.square(width, height, BLOCK_PX),)

    def fetch(self, level: int, row: int, column: int) -> Tile:
        rows = slice(row * BLOCK_PX, (row + 1) * BLOCK_PX)
        columns = slice(column * BLOCK_PX, (column + 1) * BLOCK_PX)
        return Tile(np.ascontiguousarray(self._pixels[rows, columns]))


_PLAIN: dict[str, Callable[[SlideInfo], TileStore]] = {
    "tifffile": TifffileStore,
    "pydicom": PydicomStore,
    "opencv": OpenCvStore,
}
