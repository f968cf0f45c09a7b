"""PSNR, SSIM and MS-SSIM, exactly defined, in float64, on any device.

No two toolkits' defaults agree (PSNR-Y of one pair: 35.79, 35.75, 34.47, 34.45 dB), so every
convention is an argument here and a named protocol in `wsisr.metrics.protocols`.

Defined answers: identical images have PSNR ``inf`` and SSIM 1; NaN in either image gives NaN.
A mean takes PSNR up to `PSNR_CAP_DB` (`capped`), of every image and model alike.
"""

from math import exp
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wsisr.metrics.images import Channel, Images, MetricError, as_pair, scores

Window = Literal["gaussian11", "uniform7"]
PSNR_CAP_DB = 100.0
"""What a PSNR counts for in a mean at most, and with it that of identical images."""
_STRIP_ROWS = 64
_MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def psnr(
    sr: Images, hr: Images, channel: Channel = "rgb", crop: int = 0, rounding: bool = True
) -> Any:
    """Peak signal-to-noise ratio in dB of each image, peak 255.

    Parameters
    ----------
    sr, hr : array or tensor, (N, 3, H, W), (3, H, W) or (H, W, 3)
        uint8, or floating in [0, 1] (clamped).
    channel : {"rgb", "y", "y-rounded", "each"}
        One mean squared error over R, G and B; on BT.601 luma (16..235), unrounded as in BasicSR
        or rounded as in MATLAB's uint8 conversion; or the mean of the three channels' PSNR.
    crop : int
        Border in px that does not count.
    rounding : bool
        Round to 8 bit first (0.0056 dB at 30 dB, 0.11 dB at 43 dB).

    Returns
    -------
    float or float64 array (N,)
        One score per image; average them over images, never the errors.
    """
    a, b, single = as_pair(sr, hr, channel=channel, crop=crop, rounding=rounding)
    error = (a - b).square().mean((2, 3))
    if channel != "each":
        error = error.mean(1, keepdim=True)
    return scores((10.0 * torch.log10(255.0**2 / error)).mean(1), single)


def capped(name: str, value: float) -> float:
    """A score as it enters a mean; `name` is a column's, such as ``psnr_rgb``. NaN stays NaN."""
    return min(value, PSNR_CAP_DB) if name.startswith("psnr") else value


def ssim(
    sr: Images,
    hr: Images,
    channel: Channel = "rgb",
    crop: int = 0,
    rounding: bool = True,
    window: Window = "gaussian11",
) -> Any:
    """Structural similarity of each image (Wang et al. 2004).

    Parameters
    ----------
    sr, hr, channel, crop, rounding
        As for `psnr`; "rgb" and "each" are both the mean over channels.
    window : {"gaussian11", "uniform7"}
        ``gaussian11``: 11 x 11, sigma 1.5, biased covariance (Wang, MATLAB, BasicSR).
        ``uniform7``: 7 x 7 mean, sample covariance (scikit-image's default).

    Returns
    -------
    float or float64 array (N,)
        Mean over the region where the window fits.

    Notes
    -----
    K1 0.01, K2 0.03, data range 255. scikit-image gives the same to 1e-8 with
    ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255``, and with
    its defaults for ``uniform7``.
    """
    a, b, single = as_pair(sr, hr, channel=channel, crop=crop, rounding=rounding)
    values, _ = _ssim_terms(a, b, window)
    return scores(values.mean(1), single)


def ms_ssim(
    sr: Images, hr: Images, channel: Channel = "rgb", crop: int = 0, rounding: bool = True
) -> Any:
    """Multi-scale structural similarity (Wang, Simoncelli and Bovik 2003), five scales.

    Images are halved by 2 x 2 means; contrast terms below 0 count as 0; the product is taken per
    channel. The shorter side must have at least 176 px.
    """
    a, b, single = as_pair(sr, hr, channel=channel, crop=crop, rounding=rounding)
    least = 11 << (len(_MS_WEIGHTS) - 1)
    if min(a.shape[-2:]) < least:
        raise MetricError(f"MS-SSIM needs {least} px a side; these have {tuple(a.shape[-2:])}.")
    product = torch.ones(a.shape[:2], dtype=a.dtype, device=a.device)
    for level, weight in enumerate(_MS_WEIGHTS):
        full, contrast = _ssim_terms(a, b, "gaussian11")
        last = level == len(_MS_WEIGHTS) - 1
        product = product * (full if last else contrast).clamp_min(0.0) ** weight
        if not last:
            # An odd last row or column pairs with a mirrored copy of itself.
            pad = (0, a.shape[-1] % 2, 0, a.shape[-2] % 2)
            a, b = (F.avg_pool2d(F.pad(x, pad, mode="replicate"), 2) for x in (a, b))
    return scores(product.mean(1), single)


def _ssim_terms(a: Tensor, b: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Mean SSIM and mean contrast-structure term per image and channel, shape (N, C)."""
    if window == "gaussian11":
        weights = [exp(-0.5 * (offset / 1.5) ** 2) for offset in range(-5, 6)]
        taps, unbias = [weight / sum(weights) for weight in weights], 1.0
    elif window == "uniform7":
        taps, unbias = [1.0 / 7.0] * 7, 49.0 / 48.0
    else:
        raise MetricError(f"No SSIM window {window!r}; there are gaussian11 and uniform7.")
    if min(a.shape[-2:]) < len(taps):
        raise MetricError(
            f"SSIM needs {len(taps)} px a side; these have {tuple(a.shape[-2:])} after the crop."
        )
    c1, c2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    rows = int(a.shape[-2]) - len(taps) + 1
    step = rows if a.device.type != "cpu" else min(rows, _STRIP_ROWS)
    full = torch.zeros(a.shape[:2], dtype=a.dtype, device=a.device)
    contrast = torch.zeros_like(full)
    # Image by image and strip by strip the temporaries stay in a CPU's cache: ten times as fast.
    images = [slice(None)] if a.device.type != "cpu" else [slice(i, i + 1) for i in range(len(a))]
    for image in images:
        for top in range(0, rows, step):
            strip = slice(top, min(top + step, rows) + len(taps) - 1)
            x, y = a[image, :, strip], b[image, :, strip]
            mu_x, mu_y = _filtered(x, taps), _filtered(y, taps)
            var_x = unbias * (_filtered(x * x, taps) - mu_x * mu_x)
            var_y = unbias * (_filtered(y * y, taps) - mu_y * mu_y)
            cov = unbias * (_filtered(x * y, taps) - mu_x * mu_y)
            term = (2.0 * cov + c2) / (var_x + var_y + c2)
            contrast[image] += term.sum((2, 3))
            light = (2.0 * mu_x * mu_y + c1) / (mu_x * mu_x + mu_y * mu_y + c1)
            full[image] += (light * term).sum((2, 3))
    count = rows * (int(a.shape[-1]) - len(taps) + 1)
    return full / count, contrast / count


def _filtered(x: Tensor, taps: list[float]) -> Tensor:
    """Separable correlation of (N, C, H, W) where the window fits."""
    for axis in (-2, -1):
        size = int(x.shape[axis]) - len(taps) + 1
        total = x.narrow(axis, 0, size) * taps[0]
        for place, tap in enumerate(taps[1:], start=1):
            total.add_(x.narrow(axis, place, size), alpha=tap)
        x = total
    return x
