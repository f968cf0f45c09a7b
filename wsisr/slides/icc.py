"""Colour profiles: kept by default, applied only when asked for (design 3.9)."""

import io
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.errors import SlideError


def profile_of(icc: bytes | None, *, grey: bool) -> bytes | None:
    """A profile that an output of grey or RGB pixels may carry; None where it is of other ones.

    (A CMYK image is read as RGB, which its profile does not describe.)
    """
    return icc if icc is not None and icc[16:20] == (b"GRAY" if grey else b"RGB ") else None


def srgb_converter(profile: bytes, path: Path) -> Callable[[UInt8Array], UInt8Array]:
    """A function that converts RGB pixels from an embedded profile to sRGB.

    Parameters
    ----------
    profile : bytes
        The embedded ICC profile (RGB).
    path : Path
        For the message.

    Returns
    -------
    callable
        (height, width, 3) uint8 to a new array of the same form; perceptual intent by the
        profile's own tables, so that each pixel depends on itself alone. Safe between threads.

    Raises
    ------
    SlideError
        If the profile is damaged or not for RGB.
    """
    from PIL import Image, ImageCms

    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            "RGB",
            "RGB",
            renderingIntent=ImageCms.Intent.PERCEPTUAL,
        )
    except Exception as error:
        raise SlideError(
            f"{path}: its ICC profile cannot be used ({str(error)[:120]}); read it with icc='keep'."
        ) from error
    lock = threading.Lock()

    def convert(rgb: UInt8Array) -> UInt8Array:
        image = Image.fromarray(np.ascontiguousarray(rgb))
        with lock:
            converted = ImageCms.applyTransform(image, transform)
        return np.array(converted)

    return convert
