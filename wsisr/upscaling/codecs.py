"""How tiles of an output are compressed, and the TIFF tags that say so."""

from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.errors import ConfigError

JPEG, JPEG_XL, JPEG_2000, DEFLATE, ZSTD = 7, 50002, 34712, 8, 50000
GREY, RGB, YCBCR = 1, 2, 6
_TIFF_CODE = {
    "jpeg": JPEG,
    "jpegxl": JPEG_XL,
    "jpeg2000": JPEG_2000,
    "deflate": DEFLATE,
    "zstd": ZSTD,
}
COMPRESSIONS = (*_TIFF_CODE, "lossless")
ZSTD_LEVEL = 3
FULL_CHROMA_FROM = 90
"""JPEG quality from which chroma is not subsampled: stain edges are chroma edges."""


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A compression with its quality.

    Attributes
    ----------
    name : {"jpeg", "jpegxl", "jpeg2000", "deflate", "zstd"}
    quality : int
        1 to 100. JPEG: libjpeg's; 4:4:4 from 90 up, 4:2:0 below. JPEG XL: its own scale, 100 is
        lossless. JPEG 2000: half of it is the target PSNR in dB, 100 is lossless. Without
        meaning for deflate and zstd, which are lossless.
    planar : bool
        Zstd of planes one after another with a CRC-32C, as a Zarr chunk is, not of a TIFF's rows.
    grey : bool
        One channel is stored, of pixels whose three are equal.
    """

    name: str = "jpeg"
    quality: int = 90
    planar: bool = False
    grey: bool = False

    @property
    def channels(self) -> int:
        return 1 if self.grey else 3

    @property
    def lossless(self) -> bool:
        return self.name in ("deflate", "zstd") or (self.name != "jpeg" and self.quality == 100)

    @property
    def tiff_code(self) -> int:
        return _TIFF_CODE[self.name]

    @property
    def photometric(self) -> int:
        if self.grey:
            return GREY
        return YCBCR if self.name == "jpeg" else RGB

    @property
    def subsampling(self) -> tuple[int, int] | None:
        """Chroma subsampling across and down; None where the codec has its own, or no chroma."""
        if self.name != "jpeg" or self.grey:
            return None
        return (1, 1) if self.quality >= FULL_CHROMA_FROM else (2, 2)

    @property
    def predictor(self) -> int | None:
        return 2 if self.name in ("deflate", "zstd") else None

    def describe(self) -> str:
        """For the metadata."""
        if self.name in ("deflate", "zstd"):
            return f"{self.name} (lossless)"
        return f"{self.name} quality {self.quality}" + (" (lossless)" if self.lossless else "")

    def encode(self, rgb: UInt8Array) -> bytes:
        """Compress a tile, (side, side, 3) uint8; the same pixels give the same bytes."""
        import imagecodecs

        rgb = np.ascontiguousarray(rgb[..., 0] if self.grey else rgb)
        if self.name == "jpeg" and self.grey:
            data = imagecodecs.jpeg8_encode(rgb, level=self.quality)
        elif self.name == "jpeg":
            data = imagecodecs.jpeg8_encode(
                rgb,
                level=self.quality,
                colorspace="RGB",
                outcolorspace="YCBCR",
                subsampling="444" if self.subsampling == (1, 1) else "420",
            )
        elif self.name == "jpegxl":
            data = imagecodecs.jpegxl_encode(
                rgb,
                level=None if self.lossless else self.quality,
                lossless=self.lossless,
                effort=3,
                numthreads=1,
            )
        elif self.name == "jpeg2000":
            data = imagecodecs.jpeg2k_encode(
                rgb,
                level=0 if self.lossless else round(self.quality / 2),
                codecformat="j2k",
                reversible=self.lossless,
                numthreads=1,
            )
        elif self.planar:
            planes = rgb if self.grey else np.ascontiguousarray(np.moveaxis(rgb, 2, 0))
            data = bytes(imagecodecs.zstd_encode(planes.tobytes(), level=ZSTD_LEVEL))
            data += google_crc32c.value(data).to_bytes(4, "little")
        else:
            differences = np.ascontiguousarray(imagecodecs.delta_encode(rgb, axis=1))
            if self.name == "zstd":
                data = imagecodecs.zstd_encode(differences.tobytes(), level=ZSTD_LEVEL)
            else:
                data = imagecodecs.zlib_encode(differences.tobytes(), level=6)
        return bytes(data)

    def round_trip(self, rgb: UInt8Array) -> UInt8Array:
        """What the stream of a tile decodes to by itself, whatever a file says around it."""
        import imagecodecs

        if self.lossless:
            return rgb
        name = {"jpeg": "jpeg8", "jpeg2000": "jpeg2k"}.get(self.name, self.name)
        decode: Any = getattr(imagecodecs, f"{name}_decode")
        decoded: UInt8Array = np.asarray(decode(self.encode(rgb)), np.uint8)
        return np.broadcast_to(decoded.reshape(*rgb.shape[:2], -1), rgb.shape)


def make_codec(name: str | None, quality: int, container: str = "tiff") -> Codec:
    """Check what the user asked for (else ConfigError); ``"lossless"`` is deflate, None what the
    container is for."""
    if name is not None and name not in COMPRESSIONS:
        raise ConfigError(f"--compression {name!r}: there are {', '.join(COMPRESSIONS)}.")
    if not 1 <= quality <= 100:
        raise ConfigError(f"--quality {quality} is not between 1 and 100.")
    if container == "dicom":
        if name not in (None, "jpeg", "lossless"):
            raise ConfigError(
                f"--compression {name}: DICOM is written as jpeg or lossless (JPEG 2000)."
            )
        lossless = Codec(name="jpeg2000", quality=100)
        return lossless if name == "lossless" else Codec(name="jpeg", quality=quality)
    if container == "ome-zarr":
        if name not in (None, "zstd", "lossless"):
            raise ConfigError(
                f"--compression {name}: an OME-Zarr is written with zstd (lossless), which every "
                "Zarr reader knows; leave the option out, or name the output .ome.tiff."
            )
        return Codec(name="zstd", quality=quality, planar=True)
    return Codec(name={None: "jpeg", "lossless": "deflate"}.get(name, name or ""), quality=quality)
