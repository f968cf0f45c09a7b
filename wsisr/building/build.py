"""`build-pairs`: scan, plan, extract, finish.

*scan* (per slide): open, check, find tissue and candidates; one JSON file each. *plan*: splits
and quotas, pure. *extract* (per slide): read, register, commit the slide by one rename.
*finish*: splits, summary, report. Every phase skips what is done, so the same command goes on
after an interruption; a failed slide is a row in `failures.csv`, never the end of the run.
"""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from wsisr.building.extract import ExtractResult, extract_slide
from wsisr.building.finish import BuildSummary, Failure, finish_store, report_failures
from wsisr.building.layout import Layout, SlideTask, apply_overrides, recognise
from wsisr.building.manifest import Manifest, load_manifest
from wsisr.building.plan import BuildPlan, decide_splits, plan_build
from wsisr.building.records import ScanRecord, load_scan, scan_path
from wsisr.building.rescan import pair_scans
from wsisr.building.runners import Outcome, ProcessRunner, Runner, Task
from wsisr.building.scan import scan_identity, scan_slide
from wsisr.building.versions import package_versions
from wsisr.errors import BuildError
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.slides import find_slides
from wsisr.store import BuildLock, StoreWriter, open_pairs
from wsisr.store.files import replace_file
from wsisr.store.layout import StorePaths
from wsisr.store.writer import read_store_attributes


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What the user asked for.

    Attributes
    ----------
    source : Path
        A folder of slides, or one slide.
    output : Path
        The store, e.g. ``pairs.zarr``.
    manifest : str or Path or None
        Name or file; None: what the folder's layout suggests.
    overrides : dict
        Dotted manifest keys and their values, from the command line.
    workers : int
        Processes; 0 works in this process.
    part : (int, int) or None
        ``(i, n)``: this run's share of the slides, 1-based.
    overwrite : bool
        Replace an existing store.
    mpp_override : Path or None
        The user's table (`wsisr.building.layout.apply_overrides`).
    codec : str or None
        ``"raw"``, ``"small"`` or ``"zstd"``; None: the store's own, raw for a new one.
    """

    source: Path
    output: Path = Path("pairs.zarr")
    manifest: str | Path | None = None
    overrides: dict[str, Any]
    workers: int = 1
    part: tuple[int, int] | None = None
    overwrite: bool = False
    mpp_override: Path | None = None
    codec: str | None = None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request after the source was listed and the manifest resolved: no slide opened yet."""

    request: BuildRequest
    layout: Layout
    manifest: Manifest
    tasks: tuple[SlideTask, ...]
    paths: StorePaths

    @property
    def scans(self) -> Path:
        return self.paths.partial / "scan"

    @property
    def errors(self) -> Path:
        return self.paths.partial / "errors"


def prepare(request: BuildRequest) -> Prepared:
    """List the slides, understand the folder, resolve the manifest.

    Raises
    ------
    BuildError
        If the source does not exist or holds no slide.
    ManifestError
        From the manifest or the override table.
    """
    if not request.source.exists():
        raise BuildError(f"{request.source}: no such file or folder.")
    slides = find_slides(request.source)
    if not slides:
        raise BuildError(
            f"{request.source}: no slides here (SVS, TIFF, NDPI, MRXS, DICOM, PNG, JPEG, ...)."
        )
    layout = recognise(request.source, slides)
    manifest = load_manifest(request.manifest or layout.manifest, request.overrides)
    tasks = layout.tasks
    if request.mpp_override is not None:
        tasks = apply_overrides(tasks, request.mpp_override)
    if manifest.rescan is not None:
        tasks = pair_scans(tasks, manifest, request.source)
    return Prepared(
        request=request,
        layout=layout,
        manifest=manifest,
        tasks=tasks,
        paths=StorePaths(request.output),
    )


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
    request = prepared.request
    runner = runner or ProcessRunner(workers=max(1, request.workers))
    with BuildLock(prepared.paths.root, part=request.part):
        if request.part is not None:
            _run_part(prepared, runner, report)
            return None
        writer = _resume(prepared)
        _scan(prepared, prepared.tasks, writer.committed() if writer else set(), runner, report)
        if writer is None:
            if not any(_valid_scan(prepared, task) for task in prepared.tasks):
                return _nothing_done(prepared)
            writer = _create(prepared)
        _extract(prepared, prepared.tasks, writer, runner, report)
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
        writer = StoreWriter.resume(prepared.paths.root, _root(prepared))
        done = writer.committed() | set(_failed(prepared))
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
    committed = _attach(prepared).committed() if exists else set()
    mine = [t for t in prepared.tasks if part_of(t.slide_id, parts) == index]
    _scan(prepared, mine, committed, runner, report)
    failed = _failed(prepared)
    waiting = [
        t.slide_id
        for t in prepared.tasks
        if t.slide_id not in committed
        and t.slide_id not in failed
        and _valid_scan(prepared, t) is None
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
        _extract(prepared, mine, _attach(prepared), runner, report)
        message = f"Part {index}/{parts} is extracted; when all parts are, run --finish."
    report(ProgressEvent(stage="part", message=message))


def _create_once(prepared: Prepared, patience_s: float = 60.0) -> None:
    """Make the store if no other part has: parts of a job array get here together.

    Making a directory is atomic on shared disks too, so it decides who creates; whoever died
    while at it is replaced after a minute.
    """
    turn = prepared.paths.partial / "creating"
    while not prepared.paths.meta.is_file():
        try:
            turn.mkdir()
        except FileExistsError:
            with suppress(FileNotFoundError):
                if time.time() - turn.stat().st_mtime > patience_s:
                    turn.rmdir()
            time.sleep(0.1)
            continue
        try:
            if not prepared.paths.meta.is_file():
                _create(prepared)
        finally:
            turn.rmdir()


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
        if task.slide_id not in committed and _valid_scan(prepared, task) is None
    ]
    jobs: list[Task] = [
        (task.slide_id, (task, prepared.manifest, prepared.scans, prepared.request.source))
        for task in todo
    ]
    _run(prepared, "scan", scan_slide, jobs, runner, report)
    failed = _failed(prepared)
    for task in todo:
        # A record that cannot be read back must not make its slide vanish without a word.
        if task.slide_id not in failed and _valid_scan(prepared, task) is None:
            error = "its scan could not be read back, or its file changed meanwhile; run again."
            outcome = Outcome(key=task.slide_id, error=error, kind="BuildError")
            _record_failure(prepared, "scan", task, outcome)


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
    _run(prepared, "extract", extract_slide, jobs, runner, report)


def make_plan(prepared: Prepared, writer: StoreWriter) -> BuildPlan:
    """Splits and shares of every scanned slide, the same in every part and after every restart.

    Shares are divided over all scans, also of slides that are committed already in this
    build; what earlier, finished builds of the store kept counts against the quotas. Splits are
    drawn among the slides that can be used and written down before the first is extracted.
    """
    frozen, kept = _earlier(prepared, writer)
    records: dict[str, ScanRecord] = {}
    for task in prepared.tasks:
        record = _valid_scan(prepared, task)
        if record is not None:
            records[task.slide_id] = record
    usable = [t for t in prepared.tasks if t.slide_id in records or t.slide_id in frozen]
    splits, notes = decide_splits(usable, prepared.manifest, frozen)
    if frozen | splits != frozen:
        writer.set_root({"assigned": frozen | splits})
    patients = {task.slide_id: task.patient for task in prepared.tasks}
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
        split = str(store.slides[slide_id].attributes["split"])
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
    summary = report_failures(prepared.paths.root, tuple(_failed(prepared).values()))
    shutil.rmtree(prepared.scans, ignore_errors=True)
    shutil.rmtree(prepared.errors, ignore_errors=True)
    return summary


def _finish(prepared: Prepared, writer: StoreWriter, report: Reporter) -> BuildSummary:
    failures = tuple(_failed(prepared).values())
    summary = finish_store(
        prepared.paths.root, prepared.manifest, prepared.layout, prepared.tasks, failures, writer
    )
    shutil.rmtree(prepared.scans, ignore_errors=True)
    shutil.rmtree(prepared.errors, ignore_errors=True)
    writer.clean()
    report(ProgressEvent(stage="finish", done=1, total=1))
    return summary


def _run(
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
            _record_failure(prepared, stage, sources[outcome.key], outcome)
            message = f"{outcome.key}: {outcome.error}"
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


def _record_failure(prepared: Prepared, stage: str, task: SlideTask, outcome: Outcome) -> None:
    failure = Failure(
        slide_id=task.slide_id,
        path=task.source.relative,
        stage=stage,
        kind=outcome.kind,
        error=outcome.error,
        trace=outcome.trace,
    )
    prepared.errors.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(failure), sort_keys=True, indent=1)
    replace_file(prepared.errors / f"{task.slide_id}.json", text.encode())


def _failed(prepared: Prepared) -> dict[str, Failure]:
    found = {}
    for task in prepared.tasks:
        path = prepared.errors / f"{task.slide_id}.json"
        if path.is_file():
            found[task.slide_id] = Failure(**json.loads(path.read_text(encoding="utf-8")))
    return found


def _valid_scan(prepared: Prepared, task: SlideTask) -> ScanRecord | None:
    """The scan of a slide, if it is of this manifest and this override of the resolution."""
    record = load_scan(prepared.scans, task.slide_id)
    if record is None or record.identity != scan_identity(task, prepared.manifest):
        return None
    return record


def _resume(prepared: Prepared) -> StoreWriter | None:
    """The store to go on with; None where there is none yet, or it is to be replaced."""
    if prepared.request.overwrite:
        shutil.rmtree(prepared.scans, ignore_errors=True)
        shutil.rmtree(prepared.errors, ignore_errors=True)
        return None
    if not prepared.paths.meta.is_file():
        return None
    writer = StoreWriter.resume(prepared.paths.root, _root(prepared))
    _check_codec(prepared, writer)
    return writer


def _create(prepared: Prepared) -> StoreWriter:
    request = prepared.request
    return StoreWriter.create(
        prepared.paths.root,
        _root(prepared),
        codec=request.codec or "raw",
        overwrite=request.overwrite,
    )


def _attach(prepared: Prepared) -> StoreWriter:
    """The store for one part: checked, and left as it is."""
    stored = read_store_attributes(prepared.paths.root)
    if stored["manifest_sha256"] != prepared.manifest.sha256():
        raise BuildError(
            f"{prepared.paths.root} was begun with another manifest or other settings; use those, "
            "or write to another place with -o."
        )
    writer = StoreWriter.attach(prepared.paths.root)
    _check_codec(prepared, writer)
    return writer


def _check_codec(prepared: Prepared, writer: StoreWriter) -> None:
    wanted = prepared.request.codec
    if wanted not in (None, writer.codec):
        raise BuildError(
            f"{prepared.paths.root} is written with --codec {writer.codec}; go on with that, or "
            "build another store with -o."
        )


def _root(prepared: Prepared) -> dict[str, Any]:
    manifest = prepared.manifest
    return {
        "created_with": package_versions(),
        "manifest": manifest.to_dict(),
        "manifest_sha256": manifest.sha256(),
        "magnifications": [manifest.hr, *manifest.lr],
        "slides": [task.slide_id for task in prepared.tasks],
    }
