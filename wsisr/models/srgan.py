"""SRGAN's and ESRGAN's generators.

Ledig et al. Photo-realistic single image super-resolution using a generative adversarial network.
CVPR 2017 (arXiv 1609.04802): SRResNet, with batch normalisation and PReLU as published.
Wang et al. ESRGAN: enhanced super-resolution generative adversarial networks. ECCVW 2018 (arXiv
1809.00219): residual-in-residual dense blocks; parameter names of the released network.

Deviations: scales other than 4 by one upsampling step for each factor 2 or 3. `unshuffle` is the
form of Real-ESRGAN's x2 and x1 files (Wang et al., Real-ESRGAN, ICCVW 2021, arXiv 2107.10833): the
x4 network on the input with 2x2 or 4x4 pixels laid into channels. Discriminators and losses are in
`wsisr.models.adversarial`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.models.info import Traits
from wsisr.models.layers.blocks import Chain, conv3, pixel_shuffle_steps, upsample_factors
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import at_least_one, later, require
from wsisr.models.wrapper import FixedScaleModel


@dataclass(frozen=True, kw_only=True)
class SrganSettings:
    """Channels and residual blocks.

    `image_skip` adds the bilinearly enlarged input to the output. It is in no paper: `tiny` has it,
    so that a few hundred steps on a CPU start from a picture instead of from noise.
    """

    width: int = 64
    blocks: int = 16
    image_skip: bool = later(False)

    def __post_init__(self) -> None:
        at_least_one(self, "srgan", "width", "blocks")


class NormedBlock(nn.Module):
    """conv - BN - PReLU - conv - BN, plus the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv3(width, width, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(),
            conv3(width, width, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Srgan(nn.Module):
    """SRResNet."""

    def __init__(self, s: SrganSettings, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.image_skip = s.image_skip
        self.head = nn.Sequential(nn.Conv2d(3, s.width, 9, padding=4), nn.PReLU())
        self.body = Chain(
            *(NormedBlock(s.width) for _ in range(s.blocks)),
            conv3(s.width, s.width, bias=False),
            nn.BatchNorm2d(s.width),
        )
        steps = pixel_shuffle_steps(s.width, scale, act=nn.PReLU)
        self.tail = nn.Sequential(*steps, nn.Conv2d(s.width, 3, 9, padding=4))

    def forward(self, lr: Tensor) -> Tensor:
        x = self.head(lr)
        out: Tensor = self.tail(x + self.body(x))
        if self.image_skip:
            return out + F.interpolate(lr, scale_factor=float(self.scale), mode="bilinear")
        return out


@dataclass(frozen=True, kw_only=True)
class EsrganSettings:
    """Channels, channels that each dense layer adds, and residual-in-residual blocks.

    `unshuffle`: x2 and x1 as the x4 network on an input whose pixels were laid into channels.
    """

    width: int = 64
    growth: int = 32
    blocks: int = 23
    unshuffle: bool = later(False)

    def __post_init__(self) -> None:
        at_least_one(self, "esrgan", "width", "growth", "blocks")


class DenseBlock(nn.Module):
    """Five densely connected convolutions, scaled by 0.2, plus the input."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.conv1 = conv3(width, growth)
        self.conv2 = conv3(width + growth, growth)
        self.conv3 = conv3(width + 2 * growth, growth)
        self.conv4 = conv3(width + 3 * growth, growth)
        self.conv5 = conv3(width + 4 * growth, width)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            nn.init.kaiming_normal_(layer.weight)
            layer.weight.data.mul_(0.1)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat((seen, F.leaky_relu(layer(seen), 0.2)), dim=1)
        return x + 0.2 * self.conv5(seen)


class RrdbBlock(nn.Module):
    """Three dense blocks, scaled by 0.2, plus the input."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(width, growth)
        self.rdb2 = DenseBlock(width, growth)
        self.rdb3 = DenseBlock(width, growth)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class Esrgan(nn.Module):
    """RRDBNet."""

    def __init__(self, s: EsrganSettings, scale: int) -> None:
        super().__init__()
        self.fold = 4 // scale if s.unshuffle else 1
        self.steps = upsample_factors(scale * self.fold)
        self.conv_first = conv3(3 * self.fold**2, s.width)
        self.body = Chain(*(RrdbBlock(s.width, s.growth) for _ in range(s.blocks)))
        self.conv_body = conv3(s.width, s.width)
        for i in range(len(self.steps)):
            self.add_module(f"conv_up{i + 1}", conv3(s.width, s.width))
        self.conv_hr = conv3(s.width, s.width)
        self.conv_last = conv3(s.width, 3)

    def forward(self, lr: Tensor) -> Tensor:
        x = self.conv_first(F.pixel_unshuffle(lr, self.fold))
        x = x + self.conv_body(self.body(x))
        for i, step in enumerate(self.steps):
            x = F.interpolate(x, scale_factor=float(step), mode="nearest")
            x = F.leaky_relu(self.get_submodule(f"conv_up{i + 1}")(x), 0.2)
        out: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))
        return out


def _build_srgan(settings: SrganSettings, scale: int) -> FixedScaleModel:
    traits = Traits(
        halo_px=2 * settings.blocks + 10, halo_exact=True, tile_px=192, channels_last=True
    )
    return FixedScaleModel(Srgan(settings, scale), traits, scale)


def _build_esrgan(settings: EsrganSettings, scale: int) -> FixedScaleModel:
    if settings.unshuffle:
        require(scale in (1, 2, 4), f"esrgan: unshuffle is defined for x1, x2 and x4, not x{scale}")
    else:
        require(scale > 1, "esrgan: x1 is defined with unshuffle=true alone")
    net = Esrgan(settings, scale)
    traits = Traits(
        multiple_of_px=net.fold,
        halo_px=net.fold * (15 * settings.blocks + 5),
        halo_exact=True,
        tile_px=192,
        channels_last=True,
    )
    return FixedScaleModel(net, traits, scale)


SRGAN_SPEC = register(
    ModelSpec(
        name="srgan",
        summary="SRGAN's generator (SRResNet)",
        citation="Ledig et al., Photo-realistic single image SR using a GAN, CVPR 2017",
        settings=SrganSettings,
        presets={
            "paper": lambda scale: SrganSettings(),
            "recommended": lambda scale: SrganSettings(),
            "tiny": lambda scale: SrganSettings(width=32, blocks=3, image_skip=True),
        },
        build=_build_srgan,
    )
)

ESRGAN_SPEC = register(
    ModelSpec(
        name="esrgan",
        summary="ESRGAN's generator (RRDBNet)",
        citation="Wang et al., ESRGAN, ECCVW 2018",
        settings=EsrganSettings,
        presets={
            "paper": lambda scale: EsrganSettings(),
            "recommended": lambda scale: EsrganSettings(),
            "tiny": lambda scale: EsrganSettings(width=32, growth=16, blocks=1),
        },
        build=_build_esrgan,
        smallest=1,
    )
)
