"""Whole commands beside those of other toolkits, by hand: `python benchmarks/peers.py [SLIDE]`.

From a slide to all its tissue patches of 256 px at level 0, each tool by its own rule of tissue:
`wsisr build-pairs` (raw, and with what `--codec` names), hs2p (its tar of re-encoded JPEG; it
is installed into a virtual environment of its own under `--folder`), CLAM's script that writes
pixels where `--clam` names a checkout and `--clam-python` an interpreter with what it needs, and
`dd` of as many bytes as raw pairs have. In turn, `--times` times; the least CPU seconds of the
process tree, with the wall, the largest sum of resident memory and the bytes written of that run.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from build import generated

from wsisr import open_pairs
from wsisr.checkup.bench import machine
from wsisr.slides import open_slide

PATCH_PX = 256
HS2P = "hs2p[openslide]==6.1.0"
SAMPLE_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A command, where it writes, and how its patches are counted."""

    name: str
    command: list[str]
    output: Path
    count: Callable[[Path], int]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one run took; memory in MiB, output in MB."""

    cpu_s: float
    wall_s: float
    peak_mib: float
    output_mb: float
    patches: int


def measure(tool: Tool, cache: Path) -> Cost:
    """Run a command in an empty place, as on a slide that nobody has opened before."""
    for place in (tool.output, cache):
        shutil.rmtree(place, ignore_errors=True)
    tool.output.mkdir(parents=True)
    # Installed programs have their bytecode, whatever this shell says of writing it.
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(
        tool.command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**plain, "WSISR_CACHE": str(cache), "WANDB_MODE": "disabled"},
    )
    peaks = [0.0]
    watcher = threading.Thread(target=_watch, args=(process, peaks))
    watcher.start()
    code = process.wait()
    wall = time.perf_counter() - start
    watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code:
        raise SystemExit(f"{tool.name} failed with exit code {code}: {' '.join(tool.command)}")
    files = [path for path in tool.output.rglob("*") if path.is_file()]
    return Cost(
        cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        wall_s=wall,
        peak_mib=max(peaks),
        output_mb=sum(path.stat().st_size for path in files) / 1e6,
        patches=tool.count(tool.output),
    )


def _watch(process: "subprocess.Popen[bytes]", peaks: list[float]) -> None:
    root = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        try:
            for one in (root, *root.children(recursive=True)):
                total += one.memory_info().rss
        except psutil.Error:
            pass
        peaks.append(total / 2**20)
        time.sleep(SAMPLE_S)


def ours(source: Path, folder: Path, codec: str) -> Tool:
    output = folder / f"wsisr-{codec}"
    store = output / "pairs.zarr"
    more = ["--hr", "40x", "--lr", "10x", "--size", str(PATCH_PX), "--codec", codec]
    command = [sys.executable, "-m", "wsisr_cli", "build-pairs", str(source), "-o", str(store)]
    return Tool(
        name=f"wsisr build-pairs, {codec} (40x and 10x)",
        command=[*command, *more],
        output=output,
        count=lambda place: sum(len(view) for view in open_pairs(store).slides.values()),
    )


def hs2p(source: Path, folder: Path, mpp: float, workers: int) -> Tool:
    """hs2p at its defaults, but for what is asked of all: level 0, 256 px, tiles saved."""
    home = folder / "hs2p-venv"
    if not (home / "bin" / "hs2p").is_file():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(home / "bin" / "pip"), "install", "-q", HS2P], check=True)
    listing, settings = folder / "hs2p.csv", folder / "hs2p.yaml"
    listing.write_text(f"sample_id,image_path\nslide,{source.resolve()}\n")
    output = folder / "hs2p"
    settings.write_text(
        f"csv: {listing}\noutput_dir: {output}\nsave_tiles: true\ntiling:\n"
        f"  backend: openslide\n  params:\n    requested_spacing_um: {mpp}\n"
        f"    requested_tile_size_px: {PATCH_PX}\nspeed:\n  num_workers: {workers}\n"
    )

    def count(place: Path) -> int:
        found = 0
        for path in place.rglob("*.tar"):
            with tarfile.open(path) as tar:
                found += sum(member.isfile() for member in tar)
        return found

    command = [str(home / "bin" / "hs2p"), str(settings), "--skip-datetime"]
    return Tool(name="hs2p 6.1.0 (tar of lossy JPEG)", command=command, output=output, count=count)


def clam(source: Path, folder: Path, checkout: Path, python: Path) -> Tool:
    output = folder / "clam"
    size = str(PATCH_PX)

    def count(place: Path) -> int:
        import h5py

        found = 0
        for path in place.rglob("*.h5"):
            with h5py.File(path) as file:
                found += len(file["imgs"])
        return found

    command = [str(python), str(checkout / "create_patches.py"), "--source", str(source.parent)]
    command += ["--save_dir", str(output), "--patch_size", size, "--step_size", size]
    return Tool(
        name="CLAM create_patches (HDF5, uncompressed)",
        command=[*command, "--seg", "--patch"],
        output=output,
        count=count,
    )


def plain_copy(folder: Path, patches: int) -> Tool:
    """As many bytes as raw pairs of 256 and 64 px have, written by nothing but `dd`."""
    block = 3 * PATCH_PX**2 + 3 * (PATCH_PX // 4) ** 2
    output = folder / "dd"
    command = ["dd", "if=/dev/zero", f"of={output}/zeros", f"bs={block}", f"count={patches}"]
    return Tool(
        name="dd of the bytes of raw pairs, synced",
        command=[*command, "conv=fsync"],
        output=output,
        count=lambda place: patches,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("slide", nargs="?", type=Path, help="alone in its folder for CLAM")
    parser.add_argument("--folder", type=Path, help="keeps slides and environments between runs")
    parser.add_argument("--side", type=int, default=12288, help="side of a generated slide, px")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--codec", nargs="*", default=["raw"])
    parser.add_argument("--clam", type=Path, help="a checkout of CLAM")
    parser.add_argument("--clam-python", type=Path, default=Path(sys.executable))
    options = parser.parse_args()
    print(time.strftime("%Y-%m-%d"), machine(), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch)).resolve()
        alone = folder / f"slide-{options.side}"
        alone.mkdir(parents=True, exist_ok=True)
        source = (options.slide or generated(alone, "philips", options.side)).resolve()
        with open_slide(source) as slide:
            mpp = slide.info.mpp.value if slide.info.mpp is not None else 0.25
        cores = len(os.sched_getaffinity(0))
        tools = [ours(source, folder, codec) for codec in options.codec]
        tools.append(hs2p(source, folder, mpp, cores))
        if options.clam is not None:
            tools.append(clam(source, folder, options.clam, options.clam_python))
        costs: dict[str, list[Cost]] = {}
        for _ in range(options.times):
            patches = 0
            for tool in [*tools]:
                costs.setdefault(tool.name, []).append(measure(tool, folder / "cache"))
                patches = patches or costs[tool.name][-1].patches
            copy = plain_copy(folder, patches)
            costs.setdefault(copy.name, []).append(measure(copy, folder / "cache"))
            shutil.rmtree(copy.output)
    report(costs, tools[0].name)


def report(costs: dict[str, list[Cost]], own: str) -> None:
    """The table of docs/benchmarks.md; the ratio is the least of either."""
    print(
        "\n| tool | patches | CPU s | ms a patch | wall s | peak MiB | MB written "
        "| CPU, to ours | ms a patch, to ours |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    best_own = min(costs[own], key=lambda cost: cost.cpu_s)
    for name, runs in costs.items():
        best = min(runs, key=lambda cost: cost.cpu_s)
        most = max(cost.cpu_s for cost in runs)
        print(
            f"| {name} | {best.patches:,} | {best.cpu_s:.1f}-{most:.1f} | "
            f"{1e3 * best.cpu_s / max(1, best.patches):.2f} | {best.wall_s:.0f} | "
            f"{best.peak_mib:.0f} | {best.output_mb:,.0f} | {best.cpu_s / best_own.cpu_s:.2f} | "
            f"{best.cpu_s * best_own.patches / (best_own.cpu_s * max(1, best.patches)):.2f} |"
        )


if __name__ == "__main__":
    main()
