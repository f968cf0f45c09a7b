"""Against a finer slide: what was won, left out and invented, and nuclei that come and go."""

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.geometry import Box
from wsisr.inference import bicubic
from wsisr.inference.trust import place_means
from wsisr.metrics.correctness import correctness
from wsisr.metrics.nuclei import COARSEST_UM_PER_PX, nuclei_change
from wsisr.progress import ProgressEvent, Reporter
from wsisr.upscaling.audit.findings import SIDES, Findings
from wsisr.upscaling.audit.pictures import AuditSlides


def look_closer(found: Findings, pictures: AuditSlides, report: Reporter) -> None:
    """Class what differs from the finer slide, and look for nuclei where it can show them."""
    grid, fine = pictures.grid, pictures.um_per_px
    found.nuclei = fine is not None and fine <= COARSEST_UM_PER_PX
    found.maps |= {side: np.full(grid.shape, np.nan, np.float32) for side in SIDES}
    blocks = list(grid.blocks())
    for number, (block, row) in enumerate(zip(blocks, found.rows, strict=True), 1):
        wide, cells = grid.wider(block), grid.cells(block)
        sr, _, plain = pictures.with_plain(wide)
        hr = pictures.hr(wide)
        there, around = grid.made(block), grid.made(wide)
        inside = Box(
            x=there.x - around.x, y=there.y - around.y, width=there.width, height=there.height
        )
        cut = slice(inside.y, inside.bottom), slice(inside.x, inside.right)
        classes = correctness(sr[cut], hr[cut], bicubic.to_grey(plain[cut]))
        row |= {side: classes.means()[side] for side in SIDES}
        for side in SIDES:
            part = found.maps[side][cells.y : cells.bottom, cells.x : cells.right]
            part[:] = place_means(getattr(classes, side), cells)
        if found.nuclei and fine is not None:
            row |= _nuclei(found, sr, hr, fine, inside, there)
        report(ProgressEvent(stage="compare", done=number, total=len(blocks), unit="block"))


def _nuclei(
    found: Findings, sr: UInt8Array, hr: UInt8Array, um: float, inside: Box, there: Box
) -> dict[str, int]:
    """Nuclei whose centres lie in the block itself; their places go to `found`."""
    change = nuclei_change(sr, hr, um)
    counts = {}
    for name, places in (("vanished", change.vanished_um), ("appeared", change.appeared_um)):
        y, x = places[:, 0] / um - inside.y, places[:, 1] / um - inside.x
        own = (x >= 0) & (y >= 0) & (x < inside.width) & (y < inside.height)
        getattr(found, name).append(
            np.stack((x[own] + 0.5 + there.x, y[own] + 0.5 + there.y, places[own, 2]), axis=1)
        )
        counts[name] = int(own.sum())
    share = inside.width * inside.height / (sr.shape[0] * sr.shape[1])
    # Of the block with its context, by area: what the shares are counted against.
    return counts | {"nuclei_hr": round(change.hr * share), "nuclei_sr": round(change.sr * share)}
