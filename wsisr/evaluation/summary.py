"""From rows to tables: means over slides, intervals, ranks and tests."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsisr.evaluation.columns import same_origin
from wsisr.evaluation.entries import BASELINE
from wsisr.evaluation.groups import Group, Values, group_entries, group_values, run_values
from wsisr.evaluation.results import ImageRow
from wsisr.evaluation.settings import scale_label
from wsisr.metrics.statistics import (
    LEAST_SLIDES,
    Comparison,
    Summary,
    compare,
    holm,
    summarise,
)

OTHER_ORIGIN = "†"
OUT_OF_RANGE = "‡"
UNTOLD = "≈"
MARKS: Mapping[str, str] = {
    OTHER_ORIGIN: "trained on LR of another origin or degradation than this table's",
    OUT_OF_RANGE: "scale outside of what the model was trained on",
    UNTOLD: "not distinguishable from the best of its column",
}
SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A score of a group in a column.

    Attributes
    ----------
    summary : Summary
        Over slides; each slide's value is the mean over seeds.
    seed_sd : float or None
        Standard deviation over seeds of the mean; None for one seed.
    rank : int
        1 best, 2 second, 0 others (and where there is nothing to rank).
    marks : str
        Letters of `MARKS`.
    """

    summary: Summary
    seed_sd: float | None
    rank: int
    marks: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """One score on LR of one origin: lines are models, columns are scales.

    Attributes
    ----------
    origin : str
    score : mapping
        Name, title, better, digits and protocol of the score.
    scales : tuple of float
    lines : tuple of (Group, mapping of scale to Cell)
        A scale that is not a model's own is missing.
    images, slides : mapping of scale to int
    ceilings : tuple of (str, mapping of scale to float)
    """

    origin: str
    score: Mapping[str, Any]
    scales: tuple[float, ...]
    lines: tuple[tuple[Group, Mapping[float, Cell]], ...]
    images: Mapping[float, int]
    slides: Mapping[float, int]
    ceilings: tuple[tuple[str, Mapping[float, float]], ...]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two groups compared in one column by one score.

    Attributes
    ----------
    origin, score : str
    scale : float
    first, second : str
        Labels; the difference is first minus second.
    comparison : Comparison
    adjusted : float or None
        p-value after Holm, over all pairs of this column.
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
    comparison: Comparison
    adjusted: float | None
    seed_sd: float | None
    better: str

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``not distinguishable``: what the first is to the second."""
        if not distinguishable(self.comparison, self.seed_sd):
            return "not distinguishable"
        if self.adjusted is not None and self.adjusted >= SIGNIFICANT:
            return "not distinguishable"
        gain = self.comparison.difference * (1.0 if self.better == "high" else -1.0)
        return "better" if gain > 0 else "worse"


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that tables, figures and pages are made of.

    Attributes
    ----------
    document : mapping
        results.json.
    rows : tuple of ImageRow
        Of this evaluation, oracle rows left out.
    groups : tuple of Group
    tables : tuple of Table
        By origin, then score.
    pairs : tuple of Pair
        Of the headline score: every model against bicubic, and the best against the others.
    """

    document: Mapping[str, Any]
    rows: tuple[ImageRow, ...]
    groups: tuple[Group, ...]
    tables: tuple[Table, ...]
    pairs: tuple[Pair, ...]

    @property
    def headline(self) -> Mapping[str, Any]:
        return dict(self.document["scores"][0])

    @property
    def origins(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c["origin"] for c in self.document["columns"]))


def distinguishable(comparison: Comparison, seed_sd: float | None) -> bool:
    """Whether a difference is more than what slides and seeds alone make."""
    if not comparison.distinguishable:
        return False
    return seed_sd is None or abs(comparison.difference) > seed_sd


def summarise_results(document: Mapping[str, Any], rows: Sequence[ImageRow]) -> Results:
    """Tables of an evaluation from its rows.

    Rows of models, scales or origins that results.json does not name are left out (they stay in
    the CSV for a later run), and so are oracle rows.
    """
    entries = {e["name"]: e for e in document["entries"] if e["reference"] == "none"}
    wanted = {(c["origin"], c["scale"]) for c in document["columns"]}
    used = tuple(
        row
        for row in rows
        if row.run in entries and (row.origin, row.scale) in wanted and row.reference == "none"
    )
    groups = group_entries(list(entries.values()))
    values = run_values(used, [score["name"] for score in document["scores"]])
    tables = tuple(
        _table(document, origin, score, groups, used, values)
        for origin in dict.fromkeys(c["origin"] for c in document["columns"])
        for score in document["scores"]
    )
    pairs = tuple(p for t in tables[:: len(document["scores"])] for p in _pairs(t, values))
    return Results(document=document, rows=used, groups=groups, tables=tables, pairs=pairs)


def _table(
    document: Mapping[str, Any],
    origin: str,
    score: Mapping[str, Any],
    groups: Sequence[Group],
    rows: Sequence[ImageRow],
    values: Values,
) -> Table:
    scales = tuple(sorted(c["scale"] for c in document["columns"] if c["origin"] == origin))
    cells: dict[str, dict[float, Cell]] = {group.label: {} for group in groups}
    images, slides = {}, {}
    for scale in scales:
        here = [row for row in rows if row.origin == origin and row.scale == scale]
        images[scale] = len({(row.slide, row.row) for row in here})
        slides[scale] = len({row.slide for row in here})
        column = {
            group.label: group_values(values, origin, scale, group, score["name"])
            for group in groups
        }
        ranks, equal = _ranks(column, score["better"])
        for group in groups:
            by_slide, seeds = column[group.label]
            own = [row for row in here if row.run in group.members]
            if not own:
                continue
            infinite = sum(not math.isfinite(row.scores[score["name"]]) for row in own)
            summary = summarise(list(by_slide.values()), list(by_slide))
            cells[group.label][scale] = Cell(
                summary=Summary(
                    mean=summary.mean,
                    deviation=summary.deviation,
                    low=summary.low,
                    high=summary.high,
                    slides=summary.slides,
                    images=len({(r.slide, r.row) for r in own}),
                    infinite=infinite,
                ),
                seed_sd=float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None,
                rank=ranks.get(group.label, 0),
                marks=_marks(group, origin, scale) + (UNTOLD if group.label in equal else ""),
            )
    return Table(
        origin=origin,
        score=score,
        scales=scales,
        lines=tuple((group, cells[group.label]) for group in groups if cells[group.label]),
        images=images,
        slides=slides,
        ceilings=_ceilings(document, origin, score, scales),
    )


def _marks(group: Group, origin: str, scale: float) -> str:
    record = group.records[0]
    low, high = record["scale_range"]
    trained = record["trained_origin"]
    marks = OTHER_ORIGIN if trained and not same_origin(trained, origin) else ""
    return marks + ("" if low - 1e-9 <= scale <= high + 1e-9 else OUT_OF_RANGE)


def _ranks(
    column: Mapping[str, tuple[dict[Any, float], list[float]]], better: str
) -> tuple[dict[str, int], set[str]]:
    """Best and second of a column, and who is not distinguishable from the best."""
    means = {label: float(np.mean(list(v.values()))) for label, (v, _) in column.items() if v}
    if len(means) < 2:
        return {}, set()
    ordered = sorted(means, key=lambda label: _order(means[label], better))
    best = ordered[0]
    equal = set()
    for label in ordered[1:]:
        if set(column[label][0]) & set(column[best][0]):
            result = compare(
                _oriented(column[best][0], better), _oriented(column[label][0], better)
            )
            if not distinguishable(result, _seed_sd(column[best][1], column[label][1])):
                equal.add(label)
    return {ordered[0]: 1, ordered[1]: 2}, equal


def _order(mean: float, better: str) -> float:
    return {"high": -mean, "low": mean, "zero": abs(mean)}[better]


def _oriented(values: Mapping[Any, float], better: str) -> Mapping[Any, float]:
    """Where zero is right, distances from it are compared."""
    return {k: abs(v) for k, v in values.items()} if better == "zero" else values


def _seed_sd(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Standard deviation over seeds of a difference of means; None where neither has several."""
    parts = [float(np.var(seeds, ddof=1)) for seeds in (first, second) if len(seeds) > 1]
    return math.sqrt(sum(parts)) if parts else None


def _ceilings(
    document: Mapping[str, Any], origin: str, score: Mapping[str, Any], scales: Sequence[float]
) -> tuple[tuple[str, Mapping[float, float]], ...]:
    found = document.get("ceilings") or {"alignment": [], "jpeg": {"scores": {}}}
    lines: list[tuple[str, Mapping[float, float]]] = []
    if score["name"].startswith("psnr_y"):
        by_scale = {
            item["scale"]: float(item["best_db"])
            for item in found["alignment"]
            if item["origin"] == origin
        }
        if by_scale:
            lines.append(("ceiling: alignment", by_scale))
    coded = found["jpeg"]["scores"].get(score["name"])
    if coded is not None:
        lines.append(("ceiling: HR's own JPEG", dict.fromkeys(scales, float(coded))))
    return tuple(lines)


def _pairs(table: Table, values: Values) -> list[Pair]:
    name, better = str(table.score["name"]), str(table.score["better"])
    found: list[Pair] = []
    for scale in table.scales:
        column = {
            group.label: group_values(values, table.origin, scale, group, name)
            for group, cells in table.lines
            if scale in cells
        }
        column = {label: value for label, value in column.items() if value[0]}
        wanted = [(label, BASELINE) for label in column if label != BASELINE and BASELINE in column]
        best = next(
            (g.label for g, cells in table.lines if scale in cells and cells[scale].rank == 1), None
        )
        if best not in (None, BASELINE):
            wanted += [(str(best), label) for label in column if label not in (best, BASELINE)]
        made = []
        for first, second in wanted:
            a, b = column[first], column[second]
            if set(a[0]) & set(b[0]):
                result = compare(_oriented(a[0], better), _oriented(b[0], better))
                made.append((first, second, result, _seed_sd(a[1], b[1])))
        adjusted = holm([result.p_value for _, _, result, _ in made])
        found += [
            Pair(
                origin=table.origin,
                score=name,
                scale=scale,
                first=first,
                second=second,
                comparison=result,
                adjusted=p_value,
                seed_sd=seed_sd,
                better=better,
            )
            for (first, second, result, seed_sd), p_value in zip(made, adjusted, strict=True)
        ]
    return found


def sample_words(table: Table) -> str:
    """``37 images of 2 slides``, per scale where they differ; and what few slides mean."""
    counts = {(table.images[s], table.slides[s]) for s in table.scales}
    if len(counts) == 1:
        images, slides = counts.pop()
        text = f"{images} images of {slides} slides"
    else:
        text = ", ".join(
            f"{scale_label(s)}: {table.images[s]} images of {table.slides[s]} slides"
            for s in table.scales
        )
    if max(table.slides.values(), default=0) < LEAST_SLIDES:
        text += f"; no p-values below {LEAST_SLIDES} slides"
    return text
