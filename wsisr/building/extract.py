"""One slide's pairs: read, register, fill its own share from its own reserve, commit.

The rows of a slide are a function of the slide, the manifest and its share alone, so any worker
on any machine writes the same bytes.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsisr.building.layout import SlideTask
from wsisr.building.manifest import Manifest
from wsisr.building.plan import ANY, SlideShare
from wsisr.building.preview import SHEET_PAIRS, save_contact_sheet, save_patches
from wsisr.building.records import ScanRecord, load_mask, load_scan
from wsisr.building.rows import Rows, row_columns, slide_attributes
from wsisr.building.sources import Source, source_kind
from wsisr.errors import BuildError
from wsisr.slides.tiles import DAMAGE_WORDS, check_damage
from wsisr.store import StoreWriter
from wsisr.store.layout import StorePaths
from wsisr.store.writer import SlideWriter


@dataclass(frozen=True, kw_only=True)
class ExtractResult:
    """What one slide gave.

    Attributes
    ----------
    slide_id : str
    stored, kept : int
        Pairs in the store, and those that readers see.
    shortfall : int
        Pairs that its share wanted and its reserve could not fill.
    funnel : dict of str to int
    """

    slide_id: str
    stored: int
    kept: int
    shortfall: int
    funnel: dict[str, int]


def extract_slide(
    task: SlideTask,
    manifest: Manifest,
    share: SlideShare,
    scan_folder: Path,
    store: Path,
) -> ExtractResult:
    """Extract and commit one slide.

    Raises
    ------
    BuildError
        If the scan is gone or the slide has changed since.
    SlideError, StoreError
        From reading and writing; nothing of the slide is then in the store.
    """
    record = load_scan(scan_folder, task.slide_id)
    if record is None:
        raise BuildError(f"{task.slide_id}: its scan is gone; run the build again.")
    with closing(source_kind(manifest).open(task, manifest, record.info.backend)) as source:
        _refuse_changed(source, task, record)
        writer = StoreWriter.attach(store).slide(task.slide_id, source.arrays(record.reading))
        try:
            rows = Rows()
            for batch in _batches(record, share, manifest, rows):
                _extract_batch(source, record, manifest, batch, rows, writer)
            damage = check_damage(source.slides)
            columns = row_columns(record, rows, manifest, share)
            attributes = slide_attributes(task, record, share, rows, manifest, columns)
            if damage:  # the scan had met some of them
                told = (line for line in attributes["notes"] if DAMAGE_WORDS not in line)
                attributes["notes"] = [*told, *damage]
            mask = load_mask(scan_folder, task.slide_id).astype(np.uint8)
            _save_pictures(scan_folder, StorePaths(store).report, record, rows)
            writer.finish(columns, mask, attributes)
        except BaseException:
            writer.abort()
            raise
    kept = int(columns["kept"].sum())
    wanted = None if share.wanted is None else sum(share.wanted.values())
    return ExtractResult(
        slide_id=task.slide_id,
        stored=len(rows.index),
        kept=kept,
        shortfall=0 if wanted is None else max(0, wanted - kept),
        funnel=attributes["funnel"],
    )


def _refuse_changed(source: Source, task: SlideTask, record: ScanRecord) -> None:
    for slide, scanned in zip(source.slides, record.fingerprints, strict=True):
        if slide.info.fingerprint != scanned:
            raise BuildError(
                f"{task.slide_id}: {slide.info.path} has changed since it was scanned; run the "
                "build again."
            )


def _batches(
    record: ScanRecord, share: SlideShare, manifest: Manifest, rows: Rows
) -> Iterator[NDArray[np.int64]]:
    """Indices of candidates to read next, until the share is full or the reserve empty.

    Each batch asks for just what is missing, so a slide whose pairs all pass reads nothing in
    vain and one whose pairs fail goes down its ranked list.
    """
    total = len(record.candidates)
    if share.wanted is None:
        if total:
            yield np.arange(total, dtype=np.int64)
        return
    labels = np.asarray(record.candidates.label, np.int64)
    names = manifest.labels.classes
    pools = {
        name: np.arange(total) if name == ANY else np.flatnonzero(labels == names.index(name))
        for name in share.wanted
    }
    used = dict.fromkeys(pools, 0)
    while True:
        kept = rows.kept_labels(record)
        chosen: list[NDArray[np.int64]] = []
        for name, pool in pools.items():
            have = sum(kept.values()) if name == ANY else kept[names.index(name)]
            take = pool[used[name] : used[name] + max(0, share.wanted[name] - have)]
            used[name] += len(take)
            chosen.append(take)
        batch = np.unique(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)
        if not len(batch):
            return
        yield batch


def _extract_batch(
    source: Source,
    record: ScanRecord,
    manifest: Manifest,
    batch: NDArray[np.int64],
    rows: Rows,
    writer: SlideWriter,
) -> None:
    """Store the pairs of a batch and note what became of each."""
    coarse, fine = manifest.lr_arrays[-1] if manifest.lr else "", manifest.hr
    for pair in source.read(record.reading, record.candidates.origins()[batch]):
        if pair.drop:
            rows.dropped[pair.drop] += 1
            continue
        if pair.certificate is not None:
            rows.certificates.append(pair.certificate)
            rows.resampled.append(pair.resampled)
        if len(rows.samples) < SHEET_PAIRS and coarse in pair.arrays:
            caption = f"row {len(rows.index)}"
            rows.samples.append((pair.arrays[coarse], pair.arrays[fine], caption))
        writer.append({name: array[np.newaxis] for name, array in pair.arrays.items()})
        rows.index.append(int(batch[pair.index]))
        rows.kept.append(pair.certificate is None or pair.certificate.accepted)


def _save_pictures(scans: Path, report: Path, record: ScanRecord, rows: Rows) -> None:
    origins = record.candidates.origins()[np.asarray(rows.index, np.int64)]
    save_patches(
        scans,
        report,
        record.slide_id,
        record.overview_px,
        origins,
        rows.kept,
        record.geometry.field_px,
    )
    save_contact_sheet(report, record.slide_id, rows.samples)
