"""Differentiable losses that the model families need beyond L1."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wsisr.device import full_precision, wide
from wsisr.models.cwtnet import CwtOutputs
from wsisr.models.settings import require

SSIM_WINDOW_PX = 11
SSIM_SIGMA_PX = 1.5


def ssim(a: Tensor, b: Tensor, data_range: float = 1.0) -> Tensor:
    """Mean structural similarity of (N, C, H, W) batches, Gaussian 11 / 1.5, valid region.

    Computed in at least float32. Sides below 11 px use the largest odd window that fits.
    """
    with full_precision(a):
        a, b = wide(a), wide(b)
        side = min(SSIM_WINDOW_PX, *a.shape[-2:])
        side -= 1 - side % 2
        offset = torch.arange(side, device=a.device, dtype=a.dtype) - side // 2
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


@dataclass(frozen=True, kw_only=True)
class CwtLossSettings:
    """Terms of CWT-Net's loss (eq. 10 to 14; its table IV changes them).

    Attributes
    ----------
    branch_weights : tuple of float
        Lambda 1 and 2: SR branch, WT branch. ``(1, 0)`` leaves the WT branch unsupervised,
        ``(0, 1)`` the SR branch, whose output then stays noise.
    ssim_weight : float
        Lambda 3 and 4: of 1 - SSIM in both.
    wr_weight : float
        Of L1 between the transforms of WR's pseudo reference and of the reference (not in the
        paper, which leaves open how WR is trained).
    """

    branch_weights: tuple[float, float] = (0.3, 0.7)
    ssim_weight: float = 0.2
    pixel: Literal["l1", "mse"] = "l1"
    wr_weight: float = 1.0

    def __post_init__(self) -> None:
        numbers = (*self.branch_weights, self.ssim_weight, self.wr_weight)
        require(
            min(numbers) >= 0 and sum(self.branch_weights) > 0,
            "recipe wavelet: weights must be 0 or more, one of branch_weights above 0",
        )


def cwt_loss(outputs: CwtOutputs, hr: Tensor, settings: CwtLossSettings | None = None) -> Tensor:
    """CWT-Net's loss, plus the supervision of its wavelet reconstruction.

    Parameters
    ----------
    outputs : CwtOutputs
        From ``model.training_step_outputs``. Where there is no WT branch, the SR term is all.
    hr : Tensor
        (N, 3, s h, s w).
    """
    s = CwtLossSettings() if settings is None else settings
    loss = _branch_loss(outputs.sr, hr, s)
    if outputs.wt is None or outputs.target is None:
        return loss
    weights = s.branch_weights
    loss = weights[0] * loss + weights[1] * _branch_loss(outputs.wt, outputs.target, s)
    if outputs.wr is not None:
        loss = loss + s.wr_weight * F.l1_loss(outputs.wr, outputs.target)
    return loss


def _branch_loss(a: Tensor, b: Tensor, s: CwtLossSettings) -> Tensor:
    """Pixel term + weight (1 - SSIM) (eq. 11 to 14, with means)."""
    pixel = F.l1_loss(a, b) if s.pixel == "l1" else F.mse_loss(a, b)
    return pixel + s.ssim_weight * (1 - ssim(a, b)) if s.ssim_weight else pixel
