"""LIIF: an image as a function of continuous coordinates.

Chen, Liu, Wang. Learning continuous image representation with local implicit image function.
CVPR 2021 (arXiv 2012.09161).

`paper` stands on the SwinIR body, as in ISTE's comparison (11,949,927 parameters); `encoder`
chooses EDSR or RDN as in LIIF's own paper. Exact fast form: the first layer of the decoder acts
on a 3x3 unfolding of the features, which is one 3x3 convolution on the LR grid; it runs there
once and its result is gathered. Deviation: features are cropped to the input before decoding
(released code leaves SwinIR's padding in, which shifts coordinates).
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from wsisr.models.implicit import (
    Decoder,
    DecoderSettings,
    ImplicitNetwork,
    at_cells,
    denormalise,
    implicit_model,
    normalise,
)
from wsisr.models.layers.coordinates import ensemble, scaled_cell
from wsisr.models.registry import ModelSpec, register
from wsisr.models.wrapper import FeatureMaps


@dataclass(frozen=True, kw_only=True)
class LiifSettings(DecoderSettings):
    """Encoder and decoder (four hidden layers)."""


class Liif(ImplicitNetwork):
    """Encoder, and a decoder of (3x3 features, relative coordinate, cell)."""

    def __init__(self, s: LiifSettings) -> None:
        super().__init__(s)
        self.imnet = Decoder(9 * self.channels + 4, 3, (s.hidden,) * 4)

    def encode(self, lr: Tensor) -> FeatureMaps:
        """The decoder's first layer on every cell's 3x3 features, (N, hidden, h, w)."""
        features = self.encoder(normalise(lr))
        first = self.imnet.first()
        kernel = first.weight[:, : 9 * self.channels].view(-1, self.channels, 3, 3)
        return (F.conv2d(features, kernel, first.bias, padding=1),)

    def decode(self, features: FeatureMaps, lr: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
        """RGB at coordinates, (N, Q, 3)."""
        (cells,) = features
        size = (cells.shape[-2], cells.shape[-1])
        on_query = self.imnet.first().weight[:, 9 * self.channels :]
        from_cell = F.linear(scaled_cell(cell, size).to(cells.dtype), on_query[:, 2:])
        out = cells.new_zeros(())
        for corner, weight in ensemble(coord, size):
            x = at_cells(cells, corner.index) + from_cell
            x = x + F.linear(corner.rel.to(x.dtype), on_query[:, :2])
            out = out + self.imnet.after_first(x) * weight.to(x.dtype)
        return denormalise(out)


SPEC = register(
    ModelSpec(
        name="liif",
        kind="arbitrary",
        summary="local implicit image function; any scale",
        citation="Chen et al., Local implicit image function, CVPR 2021",
        settings=LiifSettings,
        presets={
            "paper": lambda scale: LiifSettings(),
            "recommended": lambda scale: LiifSettings(),
            "tiny": lambda scale: LiifSettings(encoder="edsr", encoder_size="tiny", hidden=64),
        },
        build=lambda s, scale: implicit_model(Liif(s), s),
    )
)
