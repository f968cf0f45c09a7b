"""Images that are in memory, by the same steps as whole slides."""

import logging
from collections.abc import Callable

import numpy as np

from wsisr.arrays import Float32Array, UInt8Array
from wsisr.geometry import Box
from wsisr.inference.blocks import Edges, PlanePixels, Renderer
from wsisr.inference.engine import Capacity, Engine
from wsisr.inference.tiles import BLOCK_PX, Tiling, blocks_of, plan_frame

log = logging.getLogger(__name__)


def super_resolve(
    engine: Engine,
    lr: UInt8Array,
    scale: float,
    plan: Tiling,
    *,
    region: Box | None = None,
    capacity: Capacity | None = None,
    finer: UInt8Array | None = None,
    on_shrink: Callable[[str], None] = log.warning,
) -> Float32Array:
    """The output of LR images: the pixels that upscaling writes.

    Parameters
    ----------
    lr : ndarray, shape (..., h, w, 3), uint8
    region : Box, optional
        Part of the LR px; the pixels are those that the whole output has there.
    capacity : Capacity, optional
        How much runs at once; corrected when memory runs out.
    finer : ndarray, shape (..., 2h, 2w, 3), uint8, optional
        References, for a model that takes one.
    on_shrink : callable
        Told in a sentence when memory runs out.

    Returns
    -------
    ndarray, shape (..., round(h scale), round(w scale), 3), float32
        Grey levels in [0, 255], as they are before they are rounded.

    Raises
    ------
    OutputError
        The network gave values that are no numbers; `item` is the image.
    MemoryLimitError
        Not even the smallest tile fits.
    """
    height, width = lr.shape[-3:-1]
    frame = plan_frame(width, height, scale, region)
    renderer = Renderer(
        engine=engine,
        frame=frame,
        plan=plan,
        capacity=capacity or Capacity(),
        rounded=False,
        on_shrink=on_shrink,
    )
    box = Box(x=0, y=0, width=width, height=height)
    source = PlanePixels(lr=lr, box=box, finer=finer)
    # Whole images are one block; others are made in the blocks of slides, to the same pixels.
    side = {} if plan.core_px <= BLOCK_PX else {"block_px": max(frame.width_px, frame.height_px)}
    blocks = blocks_of(frame, **side)
    across = -(-frame.region.width // blocks[0].width)
    out = np.empty((*lr.shape[:-3], frame.region.height, frame.region.width, 3), np.float32)
    edges: dict[int, Edges | None] = {}
    for i, block in enumerate(blocks):
        beside = edges.get(i - 1) if i % across else None
        over = edges.get(i - across)
        done = renderer.render(
            block,
            source,
            left=None if beside is None else beside.right,
            above=None if over is None else over.below,
        )
        edges[i] = done.edges
        edges.pop(i - across, None)
        out[..., *block.slices, :] = done.pixels
    return out
