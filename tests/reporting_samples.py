"""A training run's folder, as `wsisr.inference.trained` describes it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_run(folder: Path, *, rows: int = 5, **changes: Any) -> Path:
    """A run of an invented model with logs, samples and a card."""
    folder.mkdir(parents=True)
    document = {
        "format": "wsisr-run",
        "format_version": 1,
        "created_with": "wsisr 0.1.0",
        "model": "edsr",
        "preset": "tiny",
        "kind": "fixed",
        "scale": 4,
        "scale_range": [4.0, 4.0],
        "seed": 7,
        "state": "finished",
        "step": 500,
        "steps": 500,
        "lr_origin": "simulated:bicubic",
        "degradation": "bicubic",
        "store": {"path": "pairs.zarr", "digest": "d1", "manifest": "pathimgsr"},
        "arrays": {"hr": "40x", "lr": None},
        "origins": {"40x": "stored-level"},
        "patients": ["p1", "p2 <b>"],
        "groups": ["g1"],
        "pairs": {"train": 80, "val": 21},
        "parameters": 158979,
        "citation": "Lim et al.",
        "features": None,
        "config": {"train": {"steps": 500, "lr": 0.002}, "data": {"batch": 8}},
        "best": {"step": 400, "psnr": 28.4},
        "environment": {"device": "cpu", "packages": {"torch": "2.13.0"}},
        "command": "wsisr train --model edsr",
        "warnings": ["few <pairs>"],
        **changes,
    }
    (folder / "run.json").write_text(json.dumps(document))
    lines = [
        "step,loss,lr,samples_per_s,data_wait_ms,step_ms,grad_norm,memory_mib,skipped,perceptual"
    ]
    lines += [
        f"{100 * k},{1 / k:.4f},0.002,{80 + k},2,98,0.3,700,{k // 4},0.5"
        for k in range(1, rows + 1)
    ]
    (folder / "log.csv").write_text("\n".join([*lines, "600,0.1"]) + "\n")
    lines = ["step,psnr_rgb,psnr_y,ssim_rgb,bicubic_psnr_rgb,bicubic_psnr_y,scale"]
    lines += [f"{100 * k},{25 + k - (k == 5)},{27 + k},0.7,26,28,4" for k in range(rows + 1)]
    (folder / "validation.csv").write_text("\n".join(lines) + "\n")
    (folder / "card.md").write_text("# edsr x4\n\nNot for <diagnosis>.\n")
    (folder / "samples").mkdir()
    for step in (100, 300, 500):
        picture = np.random.default_rng(step).integers(0, 256, (40, 200, 3), np.uint8)
        Image.fromarray(picture).save(folder / "samples" / f"step-{step:08d}.png")
    return folder
