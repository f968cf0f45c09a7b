"""MWCNN: a U-net whose poolings are wavelet transforms.

Liu, Zhang, Zhang, Lin, Zuo. Multi-level wavelet-CNN for image restoration. CVPRW 2018 (arXiv
1805.07071).

Readings: the layout of the authors' PyTorch code (three Haar levels, 160 / 256 / 256 channels,
24 convolutions, no normalisation), which is for one grey channel; here the three colour channels
go through one network (12 input bands), as a colour comparison needs. The input is the bicubic
enlargement, to which the network's output is added.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import gcd

from torch import Tensor, nn

from wsisr.models.info import Traits
from wsisr.models.layers.blocks import conv3
from wsisr.models.layers.resample import enlarge
from wsisr.models.layers.wavelet import haar, inverse_haar
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import at_least_one
from wsisr.models.wrapper import FixedScaleModel


@dataclass(frozen=True, kw_only=True)
class MwcnnSettings:
    """Channels at the first level and at the two deeper ones, convolutions in each stage."""

    width1: int = 160
    width2: int = 256
    depth: int = 3

    def __post_init__(self) -> None:
        at_least_one(self, "mwcnn", "width1", "width2", "depth")


def _stage(*channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(channels):
        layers += [conv3(a, b), nn.ReLU()]
    return nn.Sequential(*layers)


class Mwcnn(nn.Module):
    """The whole network; HR sides must be multiples of 8 (the shell pads)."""

    def __init__(self, s: MwcnnSettings, scale: int) -> None:
        super().__init__()
        self.scale = scale
        a, b, n = s.width1, s.width2, s.depth
        self.down1 = _stage(12, *(a,) * (n + 1))
        self.down2 = _stage(4 * a, *(b,) * (n + 1))
        self.bottom = _stage(4 * b, *(b,) * (2 * n + 1), 4 * b)
        self.up2 = _stage(*(b,) * (n + 1), 4 * a)
        self.up1 = _stage(*(a,) * (n + 1))
        self.tail = conv3(a, 12)

    def forward(self, lr: Tensor) -> Tensor:
        x = enlarge(lr, self.scale)
        level1 = self.down1(haar(x))
        level2 = self.down2(haar(level1))
        y = inverse_haar(self.bottom(haar(level2))) + level2
        y = inverse_haar(self.up2(y)) + level1
        return x + inverse_haar(self.tail(self.up1(y)))


def _build(settings: MwcnnSettings, scale: int) -> FixedScaleModel:
    reach_hr = (
        8 * (2 * settings.depth + 2) + 8 * (settings.depth + 1) + 4 * (settings.depth + 2) + 8
    )
    traits = Traits(
        multiple_of_px=8 // gcd(8, scale),
        halo_px=-(-reach_hr // scale) + 2,
        halo_exact=True,
        tile_px=256,
        channels_last=True,
    )
    return FixedScaleModel(Mwcnn(settings, scale), traits, scale)


SPEC = register(
    ModelSpec(
        name="mwcnn",
        summary="U-net with wavelet transforms in place of poolings",
        citation="Liu et al., Multi-level wavelet-CNN for image restoration, CVPRW 2018",
        settings=MwcnnSettings,
        presets={
            "paper": lambda scale: MwcnnSettings(),
            "recommended": lambda scale: MwcnnSettings(),
            "tiny": lambda scale: MwcnnSettings(width1=24, width2=32, depth=1),
        },
        build=_build,
    )
)
