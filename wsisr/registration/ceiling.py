"""The PSNR that misalignment alone allows.

A network cannot know a shift that differs from pair to pair: the best it can do is to predict
the mean over all shifts. With the power spectrum of the HR patches, ``P(w)``, and the
characteristic function of the residual shifts, ``phi(w) = E[exp(i w . d)]``, its mean squared
error is the sum of ``P (1 - |phi|^2)``. An output that is perfect but for the shift scores the
sum of ``2 P (1 - Re phi)``.
"""

from dataclasses import dataclass
from math import inf, log10, sqrt

import numpy as np
from scipy import fft

from wsisr.arrays import Float64Array, UInt8Array
from wsisr.errors import RegistrationError

LUMA = np.array([65.481, 128.553, 24.966]) / 255
"""BT.601 with foot room, as PSNR-Y has it in super-resolution."""
MAX_SHIFTS = 4096


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """What misalignment alone allows.

    Attributes
    ----------
    best_db : float
        PSNR-Y of the best possible prediction; infinite where all residuals are equal.
    perfect_db : float
        PSNR-Y of an image that is perfect but for each pair's shift.
    rms_px, p95_px : float
        Of the length of the residuals, HR px.
    """

    best_db: float
    perfect_db: float
    rms_px: float
    p95_px: float
    pairs: int

    def __str__(self) -> str:
        best = "no limit" if self.best_db > 100 else f"{self.best_db:.1f} dB"
        return (
            f"alignment ceiling: PSNR-Y {best} (residual {self.rms_px:.3f} px rms, "
            f"{self.p95_px:.3f} px at the 95th percentile, {self.pairs} pairs)"
        )


def luma_power(patches: UInt8Array) -> Float64Array:
    """Mean power spectrum (H, W) of the luma of RGB patches (n, H, W, 3), per pixel.

    Its sum is the mean luma variance; Hann-windowed, so that borders do not count as detail.
    """
    if patches.ndim != 4 or patches.shape[3] != 3 or len(patches) == 0:
        raise RegistrationError("A ceiling needs HR patches of shape (n, H, W, 3).")
    height, width = patches.shape[1:3]
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    total = np.zeros((height, width))
    for patch in patches:
        luma = patch @ LUMA
        luma = (luma - np.average(luma, weights=window**2)) * window
        total += np.abs(fft.fft2(luma)) ** 2
    return total / (len(patches) * height * width * float(np.sum(window**2)))


def psnr_ceiling(power: Float64Array, residuals_px: Float64Array) -> Ceiling:
    """Ceiling for pairs whose HR is shifted by what a whole-pixel crop left over.

    Parameters
    ----------
    power : ndarray, shape (H, W)
        From `luma_power`.
    residuals_px : ndarray, shape (m, 2)
        `residual_x`, `residual_y` of the certificates, HR px; at most `MAX_SHIFTS` of them are
        drawn.
    """
    residuals = np.asarray(residuals_px, dtype=np.float64).reshape(-1, 2)
    if len(residuals) == 0 or not np.isfinite(residuals).all():
        raise RegistrationError("A ceiling needs at least one finite residual.")
    length = np.linalg.norm(residuals, axis=1)
    drawn = residuals
    if len(residuals) > MAX_SHIFTS:
        drawn = residuals[np.random.default_rng(0).choice(len(residuals), MAX_SHIFTS, False)]
    wy = 2 * np.pi * fft.fftfreq(power.shape[0])
    wx = 2 * np.pi * fft.fftfreq(power.shape[1])
    # exp(i wy dy) exp(i wx dx), averaged over the pairs, is one matrix product.
    phi = np.exp(1j * np.outer(wy, drawn[:, 1])) @ np.exp(1j * np.outer(drawn[:, 0], wx))
    phi /= len(drawn)
    best = float(np.sum(power * (1 - np.abs(phi) ** 2)))
    perfect = float(np.sum(power * 2 * (1 - phi.real)))
    return Ceiling(
        best_db=_psnr(best),
        perfect_db=_psnr(perfect),
        rms_px=sqrt(float(np.mean(length**2))),
        p95_px=float(np.percentile(length, 95)),
        pairs=len(residuals),
    )


def _psnr(mse: float) -> float:
    return 10 * log10(255**2 / mse) if mse > 1e-9 else inf
