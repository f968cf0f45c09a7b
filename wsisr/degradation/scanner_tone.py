"""A scanner's tone: a quadratic map of RGB, fitted by linear least squares."""

import numpy as np
import torch
from torch import Tensor

from wsisr.arrays import Float64Array
from wsisr.degradation.fitted import tone_curve


def fit_tone(simulated: Tensor, real: Tensor) -> Float64Array:
    """Quadratic map of RGB from the simulated to the real LR, shape (3, 10), by least squares."""
    terms = tone_curve(simulated).double().permute(0, 2, 3, 1).reshape(-1, 10)
    values = real.double().permute(0, 2, 3, 1).reshape(-1, 3)
    normal = terms.mT @ terms
    # A trace of ridge towards "no change": flat pairs do not determine ten numbers.
    weight = 1e-6 * float(normal.trace())
    neutral = torch.zeros(10, 3, dtype=torch.float64)
    neutral[1:4] = 255.0 * torch.eye(3, dtype=torch.float64)
    right = terms.mT @ values + weight * neutral
    solved = torch.linalg.solve(normal + weight * torch.eye(10, dtype=torch.float64), right)
    return np.asarray(solved.mT.numpy())


def apply_tone(simulated: Tensor, tone: Float64Array) -> Tensor:
    """The map of `fit_tone` applied to grey levels (B, 3, H, W)."""
    weights = torch.as_tensor(tone, dtype=simulated.dtype)
    return torch.einsum("ct,bthw->bchw", weights, tone_curve(simulated))


def pair_psnr(simulated: Tensor, real: Tensor) -> Float64Array:
    """RGB PSNR of each pair, dB, of unrounded simulated LR."""
    error = (simulated.double().clamp(0, 255) - real.double()).square().mean((1, 2, 3))
    return np.asarray((10.0 * torch.log10(255.0**2 / error.clamp_min(1e-6))).numpy())


def mean_psnr(simulated: Tensor, real: Tensor) -> float:
    """Mean over pairs of the RGB PSNR, dB, of unrounded simulated LR."""
    return float(pair_psnr(simulated, real).mean())
