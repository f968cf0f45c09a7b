"""The stages that reduce HR to LR: grey levels as float32 in, grey levels as float32 out."""

from collections.abc import Callable
from dataclasses import dataclass
from math import log2
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wsisr.degradation import parameters as p
from wsisr.degradation.blur import convolve, gaussian_blur, pad_mirror, pillow_gaussian
from wsisr.degradation.draws import Draws
from wsisr.degradation.jpeg import jpeg
from wsisr.degradation.optics import blur_by_objective
from wsisr.degradation.realesrgan import realesrgan2
from wsisr.device import upload
from wsisr.errors import DegradationError
from wsisr.resize import resize, to_grey


@dataclass(frozen=True, kw_only=True)
class SamplingContext:
    """What a stage must know beside its own parameters.

    Attributes
    ----------
    size : (int, int)
        LR height and width in px.
    scale : float
        Nominal reduction factor (formulas such as (s - 1) / 2 use it, not the ratio of sizes).
    draws : Draws
        Random numbers of this stage.
    """

    size: tuple[int, int]
    scale: float
    draws: Draws


def amount(value: p.Amount, draws: Draws, name: str) -> Tensor:
    """A parameter as a float32 tensor of shape (1,), or (B,) where it is a range."""
    if isinstance(value, tuple):
        return draws.uniform(name, value[0], value[1])
    return torch.full((1,), value, dtype=torch.float32, device=draws.slots.device)


def highest(value: p.Amount) -> float:
    """Upper end of an amount."""
    return value[1] if isinstance(value, tuple) else value


def sample(stage: p.Stage, x: Tensor, context: SamplingContext) -> Tensor:
    """Apply a sampling stage.

    Parameters
    ----------
    stage : Stage
        One with ``samples`` true.
    x : Tensor, float32, shape (B, 3, H, W)
        Grey levels 0..255.
    context : SamplingContext

    Returns
    -------
    Tensor, float32, shape (B, 3, h, w)
    """
    return _SAMPLERS[stage.kind](stage, x, context)


def _iste(stage: p.Iste, x: Tensor, context: SamplingContext) -> Tensor:
    blurred = pillow_gaussian(to_grey(x), (context.scale - 1.0) / 2.0)
    return resize(blurred, context.size, kernel="pil").float()


def _iste_paper(stage: p.IstePaper, x: Tensor, context: SamplingContext) -> Tensor:
    small = resize(x, context.size).clamp(0, 255)
    sigma = amount(stage.sigma_lr_px, context.draws, "sigma_lr_px")
    return gaussian_blur(small, sigma, highest(stage.sigma_lr_px))


def _iste_halfm(stage: p.IsteHalfM, x: Tensor, context: SamplingContext) -> Tensor:
    sigma = amount(stage.sigma_per_scale, context.draws, "sigma_per_scale") * context.scale
    return resize(
        gaussian_blur(x, sigma, highest(stage.sigma_per_scale) * context.scale), context.size
    )


def _li2021(stage: p.Li2021, x: Tensor, context: SamplingContext) -> Tensor:
    full = (int(x.shape[-2]), int(x.shape[-1]))
    small = resize(to_grey(x), context.size, kernel="pil")
    large = resize(small, full, kernel="bilinear")
    blurred = pillow_gaussian(large, (context.scale - 1.0) / 2.0)
    return resize(blurred, context.size, kernel="pil").float()


def _ftms(stage: p.Ftms, x: Tensor, context: SamplingContext) -> Tensor:
    if context.scale not in (2.0, 4.0, 8.0):
        raise DegradationError(
            f"ftms halves one to three times, so its scale is 2, 4 or 8, not {context.scale:g}."
        )
    grey = to_grey(x)
    for left in range(int(log2(context.scale)) - 1, -1, -1):
        grey = resize(grey, (context.size[0] << left, context.size[1] << left))
    return grey.float()


def _pyramid(stage: p.Pyramid, x: Tensor, context: SamplingContext) -> Tensor:
    raise DegradationError(
        "pyramid is the level stored in the slide and cannot be computed from HR; train and "
        "evaluate on the store's own LR (--lr-source native) or choose another degradation."
    )


def _gaussian(stage: p.Gaussian, x: Tensor, context: SamplingContext) -> Tensor:
    draws = context.draws
    sigma = amount(stage.sigma_px, draws, "sigma_px")
    if stage.aspect == 1.0:
        blurred = gaussian_blur(x, sigma, highest(stage.sigma_px))
    else:
        half = max(2, int(4 * highest(stage.sigma_px) * max(1.0, highest(stage.aspect)) + 1))
        aspect = amount(stage.aspect, draws, "aspect")
        angle = torch.deg2rad(amount(stage.angle_deg, draws, "angle_deg"))
        offset = torch.arange(-half, half + 1, device=x.device, dtype=x.dtype)
        turned = (
            torch.cos(angle)[:, None, None] * offset[None, None, :]
            + torch.sin(angle)[:, None, None] * offset[None, :, None],
            torch.cos(angle)[:, None, None] * offset[None, :, None]
            - torch.sin(angle)[:, None, None] * offset[None, None, :],
        )
        first = sigma.clamp_min(1e-3)[:, None, None]
        second = (sigma * aspect).clamp_min(1e-3)[:, None, None]
        kernel = torch.exp(-0.5 * ((turned[0] / first) ** 2 + (turned[1] / second) ** 2))
        blurred = convolve(x, (kernel / kernel.sum((-1, -2), keepdim=True))[:, None])
    return resize(blurred, context.size, kernel="area")


def _optics(stage: p.Optics, x: Tensor, context: SamplingContext) -> Tensor:
    draws = context.draws
    wavelength = upload(stage.wavelength_nm, x.device, x.dtype) * 1e-3
    blurred = blur_by_objective(
        x,
        na=amount(stage.na, draws, "na"),
        wavelength_um=wavelength,
        defocus_um=amount(stage.defocus_um, draws, "defocus_um"),
        sigma_um=amount(stage.sigma_px, draws, "sigma_px") * stage.um_per_px,
        um_per_px=stage.um_per_px,
    )
    return resize(blurred, context.size, kernel="area")


def _fitted(stage: p.Fitted, x: Tensor, context: SamplingContext) -> Tensor:
    if context.scale != stage.scale:
        raise DegradationError(
            f"This scanner was fitted at scale {stage.scale} and holds there only, not at "
            f"{context.scale:g}; fit it to pairs of that scale."
        )
    kernel = upload(stage.kernel, x.device, x.dtype)
    weights = upload(stage.tone, x.device, x.dtype)
    tone = torch.einsum("ct,bthw->bchw", weights, tone_curve(fitted_linear(x, kernel, stage.scale)))
    if stage.shot > 0 or stage.read_variance > 0:
        variance = stage.shot * tone.clamp(0, 255) + stage.read_variance
        shape = tuple(tone.shape[1:])
        tone = tone + context.draws.normals("noise", shape) * variance.sqrt()
    if stage.quality is None:
        return tone
    return jpeg(to_grey(tone), stage.quality, stage.subsampling).float()


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


def colour(x: Tensor, gain: p.Triple, offset: p.Triple, gamma: float) -> Tensor:
    """``255 (gain x / 255 + offset / 255) ^ gamma`` per channel, clamped at black."""
    factor = upload(gain, x.device, x.dtype)[:, None, None]
    shift = upload(offset, x.device, x.dtype)[:, None, None]
    x = x * factor + shift
    return x if gamma == 1.0 else 255.0 * (x.clamp_min(0.0) / 255.0) ** gamma


def _realesrgan2(stage: p.RealEsrgan2, x: Tensor, context: SamplingContext) -> Tensor:
    return realesrgan2(stage, x, context.size, context.scale, context.draws)


_SAMPLERS: dict[str, Callable[[Any, Tensor, SamplingContext], Tensor]] = {
    "bicubic": lambda stage, x, context: resize(x, context.size),
    "area": lambda stage, x, context: resize(x, context.size, kernel="area"),
    "bilinear": lambda stage, x, context: resize(x, context.size, kernel="bilinear"),
    "nearest": lambda stage, x, context: resize(x, context.size, kernel="nearest"),
    "iste": _iste,
    "iste-paper": _iste_paper,
    "iste-halfm": _iste_halfm,
    "li2021": _li2021,
    "ftms": _ftms,
    "pyramid": _pyramid,
    "gaussian": _gaussian,
    "optics": _optics,
    "realesrgan2": _realesrgan2,
    "fitted": _fitted,
}
