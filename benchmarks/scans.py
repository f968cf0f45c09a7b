"""Two scans of one glass on exact truth: ratio, turn, mirroring, stripes, focus, stain, JPEG.

    python benchmarks/scans.py truth [--scene slide.svs] [--seeds 1]
    python benchmarks/scans.py calibration [--pairs 10] [--scene slide.svs] [--rows rows.jsonl]
        [--picture out.png]

Each case is registered as `wsisr register scans` does it; 24 of its patches are then registered
by themselves. Errors are distances from the truth in px of the fixed scan. A false accept is an
accepted patch that is off by more than a pixel, or any accepted patch of two different glasses.
The calibration appends every pair to `--rows` and goes on from there when it is started again.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from scipy.stats import binomtest

from wsisr.drawing import ChartSeries, chart
from wsisr.errors import RegistrationError
from wsisr.registration import register_pair, register_scans
from wsisr.registration.planes import register_planes
from wsisr.registration.presentation import sample_pairs
from wsisr.testing.pair_scenes import synthetic_tissue
from wsisr.testing.pairs import make_pair, scene_px, sensor
from wsisr.testing.rendering import FieldOfView, Objective, faded, jpeg, render, to_uint8
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
FIRST_SEED = 12_000
"""Of the calibration's pairs: none of them was used to set a number."""
SIZES = ((64, 4), (96, 3), (128, 4), (160, 2), (128, 1), (256, 4))
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


class Rows:
    """Accepted and refused pairs, one JSON line each; those of an earlier run are not repeated."""

    def __init__(self, path: Path | None) -> None:
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self.rows = [json.loads(line) for line in lines]
        self._known = {tuple(row["key"]) for row in self.rows}
        self._path = path

    def has(self, *key: str | int) -> bool:
        return key in self._known

    def add(self, key: tuple[str | int, ...], accepted: bool, bound: float, error: float) -> None:
        row = {"key": key, "accepted": accepted, "bound": bound, "error": error}
        self.rows.append(row)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")


def pairs_called(rows: Rows, where: str, seed: int, scene: np.ndarray | None) -> None:
    for (suite, method), (lr_px, scale) in product(SUITES, SIZES):
        key = (where, f"{suite} {method}", lr_px, scale, seed)
        room = np.inf if scene is None else min(scene.shape[:2])
        if rows.has(*key) or room < scene_px(lr_px, scale):
            continue
        case = make_pair(suite, seed, lr_px=lr_px, scale=scale, scene=scene)
        # Levels of one scan are measured in the colours that they have.
        match = register_pair(
            case.lr, case.hr_region, case.scale, method, match_colours=suite != "A1"
        )
        off = float(np.hypot(match.dx - case.dx, match.dy - case.dy))
        rows.add(key, match.accepted, match.error, off)


def planes_called(rows: Rows, where: str, seed: int, scene: np.ndarray | None) -> None:
    """Focal planes at 0 to 3 um from the sharpest, each moved by up to 6 px."""
    rng = np.random.default_rng(seed)
    side = int(rng.choice([128, 192, 288]))
    if rows.has(where, "focal planes", 0, side, seed):
        return
    whole = synthetic_tissue(side + 140, side + 140, seed) if scene is None else scene
    room = np.array(whole.shape[1::-1]) - side - 140
    corner = (rng.random(2) * (room + 1)).astype(int)
    tile = whole[corner[1] : corner[1] + side + 140, corner[0] : corner[0] + side + 140]
    centres = (side + 140) / 2 + rng.uniform(-6, 6, (4, 2))
    planes = []
    for centre, depth_um in zip(centres, (0.0, 1.0, 2.0, 3.0), strict=True):
        optics = Objective(na=0.75, defocus_um=depth_um, sigma_px=0.3)
        at = (float(centre[0]), float(centre[1]))
        view = FieldOfView(linear=np.eye(2), centre=at, side_px=side)
        image = sensor(render(faded(tile), view, optics), rng)
        planes.append(jpeg(to_uint8(image), int(rng.integers(75, 96))))
    found = register_planes(planes)
    best = next(match.index for match in found if match.sharpest)
    for match in found:
        if match.certificate is not None:
            true = centres[match.index] - centres[best]
            off = float(np.hypot(match.shift_x - true[0], match.shift_y - true[1]))
            key = (where, "focal planes", match.index, side, seed)
            rows.add(key, match.certificate.accepted, match.certificate.error, off)
    rows.add((where, "focal planes", 0, side, seed), False, 0.0, 0.0)  # all of this seed are done


def calibration(count: int, scenes: list[Path], path: Path | None, picture: Path | None) -> None:
    """Of pairs whose certificate says that they lie within t px, the share that does."""
    rows = Rows(path)
    known = {"synthetic": None} | {scene.stem: read_scene(scene) for scene in scenes}
    # Seed by seed, so that a run that ends early is as mixed as a whole one.
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        for where, scene in known.items():
            pairs_called(rows, where, seed, scene)
            for part in range(5):
                planes_called(rows, where, seed + 100_000 * part, scene)
        print(f"seed {seed}: {sum(row['accepted'] for row in rows.rows)} accepted", flush=True)
    kinds: dict[str, list[tuple[float, float]]] = {}
    for row in rows.rows:
        if row["accepted"]:
            where, kind = row["key"][:2]
            kinds.setdefault(f"{where}: {kind}", []).append((row["bound"], row["error"]))
    called = {name: np.array(kinds[name]).T for name in sorted(kinds)}
    bound, error = np.concatenate(list(called.values()), axis=1)
    print(f"\n{len(bound)} accepted pairs that the calibration has not seen.\n")
    print("| called within | pairs | are |\n|---|---|---|")
    for limit in (0.05, 0.1, 0.2, 0.3, 0.5, 1.0):
        which = bound <= limit
        print(f"| {limit} px | {which.sum()} | {held(error[which] <= limit)} |")
    print("\n| pairs of | n | error median / p95 | bound median | held (95 % interval) | > 1 px |")
    print("|---|---|---|---|---|---|")
    groups = {
        **called,
        "real tissue": _together(called, lambda name: not name.startswith("synthetic")),
        "synthetic tissue": _together(called, lambda name: name.startswith("synthetic")),
        "focal planes": _together(called, lambda name: name.endswith("planes")),
        "all": np.array([bound, error]),
    }
    for name, (own, true) in groups.items():
        if len(own):
            print(
                f"| {name} | {len(own)} | {np.median(true):.3f} / {np.percentile(true, 95):.3f} "
                f"| {np.median(own):.3f} | {held(true <= own)} | {np.sum(true > 1)} |"
            )
    if picture is not None:
        shown = ("synthetic tissue", "real tissue", "focal planes")
        draw_calibration({name: groups[name] for name in shown if len(groups[name][0])}, picture)


def _together(called: dict[str, np.ndarray], which: Callable[[str], bool]) -> np.ndarray:
    return np.concatenate([np.empty((2, 0)), *(v for k, v in called.items() if which(k))], axis=1)


def held(within: np.ndarray) -> str:
    """Share of true values, and Wilson's 95 % interval."""
    if not len(within):
        return "-"
    interval = binomtest(int(within.sum()), len(within)).proportion_ci(method="wilson")
    return f"{within.mean():.1%} ({interval.low:.1%} to {interval.high:.1%})"


def draw_calibration(groups: dict[str, np.ndarray], path: Path) -> None:
    """Share of pairs within the bound of every probability; bounds and errors by group."""
    stated = np.linspace(0.02, 0.99, 60)
    # The bound at another probability, by Rayleigh's law.
    scaled = np.sqrt(np.log(1 - stated) / np.log(1 - 0.95))
    lines = [ChartSeries("as stated", stated.tolist(), stated.tolist())]
    for name, (bound, error) in groups.items():
        seen = [float(np.mean(error <= factor * bound)) for factor in scaled]
        lines.append(ChartSeries(f"{name} ({len(bound)})", stated.tolist(), seen))
    drawn = chart(
        lines,
        title="Certificates of pairs that the fit had not seen",
        x_label="probability that the certificate states",
        y_label="share of pairs within its bound",
    )
    drawn.save(path)


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
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.what == "calibration":
        calibration(options.pairs, options.scene, options.rows, options.picture)
    else:
        scene = read_scene(options.scene[0]) if options.scene else None
        truth(scene, options.seeds, options.only)
