"""Where masks disagree, to look at: the worst slides first."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from wsisr.errors import ConfigError
from wsisr.selection.compare import ComparisonRow, load_pair
from wsisr.slides.protocol import BoolArray, UInt8Array

BOTH = (190, 200, 195)
MISSED = (200, 30, 30)
EXTRA = (30, 80, 220)
MAX_CELLS = 60


def disagreement_picture(mask: BoolArray, reference: BoolArray) -> UInt8Array:
    """Grey where both have tissue, red where only the reference, blue where only the mask."""
    picture = np.full((*mask.shape, 3), 255, np.uint8)
    picture[mask & reference] = BOTH
    picture[reference & ~mask] = MISSED
    picture[mask & ~reference] = EXTRA
    return picture


def disagreement_sheet(
    rows: Sequence[ComparisonRow], *, cell_px: int = 300, columns: int = 4
) -> UInt8Array:
    """A picture of every compared mask, lowest IoU first, at most 60.

    Raises
    ------
    ConfigError
        If no row has a reference mask.
    """
    scored = [
        (row.agreement.iou, row.slide, row.mask, row) for row in rows if row.agreement is not None
    ]
    if not scored:
        raise ConfigError("There is no mask to disagree with: give two masks or --truth.")
    scored.sort(key=lambda item: item[:3])
    scored = scored[:MAX_CELLS]
    gap, text = 6, 16
    columns = min(columns, len(scored))
    lines = -(-len(scored) // columns)
    sheet = Image.new(
        "RGB",
        (columns * (cell_px + gap) + gap, lines * (cell_px + text + gap) + gap),
        (235, 235, 235),
    )
    draw = ImageDraw.Draw(sheet)
    for index, (iou, slide, name, row) in enumerate(scored):
        line, column = divmod(index, columns)
        x, y = gap + column * (cell_px + gap), gap + line * (cell_px + text + gap)
        mask, reference = load_pair(row.mask_path, row.reference_path, None)
        if reference is None:
            continue
        picture = disagreement_picture(mask.mask, reference)
        scale = cell_px / max(picture.shape[:2])
        size = (
            max(1, round(picture.shape[1] * scale)),
            max(1, round(picture.shape[0] * scale)),
        )
        mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
        small = np.asarray(cv2.resize(picture, size, interpolation=mode), np.uint8)
        sheet.paste(Image.fromarray(small), (x, y + text))
        draw.text((x, y), f"{slide} {name} IoU {iou:.3f}", fill=(20, 20, 20))
    return np.asarray(sheet)
