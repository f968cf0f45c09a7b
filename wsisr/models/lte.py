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
from torch import Tensor, nn

from wsisr.models.implicit import (
    Decoder,
    DecoderSettings,
    ImplicitNetwork,
    at_cells,
    denormalise,
    implicit_model,
    normalise,
)
from wsisr.models.layers.blocks import conv3
from wsisr.models.layers.coordinates import ensemble, sample_at, scaled_cell
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import require
from wsisr.models.wrapper import FeatureMaps


@dataclass(frozen=True, kw_only=True)
class LteSettings(DecoderSettings):
    """Encoder, amplitudes and frequencies (`hidden` channels), decoder.

    `cell_clip` holds the cell by default, as the released tester does.
    """

    cell_clip: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.hidden % 2 == 0, "lte: hidden must be even")


class Lte(ImplicitNetwork):
    """Encoder, texture estimator, decoder."""

    def __init__(self, s: LteSettings) -> None:
        super().__init__(s)
        self.coef = conv3(self.channels, s.hidden)
        self.freq = conv3(self.channels, s.hidden)
        self.phase = nn.Linear(2, s.hidden // 2, bias=False)
        self.imnet = Decoder(s.hidden, 3, (s.hidden,) * 3)

    def encode(self, lr: Tensor) -> FeatureMaps:
        """Amplitudes and frequencies, two maps (N, hidden, h, w)."""
        features = self.encoder(normalise(lr))
        return self.coef(features), self.freq(features)

    def decode(self, features: FeatureMaps, lr: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
        """RGB at coordinates, (N, Q, 3)."""
        coef, freq = features
        size = (coef.shape[-2], coef.shape[-1])
        phase = self.phase(scaled_cell(cell, size).to(coef.dtype))
        out = coef.new_zeros(())
        for corner, weight in ensemble(coord, size):
            # Channels 2k and 2k + 1 are the row and column frequency of wave k.
            waves = at_cells(freq, corner.index)
            waves = waves.reshape(*waves.shape[:2], -1, 2)
            angle = (waves * corner.rel.to(waves.dtype).unsqueeze(-2)).sum(dim=-1) + phase
            basis = torch.cat(((pi * angle).cos(), (pi * angle).sin()), dim=-1)
            texture = at_cells(coef, corner.index) * basis
            out = out + self.imnet(texture) * weight.to(texture.dtype)
        return denormalise(out + sample_at(normalise(lr), coord))


SPEC = register(
    ModelSpec(
        name="lte",
        kind="arbitrary",
        summary="local texture estimator in the Fourier domain; any scale",
        citation="Lee and Jin, Local texture estimator, CVPR 2022",
        settings=LteSettings,
        presets={
            "paper": lambda scale: LteSettings(),
            "recommended": lambda scale: LteSettings(),
            "tiny": lambda scale: LteSettings(encoder="edsr", encoder_size="tiny", hidden=64),
        },
        build=lambda s, scale: implicit_model(Lte(s), s),
    )
)
