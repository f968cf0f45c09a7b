"""Bicubic resampling as dense matrices of torch operations.

The operator of `wsisr.resize(kernel="matlab")` (a test holds them equal), written so
that torch.compile and torch.export see nothing but tensor arithmetic.
"""

import torch
from torch import Tensor

from wsisr.cubic import cubic_pieces
from wsisr.device import full_precision, has_float64, wide


def _keys_kernel(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel, a = -0.5."""
    d = x.abs()
    near, far = cubic_pieces(d)
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def bicubic_matrix(in_px: int, out_px: int, like: Tensor) -> Tensor:
    """Weights (out_px, in_px) of one axis: antialiased when shrinking, mirrored at the edges.

    On the device of `like`, float64 where it has that.
    """
    home = like.device if has_float64(like.device) else torch.device("cpu")
    ratio = out_px / in_px
    shrink = max(1.0, 1.0 / ratio)
    place = torch.arange(out_px, device=home, dtype=torch.float64)
    centre = (place + 0.5) / ratio - 0.5
    taps = int(4 * shrink) + 3
    first = (centre - 2 * shrink).floor()
    tap = first[:, None] + torch.arange(taps, device=home, dtype=torch.float64)
    weight = _keys_kernel((centre[:, None] - tap) / shrink)
    weight = weight / weight.sum(dim=1, keepdim=True)
    source = tap.long().remainder(2 * in_px)
    source = torch.where(source < in_px, source, 2 * in_px - 1 - source)
    matrix = torch.zeros((out_px, in_px), device=home, dtype=torch.float64)
    matrix = matrix.scatter_add(1, source, weight)
    return matrix if home == like.device else matrix.float().to(like.device)


def apply_matrices(x: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Resample (N, C, h, w) with one matrix for each axis, in at least float32."""
    with full_precision(x):
        work = wide(x)
        out = rows.to(work.dtype) @ work @ cols.to(work.dtype).mT
    return out.to(x.dtype)


def enlarge(x: Tensor, scale: int) -> Tensor:
    """Bicubic enlargement of (N, C, h, w) by a whole number."""
    height, width = x.shape[-2:]
    rows = bicubic_matrix(height, height * scale, x)
    cols = bicubic_matrix(width, width * scale, x)
    return apply_matrices(x, rows, cols)


def blur_matrices(size: tuple[int, int], scale: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Enlarging by `scale` and reducing back, as one matrix for each axis.

    Exact: both steps are linear and separable, so the large image in between is never made.
    """
    height, width = size
    rows = bicubic_matrix(height * scale, height, like) @ bicubic_matrix(
        height, height * scale, like
    )
    if width == height:
        return rows, rows
    cols = bicubic_matrix(width * scale, width, like) @ bicubic_matrix(width, width * scale, like)
    return rows, cols
