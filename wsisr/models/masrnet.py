"""MASRNet, and the generator of MASRGAN: residual groups with mix-attention.

Chen, Wang, Jia, Ye. Pathological image super-resolution using mix-attention generative
adversarial network. 2023 (the PathImgSR paper; sections 3.1-3.3).

There is no public code. Readings (silent points and their defaults): 64 channels as in RCAN,
its nearest ancestor; 4 groups of channels, reduction 4 inside each, 3x3 spatial gate; weights
separate for each group; both attended maps summed; shuffle by the number of groups;
equation 3's extra block read as a convolution (`long_conv`), each group ends in one too
(`tail_conv`), both as in RCAN. With one group, channel attention only, reduction 16 and pixel
shuffle, the network *is* RCAN.

Where the text cannot be meant: leaving all attention out of table 2 costs 1.8 dB and more, ten
times what networks of this kind lose by it; the rate "halved every 2000 iterations" leaves 4,000
iterations at 1e-4 in all; LR of 256 px in batches of 16 needs over 200 GiB, so crops must have
been used. PI of tables 1 to 3 needs a trained regressor that cannot be shipped; NIQE stands under
its own name. Pictures "split into grids and fed one by one" are one pass of a PatchGAN.

`paper` upsamples by deconvolution (the paper's only example), `recommended` by pixel shuffle,
which cannot make checkerboards by uneven overlap. Discriminators and losses:
`wsisr.models.adversarial`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.models.info import Traits
from wsisr.models.layers.blocks import (
    DIV2K_MEAN,
    STAIN_MEAN,
    Chain,
    RgbMean,
    conv3,
    deconvolution_steps,
    pixel_shuffle_steps,
)
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import at_least_one, require
from wsisr.models.wrapper import FixedScaleModel


@dataclass(frozen=True, kw_only=True)
class MasrnetSettings:
    """Shape of the network.

    Attributes
    ----------
    width : int
        Channels.
    groups, blocks : int
        Residual overlap blocks (M) and residual mix-attention blocks in each (K).
    attention : {"mix", "channel", "spatial", "none"}
        Which gates a block has (the paper's table 2).
    attention_groups : int
        Groups that the channels are split into (G).
    reduction : int
        Channel reduction of the channel gate inside a group (r).
    spatial_kernel_px : int
        Kernel of the spatial gate.
    tail_conv, long_conv : bool
        Convolution at the end of each group, and of all groups before the long skip.
    rgb_mean : tuple of float
        Subtracted before and added after.
    """

    width: int = 64
    groups: int = 10
    blocks: int = 20
    attention: Literal["mix", "channel", "spatial", "none"] = "mix"
    attention_groups: int = 4
    reduction: int = 4
    spatial_kernel_px: int = 3
    tail_conv: bool = True
    long_conv: bool = True
    upsampler: Literal["deconv", "pixelshuffle"] = "deconv"
    rgb_mean: tuple[float, float, float] = DIV2K_MEAN

    def __post_init__(self) -> None:
        require(
            self.attention_groups >= 1 and self.width % self.attention_groups == 0,
            f"masrnet: width {self.width} is not a multiple of "
            f"attention_groups {self.attention_groups}",
        )
        at_least_one(self, "masrnet", "groups", "blocks", "reduction")
        require(self.spatial_kernel_px % 2 == 1, "masrnet: spatial_kernel_px must be odd")


class MixAttention(nn.Module):
    """Channel and spatial gates in parallel inside groups of channels, then a shuffle.

    Grouped convolutions in place of a loop over groups; ``x ca + x sa`` with broadcast gates, so
    that training keeps the input and the small gates, and no map of gates at full width.
    """

    def __init__(self, s: MasrnetSettings) -> None:
        super().__init__()
        self.groups = s.attention_groups
        self.per_group = s.width // s.attention_groups
        hidden = s.attention_groups * max(1, self.per_group // s.reduction)
        self.channel: nn.Sequential | None = None
        self.spatial: nn.Conv2d | None = None
        if s.attention in ("mix", "channel"):
            self.channel = nn.Sequential(
                nn.Conv2d(s.width, hidden, 1, groups=self.groups),
                nn.ReLU(),
                nn.Conv2d(hidden, s.width, 1, groups=self.groups),
                nn.Sigmoid(),
            )
        if s.attention in ("mix", "spatial"):
            k = s.spatial_kernel_px
            self.spatial = nn.Conv2d(s.width, self.groups, k, padding=k // 2, groups=self.groups)

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        split = (n, self.groups, self.per_group, height, width)
        parts = x.view(split)
        out: Tensor | None = None
        if self.channel is not None:
            gate = self.channel(x.mean(dim=(-2, -1), keepdim=True))
            out = parts * gate.view(n, self.groups, self.per_group, 1, 1)
        if self.spatial is not None:
            gate = self.spatial(x).sigmoid().unsqueeze(2)
            out = parts * gate if out is None else torch.addcmul(out, parts, gate)
        assert out is not None
        return F.channel_shuffle(out.flatten(1, 2), self.groups)


class MixAttentionBlock(nn.Module):
    """conv - ReLU - conv - mix-attention, plus the input (RMAB)."""

    def __init__(self, s: MasrnetSettings) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv3(s.width, s.width), nn.ReLU(), conv3(s.width, s.width)]
        if s.attention != "none":
            layers.append(MixAttention(s))
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class OverlapBlock(nn.Module):
    """Blocks and a convolution, plus the input (ROB)."""

    def __init__(self, s: MasrnetSettings) -> None:
        super().__init__()
        layers: list[nn.Module] = [MixAttentionBlock(s) for _ in range(s.blocks)]
        if s.tail_conv:
            layers.append(conv3(s.width, s.width))
        self.body = Chain(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Masrnet(nn.Module):
    """The whole network."""

    def __init__(self, s: MasrnetSettings, scale: int) -> None:
        super().__init__()
        self.rgb = RgbMean(s.rgb_mean)
        self.head = conv3(3, s.width)
        layers: list[nn.Module] = [OverlapBlock(s) for _ in range(s.groups)]
        if s.long_conv:
            layers.append(conv3(s.width, s.width))
        self.body = nn.Sequential(*layers)
        steps = deconvolution_steps if s.upsampler == "deconv" else pixel_shuffle_steps
        self.upsample = nn.Sequential(*steps(s.width, scale))
        self.tail = conv3(s.width, 3)

    def forward(self, lr: Tensor) -> Tensor:
        x = self.head(self.rgb.remove(lr))
        return self.rgb.restore(self.tail(self.upsample(x + self.body(x))))


def _build(settings: MasrnetSettings, scale: int) -> FixedScaleModel:
    traits = Traits(
        halo_px=32,
        tile_px=128,
        global_context=settings.attention in ("mix", "channel"),
        channels_last=True,
    )
    return FixedScaleModel(Masrnet(settings, scale), traits, scale)


_PRESETS = {
    "paper": lambda scale: MasrnetSettings(),
    "recommended": lambda scale: MasrnetSettings(upsampler="pixelshuffle"),
    "tiny": lambda scale: MasrnetSettings(
        width=32, groups=2, blocks=2, upsampler="pixelshuffle", rgb_mean=STAIN_MEAN
    ),
}
_CITATION = "Chen et al., Pathological image SR using mix-attention GAN, 2023"

SPEC = register(
    ModelSpec(
        name="masrnet",
        family="masrnet",
        summary="residual groups with parallel channel and spatial attention",
        citation=_CITATION,
        settings=MasrnetSettings,
        presets=_PRESETS,
        build=_build,
    )
)

GAN_SPEC = register(
    ModelSpec(
        name="masrgan",
        family="masrgan",
        summary="MASRNet as a generator, trained with PatchGAN and a perceptual loss",
        citation=_CITATION,
        settings=MasrnetSettings,
        presets=_PRESETS,
        build=_build,
    )
)
