"""Registered pairs of one scanner, made ready for a fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wsisr.arrays import Float64Array, UInt8Array
from wsisr.degradation.scanner_jpeg import JpegSettings, find_grid
from wsisr.errors import DegradationError


@dataclass(frozen=True, kw_only=True)
class RealPair:
    """A registered pair.

    Attributes
    ----------
    lr : ndarray, shape (h, w, 3), uint8
    hr : ndarray, shape (s h, s w, 3), uint8
        The integer crop of the certificate.
    residual_px : (float, float)
        ``residual_x, residual_y``: where the LR's footprint begins in the crop, HR px.
    grid_px : (int, int), optional
        Place (x, y) of the LR's first pixel on its file's JPEG grid; only the remainder by 16
        matters. None where it is not known (then it is looked for).
    """

    lr: UInt8Array
    hr: UInt8Array
    residual_px: tuple[float, float] = (0.0, 0.0)
    grid_px: tuple[int, int] | None = None

    @property
    def scale(self) -> int:
        return self.hr.shape[0] // self.lr.shape[0]


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How to fit.

    Attributes
    ----------
    half_px : int
        Reach of the point spread function beyond the pixel aperture, HR px. Airy tails are long:
        a shorter reach bends the kernel's middle to make up for them.
    held_out : float
        Share of the pairs that only score (every n-th pair, at least one).
    crop_px : int
        LR px of each pair that are used, a multiple of 16.
    max_pairs : int
        Pairs used for the fit.
    evaluations : int
        Trials per kernel family.
    free_taps : bool
        Whether to correct the family's taps freely.
    jpeg : "estimate", None or JpegSettings
        The LR's compression; None fits without JPEG.
    um_per_px : float
        HR pixel size, um.
    """

    half_px: int = 20
    held_out: float = 0.34
    crop_px: int = 96
    max_pairs: int = 16
    evaluations: int = 120
    free_taps: bool = True
    jpeg: JpegSettings | Literal["estimate"] | None = "estimate"
    um_per_px: float = 0.25


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """Pairs as tensors: HR moved by the residual, with a margin of context around the LR's part.

    Attributes
    ----------
    hr : Tensor, float32, shape (B, 3, s (h + 2 m), s (w + 2 m))
    lr : Tensor, uint8, shape (B, 3, h, w)
    margin_lr_px : int
        m.
    """

    hr: Tensor
    lr: Tensor
    scale: int
    margin_lr_px: int

    @cached_property
    def spectrum(self) -> Tensor:
        """Transform of `hr`, which every trial kernel uses again."""
        return torch.fft.rfft2(self.hr)

    def linear(self, taps: Float64Array) -> Tensor:
        """The LR before tone, noise and JPEG under a kernel (1 or 3, k, k).

        Equal to `wsisr.degradation.fitted.fitted_linear`; through the Fourier domain, where
        long tails cost nothing.
        """
        height, width = (int(n) for n in self.hr.shape[-2:])
        kernel = torch.as_tensor(taps, dtype=self.hr.dtype)
        response = torch.fft.rfft2(kernel, s=(height, width)).conj()
        seen = torch.fft.irfft2(self.spectrum * response, s=(height, width))
        # Sample n of the correlation has the kernel's first tap on HR pixel n.
        first = self.scale * self.margin_lr_px - (int(taps.shape[-1]) - self.scale) // 2
        rows, columns = (first + self.scale * int(n) for n in self.lr.shape[-2:])
        return seen[..., first : rows : self.scale, first : columns : self.scale]

    def inner(self, lr_grid: Tensor) -> Tensor:
        """Drop the margin of an image on the LR grid."""
        m = self.margin_lr_px
        return lr_grid[..., m : m + self.lr.shape[-2], m : m + self.lr.shape[-1]]


def align(pairs: Sequence[RealPair], settings: FitSettings) -> Aligned:
    """Cut pairs to the JPEG grid and move their HR by the residual."""
    scales = {pair.scale for pair in pairs}
    if len(scales) != 1:
        raise DegradationError(
            f"Pairs of one fit must share one scale; these have {sorted(scales)}."
        )
    scale = scales.pop()
    margin = -(-settings.half_px // scale) + 1
    smallest = min(min(pair.lr.shape[:2]) for pair in pairs)
    side = min(settings.crop_px, (smallest - 2 * margin - 15) // 16 * 16)
    if side < 32:
        raise DegradationError(
            f"LR patches of {smallest} px are too small for a kernel of {settings.half_px} HR px; "
            f"{48 + 2 * margin} px are needed."
        )
    highs, lows = [], []
    for pair in pairs:
        if pair.hr.shape[:2] != tuple(scale * n for n in pair.lr.shape[:2]):
            raise DegradationError(
                f"HR {pair.hr.shape[:2]} is not {scale} times LR {pair.lr.shape[:2]}."
            )
        grid = pair.grid_px
        if grid is None:
            grid = find_grid(pair.lr) if settings.jpeg is not None else (0, 0)
        left = margin + (-grid[0] - margin) % 16
        top = margin + (-grid[1] - margin) % 16
        lr = torch.as_tensor(pair.lr[top : top + side, left : left + side].copy())
        hr = torch.as_tensor(pair.hr.copy()).permute(2, 0, 1)[None].float()
        hr = moved(hr, pair.residual_px)
        rows = slice(scale * (top - margin), scale * (top + side + margin))
        columns = slice(scale * (left - margin), scale * (left + side + margin))
        highs.append(hr[0, :, rows, columns])
        lows.append(lr.permute(2, 0, 1))
    return Aligned(hr=torch.stack(highs), lr=torch.stack(lows), scale=scale, margin_lr_px=margin)


def moved(hr: Tensor, residual_px: tuple[float, float]) -> Tensor:
    """HR sampled at ``x + residual`` by a phase ramp on mirrored lines (no low-pass)."""
    for axis, shift in ((-1, residual_px[0]), (-2, residual_px[1])):
        if abs(shift) > 1e-3:
            line = torch.cat((hr, hr.flip(axis)), axis)
            spectrum = torch.fft.rfft(line, dim=axis)
            f = torch.fft.rfftfreq(line.shape[axis])
            ramp = torch.exp(2j * torch.pi * f * shift)
            spectrum = spectrum * (ramp if axis == -1 else ramp[:, None])
            hr = torch.fft.irfft(spectrum, n=line.shape[axis], dim=axis)
            hr = hr.narrow(axis, 0, line.shape[axis] // 2)
    return hr


def pair_psnr(simulated: Tensor, real: Tensor) -> Float64Array:
    """RGB PSNR of each pair, dB, of unrounded simulated LR."""
    error = (simulated.double().clamp(0, 255) - real.double()).square().mean((1, 2, 3))
    return np.asarray((10.0 * torch.log10(255.0**2 / error.clamp_min(1e-6))).numpy())


def mean_psnr(simulated: Tensor, real: Tensor) -> float:
    """Mean over pairs of the RGB PSNR, dB, of unrounded simulated LR."""
    return float(pair_psnr(simulated, real).mean())
