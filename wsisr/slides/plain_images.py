"""Decode a plain image as it is meant to be seen: upright, at its depth, in its colours.

The one reader of image files for every command. Decoded samples are held once, as 8-bit grey or
RGB; what is needed on the way (deeper samples, opacity, ink) is turned into them band by band.
Samples of more than 8 bits are scaled by a white that the user states and never cut to a byte:
no file says which of its 65,536 values is white.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.arrays import AnyArray, BoolArray, UInt8Array
from wsisr.errors import SlideError
from wsisr.slides.decode import composite_on_white
from wsisr.slides.faults import RefusedSlideError
from wsisr.slides.jpeg import StatedJpeg, decode_jpeg, parse_jpeg_header

logger = logging.getLogger(__name__)

MAX_IMAGE_PX = 178_000_000
"""Largest plain image that is decoded: 0.5 GB as RGB; half as many of deeper samples."""
HEADER_BYTES = 1 << 20
ORIENTATION = 274
"""EXIF and TIFF tag."""
_BAND_PX = 4 << 20
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
TRANSPARENT = ("LA", "RGBA", "PA")
_GREY_MODES = ("1", "L", "LA", "I;16", "I;16B", "I", "F")


@dataclass(frozen=True, kw_only=True)
class PictureFacts:
    """What an image file says of itself.

    Attributes
    ----------
    kind : str
        Pillow's name of the format, e.g. ``"PNG"``.
    mode : str
        Pillow's name of the samples.
    width_px, height_px : int
        Upright.
    bits : int
        A sample.
    floating : bool
        Whether samples are floating point.
    orientation : int
        EXIF's number; 1 is upright.
    """

    kind: str
    mode: str
    width_px: int
    height_px: int
    bits: int = 8
    floating: bool = False
    orientation: int = 1
    grey: bool = False
    dpi: tuple[float, float] | None = None
    icc: bytes | None = None

    @property
    def deep(self) -> bool:
        return self.bits > 8 or self.floating

    def notes(self, white: float | None = None) -> tuple[str, ...]:
        """Sentences about what was done to the stored samples."""
        told = []
        if self.orientation != 1:
            told.append(f"Turned upright by its EXIF orientation ({self.orientation}).")
        if self.mode == "CMYK":
            told.append("CMYK, converted to RGB by the plain formula, without its profile.")
        if self.mode in TRANSPARENT:
            told.append("Its transparency was laid on white.")
        if self.deep and white is not None:
            told.append(f"{self._samples} were scaled so that {white:g} is white.")
        return tuple(told)

    @property
    def _samples(self) -> str:
        return f"Samples of {self.bits} bit{' (floating point)' if self.floating else ''}"


def read_facts(path: Path) -> PictureFacts:
    """Read the header of an image file.

    Raises
    ------
    SlideError
        If Pillow does not know it, it holds several images, is larger than 178 MPx, or its samples
        are of a kind that is not read.
    """
    try:
        with _opened(path) as image:
            kind, mode = str(image.format), image.mode
            width, height = image.size
            pages = int(getattr(image, "n_frames", 1))
            dpi, icc = _dpi(image), image.info.get("icc_profile")
            bits, floating = _depth(path, image)
            turn = _orientation(path, image)
            grey = _is_grey(path, image)
            if "transparency" in image.info:
                mode = {"L": "LA", "1": "LA", "RGB": "RGBA", "P": "PA"}.get(mode, mode)
    except SlideError:
        raise
    except Exception as error:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = _rare_tiff(path)
        if found is not None:
            return found
        raise SlideError(
            f"{path}: no image that can be read ({type(error).__name__}); the file is damaged or "
            "of another kind."
        ) from error
    if kind in ("EPS", "WMF"):
        # Pillow would hand it to Ghostscript or Windows, which run what it says.
        raise SlideError(f"{path}: {kind} is a program that draws, no image; export it as PNG.")
    if pages > 1:
        raise SlideError(
            f"{path}: holds {pages} pages, so it is no plain image; convert it to a tiled TIFF."
        )
    deep = bits > 8 or floating
    if width * height * (1 + deep) > MAX_IMAGE_PX:
        raise SlideError(
            f"{path}: {width} x {height} px is too large for a plain image; convert it to a tiled "
            "pyramidal TIFF."
        )
    if mode not in _MODES and not (deep and mode in _GREY_MODES):
        raise SlideError(f"{path}: samples of mode {mode} are not read; convert it to 8-bit RGB.")
    if deep and kind not in ("PNG", "TIFF"):
        raise SlideError(f"{path}: {kind} of {bits} bit is not read; convert it to 8-bit RGB.")
    if not 1 <= turn <= 8:
        turn = 1
    if turn > 4:
        # Pillow turns the pixels of a TIFF itself, and its size, but not its resolution.
        width, height = (width, height) if kind == "TIFF" else (height, width)
        dpi = None if dpi is None else dpi[::-1]
    return PictureFacts(
        kind=kind,
        mode=mode,
        width_px=width,
        height_px=height,
        bits=bits,
        floating=floating,
        orientation=turn,
        grey=grey,
        dpi=dpi,
        icc=bytes(icc) if icc else None,
    )


def read_picture(
    path: Path, white: float | None = None
) -> tuple[UInt8Array, BoolArray | None, PictureFacts]:
    """Decode an image file.

    Parameters
    ----------
    white : float, optional
        Sample value that becomes 255, for samples of more than 8 bits.

    Returns
    -------
    pixels : ndarray, shape (height, width, 1 or 3), uint8
        Grey or RGB, upright, transparency laid on white.
    valid : ndarray of bool, shape (height, width), or None
        False where the image is fully transparent; None without opacity.
    facts : PictureFacts

    Raises
    ------
    SlideError
        If it cannot be decoded without a fault, has deep samples and no `white` is given, or
        samples lie above it.
    """
    facts = read_facts(path)
    check_depth(path, facts, white)
    try:
        samples = _samples_of(path, facts)
    except SlideError:
        raise
    except Exception as error:
        raise SlideError(
            f"{path}: cannot be decoded ({str(error)[:120]}); the file is damaged, copy it again."
        ) from error
    if facts.deep:
        assert white is not None
        samples = _scaled(path, samples, white, 2**facts.bits - 1)
    pixels, valid = _opaque(samples, facts)
    turn = 1 if facts.kind == "TIFF" else facts.orientation
    pixels = _upright(pixels, turn)
    shape = (facts.height_px, facts.width_px)
    if pixels.shape[:2] != shape:
        raise SlideError(
            f"{path}: decodes to {pixels.shape[:2]}, its header says {shape}; the file is damaged."
        )
    return pixels, None if valid is None else _upright(valid, turn), facts


def check_depth(path: Path, facts: PictureFacts, white: float | None) -> None:
    """Refuse deep samples without a stated white, and a white that means nothing.

    Raises
    ------
    SlideError
    """
    if white is not None and not white > 0:
        raise SlideError(f"{path}: --white {white:g} is no sample value; it must be above 0.")
    if white is not None and not facts.deep:
        raise SlideError(f"{path}: its samples are of 8 bit, so white is 255; leave --white out.")
    if not facts.deep or white is not None:
        return
    try:
        largest = f"{_samples_of(path, facts).max():g}"
    except SlideError:
        raise
    except Exception:  # a damaged file is refused for its depth all the same
        largest = "?"
    full = "" if facts.floating else f" of {2**facts.bits - 1:,}"
    raise RefusedSlideError(
        f"{path}: {facts._samples.lower()}; its values reach {largest}{full} and nothing in the "
        "file says which one is white. State it (--white N), or convert the image to 8 bit."
    )


def _dpi(image: Any) -> tuple[float, float] | None:
    """The finest resolution that a file states: in its own field, which WebP lacks and JPEG may
    fill with a screen's, or in EXIF."""
    found = [image.info.get("dpi")]
    if image.format in ("JPEG", "WEBP"):
        exif = image.getexif()
        per_inch = {2: 1.0, 3: 2.54}.get(exif.get(296, 2))
        if per_inch is not None and 282 in exif and 283 in exif:
            found.append(tuple(float(exif[tag]) * per_inch for tag in (282, 283)))
    stated = [(float(d[0]), float(d[1])) for d in found if isinstance(d, tuple) and len(d) == 2]
    return max((d for d in stated if isfinite(d[0] + d[1])), key=min, default=None)


def _rare_tiff(path: Path) -> PictureFacts | None:
    """Of TIFFs that Pillow does not know: RGB in floating point, halves, doubles, signed."""
    try:
        tags = _tiff_tags(path)
        form, samples = max(tags.get(339, (1,))), int(tags.get(277, 1))
        bits, photometric = int(max(tags[258])), int(tags[262])
        width, height = int(tags[256]), int(tags[257])
    except Exception:  # no TIFF, or a broken one
        return None
    if form not in (1, 3):
        raise RefusedSlideError(
            f"{path}: samples of {bits} bit that are signed or complex are not read; convert it to "
            "8-bit RGB."
        )
    if tags.next or samples not in (1, 3) or photometric not in (1, 2) or bits <= 8:
        return None
    if width * height * 2 > MAX_IMAGE_PX:
        raise SlideError(f"{path}: {width} x {height} px is too large for a plain image.")
    return PictureFacts(
        kind="TIFF",
        mode="F" if samples == 1 else "RGB",
        width_px=width,
        height_px=height,
        bits=bits,
        floating=form == 3,
        grey=samples == 1,
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Pillow's image, without its warnings, which name no file and are checked or refused here."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            yield image


def _tiff_tags(path: Path) -> Any:
    """Tags of the first page, also of samples that Pillow does not decode."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    with open(path, "rb") as file:
        head = file.read(8)
        head += file.read(8) if 43 in (head[2], head[3]) else b""
        tags = ImageFileDirectory_v2(head)
        file.seek(tags.next)
        tags.load(file)
    return tags


def _is_grey(path: Path, image: Any) -> bool:
    """Whether one channel of colour is stored; Pillow shows 16-bit grey with opacity as RGBA."""
    if image.format != "PNG":
        return image.mode in _GREY_MODES
    with open(path, "rb") as file:
        return file.read(26)[25] in (0, 4)  # colour types without and with opacity


def _orientation(path: Path, image: Any) -> int:
    """EXIF's number; asking Pillow would decode a whole PNG."""
    from PIL import Image

    if image.format != "PNG":
        stated = image.getexif()
        if image.info.get("exif") and not stated:
            logger.warning("%s: its EXIF is damaged: it is taken as upright.", path.name)
        return int(stated.get(ORIENTATION, 1) or 1)
    exif = Image.Exif()
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"eXIf":
                exif.load(file.read(min(length, HEADER_BYTES)))
                return int(exif.get(ORIENTATION, 1) or 1)
            file.seek(length + 4, 1)
    return 1


def _depth(path: Path, image: Any) -> tuple[int, bool]:
    """Bits of a stored sample and whether it is floating point; Pillow's mode hides both."""
    if image.format == "PNG":
        with open(path, "rb") as file:
            return max(8, file.read(26)[24]), False
    if image.format == "TIFF":
        if 2 in image.tag_v2.get(339, (1,)):
            raise ValueError("its samples are signed")
        bits = max((int(value) for value in image.tag_v2.get(258, (8,))), default=8)
        return max(8, bits), 3 in image.tag_v2.get(339, (1,))
    if image.format == "JPEG2000":
        with open(path, "rb") as file:
            head = file.read(HEADER_BYTES)
        at = head.find(b"\xff\x4f\xff\x51")
        return max(8, (head[at + 42] & 127) + 1 if 0 <= at < len(head) - 42 else 8), False
    return (32, image.mode == "F") if image.mode in ("I", "F") else (8, False)


def _samples_of(path: Path, facts: PictureFacts) -> AnyArray:
    """Stored samples, (height, width, channels), as stored and not turned."""
    import imagecodecs

    samples: AnyArray
    if facts.kind == "PNG":
        samples = imagecodecs.png_decode(path.read_bytes())
    elif facts.kind == "JPEG":
        data = path.read_bytes()
        parts = len(parse_jpeg_header(data[:HEADER_BYTES]).components)
        samples = decode_jpeg(data, StatedJpeg(samples=parts, width_px=1 << 16, height_px=1 << 16))
    elif facts.deep:
        samples = _deep_tiff(path)
    else:
        with _opened(path) as image:
            samples = _from_pillow(image, facts)
    return samples[:, :, None] if samples.ndim == 2 else samples


def _deep_tiff(path: Path) -> AnyArray:
    import imagecodecs

    tags = _tiff_tags(path)
    photometric, turn, planar = tags.get(262), tags.get(ORIENTATION, 1), tags.get(284, 1) == 2
    samples: AnyArray = imagecodecs.tiff_decode(path.read_bytes())
    if planar and samples.ndim == 3:
        samples = np.moveaxis(samples, 0, 2)
    if photometric not in (1, 2) or turn != 1:
        raise SlideError(
            f"{path}: deep samples of photometric {photometric}, orientation {turn} are not read; "
            "convert it to 8-bit RGB."
        )
    return samples


def _from_pillow(image: Any, facts: PictureFacts) -> UInt8Array:
    """Through Pillow, band by band; it holds 4 bytes a pixel itself."""
    opaque = image.mode not in ("LA", "RGBA", "PA") and "transparency" not in image.info
    target = ("L" if facts.grey else "RGB") if opaque else "RGBA"
    if image.mode == "CMYK":
        target = "CMYK"
    image.load()
    channels = {"L": 1, "RGB": 3}.get(target, 4)
    out = np.empty((image.height, image.width, channels), np.uint8)
    for top, bottom in _bands(image.height, image.width):
        band = image.crop((0, top, image.width, bottom)).convert(target)
        out[top:bottom] = np.asarray(band).reshape(bottom - top, image.width, channels)
    return np.bitwise_not(out, out=out) if target == "CMYK" else out


def _scaled(path: Path, samples: AnyArray, white: float, full: int) -> UInt8Array:
    """Deep samples to bytes: `white` becomes 255, and so does an opacity of `full`."""
    out = np.empty(samples.shape, np.uint8)
    if samples.shape[2] in (2, 4):
        out[:, :, -1] = np.floor(samples[:, :, -1] * (255.0 / full) + 0.5)
        out[:, :, :-1] = _scaled(path, samples[:, :, :-1], white, full)
        return out
    for top, bottom in _bands(*samples.shape[:2]):
        band = samples[top:bottom].astype(np.float64)
        low, high = float(band.min()), float(band.max())
        if not (low >= 0 and high <= white):
            raise SlideError(
                f"{path}: its samples lie between {low:g} and {high:g}, outside of 0 to --white "
                f"{white:g}; state a white that is not below any of them."
            )
        out[top:bottom] = np.floor(band * (255.0 / white) + 0.5)
    return out


def _opaque(samples: UInt8Array, facts: PictureFacts) -> tuple[UInt8Array, BoolArray | None]:
    """Grey or RGB, and where the image is not fully transparent."""
    height, width, channels = samples.shape
    if channels in (1, 3):
        return samples, None
    pixels = np.empty((height, width, 1 if channels == 2 else 3), np.uint8)
    valid = np.ones((height, width), np.bool_)
    for top, bottom in _bands(height, width):
        band, into = samples[top:bottom], pixels[top:bottom]
        if facts.mode == "CMYK":
            # Stored inverted: what is there is what the inks leave of the light.
            light = band[:, :, :3].astype(np.uint16) * band[:, :, 3:]
            into[:] = (light + 127) // 255
            continue
        rgba = band if channels == 4 else band[:, :, [0, 0, 0, 1]]
        tile = composite_on_white(rgba)
        into[:] = 255 if tile.pixels is None else tile.pixels[:, :, : into.shape[2]]
        valid[top:bottom] = band[:, :, -1] > 0
    return pixels, None if facts.mode == "CMYK" or bool(valid.all()) else valid


def _upright(image: AnyArray, orientation: int) -> AnyArray:
    """A view turned by EXIF's number: which way the first row and column lie."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image[:, ::-1] if orientation in (2, 3, 6, 7) else image


def _bands(height: int, width: int) -> list[tuple[int, int]]:
    rows = max(1, _BAND_PX // max(1, width))
    return [(top, min(height, top + rows)) for top in range(0, height, rows)]
