"""Averages and tests as papers make them, from the same rows; apart from our tables and verdicts.

They count images, not patients, so that nothing follows from them but the comparison with what a
paper printed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from wsisr.evaluation.groups import ColumnValues, Place
from wsisr.evaluation.settings import scale_label
from wsisr.evaluation.summary import Results, ScoreTable
from wsisr.evaluation.verdicts import family, order
from wsisr.metrics.protocols import get_protocol
from wsisr.metrics.statistics import holm


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table whose cells are words already; nothing in it is ranked.

    Attributes
    ----------
    notes : tuple of str
        How to read it.
    rows : tuple of (tuple of str)
    """

    title: str
    notes: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def paper_tables(results: Results) -> list[TextTable]:
    """Per-image tests of the protocols that have them, means over the store's test sets, and
    means of each published part of its test split."""
    found = []
    for table in results.tables:
        name = table.score["protocol"]
        if name and get_protocol(name).image_tests:
            found.append(_image_tests(table, name))
    sets = _test_sets(results.document)
    if sets:
        found += [_set_means(table, sets) for table in results.tables]
    parts = _parts(results.document)
    if parts:
        found += [_part_means(table, parts) for table in results.tables]
    return [table for table in found if table.rows]


def _image_tests(table: ScoreTable, protocol: str) -> TextTable:
    """Mean and deviation over images, and the paired t-test of the best against each other."""
    digits = table.score["digits"]
    rows = []
    for scale in table.scales:
        column = table.columns[scale]
        ranked = order(column, table.score["better"])
        if column.images < 2:
            continue
        values = {label: np.array(list(column.scores[label].values())) for label in ranked}
        tests = [_paired_t(values[ranked[0]], values[label]) for label in ranked[1:]]
        adjusted = holm(tests, family(column))
        for label, p_value, corrected in zip(
            ranked, [None, *tests], [None, *adjusted], strict=True
        ):
            mean, deviation = values[label].mean(), values[label].std(ddof=1)
            rows.append(
                (
                    scale_label(scale),
                    label,
                    f"{mean:.{digits}f} ± {deviation:.{digits}f}",
                    str(column.images),
                    "-" if p_value is None else f"{p_value:.3g}",
                    "-" if corrected is None else f"{corrected:.3g}",
                )
            )
    return TextTable(
        title=f"PER-IMAGE TESTS as {protocol}'s paper: {table.score['title']}, LR {table.origin}",
        notes=(
            "Every image counts as if it were a patient: mean ± standard deviation over images, "
            "and the paired t-test of the column's best against each other model. Images of one "
            "slide are not independent, which makes these p-values too small; the verdicts are "
            "those of the differences over patients.",
        ),
        header=("scale", "model", "mean ± SD", "images", "p, paired t", "p (Holm)"),
        rows=tuple(rows),
    )


def _paired_t(first: Any, second: Any) -> float:
    difference = first - second
    # Equal differences have no deviation to be measured by.
    if not np.ptp(difference):
        return 1.0 if not difference[0] else 0.0
    return float(stats.ttest_rel(first, second).pvalue)


def _test_sets(document: Mapping[str, Any]) -> list[set[Place]]:
    sets = document["samples"].get("test_sets") or []
    return [{(str(slide), int(row)) for slide, row in part} for part in sets]


def _set_means(table: ScoreTable, sets: Sequence[set[Place]]) -> TextTable:
    """Mean over disjoint test sets of each one's mean over images."""
    digits = table.score["digits"]
    cells: dict[str, dict[float, str]] = {}
    counts: set[int] = set()
    for scale in table.scales:
        whole = table.columns[scale]
        parts = [_of(whole, places) for places in sets]
        for label in whole.scores:
            made = [part[label] for part in parts if len(part[label])]
            counts |= {len(values) for values in made}
            if len(made) < len(sets):
                continue
            means = np.array([values.mean() for values in made])
            text = f"{means.mean():.{digits}f} ± {means.std(ddof=1):.{digits}f}"
            cells.setdefault(label, {})[scale] = text
    each = " to ".join(map(str, sorted({min(counts), max(counts)}))) if counts else "0"
    return TextTable(
        title=f"OVER {len(sets)} TEST SETS: {table.score['title']}, LR {table.origin}",
        notes=(
            f"Mean ± standard deviation of {len(sets)} disjoint test sets of {each} images each, "
            "which the data set's manifest deals out as its paper has them. Sets share patients: "
            "the deviation is no error of the mean over patients.",
        ),
        header=("model", *map(scale_label, table.scales)),
        rows=tuple(
            (label, *(by_scale.get(scale, "-") for scale in table.scales))
            for label, by_scale in cells.items()
        ),
    )


def _parts(document: Mapping[str, Any]) -> dict[str, set[Place]]:
    parts = document["samples"].get("parts") or {}
    return {name: {(str(s), int(row)) for s, row in part} for name, part in parts.items()}


def _part_means(table: ScoreTable, parts: Mapping[str, set[Place]]) -> TextTable:
    """Mean over the images of each part, apart."""
    digits = table.score["digits"]
    cells: dict[str, list[str]] = {}
    header = ["model"]
    for scale in table.scales:
        for name, places in parts.items():
            values = _of(table.columns[scale], places)
            header.append(f"{scale_label(scale)}, test {name}")
            for label in {**dict.fromkeys(cells), **dict.fromkeys(values)}:
                known = values.get(label, np.empty(0))
                text = f"{known.mean():.{digits}f}" if len(known) else "-"
                cells.setdefault(label, ["-"] * (len(header) - 2)).append(text)
    counts = ", ".join(f"{name} {len(places)}" for name, places in parts.items())
    return TextTable(
        title=f"PUBLISHED PARTS OF THE TEST SPLIT: {table.score['title']}, LR {table.origin}",
        notes=(
            f"Mean over the images of each part, as its publishers report them (images: {counts}).",
        ),
        header=tuple(header),
        rows=tuple((label, *texts) for label, texts in cells.items()),
    )


def _of(column: ColumnValues, places: set[Place]) -> dict[str, Any]:
    return {
        label: np.array([v for place, v in scores.items() if place in places])
        for label, scores in column.scores.items()
    }
