"""The stages that keep the image's size: stain, lateral colour, light, tone, noise, seams, JPEG."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsisr.degradation import parameters as p
from wsisr.degradation.blur import pad_mirror, sample_axis
from wsisr.degradation.draws import Draws
from wsisr.degradation.jpeg import jpeg
from wsisr.degradation.sampling import amount, colour
from wsisr.device import upload
from wsisr.resize import to_grey

_HED = np.array(((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)))
"""Optical density of haematoxylin, eosin and DAB in R, G, B (Ruifrok and Johnston 2001)."""


def modify(stage: p.Stage, x: Tensor, draws: Draws) -> Tensor:
    """Apply a stage that does not sample: float32 grey levels (B, 3, H, W) in and out."""
    return _MODIFIERS[stage.kind](stage, x, draws)


def _stain(stage: p.Stain, x: Tensor, draws: Draws) -> Tensor:
    basis = _HED / np.linalg.norm(_HED, axis=1, keepdims=True)
    drawn = draws.uniforms("stain", 6).to(x.dtype) * 2.0 - 1.0
    gain = 1.0 + stage.gain * drawn[:, :3]
    offset = stage.offset_od * drawn[:, 3:]
    to_stain = upload(np.linalg.inv(basis), x.device, x.dtype)
    to_density = upload(basis, x.device, x.dtype)
    density = -torch.log10(x.clamp(1.0, 255.0) / 255.0)
    # unmix, scale, mix again: one 3 x 3 matrix per sample.
    matrix = to_stain @ (gain[:, :, None] * to_density)
    shift = offset @ to_density
    changed = torch.einsum("bchw,bcd->bdhw", density, matrix) + shift[:, :, None, None]
    return (255.0 * torch.pow(10.0, -changed)).clamp(0.0, 255.0)


def _chroma(stage: p.Chroma, x: Tensor, draws: Draws) -> Tensor:
    length = amount(stage.shift_px, draws, "shift_px")[:, None]
    angle = 2.0 * math.pi * draws.uniforms("angle", 2)
    zoom = stage.magnification * (draws.uniforms("magnification", 2) * 2.0 - 1.0)
    still = torch.zeros_like(angle[:, :1])
    for axis, part in ((-1, torch.cos(angle)), (-2, torch.sin(angle))):
        shift = length * part
        shifts = torch.cat((shift[:, :1], still, shift[:, 1:]), dim=1)
        zooms = torch.cat((zoom[:, :1], still, zoom[:, 1:]), dim=1)
        size = int(x.shape[axis])
        index = torch.arange(size, device=x.device, dtype=x.dtype)
        centre = (size - 1) / 2
        position = index + zooms[..., None] * (index - centre) + shifts[..., None]
        x = sample_axis(x, position, axis)
    return x


def _illumination(stage: p.Illumination, x: Tensor, draws: Draws) -> Tensor:
    height, width = int(x.shape[-2]), int(x.shape[-1])
    v = torch.linspace(-1.0, 1.0, height, device=x.device, dtype=x.dtype)[:, None]
    u = torch.linspace(-1.0, 1.0, width, device=x.device, dtype=x.dtype)[None, :]
    terms = torch.stack(
        [
            t.expand(height, width)
            for t in (u + 0 * v, v + 0 * u, u * u + 0 * v, u * v, v * v + 0 * u)
        ]
    )
    weights = draws.uniforms("light", 5) * 2.0 - 1.0
    field = torch.einsum("bt,thw->bhw", weights, terms)
    field = field - field.mean((1, 2), keepdim=True)
    largest = field.abs().amax((1, 2), keepdim=True).clamp_min(1e-6)
    strength = amount(stage.strength, draws, "strength")[:, None, None]
    return x * (1.0 + strength * field / largest)[:, None]


def _colour(stage: p.Colour, x: Tensor, draws: Draws) -> Tensor:
    return colour(x, stage.gain, stage.offset, stage.gamma)


def _sensor(stage: p.Sensor, x: Tensor, draws: Draws) -> Tensor:
    full_well = amount(stage.full_well_e, draws, "full_well_e")[:, None, None, None]
    read = amount(stage.read_levels, draws, "read_levels")[:, None, None, None]
    x = x.clamp(0.0, 255.0)
    deviation = torch.sqrt(x * (255.0 / full_well) + read * read)
    noisy = x + deviation * draws.normals("noise", tuple(x.shape[1:]))
    return _bayer(noisy) if stage.bayer else noisy


def _bayer(x: Tensor) -> Tensor:
    """Keep one colour per pixel (RGGB) and interpolate the others bilinearly."""
    height, width = int(x.shape[-2]), int(x.shape[-1])
    row = torch.arange(height, device=x.device)[:, None] % 2
    column = torch.arange(width, device=x.device)[None, :] % 2
    masks = torch.stack(((row == 0) & (column == 0), row != column, (row == 1) & (column == 1))).to(
        x.dtype
    )
    taps = upload((0.5, 1.0, 0.5), x.device, x.dtype)
    kernel = (taps[:, None] * taps[None, :]).expand(3, 1, 3, 3)

    def spread(plane: Tensor) -> Tensor:
        return F.conv2d(pad_mirror(plane, 1, 1, 1, 1), kernel, groups=3)

    known = spread(masks.expand(1, 3, height, width)).clamp_min(1e-6)
    return masks * x + (1.0 - masks) * spread(x * masks) / known


def _stitch(stage: p.Stitch, x: Tensor, draws: Draws) -> Tensor:
    length = amount(stage.shift_px, draws, "shift_px")
    angle = 2.0 * math.pi * draws.uniform("angle")
    height, width = int(x.shape[-2]), int(x.shape[-1])
    columns = torch.arange(width, device=x.device, dtype=x.dtype)
    rows = torch.arange(height, device=x.device, dtype=x.dtype)
    moved = sample_axis(x, columns + (length * torch.cos(angle))[:, None, None], -1)
    moved = sample_axis(moved, rows + (length * torch.sin(angle))[:, None, None], -2)
    place = draws.uniform("place", 0.1, 0.9)[:, None, None, None]
    upright = (draws.uniform("upright") < 0.5)[:, None, None, None]
    beyond = torch.where(upright, columns >= place * width, rows[:, None] >= place * height)
    return torch.where(beyond, moved, x)


def _jpeg(stage: p.Jpeg, x: Tensor, draws: Draws) -> Tensor:
    quality = amount(stage.quality, draws, "quality")
    return jpeg(to_grey(x), quality, stage.subsampling).float()


_MODIFIERS: dict[str, Callable[[Any, Tensor, Draws], Tensor]] = {
    "stain": _stain,
    "chroma": _chroma,
    "illumination": _illumination,
    "colour": _colour,
    "sensor": _sensor,
    "stitch": _stitch,
    "jpeg": _jpeg,
}
