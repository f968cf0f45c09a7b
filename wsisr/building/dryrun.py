"""`--dry-run`: the resolved plan of a build, in words. Its scans are kept for the build."""

import tempfile
import textwrap
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from wsisr.building.extract import tile_plan
from wsisr.building.layout import SlideTask
from wsisr.building.manifest import Manifest, parse_manifest
from wsisr.building.plan import SlideShare, decide_splits, plan_build
from wsisr.building.privacy import clean, unlogged
from wsisr.building.scan import forget_old_scans, keep_scan, scan_slide
from wsisr.building.scan_records import ScanRecord
from wsisr.building.sources import source_kind
from wsisr.building.staging import staged
from wsisr.building.state import Prepared, store_codec
from wsisr.building.summary import not_tiled_sentences
from wsisr.errors import ManifestError
from wsisr.magnification import magnification_name, nominal_magnification, parse_magnification
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.runners import Runner, Task
from wsisr.slides.streams import NotKept
from wsisr.store.presets import SLIDE
from wsisr.words import counted, duration

PROBE_PATCHES = 4
PROBE_SLIDES = 3
WIDTH = 80
"""Columns of a terminal that the plan fits."""
MIN_NAME = 12


@dataclass(frozen=True, kw_only=True)
class PlanText:
    """The plan for a person, and the exit code that the build would have."""

    text: str
    exit_code: int


def describe_plan(
    prepared: Prepared, report: Reporter = silent, runner: Runner | None = None
) -> PlanText:
    """Scan every slide and say what a build would do; nothing is written but the user's cache.

    Levels, what is native and what is made, counts, size on disk, and a time from reading a
    few patches of the first slides here and now.
    """
    with prepared.runner(runner) as chosen:
        return _describe(prepared, report, chosen)


def _describe(prepared: Prepared, report: Reporter, runner: Runner) -> PlanText:
    forget_old_scans(time.time())
    by_id = {task.slide_id: task for task in prepared.tasks}
    records, errors, kept = _scan(by_id, prepared.manifest, prepared, runner, report)
    shares, notes = _shares(records, by_id, prepared.manifest)
    notes = (*notes, *_not_tiled(records, by_id, prepared, runner))
    seconds = _seconds_per_pair(records, by_id, prepared)
    counts = {slide_id: pairs_wanted(records[slide_id], shares[slide_id]) for slide_id in shares}
    sizes = {
        slide_id: count * sum(3 * layer.size_px**2 for layer in records[slide_id].geometry.layers)
        for slide_id, count in counts.items()
    }
    pairs, workers = sum(counts.values()), max(1, prepared.request.workers)
    left = None if seconds is None else duration(pairs * seconds / workers)
    eta = "" if left is None else f", about {left} of extraction"
    last = (
        f"{counted(pairs, 'pair')} from {counted(len(records), 'slide')} ({len(errors)} fail), "
        f"{sum(sizes.values()) / 1e9:.2f} GB uncompressed{eta} with {workers} workers. Nothing was "
        "built; "
        + (
            "the build takes these scans."
            if kept
            else "the build scans again, for these scans could not be kept."
        )
    )
    blocks = [
        [f"Manifest {prepared.manifest.name} (wsisr manifests show prints it whole)"],
        slide_table(records, shares, counts, sizes),
        [line for item in sorted(errors.items()) for line in _wrapped(": FAILS: ".join(item))],
        [line for text in notes for line in _wrapped(f"Warning: {text}")],
        _wrapped(last),
        [line for text in would_work(prepared, sorted(errors), runner) for line in _wrapped(text)],
    ]
    code = 2 if not pairs else 1 if errors else 0
    return PlanText(text="\n\n".join("\n".join(block) for block in blocks if block), exit_code=code)


def _scan(
    tasks: Mapping[str, SlideTask],
    manifest: Manifest,
    prepared: Prepared,
    runner: Runner,
    report: Reporter = silent,
) -> tuple[dict[str, ScanRecord], dict[str, str], bool]:
    """Records and errors by slide id, and whether the records are kept for a build."""
    records: dict[str, ScanRecord] = {}
    kept = True
    errors: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="wsisr-plan-") as folder:
        jobs: list[Task] = [
            (slide_id, (task, manifest, Path(folder), prepared.request.source))
            for slide_id, task in tasks.items()
        ]
        report(ProgressEvent(stage="scan", total=len(jobs), unit="slide"))
        for done, outcome in enumerate(runner(scan_slide, jobs), start=1):
            task = tasks[outcome.key]
            if outcome.error:
                errors[outcome.key] = clean(outcome.error, task, prepared.root)
            else:
                records[outcome.key] = outcome.value
                kept &= keep_scan(Path(folder), task, manifest)
            report(
                ProgressEvent(
                    stage="scan", done=done, total=len(jobs), unit="slide", item=outcome.key
                )
            )
    return records, errors, kept


def _shares(
    records: Mapping[str, ScanRecord], tasks: Mapping[str, SlideTask], manifest: Manifest
) -> tuple[dict[str, SlideShare], tuple[str, ...]]:
    """What each scanned slide is asked for, and warnings."""
    usable = [task for slide_id, task in tasks.items() if slide_id in records]
    splits, notes = decide_splits(usable, manifest, {})
    plan = plan_build(records, splits, manifest, {t.slide_id: t.patient.name for t in usable})
    return plan.shares, (*notes, *plan.warnings)


def _not_tiled(
    records: Mapping[str, ScanRecord],
    tasks: Mapping[str, SlideTask],
    prepared: Prepared,
    runner: Runner,
) -> list[str]:
    """Which slides would not be kept as their own tiles, where that is asked for."""
    if store_codec(prepared) != SLIDE:
        return []
    jobs: list[Task] = [
        (slide_id, (tasks[slide_id], prepared.manifest, record))
        for slide_id, record in records.items()
    ]
    reasons, unknown = {}, []
    for outcome in runner(why_not_tiled, jobs):
        if outcome.error:
            text = clean(outcome.error, tasks[outcome.key], prepared.root)
            unknown.append(f"{outcome.key}: whether its own tiles are kept is not known: {text}")
        reasons[outcome.key] = outcome.value or ""
    return [*not_tiled_sentences(reasons), *unknown]


def why_not_tiled(task: SlideTask, manifest: Manifest, record: ScanRecord) -> str:
    """Why a slide's own tiles are not kept; empty where they are.

    By what the file says of all of them: one that is of another kind shows when it is read.
    """
    with (
        staged(task) as here,
        closing(source_kind(manifest).open(here, manifest, record.info.backend)) as source,
    ):
        try:
            tile_plan(source, record.reading)
        except NotKept as reason:
            return str(reason)
    return ""


def _wrapped(text: str) -> list[str]:
    """Lines of at most `WIDTH`; paths and ids are not broken."""
    return textwrap.wrap(
        text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def pairs_wanted(record: ScanRecord, share: SlideShare) -> int:
    """Pairs that a slide would give if all its registrations are accepted."""
    if share.wanted is None:
        return len(record.candidates)
    return min(len(record.candidates), sum(share.wanted.values()))


def slide_table(
    records: Mapping[str, ScanRecord],
    shares: Mapping[str, SlideShare],
    counts: Mapping[str, int],
    sizes: Mapping[str, int],
) -> list[str]:
    """A row for each slide in `WIDTH` columns, what a set of arrays is, and why a slide is empty.

    Parameters
    ----------
    records, shares : mapping of slide id to ScanRecord and SlideShare
    counts, sizes : mapping of slide id to int
        Pairs, and their bytes uncompressed.
    """
    if not records:
        return []
    sets: dict[tuple[str, ...], str] = {}
    rows = [("slide", "um/px", "set", "split", "places", "usable", "pairs", "MB")]
    for slide_id, record in sorted(records.items()):
        mpp, places = record.info.mpp, next(iter(record.funnel.values()), 0)
        rows.append(
            (
                slide_id,
                "" if mpp is None else f"{mpp.value:.4f}",
                sets.setdefault(_layers(record), str(len(sets) + 1)),
                shares[slide_id].split or "by patch",
                f"{places:,}",
                f"{len(record.candidates):,}",
                f"{counts[slide_id]:,}",
                f"{sizes[slide_id] / 1e6:,.0f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = max(MIN_NAME, WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1))
    lines = []
    for name, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([_shortened(name, room).ljust(min(room, widths[0])), *padded]))
    for layers, number in sets.items():
        lines += ["", f"Set {number}:", *(f"  {layer}" for layer in layers)]
    empty = [slide_id for slide_id in sorted(records) if not counts[slide_id]]
    for slide_id in empty:
        steps = " > ".join(f"{count:,} {name}" for name, count in records[slide_id].funnel.items())
        lines += ["", *_wrapped(f"{slide_id} gives none: {steps}")]
    return lines


def _shortened(name: str, room: int) -> str:
    """The beginning and the end of a name: ids differ in both."""
    if len(name) <= room:
        return name
    end = (room - 2) // 2
    return f"{name[: room - 2 - end]}..{name[-end:]}"


def _layers(record: ScanRecord) -> tuple[str, ...]:
    """The arrays of a slide, each with where its pixels come from."""
    return tuple(
        f"{layer.name} {layer.size_px} px "
        + (
            f"stored (level {layer.level})"
            if layer.native
            else f"made from level {layer.level} / {layer.reduction:g}"
        )
        for layer in record.geometry.layers
    )


def would_work(prepared: Prepared, failed: Sequence[str], runner: Runner) -> list[str]:
    """Which magnifications slides that lack the HR asked for do have, and what they would give.

    The slides of each magnification are scanned with HR at it and every LR at the same ratio as
    before, so the numbers are those of the dry run that is proposed; nothing is proposed that
    gives no pair.
    """
    manifest = prepared.manifest
    if manifest.images is not None or manifest.rescan is not None or manifest.mpp is not None:
        return []  # What such a source holds is not named by the magnification of a slide.
    tasks = {task.slide_id: task for task in prepared.tasks if task.slide_id in failed}
    jobs: list[Task] = [(key, (task, manifest)) for key, task in tasks.items()]
    groups: dict[int, dict[str, SlideTask]] = {}
    for outcome in runner(stated_magnification, jobs):
        if outcome.value is not None and outcome.value < parse_magnification(manifest.hr):
            groups.setdefault(outcome.value, {})[outcome.key] = tasks[outcome.key]
    found = []
    for power, members in sorted(groups.items(), key=lambda item: -len(item[1])):
        hr = magnification_name(power)
        lr = [magnification_name(power / manifest.scale_of(name)) for name in manifest.lr]
        with suppress(ManifestError):
            other = parse_manifest({**manifest.to_dict(), "hr": hr, "lr": lr}, manifest.name)
            records, *_ = _scan(members, other, prepared, runner)
            shares, _ = _shares(records, members, other)
            if pairs := sum(pairs_wanted(records[key], share) for key, share in shares.items()):
                slides = "1 slide is" if len(members) == 1 else f"{len(members)} slides are"
                found.append(
                    f"{slides} {hr}: --hr {hr} --lr {','.join(lr)} gives {pairs:,} pairs from "
                    f"{'it' if len(members) == 1 else 'them'}."
                )
    return found


def stated_magnification(task: SlideTask, manifest: Manifest) -> int | None:
    """What a slide's level 0 is called by its resolution; None where nothing says."""
    with staged(task) as here, closing(source_kind(manifest).open(here, manifest)) as source:
        mpp = source.slides[0].info.mpp
        return None if mpp is None else nominal_magnification(mpp.value)


def _seconds_per_pair(
    records: Mapping[str, ScanRecord], tasks: Mapping[str, SlideTask], prepared: Prepared
) -> float | None:
    """Median over a few slides of the time of reading a pair."""
    rates: list[float] = []
    for slide_id in sorted(records):
        record = records[slide_id]
        if not len(record.candidates) or len(rates) >= PROBE_SLIDES:
            continue
        # What readers say of a slide, the scan has said.
        rates.append(unlogged(_probe, record, tasks[slide_id], prepared))
    return sorted(rates)[len(rates) // 2] if rates else None


def _probe(record: ScanRecord, task: SlideTask, prepared: Prepared) -> float:
    origins = record.candidates.origins()[:PROBE_PATCHES]
    kind = source_kind(prepared.manifest)
    backend = record.info.backend
    with (
        staged(task) as here,
        closing(kind.open(here, prepared.manifest, backend)) as source,
    ):
        start = time.perf_counter()
        for _ in source.read(record.reading, origins):
            pass
        return (time.perf_counter() - start) / len(origins)
