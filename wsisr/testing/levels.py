"""Lower levels with known displacement: the exact relation between level 0 and level n.

A level pixel-edge coordinate ``u`` shows the level-0 position
``factor * u * (1 + slope) + shift`` on each axis: a positive shift means that the level shows what
lies further right (or down) in level 0, and so a patch of it is found at ``+shift`` in level 0.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsisr.arrays import Float32Array, Float64Array, UInt8Array, UInt16Array

HALF_TAPS = 8
KAISER_BETA = 8.0


@dataclass(frozen=True, kw_only=True)
class LevelShift:
    """Displacement of one level against level 0.

    Attributes
    ----------
    factor : int
        Level-0 px per level px.
    x_px, y_px : float
        Shift in level-0 px.
    slope_x, slope_y : float
        Relative stretch; a slope of 1e-4 adds 0.8 level-0 px over 8,000.
    """

    factor: int
    x_px: float = 0.0
    y_px: float = 0.0
    slope_x: float = 0.0
    slope_y: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether the level is an exact box mean of level-0 pixels."""
        return (
            float(self.x_px).is_integer()
            and float(self.y_px).is_integer()
            and self.slope_x == 0.0
            and self.slope_y == 0.0
        )

    def along(self, axis: str) -> tuple[float, float]:
        """Shift (level-0 px) and slope of ``"x"`` or ``"y"``."""
        return (self.x_px, self.slope_x) if axis == "x" else (self.y_px, self.slope_y)

    def source_span(self, axis: str, start: int, length: int) -> tuple[int, int]:
        """Level-0 pixels ``[first, last)`` that level pixels ``[start, start + length)`` need."""
        shift, slope = self.along(axis)
        ends = [self.factor * u * (1 + slope) + shift for u in (start, start + length)]
        margin = 0 if self.whole else HALF_TAPS + 1
        return int(np.floor(ends[0])) - margin, int(np.ceil(ends[1])) + margin


def reduce_shifted(
    source: UInt8Array,
    corner: tuple[int, int],
    shift: LevelShift,
    region: tuple[int, int, int, int],
) -> UInt8Array:
    """Pixels of a displaced level from the level-0 pixels around them.

    Parameters
    ----------
    source : ndarray, shape (h, w, 3), uint8
        Level-0 region that covers `LevelShift.source_span` on both axes.
    corner : (int, int)
        Its origin (x, y), level-0 px.
    region : (int, int, int, int)
        What is wanted (x, y, width, height), level pixels.

    Returns
    -------
    ndarray, shape (height, width, 3), uint8
        Means rounded half up.
    """
    f = shift.factor
    x, y, width, height = region
    if shift.whole:
        left, top = f * x + int(shift.x_px) - corner[0], f * y + int(shift.y_px) - corner[1]
        part = source[top : top + f * height, left : left + f * width]
        return _box_mean(part, f)
    rows = _resample(source.astype(np.float32), corner[1], shift, "y", (y, height))
    both = _resample(rows.swapaxes(0, 1), corner[0], shift, "x", (x, width)).swapaxes(0, 1)
    return np.clip(np.floor(both + 0.5), 0, 255).astype(np.uint8)


def _box_mean(part: UInt8Array, f: int) -> UInt8Array:
    if f == 1:
        return part.copy()
    # Sums of f * f values up to 255 fit 16 bits up to f = 16.
    total: UInt16Array | NDArray[np.uint32]
    total = part[0::f].astype(np.uint16) if f <= 16 else part[0::f].astype(np.uint32)
    for k in range(1, f):
        total += part[k::f]
    wide = total[:, 0::f].copy()
    for k in range(1, f):
        wide += total[:, k::f]
    count = f * f
    wide += count // 2
    wide //= count
    return wide.astype(np.uint8)


def _resample(
    source: Float32Array, source_start: int, shift: LevelShift, axis: str, span: tuple[int, int]
) -> Float32Array:
    """Box means along axis 0, which is `axis` of the level, at fractional positions."""
    f, (offset, slope), (start, length) = shift.factor, shift.along(axis), span
    position = f * np.arange(start, start + length) * (1 + slope) + offset
    whole = np.floor(position).astype(np.int64)
    # Without a slope every pixel has the same phase, and the weights are found once.
    phase = (position - whole)[: None if slope else 1]
    first = whole - source_start
    out = np.zeros((length, *source.shape[1:]), np.float32)
    for tap in range(-HALF_TAPS + 1, f + HALF_TAPS):
        # Sample m of the box lies at whole + phase + m; sum the kernel over all of them.
        away = tap - (phase[:, None] + np.arange(f))
        weight = _kernel(away).sum(1) / f
        out += (
            weight.astype(np.float32).reshape(-1, *(1,) * (source.ndim - 1)) * source[first + tap]
        )
    return out


def _kernel(distance: Float64Array) -> Float64Array:
    inside = np.clip(1.0 - (distance / HALF_TAPS) ** 2, 0.0, None)
    return np.sinc(distance) * np.i0(KAISER_BETA * np.sqrt(inside)) / np.i0(KAISER_BETA)
