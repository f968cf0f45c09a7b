"""What the network need not see: glass, and what was never scanned."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wsisr.arrays import BoolArray, UInt8Array
from wsisr.geometry import Box
from wsisr.inference.tiles import Frame
from wsisr.selection.tissue import tissue_of
from wsisr.selection.tissue_map import TissueMap
from wsisr.slides.protocol import Slide
from wsisr.upscaling.source import Plane

WHITE = 255


@dataclass(frozen=True, kw_only=True)
class Background:
    """Which cores hold tissue.

    Attributes
    ----------
    tissue : TissueMap or None
        None: everything is wanted.
    note : str
        Why there is no mask, where one was asked for; empty otherwise.
    """

    tissue: TissueMap | None
    note: str = ""

    def wanted(self, frame: Frame, plane: Plane, halo_px: int) -> Callable[[Box], bool]:
        """Of a core (output px): whether tissue lies in it or within the halo of it."""
        tissue = self.tissue
        if tissue is None:
            return lambda core: True
        across, down = plane.factor / frame.scale_x, plane.factor / frame.scale_y
        margin = halo_px * plane.factor

        def has_tissue(core: Box) -> bool:
            box = (
                core.x * across - margin,
                core.y * down - margin,
                core.width * across + 2 * margin,
                core.height * down + 2 * margin,
            )
            return bool(tissue.fraction(np.array([box]))[0] > 0.0)

        return has_tissue


def find_background(slide: Slide, *, mask: bool) -> Background:
    """The mask of a slide, where it can have one."""
    if not mask or slide.info.mpp is None:
        return Background(tissue=None)
    tissue = tissue_of(slide)
    if tissue.kind != "brightfield":
        note = "; ".join(tissue.health.flags[:1]) or "no tissue was found"
        return Background(
            tissue=None, note=f"No background is left out ({note}): every tile goes to the network."
        )
    return Background(tissue=tissue)


def whiten(pixels: UInt8Array, frame: Frame, block: Box, valid: BoolArray, box: Box) -> None:
    """Set output pixels (of a block in region px) whose source was never scanned to white.

    `valid` covers the plane pixels of `box`.
    """
    if bool(valid.all()):
        return
    region = frame.region
    xs = _nearest(region.x + block.x, block.width, frame.scale_x) - box.x
    ys = _nearest(region.y + block.y, block.height, frame.scale_y) - box.y
    pixels[~valid[np.ix_(ys, xs)]] = WHITE


def _nearest(first: int, count: int, scale: float) -> np.ndarray:
    return np.floor((np.arange(first, first + count) + 0.5) / scale).astype(np.int64)
