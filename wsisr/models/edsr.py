"""EDSR: residual blocks without normalisation.

Lim, Son, Kim, Nah, Lee. Enhanced deep residual networks for single image super-resolution.
CVPRW 2017 (arXiv 1707.02921).

`paper` is the large network (32 blocks of 256 channels, residuals scaled by 0.1); `recommended`
the paper's baseline (16 x 64), which is also the encoder that LIIF, LTE and ISTE compare.
Released files do not say how residuals are scaled: it is taken from the width. The mean shift is
a constant here (released code: two frozen 1x1 convolutions).
"""

from dataclasses import dataclass

from torch import Tensor, nn

from wsisr.models.info import Traits
from wsisr.models.layers.blocks import (
    DIV2K_MEAN,
    STAIN_MEAN,
    Chain,
    ResidualBlock,
    RgbMean,
    conv3,
    pixel_shuffle_steps,
)
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import at_least_one
from wsisr.models.wrapper import FixedScaleModel


@dataclass(frozen=True, kw_only=True)
class EdsrSettings:
    """Width in channels, number of residual blocks, scale of each residual, RGB mean."""

    width: int = 64
    blocks: int = 16
    res_scale: float = 1.0
    rgb_mean: tuple[float, float, float] = DIV2K_MEAN

    def __post_init__(self) -> None:
        at_least_one(self, "edsr", "width", "blocks")


class EdsrBody(nn.Module):
    """(N, 3, h, w) -> features (N, width, h, w); the encoder of the arbitrary-scale models."""

    def __init__(self, settings: EdsrSettings) -> None:
        super().__init__()
        s = settings
        self.out_channels = s.width
        self.head = nn.Sequential(conv3(3, s.width))
        blocks: list[nn.Module] = [ResidualBlock(s.width, s.res_scale) for _ in range(s.blocks)]
        self.body = Chain(*blocks, conv3(s.width, s.width))

    def forward(self, rgb: Tensor) -> Tensor:
        x = self.head(rgb)
        return x + self.body(x)


class Edsr(EdsrBody):
    """The whole network, with pixel-shuffle upsampling."""

    def __init__(self, settings: EdsrSettings, scale: int) -> None:
        super().__init__(settings)
        self.rgb = RgbMean(settings.rgb_mean)
        width = settings.width
        self.tail = nn.Sequential(
            nn.Sequential(*pixel_shuffle_steps(width, scale)), conv3(width, 3)
        )

    def forward(self, lr: Tensor) -> Tensor:
        return self.rgb.restore(self.tail(super().forward(self.rgb.remove(lr))))


def body_reach_px(settings: EdsrSettings) -> int:
    """LR px that one output feature depends on, to each side."""
    return 2 * settings.blocks + 2


def _build(settings: EdsrSettings, scale: int) -> FixedScaleModel:
    traits = Traits(
        halo_px=body_reach_px(settings) + 2, halo_exact=True, tile_px=192, channels_last=True
    )
    return FixedScaleModel(Edsr(settings, scale), traits, scale)


SPEC = register(
    ModelSpec(
        name="edsr",
        summary="residual blocks without normalisation",
        citation="Lim et al., Enhanced deep residual networks for single image SR, CVPRW 2017",
        settings=EdsrSettings,
        presets={
            "paper": lambda scale: EdsrSettings(width=256, blocks=32, res_scale=0.1),
            "recommended": lambda scale: EdsrSettings(),
            "tiny": lambda scale: EdsrSettings(width=32, blocks=4, rgb_mean=STAIN_MEAN),
        },
        build=_build,
    )
)
