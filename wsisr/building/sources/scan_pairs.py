"""Which two scans are of one glass: by a table, else by the names of their files.

Pure once the files are listed, like `wsisr.building.layout`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wsisr.building.layout import OVERRIDE_COLUMNS, SlideTask, find_task
from wsisr.building.manifest import Manifest
from wsisr.building.manifest_parts import RescanRule
from wsisr.errors import ManifestError
from wsisr.selection.patients import own_patient
from wsisr.slides import SlideSource
from wsisr.tables import read_table

PAIR_COLUMNS = ("lr", "hr")


@dataclass(frozen=True, kw_only=True)
class HrScan:
    """The HR scan of a glass; `mpp` is the user's override in um/px."""

    source: SlideSource
    mpp: float | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        return self.source.files

    @property
    def identity(self) -> list[Any]:
        return [self.mpp]


def hr_scan(task: SlideTask) -> HrScan:
    """The HR scan of a task.

    Raises
    ------
    ManifestError
        If it has none.
    """
    if not isinstance(task.detail, HrScan):
        raise ManifestError(
            f"{task.slide_id}: no HR scan of this glass was found; name the files alike "
            "(case1_10x.svs, case1_40x.svs) or list them in the pair table (columns lr,hr)."
        )
    return task.detail


def pair_scans(
    tasks: Sequence[SlideTask], manifest: Manifest, source: Path
) -> tuple[SlideTask, ...]:
    """One task per LR scan, with the HR scan of the same glass where there is one.

    The table that the manifest names (columns `lr`, `hr`: file names or ids) comes first; without
    it the file names decide: the text that both patterns leave, their groups `glass`, `glass2` ...,
    is the same. Other files are left out.

    Raises
    ------
    ManifestError
        A wrong table, or a glass with several LR or HR scans.
    """
    rule = manifest.rescan
    assert rule is not None
    table = (source if source.is_dir() else source.parent) / rule.table
    if table.is_file():
        return _from_table(tasks, table, rule)
    found: dict[str, dict[str, SlideTask]] = {}
    patients: dict[str, str] = {}
    for task in tasks:
        stem = task.source.path.name if task.source.path.is_dir() else task.source.path.stem
        for side, pattern in (("lr", rule.lr), ("hr", rule.hr)):
            # A pattern with a slash is about the folders as well.
            parts = [*Path(task.source.relative).parent.parts, stem] if "/" in pattern else [stem]
            match = re.fullmatch(pattern, "/".join(parts), re.IGNORECASE)
            if match is None:
                continue
            groups = match.groupdict()
            name = "/".join(groups[key] or "" for key in sorted(groups) if key.startswith("glass"))
            glass = found.setdefault(name.lower(), {})
            patients.setdefault(name.lower(), groups.get("patient") or name.lower())
            if side in glass:
                which = f" {name!r} ({glass[side].slide_id} and {task.slide_id})"
                raise ManifestError(
                    f"{source}: a glass has two {side.upper()} scans by their names"
                    f"{'' if task.private else which}; name the pairs in {rule.table} (columns "
                    "lr,hr)."
                )
            glass[side] = task
            break
    pairs = [
        _paired(scans["lr"], scans.get("hr"), glass, patients[glass], rule)
        for glass, scans in sorted(found.items())
        if "lr" in scans
    ]
    if not pairs:
        raise ManifestError(
            f"{source}: no file name fits the LR pattern {rule.lr!r}; rename the scans (e.g. "
            f"case1_10x.svs and case1_40x.svs) or name the pairs in {rule.table} (columns lr,hr)."
        )
    return tuple(sorted(pairs, key=lambda task: task.slide_id))


def _from_table(tasks: Sequence[SlideTask], table: Path, rule: RescanRule) -> tuple[SlideTask, ...]:
    header, rows = read_table(table, ManifestError)
    if sorted(header) != sorted(PAIR_COLUMNS):
        raise ManifestError(f"{table}: the columns must be lr,hr.")
    pairs = []
    for line, row in enumerate(rows, start=2):
        where = f"{table}, line {line}"
        lr = find_task(row["lr"] or "", tasks, where)
        hr = find_task(row["hr"] or "", tasks, where)
        pairs.append(_paired(lr, hr, lr.slide_id, lr.slide_id, rule))
    if len({task.slide_id for task in pairs}) < len(pairs):
        raise ManifestError(f"{table}: an LR scan stands in two lines.")
    return tuple(sorted(pairs, key=lambda task: task.slide_id))


def _paired(
    lr: SlideTask, hr: SlideTask | None, glass: str, patient: str, rule: RescanRule
) -> SlideTask:
    # Whoever is not named as a patient is the glass, so that all scans of it stay together.
    scans = (lr,) if hr is None else (lr, hr)
    known = (scan.patient for scan in scans if scan.patient.quality != "assumed")
    by_name = "" if patient == glass else "file names"

    def declared(task: SlideTask, mpp: float | None) -> float | None:
        return mpp if task.mpp is None else task.mpp

    return replace(
        lr,
        patient=next(known, own_patient(patient, by_name)),
        group=lr.group if lr.group != lr.slide_id else glass,
        mpp=declared(lr, rule.lr_mpp),
        # Of the HR scan's row only these two are used.
        overridden=tuple(
            name
            for name in OVERRIDE_COLUMNS
            if name in lr.overridden
            or (hr is not None and name in ("mpp", "patient") and name in hr.overridden)
        ),
        detail=None if hr is None else HrScan(source=hr.source, mpp=declared(hr, rule.hr_mpp)),
    )
