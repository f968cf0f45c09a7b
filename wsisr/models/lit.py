"""LIT: local implicit transformer; any scale.

Chen, Xu, Hong, Tsai, Kuo, Lee. Cascaded local implicit transformer for arbitrary-scale
super-resolution. CVPR 2023 (arXiv 2303.16513); the network of one stage.

Each pixel attends to the 7x7 LR cells around it with a learned bias of the relative position; the
49 weighted values, unsummed, and the cell go through the decoder, whose output is added to the
bilinear enlargement. Readings: sizes of the authors' SwinIR configuration (256 channels, 8 heads;
16,931,695 parameters), cells outside the image are zero keys and values, as grid_sample gives
them. Features are cropped to the input before decoding (see `swinir`).
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from wsisr.models.implicit import (
    Decoder,
    EncoderSettings,
    ImplicitNetwork,
    denormalise,
    implicit_model,
    in_chunks,
    normalise,
)
from wsisr.models.layers.blocks import conv3
from wsisr.models.layers.coordinates import as_rows, corner_of, gather_cells, sample_at, scaled_cell
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import at_least_one, require
from wsisr.models.wrapper import FeatureMaps


@dataclass(frozen=True, kw_only=True)
class LitSettings(EncoderSettings):
    """Encoder, attention and decoder.

    Attributes
    ----------
    width, heads : int
        Channels and heads of the attention.
    reach_px : int
        Cells to each side (3: 7x7).
    waves : int
        Features of the position encoding.
    hidden : int
        Width of the decoder's four hidden layers.
    """

    width: int = 256
    heads: int = 8
    reach_px: int = 3
    waves: int = 64
    hidden: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.width % self.heads == 0, "lit: width must be a multiple of heads")
        require(self.waves % 4 == 0, "lit: waves must be a multiple of 4")
        at_least_one(self, "lit", "hidden")
        require(self.reach_px >= 0, "lit: reach_px must be at least 0")


class PositionBias(nn.Module):
    """Relative coordinates (..., 2) -> bias for each head (..., heads)."""

    frequencies: Tensor

    def __init__(self, waves: int, heads: int) -> None:
        super().__init__()
        frequencies = 2.0 ** torch.linspace(0, 10, waves // 4) - 1
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.proj = nn.Linear(waves, heads)

    def forward(self, rel: Tensor) -> Tensor:
        angle = torch.cat((rel[..., :1] * self.frequencies, rel[..., 1:] * self.frequencies), -1)
        return self.proj(torch.cat((angle.sin(), angle.cos()), dim=-1).to(self.proj.weight.dtype))


class Lit(ImplicitNetwork):
    """Encoder, local attention, decoder."""

    def __init__(self, s: LitSettings) -> None:
        super().__init__(s)
        self.heads, self.reach = s.heads, s.reach_px
        self.conv_ch = conv3(self.channels, s.width)
        self.conv_q = conv3(s.width, s.width)
        self.conv_k = conv3(s.width, s.width)
        self.conv_v = conv3(s.width, s.width)
        self.bias = PositionBias(s.waves, s.heads)
        area = (2 * s.reach_px + 1) ** 2
        self.imnet = Decoder(s.width * area + 2, 3, (s.hidden,) * 4, nn.GELU)

    def encode(self, lr: Tensor) -> FeatureMaps:
        """Queries, keys and values on the LR grid."""
        x = self.conv_ch(self.encoder(normalise(lr)))
        return self.conv_q(x), self.conv_k(x), self.conv_v(x)

    def decode(self, features: FeatureMaps, lr: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
        """RGB at coordinates, (N, Q, 3)."""
        return in_chunks(partial(self._decode, features, lr), coord, cell)

    def _decode(self, features: FeatureMaps, lr: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
        q_map, k_map, v_map = features
        size = (q_map.shape[-2], q_map.shape[-1])
        n, count = coord.shape[:2]
        here = corner_of(coord, size, (0, 0))
        reach, width = self.reach, size[1]
        row = torch.div(here.index, width, rounding_mode="floor")
        col = here.index - row * width
        steps = torch.arange(-reach, reach + 1, device=coord.device)
        dy, dx = (t.flatten() for t in torch.meshgrid(steps, steps, indexing="ij"))
        # Keys and values live in a frame of zeros that is `reach` wide.
        place = (row[..., None] + reach + dy) * (width + 2 * reach) + col[..., None] + reach + dx
        rel = here.rel[:, :, None] - 2 * torch.stack((dy, dx), dim=-1).to(coord.dtype)
        k, v = (self._neighbours(m, place) for m in (k_map, v_map))
        q = sample_at(q_map, coord, beyond="zeros").view(n, count, 1, self.heads, -1)
        scores = (q * k).sum(dim=-1) / k.shape[-1] ** 0.5 + self.bias(rel)
        weighted = v * scores.softmax(dim=2).unsqueeze(-1).to(v.dtype)
        rel_cell = scaled_cell(cell, size).to(v.dtype)
        out = self.imnet(torch.cat((weighted.reshape(n, count, -1), rel_cell), dim=-1))
        return denormalise(out + sample_at(normalise(lr), coord))

    def _neighbours(self, feature: Tensor, place: Tensor) -> Tensor:
        """(N, C, h, w) at (N, Q, 49) -> (N, Q, 49, heads, C / heads)."""
        r = self.reach
        rows = as_rows(nn.functional.pad(feature, (r, r, r, r)))
        return gather_cells(rows, place.flatten(1)).view(*place.shape, self.heads, -1)


SPEC = register(
    ModelSpec(
        name="lit",
        kind="arbitrary",
        summary="local implicit transformer; any scale",
        citation="Chen et al., Cascaded local implicit transformer, CVPR 2023",
        settings=LitSettings,
        presets={
            "paper": lambda scale: LitSettings(),
            "recommended": lambda scale: LitSettings(),
            "tiny": lambda scale: LitSettings(
                encoder="edsr", encoder_size="tiny", width=32, heads=4, reach_px=1, hidden=64
            ),
        },
        build=lambda s, scale: implicit_model(Lit(s), s, extra_halo_px=s.reach_px + 2),
    )
)
