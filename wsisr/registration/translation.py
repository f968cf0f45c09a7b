"""Where an LR patch lies in its HR region if it is only moved: coarse, the paper's, sub-pixel."""

import cv2
import numpy as np

from wsisr.arrays import Float32Array
from wsisr.registration import correlation as corr


def coarse_offset(lr: Float32Array, hr: Float32Array, scale: int) -> tuple[int, int]:
    """Whole-LR-pixel place of the LR patch in the region, HR px (x, y)."""
    height, width = lr.shape
    range_x, range_y = hr.shape[1] - scale * width, hr.shape[0] - scale * height
    # Centre the coarse grid in the range, so that its ends are equally far from the borders.
    phase_x, phase_y = (range_x % scale) // 2, (range_y % scale) // 2
    reduced = corr.box_reduce(np.ascontiguousarray(hr[phase_y:, phase_x:]), scale)
    surface = cv2.matchTemplate(corr.band_pass(reduced), corr.band_pass(lr), cv2.TM_CCOEFF_NORMED)
    surface = np.nan_to_num(surface, nan=-1.0, posinf=-1.0, neginf=-1.0)
    row, column = np.unravel_index(int(np.argmax(surface)), surface.shape)
    return phase_x + scale * int(column), phase_y + scale * int(row)


def integer_ncc_offset(lr: Float32Array, hr: Float32Array, scale: int) -> tuple[int, int, float]:
    """Argmax of the paper's normalised cross-correlation and its value: x, y (HR px), NCC.

    Whole grey levels on both sides and OpenCV's bicubic enlargement, as a straightforward
    reading of PathImgSR has them.
    """
    size = (lr.shape[1] * scale, lr.shape[0] * scale)
    enlarged = cv2.resize(lr, size, interpolation=cv2.INTER_CUBIC)
    surface = cv2.matchTemplate(hr, enlarged, cv2.TM_CCOEFF_NORMED)
    surface = np.nan_to_num(surface, nan=-1.0, posinf=-1.0, neginf=-1.0)
    row, column = np.unravel_index(int(np.argmax(surface)), surface.shape)
    return int(column), int(row), float(np.clip(surface[row, column], -1.0, 1.0))


def refine_translation(
    lr: Float32Array, hr: Float32Array, scale: int, x: float, y: float, iterations: int = 3
) -> tuple[float, float]:
    """Sub-pixel place of the LR patch near a first guess, HR px.

    The estimate may lie outside the search range, where the patch is cut off; the caller
    decides what that means.
    """
    height, width = lr.shape
    range_x, range_y = hr.shape[1] - scale * width, hr.shape[0] - scale * height
    window = corr.hann(height, width)
    white = corr.laplacian_of_gaussian(lr) * window
    max_shift = max(4.0, min(height, width) / 8)
    for _ in range(iterations):
        at_x, at_y = min(max(x, 0.0), float(range_x)), min(max(y, 0.0), float(range_y))
        reduced = corr.box_reduce_at(hr, at_x, at_y, width, height, scale)
        shift_x, shift_y = corr.correlation_peak(
            white, corr.laplacian_of_gaussian(reduced) * window, max_shift
        )
        new_x, new_y = at_x + scale * shift_x, at_y + scale * shift_y
        moved = max(abs(new_x - x), abs(new_y - y))
        x, y = new_x, new_y
        if moved < 0.02:
            break
        max_shift = 2.0  # the place is known; only the neighbourhood counts now
    return x, y
