"""Lines of the tables: runs that differ in their seed alone stand together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsisr.evaluation.results import ImageRow
from wsisr.metrics.statistics import slide_means


@dataclass(frozen=True, kw_only=True)
class Group:
    """A line of the tables: one model, trained once or with several seeds.

    Attributes
    ----------
    label : str
    model : str
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


Values = dict[tuple[str, float, str], dict[str, dict[Any, float]]]


def run_values(rows: Sequence[ImageRow], scores: Sequence[str]) -> Values:
    """(origin, scale, run) -> score -> slide -> mean."""
    gathered: dict[tuple[str, float, str], list[ImageRow]] = {}
    for row in rows:
        gathered.setdefault((row.origin, row.scale, row.run), []).append(row)
    return {
        key: {
            score: slide_means([r.scores[score] for r in part], [r.slide for r in part])
            for score in scores
        }
        for key, part in gathered.items()
    }


def group_values(
    values: Values, origin: str, scale: float, group: Group, score: str
) -> tuple[dict[Any, float], list[float]]:
    """Slide -> mean over seeds, and each seed's mean over slides."""
    parts = [values[key][score] for m in group.members if (key := (origin, scale, m)) in values]
    if not parts:
        return {}, []
    slides = [slide for slide in parts[0] if all(slide in part for part in parts)]
    merged = {slide: float(np.mean([part[slide] for part in parts])) for slide in slides}
    return merged, [float(np.mean(list(part.values()))) for part in parts if part]
