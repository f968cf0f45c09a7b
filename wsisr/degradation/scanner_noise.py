"""A scanner's noise before JPEG, from the difference of real and simulated LR."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsisr.degradation.draws import batch_draws
from wsisr.degradation.scanner_jpeg import JpegSettings, compressed
from wsisr.resize import to_grey

_FLAT_SHARE = 0.3
_BINS = 8


@dataclass(frozen=True, kw_only=True)
class Noise:
    """variance = shot * grey level + read_variance, grey levels squared, per channel."""

    shot: float
    read_variance: float

    def deviation(self, grey: float) -> float:
        """Standard deviation at a grey level."""
        return float(np.sqrt(max(0.0, self.shot * grey + self.read_variance)))


def fit_noise(simulated: Tensor, real: Tensor, jpeg: JpegSettings | None) -> Noise:
    """Fit the noise model to places where the simulation has little structure.

    Parameters
    ----------
    simulated : Tensor, float, shape (B, 3, H, W)
        Deterministic part, before JPEG.
    real : Tensor, uint8
    jpeg : JpegSettings or None
        JPEG removes part of the noise. The model is fitted to what is left and then scaled so
        that noise of this strength leaves as much after the same compression.
    """
    plain = compressed(to_grey(simulated), jpeg).float()
    flat = _flat_places(simulated)
    seen = _line(simulated, _difference(real.float(), plain), flat)
    if jpeg is None:
        return seen
    wanted = float(_difference(real.float(), plain)[flat].square().mean())
    low, high = 0.0, 12.0
    for _ in range(12):
        middle = 0.5 * (low + high)
        trial = Noise(shot=seen.shot * middle, read_variance=seen.read_variance * middle)
        left = compressed(to_grey(with_noise(simulated, trial)), jpeg).float()
        if float(_difference(left, plain)[flat].square().mean()) < wanted:
            low = middle
        else:
            high = middle
    factor = 0.5 * (low + high)
    return Noise(shot=seen.shot * factor, read_variance=seen.read_variance * factor)


def with_noise(simulated: Tensor, noise: Noise, seed: int = 0) -> Tensor:
    """Add noise to grey levels (B, 3, H, W)."""
    draws = batch_draws(seed, 0, None, len(simulated), simulated.device).within("fit-noise")
    variance = noise.shot * simulated.clamp(0, 255) + noise.read_variance
    field = draws.normals("noise", tuple(simulated.shape[1:]))
    return simulated + field * variance.clamp_min(0.0).sqrt()


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """Fine part of a difference: slow drifts of tone and shading are not noise."""
    return (a - b) - F.avg_pool2d(a - b, 9, 1, 4, count_include_pad=False)


def _flat_places(simulated: Tensor) -> Tensor:
    grey = simulated.mean(1, keepdim=True)
    slope = (grey - F.avg_pool2d(grey, 5, 1, 2, count_include_pad=False)).abs()
    slope = F.avg_pool2d(slope, 5, 1, 2, count_include_pad=False)
    limit = torch.quantile(slope.flatten()[:: max(1, slope.numel() // 100_000)], _FLAT_SHARE)
    return (slope <= limit).expand_as(simulated)


def _line(simulated: Tensor, difference: Tensor, flat: Tensor) -> Noise:
    level = simulated[flat].clamp(0, 255).numpy().astype(np.float64)
    # The local mean that was removed took 1/81 of the variance with it.
    squared = difference[flat].numpy().astype(np.float64) ** 2 * (81.0 / 80.0)
    edges = np.quantile(level, np.linspace(0, 1, _BINS + 1))
    place = np.clip(np.searchsorted(edges, level, side="right") - 1, 0, _BINS - 1)
    count = np.bincount(place, minlength=_BINS).astype(np.float64)
    used = count > 50
    if not used.any():
        return Noise(shot=0.0, read_variance=float(squared.mean()))
    mean = (np.bincount(place, level, _BINS) / np.maximum(count, 1))[used]
    variance = (np.bincount(place, squared, _BINS) / np.maximum(count, 1))[used]
    weight = np.sqrt(count[used])
    design = np.stack((mean, np.ones_like(mean)), 1)
    solved, *_ = np.linalg.lstsq(design * weight[:, None], variance * weight, rcond=None)
    shot, read = float(solved[0]), float(solved[1])
    average = float((variance * weight).sum() / weight.sum())
    if shot < 0:
        return Noise(shot=0.0, read_variance=average)
    if read < 0:
        return Noise(shot=average / float((mean * weight).sum() / weight.sum()), read_variance=0.0)
    return Noise(shot=shot, read_variance=read)
