"""What each phase of a build does: scan, plan, extract, finish (who runs which: `build`).

*scan* (per slide): open, check, find tissue and candidates; one JSON file each. *plan*: splits
and quotas, pure; written down, so that one slide can be extracted without the scans of all.
*extract* (per slide): read, register, commit the slide by one rename. *finish*: splits, summary,
report. Every phase skips what is done; a failed slide is a row in `failures.csv`, never the end
of the run.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from wsisr.building.extract import extract_slide
from wsisr.building.finish import finish_store
from wsisr.building.layout import SlideTask
from wsisr.building.manifest import Manifest
from wsisr.building.plan import BuildPlan, decide_splits, divides_patches, plan_build
from wsisr.building.privacy import clean
from wsisr.building.scan import kept_scan, scan_identity, scan_slide
from wsisr.building.scan_records import RankedCandidates, ScanRecord, scan_path
from wsisr.building.sources import fingerprints, recorded_fingerprints
from wsisr.building.state import (
    Prepared,
    failed_slides,
    forget_progress,
    record_failure,
    save_plan,
    valid_scan,
)
from wsisr.building.store_record import write_record
from wsisr.building.summary import BuildSummary, about, report_failures
from wsisr.errors import BuildError, StoreLockedError
from wsisr.progress import ProgressEvent, Reporter
from wsisr.runners import Outcome, Runner, Task
from wsisr.store import StoreWriter, open_pairs
from wsisr.store.lock import ORPHAN_WAIT_S

BUSY_WAIT_S = 2.0
"""How long a slide that another process writes is waited for before the others are taken."""


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
    away = {key for key, task in mine.items() if task.stage and task.stage.origin}
    jobs: list[Task] = [
        (key, (task, prepared.manifest)) for key, task in mine.items() if key not in away
    ]
    # Of slides at addresses, sizes and times alone, where their scans are still there: their
    # content would have to travel once more.
    changed = [
        mine[key].source.relative
        for key in sorted(away)
        if scan_path(prepared.scans, key).is_file() and valid_scan(prepared, mine[key]) is None
    ]
    changed += [
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


def scan(
    prepared: Prepared,
    tasks: Sequence[SlideTask],
    committed: Collection[str],
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
    run_phase(prepared, "scan", jobs, runner(scan_slide, jobs), report)
    failed = failed_slides(prepared)
    for task in todo:
        # A record that cannot be read back must not make its slide vanish without a word.
        if task.slide_id not in failed and valid_scan(prepared, task) is None:
            error = "its scan could not be read back, or its file changed meanwhile; run again."
            outcome = Outcome(key=task.slide_id, error=error, kind="BuildError")
            record_failure(prepared, "scan", task, outcome)


def make_plan(prepared: Prepared, writer: StoreWriter, report: Reporter) -> BuildPlan:
    """Splits and shares of every scanned slide, the same in every part and after every restart,
    written down for those who extract a few.

    Shares are divided over all scans, also of slides that are committed already in this
    build; what earlier, finished builds of the store kept counts against the quotas. Splits are
    drawn among the slides that can be used and written down before the first is extracted.
    """
    frozen, kept = _earlier(prepared, writer)
    records: dict[str, ScanRecord] = {}
    for task in prepared.tasks:
        record = valid_scan(prepared, task)
        if record is not None:
            records[task.slide_id] = _counted(record, prepared.manifest)
    usable = [t for t in prepared.tasks if t.slide_id in records or t.slide_id in frozen]
    splits, notes = decide_splits(usable, prepared.manifest, frozen)
    if frozen | splits != frozen:
        writer.set_root({"assigned": frozen | splits})
    patients = {task.slide_id: task.patient.name for task in prepared.tasks}
    plan = plan_build(records, splits, prepared.manifest, patients, kept)
    plan = BuildPlan(shares=plan.shares, warnings=(*notes, *plan.warnings))
    save_plan(prepared, plan, records)
    for warning in plan.warnings:
        report(ProgressEvent(stage="plan", message=f"Warning: {warning}"))
    return plan


def _counted(record: ScanRecord, manifest: Manifest) -> ScanRecord:
    """What planning needs of a scan: of ten million candidates no more than their labels, unless
    each is to draw a split by its place."""
    found = record.candidates
    if not divides_patches(manifest):
        found = RankedCandidates(x=found.label, label=found.label)
    return replace(record, candidates=found, transforms=(), evidence=(), extras={}, scans=None)


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


def extract(
    prepared: Prepared,
    tasks: Sequence[SlideTask],
    plan: BuildPlan,
    writer: StoreWriter,
    runner: Runner,
    report: Reporter,
) -> list[str]:
    """Extract what of these slides is planned and not committed; a slide that another process
    writes is put back until the others are done.

    Returns
    -------
    list of str
        Slides that another process still writes.
    """
    busy = [task.slide_id for task in tasks if task.slide_id in plan.shares]
    by_id = {task.slide_id: task for task in tasks}
    for wait_s in (BUSY_WAIT_S, ORPHAN_WAIT_S):
        committed = writer.committed()
        jobs: list[Task] = [
            (
                slide_id,
                (
                    by_id[slide_id],
                    prepared.manifest,
                    plan.shares[slide_id],
                    prepared.scans,
                    prepared.paths.root,
                    wait_s,
                ),
            )
            for slide_id in busy
            if slide_id not in committed
        ]
        put_back = wait_s == BUSY_WAIT_S or prepared.request.shared
        outcomes = runner(extract_slide, jobs)
        busy = run_phase(prepared, "extract", jobs, outcomes, report, put_back)
        if not busy:
            break
    return busy


def nothing_done(prepared: Prepared) -> BuildSummary:
    """No slide can be used: no store is made, so that the next try may ask for something else."""
    failures = tuple(failed_slides(prepared).values())
    summary = report_failures(prepared.paths.root, failures, prepared.layout)
    forget_progress(prepared)
    return summary


def finish(prepared: Prepared, writer: StoreWriter, report: Reporter) -> BuildSummary:
    failures = tuple(failed_slides(prepared).values())
    summary = finish_store(prepared, failures, writer, report)
    write_record(prepared.paths.root, prepared.scans, prepared.tasks)
    forget_progress(prepared)
    writer.clean()
    report(ProgressEvent(stage="finish", done=1, total=1))
    return summary


def run_phase(
    prepared: Prepared,
    stage: str,
    jobs: Sequence[Task],
    outcomes: Iterator[Outcome],
    report: Reporter,
    put_back: bool = False,
) -> list[str]:
    """Run a phase; every fault becomes a file that later phases and restarts know of.

    Parameters
    ----------
    outcomes : iterator of Outcome
        What a `Runner` gives of the jobs, which begin with the first one that is asked for.

    Returns
    -------
    list of str
        With `put_back`: slides that another process is writing, which is no fault of theirs.
    """
    sources = {task.slide_id: task for task in prepared.tasks}
    busy: list[str] = []
    for key, _ in jobs:
        (prepared.errors / f"{key}.json").unlink(missing_ok=True)
    report(ProgressEvent(stage=stage, done=0, total=len(jobs), unit="slide"))
    for done, outcome in enumerate(outcomes, start=1):
        message = ""
        if put_back and outcome.kind == StoreLockedError.__name__:
            busy.append(outcome.key)
        elif outcome.error:
            record_failure(prepared, stage, sources[outcome.key], outcome)
            task = sources[outcome.key]
            text = clean(outcome.error, task, prepared.root)
            message = about(text, outcome.key, task.source.relative)
        elif stage == "extract" and outcome.value:
            message = (
                f"{outcome.key}: {outcome.value} pairs short of its share; its reserve is used up."
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
    return busy
