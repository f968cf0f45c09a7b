"""The stages that keep the image's size: stain, lateral colour, light, tone, noise, seams, JPEG."""

import math
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor

from wsisr.degradation.blur import pad_mirror, sample_axis
from wsisr.degradation.jpeg import jpeg
from wsisr.degradation.stage import (
    Amount,
    Context,
    Quality,
    Sigma,
    Stage,
    Triple,
    amount_field,
    register_degradation,
    within,
)
from wsisr.device import upload
from wsisr.resize import to_grey

_HED = np.array(((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)))
"""Optical density of haematoxylin, eosin and DAB in R, G, B (Ruifrok and Johnston 2001)."""


@register_degradation
class Stain(Stage):
    """Haematoxylin, eosin and residual in optical density: gain and offset per stain."""

    rank: ClassVar[int] = 10
    always_random: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "light": {"gain": 0.05, "offset_od": 0.01},
        "strong": {"gain": 0.3, "offset_od": 0.03},
    }
    kind: Literal["stain"] = "stain"
    gain: float = Field(default=0.15, ge=0.0, le=0.9, description="largest relative change")
    offset_od: float = Field(default=0.02, ge=0.0, le=0.5, description="largest offset, OD")

    def apply(self, x: Tensor, context: Context) -> Tensor:
        basis = _HED / np.linalg.norm(_HED, axis=1, keepdims=True)
        drawn = context.draws.uniforms("stain", 6).to(x.dtype) * 2.0 - 1.0
        gain = 1.0 + self.gain * drawn[:, :3]
        offset = self.offset_od * drawn[:, 3:]
        to_stain = upload(np.linalg.inv(basis), x.device, x.dtype)
        to_density = upload(basis, x.device, x.dtype)
        density = -torch.log10(x.clamp(1.0, 255.0) / 255.0)
        # unmix, scale, mix again: one 3 x 3 matrix per sample.
        matrix = to_stain @ (gain[:, :, None] * to_density)
        shift = offset @ to_density
        changed = torch.einsum("bchw,bcd->bdhw", density, matrix) + shift[:, :, None, None]
        return (255.0 * torch.pow(10.0, -changed)).clamp(0.0, 255.0)


@register_degradation
class Chroma(Stage):
    """Lateral colour: red and blue shifted and magnified against green."""

    rank: ClassVar[int] = 20
    always_random: ClassVar[bool] = True
    kind: Literal["chroma"] = "chroma"
    shift_px: Annotated[Amount, AfterValidator(within(0.0, 20.0))] = amount_field(
        0, 20, "length of the shift, HR px; its direction is drawn", (0.0, 1.0)
    )
    magnification: float = Field(
        default=5e-4, ge=0.0, le=0.05, description="largest relative change"
    )

    def apply(self, x: Tensor, context: Context) -> Tensor:
        length = context.amount(self.shift_px, "shift_px")[:, None]
        angle = 2.0 * math.pi * context.draws.uniforms("angle", 2)
        zoom = self.magnification * (context.draws.uniforms("magnification", 2) * 2.0 - 1.0)
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


@register_degradation
class Illumination(Stage):
    """Uneven light: a second-order polynomial gain over the image.

    It is applied on the LR grid; on so smooth a field that equals lighting the scene.
    """

    rank: ClassVar[int] = 40
    always_random: ClassVar[bool] = True
    kind: Literal["illumination"] = "illumination"
    strength: Annotated[Amount, AfterValidator(within(0.0, 0.9))] = amount_field(
        0, 0.9, "largest relative change of the gain", (0.0, 0.03)
    )

    def apply(self, x: Tensor, context: Context) -> Tensor:
        height, width = int(x.shape[-2]), int(x.shape[-1])
        v = torch.linspace(-1.0, 1.0, height, device=x.device, dtype=x.dtype)[:, None]
        u = torch.linspace(-1.0, 1.0, width, device=x.device, dtype=x.dtype)[None, :]
        terms = torch.stack(
            [
                t.expand(height, width)
                for t in (u + 0 * v, v + 0 * u, u * u + 0 * v, u * v, v * v + 0 * u)
            ]
        )
        weights = context.draws.uniforms("light", 5) * 2.0 - 1.0
        field = torch.einsum("bt,thw->bhw", weights, terms)
        field = field - field.mean((1, 2), keepdim=True)
        largest = field.abs().amax((1, 2), keepdim=True).clamp_min(1e-6)
        strength = context.amount(self.strength, "strength")[:, None, None]
        return x * (1.0 + strength * field / largest)[:, None]


@register_degradation
class Colour(Stage):
    """White balance and tone: ``255 (gain x / 255 + offset / 255) ^ gamma`` per channel."""

    rank: ClassVar[int] = 45
    kind: Literal["colour"] = "colour"
    gain: Triple = Field(default=(1.0, 1.0, 1.0))
    offset: Triple = Field(default=(0.0, 0.0, 0.0), description="grey levels")
    gamma: float = Field(default=1.0, gt=0.1, lt=10.0)

    def apply(self, x: Tensor, context: Context) -> Tensor:
        return colour(x, self.gain, self.offset, self.gamma)


@register_degradation
class Sensor(Stage):
    """Shot and read noise: variance = x 255 / full well + read^2, x in grey levels."""

    rank: ClassVar[int] = 50
    always_random: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "random": {"full_well_e": (3000.0, 12000.0), "read_levels": (0.5, 2.0)}
    }
    kind: Literal["sensor"] = "sensor"
    full_well_e: Annotated[Amount, AfterValidator(within(1.0, 1e9))] = amount_field(
        1, 1e9, "electrons at 255", 8000.0
    )
    read_levels: Sigma = amount_field(0, 50, "read noise, grey levels", 1.0)
    bayer: bool = Field(default=False, description="sample through an RGGB mosaic and demosaic")

    def apply(self, x: Tensor, context: Context) -> Tensor:
        full_well = context.amount(self.full_well_e, "full_well_e")[:, None, None, None]
        read = context.amount(self.read_levels, "read_levels")[:, None, None, None]
        x = x.clamp(0.0, 255.0)
        deviation = torch.sqrt(x * (255.0 / full_well) + read * read)
        noisy = x + deviation * context.draws.normals("noise", tuple(x.shape[1:]))
        return _bayer(noisy) if self.bayer else noisy


@register_degradation
class Stitch(Stage):
    """A stitching seam: beyond a drawn line the image is displaced. For robustness sets."""

    rank: ClassVar[int] = 60
    always_random: ClassVar[bool] = True
    kind: Literal["stitch"] = "stitch"
    shift_px: Annotated[Amount, AfterValidator(within(0.0, 20.0))] = amount_field(
        0, 20, "displacement, LR px; its direction is drawn", (0.5, 3.0)
    )

    def apply(self, x: Tensor, context: Context) -> Tensor:
        length = context.amount(self.shift_px, "shift_px")
        angle = 2.0 * math.pi * context.draws.uniform("angle")
        height, width = int(x.shape[-2]), int(x.shape[-1])
        columns = torch.arange(width, device=x.device, dtype=x.dtype)
        rows = torch.arange(height, device=x.device, dtype=x.dtype)
        moved = sample_axis(x, columns + (length * torch.cos(angle))[:, None, None], -1)
        moved = sample_axis(moved, rows + (length * torch.sin(angle))[:, None, None], -2)
        place = context.draws.uniform("place", 0.1, 0.9)[:, None, None, None]
        upright = (context.draws.uniform("upright") < 0.5)[:, None, None, None]
        beyond = torch.where(upright, columns >= place * width, rows[:, None] >= place * height)
        return torch.where(beyond, moved, x)


@register_degradation
class Jpeg(Stage):
    """JPEG as libjpeg does it, bit for bit."""

    rank: ClassVar[int] = 70
    presets: ClassVar[dict[str, dict[str, Any]]] = {"random": {"quality": (60.0, 95.0)}}
    kind: Literal["jpeg"] = "jpeg"
    quality: Quality = amount_field(1, 100, "libjpeg quality", 80.0)
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"

    def apply(self, x: Tensor, context: Context) -> Tensor:
        quality = context.amount(self.quality, "quality")
        return jpeg(to_grey(x), quality, self.subsampling).float()


def colour(x: Tensor, gain: Triple, offset: Triple, gamma: float) -> Tensor:
    """``255 (gain x / 255 + offset / 255) ^ gamma`` per channel, clamped at black."""
    factor = upload(gain, x.device, x.dtype)[:, None, None]
    shift = upload(offset, x.device, x.dtype)[:, None, None]
    x = x * factor + shift
    return x if gamma == 1.0 else 255.0 * (x.clamp_min(0.0) / 255.0) ** gamma


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
