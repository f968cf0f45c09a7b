"""The rows of one slide: what was stored, as columns and attributes of the store."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsisr.building.layout import SlideTask
from wsisr.building.manifest import Manifest
from wsisr.building.plan import SlideShare, patch_numbers
from wsisr.building.records import ScanRecord
from wsisr.registration import LevelTransform, PairCertificate
from wsisr.registration.alignment import MAX_RESIDUAL_PX, residuals
from wsisr.slides.protocol import UInt8Array
from wsisr.store.schema import layer_column

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


def row_columns(
    record: ScanRecord, rows: Rows, manifest: Manifest, share: SlideShare
) -> dict[str, NDArray[Any]]:
    index = np.asarray(rows.index, np.int64)
    table = record.candidates
    columns: dict[str, NDArray[Any]] = {
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


def _level_columns(record: ScanRecord, index: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """What the slide's calibration leaves of each pair: the coarsest stored LR without a
    suffix, every stored LR with its own where there are several."""
    transforms = [LevelTransform.from_json(values) for values in record.transforms]
    left = residuals(record.geometry, transforms, record.candidates.origins()[index])
    # An LR that is made from the HR level lies on it by construction.
    columns: dict[str, NDArray[Any]] = {
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


def certificate_columns(certificates: Sequence[PairCertificate]) -> dict[str, NDArray[Any]]:
    """Certificates of one slide as store columns; reasons are numbers into `reasons_of`."""
    reasons = reasons_of(certificates)
    columns: dict[str, NDArray[Any]] = {}
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
    columns: Mapping[str, NDArray[Any]],
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
        # What a person said in place of the files; the values stand where they were used.
        **({"overridden": list(task.overridden)} if task.overridden else {}),
        "funnel": funnel,
        **record.extras,
    }
