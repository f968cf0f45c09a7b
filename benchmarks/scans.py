"""Two scans of one glass on exact truth: ratio, turn, mirroring, stripes, focus, stain, JPEG.

    python benchmarks/scans.py truth [--scene slide.svs] [--seeds 1]
    python benchmarks/scans.py calibration [--pairs 10] [--picture calibration.png]

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
from wsisr.registration import register_pair, register_scans
from wsisr.registration.showing import sample_pairs
from wsisr.testing.pairs import make_pair
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
SUITES = (
    ("A1", "subpixel"),
    ("B1", "subpixel"),
    ("B1", "affine"),
    ("L", "affine"),
    ("B2", "affine"),
    ("B3", "affine"),
)


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


def calibration(count: int, picture: Path | None) -> None:
    """Of pairs whose certificate says that they lie within t px, the share that does."""
    bounds, errors, origin = [], [], []
    for suite, method in SUITES:
        for lr_px, scale in ((64, 4), (96, 3), (128, 4), (160, 2), (256, 4)):
            for seed in range(500, 500 + count):
                case = make_pair(suite, seed, lr_px=lr_px, scale=scale)
                found = register_pair(case.lr, case.hr_region, case.scale, method)
                if found.accepted:
                    bounds.append(found.error)
                    errors.append(float(np.hypot(found.dx - case.dx, found.dy - case.dy)))
                    origin.append(f"{suite} {method}")
    bound, error, names = np.array(bounds), np.array(errors), np.array(origin)
    print(f"{len(bound)} accepted pairs that the calibration has not seen.\n")
    print("| called within | pairs | are |\n|---|---|---|")
    for limit in (0.05, 0.1, 0.2, 0.3, 0.5, 1.0):
        called = bound <= limit
        share = f"{np.mean(error[called] <= limit):.1%}" if called.any() else "-"
        print(f"| {limit} px | {called.sum()} | {share} |")
    print("\n| pairs of | n | within their own 95 % bound |\n|---|---|---|")
    for name in dict.fromkeys(origin):
        print(
            f"| {name} | {np.sum(names == name)} | {np.mean((error <= bound)[names == name]):.1%} |"
        )
    print(f"| all | {len(bound)} | {np.mean(error <= bound):.1%} |")
    if picture is not None:
        _draw(bound, error, picture)


def _draw(bound: np.ndarray, error: np.ndarray, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    wanted = np.linspace(0.02, 0.99, 60)
    # The bound at another probability, by Rayleigh's law.
    scaled = np.sqrt(np.log(1 - wanted) / np.log(1 - 0.95))
    seen = [np.mean(error <= factor * bound) for factor in scaled]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
    left.plot([0, 1], [0, 1], color="0.7")
    left.plot(wanted, seen)
    left.set(xlabel="probability that the certificate states", ylabel="share of pairs within it")
    right.loglog(bound, error, ".", markersize=3)
    right.loglog([0.005, 2], [0.005, 2], color="0.7")
    right.set(xlabel="95 % bound, HR px", ylabel="true error, HR px")
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def read_scene(path: Path) -> np.ndarray:
    from wsisr.slides import open_slide

    with open_slide(path) as slide:
        base = slide.info.levels[0]
        return slide.read_level(0, 0, 0, base.width_px, base.height_px).astype(np.float64)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["truth", "calibration"])
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.what == "calibration":
        calibration(options.pairs, options.picture)
    else:
        truth(read_scene(options.scene) if options.scene else None, options.seeds, options.only)
