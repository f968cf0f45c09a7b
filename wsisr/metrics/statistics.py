"""Statistics over patients: images of a slide, and slides of a patient, are not independent.

A score is averaged within each slide, then over the slides of a patient; patients are what is
counted, resampled and tested. A slide whose patient is not known counts as one of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2
from typing import Any

import numpy as np
from scipy import stats

from wsisr.arrays import Float64Array, Int64Array
from wsisr.metrics.images import MetricError

Unit = tuple[str, str]
"""``("patient", name)``, or ``("slide", name)`` where the patient is not known."""
LEAST_UNITS = 6
"""Below six a two-sided signed-rank test cannot reach 0.05: there is no verdict and no interval."""
SIGNIFICANT = 0.05
POWER = 0.8
"""Share of trials in which a difference is to be told."""
LEVEL = 0.95
"""Of intervals."""
LEAST_RESAMPLED = 10
"""Below ten units the percentiles of a resampled statistic are no interval."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A score over units.

    Attributes
    ----------
    mean : float
        Mean of the units' means; NaN without any.
    low, high : float
        95 % interval of the mean (`bootstrap`); NaN below six units.
    """

    mean: float
    low: float
    high: float
    units: int


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Paired difference of two models over the units that both have.

    Attributes
    ----------
    difference : float
        Mean over units of first minus second.
    low, high : float
        95 % interval over units (`bootstrap`).
    p_value : float or None
        Wilcoxon signed-rank, two-sided; None below six units.
    """

    difference: float
    low: float
    high: float
    p_value: float | None
    units: int

    def not_worse_by(self, margin: float) -> bool:
        """Whether the first is shown to be worse than the second by less than `margin`.

        Higher is better; the lower end of the interval decides. Without an interval it is not
        shown.
        """
        return self.low > -margin

    @property
    def distinguishable(self) -> bool:
        """Whether the one pair of models is told apart: p below 0.05, and an interval without 0.

        Of two equally good models this is so in at most 5 % of trials; where several pairs are
        looked at, `holm` first.
        """
        clear = self.low > 0.0 or self.high < 0.0
        return clear and self.p_value is not None and self.p_value < SIGNIFICANT


def unit_of(slide: str, patient: str, glass: str = "") -> Unit:
    """What a slide counts for: its patient, or where nobody knows whose it is, its glass.

    A build that does not know a patient calls the slide its own, and that is no patient. Two
    scans of one glass (or two fields cut from it) are one unit whoever's it is.
    """
    return ("patient", patient) if patient and patient != slide else ("slide", glass or slide)


def slide_means(values: Sequence[float] | Float64Array, slides: Sequence[Any]) -> dict[Any, float]:
    """Mean of each slide's values, in order of first appearance.

    Raises
    ------
    MetricError
        The lengths differ, or a value is not finite: a mean that leaves it out is another set's.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.shape != (len(slides),):
        raise MetricError(f"{scores.shape} scores and {len(slides)} slide names do not match.")
    if not np.isfinite(scores).all():
        raise MetricError(
            f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite; choose "
            "the images that every model has finite scores of, or cap them, first."
        )
    sums: dict[Any, list[float]] = {}
    for score, slide in zip(scores.tolist(), slides, strict=True):
        sums.setdefault(slide, []).append(score)
    return {slide: float(np.mean(part)) for slide, part in sums.items()}


def unit_means(
    values: Sequence[float] | Float64Array, slides: Sequence[str], units: Mapping[str, Unit]
) -> dict[Unit, float]:
    """Mean over the slides of each unit (`unit_of`) of the slides' means.

    Parameters
    ----------
    values : sequence of float
        One for each image.
    slides : sequence of str
        Of each image.
    units : mapping of str to Unit
        Slide -> what it counts for.

    Raises
    ------
    MetricError
        As `slide_means`.
    """
    by_slide = slide_means(values, slides)
    return slide_means(list(by_slide.values()), [units[s] for s in by_slide])


def summarise(units: Mapping[Any, float]) -> Summary:
    """Mean over units (`unit_means`) with its interval."""
    means = np.array(list(units.values()), dtype=np.float64)
    low, high = bootstrap(means)
    mean = float(means.mean()) if len(means) else float("nan")
    return Summary(mean=mean, low=low, high=high, units=len(means))


def compare(
    first: Mapping[Any, float], second: Mapping[Any, float], *, draws: int = 2000, seed: int = 0
) -> PairedDifference:
    """Compare two models by their units' means (`unit_means`).

    Raises
    ------
    MetricError
        They share no unit.
    """
    common = [unit for unit in first if unit in second]
    if not common:
        raise MetricError("The two models share no slide and no patient.")
    differences = np.array([first[unit] - second[unit] for unit in common])
    low, high = bootstrap(differences, draws=draws, seed=seed)
    return PairedDifference(
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_value=_signed_rank(differences) if len(common) >= LEAST_UNITS else None,
        units=len(common),
    )


def smallest_difference(differences: Float64Array, *, tests: int = 1) -> float:
    """Mean difference that would have been told from 0 in four of five trials; NaN below six
    units, and of units that do not scatter: how far others would is not known from them.

    Parameters
    ----------
    differences : ndarray, shape (n,)
        One of each unit; their scatter is what counts, not their mean.
    tests : int
        Comparisons that share the level (the first of Holm's steps).

    Notes
    -----
    ``(t(1 - 0.05 / 2 tests) + t(0.8)) s / sqrt(n)`` with quantiles of n - 1 degrees of freedom.
    """
    count = len(differences)
    if count < LEAST_UNITS or not np.ptp(differences):
        return float("nan")
    reach = stats.t.ppf((1 - SIGNIFICANT / (2 * tests), POWER), count - 1).sum()
    return float(reach * np.std(differences, ddof=1) / np.sqrt(count))


def bootstrap_of(
    statistic: Callable[[Int64Array], float], units: Sequence[Any], *, draws: int = 2000
) -> tuple[float, float, int]:
    """95 % interval of something that is no mean of units (an AUC, a pooled F1); NaN below ten.

    Units are drawn with replacement and all images of each are taken; the statistic is computed
    anew. Differences of two models come from the same draws: let `statistic` give the difference.

    Parameters
    ----------
    statistic : callable
        Of indices of images; NaN where it is not defined (one class only): drawn again.
    units : sequence
        What each image counts for.

    Returns
    -------
    low, high : float
        Percentiles. They are too narrow for few units, hence none below ten.
    again : int
        Draws without a value, which were replaced.
    """
    members: dict[Any, list[int]] = {}
    for at, unit in enumerate(units):
        members.setdefault(unit, []).append(at)
    groups = [np.array(part, np.int64) for part in members.values()]
    if len(groups) < LEAST_RESAMPLED:
        return float("nan"), float("nan"), 0
    rng = np.random.default_rng(0)
    values: list[float] = []
    again = 0
    while len(values) < draws and again <= draws:
        chosen = rng.integers(0, len(groups), len(groups))
        value = statistic(np.concatenate([groups[at] for at in chosen]))
        if np.isnan(value):
            again += 1
        else:
            values.append(value)
    if len(values) < draws:
        return float("nan"), float("nan"), again
    tail = 50.0 * (1 - LEVEL)
    low, high = np.percentile(values, (tail, 100.0 - tail))
    return float(low), float(high), again


def _signed_rank(differences: Float64Array) -> float:
    # Zeros have no sign. They are dropped here and not by scipy, which then takes the normal
    # approximation: 0.043 for five differences of one sign and twenty zeros, where 0.0625 is exact.
    signed = differences[differences != 0]
    return float(stats.wilcoxon(signed).pvalue) if len(signed) else 1.0


def bootstrap(
    unit_values: Float64Array, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Expanded percentile interval, 95 %, of the mean over units; NaN below six.

    The plain percentile interval of six values covers 87 % instead of 95 %: resampling lacks the
    factor ``sqrt(n / (n - 1))`` and knows no t distribution. The percentiles are moved outwards
    by both (T. Hesterberg, What teachers should know about the bootstrap, The American
    Statistician 69, 2015, doi:10.1080/00031305.2015.1089789): 94 % of six, 95 % of ten. Of fewer
    values no percentile lies far enough out.
    """
    count = len(unit_values)
    if count < LEAST_UNITS:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, count, (draws, count))
    reach = np.sqrt(count / (count - 1)) * stats.t.ppf(0.5 + LEVEL / 2, count - 1)
    tail = 100.0 * float(stats.norm.cdf(-reach))
    low, high = np.percentile(unit_values[chosen].mean(axis=1), (tail, 100.0 - tail))
    return float(low), float(high)


def holm(p_values: Sequence[float | None], family: int | None = None) -> list[float | None]:
    """Holm's step-down adjustment; None stays None and does not count.

    Parameters
    ----------
    family : int, optional
        How many tests these were chosen from, where that is more than are given: the best of k
        models against the others comes from ``k (k - 1) / 2`` pairs.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    count = max(family or 0, len(known))
    running = 0.0
    for rank, (p, i) in enumerate(known):
        running = max(running, min(1.0, (count - rank) * p))
        adjusted[i] = running
    return adjusted


def least_units(family: int) -> int:
    """Units without which none of so many comparisons can reach 0.05 after `holm`."""
    return max(LEAST_UNITS, ceil(log2(2 * max(1, family) / SIGNIFICANT)))
