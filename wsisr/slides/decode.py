"""Decode one stored tile or strip to RGB; the only place that knows codecs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from wsisr.arrays import AnyArray, UInt8Array
from wsisr.slides.faults import DamagedTileError
from wsisr.slides.jpeg import YCBCR_TAG, Space, StatedJpeg, decode_jpeg
from wsisr.slides.tiles import MISSING, WHITE, Tile, TileGrid

NONE, LZW, JPEG, DEFLATE, PACKBITS = 1, 5, 7, 8, 32773
APERIO_JP2K_YCBCR, APERIO_JP2K_RGB, JPEG2000 = 33003, 33005, 34712
ADOBE_DEFLATE, OLD_DEFLATE, ZSTD, WEBP, WEBP_OLD, ZSTD_OLD = 8, 32946, 50000, 50001, 34927, 34926
JPEG2000_CODES = (APERIO_JP2K_YCBCR, APERIO_JP2K_RGB, JPEG2000, 33004, 34713)
JPEGXL_CODES = (50002, 52546)
JPEG_LS, HTJ2K, NATIVE_422 = -1, -2, -3
"""Ways of storing that DICOM has and TIFF has no code for."""

CODEC_NAMES: dict[int, str] = {
    NONE: "none",
    LZW: "lzw",
    JPEG: "jpeg",
    DEFLATE: "deflate",
    OLD_DEFLATE: "deflate",
    PACKBITS: "packbits",
    ZSTD: "zstd",
    ZSTD_OLD: "zstd",
    WEBP: "webp",
    WEBP_OLD: "webp",
    JPEG_LS: "jpeg-ls",
    HTJ2K: "htj2k",
    NATIVE_422: "none",
}
CODEC_NAMES |= dict.fromkeys(JPEG2000_CODES, "jpeg2000") | dict.fromkeys(JPEGXL_CODES, "jpegxl")

PHOTOMETRIC_NAMES: dict[int, str] = {0: "miniswhite", 1: "minisblack", 2: "rgb", 6: "ycbcr"}


StreamKind = Literal["jpeg", "jpeg2k"]
"""Of streams that say all of themselves; names that imagecodecs has for them."""


@dataclass(frozen=True, kw_only=True)
class ChunkFormat:
    """How the tiles (or strips) of one level are coded.

    Attributes
    ----------
    compression, photometric, predictor, planar : int
        Values of the TIFF tags; DICOM's words are translated to them.
    samples : int
        Samples per pixel: 1, 3 or 4.
    has_alpha : bool
        Whether the last sample is opacity.
    premultiplied : bool
        Whether colours are already multiplied by it.
    jpeg_tables : bytes or None
        Abbreviated stream with the shared JPEG tables.
    jpeg_header : bytes or None
        Header that each restart segment of an NDPI level needs.
    doubtful_space : {"rgb", "ycbcr"} or None
        What the pixels say where the JPEG stream and the tag contradict each other
        (`wsisr.slides.jpeg.stream_space`).
    """

    compression: int
    photometric: int
    predictor: int = 1
    planar: int = 1
    samples: int = 3
    has_alpha: bool = False
    premultiplied: bool = False
    jpeg_tables: bytes | None = None
    jpeg_header: bytes | None = None
    doubtful_space: Space | None = None

    @property
    def planes(self) -> int:
        """Chunks that make one tile: 1, or one a sample where planes are stored apart."""
        return self.samples if self.planar == 2 else 1

    def stated_jpeg(self, width_px: int, height_px: int) -> StatedJpeg:
        """What is said of the JPEG stream of one chunk of at most that size."""
        return StatedJpeg(
            samples=1 if self.planar == 2 else self.samples,
            width_px=width_px,
            height_px=height_px,
            photometric=self.photometric,
            tables=self.jpeg_tables,
            segment_header=self.jpeg_header,
            doubtful=self.doubtful_space,
        )


def decode_tile(chunks: list[bytes], form: ChunkFormat, width: int, height: int) -> Tile:
    """Decode the chunks of one tile.

    Parameters
    ----------
    chunks : list of bytes
        One compressed chunk, or one a plane.
    width, height : int
        Size that the directory states, pixels. JPEG and JPEG 2000 streams at the edge may be
        smaller.

    Returns
    -------
    Tile

    Raises
    ------
    ValueError
        If the stream is broken or does not have the stated form (imagecodecs' own errors are
        `RuntimeError` and `ValueError`).
    """
    planes = [decode_chunk(chunk, form, width, height) for chunk in chunks]
    if len({plane.shape for plane in planes}) > 1:
        raise ValueError("its planes differ in size: separate planes of subsampled chroma")
    image = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)
    return to_rgb(image, form)


def decode_stored(
    chunks: list[bytes], form: ChunkFormat, grid: TileGrid, place: tuple[int, int], name: str
) -> Tile:
    """`decode_tile` for the tile at a (row, column) of a level, which it has to cover.

    Raises
    ------
    DamagedTileError
        Under the `name` of the tile.
    """
    try:
        tile = decode_tile(chunks, form, grid.tile_width_px, grid.tile_height_px)
    except (ValueError, RuntimeError, TypeError, IndexError, MemoryError) as error:
        raise DamagedTileError(
            f"{name} cannot be decoded ({str(error)[:120]}); the file is damaged, copy it again."
        ) from error
    _, _, width, height = grid.box(*place)
    if tile.pixels is not None and (tile.pixels.shape[0] < height or tile.pixels.shape[1] < width):
        raise DamagedTileError(
            f"{name} decodes to {tile.pixels.shape[1]} x {tile.pixels.shape[0]} px instead of "
            f"{width} x {height}; the file is damaged, copy it again."
        )
    return tile


def decode_chunk(data: bytes, form: ChunkFormat, width: int, height: int) -> UInt8Array:
    """One chunk as (height, width, samples) uint8.

    In the stored colour space, except where the stream itself tells how to leave it: JPEG, and
    JPEG 2000 with interleaved components, come as RGB.
    """
    import imagecodecs

    samples = 1 if form.planar == 2 else form.samples
    code = form.compression
    image: AnyArray
    if code == JPEG:
        image = decode_jpeg(data, form.stated_jpeg(width, height))
    elif code in JPEG2000_CODES or code == HTJ2K:
        _check_stated_size(jpeg2000_size(data), width, height)
        if code == HTJ2K:
            image = imagecodecs.htj2k_decode(data)
            if image.ndim == 3 and image.shape[2] != samples == image.shape[0]:
                image = np.ascontiguousarray(np.moveaxis(image, 0, 2))  # planes without transform
        else:
            image = imagecodecs.jpeg2k_decode(data)
        if samples > 1 and form.photometric == YCBCR_TAG and not has_colour_transform(data):
            # With a transform in the stream the tag describes what the decoder has undone.
            image = ycbcr_to_rgb(_checked(image, samples))
    elif code in (WEBP, WEBP_OLD):
        image = imagecodecs.webp_decode(data, hasalpha=samples == 4)
    elif code in JPEGXL_CODES:
        image = imagecodecs.jpegxl_decode(data)
    elif code == JPEG_LS:
        image = imagecodecs.jpegls_decode(data)
    elif code == NATIVE_422:
        image = _unpack_422(data, width, height)
    else:
        raw = _decompress(data, code, width * height * samples)
        flat = np.frombuffer(raw, dtype=np.uint8)
        rows = min(height, flat.size // (width * samples))
        image = flat[: rows * width * samples].reshape(rows, width, samples)
        if form.predictor == 2:
            image = imagecodecs.delta_decode(image, axis=-2)
        elif form.predictor != 1:
            raise ValueError(f"predictor {form.predictor} is not for 8-bit samples")
    return _checked(image, samples)


def decode_stream(data: Any, kind: StreamKind, side_px: int) -> UInt8Array:
    """Strictly decode a stream that says all of itself, shape (side, side, 3).

    Parameters
    ----------
    data : bytes or buffer
        Colours follow from its own marker or transform; no tag is asked.
    kind : {"jpeg", "jpeg2k"}

    Raises
    ------
    ValueError
        If it is broken, or not of this kind and size.
    """
    # The decoder allocates what the stream states, so that it is asked first.
    stated: tuple[int, int] | None
    if kind == "jpeg":
        import simplejpeg

        stated = simplejpeg.decode_jpeg_header(data)[:2]
        check_stream_size(stated, side_px)
        image: AnyArray = simplejpeg.decode_jpeg(data, colorspace="RGB")
    else:
        import imagecodecs

        data = bytes(data)
        stated = jpeg2000_size(data)
        if stated is not None:  # a JP2 file around it is held against its size afterwards
            check_stream_size(stated, side_px)
        try:
            image = imagecodecs.jpeg2k_decode(data)
        except Exception as error:
            raise ValueError(str(error)) from error
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"decoded to {image.shape} {image.dtype}, not 8-bit RGB")
    check_stream_size(image.shape[:2], side_px)
    return image


class StreamSizeError(ValueError):
    """A stream that is whole and of another size than the others of its array."""


def check_stream_size(size: tuple[int, ...], side_px: int) -> None:
    """Refuse a stream that is not a square of this side."""
    if tuple(size) != (side_px, side_px):
        raise StreamSizeError(f"its stream is {size[1]} x {size[0]} px, not {side_px} squared")


def _checked(image: AnyArray, samples: int) -> UInt8Array:
    if image.dtype != np.uint8:
        raise ValueError(f"samples are {image.dtype}, not uint8")
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] != samples or image.shape[0] < 1:
        raise ValueError(f"decoded to shape {image.shape}, expected (.., .., {samples})")
    return image


def to_rgb(image: UInt8Array, form: ChunkFormat) -> Tile:
    """Stored samples to RGB on white, with the validity that alpha tells."""
    samples = form.samples
    if samples == 1:
        grey = WHITE - image if form.photometric == 0 else image
        return Tile(np.repeat(grey, 3, axis=2))
    converted = form.planar != 2 and (
        form.compression in (HTJ2K, WEBP, WEBP_OLD, *JPEGXL_CODES, *JPEG2000_CODES)
        or (form.compression == JPEG and samples == 3)
    )
    if form.compression == APERIO_JP2K_YCBCR or (form.photometric == YCBCR_TAG and not converted):
        image = ycbcr_to_rgb(image)
    if samples == 4:
        if not form.has_alpha:
            return Tile(np.ascontiguousarray(image[:, :, :3]))
        return composite_on_white(image, premultiplied=form.premultiplied)
    return Tile(image)


def composite_on_white(rgba: UInt8Array, *, premultiplied: bool = False) -> Tile:
    """RGBA on white; alpha 0 means never scanned (design 3.8)."""
    alpha = rgba[:, :, 3]
    rgb = rgba[:, :, :3]
    if bool((alpha == WHITE).all()):
        return Tile(_opaque(rgba))
    if not bool(alpha.any()):
        return MISSING
    opacity = alpha[:, :, None].astype(np.uint32)
    colour = rgb.astype(np.uint32) * (255 if premultiplied else opacity)
    blended = (colour + WHITE * (255 - opacity) + 127) // 255
    return Tile(np.minimum(blended, 255).astype(np.uint8), alpha > 0)


def _opaque(rgba: UInt8Array) -> UInt8Array:
    """The colours alone (several times numpy's speed)."""
    import cv2

    return np.asarray(cv2.cvtColor(np.ascontiguousarray(rgba), cv2.COLOR_RGBA2RGB))


def ycbcr_to_rgb(image: UInt8Array) -> UInt8Array:
    """JFIF YCbCr to RGB in 16-bit fixed point, equal to OpenSlide's to the bit.

    A fourth sample stays as it is.
    """
    y = image[:, :, 0].astype(np.int32)
    cb, cr = image[:, :, 1], image[:, :, 2]
    red = y + _RED_OF_CR[cr]
    green = y + ((_GREEN_OF_CB[cb] + _GREEN_OF_CR[cr] + (1 << 15)) >> 16)
    blue = y + _BLUE_OF_CB[cb]
    rgb = np.clip(np.stack([red, green, blue], axis=2), 0, 255).astype(np.uint8)
    return rgb if image.shape[2] == 3 else np.concatenate([rgb, image[:, :, 3:]], axis=2)


_CHROMA = np.arange(256) - 128
_RED_OF_CR = np.floor(1.402 * _CHROMA + 0.5).astype(np.int32)
_BLUE_OF_CB = np.floor(1.772 * _CHROMA + 0.5).astype(np.int32)
_GREEN_OF_CB = np.rint(-0.34414 * 65536 * _CHROMA).astype(np.int32)
_GREEN_OF_CR = np.rint(-0.71414 * 65536 * _CHROMA).astype(np.int32)


def has_colour_transform(data: bytes) -> bool:
    """Whether a JPEG 2000 stream states that its components are transformed (ISO 15444-1, A.6.1).

    The decoder undoes that one; without it, it returns the components as they were given to it.
    """
    position = max(0, data.find(b"\xff\x4f\xff\x51")) + 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        if data[position + 1] == 0x52:
            return data[position + 8] == 1
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def jpeg2000_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) that a JPEG 2000 codestream states; None if it does not start with one."""
    if data[:4] != b"\xff\x4f\xff\x51" or len(data) < 24:
        return None
    right, bottom, left, top = (int.from_bytes(data[i : i + 4], "big") for i in (8, 12, 16, 20))
    return right - left, bottom - top


def _check_stated_size(stated: tuple[int, int] | None, width: int, height: int) -> None:
    # The decoder allocates what the stream states, so a hostile one is stopped before.
    if stated is not None and stated[0] * stated[1] > 4 * width * height + (1 << 16):
        raise ValueError(f"its stream states {stated[0]} x {stated[1]} px")


def _unpack_422(data: bytes, width: int, height: int) -> UInt8Array:
    """Uncompressed YBR_FULL_422: Y1 Y2 Cb Cr for every two pixels of a row (PS3.3 C.7.6.3.1.2)."""
    if width % 2 or len(data) < 2 * width * height:
        raise ValueError("its chroma is shared by pairs of pixels and does not fill the frame")
    pairs = np.frombuffer(data[: 2 * width * height], np.uint8).reshape(height, width // 2, 4)
    chroma = np.repeat(pairs[:, :, None, 2:], 2, axis=2).reshape(height, width, 2)
    return np.concatenate([pairs[:, :, :2].reshape(height, width, 1), chroma], axis=2)


def _decompress(data: bytes, code: int, size: int) -> bytes:
    import imagecodecs

    if code == NONE:
        if len(data) < size:
            # The last strip holds only the rows that are left.
            return data
        return data[:size]
    name = CODEC_NAMES.get(code)
    if name not in ("lzw", "deflate", "packbits", "zstd"):
        raise ValueError(f"compression {code} is not supported")
    decode: Callable[..., bytes] = getattr(imagecodecs, f"{name}_decode")
    return decode(data, out=size)
