"""ISTE: implicit self-texture enhancement, any scale.

Duan, Qu, Yang, Wang, Zhang, Song. An efficient dual-branch framework via implicit self-texture
enhancement for arbitrary-scale histopathology image super-resolution. Scientific Reports 2025;
first described in arXiv 2304.04238 (where they differ, the later text wins).

`paper` is the text, `official` the released code's forward pass without its dead layers,
`recommended` the text with retrieval inside LR tiles. Settings cover the ablation table.

| point | `paper` | `official` | `recommended` |
|---|---|---|---|
| local interactor | ten tokens, proper layout | released layout, cut gradient | as `paper` |
| retrieval among | all pixels of the image | 30,000 pixels in raster order | 48 px LR tiles |
| cell beyond x4 | as is | as is | held at x4 |
| stochastic depth | 0 | 0.1 | 0 |

Readings in all: the query of the fusion is the convolved feature (64 -> 256 channels; the arXiv
text lacks that convolution and cannot work); fusion is one linear layer without bias (both
texts say MLP, the released code and the parameter count do not); "X" is the row; texture,
fusion and both decoders run for each of the four corners, as the ensemble's formula needs.

Where the two texts and the code disagree: the arXiv text learns the query from 64 channels
against keys of 256; rate 1e-4 in both texts, 2e-4 with milestones in the code; 10 tokens in the
texts, 11 weights for 10 values in the code; retrieval "globally" in the texts, among one query
chunk in the code; resize, then a blur of "kernel size m/2" in the texts, a blur of (s - 1) / 2,
then resize in the code. Bicubic at x2 on TCGA is 28.89 dB in one text and 32.98 in the other:
their tables are not comparable, and leaving the fusion out costs 1.46 dB in one and 0.10 in the
other. In the later text, row 6 of table 4 carries the marks of the full model (read as the row
without the interactor), "EDSR" of table 7 is the baseline of 16 x 64 (released configuration),
the larger LIIF and LTE of table 9 have seven groups in their SwinIR body (the only reading with
the printed sizes), "M" parameters of tables 8 and 9 are units of 2^20, and "SRRFENet" in one
block of table 1 is SRMFENet.

What is retrieved depends on *scope* (`stf_scope`, part of the result), never on how much is
computed at once (`chunk_px` of the shell). When training on sampled pixels the scope is the
sample. Exact fast forms: the interactor and its convolution run once for an image; fusion and
the first decoder layer run for each LR cell and not for each pixel (all pixels of a cell ask
the same question); the similarity matrix is never kept (`layers.retrieval`).
"""

from dataclasses import dataclass
from itertools import pairwise
from math import pi
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.device import upload
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
from wsisr.models.layers.coordinates import (
    Corner,
    as_image,
    as_rows,
    axis_centres,
    ensemble,
    gather_cells,
    grid_of,
    pixel_centres,
    scaled_cell,
)
from wsisr.models.layers.interactor import build_interactor
from wsisr.models.layers.retrieval import BLOCK_BYTES, transfer
from wsisr.models.registry import ModelSpec, register
from wsisr.models.settings import at_least_one, require
from wsisr.models.wrapper import FeatureMaps, coordinate_dtype


@dataclass(frozen=True, kw_only=True)
class IsteSettings(DecoderSettings):
    """Shape, form and ablations.

    Attributes
    ----------
    lfi : {"paper", "official", "none"}
        Local feature interactor; `none` is "w/o LFI".
    lfi_heads : int
        Its attention heads.
    texture : {"learned", "conv"}
        Texture learner, or a convolution in its place ("w/o TL").
    stf, ltd : bool
        Self-texture fusion and local texture decoder (False: "w/o").
    branches : {"both", "texture", "feature"}
        Both, or the single-branch variants: texture learner and decoder; interactor and pixel
        decoder.
    stf_scope : {"tile", "image", "chunk"}
        Among which pixels textures are retrieved when a whole image is rendered.
    stf_tile_px : int
        Largest side of a tile, LR px (`stf_scope="tile"`).
    stf_chunk_px : int
        Pixels of a raster-order chunk (`stf_scope="chunk"`, the released tester's rule).
    drop_path : float
        Stochastic depth of a SwinIR encoder.
    scale_draw : {"sample", "batch"}
        For training: one scale for each sample (released code) or batch (the text).
    """

    lfi: Literal["paper", "official", "none"] = "paper"
    lfi_heads: int = 8
    texture: Literal["learned", "conv"] = "learned"
    stf: bool = True
    ltd: bool = True
    branches: Literal["both", "texture", "feature"] = "both"
    stf_scope: Literal["tile", "image", "chunk"] = "tile"
    stf_tile_px: int = 48
    stf_chunk_px: int = 30_000
    cell_clip: bool = True
    drop_path: float = 0.0
    scale_draw: Literal["sample", "batch"] = "sample"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(self, "iste", "lfi_heads", "stf_tile_px", "stf_chunk_px")
        require(
            self.branches == "both" or (self.stf and self.ltd),
            "iste: stf and ltd are ablations of branches='both'; leave them on otherwise",
        )


class IsteNetwork(ImplicitNetwork):
    """Encoder, both branches, fusion and decoders."""

    def __init__(self, s: IsteSettings) -> None:
        super().__init__(s, s.drop_path)
        self.settings = s
        self.block_bytes = BLOCK_BYTES
        channels = self.channels
        self.has_feature = s.branches != "texture"
        self.has_texture = s.branches != "feature" and (s.stf or s.ltd)
        self.has_fusion = s.branches == "both" and s.stf
        if self.has_feature:
            self.lfi = build_interactor(s.lfi, channels, s.lfi_heads)
            self.lfi_conv = conv3(channels, s.hidden)
            self.lpd = Decoder(s.hidden + 4, 3, (s.hidden,) * 3)
        if self.has_texture:
            if s.texture == "learned":
                self.amplitude = conv3(channels, s.hidden)
                self.freq_row = conv3(channels, s.hidden)
                self.freq_col = conv3(channels, s.hidden)
                self.phase = nn.Linear(2, s.hidden, bias=False)
            else:
                self.texture_conv = conv3(channels, s.hidden)
            if s.ltd:
                self.ltd = Decoder(s.hidden, 3, (s.hidden,) * 3)
        if self.has_fusion:
            self.fusion = nn.Linear(2 * s.hidden, s.hidden, bias=False)

    def encode(self, lr: Tensor) -> FeatureMaps:
        """Maps of the LR size: the convolved feature (if any), then the texture's maps."""
        x = self.encoder(normalise(lr))
        maps = []
        if self.has_feature:
            maps.append(self.lfi_conv(self.lfi(x)))
        if self.has_texture:
            if self.settings.texture == "learned":
                maps += [self.amplitude(x), self.freq_row(x), self.freq_col(x)]
            else:
                maps.append(self.texture_conv(x))
        return tuple(maps)

    def decode(self, features: FeatureMaps, lr: Tensor, coord: Tensor, cell: Tensor) -> Tensor:
        """RGB at coordinates; textures are retrieved among these coordinates only."""
        return self._decode(features, coord, cell, coord.shape[1], shared=False)

    def render(
        self,
        features: FeatureMaps,
        lr: Tensor,
        size: tuple[int, int],
        cell: tuple[float, float],
        chunk_px: int,
    ) -> Tensor:
        """The whole image, scope by scope."""
        n, dtype, s = lr.shape[0], coordinate_dtype(lr), self.settings
        cells = upload(cell, lr.device, dtype).expand(n, 1, 2)

        def part(grid: Tensor) -> Tensor:
            return self._decode(features, grid.expand(n, -1, -1), cells, chunk_px, shared=True)

        if s.stf_scope == "chunk" and self.has_fusion:
            grid = pixel_centres(size, lr.device, dtype)
            parts = [part(chunk) for chunk in torch.split(grid, s.stf_chunk_px)]
            return as_image(torch.cat(parts, dim=1), size)
        tile = max(lr.shape[-2:]) if s.stf_scope == "image" else s.stf_tile_px
        rows, cols = (axis_centres(side, lr.device, dtype) for side in size)
        bands = []
        for top, bottom in scopes(lr.shape[-2], size[0], tile):
            row = []
            for left, right in scopes(lr.shape[-1], size[1], tile):
                pixels = part(grid_of(rows[top:bottom], cols[left:right]).reshape(-1, 2))
                row.append(as_image(pixels, (bottom - top, right - left)))
            bands.append(torch.cat(row, dim=-1))
        return torch.cat(bands, dim=-2)

    def _decode(
        self,
        features: FeatureMaps,
        coord: Tensor,
        cell: Tensor,
        chunk_px: int,
        shared: bool,
    ) -> Tensor:
        """One scope. `shared`: the batch asks for the same coordinates."""
        size = (features[0].shape[-2], features[0].shape[-1])
        rel_cell = scaled_cell(cell, size).to(features[0].dtype)
        out = features[0].new_zeros(*coord.shape[:2], 3)
        for corner, weight in ensemble(coord, size):
            rgb = self._corner(features, corner, rel_cell, chunk_px, shared)
            out = out + rgb * weight.to(rgb.dtype)
        return denormalise(out)

    def _corner(
        self,
        features: FeatureMaps,
        corner: Corner,
        rel_cell: Tensor,
        chunk_px: int,
        shared: bool,
    ) -> Tensor:
        spans = [slice(i, i + chunk_px) for i in range(0, corner.index.shape[1], chunk_px)]
        texture_maps = features[1:] if self.has_feature else features
        parts = []
        if self.has_texture:
            cut = [Corner(index=corner.index[:, at], rel=corner.rel[:, at]) for at in spans]
            texture = torch.cat(
                [self._texture(texture_maps, some, rel_cell) for some in cut], dim=1
            )
            if self.settings.ltd:
                parts.append(torch.cat([self.ltd(texture[:, at]) for at in spans], dim=1))
        if self.has_feature:
            rows, place = _rows_asked_for(features[0], corner.index, shared)
            if self.has_fusion:
                found, confidence = transfer(rows, texture, self.block_bytes)
                fused = self.fusion(torch.cat((rows, found), dim=-1))
                rows = rows + fused * confidence.to(fused.dtype)
            first, hidden = self.lpd.first(), self.settings.hidden
            on_rows = F.linear(rows, first.weight[:, :hidden], first.bias)
            on_cell = F.linear(rel_cell, first.weight[:, hidden + 2 :])
            rgb = []
            for at in spans:
                x = gather_cells(on_rows, place[:, at]) + on_cell
                rel = corner.rel[:, at].to(x.dtype)
                x = x + F.linear(rel, first.weight[:, hidden : hidden + 2])
                rgb.append(self.lpd.after_first(x))
            parts.append(torch.cat(rgb, dim=1))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def _texture(self, maps: FeatureMaps, corner: Corner, rel_cell: Tensor) -> Tensor:
        """Texture at queries, (N, Q, hidden) (eq. 3)."""
        if self.settings.texture == "conv":
            return at_cells(maps[0], corner.index)
        amplitude, freq_row, freq_col = (at_cells(m, corner.index) for m in maps)
        rel = corner.rel.to(amplitude.dtype)
        phase = 2 * pi * self.phase(rel_cell).sigmoid()
        return amplitude * (freq_row * rel[..., :1] + freq_col * rel[..., 1:] + phase).sin()


def _rows_asked_for(feature: Tensor, index: Tensor, shared: bool) -> tuple[Tensor, Tensor]:
    """Feature rows to work on, and where each query finds its row among them.

    All LR cells if they are fewer than the queries; else the distinct cells asked for, where
    the whole batch asks the same (an image is rendered, and nobody minds the wait for their
    number); else one row for each query.
    """
    rows = as_rows(feature)
    if rows.shape[1] <= index.shape[1]:
        return rows, index
    if shared:
        asked, place = torch.unique(index[0], return_inverse=True)
        return rows[:, asked], place.expand(index.shape[0], -1)
    own = torch.arange(index.shape[1], device=index.device).expand_as(index)
    return gather_cells(rows, index), own


def scopes(lr_side: int, hr_side: int, tile_px: int) -> list[tuple[int, int]]:
    """Output px ranges whose centres lie in equal LR tiles of at most `tile_px`.

    >>> scopes(100, 240, 48)
    [(0, 79), (79, 158), (158, 240)]
    """
    count = -(-lr_side // tile_px)
    edges = [i * lr_side // count for i in range(count + 1)]
    # Pixel r has its centre at (r + 1/2) lr / hr: the first one at or beyond an edge.
    starts = [-((lr_side - 2 * e * hr_side) // (2 * lr_side)) for e in edges[:-1]] + [hr_side]
    return [(a, b) for a, b in pairwise(starts) if b > a]


SPEC = register(
    ModelSpec(
        name="iste",
        family="iste",
        kind="arbitrary",
        summary="implicit self-texture enhancement; any scale",
        citation="Duan et al., Implicit self-texture enhancement, Scientific Reports 2025",
        settings=IsteSettings,
        presets={
            "paper": lambda scale: IsteSettings(
                stf_scope="image", cell_clip=False, scale_draw="batch"
            ),
            "official": lambda scale: IsteSettings(
                lfi="official", stf_scope="chunk", cell_clip=False, drop_path=0.1
            ),
            "recommended": lambda scale: IsteSettings(),
            "tiny": lambda scale: IsteSettings(
                encoder="edsr", encoder_size="tiny", hidden=64, stf_tile_px=24
            ),
        },
        build=lambda s, scale: implicit_model(
            IsteNetwork(s),
            s,
            tile_px=s.stf_tile_px,
            global_context=s.branches == "both" and s.stf,
        ),
    )
)
