"""Two scans of one glass on exact truth: ratio, turn, mirroring, stripes, focus, stain, JPEG.

    python benchmarks/scans.py truth [--scene slide.svs] [--seeds 1]

Each case is registered as `wsisr register scans` does it; 24 of its patches are then registered
by themselves. Errors are distances from the truth in px of the fixed scan. A false accept is an
accepted patch that is off by more than a pixel, or any accepted patch of two different glasses.
"""

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from wsisr.errors import RegistrationError
from wsisr.registration import register_scans
from wsisr.registration.showing import sample_pairs
from wsisr.testing.two_scans import ScanPair, ScanSpec, make_scans

STRIPES = {"jump_px": 3.0, "drift_px": 1.5}
CASES = {
    "1.0": ScanSpec(ratio=1.0, side_px=900, rotation_deg=1.7),
    "1.0 mirrored, stripes": ScanSpec(
        ratio=1.0, side_px=1100, rotation_deg=184, mirrored=True, stripe_px=400, **STRIPES
    ),
    "1.3, narrow stripes": ScanSpec(
        ratio=1.3, side_px=900, rotation_deg=-1.0, stripe_px=150, **STRIPES
    ),
    "1.3, drift": ScanSpec(ratio=1.3, side_px=900, rotation_deg=-3.0, drift_px=2.0),
    "1.52, turned 87, stripes": ScanSpec(
        ratio=1.52, side_px=1000, rotation_deg=87, stripe_px=400, **STRIPES
    ),
    "2, mirrored, focus tilt": ScanSpec(
        ratio=2.0, side_px=700, rotation_deg=12, mirrored=True, blur_px=(0.7, 5.0)
    ),
    "3.9, turned 33": ScanSpec(ratio=3.9, side_px=480, rotation_deg=33, drift_px=1.5),
    "4, all of it": ScanSpec(
        ratio=4.0,
        side_px=560,
        rotation_deg=-92,
        mirrored=True,
        blur_px=(0.7, 9.0),
        stripe_px=280,
        **STRIPES,
    ),
}
PATCHES = 24


def row(name: str, pair: ScanPair) -> tuple[str, int]:
    """One line of the truth table, and its false accepts."""
    start = time.process_time()
    try:
        found = register_scans(pair.moving, pair.fixed, spacing_um=130.0)
    except RegistrationError as error:
        return f"| {name} | refused: {error} |", 0
    seconds = time.process_time() - start
    nodes = found.positions[found.piece >= 0]
    field = np.linalg.norm(found.place(nodes) - pair.place(nodes), axis=1)
    samples = sample_pairs(found, pair.moving, pair.fixed, PATCHES)
    centres = np.array([[s.x + s.size_px / 2, s.y + s.size_px / 2] for s in samples])
    places = np.array([[s.fixed_x, s.fixed_y] for s in samples])
    off = np.linalg.norm(places - pair.place(centres), axis=1)
    accepted = np.array([s.counts for s in samples])
    false = int(np.sum(off[accepted] > 1.0))
    wrong = "" if found.mirrored == pair.spec.mirrored else " MIRROR WRONG"
    good = off[accepted] if accepted.any() else np.array([np.nan])
    return (
        f"| {name} | {found.scale:.4f} | {found.rotation_deg:.2f}{wrong} "
        f"| {np.median(field):.3f} / {np.percentile(field, 90):.3f} | {accepted.sum()}/{len(off)} "
        f"| {np.median(good):.3f} / {np.percentile(good, 95):.3f} / {good.max():.3f} "
        f"| {false} | {len(found.seams)} | {seconds:.0f} |"
    ), false


def wrong_glass(pair: ScanPair, other: ScanPair) -> tuple[int, int]:
    """Accepted and asked patches where the fixed scan is of another glass, at the true map."""
    found = register_scans(pair.moving, pair.fixed, spacing_um=130.0)
    samples = sample_pairs(found, pair.moving, other.fixed, PATCHES)
    return sum(s.certificate.accepted for s in samples), len(samples)


def truth(scene: np.ndarray | None, seeds: int, only: str | None) -> None:
    print(
        "| ratio | measured | turn | field median / p90 | patches | median / p95 / max | false |"
        " seams | CPU s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    false = wrong = asked = 0
    for name, spec in CASES.items():
        if only and only not in name:
            continue
        for seed in range(seeds):
            pair = make_scans(replace(spec, seed=seed), scene)
            line, count = row(name, pair)
            print(line, flush=True)
            false += count
    first, second = (make_scans(ScanSpec(ratio=2.0, side_px=500, seed=seed)) for seed in (90, 91))
    taken, of = wrong_glass(first, second)
    wrong, asked = wrong + taken, asked + of
    print(f"\nFalse accepts: {false}; of another glass {wrong} of {asked}.")


def read_scene(path: Path) -> np.ndarray:
    from wsisr.slides import open_slide

    with open_slide(path) as slide:
        base = slide.info.levels[0]
        return slide.read_level(0, 0, 0, base.width_px, base.height_px).astype(np.float64)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["truth"])
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only")
    options = parser.parse_args()
    truth(read_scene(options.scene) if options.scene else None, options.seeds, options.only)
