"""One slide's scan: open it, check it, find its tissue and rank its candidates.

Nothing is extracted here, and nothing that is decided depends on other slides. So a dry run keeps
its scans in the user's cache, and the build takes them where files and settings are the same.
"""

import json
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from wsisr.building.layout import SlideTask
from wsisr.building.manifest import Manifest
from wsisr.building.preview import overview_path, save_overview
from wsisr.building.privacy import clean
from wsisr.building.scan_records import (
    RULES,
    ScanRecord,
    load_scan,
    mask_path,
    save_scan,
    scan_path,
)
from wsisr.building.sources import Source, source_kind
from wsisr.building.staging import staged
from wsisr.errors import DiskFullError
from wsisr.files import replace_file
from wsisr.host import package_versions, return_freed_memory
from wsisr.slides.tiles import check_damage
from wsisr.slides.verdicts import cache_folder, reader_versions

KEPT_DAYS = 30
"""How long a dry run's scans wait for their build."""


def scan_identity(task: SlideTask, manifest: Manifest) -> str:
    """Hash of everything outside the slide's pixels that a scan depends on, and of the files'
    sizes and times, so that a repaired file or annotation is scanned again."""
    parts: dict[str, Any] = {
        "rules": RULES,
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


def kept_scans() -> Path:
    """Where dry runs keep scans: in the user's own cache, for versions that would scan alike."""
    versions = json.dumps([package_versions(), reader_versions()], sort_keys=True)
    return cache_folder() / "scans" / sha256(versions.encode()).hexdigest()[:16]


def _files(folder: Path, name: str) -> tuple[Path, ...]:
    """The files of a scan, the record that vouches for the others last."""
    return overview_path(folder, name), mask_path(folder, name), scan_path(folder, name)


def keep_scan(folder: Path, task: SlideTask, manifest: Manifest) -> bool:
    """Keep the scan of a slide for a build; False where the cache cannot be written, or where a
    list of points decides too, which may change."""
    if manifest.sampling.kind == "points":
        return False
    try:
        kept = kept_scans()
        kept.mkdir(parents=True, exist_ok=True, mode=0o700)
        _copy(_files(folder, task.slide_id), _files(kept, scan_identity(task, manifest)))
    except (OSError, RuntimeError, DiskFullError):  # no home folder is a RuntimeError
        return False
    return True


def _copy(files: Sequence[Path], places: Sequence[Path]) -> None:
    for file, place in zip(files, places, strict=True):
        if file.is_file():
            replace_file(place, file.read_bytes())


def kept_scan(task: SlideTask, identity: str) -> ScanRecord | None:
    """The scan that a dry run with these settings left of a slide."""
    with suppress(OSError, RuntimeError):
        record = load_scan(kept_scans(), identity)
        return record if record is not None and record.slide_id == task.slide_id else None
    return None


def forget_old_scans(now_s: float) -> None:
    """Remove kept scans that no build has taken for `KEPT_DAYS`."""
    with suppress(OSError, RuntimeError):
        for file in (cache_folder() / "scans").glob("*/*"):
            if now_s - file.stat().st_mtime > 86_400 * KEPT_DAYS:
                file.unlink(missing_ok=True)


def _taken(opened: Source, task: SlideTask, identity: str, folder: Path) -> ScanRecord | None:
    """A dry run's scan of just these files, moved to where the build looks for it."""
    record = kept_scan(task, identity)
    now = tuple(slide.info.fingerprint for slide in opened.slides)
    if record is None or record.fingerprints != now:
        return None
    kept = _files(kept_scans(), identity)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _copy(kept, _files(folder, task.slide_id))
        for file in kept:
            file.unlink(missing_ok=True)
    except OSError:
        return None
    # Another build may have taken it at the same time.
    return record if mask_path(folder, task.slide_id).is_file() else None


def scan_slide(task: SlideTask, manifest: Manifest, folder: Path, source: Path) -> ScanRecord:
    """Scan one slide, or take a dry run's scan of it, and save the record in `folder`.

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
    with (
        staged(task) as here,
        closing(source_kind(manifest).open_checked(here, manifest)) as opened,
    ):
        if (taken := _taken(opened, task, identity, folder)) is not None:
            return taken
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
            info=replace(
                info,
                path=Path(task.source.relative),
                quirks=tuple(clean(text, task, root) for text in info.quirks),
            ),
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
    return_freed_memory()
    if found.picture is not None:
        save_overview(folder, task.slide_id, *found.picture)
    save_scan(folder, record, found.mask)
    return record
