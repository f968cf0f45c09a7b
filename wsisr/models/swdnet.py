"""SWD-Net: a spatial stage at LR size and a wavelet stage at HR size; x2.

Chen, Guo, Yang, Ibragimov, Yuan. Joint spatial-wavelet dual-stream network for super-resolution.
MICCAI 2020 (the histology network of HistoSR).

Layout of the authors' code. One deviation, which the paper asks for: the context fusion (RCF, its
equation 1) *adds* the context of the other stream. The released code computes it and drops it, so
that half of its wavelet stage never reaches the output. Left out are layers that the released code
never calls (4,522 of its 3,158,424 parameters). `forward` gives the image; `Swdnet.stages` also
gives what its other losses compare (sum of wavelet, 0.1 spatial and 0.1 intermediate terms).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.models.info import Traits
from wsisr.models.layers.blocks import conv3
from wsisr.models.layers.wavelet import haar, inverse_haar
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import at_least_one, require
from wsisr.models.wrapper import FixedScaleModel


@dataclass(frozen=True, kw_only=True)
class SwdnetSettings:
    """Shape of both stages.

    Attributes
    ----------
    width : int
        Channels of the spatial stage.
    modules, blocks : int
        Dual-stream modules, and residual blocks of each stream in each of their three parts.
    wavelet_width : int
        Channels of the wavelet stage's upper stream (the lower has four times as many).
    """

    width: int = 32
    modules: int = 2
    blocks: int = 4
    wavelet_width: int = 24

    def __post_init__(self) -> None:
        at_least_one(self, "swdnet", "width", "modules", "blocks", "wavelet_width")
        even = self.width % 2 == self.wavelet_width % 2 == 0
        require(even, "swdnet: both widths must be even")


class ContextFusion(nn.Module):
    """Recalibrated features plus the other stream's context (RCF, eq. 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.gate = nn.Sequential(
            nn.Linear(width, half), nn.ReLU(), nn.Linear(half, width), nn.Sigmoid()
        )
        self.mask = nn.Conv2d(width, 1, 1)
        self.context = nn.Sequential(
            nn.Conv2d(width, half, 1), nn.ReLU(), nn.Conv2d(half, width, 1)
        )
        last = self.context[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, own: Tensor, other: Tensor) -> Tensor:
        attention = self.mask(own).flatten(2).softmax(dim=-1)
        pooled = (other.flatten(2) @ attention.transpose(1, 2)).unsqueeze(-1)
        gate = self.gate(own.mean(dim=(-2, -1)))[..., None, None]
        return own * gate + self.context(pooled)


class PreluBlock(nn.Module):
    """conv - PReLU - conv, plus the input, PReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = conv3(width, width)
        self.relu1 = nn.PReLU(width)
        self.conv2 = conv3(width, width)
        self.relu2 = nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu2(x + self.conv2(self.relu1(self.conv1(x))))


class ParallelPart(nn.Module):
    """Residual blocks in both streams, then exchange of context; `last` keeps the upper stream."""

    def __init__(self, width: int, blocks: int, last: bool) -> None:
        super().__init__()
        self.upper = nn.Sequential(*(PreluBlock(width) for _ in range(blocks)))
        self.lower = nn.Sequential(*(PreluBlock(width) for _ in range(blocks)))
        self.lower_to_upper = nn.Conv2d(width, width, 1)
        self.fuse_upper = ContextFusion(width)
        self.upper_to_lower = None if last else nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.fuse_lower = None if last else ContextFusion(width)

    def forward(self, upper: Tensor, lower: Tensor) -> tuple[Tensor, Tensor]:
        upper, lower = self.upper(upper), self.lower(lower)
        raised = F.interpolate(self.lower_to_upper(lower), scale_factor=2.0, mode="nearest")
        out = F.leaky_relu(self.fuse_upper(upper, raised), 0.1)
        if self.upper_to_lower is not None and self.fuse_lower is not None:
            lower = F.leaky_relu(self.fuse_lower(lower, self.upper_to_lower(upper)), 0.1)
        return out, lower


class DualStream(nn.Module):
    """Full- and half-resolution streams in three parts, plus the input."""

    def __init__(self, s: SwdnetSettings) -> None:
        super().__init__()
        self.enter = nn.Sequential(
            nn.Conv2d(s.width, s.width, 3, stride=2, padding=1), nn.PReLU(s.width)
        )
        self.parts = nn.ModuleList(ParallelPart(s.width, s.blocks, last=i == 2) for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        upper, lower = x, self.enter(x)
        for part in self.parts:
            upper, lower = part(upper, lower)
        return x + upper


class SpatialStage(nn.Module):
    """LR to a first SR image (x2)."""

    def __init__(self, s: SwdnetSettings) -> None:
        super().__init__()
        w = s.width
        self.head = nn.Sequential(
            conv3(3, 2 * w),
            nn.PReLU(2 * w),
            PreluBlock(2 * w),
            conv3(2 * w, w),
            nn.PReLU(w),
            PreluBlock(w),
        )
        self.streams = nn.ModuleList(DualStream(s) for _ in range(s.modules))
        self.merge = nn.Sequential(conv3(s.modules * w, w), nn.PReLU(w))
        self.tail = nn.Sequential(
            conv3(w, 4 * w),
            nn.PixelShuffle(2),
            conv3(w, w),
            nn.PReLU(w),
            nn.Conv2d(w, w, 1),
            nn.PReLU(w),
            conv3(w, 3),
        )

    def forward(self, lr: Tensor) -> Tensor:
        x = self.head(lr)
        stages = []
        for stream in self.streams:
            x = stream(x)
            stages.append(x)
        out = self.tail(self.merge(torch.cat(stages, dim=1)))
        return out + F.interpolate(lr, scale_factor=2.0, mode="nearest")


class Adaptation(nn.Module):
    """Bands weighted by a gate in (-1, 1) on their means (WFA)."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(bands, bands // 2),
            nn.PReLU(bands // 2),
            nn.Linear(bands // 2, bands),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean(dim=(-2, -1)))[..., None, None]


class WaveletAware(nn.Module):
    """Four kernels shaped like the bands, summed (WAC)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()

        def conv(a: int, kernel: tuple[int, int]) -> list[nn.Module]:
            pad = (kernel[0] // 2, kernel[1] // 2)
            return [nn.Conv2d(a, outputs, kernel, padding=pad), nn.PReLU(outputs)]

        self.low = nn.Sequential(*conv(inputs, (3, 3)))
        self.horizontal = nn.Sequential(*conv(inputs, (1, 3)), *conv(outputs, (1, 3)))
        self.vertical = nn.Sequential(*conv(inputs, (3, 1)), *conv(outputs, (3, 1)))
        self.diagonal = nn.Sequential(*conv(inputs, (3, 3)), *conv(outputs, (3, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.low(x) + self.horizontal(x) + self.vertical(x) + self.diagonal(x)


class WaveletStage(nn.Module):
    """First SR image to the bands of the final one; two streams, one and two levels deep."""

    def __init__(self, s: SwdnetSettings) -> None:
        super().__init__()
        w = s.wavelet_width
        self.adapt_up, self.adapt_down = Adaptation(12), Adaptation(48)
        up = ((12, w, w), (w, w, w), (w, w, 12))
        down = ((48, 4 * w, 4 * w), (4 * w, 4 * w, 4 * w), (4 * w, 4 * w, 48))
        self.up = nn.ModuleList(
            nn.Sequential(WaveletAware(a, b), WaveletAware(b, c)) for a, b, c in up
        )
        self.down = nn.ModuleList(
            nn.Sequential(WaveletAware(a, b), WaveletAware(b, c)) for a, b, c in down
        )
        self.fuse_up = nn.ModuleList(ContextFusion(c) for c in (w, w, 12))
        self.fuse_down = nn.ModuleList(ContextFusion(4 * w) for _ in range(2))
        self.tail = conv3(12, 12)

    def forward(self, rgb: Tensor) -> Tensor:
        bands = haar(rgb)
        up, down = self.adapt_up(bands), self.adapt_down(haar(bands))
        for i in range(3):
            up, down = self.up[i](up), self.down[i](down)
            raised = self.fuse_up[i](up, inverse_haar(down))
            if i < 2:
                down = self.fuse_down[i](down, haar(up))
            up = raised
        return bands + self.tail(up)


class Swdnet(nn.Module):
    """The whole network; LR sides must be even (the shell pads)."""

    def __init__(self, s: SwdnetSettings) -> None:
        super().__init__()
        self.spatial = SpatialStage(s)
        self.wavelet = WaveletStage(s)

    def stages(self, lr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Final image, its bands, and the spatial stage's image."""
        first = self.spatial(lr)
        bands = self.wavelet(first)
        return inverse_haar(bands), bands, first

    def forward(self, lr: Tensor) -> Tensor:
        return self.stages(lr)[0]


def _build(settings: SwdnetSettings, scale: int | None) -> FixedScaleModel:
    traits = Traits(
        multiple_of_px=2, halo_px=32, tile_px=96, global_context=True, channels_last=True
    )
    return FixedScaleModel(Swdnet(settings), traits, 2)


SPEC = register(
    ModelSpec(
        name="swdnet",
        summary="spatial and wavelet dual-stream network; x2 alone",
        citation="Chen et al., Joint spatial-wavelet dual-stream network, MICCAI 2020",
        settings=SwdnetSettings,
        presets={
            "paper": lambda scale: SwdnetSettings(),
            "recommended": lambda scale: SwdnetSettings(),
            "tiny": lambda scale: SwdnetSettings(width=16, modules=1, blocks=1, wavelet_width=12),
        },
        build=_build,
        scales=(2,),
    )
)
