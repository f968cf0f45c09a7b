"""Li 2021: a residual U-net on the enlarged image (generator alone).

Li, Keikhosravi, Loeffler, Eliceiri. Single image super-resolution for whole slide image using
convolutional neural networks and self-supervised color normalization. Medical Image Analysis 2021.

Layout and parameter count (7,388,122) of the authors' released generator. It takes an image
already enlarged: here the enlargement is the bicubic one inside the network (the authors' is
Pillow's, on files). Its multi-scale adversarial training and curriculum are not built.
"""

from dataclasses import dataclass
from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.models.info import Traits
from wsisr.models.layers.resample import enlarge
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import at_least_one, later
from wsisr.models.wrapper import FixedScaleModel


@dataclass(frozen=True, kw_only=True)
class Li2021Settings:
    """Base channels; the levels have 2, 4, 8 and 16 times as many.

    `image_skip` adds the enlarged input to the output. It is not the authors': `tiny` has it, so
    that a few hundred steps on a CPU start from a picture instead of from noise.
    """

    width: int = 32
    image_skip: bool = later(False)

    def __post_init__(self) -> None:
        at_least_one(self, "li2021", "width")


def _convs(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=1),
        nn.PReLU(),
        nn.Conv2d(outputs, outputs, 1, bias=False),
    )


class Down(nn.Module):
    """Halve the sides: convolutions plus a strided 1x1 skip, PReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = _convs(inputs, outputs, 4, 2)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x) + self.skip(x))


class Up(nn.Module):
    """Double the sides bilinearly, then convolutions plus a 1x1 skip."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = _convs(inputs, outputs, 3, 1)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
        return self.conv(x) + self.skip(x)


class Li2021Generator(nn.Module):
    """The generator; HR sides must be multiples of 16 (the shell pads)."""

    def __init__(self, s: Li2021Settings, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.image_skip = s.image_skip
        w = s.width
        self.down = nn.ModuleList(
            Down(a, b) for a, b in ((3, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w), (8 * w, 16 * w))
        )
        self.skip = nn.ModuleList(_convs(a, 2 * a, 3, 1) for a in (2 * w, 4 * w, 8 * w))
        self.up = nn.ModuleList(
            Up(a, b) for a, b in ((16 * w, 8 * w), (16 * w, 4 * w), (8 * w, 2 * w))
        )
        self.tail = nn.Sequential(nn.Conv2d(4 * w, 12, 1), nn.PixelShuffle(2))

    def forward(self, lr: Tensor) -> Tensor:
        levels = []
        x = enlarged = enlarge(lr, self.scale)
        for down in self.down:
            x = down(x)
            levels.append(x)
        x = levels.pop()
        for up, skip in zip(self.up, reversed(list(self.skip)), strict=True):
            level = levels.pop()
            x = torch.cat((up(x), level), dim=1) + skip(level)
        out: Tensor = self.tail(x)
        return out + enlarged if self.image_skip else out


def _build(settings: Li2021Settings, scale: int) -> FixedScaleModel:
    # align_corners=True stretches with the size of the map: tiles are never exact.
    traits = Traits(
        multiple_of_px=16 // gcd(16, scale),
        halo_px=-(-64 // scale),
        tile_px=-(-224 // scale),
        global_context=True,
        channels_last=True,
    )
    return FixedScaleModel(Li2021Generator(settings, scale), traits, scale)


SPEC = register(
    ModelSpec(
        name="li2021",
        summary="residual U-net on the enlarged image (generator of Li et al.)",
        citation="Li et al., Single image SR for WSI using CNNs, Medical Image Analysis 2021",
        settings=Li2021Settings,
        presets={
            "paper": lambda scale: Li2021Settings(),
            "recommended": lambda scale: Li2021Settings(),
            "tiny": lambda scale: Li2021Settings(width=6, image_skip=True),
        },
        build=_build,
    )
)
