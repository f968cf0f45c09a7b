"""What reading safely costs: the strict decoder, and the door that compares two readers.

    python benchmarks/reading.py decoder [SLIDE]... [--repeats 5]
    python benchmarks/reading.py door SLIDE [SLIDE]...

`decoder`: the jobs of `build.py extract` with the strict JPEG decoder and with imagecodecs in its
place (as before it), in turn in one process; CPU ms a patch, least and median of the repeats.
Without slides two are generated. `door`: CPU seconds to open a slide without a second reader, with
one for the first time, and again with the verdict kept.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import imagecodecs
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from build import generated

import wsisr.slides.decode as decoding
from wsisr.checkup import bench
from wsisr.slides import open_slide
from wsisr.slides.jpeg import StatedJpeg, decode_jpeg

SIDE_PX = 6144


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("job", choices=("decoder", "door"))
    parser.add_argument("slide", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="For generated slides and scratch files.")
    given = parser.parse_args()
    print(bench.machine() + "\n")
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        folder = given.folder or Path(scratch)
        if given.job == "door":
            os.environ["WSISR_CACHE"] = scratch
            door(given.slide)
        else:
            slides = given.slide or [generated(folder, k, SIDE_PX) for k in ("aperio", "philips")]
            decoder(slides, Path(scratch), given.repeats)


def cpu_s(job: Callable[[], Any]) -> float:
    start = time.process_time()
    job()
    return time.process_time() - start


def lax(data: bytes, stated: StatedJpeg) -> np.ndarray:
    """The decoder before: the tag decides the colours, warnings are not seen."""
    stored = {2: "RGB", 6: "YCBCR"}[stated.photometric]
    spaces = {} if stated.samples == 1 else {"colorspace": stored, "outcolorspace": "RGB"}
    return np.asarray(imagecodecs.jpeg8_decode(data, tables=stated.tables, **spaces))


def decoder(slides: list[Path], scratch: Path, repeats: int) -> None:
    print("| slide | job | patches | before, ms | strict, ms | ratio of pairs, median |")
    print("|---|---|---|---|---|---|")
    for path in slides:
        with closing(open_slide(path)) as slide:
            geometry = bench.square_geometry(slide, bench.PATCH_PX, (1,))
            origins = bench.tissue_origins(slide, geometry, 3000)
            grid = slide.grid(0)
            side = bench.PATCH_PX
            tiles = {key for x, y in origins.tolist() for key in grid.touched(x, y, side, side)}
            jobs: dict[str, Callable[[], Any]] = {
                "blocks to raw shards": lambda o=origins, p=path: bench._write(p, o, scratch),
                "reading only": lambda o=origins, p=path: bench._read(p, o),
                "each needed tile decoded once": lambda s=slide, t=tiles: [
                    s.decode_tile(0, *key) for key in sorted(t)
                ],
            }
            for name, job in jobs.items():
                job()  # warm
                found: dict[str, list[float]] = {"before": [], "strict": []}
                for _ in range(repeats):
                    for kind, function in (("before", lax), ("strict", decode_jpeg)):
                        decoding.decode_jpeg = function
                        found[kind].append(1000 * cpu_s(job) / len(origins))
                old, new = found["before"], found["strict"]
                ratio = median(b / a for a, b in zip(old, new, strict=True))
                print(
                    f"| {path.name} | {name} | {len(origins)} | {min(old):.2f}, {median(old):.2f} "
                    f"| {min(new):.2f}, {median(new):.2f} | {ratio:.2f} |",
                    flush=True,
                )


def look(path: Path, *, check: bool = True) -> None:
    open_slide(path, check=check).close()


def door(slides: list[Path]) -> None:
    print("| slide | reader | levels | regions | alone, s | compared, s | verdict kept, s |")
    print("|---|---|---|---|---|---|---|")
    for path in slides:
        look(path, check=False)  # libraries are imported
        alone = min(cpu_s(partial(look, path, check=False)) for _ in range(3))
        first = cpu_s(partial(look, path))
        again = min(cpu_s(partial(look, path)) for _ in range(3))
        with open_slide(path) as slide:
            info = slide.info
        assert info.verdict is not None
        print(
            f"| {path.name} | {info.backend}, {info.verdict.second or 'nobody'} | "
            f"{len(info.levels)} | {info.verdict.regions} | {alone:.3f} | {first:.2f} | "
            f"{again:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
