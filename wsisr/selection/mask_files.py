"""Tissue masks as files: out to PNG and GeoJSON, in from ours, QuPath's and other tools'."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from wsisr.arrays import BoolArray
from wsisr.errors import AnnotationError
from wsisr.files import save_picture, staged_files
from wsisr.selection.annotation_formats.labelmask import read_mask
from wsisr.selection.annotation_formats.names import IGNORED
from wsisr.selection.annotation_formats.shapes import read_bytes
from wsisr.selection.annotations import load_annotations, save_geojson
from wsisr.selection.pieces import find_pieces
from wsisr.selection.preview import overlay_picture
from wsisr.selection.regions import polygons_to_mask
from wsisr.selection.tissue_map import TissueMap

MASK_SUFFIXES = (".png", ".tif", ".tiff", ".geojson", ".json", ".xml")


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskFile:
    """A mask with its scale.

    Attributes
    ----------
    mask : ndarray, shape (h, w), bool
    um_per_px : float or None
        None where the file does not say.
    factor : float or None
        Level-0 pixels per mask pixel; None where the file does not say.
    origin_px : (int, int)
        Where QuPath's (0, 0) lies in level-0 pixels; of our own PNGs.
    """

    mask: BoolArray
    um_per_px: float | None
    factor: float | None
    origin_px: tuple[int, int] = (0, 0)


def write_tissue_files(tissue: TissueMap, folder: Path, name: str) -> tuple[Path, ...]:
    """Write ``<name>-mask.png``, ``-overlay.png``, ``.geojson`` and ``-health.json``.

    Returns
    -------
    tuple of Path
        The files, in that order.
    """
    with staged_files(folder, name) as staged:
        paths = _write_all(tissue, staged, name)
    return tuple(folder / path.name for path in paths)


def _write_all(tissue: TissueMap, folder: Path, name: str) -> tuple[Path, ...]:
    mask_path = folder / f"{name}-mask.png"
    info = PngInfo()
    info.add_text("wsisr:um_per_px", repr(tissue.um_per_px))
    info.add_text("wsisr:factor", repr(tissue.factor))
    if tissue.origin_px != (0, 0):
        info.add_text("wsisr:origin_px", "{} {}".format(*tissue.origin_px))
    Image.fromarray(tissue.mask.astype(np.uint8) * 255).save(mask_path, pnginfo=info)
    overlay_path = folder / f"{name}-overlay.png"
    save_picture(overlay_path, overlay_picture(tissue))
    geojson_path = folder / f"{name}.geojson"
    save_geojson(geojson_path, tissue.to_geojson())
    health_path = folder / f"{name}-health.json"
    health_path.write_text(json.dumps(health_record(tissue), indent=2, allow_nan=False) + "\n")
    return mask_path, overlay_path, geojson_path, health_path


def health_record(tissue: TissueMap) -> dict[str, object]:
    """Health numbers as plain values for JSON."""
    health = tissue.health
    return {
        "kind": tissue.kind,
        "um_per_px": tissue.um_per_px,
        "level0_px_per_mask_px": tissue.factor,
        "tissue_mm2": round(health.tissue_mm2, 6),
        "scanned_mm2": round(health.scanned_mm2, 6),
        "tissue_share": round(health.tissue_share, 6),
        "pen_mm2": round(health.pen_mm2, 6),
        "pen_colours": list(health.pen_colours),
        "invalid_share": round(float(tissue.invalid.mean()), 6),
        "components": health.components,
        "largest_mm2": round(health.largest_mm2, 6),
        "stability": round(health.stability, 4),
        "white_rgb": list(health.white_rgb),
        "thresholds": {
            name: {
                "value": round(t.value, 5),
                "separability": round(t.separability, 4),
                "verdict": str(t.verdict),
                "limited": t.limited,
            }
            for name, t in health.thresholds.items()
        },
        "flags": list(health.flags),
    }


def read_mask_file(
    path: Path,
    *,
    shape: tuple[int, int] | None = None,
    factor: float | None = None,
    origin_px: tuple[int, int] = (0, 0),
) -> MaskFile:
    """Read a mask: PNG or TIFF (anything above 0 is tissue), or outlines.

    Parameters
    ----------
    path : Path
        A picture, or GeoJSON, ASAP XML or NCRF JSON, whose areas of any label are tissue.
    shape : (int, int), optional
        Height and width to rasterise outlines to.
    factor : float, optional
        Level-0 pixels per mask pixel, for outlines and for pictures that do not say.
    origin_px : (int, int)
        For GeoJSON.

    Raises
    ------
    AnnotationError
    """
    if path.suffix.lower() in (".geojson", ".json", ".xml"):
        if shape is None or factor is None:
            raise AnnotationError(
                f"{path}: outlines have no pixels of their own; compare them with at least one "
                "mask written by 'wsisr tissue mask'."
            )
        found = load_annotations(path, origin_px=origin_px)
        areas = [region.polygon for region in found.regions if region.label != IGNORED]
        return MaskFile(mask=polygons_to_mask(areas, shape, factor), um_per_px=None, factor=factor)
    mask = read_mask(path, read_bytes(path)) > 0
    text = _own_text(path)
    um_per_px, stated = _stated_scale(text)
    return MaskFile(
        mask=mask,
        um_per_px=um_per_px,
        factor=factor if stated is None else stated,
        origin_px=_stated_origin(text),
    )


def import_tissue(tissue: TissueMap, path: Path) -> TissueMap:
    """Replace a map's mask by one that a person or another tool made.

    Parameters
    ----------
    tissue : TissueMap
        Of the same slide: gives the grid, pen, invalid areas and overview.
    path : Path
        GeoJSON edited in QuPath, or a picture of any size that covers the slide.

    Returns
    -------
    TissueMap
        Never-scanned areas stay out; the flags name the file.
    """
    read = read_mask_file(
        path, shape=tissue.mask.shape, factor=tissue.factor, origin_px=tissue.origin_px
    )
    mask = resize_mask(read.mask, tissue.mask.shape) & ~tissue.invalid
    pixel_mm2 = (tissue.um_per_px / 1000) ** 2
    pieces = find_pieces(mask)
    health = replace(
        tissue.health,
        tissue_mm2=float(mask.sum() * pixel_mm2),
        components=len(pieces),
        largest_mm2=float(pieces.area.max(initial=0) * pixel_mm2),
        stability=1.0,
        thresholds={},
        flags=(f"imported from {path.name}",),
    )
    return replace(tissue, mask=mask, health=health, kind="brightfield" if mask.any() else "blank")


def resize_mask(mask: BoolArray, shape: tuple[int, int]) -> BoolArray:
    """A mask of the same area on another grid: a pixel is set where at least half is covered."""
    if mask.shape == tuple(shape):
        return mask
    grey = mask.astype(np.uint8) * 255
    smaller = shape[0] <= mask.shape[0] and shape[1] <= mask.shape[1]
    mode = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey, (shape[1], shape[0]), interpolation=mode)) >= 128


def _own_text(path: Path) -> dict[str, str]:
    """What our own PNGs carry beside their pixels."""
    if path.suffix.lower() != ".png":
        return {}
    with Image.open(path) as image:
        return dict(getattr(image, "text", {}))


def _stated_origin(text: Mapping[str, str]) -> tuple[int, int]:
    """Where QuPath's frame begins, of slides with a plane around the scan."""
    words = str(text.get("wsisr:origin_px", "")).split()
    if len(words) != 2 or not all(word.lstrip("-").isdecimal() for word in words):
        return 0, 0
    return int(words[0]), int(words[1])


def _stated_scale(text: Mapping[str, str]) -> tuple[float | None, float | None]:
    """um per pixel and level-0 pixels per pixel."""
    values = []
    for key in ("wsisr:um_per_px", "wsisr:factor"):
        try:
            value = float(text[key])
        except (KeyError, ValueError):
            return None, None
        if not (np.isfinite(value) and value > 0):
            return None, None
        values.append(value)
    return values[0], values[1]
