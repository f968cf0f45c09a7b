"""One slide's pairs: read, register, fill its own share from its own reserve, commit.

The rows of a slide are a function of the slide, the manifest and its share alone, so any worker
on any machine writes the same bytes.
"""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsisr.building.layout import SlideTask
from wsisr.building.made import from_patch, kernel_of, made_layers, read_geometry
from wsisr.building.manifest import Manifest
from wsisr.building.opening import open_task
from wsisr.building.paths import report_folder
from wsisr.building.plan import ANY, SlideShare
from wsisr.building.preview import SHEET_PAIRS, save_contact_sheet, save_patches
from wsisr.building.records import ScanRecord, load_mask, load_scan
from wsisr.building.registering import register_patch
from wsisr.building.rescan import open_fixed, read_rescan_pairs
from wsisr.building.resolve import lr_origin
from wsisr.building.rows import Rows, row_columns, slide_attributes
from wsisr.errors import BuildError
from wsisr.geometry import Layer
from wsisr.registration import PairCertificate, ScanRegistration
from wsisr.slides import Slide, SlideInfo, iter_patches
from wsisr.slides.protocol import UInt8Array
from wsisr.store import ArraySpec, StoreWriter
from wsisr.store.writer import SlideWriter

STORED = "stored-level"
RESCAN = "rescan"


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
    with ExitStack() as stack:
        slide = open_task(task, manifest, record.info.backend)
        stack.enter_context(closing(slide))
        _refuse_changed(task, slide, record.info)
        fixed = None
        if record.fixed is not None:
            fixed = stack.enter_context(closing(open_fixed(task, manifest)))
            _refuse_changed(task, fixed, record.fixed)
        specs = array_specs(record, manifest, stacked=task.stack is not None)
        writer = StoreWriter.attach(store).slide(task.slide_id, specs)
        try:
            rows = Rows()
            for batch in _batches(record, share, manifest, rows):
                _extract_batch(task, slide, fixed, record, manifest, batch, rows, writer)
            columns = row_columns(record, rows, manifest, share)
            attributes = slide_attributes(task, record, share, rows, manifest, columns)
            mask = load_mask(scan_folder, task.slide_id).astype(np.uint8)
            _save_pictures(scan_folder, report_folder(store), record, rows)
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


def _refuse_changed(task: SlideTask, slide: Slide, scanned: SlideInfo) -> None:
    if slide.info.fingerprint != scanned.fingerprint:
        raise BuildError(
            f"{task.slide_id}: {slide.info.path} has changed since it was scanned; run the build "
            "again."
        )


def array_specs(record: ScanRecord, manifest: Manifest, *, stacked: bool) -> list[ArraySpec]:
    """The image arrays of a slide, HR first."""
    mpp = _um_per_px(record)
    layers = record.geometry.layers
    if record.fixed is None:
        return [
            _spec(
                layer,
                mpp,
                lr_origin(layer) if n else STORED,
                {} if layer.native else kernel_of(layer, manifest, stacked=stacked),
            )
            for n, layer in enumerate(layers)
        ]
    small = layers[0]
    scale = manifest.size // small.size_px
    hr = ArraySpec(
        name=manifest.hr,
        size_px=manifest.size,
        factor=small.factor / scale,
        origin=RESCAN,
        level=0,
        um_per_px=None if mpp is None else mpp / scale,
        extra={"scan": "fixed"},
    )
    return [hr, _spec(small, mpp, RESCAN, {})]


def _um_per_px(record: ScanRecord) -> float | None:
    return None if record.info.mpp is None else record.info.mpp.value


def _spec(layer: Layer, mpp: float | None, origin: str, extra: dict[str, object]) -> ArraySpec:
    return ArraySpec(
        name=layer.name,
        size_px=layer.size_px,
        factor=layer.factor,
        native=layer.native,
        origin=origin,
        level=layer.level,
        reduction=layer.reduction,
        um_per_px=None if mpp is None else mpp * layer.factor,
        extra=extra,
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
    task: SlideTask,
    slide: Slide,
    fixed: Slide | None,
    record: ScanRecord,
    manifest: Manifest,
    batch: NDArray[np.int64],
    rows: Rows,
    writer: SlideWriter,
) -> None:
    """Store the pairs of a batch and note what became of each."""
    coarse, fine = manifest.lr[-1] if manifest.lr else "", manifest.hr
    for pair in _read_pairs(task, slide, fixed, record, manifest, batch):
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
        rows.index.append(int(batch[pair.position]))
        rows.kept.append(pair.certificate is None or pair.certificate.accepted)


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """One place that was read; `position` counts in the batch."""

    position: int
    arrays: dict[str, UInt8Array] = field(default_factory=dict)
    certificate: PairCertificate | None = None
    resampled: bool = False
    drop: str = ""


def _read_pairs(
    task: SlideTask,
    slide: Slide,
    fixed: Slide | None,
    record: ScanRecord,
    manifest: Manifest,
    batch: NDArray[np.int64],
) -> Iterator[_Pair]:
    """Read and register places, from the levels of one slide or from two scans."""
    geometry = record.geometry
    origins = record.candidates.origins()[batch]
    if fixed is not None:
        scans = ScanRegistration.from_json(record.scans or {})
        for found in read_rescan_pairs(slide, fixed, scans, geometry, origins):
            arrays = {}
            if found.hr is not None and found.lr is not None:
                arrays = {manifest.hr: found.hr, geometry.layers[0].name: found.lr}
            yield _Pair(
                position=found.index,
                arrays=arrays,
                certificate=found.certificate,
                resampled=found.resampled,
                drop=found.drop,
            )
        return
    hr, lr = geometry.layers[0], geometry.layers[-1]
    made = from_patch(manifest, stacked=task.stack is not None)
    to_read = read_geometry(geometry) if made else geometry
    for position, arrays, valid in iter_patches(slide, to_read, origins):
        if not valid:
            yield _Pair(position=position, drop="unscanned")
        elif made:
            arrays = {**arrays, **made_layers(arrays[hr.name], geometry, manifest)}
            yield _Pair(position=position, arrays=arrays)
        elif manifest.registration.per_pair:
            certificate, crop = register_patch(
                slide,
                geometry,
                (int(origins[position, 0]), int(origins[position, 1])),
                arrays[lr.name],
                arrays[hr.name],
                manifest.registration.method,
            )
            yield _Pair(
                position=position, arrays={**arrays, hr.name: crop}, certificate=certificate
            )
        else:
            yield _Pair(position=position, arrays=arrays)


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
