"""What every metric accepts: arrays or tensors, one image or a batch, uint8 or float in [0, 1]."""

from operator import index
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from wsisr.arrays import AnyArray
from wsisr.device import has_float64
from wsisr.errors import WsisrError

Images: TypeAlias = "Tensor | AnyArray"
Channel = Literal["rgb", "y", "y-rounded", "each"]

_Y_WEIGHTS = (65.481, 128.553, 24.966)
ROUNDING = 0.5 / 255.0
"""Floats this far outside of [0, 1] still round to 0 or 255: they are clamped, others refused."""


class MetricError(WsisrError, ValueError):
    """Images that cannot be scored, or a metric that lacks what it needs."""


def as_batch(images: Images, name: str = "images") -> tuple[Tensor, bool]:
    """A batch (N, 3, H, W) of float64 grey levels 0..255, and whether one image was given.

    uint8 is taken as it is; floats are taken as [0, 1], and clamped where they leave it by no
    more than `ROUNDING`. Nothing is rounded here. NaN stays NaN.

    Raises
    ------
    MetricError
        No array or tensor; neither (N, 3, H, W), (3, H, W) nor (H, W, 3); neither uint8 nor
        floating; floats outside of [0, 1].
    """
    x = _tensor(images, name)
    x = x if has_float64(x.device) else x.cpu()
    single = x.ndim == 3
    if single:
        if isinstance(images, Tensor) and x.shape[0] == 3:
            x = x[None]
        elif x.shape[-1] == 3:
            x = x.permute(2, 0, 1)[None]
        elif x.shape[0] == 3:
            x = x[None]
    elif x.ndim == 4 and x.shape[1] != 3 and x.shape[-1] == 3:
        x = x.permute(0, 3, 1, 2)
    if x.ndim != 4 or x.shape[1] != 3:
        raise MetricError(
            f"The {name} must be RGB: (N, 3, H, W), (3, H, W) or (H, W, 3), not {tuple(x.shape)}."
        )
    if x.dtype == torch.uint8:
        return x.double(), single
    return x.double().clamp(0.0, 1.0) * 255.0, single


def _tensor(images: Images, name: str) -> Tensor:
    """Images as a tensor of values that can only mean one thing."""
    if isinstance(images, np.ma.MaskedArray):
        raise MetricError(f"The {name} are masked, and metrics know no masks; crop them instead.")
    if not isinstance(images, Tensor | np.ndarray):
        raise MetricError(
            f"The {name} must be a numpy array or a torch tensor, not "
            f"{type(images).__module__}.{type(images).__qualname__}; np.asarray(image) makes one "
            "of a PIL image, np.stack(images) of a list."
        )
    floating = (
        images.is_floating_point() if isinstance(images, Tensor) else images.dtype.kind == "f"
    )
    if not floating and not _is_uint8(images):
        raise MetricError(
            f"The {name} must be uint8 or floating in [0, 1], not {images.dtype}: grey levels "
            "0..255 need astype(uint8), other depths a division by their largest value."
        )
    if min(images.shape, default=0) < 1:
        raise MetricError(f"The {name} are empty: {tuple(images.shape)}.")
    if isinstance(images, Tensor):
        x = images.detach()
    else:
        # torch warns of arrays that may not be written (a decoded image's are): those are copied.
        native = images.dtype.newbyteorder("=") if images.dtype.itemsize <= 8 else np.float64
        x = torch.as_tensor(np.require(images, native, ("C", "W")))
    if floating:
        low, high = map(float, x.aminmax())
        if low != low:  # NaN hides the others
            low, high = map(float, x.nan_to_num(nan=0.0).aminmax())
        if low < -ROUNDING or high > 1.0 + ROUNDING:
            raise MetricError(
                f"The {name} hold {low:.4g} to {high:.4g}, and floats are taken as [0, 1]: divide "
                "by 255 what is in grey levels, clamp what a network overshoots."
            )
    return x


def as_pair(
    sr: Images, hr: Images, *, channel: Channel = "rgb", crop: int = 0, rounding: bool = True
) -> tuple[Tensor, Tensor, bool]:
    """Both images as float64 (N, C, H, W) on one device, rounded, converted and cropped."""
    first, single = as_batch(sr, "SR images")
    second, _ = as_batch(hr, "HR images")
    if first.shape != second.shape:
        raise MetricError(
            f"SR {tuple(first.shape)} and HR {tuple(second.shape)} differ in shape; crop HR to "
            "round(h * scale) before it is degraded (wsisr.degradation.crop_to_scale)."
        )
    second = second.to(first.device)
    pair = []
    for x, given in ((first, sr), (second, hr)):
        if rounding and not _is_uint8(given):
            x = torch.floor(x + 0.5)
        x = to_channel(x, channel)
        pair.append(crop_border(x, crop))
    return pair[0], pair[1], single


def as_uint8(images: Images, name: str = "images") -> Images:
    """Images rounded to 8 bit, halves up, as `as_pair` rounds them; uint8 is taken as it is.

    Images with NaN stay as they are: no 8-bit value means "not a number".
    """
    x = _tensor(images, name)
    if x.dtype == torch.uint8 or bool(torch.isnan(x).any()):
        return images
    return torch.floor(x.double().clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8)


def _is_uint8(images: Images) -> bool:
    return images.dtype in (torch.uint8, np.uint8)


def to_channel(x: Tensor, channel: Channel) -> Tensor:
    """RGB grey levels -> RGB, or luma Y (BT.601 studio swing, 16..235), shape (N, 1, H, W)."""
    if channel in ("rgb", "each"):
        return x
    if channel not in ("y", "y-rounded"):
        raise MetricError(f"No channel {channel!r}; there are rgb, each, y and y-rounded.")
    weights = torch.tensor(_Y_WEIGHTS, dtype=x.dtype, device=x.device)
    luma = 16.0 + (x * weights[:, None, None]).sum(1, keepdim=True) / 255.0
    return torch.floor(luma + 0.5) if channel == "y-rounded" else luma


def crop_border(x: Tensor, crop: int) -> Tensor:
    """Drop `crop` px at each side."""
    try:
        crop = index(crop)
    except TypeError:
        raise MetricError(
            f"A crop is a whole number of px, not {crop!r}; at real scales take ceil(scale)."
        ) from None
    if crop < 0 or 2 * crop >= min(x.shape[-2:]):
        raise MetricError(f"A crop of {crop} px leaves nothing of {tuple(x.shape[-2:])} px.")
    return x[..., crop : x.shape[-2] - crop, crop : x.shape[-1] - crop]


def scores(values: Tensor, single: bool) -> Any:
    """Per-image scores: float for one image, float64 array (N,) for a batch."""
    array = values.detach().double().cpu().numpy()
    return float(array[0]) if single else array
