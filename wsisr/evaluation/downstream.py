"""Downstream tasks beside HR: what restoration costs, and which metric would have known it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import stats

from wsisr.drawing.charts import ChartSeries, chart
from wsisr.drawing.vector import Chart
from wsisr.evaluation.entries import HR_ITSELF
from wsisr.evaluation.groups import ColumnValues, Group, column_values, group_entries
from wsisr.evaluation.papers import TextTable
from wsisr.evaluation.results import ImageRow
from wsisr.evaluation.settings import scale_label
from wsisr.evaluation.summary import Results
from wsisr.evaluation.verdicts import goodness
from wsisr.inference.trained import BASELINE
from wsisr.metrics.statistics import (
    LEAST_RESAMPLED,
    SIGNIFICANT,
    PairedDifference,
    bootstrap_of,
    compare,
    holm,
    least_units,
    smallest_difference,
    unit_of,
)
from wsisr.tasks.scores import SCORES, Pooled, pooled, scores_of

LEAST_POINTS = 4
"""Below four models in a column a correlation says nothing."""


@lru_cache(maxsize=1)  # terminal, Markdown, LaTeX and page show the same: intervals are drawn once
def downstream_tables(results: Results) -> tuple[TextTable, ...]:
    """Tables of an evaluation with tasks; none of one without."""
    judged: Sequence[Mapping[str, Any]] = results.document.get("tasks") or ()
    if not judged or not results.hr_rows:
        return ()
    tables = []
    for judge in judged:
        tables += [_beside_hr(results, judge), _pooled(results, judge)]
    if len(results.origins) == 1:
        tables = [_without_origin(table) for table in tables]
    return tuple(table for table in (*tables, *_agreement(results, judged)) if table.rows)


def _without_origin(table: TextTable) -> TextTable:
    """A table of one LR origin says so once, and is narrow enough for a page."""
    origin = {row[0] for row in table.rows}
    return replace(
        table,
        notes=(*table.notes, *(f"LR: {name}." for name in origin)),
        header=table.header[1:],
        rows=tuple(row[1:] for row in table.rows),
    )


def agreement_charts(results: Results) -> dict[str, Chart]:
    """The headline's mean against each task's, a point for each model and scale."""
    judged: Sequence[Mapping[str, Any]] = results.document.get("tasks") or ()
    made: dict[str, Chart] = {}
    for judge in judged if results.hr_rows else ():
        score = SCORES[judge["task"]][0]
        points: dict[str, list[tuple[float, float]]] = {}
        for _origin, _scale, mine, _ in _columns(results):
            means = [
                column_values(mine, results.groups, name).units
                for name in (results.headline["name"], _name(judge, score.name))
            ]
            for label, units in means[0].items():
                if units and means[1].get(label):
                    pair = tuple(float(np.mean(list(part[label].values()))) for part in means)
                    points.setdefault(label, []).append((pair[0], pair[1]))
        if sum(map(len, points.values())) > 1:
            made[f"agreement-{judge['name']}"] = chart(
                [
                    ChartSeries(
                        name=label,
                        x=np.array([x for x, _ in places]),
                        y=np.array([y for _, y in places]),
                        kind="points",
                    )
                    for label, places in points.items()
                ],
                title=f"{score.title} against {str(results.headline['title']).partition(',')[0]}",
                x_label=str(results.headline["title"]),
                y_label=score.title,
            )
    return made


def _columns(results: Results) -> list[tuple[str, float, list[ImageRow], list[ImageRow]]]:
    """Origin, scale, rows of models and rows of HR."""
    found = []
    for column in results.document["columns"]:
        key = (column["origin"], column["scale"])
        mine, hr = (
            [row for row in rows if (row.origin, row.scale) == key]
            for rows in (results.rows, results.hr_rows)
        )
        if mine and hr:
            found.append((*key, mine, hr))
    return found


def _with_hr(results: Results) -> tuple[Group, ...]:
    records = [e for e in results.document["entries"] if e["reference"] == HR_ITSELF.model]
    return (*group_entries(records), *results.groups)


def _name(judge: Mapping[str, Any], score: str) -> str:
    return str(judge["name"]) + score.removeprefix(str(judge["task"]))


def _beside_hr(results: Results, judge: Mapping[str, Any]) -> TextTable:
    """Every model against HR and against bicubic, by patient."""
    score = SCORES[judge["task"]][0]
    name, digits = _name(judge, score.name), score.digits
    margin = results.document.get("margin")
    groups = _with_hr(results)
    rows: list[tuple[str, ...]] = []
    for origin, scale, mine, hr in _columns(results):
        column = column_values([*hr, *mine], groups, name)
        labels = [label for label in column.units if label != HR_ITSELF.name]
        pairs = [(label, HR_ITSELF.name) for label in labels]
        pairs += [(label, BASELINE) for label in labels if label != BASELINE]
        if not column.images:
            continue
        made = {pair: compare(*(column.units[label] for label in pair)) for pair in pairs}
        corrected = dict(zip(made, holm([c.p_value for c in made.values()]), strict=True))
        first = list(column.units[HR_ITSELF.name].values())
        blank = ["-"] * (4 if margin is None else 5)
        rows.append((origin, scale_label(scale), "HR", _number(first, digits), *blank))
        for label in labels:
            mean = _number(list(column.units[label].values()), digits)
            cells: list[str] = []
            for against in (HR_ITSELF.name, BASELINE):
                found = made.get((label, against))
                if found is None:
                    cells += ["-", "-"]
                    continue
                adjusted = corrected[label, against]
                told = "too few patients"
                if found.units >= least_units(len(pairs)):
                    told = "not distinguishable"
                    if found.distinguishable and adjusted is not None and adjusted < SIGNIFICANT:
                        better = (found.difference > 0) == (score.better == "high")
                        told = "better" if better else "worse"
                units = [column.units[who] for who in (label, against)]
                if units[0] == units[1]:
                    cells += ["the same for every patient", "-"]
                    continue
                interval = ""
                if not math.isnan(found.low):
                    interval = f" [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"
                cells.append(f"{found.difference:+.{digits}f}{interval}, {told}")
                cells.append(_smallest(column, label, against, len(pairs), digits))
            if margin is not None:
                cells.insert(2, _within(made[label, HR_ITSELF.name], float(margin), score.better))
            rows.append((origin, scale_label(scale), label, mean, *cells))
    return TextTable(
        title=f"DOWNSTREAM, {judge['name']}: {score.title.partition(': ')[2]}",
        notes=(
            f"{judge['reference']}. The same reference looks at HR, at bicubic and at every model.",
            "Differences are means over patients with their 95 % interval; verdicts after Holm "
            "over all comparisons of a column.",
            "Detectable: the smallest difference that so many patients, scattered as these, would "
            "have shown in four of five trials after the first step of Holm. What is not "
            "distinguishable may differ by less. Where no patient differs there is nothing to "
            "estimate it from.",
            *(
                ()
                if margin is None
                else (
                    f"Loses less than {margin:g}: shown where the unfavourable end of the interval "
                    "minus HR says so, for each model by itself. Not shown is no proof of a loss.",
                )
            ),
        ),
        header=(
            "LR", "scale", "seen", score.title.partition(": ")[2], "minus HR", "detectable",
            *(() if margin is None else (f"loses less than {margin:g}",)), "minus bicubic",
            "detectable",
        ),
        rows=tuple(rows),
    )  # fmt: skip


def _within(found: PairedDifference, margin: float, better: str) -> str:
    """Whether a loss against HR of `margin` is excluded; patients are drawn for both at once."""
    turned = found if better == "high" else replace(found, low=-found.high, high=-found.low)
    if math.isnan(turned.low):
        return "too few patients"
    return "shown" if turned.not_worse_by(margin) else "not shown"


def _smallest(column: ColumnValues, first: str, second: str, tests: int, digits: int) -> str:
    a, b = column.units[first], column.units[second]
    value = smallest_difference(np.array([a[unit] - b[unit] for unit in a]), tests=tests)
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _number(values: Sequence[float], digits: int) -> str:
    return f"{np.mean(values):.{digits}f}" if values else "-"


def _pooled(results: Results, judge: Mapping[str, Any]) -> TextTable:
    """What challenges print: once over all images, with an interval over patients."""
    types = judge.get("types", ())
    measures = pooled(judge["task"], judge["classes"], types)
    rows: list[tuple[str, ...]] = []
    again = 0
    patients: set[Any] = set()
    for origin, scale, mine, hr in _columns(results):
        runs = dict.fromkeys(row.run for row in (*hr, *mine))
        for run in runs:
            own = [row for row in (*hr, *mine) if row.run == run]
            cells = []
            for measure in measures:
                text, redrawn, units = _pooled_cell(measure, judge, own)
                cells.append(text)
                again, patients = again + redrawn, patients | units
            rows.append((origin, scale_label(scale), run, *cells))
    notes = [
        "Over all images at once, as challenges print it; in brackets: 95 % interval, patients "
        "drawn with replacement."
    ]
    if len(patients) < LEAST_RESAMPLED:
        notes = [
            f"Over all images at once, as challenges print it; {len(patients)} patients are too "
            f"few for an interval ({LEAST_RESAMPLED} at least)."
        ]
    if again:
        notes.append(f"{again} draws of one class alone have no value and were drawn again.")
    return TextTable(
        title=f"DOWNSTREAM, {judge['name']}: all images at once",
        notes=tuple(notes),
        header=("LR", "scale", "seen", *(measure.title for measure in measures)),
        rows=tuple(rows),
    )


def _pooled_cell(
    measure: Pooled, judge: Mapping[str, Any], rows: Sequence[ImageRow]
) -> tuple[str, int, set[Any]]:
    types = judge.get("types", ())
    names = [score.name for score in scores_of(judge["task"], types) if score.part]
    parts = {
        name: np.array([row.scores[_name(judge, name)] for row in rows], np.float64)
        for name in names
    }
    # What a reference does not say (types of nuclei) is missing in those measures alone.
    always = [parts[s.name] for s in SCORES[judge["task"]] if s.part]
    known = np.flatnonzero(~np.isnan(np.stack(always)).all(0))
    if not len(known):
        return "-", 0, set()
    classes = [row.label for row in rows]
    units = [unit_of(rows[at].slide, rows[at].patient, rows[at].group) for at in known.tolist()]

    def value(chosen: Any) -> float:
        at = known[chosen]
        return measure.value(
            {name: values[at] for name, values in parts.items()}, [classes[k] for k in at.tolist()]
        )

    whole = value(np.arange(len(known)))
    if math.isnan(whole):
        return "-", 0, set(units)
    low, high, again = bootstrap_of(value, units)
    digits = measure.digits
    text = f"{whole:.{digits}f}"
    if not math.isnan(low):
        text += f" [{low:.{digits}f}, {high:.{digits}f}]"
    return text, again, set(units)


def _agreement(results: Results, judged: Sequence[Mapping[str, Any]]) -> list[TextTable]:
    """How each metric orders the models that a task has ordered."""
    task_names = {_name(j, s.name) for j in judged for s in SCORES[j["task"]]}
    metrics = [score for score in results.document["scores"] if score["name"] not in task_names]
    tables = []
    for judge in judged:
        first = SCORES[judge["task"]][0]
        rows = []
        for metric in metrics:
            points: list[tuple[float, float]] = []
            within: list[float] = []
            right = asked = 0
            for _origin, _scale, mine, _ in _columns(results):
                pair = _goodness(mine, results.groups, metric, _name(judge, first.name), first)
                if len(pair) < 2:
                    continue
                points += pair.values()
                best = [_best(pair, at) for at in (0, 1)]
                if len(best[1]) < len(pair):  # where the task tells none apart, none is right
                    asked += 1
                    right += best[0] <= best[1]
                if len(pair) >= LEAST_POINTS:
                    within.append(_spearman(list(pair.values())))
            if not points:  # one model alone: nothing to choose from
                continue
            known = [value for value in within if not math.isnan(value)]
            rows.append(
                (
                    metric["title"],
                    f"{_spearman(points):+.2f}" if len(points) >= LEAST_POINTS else "-",
                    str(len(points)),
                    f"{np.mean(known):+.2f}" if known else "-",
                    f"{right} of {asked}" if asked else "-",
                )
            )
        tables.append(
            TextTable(
                title=f"AGREEMENT with {judge['name']}: {first.title.partition(': ')[2]}",
                notes=(
                    "Which metric would have chosen the right model? Spearman's correlation of "
                    "models' means, turned so that + 1 is agreement: over all models and scales at "
                    "once (where the scale alone makes most metrics agree), and within a scale, "
                    f"averaged (columns of at least {LEAST_POINTS} models).",
                    "Best: in how many columns the metric's best model is the task's best; columns "
                    "in which the task tells no two apart do not count. Models are few and not "
                    "independent: there is no interval.",
                ),
                header=("metric", "all", "points", "within a scale", "best"),
                rows=tuple(rows),
            )
        )
    return tables


def _best(pair: Mapping[str, tuple[float, float]], at: int) -> set[str]:
    """The best model, or all that share its value."""
    most = max(values[at] for values in pair.values())
    return {label for label, values in pair.items() if values[at] == most}


def _goodness(
    rows: Sequence[ImageRow],
    groups: Sequence[Group],
    metric: Mapping[str, Any],
    task: str,
    score: Any,
) -> dict[str, tuple[float, float]]:
    """Mean of metric and task of each model, larger for better."""
    mine, theirs = (
        goodness(column_values(rows, groups, name), better)
        for name, better in ((str(metric["name"]), str(metric["better"])), (task, score.better))
    )
    return {label: (mine[label], theirs[label]) for label in mine if label in theirs}


def _spearman(points: Sequence[tuple[float, float]]) -> float:
    first, second = zip(*points, strict=True)
    if len(set(first)) < 2 or len(set(second)) < 2:
        return math.nan
    return float(stats.spearmanr(first, second).statistic)
