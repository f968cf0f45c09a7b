"""RCAN: residual groups of channel-attention blocks.

Zhang, Li, Li, Wang, Zhong, Fu. Image super-resolution using very deep residual channel
attention networks. ECCV 2018 (arXiv 1807.02758).

Constant mean shift (released code: two frozen 1x1 convolutions, not counted in the paper).
"""

from dataclasses import dataclass

from torch import Tensor, nn

from wsisr.models.info import Traits
from wsisr.models.layers.blocks import (
    DIV2K_MEAN,
    STAIN_MEAN,
    Chain,
    ResidualChannelAttentionBlock,
    RgbMean,
    conv3,
    pixel_shuffle_steps,
)
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import at_least_one
from wsisr.models.wrapper import FixedScaleModel


@dataclass(frozen=True, kw_only=True)
class RcanSettings:
    """Width in channels, groups, blocks in each, channel reduction of the gates, RGB mean."""

    width: int = 64
    groups: int = 10
    blocks: int = 20
    reduction: int = 16
    rgb_mean: tuple[float, float, float] = DIV2K_MEAN

    def __post_init__(self) -> None:
        at_least_one(self, "rcan", "width", "groups", "blocks", "reduction")


class ResidualGroup(nn.Module):
    """Blocks and a convolution, plus the input."""

    def __init__(self, settings: RcanSettings) -> None:
        super().__init__()
        s = settings
        blocks: list[nn.Module] = [
            ResidualChannelAttentionBlock(s.width, s.reduction) for _ in range(s.blocks)
        ]
        self.body = Chain(*blocks, conv3(s.width, s.width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Rcan(nn.Module):
    """The whole network."""

    def __init__(self, settings: RcanSettings, scale: int) -> None:
        super().__init__()
        s = settings
        self.rgb = RgbMean(s.rgb_mean)
        self.head = nn.Sequential(conv3(3, s.width))
        self.body = nn.Sequential(
            *(ResidualGroup(s) for _ in range(s.groups)), conv3(s.width, s.width)
        )
        self.tail = nn.Sequential(
            nn.Sequential(*pixel_shuffle_steps(s.width, scale)), conv3(s.width, 3)
        )

    def forward(self, lr: Tensor) -> Tensor:
        x = self.head(self.rgb.remove(lr))
        return self.rgb.restore(self.tail(x + self.body(x)))


def _build(settings: RcanSettings, scale: int) -> FixedScaleModel:
    traits = Traits(halo_px=32, tile_px=192, global_context=True, channels_last=True)
    return FixedScaleModel(Rcan(settings, scale), traits, scale)


SPEC = register(
    ModelSpec(
        name="rcan",
        summary="very deep residual channel attention",
        citation="Zhang et al., Very deep residual channel attention networks, ECCV 2018",
        settings=RcanSettings,
        presets={
            "paper": lambda scale: RcanSettings(),
            "recommended": lambda scale: RcanSettings(),
            "tiny": lambda scale: RcanSettings(
                width=32, groups=2, blocks=2, reduction=8, rgb_mean=STAIN_MEAN
            ),
        },
        build=_build,
    )
)
