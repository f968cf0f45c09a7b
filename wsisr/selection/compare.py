"""How far tissue masks agree, with a truth, with each other, or with what pathologists drew.

Overlap alone hides what matters for training data, so there is also the agreement of kept tiles
(256 px at 40x), and the share of annotated lesion that a mask would lose, which needs no
labelled masks at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from shapely.geometry.base import BaseGeometry

from wsisr.arrays import BoolArray, UInt8Array
from wsisr.drawing.overlays import disagreement
from wsisr.drawing.sheets import SheetImage, sheet
from wsisr.errors import AnnotationError, ConfigError
from wsisr.selection.annotation_formats.names import TUMOR, ClassNames
from wsisr.selection.annotation_use import as_classes
from wsisr.selection.annotations import Annotations, load_annotations
from wsisr.selection.mask_files import MASK_SUFFIXES, MaskFile, read_mask_file, resize_mask
from wsisr.selection.regions import polygons_to_mask
from wsisr.selection.tissue_map import integral_of, integral_share

BOUNDARY_UM = 50.0
TILE_UM = 64.0
"""256 px at 40x (0.25 um/px)."""
TILE_TISSUE = 0.5
MAX_CELLS = 60


@dataclass(frozen=True, kw_only=True)
class MaskAgreement:
    """Agreement of a mask with a reference. Shares are 0-1.

    Attributes
    ----------
    iou, dice, precision, recall : float
        1 where both masks are empty.
    boundary_f1 : float
        F1 of outline pixels within 50 um of the other outline.
    missed_mm2, extra_mm2 : float
        Only in the reference; only in the mask.
    tile_f1 : float
        F1 of 64 um tiles (256 px at 40x) that are at least half tissue.
    """

    iou: float
    dice: float
    precision: float
    recall: float
    boundary_f1: float
    missed_mm2: float
    extra_mm2: float
    tile_f1: float


@dataclass(frozen=True, kw_only=True)
class ComparedMask:
    """One line of a comparison: a mask against a reference on one slide."""

    slide: str
    mask: str
    reference: str
    agreement: MaskAgreement | None
    annotation_recall: float | None
    mask_path: Path
    reference_path: Path | None


def mask_agreement(mask: BoolArray, reference: BoolArray, um_per_px: float) -> MaskAgreement:
    """Compare two masks of one grid.

    Raises
    ------
    ConfigError
        If the shapes differ.
    """
    if mask.shape != reference.shape:
        raise ConfigError(f"Masks of {mask.shape} and {reference.shape} px cannot be compared.")
    both = float((mask & reference).sum())
    only_mask = float((mask & ~reference).sum())
    only_reference = float((reference & ~mask).sum())
    pixel_mm2 = (um_per_px / 1000) ** 2
    return MaskAgreement(
        iou=_ratio(both, both + only_mask + only_reference),
        dice=_ratio(2 * both, 2 * both + only_mask + only_reference),
        precision=_ratio(both, both + only_mask),
        recall=_ratio(both, both + only_reference),
        boundary_f1=boundary_f1(mask, reference, um_per_px),
        missed_mm2=only_reference * pixel_mm2,
        extra_mm2=only_mask * pixel_mm2,
        tile_f1=tile_f1(mask, reference, um_per_px),
    )


def boundary_f1(
    mask: BoolArray, reference: BoolArray, um_per_px: float, tolerance_um: float = BOUNDARY_UM
) -> float:
    """F1 of outline pixels that lie within a tolerance of the other outline."""
    first, second = _outline(mask), _outline(reference)
    if not first.any() and not second.any():
        return 1.0
    if not first.any() or not second.any():
        return 0.0
    near = tolerance_um / um_per_px
    precision = float((_distance_to(second)[first] <= near).mean())
    recall = float((_distance_to(first)[second] <= near).mean())
    return _ratio(2 * precision * recall, precision + recall) if precision + recall else 0.0


def tile_f1(
    mask: BoolArray, reference: BoolArray, um_per_px: float, tile_um: float = TILE_UM
) -> float:
    """F1 of the tiles that either mask would keep, on a grid from the slide's corner."""
    side = tile_um / um_per_px
    count_y, count_x = (max(1, int(length // side)) for length in mask.shape)
    x, y = np.meshgrid(np.arange(count_x) * side, np.arange(count_y) * side)
    boxes = np.stack([x.ravel(), y.ravel(), np.full(x.size, side), np.full(x.size, side)], axis=1)
    kept = integral_share(integral_of(mask), boxes, 1.0) >= TILE_TISSUE
    wanted = integral_share(integral_of(reference), boxes, 1.0) >= TILE_TISSUE
    both, either = float((kept & wanted).sum()), float(kept.sum() + wanted.sum())
    return _ratio(2 * both, either)


def annotation_recall(
    mask: BoolArray, factor: float, annotations: Annotations, label: str = TUMOR
) -> float | None:
    """Share of a label's area that lies inside the mask; None without such area.

    Parameters
    ----------
    mask : ndarray, shape (h, w), bool
    factor : float
        Level-0 pixels per mask pixel.
    label : str
        By default the tumour. The share should be about 1: lesions are tissue.

    Notes
    -----
    The outline is rasterised by pixel centres at the mask's resolution, and parts outside the
    slide count as missed.
    """
    geometry: BaseGeometry = annotations.area(label).geometry
    if geometry.is_empty:
        return None
    drawn = polygons_to_mask([geometry], mask.shape, factor)
    total = max(float(drawn.sum()), annotations.area(label).area_px2 / factor**2)
    return float((drawn & mask).sum()) / total if total else None


def compare_sources(
    sources: Sequence[Path],
    *,
    truth: Path | None = None,
    annotations: Path | None = None,
    um_per_px: float | None = None,
) -> list[ComparedMask]:
    """Compare masks in files or folders, matched by slide name.

    Parameters
    ----------
    sources : sequence of Path
        Mask files, or folders of them; the first is the reference where there is no truth.
    truth : Path, optional
        File or folder of reference masks.
    annotations : Path, optional
        File or folder of annotations: adds the share of tumour inside each mask.
    um_per_px : float, optional
        Of masks that do not say.

    Raises
    ------
    ConfigError, AnnotationError
        Nothing to compare, or a file that cannot be used.
    """
    if not sources or (len(sources) < 2 and truth is None and annotations is None):
        raise ConfigError("Give two masks (or folders), or one and --truth or --annotations.")
    tables = [_files_of(source) for source in sources]
    names = [_source_name(source, sources) for source in sources]
    references = _files_of(truth) if truth else (tables[0] if len(sources) > 1 else {})
    reference_name = "truth" if truth else names[0]
    drawings = _files_of(annotations) if annotations else {}
    rows = []
    for index, (name, table) in enumerate(zip(names, tables, strict=True)):
        is_reference = truth is None and index == 0 and len(sources) > 1
        for slide in _matched(table, references, drawings, single=len(table) == 1):
            mask, reference = load_pair(table[slide], _find(references, slide), um_per_px)
            agreement = None
            if reference is not None and not is_reference:
                if mask.um_per_px is None:
                    raise ConfigError(f"{table[slide]}: says no resolution; give --um-per-px.")
                agreement = mask_agreement(mask.mask, reference, mask.um_per_px)
            recall = None
            drawing = _find(drawings, slide)
            if drawing is not None:
                if mask.factor is None:
                    raise ConfigError(
                        f"{table[slide]}: does not say how it lies on the slide; write it with "
                        "'wsisr tissue mask'."
                    )
                recall = annotation_recall(mask.mask, mask.factor, _lesions(drawing, mask))
            if agreement is not None or recall is not None:
                rows.append(
                    ComparedMask(
                        slide=slide,
                        mask=name,
                        reference=reference_name if agreement else "annotations",
                        agreement=agreement,
                        annotation_recall=recall,
                        mask_path=table[slide],
                        reference_path=_find(references, slide) if agreement else None,
                    )
                )
    if not rows:
        raise ConfigError("No slide has a mask in every place; files are matched by their names.")
    return rows


def table_text(rows: Sequence[ComparedMask]) -> str:
    """Rows as an aligned table, and the median and worst five of each mask by IoU."""
    columns = {
        "IoU": "iou",
        "Dice": "dice",
        "prec.": "precision",
        "recall": "recall",
        "bound.F1": "boundary_f1",
        "tile F1": "tile_f1",
        "missed mm2": "missed_mm2",
        "extra mm2": "extra_mm2",
    }
    heads = ["slide", "mask", *columns, "tumour in"]
    lines = [heads]
    for row in rows:
        values = asdict(row.agreement) if row.agreement else {}
        lines.append(
            [
                row.slide,
                row.mask,
                *(f"{values[key]:.3f}" if values else "-" for key in columns.values()),
                "-" if row.annotation_recall is None else f"{row.annotation_recall:.4f}",
            ]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    text = [
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    for name in dict.fromkeys(row.mask for row in rows):
        scored = sorted(
            (row.agreement.iou, row.slide) for row in rows if row.mask == name and row.agreement
        )
        if len(scored) > 1:
            worst = ", ".join(f"{slide} {iou:.3f}" for iou, slide in scored[:5])
            middle = median(iou for iou, _ in scored)
            text.append(f"{name}: median IoU {middle:.3f}; worst: {worst}")
    return "\n".join(text)


def _files_of(source: Path) -> dict[str, Path]:
    """Slide name -> file. ``x-mask.png`` is slide x; of several files the mask wins."""
    if source.is_file():
        return {_slide_name(source): source}
    if not source.is_dir():
        raise AnnotationError(f"{source}: there is no such file or folder.")
    table: dict[str, Path] = {}
    for path in sorted(source.iterdir()):
        if path.suffix.lower() not in MASK_SUFFIXES or path.stem.endswith(("-overlay", "-health")):
            continue
        name = _slide_name(path)
        if name not in table or path.stem.endswith("-mask"):
            table[name] = path
    return table


def _slide_name(path: Path) -> str:
    name = path.stem
    for ending in ("-mask", "_mask", "-tissue", "_tissue"):
        name = name.removesuffix(ending)
    return name


def _source_name(source: Path, sources: Sequence[Path]) -> str:
    names = [s.name for s in sources]
    return source.name if names.count(source.name) == 1 else str(source)


def _matched(
    table: Mapping[str, Path],
    references: Mapping[str, Path],
    drawings: Mapping[str, Path],
    *,
    single: bool,
) -> list[str]:
    """Slides to compare: those with a partner, or the only one there is."""
    if single:
        return list(table)
    return [s for s in table if s in references or s in drawings]


def _find(table: Mapping[str, Path], slide: str) -> Path | None:
    if len(table) == 1:
        return next(iter(table.values()))
    return table.get(slide)


def load_pair(
    path: Path, reference_path: Path | None, um_per_px: float | None
) -> tuple[MaskFile, BoolArray | None]:
    """A mask and its reference on the mask's grid; outlines take the grid of the other."""
    outline = path.suffix.lower() in (".geojson", ".json", ".xml")
    if outline and reference_path is not None:
        reference = read_mask_file(reference_path)
        mask = read_mask_file(
            path,
            shape=reference.mask.shape,
            factor=reference.factor,
            origin_px=reference.origin_px,
        )
        return replace(reference, mask=mask.mask, um_per_px=reference.um_per_px or um_per_px), (
            reference.mask
        )
    mask = read_mask_file(path)
    mask = replace(mask, um_per_px=mask.um_per_px or um_per_px)
    if reference_path is None:
        return mask, None
    reference = read_mask_file(
        reference_path, shape=mask.mask.shape, factor=mask.factor, origin_px=mask.origin_px
    )
    return mask, resize_mask(reference.mask, mask.mask.shape)


def _lesions(path: Path, mask: MaskFile) -> Annotations:
    """Annotations in the mask's frame, tumour under its one name."""
    assert mask.factor is not None
    height, width = (round(side * mask.factor) for side in mask.mask.shape)
    drawn = load_annotations(path, origin_px=mask.origin_px)
    return as_classes(drawn, ClassNames((TUMOR,), {}), (width, height))[0]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 1.0


def _outline(mask: BoolArray) -> BoolArray:
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    outline: BoolArray = mask & ~inner.astype(np.bool_)
    return outline


def _distance_to(outline: BoolArray) -> np.ndarray:
    return np.asarray(
        cv2.distanceTransform((~outline).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    )


def disagreement_sheet(
    rows: Sequence[ComparedMask], *, cell_px: int = 300, columns: int = 4
) -> UInt8Array:
    """A picture of every compared mask, lowest IoU first, at most 60.

    Raises
    ------
    ConfigError
        If no row has a reference mask.
    """
    scored = [(r.agreement.iou, r.slide, r.mask, r) for r in rows if r.agreement is not None]
    if not scored:
        raise ConfigError("There is no mask to disagree with: give two masks or --truth.")
    tiles = []
    for iou, slide, name, row in sorted(scored, key=lambda item: item[:3])[:MAX_CELLS]:
        mask, reference = load_pair(row.mask_path, row.reference_path, None)
        if reference is not None:
            text = f"{slide} {name} IoU {iou:.3f}"
            tiles.append(SheetImage(image=disagreement(mask.mask, reference), text=text))
    return sheet([tiles[k : k + columns] for k in range(0, len(tiles), columns)], side_px=cell_px)
