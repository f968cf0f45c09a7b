"""Pictures of a build: each slide with its mask, annotations and patches, and some of its pairs.

The scan draws what it saw; the extraction draws its patches into that picture. Both are
functions of the slide alone, so they are the same whoever made them.
"""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from wsisr.arrays import AnyArray, UInt8Array
from wsisr.building.scan_records import ScanRecord
from wsisr.drawing.overlays import draw_patches
from wsisr.drawing.sheets import contact_sheet
from wsisr.files import save_picture
from wsisr.selection.annotations import Annotations
from wsisr.selection.preview import overlay_picture
from wsisr.selection.tissue_map import TissueMap

MAX_SIDE_PX = 1600
SHEET_PAIRS = 8
QUICK = {"compress_type": zlib.Z_RLE}
"""Runs alone are looked for: as large as by the default, in a third of its time."""


def overview_path(scans: Path, slide_id: str) -> Path:
    """Where the scan leaves its picture."""
    return scans / f"{slide_id}.overview.png"


def save_overview(
    scans: Path, slide_id: str, tissue: TissueMap, annotations: Annotations | None
) -> None:
    """The scan's picture: overview, outline of the tissue, pen, annotations."""
    picture = overlay_picture(tissue, annotations=annotations, max_side_px=MAX_SIDE_PX)
    save_picture(overview_path(scans, slide_id), picture, **QUICK)


def save_patches(
    scans: Path, report: Path, slide_id: str, record: ScanRecord, columns: Mapping[str, AnyArray]
) -> None:
    """The scan's picture with every stored patch: blue where kept, orange where refused.

    Parameters
    ----------
    scans, report : Path
        Where the scan's picture is, and the folder that gets ``slides/<id>.png``.
    columns : mapping of str to ndarray, shape (n,)
        With ``x``, ``y`` (level-0 px) and ``kept`` of every patch.
    """
    path = overview_path(scans, slide_id)
    # Ready-made images have no overview: they are their own.
    if not path.is_file():
        return
    origins = np.stack([columns["x"], columns["y"]], axis=1)
    with Image.open(path) as drawn:
        draw_patches(drawn, record.overview_px, origins, columns["kept"], record.geometry.field_px)
        save_picture(report / "slides" / f"{slide_id}.png", drawn, **QUICK)


def save_contact_sheet(
    report: Path, slide_id: str, pairs: Sequence[tuple[UInt8Array, UInt8Array, str]]
) -> None:
    """A few pairs of a slide, LR enlarged beside HR: ``slides/<id>-pairs.png``."""
    if not pairs:
        return
    sheet = contact_sheet(
        [(lr, hr) for lr, hr, _ in pairs], captions=[text for *_, text in pairs], columns=2
    )
    save_picture(report / "slides" / f"{slide_id}-pairs.png", sheet, **QUICK)
