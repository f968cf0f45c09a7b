"""Two scans of one glass with what else goes wrong between real ones: pen, bubbles, lost tissue.

    python benchmarks/scans_siblings.py [--scene slide.svs] [--only pen]

16 patches of each are registered by themselves; errors are distances from the truth in px of the
fixed scan. A false accept is an accepted patch that is off by more than a pixel.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import numpy as np
from scans import read_scene

from wsisr.errors import RegistrationError
from wsisr.registration import register_scans
from wsisr.registration.presentation import sample_pairs
from wsisr.testing.rendering import jpeg, to_uint8
from wsisr.testing.two_scans import MemorySlide, ScanPair, ScanSpec, make_scans


def _blurred(image: np.ndarray, sigma_px: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma_px)


def _discs(image: np.ndarray, count: int, radius: int, value: tuple[int, ...]) -> np.ndarray:
    """Bubbles, or blots of a pen where they are dark."""
    rng, out = np.random.default_rng(count), image.copy()
    for x, y in rng.integers(0, min(image.shape[:2]), (count, 2)).tolist():
        cv2.circle(out, (x, y), radius, value, -1)
        cv2.circle(out, (x, y), radius, (90, 90, 100), 3)
    return out


def _lost(image: np.ndarray) -> np.ndarray:
    out = image.copy()
    out[:, : 3 * image.shape[1] // 5] = 238
    return out


def _half_other(image: np.ndarray) -> np.ndarray:
    out = image.copy()
    half = image.shape[1] // 2
    out[:, :half] = np.rot90(image, 2)[:, :half]
    return out


def _part(image: np.ndarray, left: float, top: float, right: float, bottom: float) -> np.ndarray:
    height, width = image.shape[:2]
    return image[int(top * height) : int(bottom * height), int(left * width) : int(right * width)]


def _corner(image: np.ndarray, left: float, top: float) -> np.ndarray:
    return np.array([int(left * image.shape[1]), int(top * image.shape[0])], float)


Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
NOWHERE = np.zeros(2)
SIBLING = ScanSpec(rotation_deg=3.0, drift_px=1.0)
WRONG_RESOLUTION = {"resolution stated 2.8 % wrong": 1.028, "resolution stated 8 % wrong": 1.08}
CHANGES: dict[str, Change] = {
    "JPEG 30 on both": lambda m, f: (jpeg(m, 30), jpeg(f, 30), NOWHERE),
    "stain faded to a fifth": lambda m, f: (to_uint8(240 + (m - 240.0) / 5), f, NOWHERE),
    "another white": lambda m, f: (to_uint8(m * np.array([0.8, 0.86, 0.9])), f, NOWHERE),
    "bubbles": lambda m, f: (_discs(m, 9, 40, (240, 240, 240)), f, NOWHERE),
    "pen on both": lambda m, f: (
        _discs(m, 5, 45, (20, 30, 60)),
        _discs(f, 6, 80, (20, 30, 60)),
        NOWHERE,
    ),
    "tissue lost on the moving scan": lambda m, f: (_lost(m), f, NOWHERE),
    "tissue lost on the fixed scan": lambda m, f: (m, _lost(f), NOWHERE),
    "a fixed scan of a quarter": lambda m, f: (
        m,
        _part(f, 0.3, 0.25, 0.8, 0.75),
        _corner(f, 0.3, 0.25),
    ),
    "half an overlap": lambda m, f: (m, _part(f, 0.5, 0.0, 1.0, 1.0), _corner(f, 0.5, 0.0)),
    "half the fixed scan of another glass": lambda m, f: (m, _half_other(f), NOWHERE),
    **{name: lambda m, f: (m, f, NOWHERE) for name in WRONG_RESOLUTION},
    **{
        f"blur of {sigma} px on the moving scan": lambda m, f, s=sigma: (_blurred(m, s), f, NOWHERE)
        for sigma in (1.5, 2.5, 4.0)
    },
    **{
        f"blur of {sigma} moving px on the fixed scan": lambda m, f, s=sigma: (
            m,
            _blurred(f, s * f.shape[0] / m.shape[0]),
            NOWHERE,
        )
        for sigma in (1.5, 2.5, 4.0)
    },
}


def siblings(scene: np.ndarray | None, only: str | None) -> None:
    """What else two real scans may differ in, on both ratios; the truth stays exact."""
    false = 0
    print("| sibling | ratio | one glass | patches | median / max | false |")
    print("|---|---|---|---|---|---|")
    for ratio, side in ((2.0, 560), (1.0, 760)):
        specs = {f"turned {turn}": {"rotation_deg": turn} for turn in (0, 90, 180, 270)}
        specs |= {f"mirrored, {name}": {**more, "mirrored": True} for name, more in specs.items()}
        pairs = {name: (replace(SIBLING, **more), None) for name, more in specs.items()}
        pairs |= {name: (SIBLING, change) for name, change in CHANGES.items()}
        for name, (spec, change) in pairs.items():
            if only and only not in name:
                continue
            pair = make_scans(replace(spec, ratio=ratio, side_px=side), scene)
            away = np.zeros(2)
            if change is not None:
                moving, fixed, away = change(pair.moving.image, pair.fixed.image)
                stated = pair.moving.info.mpp.value * WRONG_RESOLUTION.get(name, 1.0)
                pair = replace(
                    pair,
                    moving=MemorySlide(np.ascontiguousarray(moving), stated),
                    fixed=MemorySlide(np.ascontiguousarray(fixed), pair.fixed.info.mpp.value),
                )
            line, count = sibling(f"| {name} | {ratio:g} ", pair, away)
            print(line, flush=True)
            false += count
    print(f"\nFalse accepts: {false}.")


def sibling(begin: str, pair: ScanPair, away: np.ndarray) -> tuple[str, int]:
    """One line, and how many patches are accepted that lie more than a pixel off."""
    try:
        found = register_scans(pair.moving, pair.fixed, spacing_um=130.0)
    except RegistrationError as error:
        return f"{begin}| refused: {str(error)[:60]} | | | 0 |", 0
    if not found.same_glass:
        return f"{begin}| no: {found.reason[:60]} | | | 0 |", 0
    samples = [s for s in sample_pairs(found, pair.moving, pair.fixed, 16) if s.counts]
    centres = np.array([[s.x + s.size_px / 2, s.y + s.size_px / 2] for s in samples]).reshape(-1, 2)
    places = np.array([[s.fixed_x, s.fixed_y] for s in samples]).reshape(-1, 2)
    off = np.linalg.norm(places + away - pair.place(centres), axis=1)
    shown = f"{np.median(off):.3f} / {off.max():.3f}" if len(off) else "-"
    return f"{begin}| yes | {len(off)}/16 | {shown} | {np.sum(off > 1)} |", int(np.sum(off > 1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--only")
    options = parser.parse_args()
    siblings(None if options.scene is None else read_scene(options.scene), options.only)
