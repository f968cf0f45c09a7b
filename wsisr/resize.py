"""Image resampling, exactly defined, on any device.

Five kernels, each one operator of the literature and no other:

``matlab``
    MATLAB's ``imresize`` (bicubic, a = -0.5, widened when shrinking, mirrored at the edges).
``pil``
    Pillow's ``BICUBIC``: the same kernel renormalised at the edges, and on uint8 input its
    fixed-point arithmetic bit for bit (rounded to 8 bit between the two passes).
``area``
    Mean over the exact footprint of the output pixel, for real scales too.
``bilinear``
    Triangle, widened when shrinking, mirrored at the edges.
``nearest``
    The input pixel that holds the output pixel's centre.

Pixel centres are at half-integers and both images span the same extent. OpenCV's and torch's
cubic without antialiasing are different operators (they move bicubic baselines by +1.1 to
-1.4 dB) and are deliberately absent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsisr.arrays import Float64Array, Int64Array
from wsisr.cubic import SUPPORT, cubic, mirrored, taps_around
from wsisr.device import upload
from wsisr.errors import DegradationError

Kernel = Literal["matlab", "pil", "area", "bilinear", "nearest"]
KERNELS: tuple[str, ...] = get_args(Kernel)

_BLOCK_PX = 32
"""Output pixels per block of the banded product: small enough to skip most zeros."""
_PIL_BITS = 22
TIE_BIAS = 2.0**-10
"""Added before rounding, so that exact halves round up whatever the summation order is."""


def lr_size(hr_px: int, scale: float) -> int:
    """LR side of an HR side: ``floor(H / s + 1e-9)`` (LIIF's rule).

    >>> lr_size(768, 3.3), lr_size(192, 2.4)
    (232, 80)
    """
    check_scale(scale)
    size = floor(hr_px / scale + 1e-9)
    if size < 1:
        raise DegradationError(f"An image side of {hr_px} px has nothing left at scale {scale:g}.")
    return size


def hr_size(lr_px: int, scale: float) -> int:
    """HR side that belongs to an LR side: ``round(h s)``, halves to even as in the papers' code.

    >>> hr_size(232, 3.3)
    766
    """
    check_scale(scale)
    return round(lr_px * scale)


def crop_to_scale(hr: Tensor, scale: float) -> Tensor:
    """Top-left part of HR images ``(..., H, W)`` that has an exact LR partner at `scale`."""
    height, width = hr.shape[-2:]
    return hr[
        ..., : hr_size(lr_size(height, scale), scale), : hr_size(lr_size(width, scale), scale)
    ]


def check_scale(scale: float) -> None:
    """Refuse a reduction factor below 1, or one that is no finite number."""
    if not 1.0 <= scale < 1e6:
        raise DegradationError(
            f"Scale {scale!r} is no reduction; give the factor HR / LR, at least 1 (4 for x4)."
        )


def to_grey(x: Tensor) -> Tensor:
    """Grey levels 0..255 as float -> uint8: clamped, halves up on every device."""
    return x.add(0.5 + TIE_BIAS).floor_().clamp_(0, 255).to(torch.uint8)


def resize(
    x: Tensor,
    size: tuple[int, int] | None = None,
    *,
    scale: float | None = None,
    kernel: Kernel = "matlab",
) -> Tensor:
    """Resample images to a size: (..., h, w).

    Parameters
    ----------
    x : Tensor, shape (..., H, W), uint8 or floating
        One or more planes. uint8 in gives uint8 out (rounded, clamped); floating stays what it
        is, unclamped (bicubic overshoots), and the operation is differentiable.
    size : (int, int), optional
        Output height and width; the resampling ratio is that of the sizes.
    scale : float, optional
        Output size over input size instead (MATLAB's convention: 0.25 shrinks, 4 enlarges); the
        output is ``ceil(scale * size)`` px and the ratio is exactly `scale`.
    kernel : {"matlab", "pil", "area", "bilinear", "nearest"}
        See the module's text.

    Raises
    ------
    DegradationError
        An unknown kernel, an empty size, or neither or both of `size` and `scale`.

    Notes
    -----
    ``matlab`` equals MATLAB to 1e-4 grey levels in float32 (float64: 1e-10), borders included.
    """
    if kernel not in KERNELS:
        raise DegradationError(f"No resize kernel {kernel!r}; there are {', '.join(KERNELS)}.")
    if (size is None) == (scale is None):
        raise DegradationError("Give resize exactly one of size=(height, width) and scale=.")
    if x.ndim < 2 or min(x.shape[-2:]) < 1:
        raise DegradationError(f"Images must be (..., H, W); this has shape {tuple(x.shape)}.")
    height, width = int(x.shape[-2]), int(x.shape[-1])
    ratio_y: float
    ratio_x: float
    if size is not None:
        ratio_y, ratio_x = size[0] / height, size[1] / width
    else:
        if scale is None or not 0.0 < scale < 1e6:
            raise DegradationError(f"Scale {scale!r} is not positive.")
        ratio_y = ratio_x = float(scale)
        size = (ceil(scale * height - 1e-9), ceil(scale * width - 1e-9))
    if min(size) < 1:
        raise DegradationError(f"Output size {size[0]} x {size[1]} px is empty.")
    if not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise DegradationError(f"Images must be uint8 or floating, not {x.dtype}.")
    if kernel == "nearest":
        rows = _nearest_index(height, size[0], ratio_y, x.device)
        columns = _nearest_index(width, size[1], ratio_x, x.device)
        return x.index_select(-2, rows).index_select(-1, columns)
    if kernel == "pil" and x.dtype == torch.uint8:
        return _resize_pil_exact(x, size, (ratio_y, ratio_x))
    work = x.float() if x.dtype in (torch.uint8, torch.float16, torch.bfloat16) else x
    work = _resample_axis(work, -2, size[0], ratio_y, kernel)
    work = _resample_axis(work, -1, size[1], ratio_x, kernel)
    return to_grey(work.clone()) if x.dtype == torch.uint8 else work.to(x.dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class AxisBlock:
    """The next output pixels of one axis with the input pixels that they see."""

    in_start: int
    in_stop: int
    weights: Float64Array
    """Shape (in_stop - in_start, output pixels)."""


@lru_cache(maxsize=256)
def plan_axis(in_px: int, out_px: int, ratio: float, kernel: str) -> tuple[AxisBlock, ...]:
    """Weights of one axis as a banded matrix in blocks (pure, cached)."""
    taps, weights = axis_weights(in_px, out_px, ratio, kernel)
    blocks = []
    for start in range(0, out_px, _BLOCK_PX):
        stop = min(start + _BLOCK_PX, out_px)
        index, value = taps[start:stop], weights[start:stop]
        keep = value != 0.0
        low, high = int(index[keep].min()), int(index[keep].max()) + 1
        dense = np.zeros((high - low, stop - start))
        column = np.broadcast_to(np.arange(stop - start)[:, None], index.shape)
        np.add.at(dense, (index[keep] - low, column[keep]), value[keep])
        blocks.append(AxisBlock(in_start=low, in_stop=high, weights=dense))
    return tuple(blocks)


def axis_weights(
    in_px: int, out_px: int, ratio: float, kernel: str
) -> tuple[Int64Array, Float64Array]:
    """Input pixels and weights of every output pixel of one axis.

    Returns
    -------
    taps : int64, shape (out_px, t)
        Input pixel of each tap, already mirrored or clipped into the image.
    weights : float64, shape (out_px, t)
        They sum to 1 in each row.
    """
    if kernel == "area":
        return _area_weights(in_px, out_px, ratio)
    function, support = _FUNCTIONS["bilinear" if kernel == "bilinear" else "cubic"]
    shrink = max(1.0, 1.0 / ratio)
    centre = (np.arange(out_px) + 0.5) / ratio - 0.5
    reach = support * shrink
    taps = taps_around(centre, reach)
    weights = function((centre[:, None] - taps) / shrink)
    if kernel == "pil":
        # Pillow takes whole pixels by rounding the support's ends, and renormalises.
        low = np.maximum(np.trunc(centre + 0.5 - reach + 0.5), 0)
        high = np.minimum(np.trunc(centre + 0.5 + reach + 0.5), in_px)
        inside = (taps >= low[:, None]) & (taps < high[:, None])
        weights = np.where(inside, weights, 0.0)
        taps = np.clip(taps, 0, in_px - 1)
    else:
        taps = mirrored(taps, in_px)
    return taps, weights / weights.sum(axis=1, keepdims=True)


def _area_weights(in_px: int, out_px: int, ratio: float) -> tuple[Int64Array, Float64Array]:
    low = np.arange(out_px) / ratio
    high = np.minimum((np.arange(out_px) + 1) / ratio, in_px)
    taps = np.floor(low + 1e-9).astype(np.int64)[:, None] + np.arange(ceil(1.0 / ratio) + 2)
    overlap = np.minimum(high[:, None], taps + 1) - np.maximum(low[:, None], taps)
    weights = np.where(overlap > 1e-9, overlap, 0.0)
    return np.clip(taps, 0, in_px - 1), weights / weights.sum(axis=1, keepdims=True)


def _triangle(x: NDArray[np.floating[Any]]) -> Float64Array:
    result: Float64Array = np.maximum(0.0, 1.0 - np.abs(x))
    return result


_FUNCTIONS: dict[str, tuple[Callable[[NDArray[np.floating[Any]]], Float64Array], float]] = {
    "cubic": (cubic, SUPPORT),
    "bilinear": (_triangle, 1.0),
}


@lru_cache(maxsize=1024)
def _on_device(
    plan: tuple[int, int, float, str], device: torch.device, dtype: torch.dtype, fixed_point: bool
) -> tuple[Tensor, ...]:
    # Cached tensors must stay usable for autograd even if first made under inference mode.
    with torch.inference_mode(False), torch.no_grad():
        tensors = []
        for block in plan_axis(*plan):
            weights = block.weights
            if fixed_point:
                scaled = weights * (1 << _PIL_BITS)
                weights = np.trunc(np.where(scaled < 0, scaled - 0.5, scaled + 0.5))
            tensors.append(upload(weights, device, dtype))
        return tuple(tensors)


def _resample_axis(
    x: Tensor, axis: int, out_px: int, ratio: float, kernel: str, fixed_point: bool = False
) -> Tensor:
    in_px = int(x.shape[axis])
    if out_px == in_px and ratio == 1.0:
        return x
    plan = (in_px, out_px, ratio, kernel)
    weights = _on_device(plan, x.device, x.dtype, fixed_point)
    parts = []
    for block, weight in zip(plan_axis(*plan), weights, strict=True):
        if axis == -1:
            parts.append(x[..., block.in_start : block.in_stop] @ weight)
        else:
            parts.append(weight.mT @ x[..., block.in_start : block.in_stop, :])
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=axis)


def _resize_pil_exact(x: Tensor, size: tuple[int, int], ratios: tuple[float, float]) -> Tensor:
    """Pillow's 8-bit resampling: horizontal, round, vertical, round; exact in float64.

    Pillow 13 takes the vertical pass first on images more than about twice as high as wide,
    which differs where the first pass clips; ours is the one order of all versions before.
    """
    half = float(1 << (_PIL_BITS - 1))
    grey = x.double()
    for axis, out_px, ratio in ((-1, size[1], ratios[1]), (-2, size[0], ratios[0])):
        if out_px == int(x.shape[axis]) and ratio == 1.0:
            continue
        # Sums stay below 2^33, so float64 is exact and the order of summation does not matter.
        total = _resample_axis(grey, axis, out_px, ratio, "pil", fixed_point=True)
        grey = ((total + half) / (2.0 * half)).floor_().clamp_(0, 255)
    return grey.to(torch.uint8)


def _nearest_index(in_px: int, out_px: int, ratio: float, device: torch.device) -> Tensor:
    index = np.floor((np.arange(out_px) + 0.5) / ratio + 1e-9).astype(np.int64)
    return upload(np.clip(index, 0, in_px - 1), device)
