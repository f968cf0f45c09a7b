"""Names of files and folders that must not leave the source.

A path may name a person. With `--private-ids` no part of one is written or printed: slides, sites
and what was left out are pseudonyms, texts are cleaned of the names of the slide's own files, and
readers, which name files in their log, have none. Without it ids and relative paths stay readable,
but no path says where the source lies.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wsisr.building.layout import SlideTask
from wsisr.building.staging import without_stage
from wsisr.runners import Outcome, Runner, Task
from wsisr.selection.patients import PatientSource
from wsisr.selection.pseudonyms import Pseudonyms
from wsisr.slides import LeftOut, SlideSource

SHORTEST = 3
"""Parts of a path below this length are words like any other."""


def hide_names(tasks: Sequence[SlideTask], pseudonyms: Pseudonyms) -> tuple[SlideTask, ...]:
    """Tasks whose ids, sources and names of their own are pseudonyms of their paths."""
    return tuple(
        sorted((_hidden(task, pseudonyms) for task in tasks), key=lambda task: task.slide_id)
    )


def _hidden(task: SlideTask, pseudonyms: Pseudonyms) -> SlideTask:
    source = _hidden_source(task.source, pseudonyms)
    detail = task.detail
    if isinstance(scan := getattr(detail, "source", None), SlideSource):
        detail = replace(detail, source=_hidden_source(scan, pseudonyms))  # type: ignore[type-var]
    patient = task.patient
    if patient.source in (PatientSource.ASSUMED, PatientSource.LAYOUT):
        own = patient.name == task.slide_id
        patient = replace(
            patient, name=source.slide_id if own else pseudonyms.of("patient", patient.name)
        )
    group = task.group
    if "group" not in task.overridden:
        own = group == task.slide_id
        group = source.slide_id if own else pseudonyms.of("group", group)
    return replace(
        task,
        source=source,
        detail=detail,
        patient=patient,
        group=group,
        # A folder, or the hospital of a public data set.
        site=pseudonyms.of("site", task.site) if task.site else "",
    )


def _hidden_source(source: SlideSource, pseudonyms: Pseudonyms) -> SlideSource:
    name = pseudonyms.of("slide", source.relative)
    return replace(source, slide_id=name, relative=name, draw_key=name)


@dataclass(frozen=True)
class Unlogged:
    """Runs tasks on another runner with the log off."""

    runner: Runner

    def __call__(self, function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[Outcome]:
        return self.runner(unlogged, [(key, (function, *arguments)) for key, arguments in tasks])


def unlogged(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function with the log off."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        return function(*arguments)
    finally:
        logging.disable(before)


def hide_left_out(left_out: Iterable[LeftOut], pseudonyms: Pseudonyms) -> tuple[LeftOut, ...]:
    """The same files without their names."""
    return tuple(replace(item, relative=pseudonyms.of("file", item.relative)) for item in left_out)


def names_a_patient(tasks: Iterable[SlideTask]) -> int:
    """How many slide ids hold a value that was made a pseudonym."""
    count = 0
    for task in tasks:
        value = task.patient.draw
        known = task.patient.source in (
            PatientSource.TABLE,
            PatientSource.DICOM,
            PatientSource.RULE,
        )
        count += known and value != task.patient.name and value in task.source.relative
    return count


def clean(text: str, task: SlideTask, root: Path) -> str:
    """A sentence about a slide without the place of its source and, of a private one, without
    the names of its files.

    Parameters
    ----------
    root : Path
        The source folder.
    """
    for place in sorted({str(root), str(root.resolve())}, key=len, reverse=True):
        if place != ".":
            text = re.sub(rf"(?<![\w./-]){re.escape(place)}(?:/|(?![\w-]))", "", text)
    text = without_stage(text, task.stage)
    if not task.private:
        return text
    paths = [task.source.path, *task.files, *([task.annotation] if task.annotation else [])]
    for path in paths:
        inside = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
        names = [inside.as_posix(), *inside.parts, *(Path(part).stem for part in inside.parts)]
        for name in sorted(set(names), key=len, reverse=True):
            if len(name) >= SHORTEST:
                text = text.replace(name, "(file)")
    return text
