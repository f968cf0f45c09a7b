"""Tiled against untiled, by hand: ``python benchmarks/upscaling_seams.py SLIDE --model RUN ...``.

A part of a slide is reduced by the model's scale and upscaled once as a whole and once in tiles,
with the default tiling and with pooling over the training size (local) and over the tile. Printed,
as rows of a table: differences in grey levels of 8-bit pixels; PSNR against the slide, tiled and
untiled; seam energy at the tiles' borders, the same measure of the untiled picture at the same
places (what chance gives there), and its standard deviation over grids moved by whole input px.
"""

import argparse
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.geometry import Box
from wsisr.inference import load
from wsisr.inference.blocks import PlanePixels, Rendered, Renderer
from wsisr.inference.engine import Engine
from wsisr.inference.tiles import WHOLE, Frame, Tiling, plan_frame, plan_tiles
from wsisr.metrics import psnr
from wsisr.slides.opening import open_slide
from wsisr.slides.resample import read_resampled
from wsisr.upscaling.seams import seam_energy

MARGIN_PX = 8
"""Left out of PSNR at the picture's edge, output px."""
HEADER = (
    "| model | pooling | core + halo + ramp, LR px | max, mean difference "
    "| PSNR tiled / untiled, dB | seam energy tiled / untiled (sd) | CPU s |"
    "\n|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--model", nargs="+", required=True, help="Runs, saved models or bicubic.")
    parser.add_argument("--scale", type=float, default=4.0, help="Of arbitrary-scale models.")
    parser.add_argument("--at", type=int, nargs=2, default=(400, 800), help="Level-0 px.")
    parser.add_argument("--size", type=int, nargs=2, default=(320, 288), help="LR px.")
    parser.add_argument("--tile", type=int, help="Core in LR px, in place of the default.")
    parser.add_argument("--halo", type=int, help="Halo in LR px, in place of the default.")
    parser.add_argument("--pool", nargs="+", default=["local", "tile"])
    a = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, ",
        end="",
    )
    print(", ".join(f"{n} {version(n)}" for n in ("numpy", "torch")))
    print(HEADER)
    for name in a.model:
        for pool in a.pool:
            model = load(name, device="cpu", pool=pool)
            if pool != a.pool[0] and not model.pooling:
                continue
            scale = float(model.trained.scale or a.scale)
            width, height = a.size
            with open_slide(a.slide) as slide:
                lr = read_resampled(slide, 0, a.at, scale, (width, height))
                hr = slide.read_level(0, *a.at, round(width * scale), round(height * scale))
            frame = plan_frame(width, height, scale)
            plan = plan_tiles(model.needs, scale, a.tile, a.halo)
            tiled, tiled_s = render(model, frame, plan, lr)
            untiled, untiled_s = render(model, frame, WHOLE, lr)
            print(
                f"| {Path(name).name} | {model.pooling.split(' (')[0] or '-'} "
                f"| {plan.core_px / scale:g} + {plan.halo_px} + {plan.blend_px / scale:g} "
                f"| {differences(tiled.pixels, untiled.pixels)} "
                f"| {psnr(tiled.pixels, hr, crop=MARGIN_PX):.3f} "
                f"/ {psnr(untiled.pixels, hr, crop=MARGIN_PX):.3f} "
                f"| {seams(tiled, untiled.pixels, scale)} | {tiled_s:.1f} / {untiled_s:.1f} |",
                flush=True,
            )


def render(engine: Engine, frame: Frame, plan: Tiling, lr: UInt8Array) -> tuple[Rendered, float]:
    """One block that is the whole frame, and CPU seconds."""
    renderer = Renderer(engine=engine, frame=frame, plan=plan)
    box = Box(x=0, y=0, width=frame.lr_width_px, height=frame.lr_height_px)
    block = Box(x=0, y=0, width=frame.width_px, height=frame.height_px)
    started = time.process_time()
    rendered = renderer.render(block, PlanePixels(lr=lr, box=box))
    return rendered, time.process_time() - started


def differences(a: UInt8Array, b: UInt8Array) -> str:
    found = np.abs(a.astype(int) - b)
    return f"{found.max()}, {found.mean():.4f}"


def seams(tiled: Rendered, untiled: UInt8Array, scale: float) -> str:
    def at(pixels: UInt8Array, move_px: int) -> float:
        columns, rows = (
            [start + round(move_px * scale) for start in starts if start]
            for starts in (tiled.columns, tiled.rows)
        )
        return seam_energy(pixels, columns, rows, scale, tiled.source).ratio

    chance = np.std([at(untiled, move) for move in range(-14, 15)])
    return f"{at(tiled.pixels, 0):.3f} / {at(untiled, 0):.3f} ({chance:.3f})"


if __name__ == "__main__":
    main()
