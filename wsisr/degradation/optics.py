"""The optical transfer function of a microscope objective, in and out of focus.

Incoherent imaging through a circular pupil: diffraction-limited transfer times Stokseth's
geometric factor for defocus, times a Gaussian for whatever else blurs (mechanics, relay
optics). The pixel aperture is not part of it; the sampling step adds it.

References
----------
Stokseth, Properties of a defocused optical system, J. Opt. Soc. Am. 59 (1969) 1314-1321.
"""

import math

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from wsisr.degradation.blur import pad_mirror

_RADII = 1024
_MARGIN_PX = 24


def transfer(
    frequency: Tensor, na: Tensor, wavelength_um: Tensor, defocus_um: Tensor, sigma_um: Tensor
) -> Tensor:
    """Transfer at radial frequencies: real, 1 at 0, 0 from the cutoff 2 NA / wavelength on.

    Parameters
    ----------
    frequency : Tensor
        Cycles per um.
    na, wavelength_um, defocus_um, sigma_um : Tensor
        Numerical aperture in air, wavelength, distance from focus and extra Gaussian blur;
        broadcast against `frequency`.
    """
    s = (frequency * wavelength_um / na).clamp(0.0, 2.0)
    half = 0.5 * s
    sharp = (2.0 / math.pi) * (
        torch.acos(half) - half * torch.sqrt((1.0 - half * half).clamp_min(0))
    )
    path = defocus_um.abs() * (1.0 - torch.sqrt(1.0 - na * na))
    a = (4.0 * math.pi) * path / wavelength_um * s * (1.0 - half)
    jinc = torch.where(
        a > 1e-4, 2.0 * torch.special.bessel_j1(a) / a.clamp_min(1e-4), 1.0 - a * a / 8
    )
    return sharp * jinc * torch.exp(-2.0 * (math.pi * sigma_um * frequency) ** 2)


def blur_by_objective(
    x: Tensor,
    *,
    na: Tensor,
    wavelength_um: Tensor,
    defocus_um: Tensor,
    sigma_um: Tensor,
    um_per_px: float,
) -> Tensor:
    """Image HR pixels through an objective, on their own grid.

    Parameters
    ----------
    x : Tensor, floating, shape (B, 3, H, W)
    na, defocus_um, sigma_um : Tensor, shape (1 or B,)
    wavelength_um : Tensor, shape (3,)
    um_per_px : float
        Pixel size of `x`.
    """
    height, width = int(x.shape[-2]), int(x.shape[-1])
    rows, columns = (
        next_fast_len(height + 2 * _MARGIN_PX, True),
        next_fast_len(width + 2 * _MARGIN_PX, True),
    )
    wide = pad_mirror(
        x, _MARGIN_PX, rows - height - _MARGIN_PX, _MARGIN_PX, columns - width - _MARGIN_PX
    )
    # The transfer is radial: evaluated on 1,024 radii, then looked up, it costs next to nothing.
    top = math.sqrt(0.5)
    radii = torch.linspace(0.0, top / um_per_px, _RADII, device=x.device, dtype=x.dtype)
    table = transfer(
        radii,
        na[:, None, None].to(x.dtype),
        wavelength_um[None, :, None].to(x.dtype),
        defocus_um[:, None, None].to(x.dtype),
        sigma_um[:, None, None].to(x.dtype),
    )
    fy = torch.fft.fftfreq(rows, device=x.device, dtype=x.dtype)[:, None]
    fx = torch.fft.rfftfreq(columns, device=x.device, dtype=x.dtype)[None, :]
    place = torch.sqrt(fx * fx + fy * fy) * ((_RADII - 1) / top)
    low = place.floor().long().clamp_(0, _RADII - 2)
    part = place - low
    response = table[..., low] * (1.0 - part) + table[..., low + 1] * part
    result = torch.fft.irfft2(torch.fft.rfft2(wide) * response, s=(rows, columns))
    return result[..., _MARGIN_PX : _MARGIN_PX + height, _MARGIN_PX : _MARGIN_PX + width]
