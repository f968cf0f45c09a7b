"""Statistics over slides: patches of one slide are not independent samples.

A score is first averaged within each slide; slides are what is counted, resampled and tested.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from wsisr.metrics.images import MetricError

FloatArray = NDArray[np.float64]
LEAST_SLIDES = 6
"""Below six slides a signed-rank test cannot reach 0.05; no p-value is given."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A score over slides.

    Attributes
    ----------
    mean : float
        Mean of the slides' means, finite values only; NaN without any.
    deviation : float
        Standard deviation between slides; NaN for one slide.
    low, high : float
        95 % interval of the mean by bootstrap over slides; NaN for one slide.
    slides, images : int
        Counted, with at least one finite value.
    infinite : int
        Images left out because their score is not finite (identical images).
    """

    mean: float
    deviation: float
    low: float
    high: float
    slides: int
    images: int
    infinite: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Paired difference of two models over the slides that both have.

    Attributes
    ----------
    difference : float
        Mean over slides of first minus second.
    low, high : float
        95 % bootstrap interval over slides.
    p_value : float or None
        Wilcoxon signed-rank, two-sided; None below six slides.
    slides : int
    """

    difference: float
    low: float
    high: float
    p_value: float | None
    slides: int

    @property
    def distinguishable(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0.0 or self.high < 0.0


def slide_means(values: Sequence[float] | FloatArray, slides: Sequence[Any]) -> dict[Any, float]:
    """Mean of the finite values of each slide, in order of first appearance."""
    scores = np.asarray(values, dtype=np.float64)
    if scores.shape != (len(slides),):
        raise MetricError(f"{scores.shape} scores and {len(slides)} slide names do not match.")
    sums: dict[Any, list[float]] = {}
    for score, slide in zip(scores.tolist(), slides, strict=True):
        if np.isfinite(score):
            sums.setdefault(slide, []).append(score)
    return {slide: float(np.mean(part)) for slide, part in sums.items()}


def summarise(
    values: Sequence[float] | FloatArray,
    slides: Sequence[Any],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Summary:
    """Mean over slides with its bootstrap interval."""
    scores = np.asarray(values, dtype=np.float64)
    means = np.array(list(slide_means(scores, slides).values()))
    finite = int(np.isfinite(scores).sum())
    low, high = bootstrap(means, draws=draws, seed=seed)
    return Summary(
        mean=float(means.mean()) if len(means) else float("nan"),
        deviation=float(means.std(ddof=1)) if len(means) > 1 else float("nan"),
        low=low,
        high=high,
        slides=len(means),
        images=finite,
        infinite=len(scores) - finite,
    )


def compare(
    first: Mapping[Any, float], second: Mapping[Any, float], *, draws: int = 2000, seed: int = 0
) -> Comparison:
    """Compare two models by their slide means (`slide_means`).

    Raises
    ------
    MetricError
        They share no slide.
    """
    common = [slide for slide in first if slide in second]
    if not common:
        raise MetricError("The two models share no slide.")
    differences = np.array([first[slide] - second[slide] for slide in common])
    low, high = bootstrap(differences, draws=draws, seed=seed)
    p_value: float | None = None
    if len(common) >= LEAST_SLIDES:
        # All-zero differences have no ranks; they are as indistinguishable as can be.
        p_value = float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0
    return Comparison(
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_value=p_value,
        slides=len(common),
    )


def bootstrap(
    slide_values: FloatArray, *, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean over slides; NaN below two slides."""
    if len(slide_values) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(slide_values), (draws, len(slide_values)))
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(slide_values[chosen].mean(axis=1), (tail, 100.0 - tail))
    return float(low), float(high)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment; None stays None and does not count."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    running = 0.0
    for rank, (p, i) in enumerate(known):
        running = max(running, min(1.0, (len(known) - rank) * p))
        adjusted[i] = running
    return adjusted
