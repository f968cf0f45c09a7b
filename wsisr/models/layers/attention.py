"""Window attention through torch's fused kernel.

All forms here are exact: softmax(scale q k + bias + mask) v. The reference networks build the
score matrix; the fused kernel does not.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsisr.device import on_gpu

MASKED = -100.0
"""Added to scores between regions that the cyclic shift brought together (as Swin does)."""


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, pad_head: bool) -> Tensor:
    """Attention with an additive bias, heads in dimension 1.

    Parameters
    ----------
    q, k, v : Tensor
        (B, heads, n, d), (B, heads, m, d), (B, heads, m, d).
    bias : Tensor or None
        Broadcastable to (B, heads, n, m); cast to the type of `q`.
    pad_head : bool
        Zero-pad d to a multiple of 8: CUDA's memory-efficient kernel refuses other sizes and
        falls back to the score matrix. The result is the same.
    """
    d = q.shape[-1]
    scale = d**-0.5
    if pad_head and d % 8:
        q, k, v = (F.pad(t, (0, -d % 8)) for t in (q, k, v))
    # The fused kernels refuse other strides and fall back to the score matrix.
    q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
    if bias is not None:
        bias = bias.to(q.dtype)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    return out[..., :d]


def cut_windows(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) -> (B, H/w * W/w, w * w, C); H, W multiples of the window."""
    b, h, w, c = x.shape
    x = x.view(b, h // window, window, w // window, window, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(b, -1, window * window, c)


def join_windows(x: Tensor, window: int, height: int, width: int) -> Tensor:
    """Inverse of `cut_windows`."""
    b, _, _, c = x.shape
    x = x.view(b, height // window, width // window, window, window, c)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(b, height, width, c)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, nW, n, C) -> (B, nW, heads, n, C / heads)."""
    return x.reshape(*x.shape[:3], heads, -1).transpose(2, 3)


def relative_index(window: int) -> Tensor:
    """Index into the ((2w-1)^2, heads) table for each (query, key) of a window, (n, n)."""
    rows, cols = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    rows, cols = rows.flatten(), cols.flatten()
    drow = rows[:, None] - rows[None, :] + window - 1
    dcol = cols[:, None] - cols[None, :] + window - 1
    return drow * (2 * window - 1) + dcol


def table_bias(table: Tensor, index: Tensor) -> Tensor:
    """Look the position table up: (entries, heads) at (n, m) -> (heads, n, m)."""
    return table[index.flatten()].view(*index.shape, -1).permute(2, 0, 1)


def shift_mask(height: int, width: int, window: int, like: Tensor) -> Tensor:
    """0 or `MASKED` between the pixels of each window after a cyclic shift by half a window.

    Returns (nW, n, n) of the type and device of `like`. Made of a handful of elementwise
    operations each forward pass, so that there is no cache to move or to trace through.
    """
    shift = window // 2

    def regions(side: int) -> Tensor:
        i = torch.arange(side, device=like.device)
        return (i >= side - window).long() + (i >= side - shift).long()

    ids = regions(height)[:, None] * 3 + regions(width)[None, :]
    ids = cut_windows(ids[None, :, :, None], window)[0, :, :, 0]
    different = ids[:, :, None] != ids[:, None, :]
    return torch.zeros_like(different, dtype=like.dtype).masked_fill(different, MASKED)


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows with a relative position table (Swin).

    The shift mask is folded into the bias, windows into the head dimension, so that one mask
    of (windows x heads) serves the whole batch.

    `shifted`: the map is rolled by half a window before, and back after.
    """

    def __init__(self, width: int, heads: int, window: int, shifted: bool) -> None:
        super().__init__()
        self.shift = window // 2 if shifted else 0
        self.heads = heads
        self.window = window
        self.relative_position_bias_table = nn.Parameter(
            nn.init.trunc_normal_(torch.empty((2 * window - 1) ** 2, heads), std=0.02)
        )
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, index: Tensor, mask: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C); `mask` from `shift_mask`, for those that are shifted."""
        b, height, width, _ = x.shape
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        bias = table_bias(self.relative_position_bias_table, index)
        qkv = cut_windows(self.qkv(x), self.window)
        n_windows, n = qkv.shape[1:3]
        # (B, nW, n, 3, heads, d) -> three of (B, nW, heads, n, d)
        q, k, v = qkv.view(b, n_windows, n, 3, self.heads, -1).permute(3, 0, 1, 4, 2, 5)
        if self.shift:
            q, k, v = (t.flatten(1, 2) for t in (q, k, v))
            bias = (bias[None] + mask[:, None]).flatten(0, 1)[None]
        else:
            q, k, v = (t.flatten(0, 1) for t in (q, k, v))
            bias = bias[None]
        out = attend(q, k, v, bias, pad_head=on_gpu(x.device))
        out = out.reshape(b, n_windows, self.heads, n, -1).transpose(2, 3).flatten(3)
        out = self.proj(join_windows(out, self.window, height, width))
        return out.roll((self.shift, self.shift), dims=(1, 2)) if self.shift else out


class Mlp(nn.Module):
    """Linear - GELU - Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class DropPath(nn.Module):
    """Drop a residual branch for whole samples in training (stochastic depth)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0.0:
            return x
        keep = 1.0 - self.probability
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        return x * (torch.rand(shape, device=x.device, dtype=x.dtype) < keep) / keep


class PatchNorm(nn.Module):
    """The LayerNorm that the released networks call patch embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


def init_transformer(module: nn.Module) -> None:
    """Linear layers: truncated normal 0.02 and zero bias (for ``Module.apply``)."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
