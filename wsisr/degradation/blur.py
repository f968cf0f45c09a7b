"""Blurs and sub-pixel sampling of batches (B, C, H, W), per-sample parameters throughout.

Edges are mirrored (half-sample symmetric), so that images of any size, 1 px included, work.
"""

from math import ceil, floor, sqrt

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from torch import Tensor

from wsisr.errors import DegradationError


def pad_mirror(x: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Extend the last two axes by mirrored pixels, as often as needed."""
    for axis, before, after in ((-2, top, bottom), (-1, left, right)):
        if before or after:
            size = int(x.shape[axis])
            index = torch.arange(-before, size + after, device=x.device).remainder(2 * size)
            x = x.index_select(axis, torch.minimum(index, 2 * size - 1 - index))
    return x


def pillow_gaussian(grey: Tensor, radius: float) -> Tensor:
    """Pillow's ``ImageFilter.GaussianBlur(radius)``, bit for bit.

    Three extended box passes along each axis, each rounded to 8 bit.

    Parameters
    ----------
    grey : Tensor, uint8, shape (..., H, W)
    radius : float
        Pillow's radius, which is the standard deviation in px.

    References
    ----------
    Gwosdek, Grewenig, Bruhn and Weickert, SSVM 2011, for the extended box filter.
    """
    if grey.dtype != torch.uint8:
        raise DegradationError("Pillow's blur is defined on uint8 images.")
    if not 0.0 <= radius < 1000.0:
        raise DegradationError(f"Blur radius {radius!r} px must lie in 0..1000.")
    if radius == 0.0:
        return grey.clone()
    box = _box_radius(radius)
    x = grey.to(torch.int32)
    for axis in (-1, -2):
        for _ in range(3):
            x = _extended_box(x, box, axis)
    return x.to(torch.uint8)


def _box_radius(radius: float) -> np.float32:
    # Pillow computes in C floats with double intermediates; so do we, for equal bits.
    single = np.float32
    variance = single(single(radius) * single(radius) / single(3))
    length = single(sqrt(12.0 * float(variance) + 1.0))
    whole = single(floor((float(length) - 1.0) / 2.0))
    rest = single((2 * whole + 1) * (whole * (whole + 1) - 3 * variance))
    rest = single(rest / (6 * (variance - (whole + 1) * (whole + 1))))
    return single(whole + rest)


def _extended_box(x: Tensor, box: np.float32, axis: int) -> Tensor:
    whole = int(box)
    inner = int((1 << 24) / (np.float32(box) * np.float32(2) + np.float32(1)))
    outer = ((1 << 24) - (2 * whole + 1) * inner) // 2
    size = int(x.shape[axis])
    index = torch.arange(-whole - 1, size + whole + 1, device=x.device).clamp_(0, size - 1)
    wide = x.index_select(axis, index)
    total = wide.narrow(axis, 1, size).clone()
    if whole > 8:
        sums = F.pad(wide.movedim(axis, -1).cumsum(-1, dtype=torch.int32), (1, 0))
        total = (sums[..., 2 * whole + 2 : -1] - sums[..., 1 : -2 * whole - 2]).movedim(-1, axis)
    else:
        for shift in range(2, 2 * whole + 2):
            total += wide.narrow(axis, shift, size)
    far = wide.narrow(axis, 0, size) + wide.narrow(axis, 2 * whole + 2, size)
    # The sum is below 2^32: int32 wraps and the mask restores the unsigned result.
    total.mul_(inner).add_(far, alpha=outer).add_(1 << 23)
    return total.bitwise_right_shift_(24).bitwise_and_(255)


def gaussian_blur(x: Tensor, sigma_px: Tensor | float, largest: float | None = None) -> Tensor:
    """Isotropic Gaussian, sampled to four sigma and normalised.

    Parameters
    ----------
    x : Tensor, floating, shape (B, C, H, W)
    sigma_px : float or Tensor (B,)
        Standard deviation in px of this image, >= 0.
    largest : float, optional
        Upper bound of `sigma_px` that fixes the support, so that an image's result does not
        depend on its batch; the largest of `sigma_px` by default.
    """
    batch, channels = x.shape[:2]
    sigma = torch.as_tensor(sigma_px, dtype=x.dtype, device=x.device).reshape(-1)
    largest = float(sigma.max()) if largest is None else largest
    if largest <= 0.0:
        return x
    radius = max(1, ceil(4.0 * largest))
    offset = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    taps = torch.exp(-0.5 * (offset / sigma.clamp_min(1e-3)[:, None]) ** 2)
    taps = (taps / taps.sum(1, keepdim=True)).expand(batch, -1).repeat_interleave(channels, 0)
    wide = pad_mirror(x, radius, radius, radius, radius).flatten(0, 1)[None]
    groups = batch * channels
    rows = F.conv2d(wide, taps[:, None, :, None], groups=groups)
    return F.conv2d(rows, taps[:, None, None, :], groups=groups).reshape(x.shape)


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve each image (B, C, H, W) with its own kernel (1 or B, 1 or C, k, k), k odd, through
    the FFT.
    """
    half = int(kernel.shape[-1]) // 2
    height, width = int(x.shape[-2]), int(x.shape[-1])
    rows, columns = next_fast_len(height + 2 * half, True), next_fast_len(width + 2 * half, True)
    wide = pad_mirror(x, half, rows - height - half, half, columns - width - half)
    response = torch.fft.rfft2(kernel.to(x.dtype), s=(rows, columns))
    result = torch.fft.irfft2(torch.fft.rfft2(wide) * response, s=(rows, columns))
    return result[..., 2 * half : 2 * half + height, 2 * half : 2 * half + width]


def turned_places(angle: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """Where the taps of kernels lie along directions (radians, (B,)) and across them, px from the
    middle: both (B, 2 half + 1, 2 half + 1).
    """
    x = torch.arange(-half, half + 1, device=angle.device, dtype=angle.dtype)
    y = x[:, None]
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    return cos * x + sin * y, cos * y - sin * x


def sample_axis(x: Tensor, position: Tensor, axis: int) -> Tensor:
    """Cubic (a = -0.5) interpolation at n per-channel positions along one axis.

    Parameters
    ----------
    x : Tensor, floating, shape (B, C, H, W)
    position : Tensor, shape (B, 1 or C, n)
        Pixel indices (0 = centre of the first pixel); clamped into the image.
    axis : {-1, -2}
    """
    if axis == -2:
        return sample_axis(x.mT, position, -1).mT
    size = int(x.shape[-1])
    position = position.to(x.dtype).clamp(0, size - 1)
    first = position.floor()
    t = position - first
    weights = (
        ((-0.5 * t + 1.0) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1.0,
        ((-1.5 * t + 2.0) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )
    shape = (x.shape[0], x.shape[1], x.shape[2], position.shape[-1])
    result = torch.zeros(shape, dtype=x.dtype, device=x.device)
    for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
        index = (first.long() + offset).clamp_(0, size - 1)
        result += x.gather(-1, index[:, :, None, :].expand(shape)) * weight[:, :, None, :]
    return result
