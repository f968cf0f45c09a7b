"""`build-pairs`: scan, plan, extract, finish.

*scan* (per slide): open, check, find tissue and candidates; one JSON file each. *plan*: splits
and quotas, pure. *extract* (per slide): read, register, commit the slide by one rename.
*finish*: splits, summary, report. Every phase skips what is done, so the same command goes on
after an interruption; a failed slide is a row in `failures.csv`, never the end of the run.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

from wsisr.building.extract import ExtractResult, extract_slide
from wsisr.building.finish import finish_store
from wsisr.building.layout import SlideTask
from wsisr.building.plan import BuildPlan, decide_splits, plan_build
from wsisr.building.privacy import clean
from wsisr.building.record import write_record
from wsisr.building.records import ScanRecord, scan_path
from wsisr.building.runners import Outcome, Runner, Task
from wsisr.building.scan import kept_scan, scan_identity, scan_slide
from wsisr.building.sources import fingerprints, recorded_fingerprints
from wsisr.building.state import (
    Prepared,
    attach_store,
    check_rules,
    create_store,
    failed_slides,
    record_failure,
    resume_store,
    root_attributes,
    valid_scan,
)
from wsisr.building.summary import BuildSummary, about, report_failures
from wsisr.errors import BuildError
from wsisr.locks import STILL_S, RecordLock
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.store import BuildLock, StoreWriter, open_pairs


def build_pairs(
    prepared: Prepared, report: Reporter = silent, runner: Runner | None = None
) -> BuildSummary | None:
    """Run a whole build, or go on with one.

    Parameters
    ----------
    prepared : Prepared
    report : callable
        Receives progress events.
    runner : Runner, optional
        Where tasks run; by default a process pool of ``request.workers``.

    Returns
    -------
    BuildSummary or None
        None from a ``--part`` run: only `finish` closes such a build.

    Raises
    ------
    BuildError, StoreError
        If the build cannot start, is of another manifest, or the disk is full. Slides that were
        committed stay.
    """
    runner = prepared.runner(runner)
    part = prepared.request.part
    with BuildLock(prepared.paths.root, part=part) as lock:
        if part is not None:
            _run_part(prepared, runner, report)
            return None
        writer = resume_store(prepared)
        if writer is not None:
            refuse_replaced(prepared, prepared.tasks, writer, runner)
        _scan(prepared, prepared.tasks, writer.committed() if writer else set(), runner, report)
        if writer is None:
            if not any(valid_scan(prepared, task) for task in prepared.tasks):
                return _nothing_done(prepared)
            writer = create_store(prepared)
        _extract(prepared, prepared.tasks, writer, runner, report)
        lock.check()
        return _finish(prepared, writer, report)


def finish_parts(prepared: Prepared, report: Reporter = silent) -> BuildSummary:
    """`--finish`: close a build whose parts have all run.

    Raises
    ------
    BuildError
        If a slide was neither extracted nor failed: its part has not run to its end.
    """
    with BuildLock(prepared.paths.root):
        if not prepared.paths.meta.is_file():
            raise BuildError(
                f"{prepared.paths.root}: no part has begun to extract; run them first."
            )
        check_rules(prepared.paths.root)
        writer = StoreWriter.resume(prepared.paths.root, root_attributes(prepared))
        done = writer.committed() | set(failed_slides(prepared))
        missing = [t.slide_id for t in prepared.tasks if t.slide_id not in done]
        if missing:
            raise BuildError(
                f"{len(missing)} slides are not done yet (first: {missing[0]}); run the remaining "
                "--part runs to their end, then --finish."
            )
        return _finish(prepared, writer, report)


def part_of(slide_id: str, parts: int) -> int:
    """1-based part of a slide by a stable hash: the same on every machine and day."""
    digest = blake2b(slide_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % parts + 1


def _run_part(prepared: Prepared, runner: Runner, report: Reporter) -> None:
    """First its share of scans; once all scans exist, its share of extraction.

    The first part that gets there makes the store. No part cleans the staging area, where others
    may be at work.
    """
    assert prepared.request.part is not None
    index, parts = prepared.request.part
    exists = prepared.paths.meta.is_file()
    committed = attach_store(prepared).committed() if exists else set()
    mine = [t for t in prepared.tasks if part_of(t.slide_id, parts) == index]
    if exists:
        refuse_replaced(prepared, mine, attach_store(prepared), runner)
    _scan(prepared, mine, committed, runner, report)
    failed = failed_slides(prepared)
    waiting = [
        t.slide_id
        for t in prepared.tasks
        if t.slide_id not in committed
        and t.slide_id not in failed
        and valid_scan(prepared, t) is None
    ]
    if waiting:
        missing = sorted({part_of(slide_id, parts) for slide_id in waiting})
        message = (
            f"Part {index}/{parts} has scanned its {len(mine)} slides. Part(s) "
            f"{', '.join(map(str, missing))} have not: when they have, run every part once more "
            "to extract, then --finish."
        )
    else:
        _create_once(prepared)
        _extract(prepared, mine, attach_store(prepared), runner, report)
        message = f"Part {index}/{parts} is extracted; when all parts are, run --finish."
    report(ProgressEvent(stage="part", message=message))


def refuse_replaced(
    prepared: Prepared, tasks: Sequence[SlideTask], writer: StoreWriter, runner: Runner
) -> None:
    """Refuse to call a build done whose slides are no longer the files in the source.

    Raises
    ------
    BuildError
        Naming every file that has been replaced since its slide was committed.
    """
    committed = writer.committed()
    mine = {task.slide_id: task for task in tasks if task.slide_id in committed}
    store = open_pairs(prepared.paths.root)
    jobs: list[Task] = [(key, (task, prepared.manifest)) for key, task in mine.items()]
    changed = [
        mine[outcome.key].source.relative
        for outcome in runner(fingerprints, jobs)
        if outcome.value != recorded_fingerprints(store.slides[outcome.key].attributes)
    ]
    if changed:
        names = ", ".join(sorted(changed)[:5]) + (" ..." if changed[5:] else "")
        raise BuildError(
            f"{len(changed)} file(s) in {prepared.request.source} are not those that "
            f"{prepared.paths.root} was built from: {names}. Put the original files back, or build "
            "anew with --overwrite or into another place with -o."
        )


def _create_once(prepared: Prepared) -> None:
    """Make the store if no other part has: parts of a job array get here together."""
    turn = RecordLock(prepared.paths.partial / "creating", abandoned_s=STILL_S)
    if not prepared.paths.meta.is_file() and turn.acquire(math.inf, watch=True):
        try:
            if not prepared.paths.meta.is_file():
                create_store(prepared)
        finally:
            turn.release()


def _scan(
    prepared: Prepared,
    tasks: Sequence[SlideTask],
    committed: set[str],
    runner: Runner,
    report: Reporter,
) -> None:
    todo = [
        task
        for task in tasks
        if task.slide_id not in committed and valid_scan(prepared, task) is None
    ]
    jobs: list[Task] = [
        (task.slide_id, (task, prepared.manifest, prepared.scans, prepared.request.source))
        for task in todo
    ]
    kept = [kept_scan(task, scan_identity(task, prepared.manifest)) for task in todo]
    if count := sum(record is not None for record in kept):
        text = f"{count} of {len(todo)} slides were scanned by a dry run: not again if unchanged."
        report(ProgressEvent(stage="scan", message=text))
    run_phase(prepared, "scan", scan_slide, jobs, runner, report)
    failed = failed_slides(prepared)
    for task in todo:
        # A record that cannot be read back must not make its slide vanish without a word.
        if task.slide_id not in failed and valid_scan(prepared, task) is None:
            error = "its scan could not be read back, or its file changed meanwhile; run again."
            outcome = Outcome(key=task.slide_id, error=error, kind="BuildError")
            record_failure(prepared, "scan", task, outcome)


def _extract(
    prepared: Prepared,
    tasks: Sequence[SlideTask],
    writer: StoreWriter,
    runner: Runner,
    report: Reporter,
) -> None:
    plan = make_plan(prepared, writer)
    for warning in plan.warnings:
        report(ProgressEvent(stage="plan", message=f"Warning: {warning}"))
    committed = writer.committed()
    jobs: list[Task] = [
        (
            task.slide_id,
            (
                task,
                prepared.manifest,
                plan.shares[task.slide_id],
                prepared.scans,
                prepared.paths.root,
            ),
        )
        for task in tasks
        if task.slide_id in plan.shares and task.slide_id not in committed
    ]
    run_phase(prepared, "extract", extract_slide, jobs, runner, report)


def make_plan(prepared: Prepared, writer: StoreWriter) -> BuildPlan:
    """Splits and shares of every scanned slide, the same in every part and after every restart.

    Shares are divided over all scans, also of slides that are committed already in this
    build; what earlier, finished builds of the store kept counts against the quotas. Splits are
    drawn among the slides that can be used and written down before the first is extracted.
    """
    frozen, kept = _earlier(prepared, writer)
    records: dict[str, ScanRecord] = {}
    for task in prepared.tasks:
        record = valid_scan(prepared, task)
        if record is not None:
            records[task.slide_id] = record
    usable = [t for t in prepared.tasks if t.slide_id in records or t.slide_id in frozen]
    splits, notes = decide_splits(usable, prepared.manifest, frozen)
    if frozen | splits != frozen:
        writer.set_root({"assigned": frozen | splits})
    patients = {task.slide_id: task.patient.name for task in prepared.tasks}
    plan = plan_build(records, splits, prepared.manifest, patients, kept)
    return BuildPlan(shares=plan.shares, warnings=(*notes, *plan.warnings))


def _earlier(
    prepared: Prepared, writer: StoreWriter
) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """Splits that are frozen, and pairs per split and class that finished builds hold."""
    frozen: dict[str, str] = {}
    kept: dict[str, dict[str, int]] = {}
    classes = prepared.manifest.labels.classes
    store = open_pairs(prepared.paths.root)
    assigned: dict[str, str] = dict(store.attributes).get("assigned", {})  # type: ignore[assignment]
    frozen.update(assigned)
    for slide_id in sorted(writer.committed()):
        split = str(store.slides[slide_id].attributes["split"] or "")
        frozen[slide_id] = split
        if scan_path(prepared.scans, slide_id).is_file():
            continue
        labels = store.table(slide_id, columns=["label"])["label"]
        counts = kept.setdefault(split, {})
        counts["any"] = counts.get("any", 0) + len(labels)
        for index, name in enumerate(classes):
            counts[name] = counts.get(name, 0) + int((labels == index).sum())
    return frozen, kept


def _nothing_done(prepared: Prepared) -> BuildSummary:
    """No slide can be used: no store is made, so that the next try may ask for something else."""
    failures = tuple(failed_slides(prepared).values())
    summary = report_failures(prepared.paths.root, failures, prepared.layout)
    shutil.rmtree(prepared.scans, ignore_errors=True)
    shutil.rmtree(prepared.errors, ignore_errors=True)
    return summary


def _finish(prepared: Prepared, writer: StoreWriter, report: Reporter) -> BuildSummary:
    failures = tuple(failed_slides(prepared).values())
    summary = finish_store(
        prepared.paths.root,
        prepared.manifest,
        prepared.layout,
        prepared.tasks,
        failures,
        writer,
        report,
    )
    write_record(prepared.paths.root, prepared.scans, prepared.tasks)
    shutil.rmtree(prepared.scans, ignore_errors=True)
    shutil.rmtree(prepared.errors, ignore_errors=True)
    writer.clean()
    report(ProgressEvent(stage="finish", done=1, total=1))
    return summary


def run_phase(
    prepared: Prepared,
    stage: str,
    function: Callable[..., Any],
    jobs: Sequence[Task],
    runner: Runner,
    report: Reporter,
) -> None:
    """Run a phase; every fault becomes a file that later phases and restarts know of."""
    sources = {task.slide_id: task for task in prepared.tasks}
    for key, _ in jobs:
        (prepared.errors / f"{key}.json").unlink(missing_ok=True)
    report(ProgressEvent(stage=stage, done=0, total=len(jobs), unit="slide"))
    for done, outcome in enumerate(runner(function, jobs), start=1):
        message = ""
        if outcome.error:
            record_failure(prepared, stage, sources[outcome.key], outcome)
            task = sources[outcome.key]
            text = clean(outcome.error, task, prepared.root)
            message = about(text, outcome.key, task.source.relative)
        elif isinstance(outcome.value, ExtractResult) and outcome.value.shortfall:
            message = (
                f"{outcome.key}: {outcome.value.shortfall} pairs short of its share; its reserve "
                "is used up."
            )
        report(
            ProgressEvent(
                stage=stage,
                done=done,
                total=len(jobs),
                unit="slide",
                item=outcome.key,
                message=message,
            )
        )
