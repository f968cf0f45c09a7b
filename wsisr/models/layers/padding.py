"""Padding to a multiple, for any size from one pixel."""

import torch.nn.functional as F
from torch import Tensor


def _pad_axis(x: Tensor, amount: int, side: int, axis: str) -> Tensor:
    if amount == 0:
        return x
    # Reflection raises unless the pad is smaller than the side; edge values always work.
    mode = "reflect" if amount < side else "replicate"
    return F.pad(x, (0, amount, 0, 0) if axis == "w" else (0, 0, 0, amount), mode=mode)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad (N, C, h, w) on the right and bottom until both sides are multiples.

    Each axis is reflected, or extended by its edge values where reflection is undefined.
    """
    height, width = x.shape[-2:]
    return pad_to(x, height + -height % multiple, width + -width % multiple)


def pad_to(x: Tensor, rows: int, cols: int) -> Tensor:
    """Likewise, to a size that is no smaller."""
    height, width = x.shape[-2:]
    x = _pad_axis(x, cols - width, width, "w")
    return _pad_axis(x, rows - height, height, "h")
