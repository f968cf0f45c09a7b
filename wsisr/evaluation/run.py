"""Running an evaluation: every model on every column, resumable row by row."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsisr.degradation import resize
from wsisr.degradation.resize import to_grey
from wsisr.errors import ConfigError
from wsisr.evaluation.ceilings import alignment_ceiling, jpeg_ceiling
from wsisr.evaluation.columns import Column, Sample, chunks, read_pair
from wsisr.evaluation.entries import Entry
from wsisr.evaluation.inference import plan_tiles, super_resolve
from wsisr.evaluation.plan import Plan, describe
from wsisr.evaluation.results import (
    IMAGES,
    RESULTS,
    ImageRow,
    RowFile,
    only_one,
    read_results,
    write_results,
)
from wsisr.models import SRModel
from wsisr.progress import ProgressEvent, Reporter, silent

CPU_BATCH_PX = 1 << 18
GPU_BATCH_PX = 1 << 22
LONG_S = 600.0
"""A warning tells what is coming where one column of one model takes longer than this."""


def run(plan: Plan, report: Reporter = silent) -> Path:
    """Compute every missing row, then write results.json; returns the folder.

    What is there already is kept where the store, the weights and all settings are the same;
    rows of a retrained model are computed again; other settings are refused.

    Raises
    ------
    ConfigError
        The folder holds results of other settings.
    """
    folder = plan.settings.output
    document = describe(plan)
    document["tiling"] = _open_folder(plan, folder, document, report)
    with only_one(folder):
        return _run(plan, folder, document, report)


def _run(plan: Plan, folder: Path, document: dict[str, Any], report: Reporter) -> Path:
    rows = RowFile(folder / IMAGES, [column.name for column in plan.scorer.columns])
    if rows.repaired:
        report(_say("eval", f"{rows.path}: a half-written last line is computed again."))
    write_results(folder, document)
    _drop_stale(plan, rows, report)
    done = {row.place for row in rows.rows}
    jobs = list(plan.jobs())
    total = sum(len(column.samples) for _, column in jobs)
    count = 0
    model: SRModel | None = None
    loaded: Entry | None = None
    for entry, column in jobs:
        missing = [s for s in column.samples if _place(entry, column, s) not in done]
        count += len(column.samples) - len(missing)
        if not missing:
            continue
        if model is None or loaded is not entry:
            model, loaded = entry.load(plan.device), entry
            document["tiling"][entry.name] = str(plan_tiles(model, plan.settings.tile))
        wanted = {(s.slide_index, s.row) for s in missing}
        started, first = time.monotonic(), 0
        for batch in chunks(column, CPU_BATCH_PX if plan.device == "cpu" else GPU_BATCH_PX):
            # Whole batches as an uninterrupted run has them, whatever is missing of them.
            if not any((s.slide_index, s.row) in wanted for s in batch):
                continue
            made = _score_batch(plan, entry, column, model, batch)
            new = [r for r, s in zip(made, batch, strict=True) if (s.slide_index, s.row) in wanted]
            rows.append(new)
            count += len(new)
            report(
                ProgressEvent(
                    stage="eval",
                    done=count,
                    total=total,
                    unit="image",
                    item=f"{entry.name} {column.origin} {column.label}",
                    message="" if first else _long(entry, column, missing, len(new), started),
                )
            )
            first += len(new)
    document.update(ceilings=_ceilings(plan, report), state="complete")
    write_results(folder, document)
    return folder


def predict(plan: Plan, entry: Entry, model: SRModel, lr: Tensor, size: tuple[int, int]) -> Tensor:
    """SR of an LR batch, (N, 3, H, W) in [0, 1]; nothing else of a pair comes in here."""
    settings = plan.settings
    try:
        return super_resolve(
            model,
            lr,
            size,
            tile=settings.tile,
            self_ensemble=settings.self_ensemble,
            precision=settings.precision,
        )
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        if len(lr) > 1:
            halves = [predict(plan, entry, model, part, size) for part in lr.chunk(2)]
            return torch.cat(halves)
        raise ConfigError(
            f"{entry.name}: one LR image of {tuple(lr.shape[-2:])} px does not fit into the memory "
            "of the device; give a smaller --tile."
        ) from None


def _score_batch(
    plan: Plan, entry: Entry, column: Column, model: SRModel, batch: Sequence[Sample]
) -> list[ImageRow]:
    lr, hr = read_pair(plan.store, column, batch, plan.settings.seed, plan.device)
    size = (int(hr.shape[-2]), int(hr.shape[-1]))
    if entry.reference == "oracle":
        sr = _with_reference(plan, model, lr, hr)
    else:
        sr = predict(plan, entry, model, lr, size)
    key = plan.key(entry, column)
    return [
        ImageRow(
            slide=sample.slide,
            patient=sample.patient,
            group=sample.group,
            row=sample.row,
            label=sample.label,
            model=entry.model,
            run=entry.name,
            seed=entry.seed,
            scale=column.scale,
            origin=column.origin,
            in_range=entry.in_range(column.scale),
            trained_origin=entry.trained_origin or "",
            reference=entry.reference,
            key=key,
            scores=scores,
        )
        for sample, scores in zip(batch, plan.scorer(sr, hr, column.scale, batch), strict=True)
    ]


def _with_reference(plan: Plan, model: SRModel, lr: Tensor, hr: Tensor) -> Tensor:
    """SR with a reference of twice the LR side made from HR: an upper bound, never a result."""
    twice = (2 * int(lr.shape[-2]), 2 * int(lr.shape[-1]))
    size = (int(hr.shape[-2]), int(hr.shape[-1]))
    finer = hr if twice == size else to_grey(resize(hr.float(), twice, kernel="matlab"))
    return super_resolve(
        model,
        lr,
        size,
        tile=plan.settings.tile,
        self_ensemble=plan.settings.self_ensemble,
        precision=plan.settings.precision,
        reference=finer,
    )


def _place(entry: Entry, column: Column, sample: Sample) -> tuple[str, float, str, str, int]:
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

    Returns
    -------
    dict
        How models have been tiled so far.
    """
    tiling: dict[str, str] = {}
    if (folder / RESULTS).is_file() and not plan.settings.overwrite:
        before = read_results(folder)
        tiling = dict(before.get("tiling", {}))
        now = {**document["settings"], "store": document["store"]["digest"]}
        old = {**before.get("settings", {}), "store": before.get("store", {}).get("digest")}
        changed = [name for name in now if now[name] != old.get(name)]
        if changed:
            words = ", ".join(f"{name} {old.get(name)!r} -> {now[name]!r}" for name in changed)
            raise ConfigError(
                f"{folder} holds results of other settings ({words}): give another --output, or "
                "--overwrite."
            )
    elif plan.settings.overwrite and folder.is_dir():
        if not (folder / RESULTS).is_file() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is no evaluation and is not replaced; give another one.")
        shutil.rmtree(folder)
        report(_say("eval", f"{folder}: replaced."))
    elif folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is no evaluation and not empty; give another --output.")
    folder.mkdir(parents=True, exist_ok=True)
    return tiling


def _ceilings(plan: Plan, report: Reporter) -> dict[str, Any]:
    report(_say("ceilings", ""))
    alignment = []
    for column in plan.columns:
        found = alignment_ceiling(plan.store, column)
        if found is not None:
            alignment.append(
                {
                    "origin": column.origin,
                    "scale": column.scale,
                    "best_db": found.best_db,
                    "perfect_db": found.perfect_db,
                    "rms_px": found.rms_px,
                    "p95_px": found.p95_px,
                    "pairs": found.pairs,
                }
            )
    coded = jpeg_ceiling(plan.store, plan.samples, plan.scorer, min(plan.settings.scales))
    return {"alignment": alignment, "jpeg": {"scores": dict(coded.scores), "words": coded.words}}


def _long(
    entry: Entry, column: Column, missing: Sequence[Sample], made: int, started: float
) -> str:
    """What a slow column will cost, once its first batch is through."""
    ahead = (time.monotonic() - started) / max(1, made) * len(missing)
    if ahead < LONG_S:
        return ""
    return (
        f"{entry.name}, {column.origin} {column.label}: about {ahead / 60:.0f} min for "
        f"{len(missing)} images on this machine (--limit takes fewer; what is done is kept)."
    )


def _say(stage: str, message: str) -> ProgressEvent:
    return ProgressEvent(stage=stage, message=message)
