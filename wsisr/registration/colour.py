"""The HR in the colours of the LR: two scanners show one stain in different mixtures.

Haematoxylin and eosin lie at different places. Where a second scanner weighs them otherwise, the
grey of one scan is not the grey of the other moved, and their correlation peaks beside the true
place, for all parts of a patch alike (measured: up to 0.1 HR px). So the grey of the LR is first
fitted by what the HR has in each of its channels.
"""

from collections.abc import Callable
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from wsisr.arrays import Float32Array, Float64Array, UInt8Array
from wsisr.registration.correlation import band_pass, grey

FIT_SIGMAS_PX = (3.0, 12.0)
"""Difference of Gaussians of the fit, LR px. Finer structure would draw the fit to whatever mixture
is as soft as the LR's lens, or mimics a shift; coarser is shading."""
RIDGE = 1e-3
"""Pull towards the plain luma, over the mean power of the channels: channels that say the same, as
in grey images, keep its weights."""
LUMA = np.array([0.299, 0.587, 0.114])
LEVELS = np.arange(256) / 255.0


def grey_tables(lr: Float32Array, hr_channels: Float32Array) -> Float32Array | None:
    """Tables that turn the HR's channels into a grey that looks as the LR does.

    Parameters
    ----------
    lr : ndarray, shape (h, w), float32
        Grey LR.
    hr_channels : ndarray, shape (h, w, 3), float32
        HR at the same place, as the LR's pixels see it, 0 to 255.

    Returns
    -------
    ndarray, shape (3, 256), float32, or None
        Their sum over the channels is the grey: per channel a straight line and a square, which
        follows other stain and gamma. None where nothing coarse is alike in both.
    """
    values = hr_channels.reshape(-1, 3) / 255.0
    terms = np.concatenate([values, values**2], axis=1).reshape(*lr.shape, 6)
    design = np.stack([_coarse(terms[..., i]).ravel() for i in range(6)], axis=1)
    wanted = _coarse(lr).ravel()
    luma = np.concatenate([LUMA, np.zeros(3)])
    plain = design @ luma
    power = float(plain @ plain)
    gain = float(plain @ wanted) / power if power > 0 else 0.0
    if not gain > 0:
        return None
    normal = design.T @ design
    pull = RIDGE * float(np.trace(normal)) / len(luma)
    right = design.T @ wanted + pull * gain * luma
    weights = np.linalg.solve(normal + pull * np.eye(len(luma)), right)
    tables = weights[:3, None] * LEVELS + weights[3:, None] * LEVELS**2
    return tables.astype(np.float32)


def in_colours_of(
    lr: Float32Array, hr: UInt8Array, seen: Callable[[Float32Array], Float32Array]
) -> Float32Array:
    """Grey (H, W) of the HR as `grey_tables` has it; its plain luma where that cannot be fitted.

    Parameters
    ----------
    lr : ndarray, shape (h, w), float32
    hr : ndarray, shape (H, W, 3), uint8, RGB
    seen : callable
        A plane of the HR, shape (H, W), as the LR's pixels see it, shape (h, w).
    """
    planes = [np.ascontiguousarray(hr[..., i]) for i in range(3)]
    tables = grey_tables(lr, np.stack([seen(p.astype(np.float32)) for p in planes], axis=-1))
    if tables is None:
        return grey(hr)
    first, second, third = (cv2.LUT(p, t) for p, t in zip(planes, tables, strict=True))
    return cast(Float32Array, first + second + third)


def _coarse(image: NDArray[np.floating]) -> Float64Array:
    plane = np.ascontiguousarray(image, dtype=np.float32)
    return band_pass(plane, FIT_SIGMAS_PX).astype(np.float64)
