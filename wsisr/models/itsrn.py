"""ITSRN: implicit transformer network; any scale.

Yang, Shen, Yue, Li. Implicit transformer network for screen content image continuous
super-resolution. NeurIPS 2021 (arXiv 2112.06174).

A hyper-network makes, from the relative coordinate and the output pixel's size, a matrix that
maps the 3x3 features of a cell to RGB; four cells are combined by a small network. `paper` stands
on SwinIR as in ISTE's comparison. Exact fast form: the matrix is linear in the hyper-network's last
hidden layer, so its product with the features is one 3x3 convolution on the LR grid
(3 x (hidden + 1) channels) and an inner product for each pixel; the (576 x 3) matrix of each pixel
is never made. Features are cropped to the input before decoding (see `swinir`).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
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
from wsisr.models.layers.coordinates import CORNERS, cell_near, scaled_cell
from wsisr.models.registry import ModelSpec, register
from wsisr.models.wrapper import FeatureMaps


@dataclass(frozen=True, kw_only=True)
class ItsrnSettings(DecoderSettings):
    """Encoder, hyper-network (four hidden layers) and small networks."""


class Itsrn(ImplicitNetwork):
    """Encoder, hyper-network, combination of four cells."""

    def __init__(self, s: ItsrnSettings) -> None:
        super().__init__(s)
        self.hidden = s.hidden
        self.imnet = Decoder(4, 27 * self.channels, (s.hidden,) * 4, nn.GELU)
        self.weight = Decoder(4, 1, (s.hidden,), nn.GELU)
        self.score = Decoder(2, 1, (s.hidden,), nn.GELU)

    def encode(self, lr: Tensor) -> FeatureMaps:
        """Each cell's features times the hyper-network's last layer, (N, 3 (hidden + 1), h, w)."""
        features = self.encoder(normalise(lr))
        last = self.imnet.layers[-1]
        assert isinstance(last, nn.Linear)
        # Rows of the last layer are (channel, 3, 3, rgb); its bias is one more hidden unit.
        matrix = torch.cat((last.weight, last.bias[:, None]), dim=1)
        kernel = matrix.view(self.channels, 3, 3, 3 * (self.hidden + 1)).permute(3, 0, 1, 2)
        return (F.conv2d(features, kernel, padding=1),)

    def decode(self, features: FeatureMaps, lr: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
        """RGB at coordinates, (N, Q, 3)."""
        (cells,) = features
        size = (cells.shape[-2], cells.shape[-1])
        n, count = coord.shape[:2]
        rel_cell = scaled_cell(cell, size).expand(n, count, 2)
        # The released code steps to neighbours by the extent between outer LR centres.
        step_row = (1 - cell[..., 0]) / max(size[0] - 1, 1)
        step_col = (1 - cell[..., 1]) / max(size[1] - 1, 1)
        preds = []
        for dy, dx in CORNERS:
            near = cell_near(
                coord,
                coord[..., 0] + dy * step_row + 1e-6,
                coord[..., 1] + dx * step_col + 1e-6,
                size,
            )
            token = torch.cat((near.rel, rel_cell), dim=-1).to(cells.dtype)
            code = self.imnet.layers[:-1](token)
            code = torch.cat((code, torch.ones_like(code[..., :1])), dim=-1)
            mixed = at_cells(cells, near.index).view(n, count, 3, self.hidden + 1)
            pred = (mixed * code.unsqueeze(-2)).sum(dim=-1)
            preds.append(pred + self.score(near.rel.to(cells.dtype)))
        return denormalise(self.weight(torch.stack(preds, dim=-1)).squeeze(-1))


SPEC = register(
    ModelSpec(
        name="itsrn",
        kind="arbitrary",
        summary="implicit transformer network; any scale",
        citation="Yang et al., Implicit transformer network, NeurIPS 2021",
        settings=ItsrnSettings,
        presets={
            "paper": lambda scale: ItsrnSettings(),
            "recommended": lambda scale: ItsrnSettings(),
            "tiny": lambda scale: ItsrnSettings(encoder="edsr", encoder_size="tiny", hidden=64),
        },
        build=lambda s, scale: implicit_model(Itsrn(s), s),
    )
)
