"""Improvement, omission and hallucination, place by place: the triplet of opensr-test.

Aybar et al., "A comprehensive benchmark for optical remote sensing image super-resolution", IEEE
GRSL 2024, whose code (opensr-test: distance.py, correctness.py) the formulas follow. A place is
compared three ways: the enlarged LR with HR (what there was to be won), SR with HR, and SR with the
enlarged LR. Near HR is improvement, near the enlarged LR is omission, far from both is
hallucination.

Our reading for stained tissue: distances are of optical density, not of relative reflectance,
since on white glass the difference to be won is next to nothing and its quotients explode; and
places where none of the three distances passes the threshold have no class, instead of the mean of
three that say nothing.
"""

from dataclasses import dataclass

import numpy as np

from wsisr.arrays import Float32Array, UInt8Array
from wsisr.metrics.images import MetricError

THRESHOLD_OD = 0.05
"""Of a distance, mean over the channels: below it nothing is seen; some 11 % of the light, or 10
grey levels of 90."""
CURVATURE = 0.05
"""Lambda of the three scores."""
TEMPERATURE = 0.25
"""Of the softmin over them."""


@dataclass(frozen=True, kw_only=True)
class Correctness:
    """Shares of each place, which sum up to 1; NaN where nothing differs.

    Attributes
    ----------
    improvement, omission, hallucination : ndarray, shape (H, W), float32
    """

    improvement: Float32Array
    omission: Float32Array
    hallucination: Float32Array

    def means(self) -> dict[str, float]:
        """Of the places that have a class, and the share of those; NaN where no place has one."""
        seen = ~np.isnan(self.improvement)
        some = bool(seen.any())
        found = {k: float(v[seen].mean()) if some else float("nan") for k, v in vars(self).items()}
        return found | {"seen": float(seen.mean())}


def optical_density(image: UInt8Array) -> Float32Array:
    """-log10((I + 1) / 256) of each channel; 0 for white, 2.4 for black."""
    table = -np.log10((np.arange(256) + 1.0) / 256.0)
    return table.astype(np.float32)[image]


def correctness(sr: UInt8Array, hr: UInt8Array, enlarged_lr: UInt8Array) -> Correctness:
    """Class every pixel of SR, beside images of its field and grid, in place and in colour; all are
    uint8 (H, W, 3).

    Raises
    ------
    MetricError
        Shapes or types differ.
    """
    images = (sr, hr, enlarged_lr)
    if any(a.dtype != np.uint8 or a.shape != sr.shape or a.ndim != 3 for a in images):
        said = ", ".join(f"{a.dtype} {a.shape}" for a in images)
        raise MetricError(f"SR, HR and enlarged LR are uint8 RGB of one shape; these are {said}.")
    s, h, low = map(optical_density, images)
    won, missed, added = (np.abs(a - b).mean(2) for a, b in ((low, h), (s, h), (s, low)))
    seen = np.maximum(np.maximum(won, missed), added) > THRESHOLD_OD
    # Where there was nothing to be won, whatever was added is far from both.
    floor = np.float32(1e-3)
    a, b = missed / np.maximum(won, floor), added / np.maximum(won, floor)
    excess = np.maximum(a + b - 1.0, 0.0)
    bent = 1.0 - np.exp(-CURVATURE * excess)
    scores = np.stack((a + b * bent, b + a * bent, np.exp(-CURVATURE * a * b)))
    weights = np.exp(-(scores - scores.min(0)) / TEMPERATURE)
    shares = np.where(seen, weights / weights.sum(0), np.nan).astype(np.float32)
    return Correctness(improvement=shares[0], omission=shares[1], hallucination=shares[2])
