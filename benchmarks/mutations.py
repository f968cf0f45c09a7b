"""Damaged slides by the hundred, and what OpenSlide and wsisr make of them.

    python benchmarks/mutations.py [--slides 1000] [--flips 500] [--seed 0]

Prints how many tiles each refuses, how many wsisr shows that OpenSlide refuses (none may be), and
the slowest slide. A crash ends the script, a hang shows in the slowest slide.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
from skimage.data import immunohistochemistry

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from mutated_slides import Findings, flip_in_scan, look, mutated, sources

from wsisr.errors import SlideError
from wsisr.slides import open_slide

TILE = {"aperio": 256, "jpeg2000": 256}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--slides", type=int, default=1000)
    parser.add_argument("--flips", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tissue = np.ascontiguousarray(immunohistochemistry()[:512, :512])
        slides = sources(folder, tissue)
        shown = flips(folder, slides, given.flips, rng)
        shown += mutations(folder, slides, given.slides, rng)
    return int(shown > 0)


def flips(folder: Path, slides: dict[str, Path], count: int, rng: np.random.Generator) -> int:
    """Single flipped bits in the entropy-coded data of one JPEG tile."""
    kinds = ("aperio", "generic", "full")
    shown = 0
    for number, kind in enumerate(kinds):
        side, tries = TILE.get(kind, 128), count // len(kinds) + (number < count % len(kinds))
        ours = theirs = 0
        for _ in range(tries):
            data, tile = flip_in_scan(slides[kind], rng)
            path = folder / f"flipped{slides[kind].suffix}"
            path.write_bytes(data)
            columns = 512 // side
            place = (tile % columns * side, tile // columns * side)
            with openslide.OpenSlide(path) as oracle:
                refused = _fails(lambda at=place, n=side: oracle.read_region(at, 0, (n, n)))
            with open_slide(path, backend="direct") as slide:
                own = _fails(lambda at=place, n=side: slide.read_level(0, *at, n, n))
            ours, theirs, shown = ours + own, theirs + refused, shown + (refused and not own)
        print(f"{kind}: {tries} flips, OpenSlide refuses {theirs}, wsisr {ours}", flush=True)
    return shown


def mutations(folder: Path, slides: dict[str, Path], count: int, rng: np.random.Generator) -> int:
    """Whole files damaged in seven ways."""
    findings, slowest = Findings(), (0.0, "")
    for number in range(count):
        name, path = list(slides.items())[number % len(slides)]
        data, kind = mutated(path.read_bytes(), rng)
        damaged = folder / f"damaged{path.suffix}"
        damaged.write_bytes(data)
        started = time.process_time()
        look(damaged, f"{number} {name} {kind}", findings, TILE.get(name, 128))
        slowest = max(slowest, (time.process_time() - started, f"{name} {kind}"))
    print(f"{findings.line()}; slowest {slowest[1]}, {slowest[0]:.1f} CPU s")
    for place in findings.pixels_of_refused_tiles:
        print(f"  shown: {place}")
    return len(findings.pixels_of_refused_tiles)


def _fails(read: Callable[[], object]) -> bool:
    try:
        read()
        return False
    except (SlideError, openslide.OpenSlideError):
        return True


if __name__ == "__main__":
    sys.exit(main())
