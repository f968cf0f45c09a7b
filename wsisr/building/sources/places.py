"""Places on glass: its tissue, its labels, and the candidates that pass a manifest's rules, ranked.

Nothing that is decided here depends on other slides.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.arrays import Int64Array
from wsisr.building.layout import SlideTask
from wsisr.building.manifest import Manifest
from wsisr.building.scan_records import RankedCandidates, Reading
from wsisr.building.sources.protocol import Survey
from wsisr.errors import AnnotationError, GeometryError, SlideError
from wsisr.geometry import PatchGeometry
from wsisr.registration import LevelTransform
from wsisr.selection import (
    TissueMap,
    TissueSettings,
    grid_candidates,
    point_candidates,
    random_candidates,
    tissue_of,
    weighted_points,
)
from wsisr.selection.annotation_formats.names import ClassNames
from wsisr.selection.annotation_use import AnnotationUse, as_classes
from wsisr.selection.annotations import Annotations, load_annotations
from wsisr.selection.candidates import cover_candidates, snap_to_tiles
from wsisr.selection.clam import ClamSettings
from wsisr.selection.points import points_of
from wsisr.selection.quality import nuclei_map, texture_map
from wsisr.selection.rules import Labelling, SelectionRules, apply_rules, describe_candidates
from wsisr.slides import LevelEvidence, Slide, colour_check, level_evidence
from wsisr.slides.tiles import forget_tiles
from wsisr.words import finite

UNLABELLED = -1


def survey_glass(
    slide: Slide,
    task: SlideTask,
    manifest: Manifest,
    root: Path,
    fit: Callable[[tuple[LevelEvidence, ...]], tuple[Reading, tuple[LevelTransform, ...]]],
) -> Survey:
    """Tissue, level evidence and candidates of a slide.

    Parameters
    ----------
    slide : Slide
        The one whose level 0 counts places.
    task, manifest
    root : Path
        Folder that lists of points are relative to.
    fit : callable
        Measures where levels or scans lie against each other, and chooses among the levels by
        their evidence.

    Raises
    ------
    SlideError
        If the slide shows something that no pair should be made of: false colour, fluorescence.
    """
    fault = colour_check(slide)
    if fault is not None:
        raise SlideError(fault)
    tissue = find_tissue(slide, manifest)
    if tissue.kind == "fluorescence":
        raise SlideError(
            f"{task.slide_id}: this is a fluorescence slide (bright structures on a dark "
            "background); tissue is found on brightfield slides only, so it gives no pairs."
        )
    evidence = level_evidence(slide) if len(slide.info.levels) > 1 else ()
    reading, transforms = fit(evidence)
    forget_tiles(slide)  # the rest is decided by the overview
    stored = {layer.name for layer in reading.geometry.layers if layer.native}
    drawn, use, words = read_outlines(slide, task, manifest)
    # What labels nothing leaves the slide as one without outlines.
    labelled = drawn if use is None or use.used else None
    origins = _places(slide, reading.geometry, tissue, task, manifest, root)
    candidates, funnel = choose_candidates(
        origins, reading.geometry, tissue, _labelling(labelled, task, manifest), task, manifest
    )
    return Survey(
        reading=reading,
        candidates=candidates,
        funnel=funnel,
        mask=tissue.mask,
        tissue=_health(tissue),
        tissue_um_per_px=tissue.um_per_px,
        overview_px=round(tissue.mask.shape[1] * tissue.factor),
        transforms=tuple(transform.to_json() for transform in transforms),
        evidence=tuple(finite(asdict(item)) for item in evidence),
        notes=(
            *tissue.health.flags,
            *(
                f"{name}: {why}"
                + ("" if name in stored else " It is made from the finer level instead.")
                for name, why in reading.flags.items()
            ),
            *(f"Level {t.level}: {t.diagnosis}" for t in transforms if t.notable),
            *words,
            *snap_note(slide, reading.geometry, manifest),
        ),
        outlines=None if use is None else asdict(use),
        picture=(tissue, drawn),
    )


def read_outlines(
    slide: Slide, task: SlideTask, manifest: Manifest
) -> tuple[Annotations | None, AnnotationUse | None, tuple[str, ...]]:
    """A slide's annotations under the manifest's names, what they mean, and notes.

    Raises
    ------
    AnnotationError
        If the file is damaged, or it cannot be said which file is the slide's and labels matter.
    """
    classes = manifest.labels.classes
    if manifest.images is not None:
        return None, None, ()
    if task.annotation_fault and classes:
        raise AnnotationError(f"{task.slide_id}: {task.annotation_fault}.")
    if task.annotation is None:
        return None, None, (task.annotation_fault,) if task.annotation_fault else ()
    drawn = load_annotations(task.annotation, slide.info)
    if not classes:
        return drawn, None, drawn.notes
    base = slide.info.levels[0]
    names = ClassNames(classes, manifest.labels.synonyms)
    drawn, use = as_classes(drawn, names, (base.width_px, base.height_px))
    return drawn, use, (*drawn.notes, *use.sentences(classes))


def find_tissue(slide: Slide, manifest: Manifest) -> TissueMap:
    """A slide's tissue by the manifest's rule."""
    rule = manifest.tissue
    if rule.method == "none":
        # Frames cut out of slides may show no glass: all that was scanned counts.
        found = tissue_of(slide, rule.um_per_px)
        return replace(found, mask=~found.invalid, kind="brightfield")
    clam = ClamSettings() if rule.clam is None else ClamSettings(**rule.clam.model_dump())
    settings = TissueSettings(clam=clam)
    return tissue_of(slide, rule.um_per_px, method=rule.method, settings=settings)


def choose_candidates(
    origins: Int64Array,
    geometry: PatchGeometry,
    tissue: TissueMap,
    labelling: Labelling,
    task: SlideTask,
    manifest: Manifest,
) -> tuple[RankedCandidates, dict[str, int]]:
    """Places that pass every rule, best rank first, and the funnel of counts."""
    # Shares are measured on all that registration may crop from: a paper's 1050-px region.
    margin = _margin_px(geometry)
    region_px = geometry.field_px + 2 * margin
    measured = describe_candidates(
        origins - margin,
        region_px,
        tissue,
        labelling,
        seed=manifest.seed,
        slide_id=task.draw_key,
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
    return ranked, funnel


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


def _labelling(annotations: Annotations | None, task: SlideTask, manifest: Manifest) -> Labelling:
    """Classes to look for in the outlines, and the class of what they leave.

    On a positive slide without outlines nobody knows where the class lies: nothing has one.
    """
    background = manifest.labels.background or ""
    outlined = tuple(name for name in manifest.labels.classes if name != background)
    if annotations is None:
        return Labelling(other="" if task.label in outlined else background)
    return Labelling(annotations=annotations, labels=outlined, other=background)


def _rounded(values: Any) -> tuple[float, ...]:
    """Six digits: what a share is worth, and the same text on every machine."""
    return tuple(np.round(np.asarray(values, np.float64), 6).tolist())


def _places(
    slide: Slide,
    geometry: PatchGeometry,
    tissue: TissueMap,
    task: SlideTask,
    manifest: Manifest,
    root: Path,
) -> Int64Array:
    """Origins before any rule, by the manifest's way of sampling."""
    sampling = manifest.sampling
    margin = _margin_px(geometry)
    if sampling.kind == "points":
        assert sampling.points is not None
        points = points_of(root, sampling.points, task.source.path.stem)
        if len(points) or sampling.unlisted == "none":
            return point_candidates(geometry, slide.info, points, margin_px=margin)
    if sampling.kind not in ("texture", "nuclei"):
        return sampled_origins(slide, geometry, task, manifest)
    weights = texture_map(tissue)[:] if sampling.kind == "texture" else nuclei_map(tissue)
    drawn = weighted_points(
        weights,
        tissue.factor,
        count=sampling.per_slide or 0,
        seed=manifest.seed,
        slide_id=task.draw_key,
    )
    return point_candidates(geometry, slide.info, drawn, margin_px=margin)


def sampled_origins(
    slide: Slide, geometry: PatchGeometry, task: SlideTask, manifest: Manifest
) -> Int64Array:
    """Origins that follow from the slide's size alone."""
    sampling = manifest.sampling
    if sampling.kind == "cover":
        return cover_candidates(geometry, slide.info)
    if sampling.kind == "random":
        return random_candidates(
            geometry,
            slide.info,
            count=sampling.per_slide or 0,
            seed=manifest.seed,
            slide_id=task.draw_key,
            margin_px=_margin_px(geometry),
        )
    stride, offset = round(geometry.field_px * sampling.stride), (0, 0)
    if sampling.snap_tiles:
        with suppress(GeometryError):  # `snap_note` says so
            snap = snap_to_tiles(geometry, slide.info)
            stride, offset = snap.stride_px(stride), snap.offset_px
    margin = _margin_px(geometry)
    return grid_candidates(geometry, slide.info, stride, offset_px=offset, margin_px=margin)


def snap_note(slide: Slide, geometry: PatchGeometry, manifest: Manifest) -> tuple[str, ...]:
    """Why patches could not be put on the slide's tiles although that was asked for."""
    if not manifest.sampling.snap_tiles:
        return ()
    try:
        snap_to_tiles(geometry, slide.info)
    except GeometryError as reason:
        return (f"The grid is not snapped to the slide's tiles: {reason}.",)
    return ()


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
