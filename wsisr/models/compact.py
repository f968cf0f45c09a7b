"""A compact network: what a small residual network adds to the bicubic enlargement.

The body of EDSR's baseline (Lim et al., CVPRW 2017) on the LR grid, one pixel shuffle (Shi et al.,
CVPR 2016) and a bicubic skip (Kim et al., VDSR, CVPR 2016) around everything, as Real-ESRGAN's
compact networks have a nearest one (Wang et al., ICCVW 2021). It is no network of these papers:
it is the one that ships, made to be fast on a CPU and never worse than the enlargement where
there is nothing to be restored. The last layer starts at zero, so that training begins there.

Blind to how LR was made, such a network shifts what LR shows correctly: coarse structure, nuclei
among it, that even the enlargement keeps. So `anchored` takes one step of back-projection (Irani
and Peleg, CVGIP 1991; learnt in DBPN, Haris et al., CVPR 2018): what SR reduced by the mean of
s x s px lacks of LR is enlarged and added, times a gate in (0, 1) that the network sets for each
LR pixel. It learns to trust a clean reduction and to mistrust blur, noise and compression.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.models.edsr import EdsrBody, EdsrSettings, body_reach_px
from wsisr.models.info import Traits
from wsisr.models.layers.blocks import conv3
from wsisr.models.layers.colour import STAIN_MEAN, RgbMean
from wsisr.models.layers.resample import enlarge
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import later, require
from wsisr.models.wrapper import FixedScaleModel


@dataclass(frozen=True, kw_only=True)
class CompactSettings:
    """Width in channels, number of residual blocks, whether SR is anchored to LR."""

    width: int = 48
    blocks: int = 10
    anchored: bool = later(False)

    def __post_init__(self) -> None:
        require(self.width >= 1 and self.blocks >= 1, "compact: width and blocks are at least 1")

    @property
    def body(self) -> EdsrSettings:
        """The body's settings."""
        return EdsrSettings(width=self.width, blocks=self.blocks)


class Compact(nn.Module):
    """(N, 3, h, w) -> (N, 3, s h, s w)."""

    def __init__(self, settings: CompactSettings, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.rgb = RgbMean(STAIN_MEAN)
        self.body = EdsrBody(settings.body)
        self.tail = conv3(settings.width, 3 * scale * scale)
        self.shuffle = nn.PixelShuffle(scale)
        nn.init.zeros_(self.tail.weight)
        assert self.tail.bias is not None
        nn.init.zeros_(self.tail.bias)
        self.gate = conv3(settings.width, 1) if settings.anchored else None

    def forward(self, lr: Tensor) -> Tensor:
        features = self.body(self.rgb.remove(lr))
        sr = enlarge(lr, self.scale) + self.shuffle(self.tail(features))
        if self.gate is None:
            return sr
        lacking = self.gate(features).sigmoid() * (lr - F.avg_pool2d(sr, self.scale))
        return sr + enlarge(lacking, self.scale)


def _build(settings: CompactSettings, scale: int | None) -> FixedScaleModel:
    assert scale is not None
    # The last layer sees a pixel more, the enlargement of what SR lacks two.
    traits = Traits(
        halo_px=body_reach_px(settings.body) + (3 if settings.anchored else 1),
        halo_exact=True,
        tile_px=192,
        channels_last=True,
    )
    return FixedScaleModel(Compact(settings, scale), traits, scale)


SPEC = register(
    ModelSpec(
        name="compact",
        family="baseline",
        kind="fixed",
        summary="a small residual network on LR, added to bicubic; the network that ships",
        citation="after Lim et al., Enhanced deep residual networks for single image SR, 2017",
        settings=CompactSettings,
        presets={
            "recommended": lambda scale: CompactSettings(anchored=True),
            "tiny": lambda scale: CompactSettings(width=16, blocks=2, anchored=True),
        },
        build=_build,
    )
)
