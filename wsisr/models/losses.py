"""Differentiable losses that the model families need beyond L1."""

import torch
import torch.nn.functional as F
from torch import Tensor

from wsisr.models.cwtnet import CwtOutputs
from wsisr.models.layers.precision import full_precision

SSIM_WINDOW_PX = 11
SSIM_SIGMA_PX = 1.5
CWT_WEIGHTS = (0.3, 0.7)
"""Lambda 1 and 2 of CWT-Net: SR branch, WT branch."""
CWT_SSIM_WEIGHT = 0.2
"""Lambda 3 and 4 of CWT-Net."""


def ssim(a: Tensor, b: Tensor, data_range: float = 1.0) -> Tensor:
    """Mean structural similarity of (N, C, H, W) batches, Gaussian 11 / 1.5, valid region.

    Computed in at least float32. Sides below 11 px use the largest odd window that fits.
    """
    with full_precision(a):
        wide = torch.float64 if a.dtype == torch.float64 else torch.float32
        a, b = a.to(wide), b.to(wide)
        side = min(SSIM_WINDOW_PX, *a.shape[-2:])
        side -= 1 - side % 2
        offset = torch.arange(side, device=a.device, dtype=wide) - side // 2
        taps = (-0.5 * (offset / SSIM_SIGMA_PX).square()).exp()
        taps = taps / taps.sum()
        channels = a.shape[1]
        rows = taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
        cols = taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1)

        def blurred(x: Tensor) -> Tensor:
            return F.conv2d(F.conv2d(x, rows, groups=channels), cols, groups=channels)

        mean_a, mean_b = blurred(a), blurred(b)
        var_a = blurred(a * a) - mean_a * mean_a
        var_b = blurred(b * b) - mean_b * mean_b
        both = blurred(a * b) - mean_a * mean_b
        c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
        value = (2 * mean_a * mean_b + c1) * (2 * both + c2)
        value = value / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
        return value.mean()


def l1_with_ssim(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """L1 + weight (1 - SSIM) (CWT-Net, eq. 11 to 14, with means)."""
    return F.l1_loss(a, b) + weight * (1 - ssim(a, b))


def cwt_loss(outputs: CwtOutputs, hr: Tensor, wr_weight: float = 1.0) -> Tensor:
    """CWT-Net's loss (eq. 10 to 12), plus the supervision of its wavelet reconstruction.

    Parameters
    ----------
    outputs : CwtOutputs
        From ``model.training_step_outputs``.
    hr : Tensor
        (N, 3, s h, s w).
    wr_weight : float
        Weight of L1 between the transforms of WR's pseudo reference and of the reference (not in
        the paper, which leaves open how WR is trained).
    """
    loss = CWT_WEIGHTS[0] * l1_with_ssim(outputs.sr, hr, CWT_SSIM_WEIGHT)
    loss = loss + CWT_WEIGHTS[1] * l1_with_ssim(outputs.wt, outputs.target, CWT_SSIM_WEIGHT)
    if outputs.wr is not None:
        loss = loss + wr_weight * F.l1_loss(outputs.wr, outputs.target)
    return loss
