"""Plain pictures: PNG, JPEG, BMP, WebP with their true resolution or none, and the ICC profile.

A JPEG's own field (JFIF) holds 16 bits: 0.25 um/px is 101,600 dpi and would be stored as 36,064.
Dots per centimetre reach down to 0.1526 um/px; finer ones stand in EXIF alone, beside a JFIF
density that says nothing (1:1). A BMP has 32 bits a metre, a PNG too, a WebP only EXIF.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.errors import ConfigError, SlideError, WsisrError
from wsisr.files import ANEW, disk_full_is_clear
from wsisr.upscaling.codecs import FULL_CHROMA_FROM
from wsisr.upscaling.tiff_file import per_centimetre

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
MAX_PICTURE_PX = 178_000_000
"""What `wsisr.slides` reads back."""
_MAX_SIDE = {".webp": 16_383, ".jpg": 65_500, ".jpeg": 65_500}
_X_RESOLUTION, _Y_RESOLUTION, _UNIT, _CENTIMETRE = 282, 283, 296, 3
_FINEST_UM = 1e6 / 2**31
"""Finest um/px of a PNG or BMP: both count px per metre in 31 bits."""


def check_picture_size(path: Path, width_px: int, height_px: int) -> None:
    """Refuse (ConfigError) what the format, or a reader, could not hold."""
    side = _MAX_SIDE.get(path.suffix.lower(), 2**31 - 1)
    if width_px * height_px > MAX_PICTURE_PX or max(width_px, height_px) > side:
        raise ConfigError(
            f"{path}: {width_px} x {height_px} px is too large for a {path.suffix} file; name the "
            "output .ome.tiff."
        )


@dataclass(frozen=True, kw_only=True)
class PictureTags:
    """What a picture's file says of it.

    Attributes
    ----------
    um_per_px : (float, float), optional
        x and y; None states none.
    icc : bytes, optional
        A BMP cannot carry it.
    description : str
        A PNG and EXIF carry it.
    """

    um_per_px: tuple[float, float] | None = None
    icc: bytes | None = None
    description: str = ""


def save_picture(
    path: Path,
    rgb: UInt8Array,
    *,
    quality: int,
    tags: PictureTags = PictureTags(),
    grey: bool = False,
) -> None:
    """Write a picture under its name once another decoder has shown it as it is.

    Parameters
    ----------
    path : Path
        Its suffix names the format.
    rgb : (h, w, 3) uint8
    quality : int
        1 to 100, of JPEG and WebP (whose 100 is lossless).
    grey : bool
        Write one channel, the luma of `rgb`.

    Raises
    ------
    SlideError
        If it cannot be written, or is shown otherwise by OpenCV.
    """
    from PIL import Image

    suffix, um_per_px = path.suffix.lower(), tags.um_per_px
    written = Image.fromarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) if grey else rgb)
    if grey:
        rgb = np.asarray(written.convert("RGB"))
    options: dict[str, Any] = {}
    if suffix in (".jpg", ".jpeg"):
        options = {"quality": quality, "subsampling": 0 if quality >= FULL_CHROMA_FROM else 2}
        options["exif"] = _exif(um_per_px, tags.description)
    elif suffix == ".webp":
        options = {"quality": quality, "lossless": quality == 100, "exact": True}
        options["exif"] = _exif(um_per_px, tags.description)
    elif suffix == ".png":
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        text.add_itxt("Description", tags.description)
        options["pnginfo"] = text
    if um_per_px is not None and suffix in (".png", ".bmp") and min(um_per_px) > _FINEST_UM:
        options["dpi"] = tuple(25_400 / um for um in um_per_px)
    if tags.icc is not None and suffix != ".bmp":
        options["icc_profile"] = tags.icc
    staged = path.with_name(f".{path.stem}.partial{path.suffix}")
    with disk_full_is_clear(path, ANEW):
        try:
            written.save(staged, **options)
            if suffix in (".jpg", ".jpeg"):
                _state_density(staged, um_per_px)
            _look_again(path, staged, rgb, _tolerance(suffix, quality))
            os.replace(staged, path)
        except WsisrError:
            raise
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise SlideError(f"{path}: cannot be written: {error}.") from error
        finally:
            staged.unlink(missing_ok=True)


def _exif(um_per_px: tuple[float, float] | None, description: str) -> bytes:
    from PIL import Image
    from PIL.TiffImagePlugin import IFDRational

    exif = Image.Exif()
    if description:
        exif[270] = description
    if um_per_px is not None:
        for tag, um in zip((_X_RESOLUTION, _Y_RESOLUTION), um_per_px, strict=True):
            exif[tag] = IFDRational(*per_centimetre(um))
        exif[_UNIT] = _CENTIMETRE
    return exif.tobytes()


def _state_density(path: Path, um_per_px: tuple[float, float] | None) -> None:
    """Set the JFIF density: unit, x, y at 13 bytes from the start."""
    unit, density = 0, (1, 1)
    if um_per_px is not None:
        per_cm = tuple(round(10_000 / um) for um in um_per_px)
        if max(per_cm) < 2**16:
            unit, density = 2, (per_cm[0], per_cm[1])
    with open(path, "r+b") as file:
        head = file.read(20)
        if head[2:4] != b"\xff\xe0" or head[6:11] != b"JFIF\0":
            raise ValueError("the encoder wrote no JFIF segment")
        file.seek(13)
        file.write(struct.pack(">BHH", unit, *density))


def _tolerance(suffix: str, quality: int) -> float:
    """Mean difference of block means, grey levels, that is loss; a false colour is 40 off."""
    return 15.0 if quality < 50 and suffix not in (".png", ".bmp") else 2.0


def _look_again(path: Path, staged: Path, rgb: UInt8Array, tolerance: float) -> None:
    """Compare with what OpenCV shows, in the mean colour of blocks."""
    shown = cv2.imread(str(staged), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if shown is None or shown.shape != rgb.shape:
        raise SlideError(f"{path}: OpenCV cannot read what was written; nothing was kept.")
    small = tuple(
        cv2.resize(
            a, (max(1, a.shape[1] // 16), max(1, a.shape[0] // 16)), interpolation=cv2.INTER_AREA
        )
        for a in (np.ascontiguousarray(shown[..., ::-1]), rgb)
    )
    apart = float(np.abs(small[0].astype(float) - small[1]).mean())
    if not apart <= tolerance:
        raise SlideError(
            f"{path}: OpenCV shows it {apart:.1f} grey levels off; nothing was kept. Name the "
            "output .png, or raise --quality."
        )
