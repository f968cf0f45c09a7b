"""Degradations: distance to the oracles, kernel recovery, ranking of simulators, throughput.

    python benchmarks/degradation.py [PART ...] [--scene PNG ...]

Parts: oracles, kernels, ranking, second-scan, throughput; all by default.

Scenes are HR images (40x H&E of at least 640 px); generated tissue without them. `second-scan`
needs the folder `registration/second_scan_cmu` and the slide beside it (--data).
"""

import argparse
import json
import platform
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import skimage
import skimage.data
import torch
from PIL import Image
from scipy import ndimage

from wsisr.degradation import degrade, resize
from wsisr.degradation.fitting import fit_degradation
from wsisr.degradation.scanner_pairs import FitSettings, RealPair
from wsisr.device import choose_device, on_gpu, synchronise
from wsisr.metrics import psnr
from wsisr.slides.opening import read_whole
from wsisr.testing.degradations import make_scanner, scan

THROUGHPUT = ("bicubic", "iste", "optics", "optics:10x", "realesrgan2:mild", "realesrgan2")


def oracles(_: argparse.Namespace) -> None:
    """Table of spec 2.5: LRs against ours in float64, and the bicubic baseline that follows."""
    image = skimage.data.immunohistochemistry()
    planes = torch.as_tensor(image.copy()).permute(2, 0, 1)
    print(
        "| operator | " + " | ".join(f"x{s}: PSNR to MATLAB; bicubic up" for s in (2, 4, 8)) + " |"
    )
    print("|---|---|---|---|")
    rows: dict[str, list[str]] = {}
    for scale in (2, 4, 8):
        side = 512 // scale
        matlab = resize(planes.double(), (side, side)).permute(1, 2, 0).numpy()
        aa = torch.nn.functional.interpolate(
            planes[None].double(), (side, side), mode="bicubic", antialias=True
        )
        made = {
            "ours, matlab, uint8": resize(planes, (side, side)).permute(1, 2, 0).numpy(),
            "ours, pil": resize(planes, (side, side), kernel="pil").permute(1, 2, 0).numpy(),
            "Pillow": np.asarray(Image.fromarray(image).resize((side, side), Image.BICUBIC)),
            "torch antialias": aa[0].permute(1, 2, 0).numpy(),
            "ours, area": resize(planes, (side, side), kernel="area").permute(1, 2, 0).numpy(),
            "cv2 AREA": cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA),
            "cv2 CUBIC": cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC),
        }
        inner = slice(4, -4)
        for name, lr in made.items():
            error = (lr.astype(float) - matlab)[inner, inner]
            alike = 10 * np.log10(255**2 / max(float((error**2).mean()), 1e-12))
            up = resize(torch.as_tensor(lr.copy()).permute(2, 0, 1).double(), (512, 512))
            score = psnr((up / 255).clamp(0, 1), planes)
            rows.setdefault(name, []).append(f"{alike:.1f}; {score:.3f}")
    for name, cells in rows.items():
        print(f"| {name} | " + " | ".join(cells) + " |")


def kernels(arguments: argparse.Namespace) -> None:
    """Recovery of clean kernels: relative L2 (green), centroid error, gain over bicubic."""
    results = []
    for seed in range(arguments.scanners):
        truth = make_scanner(seed, clean=True)
        start = time.process_time()
        profile = fit_degradation(
            scan(truth, 6, seed, lr_px=128, scenes=arguments.scenes), name=f"clean-{seed}"
        )
        cpu = time.process_time() - start
        true, taps = truth.kernel(FitSettings().half_px)[1], profile.kernel()[-2:][0]
        relative = np.linalg.norm(taps - true) / np.linalg.norm(true)
        report = profile.report
        centroid = np.hypot(report.centroid_x_px, report.centroid_y_px)
        results.append((relative, centroid, report.gain_db))
        print(
            f"scanner {seed}: relative L2 {relative:.3f}, centroid {centroid:.3f} px, "
            f"{report.psnr_db['fitted']:.2f} dB, bicubic {report.psnr_db['bicubic']:.2f} dB, "
            f"{cpu:.0f} CPU s"
        )
    middle = np.median(results, axis=0)
    print(f"median: L2 {middle[0]:.3f}, centroid {middle[1]:.3f} px, {middle[2]:+.2f} dB")


def ranking(arguments: argparse.Namespace) -> None:
    """Held-out prediction of hidden scanners with noise, stain, gamma and JPEG."""
    gains = []
    for seed in range(arguments.scanners):
        truth = make_scanner(seed)
        pairs = scan(truth, 9, seed, lr_px=128, scenes=arguments.scenes)
        quiet = scan(replace(truth, full_well_e=0.0), 9, seed, lr_px=128, scenes=arguments.scenes)
        ceiling = np.mean([psnr(q.lr, p.lr, crop=16) for q, p in zip(quiet, pairs, strict=True)])
        profile = fit_degradation(pairs, name=f"scanner-{seed}")
        noise = (200 * 255 / truth.full_well_e + truth.read_levels**2) ** 0.5
        print(f"\nscanner {seed}: {truth.optics}, true noise at 200: {noise:.2f}, Q{truth.quality}")
        print(f"the true scanner without its noise reaches {ceiling:.2f} dB (ceiling)")
        print("\n".join(profile.report.lines()))
        gains.append(profile.report.gain_db)
    print(f"\ngain over bicubic, dB: {', '.join(f'{g:+.2f}' for g in gains)}")
    print(f"median {np.median(gains):+.2f}")


def second_scan(arguments: argparse.Namespace) -> None:
    """Fit to the simulated second scan of CMU-1-Small-Region (truth of the geometry given)."""
    from wsisr.slides import open_slide

    folder = arguments.data / "registration" / "second_scan_cmu"
    truth = json.loads((folder / "truth.json").read_text())[
        "p_fixed = A p_moving + b, (x,y) pixel indices"
    ]
    matrix, shift = np.array(truth["A"]), np.array(truth["b"])
    with open_slide(arguments.data / "slides" / "CMU-1-Small-Region.svs") as slide:
        info = slide.info.levels[0]
        fixed = slide.read_level(0, 0, 0, info.width_px, info.height_px).astype(np.float32)
    with open_slide(folder / "moving_10x.tif") as slide:
        info = slide.info.levels[0]
        moving = slide.read_level(0, 0, 0, info.width_px, info.height_px)
    side, pairs = 144, []
    for top in range(160, moving.shape[0] - side - 160, 192):
        for left in range(160, moving.shape[1] - side - 160, 192):
            axis = (np.arange(2 * side) + 0.5) / 2 - 0.5
            x, y = np.meshgrid(left + axis, top + axis)
            u = matrix[0, 0] * x + matrix[0, 1] * y + shift[0]
            v = matrix[1, 0] * x + matrix[1, 1] * y + shift[1]
            if (
                min(u.min(), v.min()) < 4
                or u.max() > fixed.shape[1] - 5
                or v.max() > fixed.shape[0] - 5
            ):
                continue
            hr = np.stack(
                [ndimage.map_coordinates(fixed[..., c], (v, u), order=3) for c in range(3)], -1
            )
            lr = moving[top : top + side, left : left + side]
            if lr.std() > 20:
                pair = RealPair(
                    lr=lr, hr=np.clip(np.rint(hr), 0, 255).astype(np.uint8), grid_px=(left, top)
                )
                pairs.append(pair)
    settings = FitSettings(um_per_px=0.499, max_pairs=12)
    profile = fit_degradation(pairs, settings, name="second-scan-cmu")
    print("\n".join(profile.report.lines()))


def throughput(arguments: argparse.Namespace) -> None:
    """256 px HR samples per second at x4: per CPU second of one thread, and on a GPU."""
    hr = torch.randint(0, 256, (16, 3, 256, 256), dtype=torch.uint8)
    for spec in THROUGHPUT:
        rates = []
        for step in range(4):
            start = time.process_time()
            degrade(hr, spec, 4, step=step)
            rates.append(len(hr) / (time.process_time() - start))
        line = f"{spec:20} {np.median(rates[1:]):8.0f} samples per CPU s"
        device = choose_device()
        if on_gpu(device):
            images = hr.to(device).repeat(4, 1, 1, 1)
            degrade(images, spec, 4)
            synchronise(device)
            start = time.perf_counter()
            for step in range(10):
                degrade(images, spec, 4, step=step)
            synchronise(device)
            line += f", {10 * len(images) / (time.perf_counter() - start):8.0f} samples/s on GPU"
        print(line)


PARTS = {
    "oracles": oracles,
    "kernels": kernels,
    "ranking": ranking,
    "second-scan": second_scan,
    "throughput": throughput,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    parser.add_argument("--scene", type=Path, action="append", help="HR image, 640 px or more")
    parser.add_argument("--scanners", type=int, default=4)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    arguments.scenes = None
    if arguments.scene:
        arguments.scenes = [read_whole(p)[0] for p in arguments.scene]
    torch.set_num_threads(1)
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch "
        f"{torch.__version__}, numpy {np.__version__}, Pillow {Image.__version__}, cv2 "
        f"{cv2.__version__}, scikit-image {skimage.__version__}; one thread"
    )
    for part in arguments.parts:
        print(f"\n## {part}\n")
        PARTS[part](arguments)


if __name__ == "__main__":
    main()
