"""Scores of classifiers: accuracy, balanced accuracy, F1 and AUC."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from wsisr.metrics.images import MetricError


def accuracy(truth: Sequence[str], said: Sequence[str]) -> float:
    """Share of images whose class is right; NaN without any."""
    right = [a == b for a, b in zip(truth, said, strict=True)]
    return float(np.mean(right)) if right else float("nan")


def balanced_accuracy(truth: Sequence[str], said: Sequence[str]) -> float:
    """Mean over the classes that occur of the share of each that is right; NaN without any."""
    right: dict[str, list[bool]] = {}
    for a, b in zip(truth, said, strict=True):
        right.setdefault(a, []).append(a == b)
    return float(np.mean([np.mean(part) for part in right.values()])) if right else float("nan")


def f1(truth: Sequence[str], said: Sequence[str], positive: str) -> float:
    """2 TP / (2 TP + FP + FN) of a class; NaN where it neither occurs nor is said."""
    pairs = list(zip(truth, said, strict=True))
    hits = sum(a == b == positive for a, b in pairs)
    wrong = sum((a == positive) != (b == positive) for a, b in pairs)
    return 2 * hits / (2 * hits + wrong) if hits or wrong else float("nan")


def auc(positive: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve: how often a positive has the higher score, ties one half.

    The Mann-Whitney statistic over all pairs; NaN where a class is missing.

    Parameters
    ----------
    positive : array of bool, shape (n,)
    score : array of float, shape (n,)
        Higher for positives.

    Raises
    ------
    MetricError
        Lengths differ, or a score is no number.
    """
    is_positive, scores = np.asarray(positive, np.bool_), np.asarray(score, np.float64)
    if is_positive.shape != scores.shape or scores.ndim != 1:
        raise MetricError(f"{is_positive.shape} classes and {scores.shape} scores do not match.")
    if np.isnan(scores).any():
        raise MetricError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores are no numbers.")
    count = int(is_positive.sum())
    others = len(scores) - count
    if not count or not others:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[is_positive].sum() - count * (count + 1) / 2) / (count * others))
