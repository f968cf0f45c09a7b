"""Errors that PSNR does not see: sharpness, spectrum and colour."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wsisr.metrics.images import Images, MetricError, as_batch, as_pair, scores, to_channel

_FLOOR = 1e-3
"""Added to power spectra (grey levels squared per px): below it there is only rounding."""


def sharpness(images: Images) -> Any:
    """Standard deviation of the luma's Laplacian, in grey levels, of each image."""
    x, single = as_batch(images)
    return scores(_laplacian_deviation(to_channel(x, "y")), single)


def sharpness_error(sr: Images, hr: Images, crop: int = 0) -> Any:
    """Signed log2 ratio of the sharpness of SR and HR: 0 is right, -1 is half as sharp."""
    a, b, single = as_pair(sr, hr, channel="y", crop=crop)
    floor = 1e-6
    ratio = (_laplacian_deviation(a) + floor) / (_laplacian_deviation(b) + floor)
    return scores(torch.log2(ratio), single)


def _laplacian_deviation(luma: Tensor) -> Tensor:
    if min(luma.shape[-2:]) < 3:
        raise MetricError("Sharpness needs at least 3 px a side.")
    taps = torch.tensor(((0, 1, 0), (1, -4, 1), (0, 1, 0)), dtype=luma.dtype, device=luma.device)
    return F.conv2d(luma, taps[None, None]).flatten(1).std(1, correction=0)


def radial_spectrum(luma: Tensor, bins: int = 32) -> Tensor:
    """Mean power (N, bins) in rings of spatial frequency from 0 to 0.5 cycles per px.

    Of grey levels (N, 1, H, W), whose mean is removed and which get a Hann window.
    """
    height, width = int(luma.shape[-2]), int(luma.shape[-1])
    if min(height, width) < 8:
        raise MetricError("A spectrum needs at least 8 px a side.")
    window = (
        torch.hann_window(height, dtype=luma.dtype, device=luma.device)[:, None]
        * torch.hann_window(width, dtype=luma.dtype, device=luma.device)[None, :]
    )
    centred = (luma - luma.mean((-2, -1), keepdim=True)) * window
    power = torch.fft.rfft2(centred).abs().square().flatten(1) / window.square().sum()
    fy = torch.fft.fftfreq(height, dtype=luma.dtype, device=luma.device)[:, None]
    fx = torch.fft.rfftfreq(width, dtype=luma.dtype, device=luma.device)[None, :]
    ring = (torch.sqrt(fx * fx + fy * fy) * (2 * bins)).long().flatten()
    # Columns strictly between 0 and Nyquist stand for two frequencies of the full transform.
    twice = torch.where((fx == 0) | (fx == 0.5), 1.0, 2.0).expand(height, -1).flatten()
    inside = ring < bins
    total = torch.zeros(len(luma), bins, dtype=luma.dtype, device=luma.device)
    count = torch.zeros(bins, dtype=luma.dtype, device=luma.device)
    weights = twice.to(luma.dtype)[inside]
    total.index_add_(1, ring[inside], power[:, inside] * weights)
    count.index_add_(0, ring[inside], weights)
    return total / count.clamp_min(1.0)


def spectrum_error(sr: Images, hr: Images, crop: int = 0) -> Any:
    """Mean absolute difference of log10 power over the frequencies of each image's luma."""
    a, b, single = as_pair(sr, hr, channel="y", crop=crop)
    logs = [torch.log10(radial_spectrum(x) + _FLOOR) for x in (a, b)]
    return scores((logs[0] - logs[1]).abs().mean(1), single)


def colour_error(sr: Images, hr: Images, crop: int = 0) -> Any:
    """Mean CIELAB distance (Delta E 1976, D65) after 4 x 4 means: hue and stain, not detail."""
    a, b, single = as_pair(sr, hr, crop=crop)
    if min(a.shape[-2:]) >= 4:
        a, b = F.avg_pool2d(a, 4), F.avg_pool2d(b, 4)
    return scores((lab(a) - lab(b)).square().sum(1).sqrt().mean((1, 2)), single)


def lab(rgb: Tensor) -> Tensor:
    """sRGB grey levels (N, 3, H, W) -> CIELAB, D65, two degrees."""
    c = rgb / 255.0
    linear = torch.where(c > 0.04045, ((c + 0.055) / 1.055).clamp_min(0) ** 2.4, c / 12.92)
    matrix = torch.tensor(
        (
            (0.412453, 0.357580, 0.180423),
            (0.212671, 0.715160, 0.072169),
            (0.019334, 0.119193, 0.950227),
        ),
        dtype=rgb.dtype,
        device=rgb.device,
    )
    white = torch.tensor((0.95047, 1.0, 1.08883), dtype=rgb.dtype, device=rgb.device)
    xyz = torch.einsum("dc,nchw->ndhw", matrix, linear) / white[:, None, None]
    f = torch.where(xyz > 0.008856, xyz.clamp_min(1e-12) ** (1 / 3), 7.787 * xyz + 16.0 / 116.0)
    x, y, z = f.unbind(1)
    return torch.stack((116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)), dim=1)
