"""HAT: window attention, channel attention and overlapping cross-attention.

Chen, Wang, Zhou, Qiao, Dong. Activating more pixels in image super-resolution transformer.
CVPR 2023 (arXiv 2205.04437).

Parameter names are those of the released network, whose weights load (the overlap table is
rolled, see `layers.hybrid`). Deviations: the network pads inside (released: the runner does);
stochastic depth 0.1 only in `official`; the RGB mean is a buffer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.models.info import Traits
from wsisr.models.layers.attention import PatchNorm, init_transformer, relative_index, shift_mask
from wsisr.models.layers.blocks import DIV2K_MEAN, STAIN_MEAN, RgbMean, conv3, pixel_shuffle_steps
from wsisr.models.layers.hybrid import (
    AttentionBlocks,
    HybridBlock,
    HybridGroup,
    OverlapAttention,
    extended_px,
    overlap_index,
)
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import later, require
from wsisr.models.wrapper import FixedScaleModel


@dataclass(frozen=True, kw_only=True)
class HatSettings:
    """Shape of the network.

    Attributes
    ----------
    width, groups, depth, heads : int
        Channels, residual groups, blocks in each, attention heads.
    window_px : int
        Side of a window in LR px.
    overlap : float
        Overlapping windows are ``1 + overlap`` times the window.
    mlp_ratio : float
        Hidden width of each MLP over `width`.
    compress, squeeze : int
        Channel reduction of the convolutional branch and of its gate.
    alpha : float
        Weight of the convolutional branch.
    drop_path : float
        Largest probability of stochastic depth.
    head_width : int
        Channels between trunk and upsampler.
    rgb_mean : tuple of float
        Subtracted before and added after.
    image_skip : bool
        Add the bilinearly enlarged input to the output. In no paper: `tiny` has it, so that a few
        hundred steps on a CPU start from a picture instead of from noise.
    """

    width: int = 180
    groups: int = 6
    depth: int = 6
    heads: int = 6
    window_px: int = 16
    overlap: float = 0.5
    mlp_ratio: float = 2.0
    compress: int = 3
    squeeze: int = 30
    alpha: float = 0.01
    drop_path: float = 0.0
    head_width: int = 64
    rgb_mean: tuple[float, float, float] = DIV2K_MEAN
    image_skip: bool = later(False)

    def __post_init__(self) -> None:
        check_hat_shape(self, "hat")


def check_hat_shape(s: HatSettings, name: str) -> None:
    """Raise `ModelError` for a shape that cannot be built."""
    require(s.width % s.heads == 0, f"{name}: width {s.width} is not a multiple of heads {s.heads}")
    require(
        min(s.groups, s.depth, s.compress, s.squeeze) >= 1 and s.window_px >= 2,
        f"{name}: groups, depth, compress and squeeze must be at least 1, window_px at least 2",
    )
    extra = int(s.window_px * s.overlap)
    require(
        s.overlap >= 0 and extra % 2 == 0,
        f"{name}: window_px {s.window_px} times overlap {s.overlap} must be an even number of px",
    )


class HybridNetwork(nn.Module):
    """The trunk and the upsampler around given groups of blocks (HAT, MiHATP).

    Input sides must be multiples of the window; the shell pads.
    """

    index: Tensor
    overlap_index: Tensor

    def __init__(self, s: HatSettings, blocks: list[list[HybridBlock]], scale: int) -> None:
        super().__init__()
        self.window_px = s.window_px
        self.scale = scale
        self.image_skip = s.image_skip
        self.rgb = RgbMean(s.rgb_mean)
        self.conv_first = conv3(3, s.width)
        self.patch_embed = PatchNorm(s.width)
        hidden = int(s.width * s.mlp_ratio)
        self.layers = nn.ModuleList(
            HybridGroup(
                AttentionBlocks(
                    group,
                    OverlapAttention(
                        width=s.width,
                        heads=s.heads,
                        window=s.window_px,
                        overlap=s.overlap,
                        mlp=hidden,
                    ),
                ),
                s.width,
            )
            for group in blocks
        )
        self.norm = nn.LayerNorm(s.width)
        self.conv_after_body = conv3(s.width, s.width)
        self.conv_before_upsample = nn.Sequential(conv3(s.width, s.head_width), nn.LeakyReLU(0.01))
        self.upsample = nn.Sequential(*pixel_shuffle_steps(s.head_width, scale))
        self.conv_last = conv3(s.head_width, 3)
        self.register_buffer("index", relative_index(s.window_px), persistent=False)
        wider = overlap_index(s.window_px, extended_px(s.window_px, s.overlap))
        self.register_buffer("overlap_index", wider, persistent=False)
        self.apply(init_transformer)

    def forward(self, lr: Tensor) -> Tensor:
        shallow = self.conv_first(self.rgb.remove(lr))
        x = self.patch_embed(shallow.permute(0, 2, 3, 1))
        mask = shift_mask(x.shape[1], x.shape[2], self.window_px, x)
        for layer in self.layers:
            x = layer(x, self.index, self.overlap_index, mask)
        x = shallow + self.conv_after_body(self.norm(x).permute(0, 3, 1, 2))
        made = self.conv_last(self.upsample(self.conv_before_upsample(x)))
        if self.image_skip:
            return made + F.interpolate(lr, scale_factor=self.scale, mode="bilinear")
        return self.rgb.restore(made)


def build_groups(
    s: HatSettings,
    third: Callable[[], nn.Module | None] = lambda: None,
    beta: float = 0.0,
    add_normed: bool = False,
) -> list[list[HybridBlock]]:
    """The blocks of all groups; stochastic depth grows linearly through the network.

    `third` makes each block's own further branch, weighted by `beta`.
    """
    total = s.groups * s.depth
    blocks = [
        HybridBlock(
            width=s.width,
            heads=s.heads,
            window=s.window_px,
            shifted=i % s.depth % 2 == 1,
            mlp_hidden=int(s.width * s.mlp_ratio),
            compress=s.compress,
            squeeze=s.squeeze,
            alpha=s.alpha,
            drop=s.drop_path * i / max(1, total - 1),
            third=third(),
            beta=beta,
            add_normed=add_normed,
        )
        for i in range(total)
    ]
    return [blocks[g * s.depth : (g + 1) * s.depth] for g in range(s.groups)]


def _build(settings: HatSettings, scale: int) -> FixedScaleModel:
    s = settings
    traits = Traits(multiple_of_px=s.window_px, halo_px=32, tile_px=64, global_context=True)
    return FixedScaleModel(HybridNetwork(s, build_groups(s), scale), traits, scale)


SPEC = register(
    ModelSpec(
        name="hat",
        summary="window, channel and overlapping cross-attention",
        citation="Chen et al., Activating more pixels in image SR transformer, CVPR 2023",
        settings=HatSettings,
        presets={
            "paper": lambda scale: HatSettings(),
            "official": lambda scale: HatSettings(drop_path=0.1),
            "recommended": lambda scale: HatSettings(),
            "tiny": lambda scale: HatSettings(
                width=32,
                groups=2,
                depth=2,
                heads=4,
                window_px=8,
                squeeze=8,
                head_width=32,
                rgb_mean=STAIN_MEAN,
            ),
        },
        build=_build,
    )
)
