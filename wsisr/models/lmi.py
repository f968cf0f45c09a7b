"""LMI: the local mix implicit network.

Fu, Peng, Jiang, Yang, Gao, Guo, Hu, Zhang, Gao. Continuous optical zooming: a benchmark for
arbitrary-scale image super-resolution in real world. CVPR 2024. ISTE compares with it.

Each output pixel mixes the features of the 4 x 4 cells around it, first over the cells (with a
matrix that a small network makes from their relative positions), then over the channels (with
their colours and positions), and averages 16 predictions. `paper` stands on the SwinIR body, as
in ISTE's table 8 (11,690,903 parameters); `edsr` and `rdn` as in LMI's own code.

Readings, all of the released code:

- Weights of the 16 cells are swapped from end to end, as LIIF swaps its four. On 4 x 4 that gives
  the *outer* cells the larger weights; it is kept.
- The position network sees the row's entry of the cell alone, so that outputs whose scale differs
  along rows and columns are outside the method.
- At the border the nearest cells repeat; nothing is masked.
- Both mixers end in a GELU, and the features enter three times.

- The code takes `feat_unfold`, `cell_decode`, `with_area` and the mixer's `token_dim`,
  `channel_dim` and `hidden_list` and uses none of them, and cannot run without the ensemble:
  none is offered.
- ISTE retrains it and says no more than that: data as `liif`'s, rate 1e-4.

Exact saving: the weights sum to one, so that the head acts on the averaged features once.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from wsisr.models.implicit import (
    Decoder,
    EncoderSettings,
    ImplicitNetwork,
    at_cells,
    denormalise,
    implicit_model,
    in_chunks,
    normalise,
)
from wsisr.models.layers.coordinates import corner_of, scaled_cell
from wsisr.models.registry import ModelSpec, register
from wsisr.models.wrapper import FeatureMaps

SHIFTS = tuple((row, col) for row in (-3, -1, 1, 3) for col in (-3, -1, 1, 3))
"""Half LR px from a query to the places whose nearest cells are its 16."""


@dataclass(frozen=True, kw_only=True)
class LmiSettings(EncoderSettings):
    """The encoder's; the mixer has none."""


class GeluMlp(nn.Module):
    """Linear, GELU, Linear, GELU: the second one is the released code's, too."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs), nn.GELU()
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class MixerBlock(nn.Module):
    """Mixing over the cells, then over the channels; keys as in the released code."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        cells = len(SHIFTS)
        self.token_mix = nn.Sequential(GeluMlp(2 * cells, 2 * cells, cells))
        self.channel_mix = nn.Sequential(GeluMlp(channels + 6, 2 * channels, channels))

    def forward(self, x: Tensor, meta: Tensor, place: Tensor) -> Tensor:
        """(N, Q, 16, C) with (N, Q, C, 16) and (N, Q, 16, 6) -> (N, Q, 16, C)."""
        mixed = self.token_mix(torch.cat((x.transpose(-1, -2), meta), dim=-1))
        y = x + mixed.transpose(-1, -2)
        return y + self.channel_mix(torch.cat((y, place), dim=-1))


class Mixer(nn.Module):
    """One mixer block and the head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mixer_blocks = nn.ModuleList([MixerBlock(channels)])
        self.out = nn.Linear(channels, 3)


class Lmi(ImplicitNetwork):
    """Encoder, position network, mixer."""

    def __init__(self, s: LmiSettings) -> None:
        super().__init__(s)
        cells, channels = len(SHIFTS), self.channels
        self.metanet = Decoder(2 * cells + 1, cells * channels, (channels,))
        self.imnet = Mixer(channels)

    def encode(self, lr: Tensor) -> FeatureMaps:
        """Features and the normalised LR image."""
        rgb = normalise(lr)
        return self.encoder(rgb), rgb

    def decode(self, features: FeatureMaps, lr: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
        """RGB at coordinates, (N, Q, 3)."""
        return in_chunks(partial(self._decode, features), coord, cell)

    def _decode(self, features: FeatureMaps, coord: Tensor, cell: Tensor) -> Tensor:
        feature, rgb = features
        size = (feature.shape[-2], feature.shape[-1])
        n, count = coord.shape[:2]
        corners = [corner_of(coord, size, shift) for shift in SHIFTS]
        index = torch.stack([corner.index for corner in corners], dim=-1).flatten(1)
        rel = torch.stack([corner.rel for corner in corners], dim=-2)
        x = at_cells(feature, index).view(n, count, len(SHIFTS), -1)
        colour = at_cells(rgb, index).view(n, count, len(SHIFTS), 3)
        position = rel.to(x.dtype)
        height = scaled_cell(cell, size)[..., :1].to(x.dtype)
        meta = self.metanet(torch.cat((position.flatten(-2), height), dim=-1))
        beside = height.unsqueeze(-2).expand(-1, -1, len(SHIFTS), -1)
        place = torch.cat((colour, position, beside), dim=-1)
        out = x
        for block in self.imnet.mixer_blocks:
            out = x + block(out, meta.view(n, count, -1, len(SHIFTS)), place)
        area = rel.prod(dim=-1).abs() + 1e-9
        weight = (area.flip(-1) / area.sum(dim=-1, keepdim=True)).to(x.dtype)
        return denormalise(self.imnet.out((out * weight.unsqueeze(-1)).sum(dim=-2)))


SPEC = register(
    ModelSpec(
        name="lmi",
        kind="arbitrary",
        summary="local mix implicit network over 4 x 4 cells; any scale",
        citation="Fu et al., Continuous optical zooming, CVPR 2024",
        settings=LmiSettings,
        presets={
            "paper": lambda scale: LmiSettings(),
            "recommended": lambda scale: LmiSettings(),
            "tiny": lambda scale: LmiSettings(encoder="edsr", encoder_size="tiny"),
        },
        build=lambda s, scale: implicit_model(Lmi(s), s, extra_halo_px=2),
    )
)
