"""Bicubic interpolation: the baseline that every table starts with.

Keys, R. G. Cubic convolution interpolation for digital image processing. IEEE Trans. ASSP, 1981.

The same operator as MATLAB's imresize (a = -0.5, mirrored edges), through
`wsisr.resize`. It serves every scale, whole or not, and has no parameters.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from wsisr.models.info import Traits
from wsisr.models.layers.coordinates import output_size
from wsisr.models.registry import ModelSpec, register
from wsisr.models.wrapper import SRModel, check_batch
from wsisr.resize import resize


@dataclass(frozen=True, kw_only=True)
class BicubicSettings:
    """Bicubic interpolation has nothing to set."""


class BicubicModel(SRModel):
    """``model(lr, scale=...)`` or ``model(lr, size=(H, W))``; (N, 3, h, w) -> (N, 3, H, W)."""

    def __init__(self) -> None:
        super().__init__(
            nn.Identity(), Traits(halo_px=4, halo_exact=True, tile_px=256, scale_range=(1.0, 32.0))
        )

    def forward(
        self, lr: Tensor, scale: float | None = None, size: tuple[int, int] | None = None
    ) -> Tensor:
        """Enlarge a batch to a scale (sides rounded) or to an exact size."""
        check_batch(lr, "bicubic")
        return resize(lr, output_size(lr.shape[-2:], scale, size), kernel="matlab")


def _build(settings: BicubicSettings, scale: int | None) -> BicubicModel:
    return BicubicModel()


SPEC = register(
    ModelSpec(
        name="bicubic",
        kind="arbitrary",
        summary="bicubic interpolation (MATLAB's operator); no parameters",
        citation="Keys, Cubic convolution interpolation for digital image processing, 1981",
        settings=BicubicSettings,
        presets={
            "recommended": lambda scale: BicubicSettings(),
            "paper": lambda scale: BicubicSettings(),
            "tiny": lambda scale: BicubicSettings(),
        },
        build=_build,
    )
)
