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

`compact-any` is the same network at x4, its output low-passed and sampled as the scale asks: fine
detail that no pixel of the output can show is not aliased into it. Sampling is a cubic convolution
(torch's), which gives the pixels themselves at x4.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.models.edsr import EdsrBody, EdsrSettings, body_reach_px
from wsisr.models.info import Traits
from wsisr.models.layers.blocks import STAIN_MEAN, RgbMean, conv3
from wsisr.models.layers.coordinates import sample_at
from wsisr.models.layers.resample import enlarge
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import at_least_one, later
from wsisr.models.wrapper import ArbitraryScaleModel, FeatureMaps, FixedScaleModel, render_in_chunks

FINEST = 4
"""Scale of the grid that other scales are sampled from."""
LOWPASS_REACH_PX = 6
"""Of that grid; three deviations at x1."""


@dataclass(frozen=True, kw_only=True)
class CompactSettings:
    """Width in channels, number of residual blocks, whether SR is anchored to LR."""

    width: int = 48
    blocks: int = 10
    anchored: bool = later(False)

    def __post_init__(self) -> None:
        at_least_one(self, "compact", "width", "blocks")

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


class CompactAny(Compact):
    """The network at `FINEST`, for any scale."""

    def __init__(self, settings: CompactSettings) -> None:
        super().__init__(settings, FINEST)

    def encode(self, lr: Tensor) -> FeatureMaps:
        """The fine image, (N, 3 x 16, h, w): 4 x 4 px of each colour in the place of one."""
        return (F.pixel_unshuffle(self(lr), FINEST),)

    def decode(self, features: FeatureMaps, lr: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
        """RGB at coordinates, (N, Q, 3); a sample's pixels are of one size, its first."""
        fine = F.pixel_shuffle(features[0], FINEST).to(coord.dtype)
        size = cell.new_tensor(fine.shape[-2:])
        smooth = lowpass(fine, (cell[:, 0] * size / 2).to(coord.dtype))
        return sample_at(smooth, coord, mode="bicubic").to(features[0].dtype)

    def render(
        self,
        features: FeatureMaps,
        lr: Tensor,
        size: tuple[int, int],
        cell: tuple[float, float],
        chunk_px: int,
    ) -> Tensor:
        """Every pixel of an image at once, (N, 3, H, W): the low pass is over all of it."""
        return render_in_chunks(self, features, lr, size, cell, size[0] * size[1])


def lowpass(x: Tensor, step_px: Tensor) -> Tensor:
    """Gaussians that let pass what a coarser grid can show.

    Parameters
    ----------
    x : Tensor, (N, C, H, W)
    step_px : Tensor, (N, 2)
        Distance of the grid's rows and columns in pixels of `x`, of each sample; up to 1 nothing
        is done. The deviation is 0.5 sqrt(step^2 - 1), what turns a pixel's own blur (0.5 px, as
        in SIFT: Lowe, IJCV 2004) into that of the coarser one.
    """
    n, channels, reach = *x.shape[:2], LOWPASS_REACH_PX
    sigma = 0.5 * (step_px.square() - 1).clamp(min=1e-6).sqrt()
    place = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    taps = (-0.5 * (place / sigma[..., None]).square()).exp()
    taps = (taps / taps.sum(-1, keepdim=True)).repeat_interleave(channels, 0)
    wide = F.pad(x, (reach,) * 4, mode="replicate")
    planes = wide.reshape(1, n * channels, *wide.shape[-2:])
    planes = F.conv2d(planes, taps[:, 0, None, :, None], groups=n * channels)
    planes = F.conv2d(planes, taps[:, 1, None, None, :], groups=n * channels)
    return planes.reshape(x.shape)


def _reach_px(settings: CompactSettings) -> int:
    """LR px: the last layer sees a pixel more, the enlargement of what SR lacks two."""
    return body_reach_px(settings.body) + (3 if settings.anchored else 1)


def _build(settings: CompactSettings, scale: int) -> FixedScaleModel:
    traits = Traits(halo_px=_reach_px(settings), halo_exact=True, tile_px=192, channels_last=True)
    return FixedScaleModel(Compact(settings, scale), traits, scale)


def _build_any(settings: CompactSettings, scale: int | None) -> ArbitraryScaleModel:
    # Low pass and cubic convolution reach 6 + 2 px of the fine grid.
    traits = Traits(
        halo_px=_reach_px(settings) + 2,
        halo_exact=True,
        tile_px=192,
        channels_last=True,
        scale_range=(1.0, float(FINEST)),
    )
    return ArbitraryScaleModel(
        CompactAny(settings), traits, cell_clip=False, trained_to=float(FINEST)
    )


PRESETS = {
    "recommended": lambda scale: CompactSettings(anchored=True),
    "tiny": lambda scale: CompactSettings(width=16, blocks=2, anchored=True),
}
CITATION = "after Lim et al., Enhanced deep residual networks for single image SR, 2017"

SPEC = register(
    ModelSpec(
        name="compact",
        summary="a small residual network on LR, added to bicubic; the network that ships",
        citation=CITATION,
        settings=CompactSettings,
        presets=PRESETS,
        build=_build,
    )
)
SPEC_ANY = register(
    ModelSpec(
        name="compact-any",
        kind="arbitrary",
        summary="compact at x4, sampled at any scale; the network that ships",
        citation=CITATION,
        settings=CompactSettings,
        presets=PRESETS,
        build=_build_any,
    )
)
