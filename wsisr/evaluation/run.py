"""Running an evaluation: every model on every column, resumable row by row."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wsisr.device import on_gpu
from wsisr.errors import ConfigError, ModelError
from wsisr.evaluation.batches import Batch, runner_of, score_batch, score_elsewhere
from wsisr.evaluation.ceilings import alignment_ceiling, jpeg_ceiling
from wsisr.evaluation.columns import Sample, ScaleColumn, chunks
from wsisr.evaluation.entries import ModelFailure, failed_of
from wsisr.evaluation.inference import Engines
from wsisr.evaluation.plan import Plan, describe
from wsisr.evaluation.results import IMAGES, RESULTS, ImageRow, RowFile, read_results, write_results
from wsisr.files import remove_partials, remove_tree
from wsisr.inference.trained import TrainedModel
from wsisr.locks import IN_FOLDER
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.runners import Runner

CPU_BATCH_PX = 1 << 18
GPU_BATCH_PX = 1 << 22


def run(plan: Plan, report: Reporter = silent, runner: Runner | None = None) -> Path:
    """Compute every missing row, on `runner` where one is given, then write results.json; returns
    the folder.

    All models are loaded and tried on a part of an image before the first is scored. What is there
    already is kept where the store, the weights and all settings are the same; rows of a retrained
    model are computed again; other settings are refused. A model that cannot be loaded or breaks
    down is named among the failures, and the others go on. The caller holds the folder
    (`results.only_one`).

    Raises
    ------
    ConfigError
        The folder holds results of other settings.
    """
    folder = plan.settings.output
    document = describe(plan)
    document["tiling"] = _open_folder(plan, folder, document, report)
    # Before the rows: a folder without it is no evaluation that could go on.
    write_results(folder, document)
    rows = RowFile(folder / IMAGES, [column.name for column in plan.scorer.columns])
    if rows.repaired:
        report(_say("eval", f"{rows.path}: a half-written last line is computed again."))
    _drop_stale(plan, rows, report)
    done = {row.place for row in rows.rows}
    jobs = list(plan.jobs())
    missing = {
        (entry.name, column.key): [
            s for s in column.samples if _place(entry, column, s) not in done
        ]
        for entry, column in jobs
    }
    total = sum(len(column.samples) for _, column in jobs)
    clock = _ImageClock({key: len(samples) for key, samples in missing.items()})
    failures = list(plan.failures)

    def fail(entry: TrainedModel, failure: ModelFailure) -> None:
        failures.append(failure)
        clock.drop(entry)
        document["failed"] = failed_of(failures)
        write_results(folder, document)
        report(_say("eval", f"{failure.name} is left out: {failure}"))

    for failure in plan.failures:
        report(_say("eval", f"{failure.name} is left out: {failure}"))
    engines = Engines(plan, report)
    for entry, column in jobs:
        if missing[entry.name, column.key] and entry.name not in engines.broken:
            try:
                clock.expect(entry, column, engines.attempt(entry, column))
            except (ModelError, ConfigError) as error:
                fail(entry, engines.give_up(entry, error))
    # Before the first row: whoever goes on from the rows alone loads no model that could tell.
    document["tiling"].update(engines.words)
    write_results(folder, document)

    def batches(entry: TrainedModel, column: ScaleColumn) -> Iterator[Batch]:
        """Whole batches as an uninterrupted run has them, whatever is missing of them."""
        wanted = frozenset(missing[entry.name, column.key])
        if wanted and entry.name not in engines.broken:
            yield from (b for b in chunks(column, batch_px(plan)) if not wanted.isdisjoint(b))

    def keep(
        entry: TrainedModel, column: ScaleColumn, batch: Batch, made: list[ImageRow], seconds: float
    ) -> None:
        wanted = missing[entry.name, column.key]
        rows.append([row for row, s in zip(made, batch, strict=True) if s in wanted])
        clock.spent(entry, column, len(batch), seconds / len(batch))
        item = f"{entry.name} {column.label} {column.origin}, {clock.left()} left"
        done = total - clock.images
        report(ProgressEvent(stage="eval", done=done, total=total, unit="image", item=item))

    elsewhere = runner_of(plan, runner)
    if elsewhere is not None:
        engines.forget()
        everything = [(e, c, batch) for e, c in jobs for batch in batches(e, c)]
        started = time.monotonic()
        for entry, column, batch, outcome in score_elsewhere(plan, elsewhere, everything):
            if entry.name in engines.broken:
                continue
            if outcome.trace:
                raise RuntimeError(outcome.trace)
            if outcome.error:
                fail(entry, engines.give_up(entry, ModelError(outcome.error), column))
                continue
            made, words = outcome.value
            engines.words.update(words)
            now = time.monotonic()
            keep(entry, column, batch, made, now - started)
            started = now
    else:
        for entry, column in jobs:
            try:
                for batch in batches(entry, column):
                    started = time.monotonic()
                    made = score_batch(plan, engines, entry, column, batch)
                    keep(entry, column, batch, made, time.monotonic() - started)
            except (ModelError, ConfigError) as error:
                fail(entry, engines.give_up(entry, error, column))
    document["tiling"].update(engines.words)
    document.update(ceilings=_ceilings(plan, report), state="complete")
    write_results(folder, document)
    return folder


def batch_px(plan: Plan) -> int:
    """HR pixels of a batch."""
    return GPU_BATCH_PX if on_gpu(plan.device) else CPU_BATCH_PX


class _ImageClock:
    """Time left: what was tried says it first, what was measured says it better."""

    def __init__(self, images: dict[tuple[str, Any], int]) -> None:
        self._images = images
        self._seconds: dict[tuple[str, Any], float] = {}

    def expect(self, entry: TrainedModel, column: ScaleColumn, seconds_per_px: float) -> None:
        """From the time of one LR pixel."""
        area = column.samples[0].hr_area_px / column.scale**2
        self._seconds[entry.name, column.key] = seconds_per_px * area

    def spent(self, entry: TrainedModel, column: ScaleColumn, images: int, seconds: float) -> None:
        """Images are done; `seconds` is the time of one."""
        key = (entry.name, column.key)
        self._images[key] = max(0, self._images[key] - images)
        self._seconds[key] = seconds

    def drop(self, entry: TrainedModel) -> None:
        """Nothing more will be made of a model."""
        for key in self._images:
            if key[0] == entry.name:
                self._images[key] = 0

    @property
    def images(self) -> int:
        return sum(self._images.values())

    def left(self) -> str:
        """``0:12:30``."""
        seconds = int(sum(self._seconds.get(key, 0.0) * n for key, n in self._images.items()))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _place(
    entry: TrainedModel, column: ScaleColumn, sample: Sample
) -> tuple[str, float, str, str, int]:
    return (entry.name, column.scale, column.origin, sample.slide, sample.row)


def _drop_stale(plan: Plan, rows: RowFile, report: Reporter) -> None:
    keys = {(e.name, c.scale, c.origin): plan.key(e, c) for e, c in plan.jobs()}
    stale = [
        row for row in rows.rows if keys.get((row.run, row.scale, row.origin), row.key) != row.key
    ]
    if rows.drop(stale):
        names = ", ".join(sorted({row.run for row in stale}))
        report(_say("eval", f"{names}: other weights than before; {len(stale)} rows again."))


def _open_folder(
    plan: Plan, folder: Path, document: dict[str, Any], report: Reporter
) -> dict[str, str]:
    """Make the folder; refuse, or replace, results of other settings.

    Returns how models have been tiled so far.
    """
    tiling: dict[str, str] = {}
    folder.mkdir(parents=True, exist_ok=True)
    remove_partials(folder)
    if (folder / RESULTS).is_file() and not plan.settings.overwrite:
        before = read_results(folder)
        tiling = dict(before.get("tiling", {}))
        now = {**document["settings"], "store": document["store"]["digest"]}
        old = {**before.get("settings", {}), "store": before.get("store", {}).get("digest")}
        changed = [name for name in dict.fromkeys((*now, *old)) if now.get(name) != old.get(name)]
        if changed:
            words = ", ".join(f"{name} {old.get(name)!r} -> {now.get(name)!r}" for name in changed)
            raise ConfigError(
                f"{folder} holds results of other settings ({words}): give another --output, or "
                "--overwrite."
            )
    elif plan.settings.overwrite:
        if not (folder / RESULTS).is_file() and _content(folder):
            raise ConfigError(f"{folder} is no evaluation and is not replaced; give another one.")
        for path in _content(folder):
            remove_tree(path)
        report(_say("eval", f"{folder}: replaced."))
    elif _content(folder):
        raise ConfigError(f"{folder} is no evaluation and not empty; give another --output.")
    return tiling


def _content(folder: Path) -> list[Path]:
    """What lies in it, the lock aside; results.json last, which says what all the rest is."""
    found = (path for path in folder.iterdir() if path.name != IN_FOLDER)
    return sorted(found, key=lambda path: (path.name == RESULTS, path.name))


def _ceilings(plan: Plan, report: Reporter) -> dict[str, Any]:
    report(_say("ceilings", ""))
    alignment = []
    for column in plan.columns:
        found = alignment_ceiling(plan.store, column)
        if found is not None:
            place = {"origin": column.origin, "scale": column.scale}
            alignment.append(place | asdict(found))
    coded = jpeg_ceiling(plan.store, plan.samples, plan.scorer, min(plan.settings.scales))
    return {"alignment": alignment, "jpeg": asdict(coded)}


def _say(stage: str, message: str) -> ProgressEvent:
    return ProgressEvent(stage=stage, message=message)
