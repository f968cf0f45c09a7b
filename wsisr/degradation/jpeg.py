"""JPEG compression and decompression of a batch on any device, without a codec.

The arithmetic is libjpeg's: integer colour conversion, its downsampling, the accurate integer
DCT ("islow"), its quantisation, and its smooth ("fancy") chroma upsampling. Each one-dimensional
DCT pass of libjpeg is an integer matrix followed by one rounding shift, so that two exact
float64 products give the same integers. Decoded pixels therefore equal those of libjpeg-turbo
(Pillow, OpenCV), and CPU and GPU are bit for bit the same.

Entropy coding is lossless and is left out.
"""

from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsisr.arrays import Int64Array
from wsisr.device import upload
from wsisr.errors import DegradationError

Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]
_FACTORS: dict[str, tuple[int, int]] = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}
SUBSAMPLINGS: tuple[str, ...] = get_args(Subsampling)

_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
_CONST_BITS, _PASS_BITS = 13, 2


def quality_tables(quality: Tensor | int) -> Tensor:
    """libjpeg's quantisation tables of a quality (ITU-T T.81 Annex K, scaled and clamped).

    Parameters
    ----------
    quality : int or Tensor, shape (B,)
        1..100; rounded to a whole number. Values of a device are clamped to that range.

    Returns
    -------
    Tensor, float64, shape (B, 2, 8, 8)
        Luma and chroma steps in natural (row-major) order.
    """
    q = torch.as_tensor(quality, dtype=torch.float64).reshape(-1).round()
    # Of a device's values nothing is asked, for that would wait for it: they are clamped.
    if q.device.type == "cpu" and len(q) and not bool(((q >= 1) & (q <= 100)).all()):
        raise DegradationError("JPEG quality must lie in 1..100.")
    q, base = q.clamp(1, 100), _base(q.device)
    percent = torch.where(q < 50, torch.floor(5000 / q.clamp_min(1)), 200 - 2 * q)
    return torch.floor((base * percent[:, None, None, None] + 50) / 100).clamp(1, 255)


def jpeg(
    rgb: Tensor,
    quality: Tensor | int | None = None,
    subsampling: Subsampling = "4:2:0",
    *,
    tables: Tensor | None = None,
) -> Tensor:
    """Compress a batch and decompress it again, to uint8 of the same shape.

    Parameters
    ----------
    rgb : Tensor, uint8, shape (B, 3, H, W)
    quality : int or Tensor (B,), optional
        libjpeg quality 1..100 of each image.
    subsampling : {"4:4:4", "4:2:2", "4:2:0"}
        Pillow's default is 4:2:0.
    tables : Tensor, shape (1 or B, 2, 8, 8), optional
        Quantisation steps instead of a quality, e.g. those read from a file.

    Raises
    ------
    DegradationError
        Not a uint8 RGB batch; a quality outside 1..100; an unknown subsampling; neither or both
        of `quality` and `tables`.
    """
    if rgb.dtype != torch.uint8 or rgb.ndim != 4 or rgb.shape[1] != 3:
        raise DegradationError("JPEG needs uint8 images of shape (B, 3, H, W).")
    if (quality is None) == (tables is None):
        raise DegradationError("Give JPEG exactly one of a quality and tables.")
    if tables is None:
        assert quality is not None
        if isinstance(quality, Tensor):
            quality = quality.to(rgb.device)
        tables = quality_tables(quality)
    tables = tables.to(device=rgb.device, dtype=torch.float64)
    coefficients = encode(rgb, tables, subsampling)
    return decode(coefficients, tables, subsampling, (int(rgb.shape[2]), int(rgb.shape[3])))


def encode(rgb: Tensor, tables: Tensor, subsampling: Subsampling) -> tuple[Tensor, Tensor, Tensor]:
    """Quantised DCT coefficients of Y, Cb, Cr: float64 whole numbers (B, rows, columns, 8, 8)."""
    if subsampling not in _FACTORS:
        raise DegradationError(
            f"No chroma subsampling {subsampling!r}; there are {', '.join(SUBSAMPLINGS)}."
        )
    down_y, down_x = _FACTORS[subsampling]
    height, width = rgb.shape[-2:]
    # libjpeg widens the pixels, but heightens the planes after chroma is downsampled.
    pad = (0, -width % (8 * down_x), 0, -height % down_y)
    x = F.pad(rgb.float(), pad, mode="replicate").to(torch.int32)
    r, g, b = x.unbind(1)
    luma = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16
    offset = (128 << 16) + 32767
    blue = (-11059 * r - 21709 * g + 32768 * b + offset) >> 16
    red = (32768 * r - 27439 * g - 5329 * b + offset) >> 16
    planes = (luma, _downsample(blue, down_y, down_x), _downsample(red, down_y, down_x))
    quantised = []
    for plane, component in zip(planes, (0, 1, 1), strict=True):
        step = 8.0 * tables[:, component, None, None]
        bottom = -int(plane.shape[-2]) % 8
        value = forward_dct(F.pad(plane.double(), (0, 0, 0, bottom), mode="replicate"))
        magnitude = torch.floor((value.abs() + torch.floor(step / 2)) / step)
        quantised.append(torch.copysign(magnitude, value))
    return quantised[0], quantised[1], quantised[2]


def decode(
    coefficients: tuple[Tensor, Tensor, Tensor],
    tables: Tensor,
    subsampling: Subsampling,
    size: tuple[int, int],
) -> Tensor:
    """Pixels of quantised coefficients, uint8 (B, 3, height, width)."""
    down_y, down_x = _FACTORS[subsampling]
    height, width = size
    planes = []
    for values, component in zip(coefficients, (0, 1, 1), strict=True):
        plane = inverse_dct(values * tables[:, component, None, None])
        if component == 0:
            planes.append(plane[:, :height, :width])
        else:
            small = plane[:, : -(-height // down_y), : -(-width // down_x)]
            planes.append(_upsample(small, down_y, down_x)[:, :height, :width])
    luma, blue, red = planes[0], planes[1] - 128, planes[2] - 128
    r = luma + ((91881 * red + 32768) >> 16)
    g = luma + ((-22554 * blue - 46802 * red + 32768) >> 16)
    b = luma + ((116130 * blue + 32768) >> 16)
    return torch.stack((r, g, b), dim=1).clamp_(0, 255).to(torch.uint8)


def forward_dct(plane: Tensor) -> Tensor:
    """libjpeg's integer DCT (coefficients times 8) of a plane (B, H, W), H and W multiples of 8."""
    batch, height, width = plane.shape
    blocks = (plane.double() - 128).reshape(batch, height // 8, 8, width // 8, 8).transpose(2, 3)
    matrix = _matrix(plane.device)
    rows = _shift(blocks @ matrix.mT, _CONST_BITS - _PASS_BITS)
    return _shift(matrix @ rows, _CONST_BITS + _PASS_BITS)


def inverse_dct(values: Tensor) -> Tensor:
    """libjpeg's integer inverse of blocks (B, rows, columns, 8, 8): int32 0..255 (B, H, W)."""
    matrix = _matrix(values.device)
    columns = _shift(matrix.mT @ values, _CONST_BITS - _PASS_BITS)
    blocks = _shift(columns @ matrix, _CONST_BITS + _PASS_BITS + 3)
    batch, rows, cols = blocks.shape[:3]
    plane = blocks.transpose(2, 3).reshape(batch, rows * 8, cols * 8)
    return plane.add_(128).clamp_(0, 255).to(torch.int32)


def _shift(x: Tensor, bits: int) -> Tensor:
    return torch.floor((x + float(1 << (bits - 1))) * 2.0**-bits)


@lru_cache(maxsize=8)
def _base(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return upload((_LUMA, _CHROMA), device, torch.float64)


@lru_cache(maxsize=8)
def _matrix(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return upload(dct_matrix(), device, torch.float64)


def dct_matrix() -> Int64Array:
    """One pass of the Loeffler-Ligtenberg-Moschytz DCT as an integer matrix, scaled by 2^13."""

    def fix(value: float) -> int:
        return int(value * (1 << _CONST_BITS) + 0.5)

    d = np.eye(8, dtype=np.int64)
    total = d[:4] + d[:3:-1]
    even = (total[0] + total[3], total[1] + total[2], total[1] - total[2], total[0] - total[3])
    turned = fix(0.541196100) * (even[2] + even[3])
    t7, t6, t5, t4 = d[:4] - d[:3:-1]
    z5 = fix(1.175875602) * (t4 + t6 + t5 + t7)
    z1, z2 = -fix(0.899976223) * (t4 + t7), -fix(2.562915447) * (t5 + t6)
    z3, z4 = z5 - fix(1.961570560) * (t4 + t6), z5 - fix(0.390180644) * (t5 + t7)
    return np.stack(
        (
            (even[0] + even[1]) << _CONST_BITS,
            fix(1.501321110) * t7 + z1 + z4,
            turned + fix(0.765366865) * even[3],
            fix(3.072711026) * t6 + z2 + z3,
            (even[0] - even[1]) << _CONST_BITS,
            fix(2.053119869) * t5 + z2 + z4,
            turned - fix(1.847759065) * even[2],
            fix(0.298631336) * t4 + z1 + z3,
        )
    )


def _downsample(plane: Tensor, down_y: int, down_x: int) -> Tensor:
    if down_x == 1:
        return plane
    # libjpeg alternates the rounding bias from column to column, so that no drift builds up.
    odd = torch.arange(plane.shape[-1] // 2, device=plane.device, dtype=torch.int32) % 2
    pairs = plane[..., 0::2] + plane[..., 1::2]
    if down_y == 1:
        return (pairs + odd) >> 1
    return (pairs[..., 0::2, :] + pairs[..., 1::2, :] + 1 + odd) >> 2


def _upsample(plane: Tensor, down_y: int, down_x: int) -> Tensor:
    if down_x == 1:
        return plane
    if int(plane.shape[-1]) <= 2:
        return plane.repeat_interleave(down_x, -1).repeat_interleave(down_y, -2)
    # Where the image ends libjpeg takes the pixel itself as its neighbour.
    if down_y == 2:
        above = torch.cat((plane[..., :1, :], plane[..., :-1, :]), -2)
        below = torch.cat((plane[..., 1:, :], plane[..., -1:, :]), -2)
        plane = torch.stack((3 * plane + above, 3 * plane + below), -2)
        plane = plane.flatten(-3, -2)
    left = torch.cat((plane[..., :1], plane[..., :-1]), -1)
    right = torch.cat((plane[..., 1:], plane[..., -1:]), -1)
    if down_y == 2:
        pair = ((3 * plane + left + 8) >> 4, (3 * plane + right + 7) >> 4)
    else:
        pair = ((3 * plane + left + 1) >> 2, (3 * plane + right + 2) >> 2)
    return torch.stack(pair, -1).flatten(-2)
