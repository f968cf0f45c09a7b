"""How an image was compressed, seen from its decoded pixels."""

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from scipy.special import erf
from torch import Tensor

from wsisr.arrays import Float64Array, UInt8Array
from wsisr.degradation.jpeg import Subsampling, forward_dct, inverse_dct, jpeg, quality_tables

_CANDIDATES = tuple(range(30, 98))
_DIP = 0.5
"""A quality is believed where its misfit is below this share of its neighbours'."""


@dataclass(frozen=True, kw_only=True)
class JpegSettings:
    """Quality and chroma subsampling of a compressed image."""

    quality: int
    subsampling: Subsampling


def luma_of(rgb: Tensor) -> Tensor:
    """libjpeg's luma of float RGB grey levels (B, 3, H, W), unrounded, shape (B, H, W)."""
    weights = torch.tensor((0.299, 0.587, 0.114), dtype=rgb.dtype, device=rgb.device)
    return torch.einsum("c,bchw->bhw", weights, rgb)


def compressed(rgb: Tensor, settings: JpegSettings | None) -> Tensor:
    """uint8 images (B, 3, H, W) after JPEG; as they are without settings."""
    return rgb if settings is None else jpeg(rgb, settings.quality, settings.subsampling)


def estimate_jpeg(rgb: Tensor) -> JpegSettings | None:
    """Quality and subsampling of decoded images (B, 3, H, W), uint8, whose 8 x 8 grid starts at
    their corner.

    None where no quality stands out: never compressed, above 97, or on another grid.

    Notes
    -----
    Coefficients that were quantised lie near multiples of their step. For every quality the
    distance to the nearest multiple is measured in units of what unquantised coefficients have
    (a quarter of the step), over steps of at least 3 and coefficients of at least one step.
    """
    height, width = (int(n) // 16 * 16 for n in rgb.shape[-2:])
    if min(height, width) < 16:
        return None
    rgb = rgb[..., :height, :width]
    values = (forward_dct(torch.floor(luma_of(rgb.double()) + 0.5)) / 8.0).reshape(-1, 8, 8)
    misfit = np.array([_misfit(values, quality) for quality in _CANDIDATES])
    best = int(np.argmin(misfit))
    near = [misfit[i] for i in (best - 2, best - 1, best + 1, best + 2) if 0 <= i < len(misfit)]
    if not misfit[best] < _DIP * float(np.median(near)) or misfit[best] > 0.6:
        return None
    quality = _CANDIDATES[best]
    choices: tuple[Subsampling, ...] = ("4:4:4", "4:2:2", "4:2:0")
    change = [
        float((jpeg(rgb, quality, s).int() - rgb.int()).square().double().mean()) for s in choices
    ]
    return JpegSettings(quality=quality, subsampling=choices[int(np.argmin(change))])


def find_grid(lr: UInt8Array) -> tuple[int, int]:
    """Where the first pixel of an image (h, w, 3) lies on its JPEG grid, (x, y) modulo 8 or, with
    subsampled chroma, modulo 16; (0, 0) where no grid is seen.
    """
    rgb = torch.as_tensor(lr[:144, :144].copy()).permute(2, 0, 1)[None]
    side = min(int(rgb.shape[-2]), int(rgb.shape[-1])) - 7
    if side < 32:
        return (0, 0)
    side = side // 8 * 8
    luma = torch.floor(luma_of(rgb.double()) + 0.5)
    best, place = 0.7, None
    # Steps at block edges name the likely phases; the coefficients decide among them.
    for top in _likely_phases(luma[0].mT):
        for left in _likely_phases(luma[0]):
            part = luma[:, top : top + side, left : left + side]
            values = (forward_dct(part) / 8.0).reshape(-1, 8, 8)
            found = min(_misfit(values, quality) for quality in _CANDIDATES[::3])
            if found < best:
                best, place = found, (left, top)
    if place is None:
        return (0, 0)
    left, top = place
    # Subsampled chroma has a grid of 16: of the four phases the one that survives another pass.
    whole = torch.as_tensor(lr.copy()).permute(2, 0, 1)[None]
    changes = {}
    for dy in (0, 8):
        for dx in (0, 8):
            part = whole[..., top + dy :, left + dx :]
            settings = estimate_jpeg(part)
            if settings is not None:
                again = compressed(part, settings)
                changes[dx, dy] = float((again.int() - part.int()).square().double().mean())
    if not changes:
        return (0, 0)
    dx, dy = min(changes, key=lambda key: changes[key])
    return (-(left + dx) % 16, -(top + dy) % 16)


def _likely_phases(luma: Tensor) -> list[int]:
    """The three likeliest first columns of blocks: neighbours differ more than further in."""
    step = luma.diff(dim=-1).abs().mean(0)
    excess = step[1:-1] - 0.5 * (step[:-2] + step[2:])
    # excess[i] belongs to the edge between columns i + 1 and i + 2.
    score = torch.stack([excess[(phase - 2) % 8 :: 8].mean() for phase in range(8)])
    return [int(i) for i in score.argsort(descending=True)[:3]]


def _misfit(values: Tensor, quality: int) -> float:
    step = quality_tables(quality)[0, 0]
    used = step >= 3
    used[0, 0] = False
    level = values[:, used] / step[used]
    big = level.abs() >= 0.75
    if int(big.sum()) < 50:
        return 1.0
    distance = (level - level.round()).abs()[big]
    return float(distance.mean() / 0.25)


def expected_before_jpeg(simulated: Tensor, real: Tensor, quality: int, deviation: float) -> Tensor:
    """Luma (B, H, W) that a real image had before JPEG, as expected from a simulation of it.

    Every coefficient of the real image tells an interval. Within it the simulated coefficient,
    known to `deviation`, gives the mean of a normal distribution cut to the interval (the
    expectation step; without it quantisation acts as one more low-pass on a fitted kernel).

    Parameters
    ----------
    simulated : Tensor, float, shape (B, H, W)
        Luma before JPEG, H and W multiples of 8.
    real : Tensor, float, shape (B, H, W)
        Decoded luma.
    deviation : float
        Standard deviation of noise and misfit, grey levels.
    """
    step = quality_tables(quality)[0, 0]
    guess = _plain_dct(simulated.double())
    level = (_plain_dct(real.double()) / step).round()
    sd = max(deviation, 1e-3)
    low, high = ((level - 0.5) * step - guess) / sd, ((level + 0.5) * step - guess) / sd
    shift = torch.as_tensor(_cut_normal_mean(low.numpy(), high.numpy()))
    # Where the guess is many deviations outside, the nearest end of the interval is the mean.
    return _plain_dct_inverse(guess + sd * shift)


def _cut_normal_mean(low: Float64Array, high: Float64Array) -> Float64Array:
    def density(x: Float64Array) -> Float64Array:
        return cast(Float64Array, np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi))

    mass = 0.5 * (erf(high / np.sqrt(2)) - erf(low / np.sqrt(2)))
    inside = (density(low) - density(high)) / np.maximum(mass, 1e-9)
    far = np.clip(0.0, low, high)
    result: Float64Array = np.clip(np.where(mass > 1e-6, inside, far), low, high)
    return result


def _basis() -> Tensor:
    k, n = np.mgrid[:8, :8]
    basis = np.cos(np.pi * (2 * n + 1) * k / 16) * np.where(k == 0, np.sqrt(1 / 8), 0.5)
    return torch.as_tensor(basis)


def _plain_dct(plane: Tensor) -> Tensor:
    batch, height, width = plane.shape
    blocks = (plane - 128).reshape(batch, height // 8, 8, width // 8, 8).transpose(2, 3)
    basis = _basis()
    return basis @ blocks @ basis.mT


def _plain_dct_inverse(values: Tensor) -> Tensor:
    basis = _basis()
    blocks = basis.mT @ values @ basis
    batch, rows, columns = blocks.shape[:3]
    return blocks.transpose(2, 3).reshape(batch, rows * 8, columns * 8) + 128


def compress_luma(plane: Tensor, quality: int) -> Tensor:
    """Luma planes (B, H, W) through JPEG alone: rounded, coded, decoded; float64 0..255."""
    height, width = (int(n) for n in plane.shape[-2:])
    step = quality_tables(quality)[0, 0]
    grey = torch.floor(plane.double() + 0.5).clamp(0, 255)
    right, bottom = -width % 8, -height % 8
    wide = torch.nn.functional.pad(grey[:, None], (0, right, 0, bottom), mode="replicate")[:, 0]
    level = (forward_dct(wide) / (8.0 * step)).round()
    return inverse_dct(level * step)[:, :height, :width].double()
