"""One slide's scan: open it, check it, find its tissue and rank its candidates.

Nothing is extracted here, and nothing that is decided depends on other slides.
"""

import json
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsisr.building.alignment import aligned, reference_layer
from wsisr.building.image_scan import (
    cover_origins,
    image_candidates,
    image_extras,
    stack_origins,
    whole_mask,
)
from wsisr.building.layout import SlideTask
from wsisr.building.manifest import Manifest
from wsisr.building.opening import (
    declared_attribute,
    declared_mpp,
    open_checked_task,
)
from wsisr.building.point_lists import points_of
from wsisr.building.preview import save_overview
from wsisr.building.records import RankedCandidates, ScanRecord, save_scan
from wsisr.building.rescan import open_fixed, register_glass, rescan_geometry
from wsisr.building.resolve import plan_geometry
from wsisr.errors import SlideError
from wsisr.geometry import PatchGeometry
from wsisr.registration import LevelTransform, calibrate_levels
from wsisr.selection import (
    TissueMap,
    grid_candidates,
    point_candidates,
    random_candidates,
    tissue_of,
    weighted_candidates,
)
from wsisr.selection.annotations import Annotations, load_annotations
from wsisr.selection.clam import ClamSettings
from wsisr.selection.quality import nuclei_map, texture_map
from wsisr.selection.rules import SelectionRules, apply_rules, describe_candidates
from wsisr.slides import Slide, colour_check, level_evidence

UNLABELLED = -1


def scan_identity(task: SlideTask, manifest: Manifest) -> str:
    """Hash of everything outside the slide's pixels that a scan depends on, and of the files'
    sizes and times, so that a repaired file or annotation is scanned again."""
    parts: dict[str, Any] = {
        "manifest": manifest.sha256(),
        "mpp": [task.mpp, task.fixed_mpp],
        "label": task.label,
        "files": [
            _stamp(path)
            for source in (task.source, task.fixed)
            if source is not None
            for path in source.files
        ],
        "annotation": None if task.annotation is None else _stamp(task.annotation),
    }
    if task.stack is not None:
        parts["stack"] = [task.stack.dataset, task.stack.rows, task.stack.labels]
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
    identity = scan_identity(task, manifest)
    notes: list[str] = []
    slide, check = open_checked_task(task, manifest)
    if not check.agrees:
        notes.append(f"{check.detail}; {slide.info.backend} is used.")
    extras: dict[str, Any] = {}
    with ExitStack() as stack:
        stack.enter_context(closing(slide))
        declared = declared_mpp(slide.info, manifest)
        if declared is not None:
            extras["mpp"] = declared_attribute(declared)
            slide, _ = open_checked_task(replace(task, mpp=declared), manifest)
            stack.enter_context(closing(slide))
        if manifest.tissue.method == "none":
            return _scan_image(task, manifest, slide, folder, source, identity, extras)
        fixed = None
        if manifest.rescan is None:
            geometry = plan_geometry(slide.info, manifest, task.slide_id)
        else:
            fixed = stack.enter_context(closing(open_fixed(task, manifest)))
            geometry = rescan_geometry(slide.info, fixed.info, manifest, task.slide_id)
        fault = colour_check(slide)
        if fault is not None:
            raise SlideError(fault)
        tissue = find_tissue(slide, manifest)
        if tissue.kind == "fluorescence":
            raise SlideError(
                f"{task.slide_id}: this is a fluorescence slide (bright structures on a dark "
                "background); tissue is found on brightfield slides only, so it gives no pairs."
            )
        notes.extend(tissue.health.flags)
        scans = None if fixed is None else register_glass(task, slide, fixed, manifest)
        evidence = level_evidence(slide) if len(slide.info.levels) > 1 else ()
        used = {layer.level for layer in geometry.layers}
        notes.extend(item.verdict for item in evidence if item.warning and item.level in used)
        annotations = _annotations(task, slide) if manifest.images is None else None
        transforms = _calibrate(slide, geometry, manifest)
        notes.extend(f"Level {t.level}: {t.diagnosis}" for t in transforms if t.notable)
        if manifest.registration.method == "levels":
            base = slide.info.levels[0]
            geometry = aligned(geometry, transforms, base.width_px, base.height_px)
        candidates, funnel = choose_candidates(
            slide, geometry, tissue, annotations, task, manifest, source
        )
        record = ScanRecord(
            slide_id=task.slide_id,
            identity=identity,
            info=slide.info,
            geometry=geometry,
            icc=manifest.icc,
            transforms=tuple(transform.to_json() for transform in transforms),
            fixed=None if fixed is None else fixed.info,
            scans=None if scans is None else scans.to_json(),
            evidence=tuple(_plain(asdict(item)) for item in evidence),
            tissue=_health(tissue),
            tissue_um_per_px=tissue.um_per_px,
            overview_px=round(tissue.mask.shape[1] * tissue.factor),
            funnel=funnel,
            candidates=candidates,
            notes=tuple(notes),
            extras=extras,
        )
        save_overview(folder, task.slide_id, tissue, annotations)
        save_scan(folder, record, tissue.mask)
        return record


def _scan_image(
    task: SlideTask,
    manifest: Manifest,
    image: Slide,
    folder: Path,
    source: Path,
    identity: str,
    extras: dict[str, Any],
) -> ScanRecord:
    """The scan of an image all of whose pixels count: no tissue, no calibration, no picture."""
    geometry = plan_geometry(image.info, manifest, task.slide_id)
    if task.stack is not None:
        origins = stack_origins(geometry, image.info)
    else:
        origins = _origins(image, geometry, task, manifest)
    candidates, funnel = image_candidates(image.info, geometry, origins, task, manifest)
    mask, mask_um_per_px = whole_mask(image.info, manifest)
    root = source if source.is_dir() else source.parent
    record = ScanRecord(
        slide_id=task.slide_id,
        identity=identity,
        info=image.info,
        geometry=geometry,
        icc=manifest.icc,
        tissue={"kind": "image", "um_per_px": mask_um_per_px},
        tissue_um_per_px=mask_um_per_px,
        overview_px=image.info.levels[0].width_px,
        funnel=funnel,
        candidates=candidates,
        extras=extras | image_extras(task, root),
    )
    save_scan(folder, record, mask)
    return record


def find_tissue(slide: Slide, manifest: Manifest) -> TissueMap:
    """A slide's tissue by the manifest's rule."""
    rule = manifest.tissue
    assert rule.method != "none"
    clam = ClamSettings() if rule.clam is None else ClamSettings(**rule.clam.model_dump())
    return tissue_of(slide, rule.um_per_px, method=rule.method, clam=clam)


def _calibrate(
    slide: Slide, geometry: PatchGeometry, manifest: Manifest
) -> tuple[LevelTransform, ...]:
    """Where the levels in use lie; nothing to measure where no LR is stored in the file."""
    if reference_layer(geometry) is None:
        return ()
    used = {layer.level for layer in geometry.layers if layer.level > 0}
    return calibrate_levels(slide, manifest.seed % 2**32, only=used)


def _annotations(task: SlideTask, slide: Slide) -> Annotations | None:
    if task.annotation is None:
        return None
    return load_annotations(task.annotation, slide.info)


def choose_candidates(
    slide: Slide,
    geometry: PatchGeometry,
    tissue: TissueMap,
    annotations: Annotations | None,
    task: SlideTask,
    manifest: Manifest,
    source: Path,
) -> tuple[RankedCandidates, dict[str, int]]:
    """Places that pass every rule, best rank first, and the funnel of counts."""
    # Shares are measured on all that registration may crop from: a paper's 1050-px region.
    margin = _margin_px(geometry)
    region_px = geometry.field_px + 2 * margin
    labels, other = _classes(annotations, task, manifest)
    measured = describe_candidates(
        _places(slide, geometry, tissue, task, manifest, source) - margin,
        region_px,
        tissue,
        seed=manifest.seed,
        slide_id=task.slide_id,
        annotations=annotations,
        labels=labels,
        other_label=other,
    )
    table, funnel = apply_rules(
        measured, selection_rules(manifest), region_px, white_rgb=tissue.health.white_rgb
    )
    classes = manifest.labels.classes
    names = [str(name) for name in table["label"]]
    pure = np.asarray(table["label_share"], np.float64) > manifest.labels.min_fraction
    if not manifest.tissue.strict:
        pure |= np.isclose(
            np.asarray(table["label_share"], np.float64), manifest.labels.min_fraction
        )
    ranked = RankedCandidates(
        x=tuple((table.origins[:, 0] + margin).tolist()),
        y=tuple((table.origins[:, 1] + margin).tolist()),
        label=tuple(
            classes.index(name) if name in classes and ok else UNLABELLED
            for name, ok in zip(names, pure.tolist(), strict=True)
        ),
        label_fraction=_rounded(table["label_share"]),
        tissue=_rounded(table["tissue"]),
        texture=_rounded(table["texture"]),
    )
    return ranked, funnel.as_dict()


def selection_rules(manifest: Manifest) -> SelectionRules:
    """A manifest's rules in the terms of `wsisr.selection`."""
    least = manifest.tissue.min_fraction
    return SelectionRules(
        min_tissue=float(np.nextafter(least, 2.0)) if manifest.tissue.strict else least,
        min_label_share=manifest.labels.min_fraction if manifest.labels.required else 0.0,
        min_texture=manifest.filters.min_texture,
        max_overlap=manifest.sampling.max_overlap,
        max_pen=0.0,
        rgb_outliers=manifest.filters.rgb_outlier_sd or 0.0,
    )


def _classes(
    annotations: Annotations | None, task: SlideTask, manifest: Manifest
) -> tuple[tuple[str, ...], str]:
    """Classes to look for in the outlines, and the class of what they leave.

    On a positive slide without outlines nobody knows where the class lies: nothing has one.
    """
    background = manifest.labels.background or ""
    outlined = tuple(name for name in manifest.labels.classes if name != background)
    if annotations is None:
        return (), "" if task.label in outlined else background
    return outlined, background


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """For JSON: an infinite or undefined number becomes null (its sentence says which)."""
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in values.items()
    }


def _rounded(values: Any) -> tuple[float, ...]:
    """Six digits: what a share is worth, and the same text on every machine."""
    return tuple(np.round(np.asarray(values, np.float64), 6).tolist())


def _places(
    slide: Slide,
    geometry: PatchGeometry,
    tissue: TissueMap,
    task: SlideTask,
    manifest: Manifest,
    source: Path,
) -> NDArray[np.int64]:
    """Origins before any rule, by the manifest's way of sampling."""
    sampling = manifest.sampling
    margin = _margin_px(geometry)
    if sampling.kind == "points":
        assert sampling.points is not None
        root = source if source.is_dir() else source.parent
        points = points_of(root, sampling.points, task.source.path.stem)
        if len(points) or sampling.unlisted == "none":
            return point_candidates(geometry, slide.info, points, margin_px=margin)
    if sampling.kind not in ("texture", "nuclei"):
        return _origins(slide, geometry, task, manifest)
    weights = texture_map(tissue) if sampling.kind == "texture" else nuclei_map(tissue)
    return weighted_candidates(
        geometry,
        slide.info,
        weights,
        tissue.factor,
        count=sampling.per_slide or 0,
        seed=manifest.seed,
        slide_id=task.slide_id,
        margin_px=margin,
    )


def _origins(
    slide: Slide, geometry: PatchGeometry, task: SlideTask, manifest: Manifest
) -> NDArray[np.int64]:
    """Origins that follow from the slide's size alone."""
    sampling = manifest.sampling
    if sampling.kind == "cover":
        return cover_origins(geometry, slide.info)
    if sampling.kind == "random":
        return random_candidates(
            geometry,
            slide.info,
            count=sampling.per_slide or 0,
            seed=manifest.seed,
            slide_id=task.slide_id,
            margin_px=_margin_px(geometry),
        )
    stride = round(geometry.field_px * sampling.stride)
    return grid_candidates(geometry, slide.info, stride, margin_px=_margin_px(geometry))


def _margin_px(geometry: PatchGeometry) -> int:
    """Level-0 pixels around a patch that registration may crop from."""
    return round(geometry.hr.margin_px * geometry.hr.factor)


def _health(tissue: TissueMap) -> dict[str, Any]:
    """Numbers of the mask for the store: plain, rounded, stable."""
    health = tissue.health
    return {
        "kind": tissue.kind,
        "um_per_px": tissue.um_per_px,
        "tissue_mm2": round(health.tissue_mm2, 4),
        "scanned_mm2": round(health.scanned_mm2, 4),
        "pen_mm2": round(health.pen_mm2, 4),
        "components": health.components,
        "stability": round(health.stability, 4),
        "pen_colours": list(health.pen_colours),
        "flags": list(health.flags),
    }
