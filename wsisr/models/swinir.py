"""SwinIR: residual groups of shifted-window transformer layers.

Liang, Cao, Sun, Zhang, Van Gool, Timofte. SwinIR: image restoration using Swin transformer.
ICCVW 2021 (arXiv 2108.10257).

Parameter names are those of the released networks, so their weights load (also the files of
LTE and ISTE, whose encoder is this body without the upsampler). Readings and deviations:
padding inside is cropped from the *features*, so an encoder's features always belong to the
pixels they stand on (the released code returns padded features); stochastic depth 0.1 only in
`official`; the mean is a buffer; the shift mask is built on the device each forward pass.
`upsampler="direct"` is the lightweight head (one convolution and pixel shuffle), `"nearest"` that
of the real-world files (nearest enlargement and convolutions); it has one step for each factor 2 or
3, the released class has two for x4 and one for any other scale.
"""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.models.info import Traits
from wsisr.models.layers.attention import (
    DropPath,
    Mlp,
    PatchNorm,
    WindowAttention,
    init_transformer,
    relative_index,
    shift_mask,
)
from wsisr.models.layers.blocks import (
    DIV2K_MEAN,
    STAIN_MEAN,
    RgbMean,
    conv3,
    pixel_shuffle_steps,
    run,
    upsample_factors,
)
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import later, require
from wsisr.models.wrapper import FixedScaleModel, pad_to_multiple


@dataclass(frozen=True, kw_only=True)
class SwinirSettings:
    """Shape of the network.

    Attributes
    ----------
    width : int
        Channels of the tokens.
    groups, depth, heads : int
        Residual groups, layers in each, attention heads.
    window_px : int
        Side of an attention window in LR px.
    mlp_ratio : float
        Hidden width of each MLP over `width`.
    drop_path : float
        Largest probability of stochastic depth, reached linearly at the last layer.
    head_width : int
        Channels between trunk and upsampler.
    upsampler : {"classical", "direct", "nearest"}
        Pixel shuffle in steps with convolutions between, or in one step; or nearest enlargement in
        steps, each followed by a convolution.
    rgb_mean : tuple of float
        Subtracted before and added after.
    group_conv : {"1conv", "3conv"}
        Convolution at the end of each group and of the body: one of 3x3, or a bottleneck of three
        at a quarter of the width (the large real-world files).
    """

    width: int = 180
    groups: int = 6
    depth: int = 6
    heads: int = 6
    window_px: int = 8
    mlp_ratio: float = 2.0
    drop_path: float = 0.0
    head_width: int = 64
    upsampler: Literal["classical", "direct", "nearest"] = "classical"
    rgb_mean: tuple[float, float, float] = DIV2K_MEAN
    group_conv: Literal["1conv", "3conv"] = later("1conv")

    def __post_init__(self) -> None:
        require(
            self.width % self.heads == 0,
            f"swinir: width {self.width} is not a multiple of heads {self.heads}",
        )
        require(
            min(self.groups, self.depth) >= 1 and self.window_px >= 2,
            "swinir: groups and depth must be at least 1, window_px at least 2",
        )


class SwinLayer(nn.Module):
    """Window attention and MLP, each with pre-norm and residual, on (B, H, W, C)."""

    def __init__(self, s: SwinirSettings, shifted: bool, drop: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(s.width)
        self.attn = WindowAttention(s.width, s.heads, s.window_px, shifted)
        self.drop_path = DropPath(drop)
        self.norm2 = nn.LayerNorm(s.width)
        self.mlp = Mlp(s.width, int(s.width * s.mlp_ratio))

    def forward(self, x: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), index, mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class SwinLayers(nn.Module):
    """The layers of one group."""

    checkpointing = False

    def __init__(self, s: SwinirSettings, drops: list[float]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinLayer(s, shifted=i % 2 == 1, drop=drop) for i, drop in enumerate(drops)
        )

    def forward(self, x: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        for block in self.blocks:
            x = run(block, self.checkpointing, x, index, mask)
        return x


def body_conv(s: SwinirSettings) -> nn.Module:
    """The convolution that closes a group or the body; keys 0, 2, 4 where it is three."""
    if s.group_conv == "1conv":
        return conv3(s.width, s.width)
    narrow = s.width // 4
    return nn.Sequential(
        conv3(s.width, narrow),
        nn.LeakyReLU(0.2),
        nn.Conv2d(narrow, narrow, 1),
        nn.LeakyReLU(0.2),
        conv3(narrow, s.width),
    )


class SwinGroup(nn.Module):
    """Layers, a convolution, plus the input (RSTB)."""

    def __init__(self, s: SwinirSettings, drops: list[float]) -> None:
        super().__init__()
        self.residual_group = SwinLayers(s, drops)
        self.conv = body_conv(s)

    def forward(self, x: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        y = self.residual_group(x, index, mask)
        return x + self.conv(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class SwinirBody(nn.Module):
    """(N, 3, h, w) -> features (N, head_width, h, w), any h, w; encoder of LIIF, LTE, ISTE."""

    index: Tensor

    def __init__(self, settings: SwinirSettings) -> None:
        super().__init__()
        s = settings
        self.window_px = s.window_px
        self.out_channels = s.head_width
        self.conv_first = conv3(3, s.width)
        self.patch_embed = PatchNorm(s.width)
        total = s.groups * s.depth
        drops = [s.drop_path * i / max(1, total - 1) for i in range(total)]
        self.layers = nn.ModuleList(
            SwinGroup(s, drops[g * s.depth : (g + 1) * s.depth]) for g in range(s.groups)
        )
        self.norm = nn.LayerNorm(s.width)
        self.conv_after_body = body_conv(s)
        if s.upsampler != "direct":
            self.conv_before_upsample = nn.Sequential(
                conv3(s.width, s.head_width), nn.LeakyReLU(0.01)
            )
        self.register_buffer("index", relative_index(s.window_px), persistent=False)
        self.apply(init_transformer)

    def trunk(self, rgb: Tensor) -> Tensor:
        """(N, 3, H, W), sides multiples of the window -> (N, width, H, W)."""
        shallow = self.conv_first(rgb)
        x = self.patch_embed(shallow.permute(0, 2, 3, 1))
        mask = shift_mask(x.shape[1], x.shape[2], self.window_px, x)
        for layer in self.layers:
            x = layer(x, self.index, mask)
        return shallow + self.conv_after_body(self.norm(x).permute(0, 3, 1, 2))

    def forward(self, rgb: Tensor) -> Tensor:
        height, width = rgb.shape[-2:]
        x = self.conv_before_upsample(self.trunk(pad_to_multiple(rgb, self.window_px)))
        return x[..., :height, :width]


class Swinir(SwinirBody):
    """The whole network; input sides must be multiples of the window (the shell pads)."""

    def __init__(self, settings: SwinirSettings, scale: int) -> None:
        super().__init__(settings)
        s = settings
        self.rgb = RgbMean(s.rgb_mean)
        self.direct = s.upsampler == "direct"
        self.steps = upsample_factors(scale) if s.upsampler == "nearest" else ()
        if self.direct:
            self.upsample = nn.Sequential(conv3(s.width, 3 * scale * scale), nn.PixelShuffle(scale))
            return
        if self.steps:
            for i in range(len(self.steps)):
                self.add_module(f"conv_up{i + 1}", conv3(s.head_width, s.head_width))
            self.conv_hr = conv3(s.head_width, s.head_width)
        else:
            self.upsample = nn.Sequential(*pixel_shuffle_steps(s.head_width, scale))
        self.conv_last = conv3(s.head_width, 3)

    def forward(self, lr: Tensor) -> Tensor:
        x = self.trunk(self.rgb.remove(lr))
        if self.direct:
            return self.rgb.restore(self.upsample(x))
        x = self.conv_before_upsample(x)
        if not self.steps:
            return self.rgb.restore(self.conv_last(self.upsample(x)))
        for i, step in enumerate(self.steps):
            x = F.interpolate(x, scale_factor=float(step), mode="nearest")
            x = F.leaky_relu(self.get_submodule(f"conv_up{i + 1}")(x), 0.2)
        return self.rgb.restore(self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2)))


def _build(settings: SwinirSettings, scale: int) -> FixedScaleModel:
    traits = Traits(multiple_of_px=settings.window_px, halo_px=32, tile_px=192)
    return FixedScaleModel(Swinir(settings, scale), traits, scale)


SPEC = register(
    ModelSpec(
        name="swinir",
        summary="residual groups of shifted-window transformer layers",
        citation="Liang et al., SwinIR: image restoration using Swin transformer, ICCVW 2021",
        settings=SwinirSettings,
        presets={
            "paper": lambda scale: SwinirSettings(),
            "official": lambda scale: SwinirSettings(drop_path=0.1),
            "recommended": lambda scale: SwinirSettings(),
            "tiny": lambda scale: SwinirSettings(
                width=32, groups=2, depth=2, heads=4, head_width=32, rgb_mean=STAIN_MEAN
            ),
        },
        build=_build,
    )
)
