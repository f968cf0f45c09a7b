"""The images on which the networks that ship do worst against bicubic, drawn. Run by hand.

    python weights/worst.py WORK docs/images/he-worst.png he-x4 he-any

`WORK` is that of `score.py`. Of sets whose licences allow their images to be shown (BreaKHis, DSB
2018), by LR made with `bicubic`: for each network the image and scale of the least gain, there the
field where it is farthest from HR against bicubic; what bicubic and the network make of it, HR, and
how far the network is from HR (grey levels; black is 0, pale yellow 16).
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import uniform_filter

from wsisr import open_pairs
from wsisr.degradation import degrade
from wsisr.drawing.sheets import SheetImage, heat, sheet
from wsisr.files import save_picture
from wsisr.inference import load, plan_tiles, super_resolve

SHOWN = ("dsb2018", "breakhis", "breakhis-by2")
SIDE_PX = 160
TOP = 16.0


def worst(work: Path, network: str) -> tuple[float, str, float, str, int]:
    """Gain in dB, set, scale, slide and row of the image of the least gain."""
    found = []
    for test in SHOWN:
        with (work / f"eval-{test}-bicubic" / "images.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        (psnr,) = {name for name in rows[0] if name.startswith("psnr_rgb")}
        by = {(r["run"], r["scale"], r["slide"], r["row"]): r[psnr] for r in rows}
        found += [
            (float(value) - float(by["bicubic", *key]), test, float(key[0]), key[1], int(key[2]))
            for (run, *key), value in by.items()
            if run == network and value
        ]
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("networks", nargs="+")
    options = parser.parse_args()
    rows, labels = [], []
    for network in options.networks:
        gain, test, scale, slide, row = worst(options.work, network)
        pairs = open_pairs(options.work / f"{test}.zarr")
        hr = pairs.read([(pairs.slide_index(slide), row)], "40x")[0]
        side = int(hr.shape[0] // scale * scale)
        hr = hr[:side, :side]
        lr = degrade(torch.from_numpy(hr.copy()).permute(2, 0, 1), "bicubic", scale)
        made = []
        for name in ("bicubic", network):
            engine = load(name, device="cpu")
            plan = plan_tiles(engine.needs, scale, None, None)
            sr = super_resolve(engine, lr.permute(1, 2, 0).numpy(), scale, plan)
            made.append(np.clip(np.rint(sr), 0, 255).astype(np.uint8))
        error = [((m.astype(float) - hr) ** 2).mean(2) for m in made]
        lost = uniform_filter(error[1] - error[0], SIDE_PX)
        inner = lost[SIDE_PX // 2 : -SIDE_PX // 2, SIDE_PX // 2 : -SIDE_PX // 2]
        y, x = np.unravel_index(inner.argmax(), inner.shape)
        cut = np.s_[y : y + SIDE_PX, x : x + SIDE_PX]
        distance = heat(np.sqrt(error[1]), TOP)
        shown = {"bicubic": made[0], network: made[1], "HR": hr, "distance": distance}
        rows.append([SheetImage(image=v[cut], text=k) for k, v in shown.items()])
        labels.append(f"{network}, {test}, x{scale:g}: {gain:+.2f} dB")
    save_picture(options.output, sheet(rows, labels=labels))


if __name__ == "__main__":
    main()
