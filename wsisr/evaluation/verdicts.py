"""Which of two models is better, and when that cannot be said."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wsisr.evaluation.groups import ColumnValues
from wsisr.inference.trained import BASELINE
from wsisr.metrics.statistics import SIGNIFICANT, PairedDifference, compare, holm

TOO_FEW = "too few slides"
UNTOLD = "not distinguishable"


@dataclass(frozen=True, kw_only=True)
class GroupComparison:
    """Two groups compared in one column by one score.

    Attributes
    ----------
    first, second : str
        Labels; the difference is first minus second.
    adjusted : float or None
        p-value after Holm, over all pairs that the models of this column make.
    seed_sd : float or None
        Of the difference, where either was trained with several seeds.
    better : str
        Direction of the score.
    """

    origin: str
    score: str
    scale: float
    first: str
    second: str
    comparison: PairedDifference
    adjusted: float | None
    seed_sd: float | None
    better: str

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``not distinguishable``: the first to the second; or too few."""
        if self.comparison.p_value is None:
            return TOO_FEW
        gain = self.comparison.difference * (1.0 if self.better == "high" else -1.0)
        if (
            not self.comparison.distinguishable
            or (self.adjusted is not None and self.adjusted >= SIGNIFICANT)
            or (self.seed_sd is not None and abs(gain) <= self.seed_sd)
        ):
            return UNTOLD
        return "better" if gain > 0 else "worse"


def goodness(column: ColumnValues, better: str) -> dict[str, float]:
    """Mean over patients of each label, turned so that more is better."""
    sign = 1.0 if better == "high" else -1.0
    return {
        label: sign * float(np.mean(list(_oriented(units, better).values())))
        for label, units in column.units.items()
        if units
    }


def order(column: ColumnValues, better: str) -> list[str]:
    """Labels of a column from best to worst."""
    means = goodness(column, better)
    return sorted(means, key=means.__getitem__, reverse=True)


def compare_column(
    column: ColumnValues, better: str, *, origin: str, score: str, scale: float
) -> list[GroupComparison]:
    """Every model against bicubic, and the best against the others.

    The best is chosen by the same images, so that these pairs are a choice from all of them: Holm
    counts all (with the shown ones alone, ten equal models were told apart in 9 % of tables).
    """
    ranked = order(column, better)
    wanted = [(label, BASELINE) for label in column.units if label != BASELINE]
    if BASELINE not in ranked:
        wanted = []
    if ranked and ranked[0] != BASELINE:
        wanted += [(ranked[0], x) for x in column.units if x not in (ranked[0], BASELINE)]
    wanted = [pair for pair in wanted if all(column.units[label] for label in pair)]
    made = [
        GroupComparison(
            origin=origin,
            score=score,
            scale=scale,
            first=first,
            second=second,
            comparison=compare(*(_oriented(column.units[x], better) for x in (first, second))),
            adjusted=None,
            seed_sd=_seed_sd(column.seeds[first], column.seeds[second]),
            better=better,
        )
        for first, second in wanted
    ]
    adjusted = holm([pair.comparison.p_value for pair in made], family(column))
    return [replace(pair, adjusted=p) for pair, p in zip(made, adjusted, strict=True)]


def family(column: ColumnValues) -> int:
    """How many pairs the models of a column make."""
    return math.comb(sum(bool(units) for units in column.units.values()), 2)


def untold_from_best(pairs: Sequence[GroupComparison], best: str) -> set[str]:
    """Labels that are not distinguishable from the best of their column."""
    return {
        pair.first if pair.second == best else pair.second
        for pair in pairs
        if best in (pair.first, pair.second) and pair.verdict == UNTOLD
    }


def _oriented(units: Mapping[Any, float], better: str) -> Mapping[Any, float]:
    """Where zero is right, distances from it are compared."""
    return {k: abs(v) for k, v in units.items()} if better == "zero" else units


def _seed_sd(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Standard deviation over seeds of a difference of means; None where neither has several."""
    parts = [float(np.var(seeds, ddof=1)) for seeds in (first, second) if len(seeds) > 1]
    return math.sqrt(sum(parts)) if parts else None
