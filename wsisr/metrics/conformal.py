"""How much of an image may be trusted, with a stated bound: conformal risk control.

Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal risk control", arXiv 2208.02814. A score of
doubt is known for every place; places below a threshold are trusted; the loss of a patient is how
much error the trusted places hold, which only grows with the threshold. The largest threshold whose
corrected mean loss over n patients is at most alpha has an expected loss of at most alpha for the
next patient, if that one is exchangeable with them (same scanner, stain and model). It is an
expectation over draws of all patients: a single one may be worse.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from wsisr.arrays import Float64Array
from wsisr.metrics.images import MetricError


@dataclass(frozen=True, kw_only=True)
class TrustThreshold:
    """What was found.

    Attributes
    ----------
    threshold : float
        Doubt up to which a place is trusted.
    smallest_alpha : float
        What so many patients can promise at all: 1 / (n + 1).
    loss : float
        Mean loss of these patients at the threshold.
    trusted : float
        Mean share of their places that is trusted.
    """

    threshold: float
    smallest_alpha: float
    loss: float
    trusted: float


def patients_needed(alpha: float) -> int:
    """The fewest patients with which a bound of `alpha` can be promised: 1 / alpha - 1."""
    return ceil(1.0 / alpha - 1.0 - 1e-9)


def trust_threshold(
    doubts: Sequence[Float64Array], errors: Sequence[Float64Array], alpha: float
) -> TrustThreshold:
    """The largest threshold of doubt whose trusted places keep the bound.

    Parameters
    ----------
    doubts, errors : sequence of ndarray, shape (places,)
        For each patient: the doubt of every place of tissue, and its error in [0, 1] (1 where a
        place is wrong, say). The loss of a patient is the sum of the errors of its trusted places
        over the number of all its places.
    alpha : float
        Between 0 and 1.

    Raises
    ------
    MetricError
        Fewer patients than `patients_needed`; errors outside of [0, 1]; a patient without places;
        doubt that is no number; or even the least doubtful places break the bound.
    """
    n = len(doubts)
    if not 0.0 < alpha < 1.0:
        raise MetricError(f"alpha is a share between 0 and 1, not {alpha:g}.")
    if n < patients_needed(alpha):
        raise MetricError(
            f"{n} patients cannot promise an expected error of at most {alpha:g}: that takes "
            f"{patients_needed(alpha)} (with {n}, {1 / (n + 1):.3f} is the least)."
        )
    for doubt, error in zip(doubts, errors, strict=True):
        if doubt.shape != error.shape or doubt.ndim != 1 or not len(doubt):
            raise MetricError("Every patient needs places, each with a doubt and an error.")
        if not np.isfinite(doubt).all() or not ((error >= 0.0) & (error <= 1.0)).all():
            raise MetricError("Doubt must be a number, and errors lie between 0 and 1.")
    places = np.concatenate(doubts)
    weights = np.concatenate([e / len(e) for e in errors]) / n
    shares = np.concatenate([np.full(len(d), 1.0 / len(d)) for d in doubts]) / n
    order = np.argsort(places, kind="stable")
    loss, trusted = np.cumsum(weights[order]), np.cumsum(shares[order])
    # A threshold takes all places of its doubt: only the last of equal ones counts.
    last = np.append(np.diff(places[order]) > 0, True)
    kept = last & (n / (n + 1) * loss + 1.0 / (n + 1) <= alpha + 1e-12)
    if not kept.any():
        raise MetricError(
            f"No place can be trusted at {alpha:g}: even the least doubtful ones of these "
            f"{n} patients hold more error."
        )
    # The loss only grows, so that the kept ones are the first.
    at = int(np.flatnonzero(kept)[-1])
    return TrustThreshold(
        threshold=float(places[order][at]),
        smallest_alpha=1.0 / (n + 1),
        loss=float(loss[at]),
        trusted=float(trusted[at]),
    )
