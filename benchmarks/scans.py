"""Two scans of one glass on exact truth: ratio, turn, mirroring, stripes, focus, stain, JPEG.

    python benchmarks/scans.py truth [--scene slide.svs] [--seeds 1]
    python benchmarks/scans.py calibration [--pairs 10] [--scene slide.svs] [--picture out.png]

Each case is registered as `wsisr register scans` does it; 24 of its patches are then registered
by themselves. Errors are distances from the truth in px of the fixed scan. A false accept is an
accepted patch that is off by more than a pixel, or any accepted patch of two different glasses.
"""

import argparse
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from wsisr.errors import RegistrationError
from wsisr.registration import register_pair, register_scans
from wsisr.registration.planes import register_planes
from wsisr.registration.showing import sample_pairs
from wsisr.reporting.charts import Series, chart
from wsisr.testing.pair_scenes import synthetic_tissue
from wsisr.testing.pairs import faded, make_pair, sensor
from wsisr.testing.rendering import Optics, jpeg, render, to_uint8
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
FIRST_SEED = 11_000
"""Of the calibration's pairs: none of them was used to set a number."""
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


@dataclass(frozen=True)
class Called:
    """Accepted pairs of one kind: what their certificates call and what is true, HR px."""

    name: str
    bound: list[float]
    error: list[float]


def pairs_called(count: int, scene: np.ndarray | None) -> list[Called]:
    found = []
    for suite, method in SUITES:
        kind = Called(f"{suite} {method}", [], [])
        for lr_px, scale in ((64, 4), (96, 3), (128, 4), (160, 2), (256, 4)):
            for seed in range(FIRST_SEED, FIRST_SEED + count):
                case = make_pair(suite, seed, lr_px=lr_px, scale=scale, scene=scene)
                match = register_pair(case.lr, case.hr_region, case.scale, method)
                if match.accepted:
                    kind.bound.append(match.error)
                    kind.error.append(float(np.hypot(match.dx - case.dx, match.dy - case.dy)))
        found.append(kind)
    return found


def planes_called(count: int, scene: np.ndarray | None) -> Called:
    """Focal planes at 0 to 3 um from the sharpest, each moved by up to 6 px."""
    kind = Called("focal planes", [], [])
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        rng = np.random.default_rng(seed)
        side = int(rng.choice([128, 192, 288]))
        whole = synthetic_tissue(side + 140, side + 140, seed) if scene is None else scene
        room = np.array(whole.shape[1::-1]) - side - 140
        corner = (rng.random(2) * (room + 1)).astype(int)
        tile = whole[corner[1] : corner[1] + side + 140, corner[0] : corner[0] + side + 140]
        centres = (side + 140) / 2 + rng.uniform(-6, 6, (4, 2))
        planes = []
        for centre, depth_um in zip(centres, (0.0, 1.0, 2.0, 3.0), strict=True):
            optics = Optics(na=0.75, defocus_um=depth_um, sigma_px=0.3)
            at = (float(centre[0]), float(centre[1]))
            image = sensor(render(faded(tile), np.eye(2), at, side, side, optics), rng)
            planes.append(jpeg(to_uint8(image), int(rng.integers(75, 96))))
        found = register_planes(planes)
        best = next(match.index for match in found if match.sharpest)
        for match in found:
            if match.certificate is not None and match.certificate.accepted:
                true = centres[match.index] - centres[best]
                kind.bound.append(match.certificate.error)
                kind.error.append(float(np.hypot(match.shift_x - true[0], match.shift_y - true[1])))
    return kind


def calibration(count: int, scenes: list[Path], picture: Path | None) -> None:
    """Of pairs whose certificate says that they lie within t px, the share that does."""
    kinds = []
    for path in (None, *scenes):
        scene = None if path is None else read_scene(path)
        where = "synthetic" if path is None else path.stem
        for kind in (*pairs_called(count, scene), planes_called(5 * count, scene)):
            kinds.append(replace(kind, name=f"{where}: {kind.name}"))
            print(f"{kinds[-1].name}: {len(kind.bound)}", flush=True)
    bound, error = (
        np.concatenate([getattr(kind, part) for kind in kinds]) for part in ("bound", "error")
    )
    print(f"\n{len(bound)} accepted pairs that the calibration has not seen.\n")
    print("| called within | pairs | are |\n|---|---|---|")
    for limit in (0.05, 0.1, 0.2, 0.3, 0.5, 1.0):
        called = bound <= limit
        share = f"{np.mean(error[called] <= limit):.1%}" if called.any() else "-"
        print(f"| {limit} px | {called.sum()} | {share} |")
    print("\n| pairs of | n | within their own 95 % bound | off by more than 1 px |")
    print("|---|---|---|---|")
    for kind in kinds:
        own, true = np.array(kind.bound), np.array(kind.error)
        within = f"{np.mean(true <= own):.1%}" if len(own) else "-"
        print(f"| {kind.name} | {len(own)} | {within} | {np.sum(true > 1)} |")
    print(f"| all | {len(bound)} | {np.mean(error <= bound):.1%} | {np.sum(error > 1)} |")
    if picture is not None:
        groups = {
            "synthetic tissue": [k for k in kinds if k.name.startswith("synthetic")],
            "real tissue": [k for k in kinds if not k.name.startswith("synthetic")],
            "focal planes": [k for k in kinds if k.name.endswith("focal planes")],
        }
        drawn = {
            name: (
                np.concatenate([kind.bound for kind in of]),
                np.concatenate([kind.error for kind in of]),
            )
            for name, of in groups.items()
            if of
        }
        draw_calibration(drawn, picture)


def draw_calibration(groups: dict[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Share of pairs within the bound of every probability; bounds and errors by group."""
    stated = np.linspace(0.02, 0.99, 60)
    # The bound at another probability, by Rayleigh's law.
    scaled = np.sqrt(np.log(1 - stated) / np.log(1 - 0.95))
    lines = [Series("as stated", stated.tolist(), stated.tolist())]
    for name, (bound, error) in groups.items():
        seen = [float(np.mean(error <= factor * bound)) for factor in scaled]
        lines.append(Series(f"{name} ({len(bound)})", stated.tolist(), seen))
    drawn = chart(
        lines,
        title="Certificates of pairs that the fit had not seen",
        x_label="probability that the certificate states",
        y_label="share of pairs within its bound",
    )
    drawn.save_png(path)


def read_scene(path: Path) -> np.ndarray:
    from wsisr.slides import open_slide

    with open_slide(path) as slide:
        base = slide.info.levels[0]
        return slide.read_level(0, 0, 0, base.width_px, base.height_px).astype(np.float64)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["truth", "calibration"])
    parser.add_argument("--scene", type=Path, action="append", default=[])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.what == "calibration":
        calibration(options.pairs, options.scene, options.picture)
    else:
        scene = read_scene(options.scene[0]) if options.scene else None
        truth(scene, options.seeds, options.only)
