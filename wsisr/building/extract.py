"""One slide's pairs: read, register, fill its own share from its own reserve, commit.

The rows of a slide are a function of the slide, the manifest and its share alone, so any worker
on any machine writes the same bytes.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.arrays import AnyArray, Int64Array, UInt8Array
from wsisr.building.layout import SlideTask
from wsisr.building.manifest import Manifest
from wsisr.building.plan import ANY, SlideShare, patch_numbers
from wsisr.building.preview import SHEET_PAIRS, save_contact_sheet, save_patches
from wsisr.building.scan_records import Reading, ScanRecord, load_mask, load_scan
from wsisr.building.sources import Source, source_kind
from wsisr.building.staging import staged
from wsisr.errors import BuildError
from wsisr.host import return_freed_memory
from wsisr.registration import LevelTransform, PairCertificate
from wsisr.registration.alignment import MAX_RESIDUAL_PX, residuals
from wsisr.runners import own_threads
from wsisr.slides.streams import NotKept
from wsisr.slides.tiles import DAMAGE_WORDS, check_damage
from wsisr.store import StoreWriter
from wsisr.store.layout import StorePaths
from wsisr.store.presets import SLIDE
from wsisr.store.schema import layer_column
from wsisr.store.tile_array import TilePlan
from wsisr.store.writer import SlideWriter, read_store_attributes

NO_REASON = -1


@dataclass
class Rows:
    """Rows of a slide while they are being written."""

    index: list[int] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)
    certificates: list[PairCertificate] = field(default_factory=list)
    samples: list[tuple[UInt8Array, UInt8Array, str]] = field(default_factory=list)
    resampled: list[bool] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

    def kept_labels(self, record: ScanRecord) -> Counter[int]:
        labels = record.candidates.label
        return Counter(labels[i] for i, kept in zip(self.index, self.kept, strict=True) if kept)


def extract_slide(
    task: SlideTask,
    manifest: Manifest,
    share: SlideShare,
    scan_folder: Path,
    store: Path,
    wait_s: float,
) -> int:
    """Extract and commit one slide; another process that writes it is waited for `wait_s`.

    Returns
    -------
    int
        Pairs that its share wanted and its reserve could not fill.

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
    job = _Job(task, manifest, share, record, scan_folder, store, wait_s)
    with staged(task) as here:
        if read_store_attributes(store)["codec"] != SLIDE:
            return _extract(job, here)
        try:
            return _extract(job, here, tiled=True)
        except NotKept as reason:
            return _extract(job, here, not_tiled=str(reason))


@dataclass(frozen=True)
class _Job:
    """What `extract_slide` was given, and the scan."""

    task: SlideTask
    manifest: Manifest
    share: SlideShare
    record: ScanRecord
    scan_folder: Path
    store: Path
    wait_s: float


def _extract(job: _Job, here: SlideTask, *, tiled: bool = False, not_tiled: str = "") -> int:
    """Extract a slide from where it lies now; `not_tiled` is why its own tiles are not kept.

    Raises
    ------
    NotKept
        If it is `tiled` and its own tiles cannot be kept; nothing of it is in the store then.
    """
    task, manifest, share, record = job.task, job.manifest, job.share, job.record
    scan_folder, store = job.scan_folder, job.store
    return_freed_memory()  # what a scan of this process left
    kind, backend = source_kind(manifest), record.info.backend
    with closing(kind.open(here, manifest, backend)) as source:
        _refuse_changed(source, task, record)
        plan = tile_plan(source, record.reading) if tiled else None
        writer = StoreWriter.attach(store, threads=own_threads()).slide(
            task.slide_id, source.arrays(record.reading), job.wait_s, plan
        )
        try:
            rows = Rows()
            for batch in _batches(record, share, manifest, rows):
                _extract_batch(source, record, manifest, batch, rows, writer)
            damage = check_damage(source.slides)
            columns = row_columns(record, rows, manifest, share)
            attributes = slide_attributes(task, record, share, rows, manifest, columns)
            if not_tiled:
                attributes["not_tiled"] = not_tiled
            if damage:  # the scan had met some of them
                told = (line for line in attributes["notes"] if DAMAGE_WORDS not in line)
                attributes["notes"] = [*told, *damage]
            report = StorePaths(store).report
            save_contact_sheet(report, task.slide_id, rows.samples)
            rows.samples.clear()
            return_freed_memory()
            save_patches(scan_folder, report, task.slide_id, record, columns)
            mask = load_mask(scan_folder, task.slide_id)
            writer.finish(columns, mask.view(np.uint8), attributes)
        except BaseException:
            writer.abort()
            raise
    wanted = sum((share.wanted or {}).values())
    return max(0, wanted - int(columns["kept"].sum()))


def tile_plan(source: Source, reading: Reading) -> TilePlan:
    """How a source's HR is kept as the slide's own tiles; from now on it is read so.

    Raises
    ------
    NotKept
        Why that cannot be.
    """
    streams = source.keep_tiles(reading)
    return TilePlan(
        array=reading.geometry.hr.name,
        kind=streams.kind,
        tile_px=streams.grid.tile_width_px,
        rows=streams.grid.rows,
        columns=streams.grid.columns,
    )


def _refuse_changed(source: Source, task: SlideTask, record: ScanRecord) -> None:
    for slide, scanned in zip(source.slides, record.fingerprints, strict=True):
        if slide.info.fingerprint != scanned:
            raise BuildError(
                f"{task.slide_id}: {slide.info.path.name} has changed since it was scanned; run "
                "the build again."
            )


def _batches(
    record: ScanRecord, share: SlideShare, manifest: Manifest, rows: Rows
) -> Iterator[Int64Array]:
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
        chosen: list[Int64Array] = []
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
    batch: Int64Array,
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
        blocks = {name: array[np.newaxis] for name, array in pair.arrays.items()}
        writer.append(blocks, () if pair.window is None else (pair.window,))
        rows.index.append(int(batch[pair.index]))
        rows.kept.append(pair.certificate is None or pair.certificate.accepted)


def row_columns(
    record: ScanRecord, rows: Rows, manifest: Manifest, share: SlideShare
) -> dict[str, AnyArray]:
    index = np.asarray(rows.index, np.int64)
    table = record.candidates
    columns: dict[str, AnyArray] = {
        "x": np.asarray(table.x, np.int64)[index],
        "y": np.asarray(table.y, np.int64)[index],
        "label": np.asarray(table.label, np.int8)[index],
        "tissue": np.asarray(table.tissue, np.float32)[index],
        "texture": np.asarray(table.texture, np.float32)[index],
        "kept": np.asarray(rows.kept, bool),
    }
    if rows.certificates:
        columns.update(certificate_columns(rows.certificates))
        if any(rows.resampled):
            resampled = np.asarray(rows.resampled, bool)
            columns["hr_resampled"] = resampled
            # Such an HR lies on the LR's grid: nothing is left over.
            for name in ("residual_x", "residual_y"):
                columns[name][resampled] = 0.0
    elif manifest.registration.method == "levels":
        columns.update(_level_columns(record, index))
        columns["kept"] &= columns["verdict"] == 1
    if share.by_patch is not None:
        origins = np.stack([columns["x"], columns["y"]], axis=1)
        columns["split"] = patch_numbers(
            record.draw_key, origins, columns["kept"], share.by_patch, manifest
        )
    return columns


def _level_columns(record: ScanRecord, index: Int64Array) -> dict[str, AnyArray]:
    """What the slide's calibration leaves of each pair: the coarsest stored LR without a
    suffix, every stored LR with its own where there are several."""
    transforms = [LevelTransform.from_json(values) for values in record.transforms]
    left = residuals(record.geometry, transforms, record.candidates.origins()[index])
    # An LR that is made from the HR level lies on it by construction.
    columns: dict[str, AnyArray] = {
        "verdict": np.ones(len(index), np.int8),
        "residual_x": np.zeros(len(index), np.float32),
        "residual_y": np.zeros(len(index), np.float32),
    }
    for name, value in left.items():
        for axis, base in enumerate(("residual_x", "residual_y")):
            if len(left) > 1:
                columns[layer_column(base, name)] = value[:, axis].astype(np.float32)
            if name == list(left)[-1]:
                columns[base] = value[:, axis].astype(np.float32)
    if left:
        # HR was moved to meet the coarsest; the others can only move by pixels of their own.
        nearest = np.abs(left[list(left)[-1]]) <= MAX_RESIDUAL_PX
        columns["verdict"] = np.asarray(nearest.all(axis=1), np.int8)
    return columns


def certificate_columns(certificates: Sequence[PairCertificate]) -> dict[str, AnyArray]:
    """Certificates of one slide as store columns; reasons are numbers into `reasons_of`."""
    reasons = reasons_of(certificates)
    columns: dict[str, AnyArray] = {}
    for name in ("offset_x", "offset_y"):
        columns[name] = np.array([getattr(c, name) for c in certificates], np.int32)
    for name in ("residual_x", "residual_y", "ncc", "ncc_band", "spread", "error", "sharpness"):
        columns[name] = np.array([getattr(c, name) for c in certificates], np.float32)
    affine = np.array([c.affine for c in certificates], np.float32)
    for row in (0, 1):
        for column in (0, 1, 2):
            columns[f"affine_{row}{column}"] = affine[:, row, column]
    columns["verdict"] = np.array([c.accepted for c in certificates]).astype(np.int8)
    columns["reason"] = np.array(
        [reasons.index(c.reason) if c.reason else NO_REASON for c in certificates], np.int16
    )
    return columns


def reasons_of(certificates: Sequence[PairCertificate]) -> list[str]:
    """Every reason of rejection on a slide, sorted."""
    return sorted({c.reason for c in certificates if c.reason})


def slide_attributes(
    task: SlideTask,
    record: ScanRecord,
    share: SlideShare,
    rows: Rows,
    manifest: Manifest,
    columns: Mapping[str, AnyArray],
) -> dict[str, Any]:
    """What the store says of the slide (design 5)."""
    info = record.info
    funnel = dict(record.funnel)
    funnel["read"] = len(rows.index) + sum(rows.dropped.values())
    inside = funnel["read"] - rows.dropped["outside"]
    funnel["whole"] = inside - rows.dropped["unscanned"]
    if manifest.rescan is not None:
        funnel["inside"] = inside
        funnel["off_seams"] = funnel["whole"] - rows.dropped["seam"]
        funnel["in_focus"] = funnel["off_seams"] - rows.dropped["focus"]
    if rows.certificates:
        funnel["registered"] = len(rows.certificates)
        funnel["accepted"] = sum(c.accepted for c in rows.certificates)
    funnel["kept"] = int(columns["kept"].sum())
    return {
        "source": task.source.relative,
        "draw_key": task.draw_key,
        "bytes": info.bytes,
        "fingerprint": info.fingerprint,
        "vendor": info.vendor,
        "backend": info.backend,
        "reader_check": None if info.verdict is None else asdict(info.verdict),
        "focal_plane": info.focal_plane,
        **({} if info.white is None else {"white": info.white}),
        # QuPath's frame begins there (OpenSlide's bounds).
        **({"origin_px": list(info.origin_px)} if any(info.origin_px) else {}),
        "mpp": None if info.mpp is None else asdict(info.mpp),
        "objective_power": info.objective_power,
        "levels": [
            {**asdict(level), "used": any(la.level == level.index for la in record.geometry.layers)}
            for level in info.levels
        ],
        "level_transforms": list(record.transforms),
        "evidence": list(record.evidence),
        "icc_sha256": info.icc_sha256,
        "icc": record.icc,
        "quirks": list(info.quirks),
        "notes": list(record.notes),
        "tissue": record.tissue,
        "patient": task.patient.name,
        "patient_source": str(task.patient.source),
        "patient_quality": task.patient.quality,
        "group": task.group,
        "site": task.site or None,
        "label": task.label or None,
        "labels": list(manifest.labels.classes),
        "reasons": reasons_of(rows.certificates),
        "split": share.split or None,
        **({"part": task.part} if task.part else {}),
        # What a person said in place of the files; the values stand where they were used.
        **({"overridden": list(task.overridden)} if task.overridden else {}),
        "funnel": funnel,
        **record.extras,
    }
