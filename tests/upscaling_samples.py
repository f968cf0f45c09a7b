"""What several tests of upscaling use: slides, an engine that tiles show on, whole renderings."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from slides_samples import box_level, picture, write_pyramid

from wsisr.arrays import Float32Array, UInt8Array
from wsisr.geometry import Box
from wsisr.inference.bicubic import enlarge
from wsisr.inference.blocks import Edges, PlanePixels, Renderer
from wsisr.inference.engine import Capacity, WindowBatch
from wsisr.inference.tiles import Tiling, TilingNeeds, blocks_of
from wsisr.inference.trained import TrainedModel


def slide_file(
    path: Path, width: int, height: int, um_per_px: float | None = 0.5, seed: int = 0
) -> Path:
    """An uncompressed pyramid of two levels (1, 4), one picture over and over."""
    image = repeated(width, height, seed)
    levels = [image, box_level(image, 4)]
    return write_pyramid(path, levels, compression=None, um_per_px=um_per_px)


def repeated(width: int, height: int, seed: int = 0) -> UInt8Array:
    """The level-0 pixels of `slide_file`."""
    piece = picture(300, 260, seed)
    return np.tile(piece, (-(-height // 260), -(-width // 300), 1))[:height, :width]


class MoodyEngine:
    """Bicubic, plus an offset of its own for every window: tile borders would show."""

    trained = TrainedModel(
        name="moody",
        model="moody",
        preset="",
        scale=None,
        scale_range=(1.0, 64.0),
        document={"lr_origin": "stored-level"},
    )
    needs = TilingNeeds(halo_px=8, halo_exact=False, tile_px=64, multiple_px=4)
    device = "cpu"
    precision = "float32"
    pooling = ""

    def __init__(self) -> None:
        self.calls = 0
        object.__setattr__(self.trained, "weights_sha256", "0" * 64)

    def render(self, batch: WindowBatch) -> list[Float32Array]:
        self.calls += 1
        found = []
        for window, pixels in zip(batch.windows, batch.lr, strict=True):
            mood = (window.core.x * 7 + window.core.y * 13) % 41 - 20
            values = enlarge(pixels, window.lr, batch.frame, window.reach) * 0.5 + 60 + mood
            found.append(np.clip(values, 0, 255).astype(np.float32))
        return found

    def capacity(self, plan: Tiling, scale: float, side_px: int) -> Capacity:
        return Capacity()


def render_all(
    renderer: Renderer,
    image: UInt8Array,
    block_px: int,
    wanted: Callable[[Box], bool] = lambda core: True,
) -> UInt8Array:
    """Every block of a plane that is in memory, edges handed on as the pipeline does."""
    frame, blend = renderer.frame, renderer.plan.blend_px
    blocks = blocks_of(frame, block_px)
    across = -(-frame.region.width // block_px)
    out = np.zeros((frame.region.height, frame.region.width, 3), np.uint8)
    edges: dict[int, Edges] = {}
    for i, block in enumerate(blocks):
        box = renderer.source_box(block)
        done = renderer.render(
            block,
            PlanePixels(lr=image[box.y : box.bottom, box.x : box.right], box=box),
            wanted,
            left=edges[i - 1].right if blend and i % across else None,
            above=edges[i - across].below if blend and i >= across else None,
        )
        if done.edges is not None:
            edges[i] = done.edges
        out[block.y : block.bottom, block.x : block.right] = done.pixels
    return out
