"""SRCNN: three convolutions on the bicubic enlargement.

Dong, Loy, He, Tang. Image super-resolution using deep convolutional networks. TPAMI 2016
(arXiv 1501.00092).

Readings: the paper's 9-1-5 network (its first) and 9-5-5 (its best); all three colour
channels (its section 4.5) because stain carries the information here; zero padding, so that
the size is kept (the paper crops). ``identity_start`` (preset tiny) begins at the enlargement
instead of at random weights, from which the paper needed 8 x 10^8 samples.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from wsisr.models.info import Traits
from wsisr.models.layers.resample import enlarge
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import later, require
from wsisr.models.wrapper import FixedScaleModel


@dataclass(frozen=True, kw_only=True)
class SrcnnSettings:
    """Widths and kernels of the three layers.

    With `identity_start` a fresh network gives the bicubic enlargement: three channels of every
    layer hand the colours on, and the others do not count until they have learnt something.
    """

    width1: int = 64
    width2: int = 32
    kernel1: int = 9
    kernel2: int = 5
    kernel3: int = 5
    identity_start: bool = later(False)

    def __post_init__(self) -> None:
        least = 3 if self.identity_start else 1
        require(min(self.width1, self.width2) >= least, f"srcnn: widths must be at least {least}")
        for kernel in (self.kernel1, self.kernel2, self.kernel3):
            require(kernel >= 1 and kernel % 2 == 1, f"srcnn: kernel {kernel} must be odd")


class Srcnn(nn.Module):
    """Bicubic enlargement, then three convolutions; parameters at HR size."""

    def __init__(self, settings: SrcnnSettings, scale: int) -> None:
        super().__init__()
        s = settings
        self.scale = scale
        self.conv1 = nn.Conv2d(3, s.width1, s.kernel1, padding=s.kernel1 // 2)
        self.conv2 = nn.Conv2d(s.width1, s.width2, s.kernel2, padding=s.kernel2 // 2)
        self.conv3 = nn.Conv2d(s.width2, 3, s.kernel3, padding=s.kernel3 // 2)
        if s.identity_start:
            nn.init.zeros_(self.conv3.weight)
            for layer in (self.conv1, self.conv2, self.conv3):
                # Its first three outputs are its first three inputs.
                assert layer.bias is not None
                nn.init.dirac_(layer.weight[:3])
                nn.init.zeros_(layer.bias[:3])

    def forward(self, lr: Tensor) -> Tensor:
        x = enlarge(lr, self.scale)
        out: Tensor = self.conv3(self.conv2(self.conv1(x).relu()).relu())
        return out


def _build(settings: SrcnnSettings, scale: int) -> FixedScaleModel:
    reach_hr = settings.kernel1 // 2 + settings.kernel2 // 2 + settings.kernel3 // 2
    traits = Traits(halo_px=2 + -(-reach_hr // scale), halo_exact=True, tile_px=256)
    return FixedScaleModel(Srcnn(settings, scale), traits, scale)


SPEC = register(
    ModelSpec(
        name="srcnn",
        summary="three convolutions on the bicubic enlargement",
        citation="Dong et al., Image super-resolution using deep convolutional networks, 2016",
        settings=SrcnnSettings,
        presets={
            "paper": lambda scale: SrcnnSettings(kernel2=1),
            "recommended": lambda scale: SrcnnSettings(),
            "tiny": lambda scale: SrcnnSettings(
                width1=32, width2=16, kernel2=3, identity_start=True
            ),
        },
        build=_build,
    )
)
