"""Deformable attention over the whole map (DAT).

Xia, Pan, Song, Li, Huang. Vision transformer with deformable attention. CVPR 2022
(arXiv 2201.00520), and its successor DAT++ (arXiv 2309.01430). Parameter names follow the
released networks.

Mechanics here: strided keys, a position table of the query's size, offsets added to the
reference points and clamped to [-1, 1] (no tanh). Reference points are symmetric (`v1`, so
that flips of the input flip the output when the table allows it) or those of DAT++ (`dat++`,
kept for parity: its grid runs past 1 and breaks that symmetry).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.device import on_gpu, wide
from wsisr.models.layers.attention import attend
from wsisr.models.layers.coordinates import grid_of

ReferencePoints = Literal["v1", "dat++"]
CPU_SCORES = 1 << 17
"""Scores of a head that a CPU computes at once where no gradient is needed."""


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of (B, C, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


def reference_axis(count: int, rule: ReferencePoints, like: Tensor) -> Tensor:
    """Reference positions of `count` keys along an axis in [-1, 1]."""
    centres = torch.arange(count, device=like.device, dtype=like.dtype) + 0.5
    # With one key DAT++'s formula divides by zero; the centre is the only sensible place.
    if rule == "v1" or count == 1:
        return centres / count * 2 - 1
    return centres / (count - 1) * 2 - 1


def query_axis(count: int, like: Tensor) -> Tensor:
    """Positions of pixels with -1 and 1 at the outermost centres (align_corners=True)."""
    if count == 1:
        return torch.zeros(1, device=like.device, dtype=like.dtype)
    return torch.linspace(-1, 1, count, device=like.device, dtype=like.dtype)


class DeformableAttention(nn.Module):
    """Every pixel attends to keys sampled at learned places.

    Parameters
    ----------
    width, heads, groups : int
        Channels, attention heads, and groups that share one offset network.
    stride_px, kernel_px : int
        Stride (input side over key side) and kernel of the offset network.
    table_px : int
        Input side that the position table has one entry per displacement for (the training LR
        side). Other sides sample the same continuous table.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        groups: int,
        stride_px: int,
        kernel_px: int,
        table_px: int,
        reference_points: ReferencePoints,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.groups = groups
        self.reference_points = reference_points
        per_group = width // groups
        self.conv_offset = nn.Sequential(
            nn.Conv2d(
                per_group,
                per_group,
                kernel_px,
                stride=stride_px,
                padding=kernel_px // 2,
                groups=per_group,
            ),
            ChannelNorm(per_group),
            nn.GELU(),
            nn.Conv2d(per_group, 2, 1, bias=False),
        )
        self.proj_q = nn.Conv2d(width, width, 1)
        self.proj_k = nn.Conv2d(width, width, 1)
        self.proj_v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)
        side = 2 * table_px - 1
        self.rpe_table = nn.Parameter(
            nn.init.trunc_normal_(torch.empty(heads, side, side), std=0.01)
        )

    def key_positions(self, q: Tensor) -> Tensor:
        """(B, C, h, w) queries -> (B G, hk, wk, 2) positions in [-1, 1], at least float32."""
        b, _, height, width = q.shape
        offset = self.conv_offset(q.reshape(b * self.groups, -1, height, width))
        offset = wide(offset.permute(0, 2, 3, 1))
        reference = grid_of(
            reference_axis(offset.shape[1], self.reference_points, offset),
            reference_axis(offset.shape[2], self.reference_points, offset),
        )
        return (offset + reference).clamp(-1, 1)

    def position_bias(self, positions: Tensor, queries: Tensor) -> Tensor:
        """Scores from the table for queries (n, 2) in [-1, 1], (B, heads, n, keys)."""
        # As (column, row), halved: sampling wants them so, and here they are few.
        keys = positions.flatten(1, 2).flip(-1) * 0.5
        shift = (queries.flip(-1) * 0.5)[None, :, None] - keys[:, None]
        side = self.rpe_table.shape[-1]
        table = self.rpe_table.to(positions.dtype).reshape(self.groups, -1, side, side)
        batch = len(keys) // self.groups
        table = table.expand(batch, -1, -1, -1, -1).flatten(0, 1)
        bias = F.grid_sample(table, shift, mode="bilinear", align_corners=True)
        return bias.reshape(batch, self.heads, *bias.shape[2:])

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, h, w, C)."""
        x = tokens.permute(0, 3, 1, 2)
        b, c, height, width = x.shape
        queries = self.proj_q(x)
        positions = self.key_positions(queries)
        source = x.reshape(b * self.groups, -1, height, width).to(positions.dtype)
        sampled = F.grid_sample(
            source, positions.flip(-1), mode="bilinear", align_corners=True
        ).reshape(b, c, *positions.shape[1:3])
        sampled = sampled.to(x.dtype)

        def heads_of(t: Tensor) -> Tensor:
            return t.reshape(b, self.heads, c // self.heads, -1).transpose(2, 3).contiguous()

        q, k, v = (heads_of(t) for t in (queries, self.proj_k(sampled), self.proj_v(sampled)))
        places = grid_of(query_axis(height, positions), query_axis(width, positions)).flatten(0, 1)
        at_once = height * width
        if not (torch.is_grad_enabled() or on_gpu(x.device)):
            # The same, in pieces that stay in a processor's cache.
            at_once = max(1, CPU_SCORES // k.shape[2])
        parts = [
            attend(
                q[:, :, i : i + at_once],
                k,
                v,
                self.position_bias(positions, places[i : i + at_once]),
                pad_head=on_gpu(x.device),
            )
            for i in range(0, height * width, at_once)
        ]
        out = torch.cat(parts, dim=2).transpose(2, 3).reshape(b, c, height, width)
        return self.proj_out(out).permute(0, 2, 3, 1)
