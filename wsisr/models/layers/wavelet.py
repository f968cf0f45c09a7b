"""Haar transform of images, in the convention of MWCNN and SWD-Net.

A 2x2 block (a b / c d) gives LL = (a + b + c + d) / 2, and HH = (a - b - c + d) / 2, which is the
filter of CWT-Net's equation 4. The transform is orthonormal.
"""

import torch
from torch import Tensor


def _corners(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = x / 2
    return x[..., 0::2, 0::2], x[..., 0::2, 1::2], x[..., 1::2, 0::2], x[..., 1::2, 1::2]


def haar(x: Tensor) -> Tensor:
    """(N, C, 2h, 2w) -> (N, 4C, h, w): LL, HL (columns differ), LH (rows differ), HH."""
    a, b, c, d = _corners(x)
    return torch.cat((a + b + c + d, b - a + d - c, c - a + d - b, a - b - c + d), dim=1)


def haar_diagonal(x: Tensor) -> Tensor:
    """(N, C, 2h, 2w) -> (N, C, h, w): HH alone."""
    a, b, c, d = _corners(x)
    return a - b - c + d


def inverse_haar(bands: Tensor) -> Tensor:
    """Inverse of `haar`: (N, 4C, h, w) -> (N, C, 2h, 2w)."""
    ll, hl, lh, hh = (bands / 2).chunk(4, dim=1)
    top = torch.stack((ll - hl - lh + hh, ll + hl - lh - hh), dim=-1).flatten(-2)
    bottom = torch.stack((ll - hl + lh - hh, ll + hl + lh + hh), dim=-1).flatten(-2)
    return torch.stack((top, bottom), dim=-2).flatten(-3, -2)
