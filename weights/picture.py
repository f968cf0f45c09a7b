"""README's picture: a slide before, after, as it is, and where not to trust it. By hand.

    python weights/picture.py SLIDE docs/images/sharper.png --at 900,1300

Runs `wsisr upscale SLIDE --from 10x --model auto --audit` on a slide of 20x and lays side by side,
around a place (level-0 px): 10x enlarged by bicubic; what the network made of it; the slide's own
20x; the map of what contradicts the input (dark: as much as anything on this slide).
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image, ImageDraw

from wsisr import open_slide
from wsisr.degradation import degrade

SIDE_PX = 160
PANEL_PX = 360
GAP_PX = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("slide", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--at", required=True, help="x,y in level-0 px")
    parser.add_argument("--work", type=Path, help="a folder that keeps the whole output")
    options = parser.parse_args()
    x, y = (int(part) // 2 * 2 for part in options.at.split(","))
    work = options.work or Path(tempfile.mkdtemp())
    made = work / "sharper.ome.tiff"
    if not made.exists():
        command = [
            sys.executable,
            "-m",
            "wsisr_cli",
            "upscale",
            str(options.slide),
            "--from",
            "10x",
        ]
        subprocess.run([*command, "--model", "auto", "-o", str(made), "--audit"], check=True)
    maps = next(work.rglob("map.ome.tiff"))
    with open_slide(options.slide) as slide, open_slide(made) as sharper:
        own = slide.read_level(0, x, y, SIDE_PX, SIDE_PX)
        after = sharper.read_level(0, 2 * x, 2 * y, 2 * SIDE_PX, 2 * SIDE_PX)
        before = degrade(torch.from_numpy(own).permute(2, 0, 1), "area", 2).permute(1, 2, 0).numpy()
        width = slide.info.levels[0].width_px
    with tifffile.TiffFile(maps) as file:
        whole = file.series[0].asarray()[0].astype(np.float32)
    top, left, span = (round(v * whole.shape[1] / width) for v in (y, x, SIDE_PX))
    worst = max(float(np.nanpercentile(whole, 99.9)), 1e-6)
    part = np.nan_to_num(whole[top : top + span, left : left + span]) / worst
    grey = (255 - np.clip(part, 0, 1) * 255).astype(np.uint8)
    kinds = (Image.Resampling.BICUBIC,) * 3 + (Image.Resampling.NEAREST,)
    sheet = Image.new("RGB", (4 * PANEL_PX + 3 * GAP_PX, PANEL_PX), "white")
    for number, (panel, kind) in enumerate(zip((before, after, own, grey), kinds, strict=True)):
        shown = Image.fromarray(panel).convert("RGB").resize((PANEL_PX, PANEL_PX), kind)
        sheet.paste(shown, (number * (PANEL_PX + GAP_PX), 0))
    left_px = 3 * (PANEL_PX + GAP_PX)
    edge = (left_px, 0, left_px + PANEL_PX - 1, PANEL_PX - 1)
    ImageDraw.Draw(sheet).rectangle(edge, outline="#999")
    sheet.save(options.output, optimize=True)


if __name__ == "__main__":
    main()
