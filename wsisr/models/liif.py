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
from wsisr.models.layers.coordinates import CORNERS, corner_of, ensemble_weights, scaled_cell
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import require
from wsisr.models.wrapper import ArbitraryScaleModel


@dataclass(frozen=True, kw_only=True)
class LiifSettings(EncoderSettings):
    """Encoder and decoder.

    Attributes
    ----------
    hidden : int
        Width of the decoder's four hidden layers.
    """

    hidden: int = 256

    def __post_init__(self) -> None:
        EncoderSettings.__post_init__(self)
        require(self.hidden >= 1, "liif: hidden must be at least 1")


class Liif(nn.Module):
    """Encoder, and a decoder of (3x3 features, relative coordinate, cell)."""

    def __init__(self, s: LiifSettings) -> None:
        super().__init__()
        self.encoder = build_encoder(s)
        self.channels = int(self.encoder.out_channels)  # type: ignore[arg-type]
        self.imnet = Decoder(9 * self.channels + 4, 3, (s.hidden,) * 4)

    def encode(self, lr: Tensor) -> tuple[Tensor, ...]:
        """The decoder's first layer on every cell's 3x3 features, (N, hidden, h, w)."""
        features = self.encoder(normalise(lr))
        first = self.imnet.first()
        kernel = first.weight[:, : 9 * self.channels].view(-1, self.channels, 3, 3)
        return (F.conv2d(features, kernel, first.bias, padding=1),)

    def decode(
        self, features: tuple[Tensor, ...], lr: Tensor, coord: Tensor, cell: Tensor
    ) -> Tensor:
        """RGB at coordinates, (N, Q, 3)."""
        (cells,) = features
        size = (cells.shape[-2], cells.shape[-1])
        corners = [corner_of(coord, size, shift) for shift in CORNERS]
        weights = ensemble_weights(corners)
        on_query = self.imnet.first().weight[:, 9 * self.channels :]
        rel_cell = scaled_cell(cell, size).to(cells.dtype)
        from_cell = F.linear(rel_cell, on_query[:, 2:])
        out = cells.new_zeros(())
        for corner, weight in zip(corners, weights, strict=True):
            x = at_cells(cells, corner.index) + from_cell
            x = x + F.linear(corner.rel.to(x.dtype), on_query[:, :2])
            out = out + self.imnet.after_first(x) * weight.unsqueeze(-1).to(x.dtype)
        return denormalise(out)


def _build(settings: LiifSettings, scale: int | None) -> ArbitraryScaleModel:
    return implicit_model(Liif(settings), settings)


SPEC = register(
    ModelSpec(
        name="liif",
        family="baseline",
        kind="arbitrary",
        summary="local implicit image function; any scale",
        citation="Chen et al., Local implicit image function, CVPR 2021",
        settings=LiifSettings,
        presets={
            "paper": lambda scale: LiifSettings(),
            "recommended": lambda scale: LiifSettings(),
            "tiny": lambda scale: LiifSettings(encoder="edsr", encoder_size="tiny", hidden=64),
        },
        build=_build,
    )
)
