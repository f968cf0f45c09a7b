"""The building rows of the targets, by hand: `python benchmarks/build.py JOB [SLIDE]`.

Jobs: `extract` (lossless 256-px patches, reading, four magnifications; references in the same
run), `memory` (resident memory while a 100,000 x 100,000 px slide is built, as numbers and a
picture), `together` (ten builds at a time on one disk, each held against one alone), `workers`
(1 against 2), `plan` (cost of planning up to 10,000 slides), `codec` (size of the `small` store),
`kill` (20 kill -9 at random moments, then the same bytes). Without a slide generated ones are used:
A Aperio-like (256-px tiles, RGB JPEG Q70), B Philips-like (512-px tiles, 4:2:0, Q87).
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import psutil

from wsisr.building.layout import SlideTask
from wsisr.building.manifest import load_manifest
from wsisr.building.plan import decide_splits, plan_build
from wsisr.building.scan_records import RankedCandidates, ScanRecord
from wsisr.building.sources.levels import plan_geometry
from wsisr.checkup.bench import bench_slide, machine, ratios, table
from wsisr.selection.patients import own_patient
from wsisr.slides import SlideSource, open_slide
from wsisr.testing import SlideSpec, sparse_spec, write_slide


def generated(folder: Path, layout: str, side_px: int) -> Path:
    """A generated slide, made once per folder."""
    path = folder / f"{layout}-{side_px}.tif"
    if not path.exists():
        quality = 70 if layout == "aperio" else 87
        spec = SlideSpec(
            seed=1,
            layout="aperio" if layout == "aperio" else "philips",
            width_px=side_px,
            height_px=side_px,
            quality=quality,
        )
        write_slide(path, spec)
    return path


def extract(folder: Path, slide: Path | None, side_px: int) -> None:
    paths = (
        [slide] if slide else [generated(folder, name, side_px) for name in ("aperio", "philips")]
    )
    for path in paths:
        timings = bench_slide(path, 3000, folder)
        print(f"\n### {path.name}\n\n{table(timings)}\n")
        for line in ratios(timings):
            print("-", line)


def command(source: Path, store: Path, workers: int, *more: str) -> list[str]:
    base = [sys.executable, "-m", "wsisr_cli", "build-pairs", str(source), "-o", str(store)]
    return [*base, "--manifest", "default", "--workers", str(workers), *more]


def resident_mib(process: psutil.Process) -> list[float]:
    """Resident memory of a build's processes, MiB each: a single slide has no other workers."""
    found = []
    try:
        processes = [process, *process.children(recursive=True)]
    except psutil.Error:  # it ended just now
        return []
    for child in processes:
        try:
            if "resource_tracker" not in " ".join(child.cmdline()):
                found.append(child.memory_info().rss / 2**20)
        except psutil.Error:
            continue
    return found


def memory(folder: Path) -> None:
    for side in (12_000, 32_000, 100_000):
        path = folder / f"sparse-{side}.tif"
        if not path.exists():
            write_slide(path, sparse_spec(width_px=side, height_px=side, seed=3))
        curve = watch(command(path, folder / f"m{side}.zarr", 1, "--lr", "10x", "--overwrite"))
        peak = max(curve)
        print(f"{side:,} x {side:,} px: peak {peak:,.0f} MiB a worker, {len(curve)} samples")
        picture = folder / f"memory-{side}.png"
        cv2.imwrite(str(picture), plot(curve))
        print(f"curve: {picture}")


def watch(arguments: list[str]) -> list[float]:
    """Run a build and sample its largest worker ten times a second."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    root = psutil.Process(process.pid)
    curve: list[float] = []

    def sample() -> None:
        while process.poll() is None:
            curve.append(max(resident_mib(root), default=0.0))
            time.sleep(0.1)

    thread = threading.Thread(target=sample)
    thread.start()
    process.wait()
    thread.join()
    return curve or [0.0]


def plot(curve: list[float], width: int = 900, height: int = 300) -> np.ndarray:
    """The curve with a grid line every 100 MiB."""
    picture = np.full((height, width, 3), 255, np.uint8)
    top = max(500.0, max(curve) * 1.1)
    for level in range(0, int(top), 100):
        y = height - 1 - round(level / top * (height - 1))
        cv2.line(picture, (0, y), (width, y), (225, 225, 225), 1)
        cv2.putText(picture, f"{level} MiB", (4, y - 3), 0, 0.35, (120, 120, 120), 1)
    points = [
        (
            round(i / max(1, len(curve) - 1) * (width - 1)),
            height - 1 - round(v / top * (height - 1)),
        )
        for i, v in enumerate(curve)
    ]
    cv2.polylines(picture, [np.array(points, np.int32)], False, (180, 60, 20), 2)
    return picture


def workers(folder: Path, side_px: int) -> None:
    source = folder / "four"
    source.mkdir(exist_ok=True)
    slide = generated(folder, "philips", side_px // 2)
    for number in range(4):
        link = source / f"s{number}.tif"
        if not link.exists():
            os.link(slide, link)
    wall = {}
    for count in (1, 2, 1, 2):
        start = time.perf_counter()
        subprocess.run(
            command(source, folder / "w.zarr", count, "--overwrite"),
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wall[count] = min(wall.get(count, 1e9), time.perf_counter() - start)
    print(f"1 worker {wall[1]:.1f} s, 2 workers {wall[2]:.1f} s: {wall[1] / wall[2]:.2f} times")


def plan(folder: Path) -> None:
    manifest = load_manifest("pathimgsr")
    path = generated(folder, "philips", 2048)
    with open_slide(path) as slide:
        info = slide.info
    geometry = plan_geometry(info, manifest, "s")
    rng = np.random.default_rng(0)
    for slides in (100, 1000, 10_000):
        tasks, records = [], {}
        for number in range(slides):
            name = f"s{number:05d}"
            source = SlideSource(
                path=path, slide_id=name, files=(path,), kind="tiff", relative=name
            )
            tasks.append(
                SlideTask(
                    source=source, patient=own_patient(f"p{number // 2}"), group=name, split="train"
                )
            )
            count = 200
            records[name] = ScanRecord(
                slide_id=name,
                draw_key=name,
                identity="",
                info=info,
                geometry=geometry,
                icc="keep",
                candidates=RankedCandidates(
                    x=(0,) * count,
                    y=(0,) * count,
                    label=tuple(rng.integers(0, 2, count).tolist()),
                ),
            )
        start = time.process_time()
        splits, _ = decide_splits(tasks, manifest, {})
        plan_build(records, splits, manifest, {t.slide_id: t.patient.name for t in tasks})
        spent = time.process_time() - start
        print(f"{slides:,} slides: {spent:.2f} CPU s, {1e3 * spent / slides:.2f} ms a slide")


def codec(folder: Path, side_px: int) -> None:
    for layout in ("aperio", "philips"):
        slide = generated(folder, layout, side_px // 2)
        size = {}
        for name in ("raw", "small", "zstd"):
            store = folder / f"c-{name}.zarr"
            subprocess.run(
                command(slide, store, 1, "--lr", "10x", "--codec", name, "--overwrite"),
                check=False,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            size[name] = sum(p.stat().st_size for p in store.rglob("*") if p.is_file())
        print(
            f"{layout}: small {size['small'] / size['raw']:.2f} of raw, "
            f"zstd {size['zstd'] / size['raw']:.2f}"
        )


def kill(folder: Path, times: int, side_px: int) -> None:
    """Kills of builds at work, several in a row on one store; one that was not hit is compared
    with the store that nobody killed, and the next begins anew."""
    source = folder / f"kill-{side_px}"
    source.mkdir(exist_ok=True)
    for seed in range(4):
        path = source / f"s{seed}.tif"
        if not path.exists():
            write_slide(path, SlideSpec(seed=seed, width_px=side_px, height_px=side_px))
    more = ("--size", "256", "--lr", "10x")
    whole, killed = folder / "whole.zarr", folder / "killed.zarr"
    start = time.perf_counter()
    subprocess.run(command(source, whole, 2, *more, "--overwrite"), check=True)
    length = time.perf_counter() - start
    chance = random.Random(0)
    hits, finished, differ = 0, 0, 0
    while hits < times or finished == 0:
        process = subprocess.Popen(command(source, killed, 2, *more), start_new_session=True)
        try:
            # The last one is left alone.
            process.wait(chance.uniform(0.1, 0.9) * length if hits < times else None)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            hits += 1
            finished = 0
            continue
        finished += 1
        differ += process.returncode != 0 or digest(whole) != digest(killed)
        for leftover in (killed, killed.with_name("killed.zarr.partial")):
            shutil.rmtree(leftover, ignore_errors=True)
    print(f"{hits} kill -9 of builds at work, each gone on with: {differ} stores differ")


def together(folder: Path, side_px: int, count: int = 10) -> None:
    """Builds beside one another: none may wait for, or write into, what is another's."""
    source = generated(folder, "philips", side_px)

    def start(name: str) -> "subprocess.Popen[bytes]":
        shutil.rmtree(folder / name, ignore_errors=True)
        more = ("--size", "256", "--lr", "10x")
        return subprocess.Popen(
            command(source, folder / name / "pairs.zarr", 1, *more),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    begin = time.perf_counter()
    assert start("alone").wait() == 0
    middle = time.perf_counter()
    codes = [process.wait() for process in [start(f"beside-{n}") for n in range(count)]]
    end = time.perf_counter()
    whole = digest(folder / "alone" / "pairs.zarr")
    same = sum(digest(folder / f"beside-{n}" / "pairs.zarr") == whole for n in range(count))
    size = sum(p.stat().st_size for p in (folder / "alone").rglob("*") if p.is_file())
    print(
        f"{count} builds at a time: {codes.count(0)} finished, {same} the same bytes as one alone; "
        f"{(end - middle) / (middle - begin):.1f} times its wall for {count} times its "
        f"{size / 1e6:,.0f} MB"
    )


def digest(root: Path) -> str:
    total = sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        total.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    jobs = ["extract", "memory", "workers", "plan", "codec", "kill", "together"]
    parser.add_argument("job", choices=jobs)
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--folder", type=Path, help="keeps generated slides between runs")
    parser.add_argument("--side", type=int, default=16384, help="side of generated slides, px")
    parser.add_argument("--times", type=int, default=20)
    options = parser.parse_args()
    print(time.strftime("%Y-%m-%d"), machine())
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if options.job == "extract":
            extract(folder, options.slide, options.side)
        elif options.job == "memory":
            memory(folder)
        elif options.job == "workers":
            workers(folder, options.side)
        elif options.job == "plan":
            plan(folder)
        elif options.job == "together":
            together(folder, options.side)
        elif options.job == "codec":
            codec(folder, options.side)
        else:
            kill(folder, options.times, min(options.side, 4096))


if __name__ == "__main__":
    main()
