"""RDN: dense blocks with local and global feature fusion.

Zhang, Tian, Kong, Zhong, Fu. Residual dense network for image super-resolution. CVPR 2018
(arXiv 1802.08797).

`paper` is the configuration of 16 blocks of 8 layers with growth 64, as in the released code
("B"); its body is the RDN encoder of LIIF, LTE and ISTE (21,973,952 parameters). No mean is
subtracted, as there; its files hold weights for grey levels of 0 to 255 without saying so
(``wsisr models import --range``).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wsisr.models.info import Traits
from wsisr.models.layers.blocks import conv3, pixel_shuffle_steps, run
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import at_least_one, later, require
from wsisr.models.wrapper import FixedScaleModel


@dataclass(frozen=True, kw_only=True)
class RdnSettings:
    """Channels of the trunk, dense blocks, layers in each, channels that each layer adds.

    `up_width` is the width of the upsampler where it is not that of the trunk (the released code
    gives it the growth: 32 in configuration "A").
    """

    width: int = 64
    blocks: int = 16
    layers: int = 8
    growth: int = 64
    up_width: int = later(0)

    def __post_init__(self) -> None:
        at_least_one(self, "rdn", "width", "blocks", "layers", "growth")
        require(self.up_width >= 0, "rdn: up_width must be at least 0")


class DenseLayer(nn.Module):
    """Convolution and ReLU, concatenated to the input."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(conv3(inputs, growth), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.conv(x)), dim=1)


class ResidualDenseBlock(nn.Module):
    """Dense layers, 1x1 local feature fusion, plus the input."""

    def __init__(self, settings: RdnSettings) -> None:
        super().__init__()
        s = settings
        self.convs = nn.Sequential(
            *(DenseLayer(s.width + i * s.growth, s.growth) for i in range(s.layers))
        )
        self.LFF = nn.Conv2d(s.width + s.layers * s.growth, s.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.LFF(self.convs(x))


class RdnBody(nn.Module):
    """(N, 3, h, w) -> features (N, width, h, w)."""

    checkpointing = False

    def __init__(self, settings: RdnSettings) -> None:
        super().__init__()
        s = settings
        self.out_channels = s.width
        self.SFENet1 = conv3(3, s.width)
        self.SFENet2 = conv3(s.width, s.width)
        self.RDBs = nn.ModuleList(ResidualDenseBlock(s) for _ in range(s.blocks))
        self.GFF = nn.Sequential(nn.Conv2d(s.blocks * s.width, s.width, 1), conv3(s.width, s.width))

    def forward(self, rgb: Tensor) -> Tensor:
        shallow = self.SFENet1(rgb)
        x = self.SFENet2(shallow)
        stages = []
        for block in self.RDBs:
            x = run(block, self.checkpointing, x)
            stages.append(x)
        return shallow + self.GFF(torch.cat(stages, dim=1))


class Rdn(RdnBody):
    """The whole network, with pixel-shuffle upsampling."""

    def __init__(self, settings: RdnSettings, scale: int) -> None:
        super().__init__(settings)
        width = settings.up_width or settings.width
        steps = pixel_shuffle_steps(width, scale, inputs=settings.width)
        self.UPNet = nn.Sequential(*steps, conv3(width, 3))

    def forward(self, lr: Tensor) -> Tensor:
        out: Tensor = self.UPNet(super().forward(lr))
        return out


def body_reach_px(settings: RdnSettings) -> int:
    """LR px that one output feature depends on, to each side."""
    return settings.blocks * settings.layers + 3


def _build(settings: RdnSettings, scale: int) -> FixedScaleModel:
    traits = Traits(
        halo_px=body_reach_px(settings) + 2, halo_exact=True, tile_px=192, channels_last=True
    )
    return FixedScaleModel(Rdn(settings, scale), traits, scale)


SPEC = register(
    ModelSpec(
        name="rdn",
        summary="residual dense blocks with global feature fusion",
        citation="Zhang et al., Residual dense network for image super-resolution, CVPR 2018",
        settings=RdnSettings,
        presets={
            "paper": lambda scale: RdnSettings(),
            "recommended": lambda scale: RdnSettings(),
            "tiny": lambda scale: RdnSettings(width=24, blocks=2, layers=3, growth=16),
        },
        build=_build,
    )
)
