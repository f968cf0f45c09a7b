"""From rows to tables: means over patients, intervals, ranks and tests."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsisr.evaluation.columns import same_origin
from wsisr.evaluation.entries import HR_ITSELF
from wsisr.evaluation.groups import ColumnValues, Group, column_values, failed_runs, group_entries
from wsisr.evaluation.results import ImageRow
from wsisr.evaluation.settings import scale_label
from wsisr.evaluation.verdicts import (
    GroupComparison,
    compare_column,
    family,
    order,
    untold_from_best,
)
from wsisr.metrics.statistics import LEAST_UNITS, Summary, Unit, least_units, summarise
from wsisr.words import counted

OTHER_ORIGIN = "†"
OUT_OF_RANGE = "‡"
UNTOLD = "≈"
MARKS: Mapping[str, str] = {
    OTHER_ORIGIN: "trained on LR of another origin or degradation than this table's",
    OUT_OF_RANGE: "scale outside of what the model was trained on",
    UNTOLD: "not distinguishable from the best of its column",
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A score of a group in a column.

    Attributes
    ----------
    summary : Summary
        Over patients; each one's value is the mean over seeds.
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
class ScoreTable:
    """One score on LR of one origin: lines are models, columns are scales.

    Attributes
    ----------
    score : mapping
        Name, title, better, digits and protocol of the score.
    lines : tuple of (Group, mapping of scale to Cell)
        A scale that is not a model's own is missing.
    columns : mapping of scale to ColumnValues
        What the cells are made of: the same images for every line.
    pairs : tuple of GroupComparison
        Every model against bicubic, and the best of each column against the others.
    ceilings : tuple of (str, mapping of scale to float)
    """

    origin: str
    score: Mapping[str, Any]
    scales: tuple[float, ...]
    lines: tuple[tuple[Group, Mapping[float, Cell]], ...]
    columns: Mapping[float, ColumnValues]
    pairs: tuple[GroupComparison, ...]
    ceilings: tuple[tuple[str, Mapping[float, float]], ...]


@dataclass(frozen=True, kw_only=True, eq=False)  # one evaluation is itself alone: it can be cached
class Results:
    """Everything that tables, figures and pages are made of.

    Attributes
    ----------
    document : mapping
        results.json.
    rows : tuple of ImageRow
        Of this evaluation, oracle rows left out.
    tables : tuple of ScoreTable
        By origin, then score.
    failed : mapping of str to str
        Runs that have no mean and no part in anything, and why.
    hr_rows : tuple of ImageRow
        What downstream tasks find in HR itself.
    """

    document: Mapping[str, Any]
    rows: tuple[ImageRow, ...]
    groups: tuple[Group, ...]
    tables: tuple[ScoreTable, ...]
    failed: Mapping[str, str]
    hr_rows: tuple[ImageRow, ...] = ()

    @property
    def pairs(self) -> tuple[GroupComparison, ...]:
        """Comparisons by the headline score."""
        name = self.headline["name"]
        return tuple(p for table in self.tables if table.score["name"] == name for p in table.pairs)

    @property
    def headline(self) -> Mapping[str, Any]:
        return dict(self.document["scores"][0])

    @property
    def origins(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c["origin"] for c in self.document["columns"]))


def summarise_results(document: Mapping[str, Any], rows: Sequence[ImageRow]) -> Results:
    """Tables of an evaluation from its rows.

    Rows of models, scales or origins that results.json does not name are left out (they stay in
    the CSV for a later run), and so are oracle rows. A run that failed (results.json says so, or
    an output is not finite) is named with its reason and has no part in anything else; every
    mean, rank and verdict of a column is over the images that all other models have scores of.
    """
    entries = {e["name"]: e for e in document["entries"] if e["reference"] == "none"}
    wanted = {(c["origin"], c["scale"]) for c in document["columns"]}
    used = [
        row
        for row in rows
        if row.run in entries and (row.origin, row.scale) in wanted and row.reference == "none"
    ]
    failed = {
        **failed_runs(used, document["scores"][0]["name"]),
        **document.get("failed", {}),
    }
    sound = tuple(row for row in used if row.run not in failed)
    groups = group_entries([e for name, e in entries.items() if name not in failed])
    by_column: dict[tuple[str, float], list[ImageRow]] = {}
    for row in sound:
        by_column.setdefault((row.origin, row.scale), []).append(row)
    tables = tuple(
        _table(document, origin, score, groups, by_column)
        for origin in dict.fromkeys(c["origin"] for c in document["columns"])
        for score in document["scores"]
    )
    return Results(
        document=document,
        rows=sound,
        groups=groups,
        tables=tables,
        failed=failed,
        hr_rows=tuple(
            row
            for row in rows
            if row.reference == HR_ITSELF.model and (row.origin, row.scale) in wanted
        ),
    )


def _table(
    document: Mapping[str, Any],
    origin: str,
    score: Mapping[str, Any],
    groups: Sequence[Group],
    rows: Mapping[tuple[str, float], Sequence[ImageRow]],
) -> ScoreTable:
    name, better = str(score["name"]), str(score["better"])
    scales = tuple(sorted(c["scale"] for c in document["columns"] if c["origin"] == origin))
    cells: dict[str, dict[float, Cell]] = {group.label: {} for group in groups}
    columns: dict[float, ColumnValues] = {}
    pairs: list[GroupComparison] = []
    for scale in scales:
        column = columns[scale] = column_values(rows.get((origin, scale), ()), groups, name)
        found = compare_column(column, better, origin=origin, score=name, scale=scale)
        ranked = order(column, better)
        rank = {label: at for at, label in enumerate(ranked[:2], start=1) if len(ranked) > 1}
        untold = untold_from_best(found, ranked[0]) if ranked else set()
        pairs += found
        for group in groups:
            if group.label not in column.units:
                continue
            seeds = column.seeds[group.label]
            cells[group.label][scale] = Cell(
                summary=summarise(column.units[group.label]),
                seed_sd=float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None,
                rank=rank.get(group.label, 0),
                marks=_marks(group, origin, scale) + (UNTOLD if group.label in untold else ""),
            )
    return ScoreTable(
        origin=origin,
        score=score,
        scales=scales,
        lines=tuple((group, cells[group.label]) for group in groups if cells[group.label]),
        columns=columns,
        pairs=tuple(pairs),
        ceilings=_ceilings(document, origin, score, scales),
    )


def _marks(group: Group, origin: str, scale: float) -> str:
    record = group.records[0]
    low, high = record["scale_range"]
    trained = record["trained_origin"]
    marks = OTHER_ORIGIN if trained and not same_origin(trained, origin) else ""
    return marks + ("" if low - 1e-9 <= scale <= high + 1e-9 else OUT_OF_RANGE)


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
        lines.append(("yardstick: HR's own JPEG", dict.fromkeys(scales, float(coded))))
    return tuple(lines)


def sample_words(table: ScoreTable) -> str:
    """``37 patches of 9 slides of 7 patients``, per scale where they differ; and what few mean."""
    words = {scale: _column_words(table.columns[scale]) for scale in table.scales}
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return ", ".join(f"{scale_label(scale)}: {text}" for scale, text in words.items())


def _column_words(column: ColumnValues) -> str:
    units = len(column.counted)
    text = f"{counted(column.images, 'patch', 'patches')} of {counted(column.slides, 'slide')}"
    if units < column.slides or any(kind == "patient" for kind, _ in column.counted):
        text += f" of {unit_words(column.counted)}"
    if column.left_out:
        text += f" ({column.left_out} patches without a score of some model left out)"
    needed = least_units(family(column))
    if units < LEAST_UNITS:
        text += f"; too few slides for a verdict: {LEAST_UNITS} patients at least"
    elif units < needed:
        text += f"; {family(column)} pairs of models need {needed} patients for a verdict"
    return text


def unit_words(units: Sequence[Unit]) -> str:
    """``5 patients``, ``7 glasses``, ``5 patients and 2 glasses of unknown ones``."""
    kinds = Counter(kind for kind, _ in units)
    if not kinds["patient"]:
        return f"{kinds['slide']} glasses of unknown patients"
    more = f" and {kinds['slide']} glasses of unknown ones" if kinds["slide"] else ""
    return f"{kinds['patient']} patients{more}"
