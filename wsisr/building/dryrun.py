"""`--dry-run`: the resolved plan of a build, in words, without writing anything."""

import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from wsisr.building.layout import SlideTask
from wsisr.building.plan import SlideShare, decide_splits, plan_build
from wsisr.building.records import ScanRecord
from wsisr.building.runners import ProcessRunner, Runner, Task
from wsisr.building.scan import scan_slide
from wsisr.building.sources import source_kind
from wsisr.building.state import Prepared
from wsisr.progress import ProgressEvent, Reporter, silent

PROBE_PATCHES = 4
PROBE_SLIDES = 3


@dataclass(frozen=True, kw_only=True)
class PlanText:
    """The plan for a person, and the exit code that the build would have."""

    text: str
    exit_code: int


def describe_plan(
    prepared: Prepared, report: Reporter = silent, runner: Runner | None = None
) -> PlanText:
    """Scan every slide into a temporary folder and say what a build would do.

    Levels, what is native and what is made, counts, size on disk, and a time from reading a
    few patches of the first slides here and now.
    """
    runner = runner or ProcessRunner(workers=max(1, prepared.request.workers))
    records: dict[str, ScanRecord] = {}
    errors: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="wsisr-plan-") as folder:
        jobs: list[Task] = [
            (t.slide_id, (t, prepared.manifest, Path(folder), prepared.request.source))
            for t in prepared.tasks
        ]
        report(ProgressEvent(stage="scan", total=len(jobs), unit="slide"))
        for done, outcome in enumerate(runner(scan_slide, jobs), start=1):
            if outcome.error:
                errors[outcome.key] = outcome.error
            else:
                records[outcome.key] = outcome.value
            report(
                ProgressEvent(
                    stage="scan", done=done, total=len(jobs), unit="slide", item=outcome.key
                )
            )
    usable = [task for task in prepared.tasks if task.slide_id in records]
    splits, notes = decide_splits(usable, prepared.manifest, {})
    patients = {task.slide_id: task.patient.name for task in prepared.tasks}
    plan = plan_build(records, splits, prepared.manifest, patients)
    by_id = {task.slide_id: task for task in prepared.tasks}
    seconds = _seconds_per_pair(records, by_id, prepared)
    lines = [f"Manifest {prepared.manifest.name} (wsisr manifests show prints it whole)", ""]
    pairs = raw_bytes = 0
    for slide_id in sorted(records):
        record = records[slide_id]
        count = pairs_wanted(record, plan.shares[slide_id])
        size = count * sum(3 * layer.size_px**2 for layer in record.geometry.layers)
        pairs, raw_bytes = pairs + count, raw_bytes + size
        lines.append(slide_line(record, plan.shares[slide_id], count, size))
    lines += [f"{slide_id}: FAILS: {error}" for slide_id, error in sorted(errors.items())]
    lines += ["", *(f"Warning: {text}" for text in (*notes, *plan.warnings))]
    workers = max(1, prepared.request.workers)
    eta = "" if seconds is None else f", about {_duration(pairs * seconds / workers)} of extraction"
    lines.append(
        f"{pairs:,} pairs from {len(records)} slides ({len(errors)} fail), "
        f"{raw_bytes / 1e9:.2f} GB uncompressed{eta} with {workers} workers. Nothing was written."
    )
    code = 2 if not pairs else 1 if errors else 0
    return PlanText(text="\n".join(lines), exit_code=code)


def pairs_wanted(record: ScanRecord, share: SlideShare) -> int:
    """Pairs that a slide would give if all its registrations are accepted."""
    if share.wanted is None:
        return len(record.candidates)
    return min(len(record.candidates), sum(share.wanted.values()))


def slide_line(record: ScanRecord, share: SlideShare, count: int, size: int) -> str:
    """One slide of the plan."""
    info = record.info
    mpp = info.mpp
    layers = ", ".join(
        f"{layer.name} {layer.size_px} px "
        + (
            f"stored (level {layer.level})"
            if layer.native
            else f"made from level {layer.level} / {layer.reduction:g}"
        )
        for layer in record.geometry.layers
    )
    steps = " > ".join(f"{count:,} {name}" for name, count in record.funnel.items())
    resolution = "" if mpp is None else f"{mpp.value:.4f} um/px ({mpp.source})"
    return (
        f"{record.slide_id}: {info.vendor} by {info.backend}, {resolution}, {layers}; "
        f"{steps}; {share.split or 'split by patch'}: {count:,} pairs, {size / 1e6:,.0f} MB"
    )


def _seconds_per_pair(
    records: Mapping[str, ScanRecord], tasks: Mapping[str, SlideTask], prepared: Prepared
) -> float | None:
    """Median over a few slides of the time of reading a pair."""
    rates: list[float] = []
    for slide_id in sorted(records):
        record = records[slide_id]
        if not len(record.candidates) or len(rates) >= PROBE_SLIDES:
            continue
        rates.append(_probe(record, tasks[slide_id], prepared))
    return sorted(rates)[len(rates) // 2] if rates else None


def _probe(record: ScanRecord, task: SlideTask, prepared: Prepared) -> float:
    origins = record.candidates.origins()[:PROBE_PATCHES]
    kind = source_kind(prepared.manifest)
    with closing(kind.open(task, prepared.manifest, record.info.backend)) as source:
        start = time.perf_counter()
        for _ in source.read(record.reading, origins):
            pass
        return (time.perf_counter() - start) / len(origins)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
