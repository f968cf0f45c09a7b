"""Megapixels of output a CPU second on one core, beside bicubic and EDSR's baseline. By hand.

    python weights/speed.py

The steps of `wsisr upscale` on a picture of 384 px in memory, in turn, three times; the best of
each. EDSR has the size that its paper calls baseline and fresh weights, which cost the same.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from wsisr.checkup.bench import machine
from wsisr.inference import load, plan_tiles, super_resolve
from wsisr.models import create_model, save_model

SIDE_PX = 384
TIMES = 3


def main() -> None:
    torch.set_num_threads(1)
    print(machine())
    lr = np.random.default_rng(0).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
    with tempfile.TemporaryDirectory() as scratch:
        for scale in (2, 4):
            edsr = save_model(create_model("edsr", scale=scale), Path(scratch, f"edsr-x{scale}"))
            names = {"bicubic": "bicubic", "he-any": "he-any", "EDSR baseline": str(edsr)}
            if scale == 4:
                names["he-x4"] = "he-x4"
            engines = {name: load(text, device="cpu") for name, text in names.items()}
            best = dict.fromkeys(names, float("inf"))
            for _ in range(TIMES):
                for name, engine in engines.items():
                    plan = plan_tiles(engine.needs, scale, None, None)
                    start = time.process_time()
                    super_resolve(engine, lr, scale, plan)
                    best[name] = min(best[name], time.process_time() - start)
            megapixels = (SIDE_PX * scale) ** 2 / 1e6
            for name, seconds in best.items():
                print(f"x{scale} {name}: {megapixels / seconds:.3g} Mpx a CPU second")


if __name__ == "__main__":
    main()
