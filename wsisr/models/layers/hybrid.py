"""The blocks of HAT, and the places where MiHATP adds to them.

Chen, Wang, Zhou, Qiao, Dong. Activating more pixels in image super-resolution transformer.
CVPR 2023 (arXiv 2205.04437). Parameter names follow the released network.

Tokens are kept as (B, H, W, C) everywhere: windows and convolutions share the layout, so
nothing is permuted in memory between them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.device import on_gpu
from wsisr.models.layers.attention import (
    DropPath,
    Mlp,
    WindowAttention,
    attend,
    cut_windows,
    join_windows,
    split_heads,
    table_bias,
)
from wsisr.models.layers.blocks import ChannelAttention, conv3, run
from wsisr.models.layers.coordinates import grid_of


def extended_px(window: int, overlap: float) -> int:
    """Side of the larger windows that windows attend to."""
    return int(window * overlap) + window


def overlap_index(window: int, extended: int) -> Tensor:
    """Index into the ((window + extended - 1)^2, heads) table, (window^2, extended^2).

    Never negative. The released network subtracts where it should add and lets indices wrap:
    its table is this one rolled back by `released_roll` rows (spec: measured exact).
    """

    def grid(side: int) -> Tensor:
        return grid_of(torch.arange(side), torch.arange(side)).reshape(-1, 2)

    delta = grid(extended)[None] - grid(window)[:, None] + window - 1
    return delta[..., 0] * (window + extended - 1) + delta[..., 1]


def released_roll(window: int, extended: int) -> int:
    """Rows by which a released overlap table must be rolled: 880 for windows of 16 and 24."""
    return (extended - 2) * (window + extended)


class ChannelAttentionBlock(nn.Module):
    """conv - GELU - conv - channel attention, on (B, H, W, C)."""

    def __init__(self, width: int, compress: int, squeeze: int) -> None:
        super().__init__()
        hidden = max(1, width // compress)
        self.cab = nn.Sequential(
            conv3(width, hidden), nn.GELU(), conv3(hidden, width), ChannelAttention(width, squeeze)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cab(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return out


class HybridBlock(nn.Module):
    """HAB, or M-HAB when a third branch is given.

    X_med = SW-MSA(Xn) + alpha CAB(Xn) [+ beta third(Xn)]; Y = X_med + X;
    out = Y + MLP(LN(Y)) [+ Xn], with Xn = LN(X).

    Parameters
    ----------
    third : nn.Module or None
        Another branch on Xn, (B, H, W, C) -> same (MiHATP's deformable attention).
    add_normed : bool
        Add Xn to the output (MiHATP's equation 4 taken literally).
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        window: int,
        shifted: bool,
        mlp_hidden: int,
        compress: int,
        squeeze: int,
        alpha: float,
        drop: float = 0.0,
        third: nn.Module | None = None,
        beta: float = 0.0,
        add_normed: bool = False,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.add_normed = add_normed
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window, shifted)
        self.conv_block = ChannelAttentionBlock(width, compress, squeeze)
        self.deformable = third
        self.drop_path = DropPath(drop)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, mlp_hidden)

    def forward(self, x: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        normed = self.norm1(x)
        y = x + self.drop_path(self.attn(normed, index, mask))
        y = y + self.alpha * self.conv_block(normed)
        if self.deformable is not None:
            y = y + self.beta * self.deformable(normed)
        out = y + self.drop_path(self.mlp(self.norm2(y)))
        return out + normed if self.add_normed else out


class OverlapAttention(nn.Module):
    """OCAB: windows attend to larger windows around them.

    Keys outside the image are real zero keys that take softmax mass (score = bias, value = 0),
    as in the released network: a property that parity needs.
    """

    def __init__(self, *, width: int, heads: int, window: int, overlap: float, mlp: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.extended = extended_px(window, overlap)
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        entries = (self.window + self.extended - 1) ** 2
        self.relative_position_bias_table = nn.Parameter(
            nn.init.trunc_normal_(torch.empty(entries, heads), std=0.02)
        )
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, mlp)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        b, height, width, c = x.shape
        q, kv = self.qkv(self.norm1(x)).split((c, 2 * c), dim=-1)
        q = split_heads(cut_windows(q, self.window), self.heads).flatten(0, 1)
        reach = (self.extended - self.window) // 2
        kv = F.pad(kv, (0, 0, reach, reach, reach, reach))
        kv = kv.unfold(1, self.extended, self.window).unfold(2, self.extended, self.window)
        # (B, nh, nw, 2 C, e, e) -> (2, B nW, heads, e e, d)
        kv = kv.reshape(-1, 2, self.heads, c // self.heads, self.extended**2)
        k, v = kv.permute(1, 0, 2, 4, 3)
        bias = table_bias(self.relative_position_bias_table, index)[None]
        out = attend(q, k, v, bias, pad_head=on_gpu(x.device))
        out = out.transpose(1, 2).reshape(b, -1, self.window**2, c)
        x = x + self.proj(join_windows(out, self.window, height, width))
        return x + self.mlp(self.norm2(x))


class AttentionBlocks(nn.Module):
    """Hybrid blocks, then overlapping cross-attention."""

    checkpointing = False

    def __init__(self, blocks: list[HybridBlock], overlap: OverlapAttention) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.overlap_attn = overlap

    def forward(self, x: Tensor, index: Tensor, overlap_index: Tensor, mask: Tensor) -> Tensor:
        for block in self.blocks:
            x = run(block, self.checkpointing, x, index, mask)
        return run(self.overlap_attn, self.checkpointing, x, overlap_index)


class HybridGroup(nn.Module):
    """RHAG: blocks, a convolution, plus the input."""

    def __init__(self, blocks: AttentionBlocks, width: int) -> None:
        super().__init__()
        self.residual_group = blocks
        self.conv = conv3(width, width)

    def forward(self, x: Tensor, index: Tensor, overlap_index: Tensor, mask: Tensor) -> Tensor:
        y = self.residual_group(x, index, overlap_index, mask)
        return x + self.conv(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
