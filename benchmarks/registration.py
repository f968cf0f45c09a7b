"""Accuracy and cost of registration on exact truth, beside what others use. Run by hand.

    python benchmarks/registration.py [--pairs 24] [--scene slide.tif|synthetic] [--fast]

Every method sees the same pairs. Errors are distances of the patch's centre from the truth in
HR px; LR patches of 256 px in regions of 1050 px unless --lr-px says otherwise. The scene can
be any image of 1200 px a side or more; without one, synthetic tissue is used.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import numpy as np
import scipy
import skimage
from PIL import Image
from skimage.registration import phase_cross_correlation

from wsisr.registration import correlation as corr
from wsisr.registration import register_pair
from wsisr.registration.correlation import coarse_offset, integer_ncc_offset
from wsisr.testing.pairs import SUITES, PairCase, make_pair, scene_px
from wsisr.testing.registration_suite import (
    REQUIREMENTS,
    Registrar,
    RegistrationAnswer,
    SuiteResult,
    error_px,
    make_overviews,
    orientations_right,
    overview_error_px,
    wsisr_registrar,
)

Images = np.ndarray


def paper_integer(lr: Images, hr: Images, scale: int) -> RegistrationAnswer:
    """Bicubic enlargement, TM_CCOEFF_NORMED, argmax (PathImgSR): no verdict of its own."""
    x, y, _ = integer_ncc_offset(corr.grey(lr), corr.grey(hr), scale)
    return RegistrationAnswer(dx=float(x), dy=float(y), accepted=True)


def skimage_default(lr: Images, hr: Images, scale: int) -> RegistrationAnswer:
    """phase_cross_correlation with its defaults, on the HR grid, LR enlarged bicubically."""
    x, y, _ = integer_ncc_offset(corr.grey(lr), corr.grey(hr), scale)
    size = (lr.shape[1] * scale, lr.shape[0] * scale)
    big = cv2.resize(corr.grey(lr), size, interpolation=cv2.INTER_CUBIC)
    crop = corr.grey(hr)[y : y + size[1], x : x + size[0]]
    shift, _, _ = phase_cross_correlation(crop, big, upsample_factor=100)
    return RegistrationAnswer(dx=x + float(shift[1]), dy=y + float(shift[0]), accepted=True)


def _lr_grid(lr: Images, hr: Images, scale: int) -> tuple[int, int, Images, Images]:
    first, region = corr.grey(lr), corr.grey(hr)
    x, y = coarse_offset(first, region, scale)
    return x, y, first, corr.box_reduce_at(region, x, y, first.shape[1], first.shape[0], scale)


def opencv_phase(lr: Images, hr: Images, scale: int) -> RegistrationAnswer:
    """cv2.phaseCorrelate with a Hann window, on the LR grid."""
    x, y, first, reduced = _lr_grid(lr, hr, scale)
    window = cv2.createHanningWindow(first.shape[::-1], cv2.CV_64F)
    shift, _ = cv2.phaseCorrelate(first.astype(np.float64), reduced.astype(np.float64), window)
    return RegistrationAnswer(dx=x + scale * shift[0], dy=y + scale * shift[1], accepted=True)


def skimage_whitened(lr: Images, hr: Images, scale: int) -> RegistrationAnswer:
    """LoG, Hann and phase_cross_correlation(normalization=None, upsample_factor=400), LR grid."""
    x, y, first, reduced = _lr_grid(lr, hr, scale)
    window = corr.hann(*first.shape)
    a, b = (corr.laplacian_of_gaussian(image) * window for image in (first, reduced))
    shift, _, _ = phase_cross_correlation(b, a, normalization=None, upsample_factor=400)
    return RegistrationAnswer(
        dx=x + scale * float(shift[1]), dy=y + scale * float(shift[0]), accepted=True
    )


def sift_median(lr: Images, hr: Images, scale: int) -> RegistrationAnswer:
    """SIFT with OpenCV's defaults, ratio test 0.8, median shift of the matches."""
    size = (lr.shape[1] * scale, lr.shape[0] * scale)
    big = cv2.resize(lr, size, interpolation=cv2.INTER_CUBIC)
    sift = cv2.SIFT_create()
    grey = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (big, hr))
    (first, da), (second, db) = (sift.detectAndCompute(image, None) for image in grey)
    if da is None or db is None or len(second) < 2:
        return RegistrationAnswer(dx=0.0, dy=0.0, accepted=False)
    pairs = cv2.BFMatcher().knnMatch(da, db, k=2)
    moves = [
        np.subtract(second[m.trainIdx].pt, first[m.queryIdx].pt)
        for m, n in pairs
        if m.distance < 0.8 * n.distance
    ]
    if not moves:
        return RegistrationAnswer(dx=0.0, dy=0.0, accepted=False)
    dx, dy = np.median(moves, axis=0)
    return RegistrationAnswer(dx=float(dx), dy=float(dy), accepted=True)


METHODS: dict[str, Registrar] = {
    "paper: integer NCC": paper_integer,
    "scikit-image default (phase)": skimage_default,
    "cv2.phaseCorrelate": opencv_phase,
    "scikit-image, LoG, no normalisation": skimage_whitened,
    "wsisr ncc-integer (dx, dy)": wsisr_registrar("ncc-integer"),
    "wsisr subpixel": wsisr_registrar("subpixel"),
    "wsisr affine": wsisr_registrar("affine"),
}


def measure(register: Registrar, cases: list[PairCase]) -> tuple[SuiteResult, float]:
    errors, accepted, seconds = [], [], []
    for case in cases:
        start = time.process_time()
        answer = register(case.lr, case.hr_region, case.scale)
        seconds.append(time.process_time() - start)
        errors.append(error_px(case, answer))
        accepted.append(answer.accepted)
    result = SuiteResult(
        suite=cases[0].suite, errors_px=np.array(errors), accepted=np.array(accepted)
    )
    return result, float(np.median(seconds))


def load_scene(name: str, lr_px: int) -> np.ndarray | None:
    """RGB float scene, mirrored at its borders where it is a little too small."""
    if name == "synthetic":
        return None
    path = Path(name)
    if path.suffix.lower() in {".svs", ".tif", ".tiff", ".ndpi"}:
        from wsisr.slides import open_slide

        with open_slide(path) as slide:
            base = slide.info.levels[0]
            side_x, side_y = min(4096, base.width_px), min(4096, base.height_px)
            left, top = (base.width_px - side_x) // 2, (base.height_px - side_y) // 2
            image = slide.read_level(0, left, top, side_x, side_y)
    else:
        image = np.asarray(Image.open(path).convert("RGB"))
    lacking = [max(0, scene_px(lr_px) - size) for size in image.shape[:2]]
    pads = [(part // 2 + 8, part - part // 2 + 8) if part else (0, 0) for part in lacking]
    return np.pad(image, [*pads, (0, 0)], mode="symmetric").astype(np.float64)


def table(suites: list[str], cases_of: Callable[[str], list[PairCase]], sift: bool) -> None:
    methods = dict(METHODS)
    if sift:
        methods["SIFT, median shift"] = sift_median
    for suite in suites:
        cases = cases_of(suite)
        print(f"\n{suite}: {SUITES[suite]} (n = {len(cases)})")
        print(f"  {'method':38}{'median':>8}{'p95':>8}{'max':>8}{'accepted':>10}{'CPU s':>8}")
        for name, register in methods.items():
            if name == "wsisr affine" and suite in ("A0", "A1", "L"):
                continue
            result, seconds = measure(register, cases)
            median, high, top = np.percentile(result.errors_px, [50, 95, 100])
            verdict = f"{result.accepted.mean():.0%}" if name.startswith("wsisr") else "-"
            print(f"  {name:38}{median:8.3f}{high:8.3f}{top:8.3f}{verdict:>10}{seconds:8.3f}")
            ours = "wsisr affine" if suite in ("B2", "B3") else "wsisr subpixel"
            if name == ours:
                print(f"  {'':38}{'; '.join(result.faults()) or 'meets its requirement'}")


def wrong_pairs(cases_of: Callable[[str], list[PairCase]]) -> None:
    print("\nfalse accepts, and the plain NCC that such pairs reach")
    for suite in ("W", "N", "P"):
        cases = cases_of(suite)
        for method in ("subpixel", "ncc-integer", "affine"):
            found = [register_pair(c.lr, c.hr_region, c.scale, method) for c in cases]
            wrong = sum(f.accepted for f in found)
            print(
                f"  {suite} {method:12} {wrong} of {len(cases)} accepted; largest NCC "
                f"{max(f.ncc for f in found):.2f}, band NCC {max(f.ncc_band for f in found):.2f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--lr-px", type=int, default=256)
    parser.add_argument("--scene", action="append", default=None)
    parser.add_argument("--suites", default="A0,A1,B1,L,B2,B3")
    parser.add_argument("--fast", action="store_true", help="Leave out SIFT and overviews.")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"numpy {np.__version__}, scipy {scipy.__version__}, OpenCV {cv2.__version__}, "
        f"scikit-image {skimage.__version__}; one thread"
    )
    for name in arguments.scene or ["synthetic"]:
        scene = load_scene(name, arguments.lr_px)
        print(f"\n=== scene: {Path(name).name}, LR {arguments.lr_px} px ===")

        def cases_of(suite: str, scene: np.ndarray | None = scene) -> list[PairCase]:
            return [
                make_pair(suite, seed, scene=scene, lr_px=arguments.lr_px)
                for seed in range(arguments.pairs)
            ]

        table(arguments.suites.split(","), cases_of, sift=not arguments.fast)
        wrong_pairs(cases_of)
    right = orientations_right(16, lr_px=128)
    print(f"\nC: flips and turns right in {sum(right)} of {len(right)}")
    if not arguments.fast:
        found = [overview_error_px(make_overviews(seed)) for seed in range(10)]
        rms = np.array([value for value, _ in found])
        print(
            f"G: overviews of 900 px: rms median {np.median(rms):.3f}, max {rms.max():.3f} px, "
            f"mirror right in {sum(right for _, right in found)} of {len(found)}"
        )
    missing = set(REQUIREMENTS) - set(SUITES)
    assert not missing, missing


if __name__ == "__main__":
    main()
