"""Thresholds that know when they are guessing.

Otsu's method always returns a number, even for an empty slide: its chief trap. Here it is
asked how well it separates, replaced by the triangle method where it does not, and held
between two physical limits outside which a cue means "certainly nothing" or "certainly tissue".

scikit-image has both methods, and they are not used here: its Otsu tells no separability and fails
on a cue of one value, its triangle takes the longer tail, on whichever side of the mode it lies,
and loading them costs a scan 0.2 s and 16 MiB.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from wsisr.arrays import Float64Array

BINS = 256
SEPARABLE = 0.70
"""Least share of the variance between the classes. One Gaussian gives 0.64, uniform values
0.75, two separate modes 0.9."""


class ThresholdVerdict(StrEnum):
    """How a threshold came about."""

    OTSU = "otsu"
    TRIANGLE = "triangle"
    NOTHING = "nothing"
    """Hardly any value reaches the lower limit: no tissue by this cue."""
    EVERYTHING = "everything"
    """Hardly any value stays below the upper limit: all tissue by this cue."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A threshold with its evidence.

    Attributes
    ----------
    value : float
        Values above it are foreground.
    separability : float
        Between-class share of the variance at Otsu's threshold, 0-1.
    limited : bool
        Whether a physical limit replaced the method's value.
    """

    value: float
    separability: float
    verdict: ThresholdVerdict
    limited: bool

    @property
    def undecided(self) -> bool:
        """Neither well separated nor settled by a physical limit."""
        return self.verdict is ThresholdVerdict.TRIANGLE and not self.limited


def otsu(values: NDArray[np.floating]) -> tuple[float, float]:
    """Otsu's threshold (IEEE Trans. SMC 9, 1979) and the separability there.

    Parameters
    ----------
    values : ndarray
        Finite values; at least one.

    Returns
    -------
    threshold, separability : float
        Separability is between-class over total variance; 0 where all values are equal.
    """
    histogram, edges = _histogram(values)
    centres = 0.5 * (edges[:-1] + edges[1:])
    weight = np.cumsum(histogram)[:-1]
    moment = np.cumsum(histogram * centres)
    total, mean = histogram.sum(), moment[-1] / histogram.sum()
    variance = float((histogram * (centres - mean) ** 2).sum() / total)
    if variance <= 0:
        return float(edges[-1]), 0.0
    share = weight / total
    inside = (share > 0) & (share < 1)
    between = np.zeros(BINS - 1)
    between[inside] = (mean * share - moment[:-1] / total)[inside] ** 2 / (share * (1 - share))[
        inside
    ]
    best = int(np.argmax(between))
    return float(edges[best + 1]), float(between[best] / variance)


def triangle(values: NDArray[np.floating]) -> float:
    """Triangle threshold (Zack, Rogers and Latt, J. Histochem. Cytochem. 25, 1977) of a
    distribution with its mode at the low end and a tail above."""
    histogram, edges = _histogram(values)
    peak = int(np.argmax(histogram))
    end = int(np.flatnonzero(histogram)[-1])
    if end - peak < 2:
        return float(edges[peak + 1])
    x = np.arange(peak, end + 1)
    line = histogram[peak] + (histogram[end] - histogram[peak]) * (x - peak) / (end - peak)
    return float(edges[peak + int(np.argmax(line - histogram[peak : end + 1])) + 1])


def guarded_threshold(values: NDArray[np.floating], floor: float, ceiling: float) -> Threshold:
    """Otsu where it separates, triangle where not, always within ``[floor, ceiling]``.

    Parameters
    ----------
    values : ndarray
        A cue at valid pixels.
    floor : float
        At or below it, nothing is tissue (noise of the background).
    ceiling : float
        Above it, everything is tissue.
    """
    if not values.size:
        return Threshold(
            value=ceiling, separability=0.0, verdict=ThresholdVerdict.NOTHING, limited=True
        )
    low, high = np.quantile(values, [0.01, 0.999])
    value, separability = otsu(values)
    if high <= floor:
        held, verdict, limited = floor, ThresholdVerdict.NOTHING, True
    elif low > ceiling:
        held, verdict, limited = ceiling, ThresholdVerdict.EVERYTHING, True
    else:
        verdict = ThresholdVerdict.OTSU
        if separability < SEPARABLE:
            value, verdict = triangle(values), ThresholdVerdict.TRIANGLE
        held = min(max(value, floor), ceiling)
        limited = bool(held != value)
    return Threshold(value=held, separability=separability, verdict=verdict, limited=limited)


def _histogram(values: NDArray[np.floating]) -> tuple[Float64Array, Float64Array]:
    # The top 0.1 % is folded into the last bin, so that a few stray pixels (black dust) do
    # not squeeze the rest into a handful of bins.
    low, high = float(values.min()), float(np.quantile(values, 0.999))
    if high <= low:
        high = low + max(1e-6, abs(low) * 1e-6)
    counts, edges = np.histogram(np.minimum(values, high), bins=BINS, range=(low, high))
    return counts.astype(np.float64), edges
