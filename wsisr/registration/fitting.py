"""Robust straight lines."""

from dataclasses import dataclass

import numpy as np

from wsisr.arrays import BoolArray, Float64Array

TUKEY = 4.685
"""Cut-off in robust standard deviations: 95 % efficiency on Gaussian data."""
FLOOR = 1e-4
"""Scatter below which points count as exact, in units of the values."""
MIN_FOR_SLOPE = 10
"""Points below which no slope is believed."""
SIGNIFICANT = 4.0
"""Standard errors that a slope must reach."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """``value = offset + slope * position``.

    Attributes
    ----------
    offset, slope : float
        The slope is 0 where it is not significant; the offset is then the robust mean.
    error : float
        Standard error of the value in the middle of the positions.
    residuals : ndarray, shape (n,)
    used : ndarray, shape (n,), bool
        Points that are no outliers.
    """

    offset: float
    slope: float
    error: float
    residuals: Float64Array
    used: BoolArray

    def at(self, position: float) -> float:
        return self.offset + self.slope * position


def robust_line(positions: Float64Array, values: Float64Array, min_change: float = 0.0) -> Line:
    """Fit a line by reweighted least squares with Tukey's weights.

    Starts from the median of pairwise slopes (Theil and Sen), so that up to 29 % outliers do
    not matter. The slope is kept where it is `SIGNIFICANT` times its standard error and
    changes the value by `min_change` or more over the range of the positions.
    """
    sloped = _fit(positions, values, True)
    change = abs(sloped[1]) * float(np.ptp(positions))
    enough = len(positions) >= MIN_FOR_SLOPE and change > 0 and change >= min_change
    if enough and abs(sloped[1]) > SIGNIFICANT * sloped[3]:
        offset, slope, error, _, weights = sloped
    else:
        offset, slope, error, _, weights = _fit(positions, values, False)
    return Line(
        offset=offset,
        slope=slope,
        error=error,
        residuals=values - offset - slope * positions,
        used=weights > 0,
    )


def _fit(
    positions: Float64Array, values: Float64Array, with_slope: bool
) -> tuple[float, float, float, float, Float64Array]:
    """Offset, slope, error of the middle, error of the slope, weights."""
    slope = _theil_sen(positions, values) if with_slope else 0.0
    offset = float(np.median(values - slope * positions))
    weights = np.ones_like(values)
    scale = FLOOR
    for _ in range(20):
        residuals = values - offset - slope * positions
        scale = max(1.4826 * float(np.median(np.abs(residuals))), FLOOR)
        u = residuals / (TUKEY * scale)
        weights = np.where(np.abs(u) < 1, (1 - u * u) ** 2, 0.0)
        total = weights.sum()
        mean_p, mean_v = weights @ positions / total, weights @ values / total
        if with_slope:
            spread = weights @ (positions - mean_p) ** 2
            if spread > 0:
                slope = float(weights @ ((positions - mean_p) * (values - mean_v)) / spread)
        offset = float(mean_v - slope * mean_p)
    mean_p = weights @ positions / weights.sum()
    spread = float(weights @ (positions - mean_p) ** 2)
    slope_error = scale / np.sqrt(spread) if spread > 0 else np.inf
    return offset, slope, float(scale / np.sqrt(weights.sum())), float(slope_error), weights


def _theil_sen(positions: Float64Array, values: Float64Array) -> float:
    first, second = np.triu_indices(len(positions), 1)
    run = positions[second] - positions[first]
    usable = run != 0
    if not usable.any():
        return 0.0
    return float(np.median((values[second] - values[first])[usable] / run[usable]))
