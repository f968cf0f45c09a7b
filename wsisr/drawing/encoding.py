"""Pictures as bytes: what a page carries in itself, and PNG for files."""

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from wsisr.arrays import AnyArray, UInt8Array
from wsisr.errors import ConfigError

JPEG_QUALITY = 88
SMALL_PX = 200 * 200
"""Pictures of at most this many pixels stay lossless, unless a limit on their size shows that the
page must stay small: LR patches."""
FLAT_COLOURS = 512
"""Pictures of at most so many colours are graphics, which JPEG would smear."""
_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}


@dataclass(frozen=True, kw_only=True)
class EncodedPicture:
    """An encoded picture."""

    data: bytes
    media_type: str
    width_px: int
    height_px: int

    @property
    def data_url(self) -> str:
        return f"data:{self.media_type};base64,{b64encode(self.data).decode('ascii')}"


def encode(image: bytes | Path | AnyArray, *, max_side_px: int | None = None) -> EncodedPicture:
    """A picture ready to be embedded.

    Parameters
    ----------
    image : bytes, Path or array
        Files are embedded as they are where no limit is given. Arrays, uint8 of shape (h, w) or
        (h, w, 3), become PNG where they are small or have few colours, else JPEG of quality 88
        without chroma subsampling; with alpha, (h, w, 4), always PNG.
    max_side_px : int, optional
        Larger pictures are reduced to it; all become JPEG, but for those of few colours.

    Raises
    ------
    ConfigError
        If it is no picture.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image, max_side_px)
    try:
        data = image.read_bytes() if isinstance(image, Path) else bytes(image)
        with Image.open(BytesIO(data)) as opened:
            kind, size = opened.format or "", opened.size
            if kind in _TYPES and max_side_px is None:
                return EncodedPicture(
                    data=data, media_type=_TYPES[kind], width_px=size[0], height_px=size[1]
                )
            pixels = np.asarray(opened.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        name = str(image) if isinstance(image, Path) else "The given bytes"
        raise ConfigError(f"{name} cannot be read as a picture: {error}") from error
    return _from_array(pixels, max_side_px)


def _from_array(array: AnyArray, max_side_px: int | None) -> EncodedPicture:
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    flat = array.ndim == 2 or array.shape[2:] in ((3,), (4,))
    if array.dtype != np.uint8 or not flat or not array.size:
        raise ConfigError(
            f"A picture is uint8 of shape (h, w), (h, w, 3) or (h, w, 4), not {array.dtype} of "
            f"{array.shape}."
        )
    picture = Image.fromarray(np.ascontiguousarray(array))
    if max_side_px is not None and max(picture.size) > max_side_px:
        picture.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    width, height = picture.size
    small = max_side_px is None and width * height <= SMALL_PX
    lossless = small or picture.mode == "RGBA" or picture.getcolors(FLAT_COLOURS) is not None
    if lossless:
        picture.save(buffer, "PNG", optimize=True)
    else:
        # Not `optimize`: Pillow then needs the whole stream in one buffer, and noise overflows it.
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return EncodedPicture(
        data=buffer.getvalue(),
        media_type="image/png" if lossless else "image/jpeg",
        width_px=width,
        height_px=height,
    )


def png_bytes(picture: UInt8Array) -> bytes:
    """A picture as PNG."""
    buffer = BytesIO()
    # A tenth larger than by the default, in half of its time.
    Image.fromarray(picture).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
