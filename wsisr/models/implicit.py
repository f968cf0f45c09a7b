"""Decoders from features and relative coordinates to RGB, and the encoders they stand on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wsisr.models.edsr import EdsrBody, EdsrSettings
from wsisr.models.edsr import body_reach_px as edsr_reach_px
from wsisr.models.info import Traits
from wsisr.models.layers.coordinates import as_rows, gather_cells
from wsisr.models.rdn import RdnBody, RdnSettings
from wsisr.models.rdn import body_reach_px as rdn_reach_px
from wsisr.models.settings import later, require
from wsisr.models.swinir import SwinirBody, SwinirSettings
from wsisr.models.wrapper import ArbitraryScaleModel

Encoder = Literal["swinir", "edsr", "rdn"]
EncoderSize = Literal["full", "small", "tiny"]
_EDSR = {
    "full": EdsrSettings(),
    "small": EdsrSettings(width=48, blocks=8),
    "tiny": EdsrSettings(width=32, blocks=4),
}
_RDN = {"full": RdnSettings(), "tiny": RdnSettings(width=32, blocks=2, layers=3, growth=16)}
CHUNK_PX = 4096
"""Output px at once where many cells are gathered for each (about 50 kB of float32)."""


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """What a decoder stands on.

    Attributes
    ----------
    encoder : {"swinir", "edsr", "rdn"}
        `full`: SwinIR (180 channels, 64 out), EDSR baseline (64) or RDN (64), as in the papers.
    encoder_size : {"full", "small", "tiny"}
        `small` is of EDSR alone: 8 blocks of 48 channels.
    encoder_groups : int or None
        Residual groups of a SwinIR encoder; None: those of its size (6, tiny 2). LIIF* and LTE*
        of ISTE's table 9 have 7.
    cell_clip : bool
        Hold the cell at the trained range's end for larger scales.
    """

    encoder: Encoder = "swinir"
    encoder_size: EncoderSize = "full"
    encoder_groups: int | None = later(None)
    cell_clip: bool = False

    def __post_init__(self) -> None:
        groups = self.encoder_groups
        require(
            self.encoder == "edsr" or self.encoder_size != "small",
            f"encoder_size small is of an EDSR encoder; {self.encoder} has full and tiny",
        )
        require(groups is None or groups >= 1, "encoder_groups must be at least 1")
        require(
            groups is None or self.encoder == "swinir",
            f"encoder_groups is of a SwinIR encoder; {self.encoder} has none",
        )


@dataclass(frozen=True, kw_only=True)
class DecoderSettings(EncoderSettings):
    """What a decoder stands on, and its width.

    Attributes
    ----------
    hidden : int
        Width of the decoder's hidden layers, and of the maps that a network makes for it.
    """

    hidden: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.hidden >= 1, "hidden must be at least 1")


class Decoder(nn.Module):
    """Fully connected network: hidden layers with an activation, then a linear layer.

    Keys are ``layers.0``, ``layers.2`` ... as in the released code of LIIF and its kin.
    """

    def __init__(
        self, inputs: int, outputs: int, hidden: tuple[int, ...], act: type[nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(inputs, width), act()]
            inputs = width
        layers.append(nn.Linear(inputs, outputs))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out

    def first(self) -> nn.Linear:
        """The first linear layer, which fast forms split between cells and queries."""
        layer = self.layers[0]
        assert isinstance(layer, nn.Linear)
        return layer

    def after_first(self, x: Tensor) -> Tensor:
        """Everything behind the first linear layer."""
        out: Tensor = self.layers[1:](x)
        return out


def build_encoder(s: EncoderSettings, drop_path: float = 0.0) -> nn.Module:
    """A body without upsampler; ``out_channels`` features at the input's size."""
    if s.encoder == "swinir":
        groups = s.encoder_groups
        if s.encoder_size == "full":
            return SwinirBody(SwinirSettings(groups=groups or 6, drop_path=drop_path))
        return SwinirBody(
            SwinirSettings(width=32, groups=groups or 2, depth=2, heads=4, head_width=32)
        )
    if s.encoder == "edsr":
        return EdsrBody(_EDSR[s.encoder_size])
    return RdnBody(_RDN[s.encoder_size])


class ImplicitNetwork(nn.Module):
    """A body, and what is decoded from its features at coordinates; see `ArbitraryScaleModel`."""

    def __init__(self, s: EncoderSettings, drop_path: float = 0.0) -> None:
        super().__init__()
        self.encoder = build_encoder(s, drop_path)
        self.channels = int(self.encoder.out_channels)  # type: ignore[arg-type]


def encoder_halo_px(kind: Encoder, size: EncoderSize) -> int:
    """LR px of context that a tile needs around it, decoder included."""
    if kind == "edsr":
        return edsr_reach_px(_EDSR[size]) + 3
    if kind == "rdn":
        return rdn_reach_px(_RDN[size]) + 3
    return 32


def implicit_model(
    net: nn.Module,
    settings: EncoderSettings,
    *,
    extra_halo_px: int = 0,
    tile_px: int = 96,
    global_context: bool = False,
) -> ArbitraryScaleModel:
    """The shell of an arbitrary-scale network that was designed for x1 to x4."""
    traits = Traits(
        halo_px=encoder_halo_px(settings.encoder, settings.encoder_size) + extra_halo_px,
        tile_px=tile_px,
        global_context=global_context,
        scale_range=(1.0, 4.0),
    )
    return ArbitraryScaleModel(net, traits, settings.cell_clip, trained_to=4.0)


def normalise(rgb: Tensor) -> Tensor:
    """[0, 1] -> [-1, 1]."""
    return (rgb - 0.5) / 0.5


def denormalise(rgb: Tensor) -> Tensor:
    """[-1, 1] -> [0, 1]."""
    return rgb * 0.5 + 0.5


def at_cells(feature: Tensor, index: Tensor) -> Tensor:
    """Nearest sampling: (N, C, h, w) at (N, Q) -> (N, Q, C)."""
    return gather_cells(as_rows(feature), index)


def in_chunks(decode: Callable[[Tensor, Tensor], Tensor], coord: Tensor, cell: Tensor) -> Tensor:
    """``decode(coord, cell)`` of at most `CHUNK_PX` coordinates at a time, (N, Q, 3)."""
    cells = cell.expand(-1, coord.shape[1], -1)
    parts = zip(torch.split(coord, CHUNK_PX, 1), torch.split(cells, CHUNK_PX, 1), strict=True)
    return torch.cat([decode(*part) for part in parts], dim=1)
