"""A fitted scanner as a degradation: taps, tone, noise and JPEG.

The tone is a quadratic map of RGB, which pairs determine by linear least squares.
"""

from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from wsisr.arrays import Float64Array
from wsisr.degradation.blur import pad_mirror
from wsisr.degradation.jpeg import jpeg
from wsisr.degradation.stage import Context, Stage, register_degradation
from wsisr.device import upload
from wsisr.errors import DegradationError
from wsisr.resize import to_grey


@register_degradation
class Fitted(Stage):
    """A scanner's own degradation, fitted to registered pairs (`wsisr degrade fit`)."""

    samples: ClassVar[bool] = True
    kind: Literal["fitted"] = "fitted"
    scale: int = Field(ge=1, le=64, description="the only scale at which the fit holds")
    kernel: tuple[tuple[tuple[float, ...], ...], ...] = Field(
        description="taps (1 or 3, k, k) on HR pixels; each plane sums to 1"
    )
    tone: tuple[tuple[float, ...], ...] = Field(
        description="(3, 10): 1, R, G, B, RR, GG, BB, RG, GB, BR (units of 255) to grey levels"
    )
    shot: float = Field(default=0.0, ge=0.0, description="noise variance per grey level")
    read_variance: float = Field(default=0.0, ge=0.0, description="noise variance at zero")
    quality: int | None = Field(default=None, ge=1, le=100, description="JPEG, none if null")
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:4:4"

    @model_validator(mode="after")
    def _check_shapes(self) -> "Fitted":
        side = len(self.kernel[0]) if self.kernel else 0
        square = all(
            len(plane) == side and all(len(r) == side for r in plane) for plane in self.kernel
        )
        if len(self.kernel) not in (1, 3) or not square or side < self.scale:
            raise ValueError("kernel must be (1 or 3, k, k) with k at least the scale")
        if (side - self.scale) % 2:
            raise ValueError("kernel side and scale must both be even or both odd")
        if any(abs(sum(map(sum, plane)) - 1.0) > 1e-3 for plane in self.kernel):
            raise ValueError("each plane of the kernel must sum to 1")
        if len(self.tone) != 3 or any(len(row) != 10 for row in self.tone):
            raise ValueError("tone must be (3, 10)")
        return self

    def apply(self, x: Tensor, context: Context) -> Tensor:
        if context.scale != self.scale:
            raise DegradationError(
                f"This scanner was fitted at scale {self.scale} and holds there only, not at "
                f"{context.scale:g}; fit it to pairs of that scale."
            )
        kernel = upload(self.kernel, x.device, x.dtype)
        weights = upload(self.tone, x.device, x.dtype)
        curve = tone_curve(fitted_linear(x, kernel, self.scale))
        tone = torch.einsum("ct,bthw->bchw", weights, curve)
        if self.random:
            variance = self.shot * tone.clamp(0, 255) + self.read_variance
            noise = context.draws.normals("noise", tuple(tone.shape[1:]))
            tone = tone + noise * variance.sqrt()
        if self.quality is None:
            return tone
        return jpeg(to_grey(tone), self.quality, self.subsampling).float()

    @property
    def random(self) -> bool:
        return self.shot > 0 or self.read_variance > 0


def fitted_linear(x: Tensor, kernel: Tensor, scale: int) -> Tensor:
    """Correlate HR with taps centred on each LR pixel, and sample.

    Parameters
    ----------
    x : Tensor, shape (B, C, H, W)
    kernel : Tensor, shape (1 or C, k, k)
        k has the parity of `scale`, so that the taps' centre is the LR pixel's centre.
    """
    side = int(kernel.shape[-1])
    pad = (side - scale) // 2
    if (side - scale) % 2 or pad < 0:
        raise DegradationError(
            f"A kernel of {side} taps has no centre at scale {scale}; use {scale} + 2 n taps."
        )
    channels = int(x.shape[1])
    wide = pad_mirror(x, pad, pad, pad, pad)
    weight = kernel.expand(channels, side, side)[:, None]
    return F.conv2d(wide, weight, stride=scale, groups=channels)


def tone_curve(x: Tensor) -> Tensor:
    """1, R, G, B, RR, GG, BB, RG, GB, BR of grey levels in units of 255: (B, 10, H, W)."""
    x = x / 255.0
    r, g, b = x.unbind(1)
    return torch.stack((torch.ones_like(r), r, g, b, r * r, g * g, b * b, r * g, g * b, b * r), 1)


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
