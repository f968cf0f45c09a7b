"""Pictures to look at: what was chosen on a slide, and what the pairs look like."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from wsisr.errors import ConfigError
from wsisr.files import save_picture
from wsisr.selection.annotation_formats.geojson import COLOURS, OTHER_COLOUR
from wsisr.selection.annotations import Annotations
from wsisr.selection.regions import polygon_parts
from wsisr.selection.tissue_map import TissueMap
from wsisr.slides.protocol import UInt8Array

TISSUE = (0, 150, 90)
PEN = (255, 200, 0)
INVALID = (200, 0, 200)
PATCH = (20, 60, 230)
REFUSED = (240, 120, 0)
MAX_SIDE_PX = 2400


def overlay_picture(
    tissue: TissueMap,
    *,
    annotations: Annotations | None = None,
    origins: ArrayLike | None = None,
    field_px: int = 0,
    max_side_px: int = MAX_SIDE_PX,
) -> UInt8Array:
    """Overview with the tissue's outline, pen, invalid areas, annotations and patches.

    Parameters
    ----------
    tissue : TissueMap
        With its overview; without one the outline stands on white.
    annotations : Annotations, optional
    origins : array, shape (n, 2), optional
        Level-0 origins of the chosen patches.
    field_px : int
        Level-0 side of their fields of view.
    max_side_px : int
        Larger overviews are reduced.

    Returns
    -------
    ndarray, shape (h, w, 3), uint8
    """
    height, width = tissue.mask.shape
    scale = min(1.0, max_side_px / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    base = tissue.overview
    if base is None:
        base = np.full((height, width, 3), 255, np.uint8)
    picture = np.array(cv2.resize(base, size, interpolation=cv2.INTER_AREA), np.uint8)
    for mask, colour in ((tissue.pen, PEN), (tissue.invalid, INVALID)):
        small = _shrink(mask, size)
        picture[small] = (picture[small] // 2 + np.asarray(colour, np.uint8) // 2).astype(np.uint8)
    small = _shrink(tissue.mask, size)
    edge = cv2.morphologyEx(small.view(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    picture[edge.astype(np.bool_)] = TISSUE
    per_px = size[0] / width / tissue.factor
    line = 2 if max(size) > 600 else 1
    for region in annotations.regions if annotations else ():
        colour = COLOURS.get(region.label, OTHER_COLOUR)
        for part in polygon_parts(region.polygon):
            for ring in (part.exterior, *part.interiors):
                path = np.rint(np.asarray(ring.coords)[:, :2] * per_px).astype(np.int32)
                cv2.polylines(picture, [path.reshape(-1, 1, 2)], True, colour, line)
    if origins is not None:
        for x, y in np.asarray(origins, np.float64).reshape(-1, 2) * per_px:
            side = field_px * per_px
            corners = (round(x), round(y)), (round(x + side), round(y + side))
            cv2.rectangle(picture, *corners, PATCH, line)
    return picture


def frame_patches(
    picture: UInt8Array,
    width_px: int,
    origins: ArrayLike,
    kept: ArrayLike,
    field_px: float,
) -> UInt8Array:
    """A picture with the frame of every stored patch: blue where kept, orange where refused.

    Frames cover those that were drawn there before; refused ones lie on top of their neighbours'.

    Parameters
    ----------
    picture : ndarray, shape (h, w, 3), uint8
        Of the whole slide.
    width_px : int
        Level-0 width that it spans.
    origins : array, shape (n, 2)
        Level-0 px.
    kept : array of bool, shape (n,)
    field_px : float
        Level-0 side of the field of view.
    """
    drawn = np.array(picture, np.uint8)
    per_px = drawn.shape[1] / width_px
    line = 2 if max(drawn.shape) > 600 else 1
    places = np.asarray(origins, np.float64).reshape(-1, 2)
    flags = np.asarray(kept, np.bool_)
    for shown, colour in ((flags, PATCH), (~flags, REFUSED)):
        for x, y in places[shown].tolist():
            corners = [
                (round(v * per_px), round(w * per_px))
                for v, w in ((x, y), (x + field_px, y + field_px))
            ]
            cv2.rectangle(drawn, corners[0], corners[1], colour, line)
    return drawn


def contact_sheet(
    pairs: Sequence[tuple[UInt8Array, UInt8Array]],
    *,
    captions: Sequence[str] = (),
    cell_px: int = 256,
    columns: int = 4,
) -> UInt8Array:
    """Pairs side by side: LR enlarged by nearest neighbour, beside HR.

    Parameters
    ----------
    pairs : sequence of (lr, hr)
        uint8 RGB; both show the same field of view.
    captions : sequence of str
        One per pair; may be empty.
    cell_px : int
        Side of each picture.
    columns : int
        Pairs per row.

    Returns
    -------
    ndarray, shape (h, w, 3), uint8
    """
    if not pairs:
        raise ConfigError("A contact sheet needs at least one pair.")
    if cell_px < 16 or columns < 1:
        raise ConfigError(f"Cells of {cell_px} px in {columns} columns make no contact sheet.")
    gap, text = 6, 16
    rows = -(-len(pairs) // columns)
    columns = min(columns, len(pairs))
    width = columns * (2 * cell_px + 2 * gap) + gap
    height = rows * (cell_px + text + gap) + gap
    sheet = Image.new("RGB", (width, height), (245, 245, 245))
    draw = ImageDraw.Draw(sheet)
    for index, (lr, hr) in enumerate(pairs):
        row, column = divmod(index, columns)
        x = gap + column * (2 * cell_px + 2 * gap)
        y = gap + row * (cell_px + text + gap)
        sheet.paste(Image.fromarray(_fit(lr, cell_px)), (x, y + text))
        sheet.paste(Image.fromarray(_fit(hr, cell_px)), (x + cell_px + 2, y + text))
        if index < len(captions):
            draw.text((x, y), captions[index], fill=(30, 30, 30))
    return np.asarray(sheet)


def png_bytes(picture: UInt8Array) -> bytes:
    """A picture as PNG."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def save_png(path: Path, picture: UInt8Array) -> None:
    """Write a picture (RGB, grey or bool) as PNG."""
    save_picture(path, picture.astype(np.uint8) * 255 if picture.dtype == np.bool_ else picture)


def _fit(rgb: UInt8Array, side: int) -> UInt8Array:
    mode = cv2.INTER_NEAREST if rgb.shape[0] <= side else cv2.INTER_AREA
    return np.asarray(cv2.resize(rgb, (side, side), interpolation=mode), np.uint8)


def _shrink(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    small = cv2.resize(mask.view(np.uint8) * 255, size, interpolation=cv2.INTER_AREA)
    return np.asarray(small) >= 128
