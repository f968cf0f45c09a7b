"""One slide's scan: open it, check it, find its tissue and rank its candidates.

Nothing is extracted here, and nothing that is decided depends on other slides.
"""

import json
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from wsisr.building.layout import SlideTask
from wsisr.building.manifest import Manifest
from wsisr.building.preview import save_overview
from wsisr.building.privacy import clean
from wsisr.building.records import ScanRecord, save_scan
from wsisr.building.sources import source_kind
from wsisr.slides.tiles import check_damage


def scan_identity(task: SlideTask, manifest: Manifest) -> str:
    """Hash of everything outside the slide's pixels that a scan depends on, and of the files'
    sizes and times, so that a repaired file or annotation is scanned again."""
    parts: dict[str, Any] = {
        "manifest": manifest.sha256(),
        "draws": task.draw_key,
        "mpp": task.mpp,
        "label": task.label,
        "files": [_stamp(path) for path in task.files],
        "annotation": None if task.annotation is None else _stamp(task.annotation),
        "annotation_fault": task.annotation_fault,
        "detail": None if task.detail is None else task.detail.identity,
    }
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _stamp(path: Path) -> list[Any]:
    try:
        stat = path.stat()
    except OSError:
        return [path.name]
    return [path.name, stat.st_size, stat.st_mtime_ns]


def scan_slide(task: SlideTask, manifest: Manifest, folder: Path, source: Path) -> ScanRecord:
    """Scan one slide and save the record in `folder`.

    Raises
    ------
    SlideError
        If the slide cannot be read, or shows something that no pair should be made of: false
        colour, fluorescence.
    MppError, MagnificationError
        If it has no usable resolution or not what is asked for.
    """
    root = source if source.is_dir() else source.parent
    identity = scan_identity(task, manifest)
    with closing(source_kind(manifest).open_checked(task, manifest)) as opened:
        found = opened.places(opened.geometry(), root)
        info = opened.slides[0].info
        extras = opened.attributes(found.reading, root)
        if found.outlines is not None:
            extras["outlines"] = found.outlines
        if task.private and "annotation" in extras:
            del extras["annotation"]["file"]
        record = ScanRecord(
            slide_id=task.slide_id,
            draw_key=task.draw_key,
            identity=identity,
            info=replace(info, quirks=tuple(clean(text, task, root) for text in info.quirks)),
            fingerprints=tuple(slide.info.fingerprint for slide in opened.slides),
            geometry=found.reading.geometry,
            icc=manifest.icc,
            transforms=found.transforms,
            scans=found.reading.scans,
            evidence=found.evidence,
            tissue=found.tissue,
            tissue_um_per_px=found.tissue_um_per_px,
            overview_px=found.overview_px,
            funnel=found.funnel,
            candidates=found.candidates,
            notes=tuple(
                clean(text, task, root)
                for text in (*opened.notes, *found.notes, *check_damage(opened.slides))
            ),
            extras=extras,
        )
    if found.picture is not None:
        save_overview(folder, task.slide_id, *found.picture)
    save_scan(folder, record, found.mask)
    return record
