"""Evaluation: what models cost (as ISTE's table 8), and what scoring costs.

    python benchmarks/evaluation.py cost [MODEL ...] [--preset paper] [--scale 4]
    python benchmarks/evaluation.py scores
    python benchmarks/evaluation.py run STORE RUNS [--limit 8]

`cost` runs on the GPU where there is one (LR 96 x 96, queries of 48, 96 and 192 px as in the
paper), else on the CPU with half the sides. Parameters and GMAC are exact; memory is of one
forward pass; times are medians and mean something within one table only. `scores` compares SSIM
with scikit-image's, side by side, in CPU seconds. `run` is `wsisr eval --scales 2,3,4 --no-cost`
of all runs, in a process of its own: user and system seconds.
"""

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from skimage.metrics import structural_similarity

from wsisr import __version__
from wsisr.device import choose_device, describe, on_gpu
from wsisr.evaluation.cost import QUERY_SCALE, measure
from wsisr.metrics import ssim
from wsisr.models import create_model, model_spec

TABLE_8 = {"liif": 11.4, "lte": 11.5, "itsrn": 11.7, "lit": 16.1, "iste": 12.5}
"""Published parameters / 2^20; ISTE's 12.5 has 396,675 parameters that nothing uses."""


def header() -> None:
    """The machine and the versions."""
    print(f"wsisr {__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    device = describe(choose_device())
    print(f"{device}, {platform.system()}, {torch.get_num_threads()} threads")


def cost(names: list[str], preset: str, scale: int) -> None:
    """One line for each model and query size."""
    header()
    device = str(choose_device())
    lr_px = 96 if on_gpu(device) else 48
    print(f"LR {lr_px} x {lr_px}, batch 1, float32")
    print(f"{'model':10} {'scale':>5} {'query':>6} {'/2^20':>7} {'paper':>6} {'GMAC':>8} "
          f"{'peak MiB':>9} {'ms':>9}")  # fmt: skip
    for name in names:
        fixed = model_spec(name).kind == "fixed"
        torch.manual_seed(0)
        model = create_model(name, preset=preset, scale=scale if fixed else None).eval()
        cases = [(float(scale), 0)]
        if not fixed:
            cases = [(QUERY_SCALE, query) for query in (lr_px // 2, lr_px, 2 * lr_px)]
        for case_scale, query in cases:
            row = measure(name, model, case_scale, lr_px, query, device)
            print(
                f"{name:10} {case_scale:5g} {query or 'all':>6} {row.parameters_2_20:7.2f} "
                f"{TABLE_8.get(name, '-'):>6} {row.gmac:8.2f} {row.peak_mib:9.1f} "
                f"{row.time_ms:9.1f}",
                flush=True,
            )


def seconds(run: Callable[[], object], repeats: int = 5) -> float:
    """Median CPU seconds."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def scores() -> None:
    """SSIM of one RGB image: ours and scikit-image's, the same number."""
    torch.set_num_threads(1)
    header()
    rng = np.random.default_rng(0)
    print(f"{'side px':>8} {'ours s':>8} {'skimage s':>10} {'speed':>7} {'difference':>11}")
    for side in (192, 512, 1024):
        hr = np.clip(np.cumsum(rng.normal(size=(side, side, 3)), 1) * 8 + 128, 0, 255)
        hr = hr.astype(np.uint8)
        sr = np.clip(hr + rng.normal(0, 9, hr.shape), 0, 255).astype(np.uint8)

        def theirs(sr: np.ndarray = sr, hr: np.ndarray = hr) -> float:
            return float(
                structural_similarity(
                    hr,
                    sr,
                    channel_axis=-1,
                    data_range=255,
                    gaussian_weights=True,
                    sigma=1.5,
                    use_sample_covariance=False,
                )
            )

        def ours(sr: np.ndarray = sr, hr: np.ndarray = hr) -> float:
            return float(ssim(sr, hr))

        own, other = seconds(ours), seconds(theirs)
        print(
            f"{side:8} {own:8.3f} {other:10.3f} {other / own:6.1f}x {abs(ours() - theirs()):11.1e}"
        )


def run(store: str, runs: str, limit: str | None) -> None:
    """CPU seconds of an evaluation, start-up included."""
    header()
    with tempfile.TemporaryDirectory() as folder:
        words = ["eval", "--scales", "2,3,4", "--no-cost", "--figures", "0", "--data", store]
        words += ["--runs", runs, "--lr-source", "simulated", "-o", f"{folder}/eval"]
        words += [] if limit is None else ["--limit", limit]
        command = [sys.executable, "-m", "wsisr_cli", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(done.stdout)
    print(f"exit {done.returncode}; {used.ru_utime:.1f} s user, {used.ru_stime:.1f} s system")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("cost", "scores", "run"))
    parser.add_argument("models", nargs="*", default=[])
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--limit")
    given = parser.parse_args()
    if given.what == "cost":
        cost(given.models or list(TABLE_8), given.preset, given.scale)
    elif given.what == "run":
        run(*given.models, given.limit)
    else:
        scores()


if __name__ == "__main__":
    main()
