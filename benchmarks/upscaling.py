"""Memory and speed of upscaling, by hand: ``python benchmarks/upscaling.py [--side 60000] ...``.

``--suffix .ome.zarr`` or ``.dcm`` measures the other outputs.

Writes sparse slides of the given sides, upscales them by the command line, samples the resident
memory of the process, and draws the curves. Prints the machine, the versions and the ratios.
"""

import argparse
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import psutil

from wsisr.files import remove_tree
from wsisr.testing import sparse_spec, write_slide

LIMIT_MIB = 4096
"""Largest resident memory that is acceptable, whatever the slide."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, nargs="+", default=[15_000, 30_000, 60_000])
    parser.add_argument("--scale", type=float, default=2.0)
    parser.add_argument("--model", default="bicubic")
    parser.add_argument("--suffix", default=".ome.tiff", help="Of the output.")
    parser.add_argument("--work", type=Path, required=True, help="Scratch folder.")
    parser.add_argument("--picture", type=Path, default=Path("docs/images/upscale-memory.png"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    print(f"{platform.processor() or platform.machine()}, {psutil.cpu_count()} cores, ", end="")
    print(f"Python {platform.python_version()}, ", end="")
    print(", ".join(f"{n} {version(n)}" for n in ("numpy", "imagecodecs", "torch")))
    curves = []
    for side in arguments.side:
        slide = arguments.work / f"sparse-{side}.tiff"
        if not slide.exists():
            spec = sparse_spec(
                width_px=side, height_px=side, layout="generic", islands=14, island_px=2600
            )
            write_slide(slide, spec)
        curves.append((side, *measure(slide, arguments)))
        side_out = round(side * arguments.scale)
        _, seconds, mib, cpu_s = curves[-1]
        print(
            f"{side} -> {side_out} px: {seconds[-1]:.0f} s wall, {cpu_s:.0f} s CPU, "
            f"{side_out**2 / 1e6 / cpu_s:.0f} Mpx per CPU second, peak {max(mib):.0f} MiB"
        )
    peaks = [max(mib) for _, _, mib, _ in curves]
    print(f"peak of the largest over the smallest: {peaks[-1] / peaks[0]:.2f}")
    draw(arguments.picture, curves, arguments.scale)
    if max(peaks) > LIMIT_MIB:
        sys.exit(f"more than {LIMIT_MIB} MiB")


def measure(slide: Path, arguments: argparse.Namespace) -> tuple[list[float], list[float], float]:
    """Seconds, resident MiB at them, and CPU seconds of one run."""
    out = arguments.work / f"{slide.stem}-out{arguments.suffix}"
    command = [sys.executable, "-m", "wsisr_cli", "upscale", str(slide), "-o", str(out)]
    command += ["--scale", str(arguments.scale), "--model", arguments.model, "--overwrite"]
    started = time.monotonic()
    process = subprocess.Popen(command)
    watched = psutil.Process(process.pid)
    seconds, mib = [], []
    cpu_s = 0.0
    while process.poll() is None:
        try:
            mib.append(watched.memory_info().rss / 2**20)
            times = watched.cpu_times()
        except psutil.NoSuchProcess:
            break
        cpu_s = times.user + times.system
        seconds.append(time.monotonic() - started)
        time.sleep(0.25)
    if process.wait():
        sys.exit(f"{' '.join(command)} failed")
    remove_tree(out)
    return seconds, mib, cpu_s


def draw(
    path: Path, curves: list[tuple[int, list[float], list[float], float]], scale: float
) -> None:
    """The curves as a picture, over the share of each run's time."""
    from wsisr.drawing import ChartSeries, chart

    series = [
        ChartSeries(
            name=f"{side:,} px in, {round(side * scale):,} px out",
            x=[100 * s / seconds[-1] for s in seconds],
            y=mib,
        )
        for side, seconds, mib, _ in curves
    ]
    picture = chart(
        series,
        title="Memory of an upscaling run does not depend on the slide",
        x_label="share of the run, %",
        y_label="resident memory, MiB",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


if __name__ == "__main__":
    main()
