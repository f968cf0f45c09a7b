"""Local feature interactor: each LR cell attends to its 3x3 window (ISTE, eq. 2).

Two forms. `paper`: tokens {self, window mean, 8 neighbours}, softmax over the ten, scores
scaled inside the exponent (the paper's 1 / sqrt(d) outside it is a slip: it would shrink the
output, not temper the scores). `official`: the released code, whose window is *reshaped* where
it should be transposed (tokens mix channels and places), whose keys and values are cut from the
gradient, and whose softmax has an eleventh entry that carries no value.

Exact fast form: keys and values are linear, so the mean token's key and value are the mean of
the window's, its score the mean of the scores; nothing but nine shifted views is needed.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pad_one(x: Tensor) -> Tensor:
    """One pixel of reflection around (N, C, h, w), edge values where a side is a single pixel."""
    for side, pad in ((x.shape[-1], (1, 1, 0, 0)), (x.shape[-2], (0, 0, 1, 1))):
        x = F.pad(x, pad, mode="reflect" if side > 1 else "replicate")
    return x


class PaperInteractor(nn.Module):
    """The text's form; full gradient."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, feature: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        _, c, height, width = feature.shape
        d = c // self.heads
        q = self.q(feature.permute(0, 2, 3, 1))
        q = q.reshape(*q.shape[:3], self.heads, d)
        k, v = self.kv(pad_one(feature).permute(0, 2, 3, 1)).split((c, c), dim=-1)

        def window(t: Tensor) -> list[Tensor]:
            return [
                t[:, i : i + height, j : j + width].reshape(q.shape)
                for i in range(3)
                for j in range(3)
            ]

        scores = torch.stack([(q * key).sum(dim=-1) for key in window(k)], dim=-1) * d**-0.5
        scores = torch.cat((scores, scores.mean(dim=-1, keepdim=True)), dim=-1)
        weights = scores.softmax(dim=-1)
        # The mean token's share falls equally on the nine values of the window.
        weights = weights[..., :9] + weights[..., 9:] / 9
        out = torch.zeros_like(q)
        for i, value in enumerate(window(v)):
            out = out + weights[..., i : i + 1].to(value.dtype) * value
        return self.proj(out.flatten(-2)).permute(0, 3, 1, 2)


class OfficialInteractor(nn.Module):
    """The released code's form, without its unused convolution."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qk_linear = nn.Linear(width, 2 * width)
        self.kv_linear = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, feature: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w); no gradient reaches `feature` through keys and values."""
        n, c, height, width = feature.shape
        d = c // self.heads
        centre = feature.flatten(2).transpose(1, 2)
        q, own = self.qk_linear(centre).view(n, -1, 2, self.heads, d).unbind(2)
        # unfold's row is channel-major, C x 9; read as 9 x C it is the released layout.
        tokens = F.unfold(pad_one(feature.detach()), 3).transpose(1, 2).reshape(n, -1, 9, c)
        k, v = self.kv_linear(tokens).view(n, -1, 9, 2, self.heads, d).unbind(3)
        scores = torch.einsum("nqhd,nqthd->nqht", q * d**-0.5, k)
        mean = scores.mean(dim=-1, keepdim=True)
        self_score = (q * own).sum(dim=-1, keepdim=True)
        weights = torch.cat((mean, scores, self_score), dim=-1).softmax(dim=-1)
        weights = weights[..., 1:10] + weights[..., :1] / 9
        out = torch.einsum("nqht,nqthd->nqhd", weights.to(v.dtype), v)
        return self.proj(out.flatten(-2)).transpose(1, 2).reshape(n, c, height, width)


def build_interactor(
    form: Literal["paper", "official", "none"], width: int, heads: int
) -> nn.Module:
    """The interactor of a form; `none` (ablation) passes features through."""
    if form == "none":
        return nn.Identity()
    return (PaperInteractor if form == "paper" else OfficialInteractor)(width, heads)
