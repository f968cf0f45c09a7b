"""Lines of the tables and their values: seeds stand together, all over the same images."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsisr.evaluation.results import ImageRow
from wsisr.evaluation.settings import scale_label
from wsisr.metrics.pixel import capped
from wsisr.metrics.statistics import Unit, unit_means, unit_of

Place = tuple[str, int]
"""Slide and row of an image."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """A line of the tables: one model, trained once or with several seeds.

    Attributes
    ----------
    members : tuple of str
        Runs.
    records : tuple of mapping
        Their entries of results.json.
    """

    label: str
    model: str
    members: tuple[str, ...]
    records: tuple[Mapping[str, Any], ...]


def group_entries(records: Sequence[Mapping[str, Any]]) -> tuple[Group, ...]:
    """Runs that differ in nothing but their seed become one line."""
    by_recipe: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        by_recipe.setdefault(record["recipe"] or record["name"], []).append(record)
    groups = []
    for members in by_recipe.values():
        seeds = {member["seed"] for member in members}
        # Equal seeds are the same run twice, not two draws.
        parts = [members] if len(seeds) == len(members) else [[member] for member in members]
        for part in parts:
            name = min((member["name"] for member in part), key=lambda n: (len(n), n))
            groups.append(
                Group(
                    label=name if len(part) == 1 else f"{name} ({len(part)} seeds)",
                    model=part[0]["model"],
                    members=tuple(member["name"] for member in part),
                    records=tuple(part),
                )
            )
    return tuple(groups)


@dataclass(frozen=True, kw_only=True)
class ColumnValues:
    """One score in one column, over the same images for every model.

    Attributes
    ----------
    units : mapping of str to (mapping of unit to float)
        Label of a group -> patient (`wsisr.metrics.statistics.unit_means`) -> mean over seeds.
    seeds : mapping of str to tuple of float
        Each seed's mean over units.
    scores : mapping of str to (mapping of (slide, row) to float)
        Mean over seeds of each image, as it counts (`capped`).
    left_out : int
        Images without a finite score of some model.
    at_cap : int
        Scores that count as the cap.
    """

    units: Mapping[str, Mapping[Unit, float]]
    seeds: Mapping[str, tuple[float, ...]]
    scores: Mapping[str, Mapping[Place, float]]
    slides: int
    left_out: int
    at_cap: int

    @property
    def images(self) -> int:
        return len(next(iter(self.scores.values()), ()))

    @property
    def counted(self) -> tuple[Unit, ...]:
        """The patients, and the glasses of unknown patients."""
        return tuple(next(iter(self.units.values()), ()))


def column_values(rows: Sequence[ImageRow], groups: Sequence[Group], score: str) -> ColumnValues:
    """Scores of the images that all models of a column have finite scores of.

    Parameters
    ----------
    rows : sequence of ImageRow
        Of one column.
    groups : sequence of Group
        Those without rows have no part in the column.
    """
    found: dict[str, dict[Place, float]] = {}
    owners: dict[str, Unit] = {}
    at_cap = 0
    for row in rows:
        place = (row.slide, row.row)
        found.setdefault(row.run, {})[place] = capped(score, row.scores[score])
        at_cap += row.scores[score] > found[row.run][place]
        owners[row.slide] = unit_of(row.slide, row.patient, row.group)
    here = {g.label: [m for m in g.members if m in found] for g in groups}
    here = {label: members for label, members in here.items() if members}
    runs = [found[m] for members in here.values() for m in members]
    seen = list(dict.fromkeys(place for values in runs for place in values))
    common = [p for p in seen if all(math.isfinite(v.get(p, math.nan)) for v in runs)]
    slides = [slide for slide, _ in common]
    units, seeds, scores = {}, {}, {}
    for label, members in here.items():
        parts = [unit_means([found[m][p] for p in common], slides, owners) for m in members]
        units[label] = {u: float(np.mean([part[u] for part in parts])) for u in parts[0]}
        seeds[label] = tuple(float(np.mean(list(part.values()))) for part in parts if part)
        scores[label] = {p: float(np.mean([found[m][p] for m in members])) for p in common}
    return ColumnValues(
        units=units,
        seeds=seeds,
        scores=scores,
        slides=len(set(slides)),
        left_out=len(seen) - len(common),
        at_cap=at_cap,
    )


def failed_runs(rows: Sequence[ImageRow], headline: str) -> dict[str, str]:
    """Runs with an output that is not finite, and the reason in words.

    A pixel score is NaN for nothing else. What such a run does elsewhere does not count: left out
    where it fails, it would be measured on easier images than the others.
    """
    bad: dict[str, list[ImageRow]] = {}
    for row in rows:
        if math.isnan(row.scores[headline]):
            bad.setdefault(row.run, []).append(row)
    count = Counter(row.run for row in rows)
    return {
        run: f"output with inf or NaN on {len(part)} of {count[run]} images, the first "
        f"{part[0].slide} row {part[0].row} at {scale_label(part[0].scale)}"
        for run, part in bad.items()
    }
