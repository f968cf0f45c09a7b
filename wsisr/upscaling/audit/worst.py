"""The places that contradict the input most, as pictures for people."""

from pathlib import Path

import numpy as np
from scipy import ndimage

from wsisr.arrays import UInt8Array
from wsisr.files import save_picture
from wsisr.geometry import Box
from wsisr.upscaling.audit.findings import Findings
from wsisr.upscaling.audit.grid import Grid
from wsisr.upscaling.audit.misfit import CELL_PX

SHOWN = 8
AROUND_CELLS = 2
"""Context of a place in its pictures."""


def worst_places(found: Findings, grid: Grid) -> list[tuple[float, Box]]:
    """Misfit and field (input px) of the worst flagged places of tissue, one of each piece."""
    flagged = found.flagged & found.tissue
    labels, count = ndimage.label(flagged, structure=np.ones((3, 3)))
    at = ndimage.maximum_position(found.misfit, labels, range(1, count + 1)) if count else []
    order = sorted((-float(found.misfit[y, x]), int(y), int(x)) for y, x in at)[:SHOWN]
    return [(-value, _field(grid, y, x)) for value, y, x in order]


def _field(grid: Grid, row: int, column: int) -> Box:
    """The place with its surroundings, inside of what is looked at, of whole output px."""
    area, step = grid.area, grid.den
    reach = AROUND_CELLS * CELL_PX
    left = max(area.x, area.x + column * CELL_PX - reach) // step * step
    top = max(area.y, area.y + row * CELL_PX - reach) // step * step
    side = (CELL_PX + 2 * reach) // step * step
    left, top = max(left, area.x), max(top, area.y)
    return Box(
        x=left, y=top, width=min(side, area.right - left), height=min(side, area.bottom - top)
    )


def save_place(
    folder: Path, number: int, lr: UInt8Array, sr: UInt8Array, hr: UInt8Array | None
) -> None:
    """Write ``worst/NN-input.png``, ``-output.png`` and, with HR, ``-finer.png``."""
    for name, image in (("input", lr), ("output", sr), ("finer", hr)):
        if image is not None:
            save_picture(folder / "worst" / f"{number:02d}-{name}.png", image)
