"""A network: what two convolutions add to the bicubic enlargement."""

from dataclasses import dataclass

from torch import Tensor, nn

from wsisr.models import FixedScaleModel, ModelSpec, Traits, enlarge, register


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Each field is a setting: --set model.width=64."""

    width: int = 32


class Sketch(nn.Module):
    """(N, 3, h, w) in [0, 1] to (N, 3, scale h, scale w)."""

    def __init__(self, settings: Settings, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.first = nn.Conv2d(3, settings.width, 3, padding=1)
        self.last = nn.Conv2d(settings.width, 3 * scale**2, 3, padding=1)
        nn.init.zeros_(self.last.weight)  # it starts as the enlargement
        nn.init.zeros_(self.last.bias)

    def forward(self, lr: Tensor) -> Tensor:
        added = nn.functional.pixel_shuffle(self.last(self.first(lr).relu()), self.scale)
        return enlarge(lr, self.scale) + added


def build(settings: Settings, scale: int) -> FixedScaleModel:
    """`halo_px`: LR px around a tile that its pixels depend on."""
    return FixedScaleModel(Sketch(settings, scale), Traits(halo_px=4, halo_exact=True), scale)


register(
    ModelSpec(
        name="sketch",
        family="mine",
        summary="two convolutions on the bicubic enlargement",
        citation="mine, unpublished",
        settings=Settings,
        presets={"recommended": lambda scale: Settings(), "tiny": lambda scale: Settings(width=8)},
        build=build,
    )
)
