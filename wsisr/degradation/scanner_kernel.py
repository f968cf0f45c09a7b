"""Kernels of a scanner on HR pixels: parametric families and a free correction.

A kernel is a stack of taps (C, k, k) that sums to 1 in each plane, where k has the parity of the
scale, so that its centre is the centre of the LR pixel. It contains the pixel aperture.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import linalg
from torch import Tensor

from wsisr.arrays import Float64Array
from wsisr.degradation.optics import transfer

WAVELENGTHS_UM = (0.62, 0.55, 0.45)
_GRID_PX = 128


def with_aperture(spread: Float64Array, scale: int) -> Float64Array:
    """Convolve point spread functions (C, n, n), n odd, with the LR pixel's box."""
    box = np.full(scale, 1.0 / scale)
    result = np.apply_along_axis(np.convolve, -1, spread, box)
    result = np.apply_along_axis(np.convolve, -2, result, box)
    total: Float64Array = result / result.sum((-1, -2), keepdims=True)
    return total


def gaussian_taps(
    sigma_x: float, sigma_y: float, angle_rad: float, scale: int, half_px: int
) -> Float64Array:
    """Gaussian point spread times the pixel aperture, shape (1, k, k), k = 2 half + scale."""
    offset = np.arange(-half_px, half_px + 1, dtype=np.float64)
    u = np.cos(angle_rad) * offset[None, :] + np.sin(angle_rad) * offset[:, None]
    v = np.cos(angle_rad) * offset[:, None] - np.sin(angle_rad) * offset[None, :]
    # Below a fifth of a pixel sampled Gaussians are a point anyway.
    q = (u / max(abs(sigma_x), 0.2)) ** 2 + (v / max(abs(sigma_y), 0.2)) ** 2
    return with_aperture(np.exp(-0.5 * q)[None], scale)


def optics_taps(
    na: float, defocus_um: float, sigma_px: float, scale: int, half_px: int, um_per_px: float
) -> Float64Array:
    """Objective times the pixel aperture, one plane per colour, shape (3, k, k)."""
    f = np.fft.fftfreq(_GRID_PX)
    radius = torch.as_tensor(np.hypot(f[:, None], f[None, :]) / um_per_px)

    def one(value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float64)

    planes = []
    for wavelength in WAVELENGTHS_UM:
        response = transfer(
            radius, one(na), one(wavelength), one(defocus_um), one(abs(sigma_px) * um_per_px)
        )
        spread = np.fft.fftshift(np.fft.ifft2(response.numpy()).real)
        centre = _GRID_PX // 2
        cut = slice(centre - half_px, centre + half_px + 1)
        planes.append(spread[cut, cut])
    return with_aperture(np.stack(planes), scale)


@dataclass(frozen=True, kw_only=True)
class KernelShape:
    """Moments of a kernel's green plane about the LR pixel's centre, HR px."""

    centroid_x_px: float
    centroid_y_px: float
    width_px: float
    """Root of the mean of both variances."""


def kernel_shape(taps: Float64Array) -> KernelShape:
    """Centroid and width of a kernel (C, k, k)."""
    plane = taps[len(taps) // 2]
    offset = np.arange(plane.shape[0]) - (plane.shape[0] - 1) / 2
    total = plane.sum()
    cx = float((plane.sum(0) * offset).sum() / total)
    cy = float((plane.sum(1) * offset).sum() / total)
    variance = (plane.sum(0) * (offset - cx) ** 2).sum() + (plane.sum(1) * (offset - cy) ** 2).sum()
    return KernelShape(
        centroid_x_px=cx,
        centroid_y_px=cy,
        width_px=float(np.sqrt(max(0.0, variance / (2 * total)))),
    )


def solve_taps(
    design: Tensor, target: Tensor, side: int, smoothness: float, ridge: float = 0.0
) -> Float64Array:
    """Least squares for taps (side, side) with Tikhonov smoothing of their gradient.

    Parameters
    ----------
    design : Tensor, shape (n, side * side)
        HR values under each tap, one row per equation.
    target : Tensor, shape (n,)
    side : int
        Taps per side.
    smoothness, ridge : float
        Weights of the squared gradient and of the squared taps, in units of the mean diagonal
        of the normal matrix (3e-3 recovers clean kernels best).
    """
    normal = (design.mT @ design).double().numpy()
    right = (design.mT @ target).double().numpy()
    unit = float(np.trace(normal)) / len(normal)
    difference = np.diff(np.eye(side), axis=0)
    line = difference.T @ difference
    gradient = np.kron(line, np.eye(side)) + np.kron(np.eye(side), line)
    system = normal + unit * (smoothness * gradient + ridge * np.eye(side * side))
    taps: Float64Array = linalg.solve(system, right, assume_a="pos").reshape(side, side)
    return taps
