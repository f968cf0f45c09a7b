"""DCANet: RCAN whose channel attentions are connected.

Ma, Guo, Tang, Qiao, Chen, Yang, Fu. DCANet: learning connected attentions for convolutional
neural networks. arXiv 2007.05099, 2020.

That paper is about classification; the table of MASRGAN's paper names a super-resolution network
after it without defining it. Reading here: RCAN (whose blocks are what such attentions are put
into), with each gate's descriptor (the channel means) added to the transformed descriptor of the
block before, through all groups; the connection has no parameters, so the count is RCAN's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wsisr.models.info import Traits
from wsisr.models.layers.blocks import STAIN_MEAN, RgbMean, conv3, pixel_shuffle_steps, run
from wsisr.models.rcan import RcanSettings
from wsisr.models.registry import ModelSpec, register
from wsisr.models.wrapper import FixedScaleModel


@dataclass(frozen=True, kw_only=True)
class DcanetSettings(RcanSettings):
    """Those of RCAN."""


class ConnectedBlock(nn.Module):
    """conv - ReLU - conv - connected channel attention, plus the input."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.body = nn.Sequential(conv3(width, width), nn.ReLU(), conv3(width, width))
        self.transform = nn.Sequential(
            nn.Conv2d(width, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, width, 1)
        )

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """`before` is the last block's descriptor (N, C, 1, 1); the new one is the last row."""
        y = self.body(x)
        descriptor = self.transform(y.mean(dim=(-2, -1), keepdim=True) + before)
        out = x + y * descriptor.sigmoid()
        # One tensor for recomputation: the descriptor rides along as an extra row.
        return torch.cat((out, descriptor.expand(-1, -1, 1, x.shape[-1])), dim=-2)


class ConnectedGroup(nn.Module):
    """Blocks and a convolution, plus the input."""

    checkpointing = False

    def __init__(self, s: DcanetSettings) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ConnectedBlock(s.width, s.reduction) for _ in range(s.blocks))
        self.conv = conv3(s.width, s.width)

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        y = x
        for block in self.blocks:
            both = run(block, self.checkpointing, y, before)
            y, before = both[..., :-1, :], both[..., -1:, :1]
        return x + self.conv(y), before


class Dcanet(nn.Module):
    """The whole network."""

    def __init__(self, s: DcanetSettings, scale: int) -> None:
        super().__init__()
        self.rgb = RgbMean(s.rgb_mean)
        self.head = conv3(3, s.width)
        self.groups = nn.ModuleList(ConnectedGroup(s) for _ in range(s.groups))
        self.body_conv = conv3(s.width, s.width)
        self.tail = nn.Sequential(*pixel_shuffle_steps(s.width, scale), conv3(s.width, 3))

    def forward(self, lr: Tensor) -> Tensor:
        x = self.head(self.rgb.remove(lr))
        y, before = x, x.new_zeros(x.shape[0], x.shape[1], 1, 1)
        for group in self.groups:
            y, before = group(y, before)
        return self.rgb.restore(self.tail(x + self.body_conv(y)))


def _build(settings: DcanetSettings, scale: int) -> FixedScaleModel:
    traits = Traits(halo_px=32, tile_px=192, global_context=True, channels_last=True)
    return FixedScaleModel(Dcanet(settings, scale), traits, scale)


SPEC = register(
    ModelSpec(
        name="dcanet",
        summary="RCAN with connected channel attentions (our reading)",
        citation="Ma et al., Learning connected attentions, arXiv 2007.05099, 2020",
        settings=DcanetSettings,
        presets={
            "paper": lambda scale: DcanetSettings(),
            "recommended": lambda scale: DcanetSettings(),
            "tiny": lambda scale: DcanetSettings(
                width=32, groups=2, blocks=2, reduction=8, rgb_mean=STAIN_MEAN
            ),
        },
        build=_build,
    )
)
