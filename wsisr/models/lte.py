"""LTE: local texture in the Fourier domain.

Lee, Jin. Local texture estimator for implicit representation function. CVPR 2022
(arXiv 2111.08918).

Amplitudes and frequencies are estimated on the LR grid, phases from the output pixel's size;
the decoder adds to a bilinear enlargement. `paper` stands on SwinIR (12,096,871 parameters).
Deviation: features are cropped to the input before decoding (see `swinir`).
"""

from dataclasses import dataclass
from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.models.implicit import (
    Decoder,
    EncoderSettings,
    at_cells,
    build_encoder,
    denormalise,
    implicit_model,
    normalise,
)
from wsisr.models.layers.blocks import conv3
from wsisr.models.layers.coordinates import CORNERS, corner_of, ensemble_weights, scaled_cell
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import require
from wsisr.models.wrapper import ArbitraryScaleModel


@dataclass(frozen=True, kw_only=True)
class LteSettings(EncoderSettings):
    """Encoder and decoder.

    Attributes
    ----------
    hidden : int
        Channels of amplitudes and frequencies, and width of the decoder's hidden layers.
    cell_clip : bool
        Hold the cell at the trained range's end for larger scales (as the released tester does).
    """

    hidden: int = 256
    cell_clip: bool = True

    def __post_init__(self) -> None:
        EncoderSettings.__post_init__(self)
        require(
            self.hidden >= 2 and self.hidden % 2 == 0, "lte: hidden must be even and at least 2"
        )


def bilinear_at(lr: Tensor, coord: Tensor) -> Tensor:
    """Bilinear enlargement of (N, 3, h, w) at (N, Q, 2), edges extended -> (N, Q, 3)."""
    grid = coord.flip(-1).unsqueeze(1)
    out = F.grid_sample(
        lr.to(grid.dtype), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return out[:, :, 0].transpose(1, 2).to(lr.dtype)


class Lte(nn.Module):
    """Encoder, texture estimator, decoder."""

    def __init__(self, s: LteSettings) -> None:
        super().__init__()
        self.encoder = build_encoder(s)
        channels = int(self.encoder.out_channels)  # type: ignore[arg-type]
        self.coef = conv3(channels, s.hidden)
        self.freq = conv3(channels, s.hidden)
        self.phase = nn.Linear(2, s.hidden // 2, bias=False)
        self.imnet = Decoder(s.hidden, 3, (s.hidden,) * 3)

    def encode(self, lr: Tensor) -> tuple[Tensor, ...]:
        """Amplitudes and frequencies, two maps (N, hidden, h, w)."""
        features = self.encoder(normalise(lr))
        return self.coef(features), self.freq(features)

    def decode(
        self, features: tuple[Tensor, ...], lr: Tensor, coord: Tensor, cell: Tensor
    ) -> Tensor:
        """RGB at coordinates, (N, Q, 3)."""
        coef, freq = features
        size = (coef.shape[-2], coef.shape[-1])
        corners = [corner_of(coord, size, shift) for shift in CORNERS]
        weights = ensemble_weights(corners)
        phase = self.phase(scaled_cell(cell, size).to(coef.dtype))
        out = coef.new_zeros(())
        for corner, weight in zip(corners, weights, strict=True):
            # Channels 2k and 2k + 1 are the row and column frequency of wave k.
            waves = at_cells(freq, corner.index)
            waves = waves.reshape(*waves.shape[:2], -1, 2)
            angle = (waves * corner.rel.to(waves.dtype).unsqueeze(-2)).sum(dim=-1) + phase
            basis = torch.cat(((pi * angle).cos(), (pi * angle).sin()), dim=-1)
            texture = at_cells(coef, corner.index) * basis
            out = out + self.imnet(texture) * weight.unsqueeze(-1).to(texture.dtype)
        return denormalise(out + bilinear_at(normalise(lr), coord))


def _build(settings: LteSettings, scale: int | None) -> ArbitraryScaleModel:
    return implicit_model(Lte(settings), settings)


SPEC = register(
    ModelSpec(
        name="lte",
        family="baseline",
        kind="arbitrary",
        summary="local texture estimator in the Fourier domain; any scale",
        citation="Lee and Jin, Local texture estimator, CVPR 2022",
        settings=LteSettings,
        presets={
            "paper": lambda scale: LteSettings(),
            "recommended": lambda scale: LteSettings(),
            "tiny": lambda scale: LteSettings(encoder="edsr", encoder_size="tiny", hidden=64),
        },
        build=_build,
    )
)
