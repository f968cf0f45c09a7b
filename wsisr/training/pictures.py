"""Sample grids: LR, bicubic, SR, HR and the error of each, under a labelled strip."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from wsisr.files import save_picture
from wsisr.metrics.pixel import psnr

TILE_PX = 192
STRIP_PX = 18
GAP_PX = 4
ERROR_GAIN = 4.0
"""Errors are drawn this many times as large, on mid grey."""

UInt8Array = NDArray[np.uint8]


def sample_grid(
    images: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], scale: float
) -> UInt8Array:
    """A picture with one row for each sample.

    Parameters
    ----------
    images : sequence of (lr, bicubic, sr, hr)
        Floats in [0, 1], (3, h, w) and three times (3, H, W), on the CPU.
    scale : float

    Returns
    -------
    ndarray, uint8, shape (height, width, 3)
    """
    rows = []
    for lr, bicubic, sr, hr in images:
        side = int(hr.shape[-1])
        strips = (
            (f"LR x{scale:g}", lr),
            (f"bicubic {float(psnr(bicubic, hr)):.2f} dB", bicubic),
            (f"SR {float(psnr(sr, hr)):.2f} dB", sr),
            ("HR", hr),
            (f"SR - HR, {ERROR_GAIN:g} times", ((sr - hr) * ERROR_GAIN * 0.5 + 0.5)),
        )
        rows.append(_row([(text, _pixels(image)) for text, image in strips], max(TILE_PX, side)))
    return np.concatenate(rows, axis=0)


def write_grid(path: Path, grid: UInt8Array) -> None:
    """As a PNG."""
    save_picture(path, grid)


def _pixels(image: Tensor) -> UInt8Array:
    array = image.detach().float().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    return np.ascontiguousarray(array)


def _row(tiles: Sequence[tuple[str, UInt8Array]], side: int) -> UInt8Array:
    width = len(tiles) * (side + GAP_PX) - GAP_PX
    canvas = Image.new("RGB", (width, side + STRIP_PX + GAP_PX), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    for place, (text, pixels) in enumerate(tiles):
        left = place * (side + GAP_PX)
        draw.text((left + 2, 3), text, fill=(0, 0, 0))
        # Nearest: the reader must see pixels, not another interpolation.
        tile = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
        canvas.paste(tile, (left, STRIP_PX))
    return np.asarray(canvas)
