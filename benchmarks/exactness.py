"""Who is exact on which real file and level.

    python benchmarks/exactness.py ../shared/data/slides [more files or folders]

For every slide, level and reader: `exact` where the pixels are those that are stored (the
reference is tifffile's or imagecodecs' own decoding of the level, read whole, without any of our
assembly), else the largest and mean difference in grey levels of a naive read, that is one at
`level position * reported downsample`, which is what most pipelines ask for. Two rows for
OpenSlide and tiffslide show what becomes of the same reader used naively.
"""

import argparse
import platform
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.errors import SlideError
from wsisr.slides import Slide, find_slides, open_slide
from wsisr.slides.decode import ycbcr_to_rgb
from wsisr.slides.dicom_files import series_of

PLACES = 12
SIDE_PX = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("source", nargs="+", type=Path)
    warnings.simplefilter("ignore")
    print(f"{platform.platform()}, Python {platform.python_version()}")
    names = (
        "openslide-python",
        "openslide-bin",
        "tiffslide",
        "tifffile",
        "imagecodecs",
        "simplejpeg",
        "pydicom",
    )
    print(", ".join(f"{name} {version(name)}" for name in names), "\n")
    print(
        "| slide | level | size | factor | wsisr (reader) | tiffslide in wsisr | OpenSlide in wsisr"
        " | naive OpenSlide | naive tiffslide |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for source in parser.parse_args().source:
        for found in find_slides(source):
            try:
                table(found.slide_id, found.path)
            except SlideError as error:
                print(f"| {found.slide_id} | – | {str(error).split(': ', 1)[-1][:80]} |" + " |" * 6)


def table(name: str, path: Path) -> None:
    with open_slide(path) as slide:
        others = {backend: try_open(path, backend) for backend in ("tiffslide", "openslide")}
        for level in slide.info.levels:
            stored = stored_level(slide, level.index)
            size = (level.width_px, level.height_px)
            cells = [name, str(level.index), f"{size[0]} x {size[1]}", str(level.factor)]
            cells.append(f"{compare(slide, level.index, stored)} ({slide.info.backend})")
            for other in others.values():
                match = (
                    [lv for lv in other.info.levels if (lv.width_px, lv.height_px) == size]
                    if other is not None
                    else []
                )
                if other is None or not match:
                    cells.append("–")
                elif not match[0].exact:
                    cells.append("not used")
                else:
                    cells.append(compare(other, match[0].index, stored))
            cells.append(naive(path, "openslide", size, stored))
            cells.append(naive(path, "tiffslide", size, stored))
            print("| " + " | ".join(cells) + " |", flush=True)
        for other in others.values():
            if other is not None:
                other.close()


def try_open(path: Path, backend: str) -> Slide | None:
    try:
        return open_slide(path, backend=backend)
    except SlideError:
        return None


def stored_level(slide: Slide, level: int) -> UInt8Array | None:
    """A level decoded whole by tifffile or Pillow; None for DICOM (OpenSlide from (0, 0))."""
    import tifffile

    info = slide.info
    if info.backend in ("direct", "tiffslide"):
        with tifffile.TiffFile(info.path) as tiff:
            image = tiff.series[0].levels[level].asarray()
        return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
    if info.backend == "image":
        from PIL import Image

        return np.asarray(Image.open(info.path).convert("RGB"))
    import openslide

    stored = info.levels[level]
    with openslide.OpenSlide(series_of(info.path)[0]) as oracle:
        region = oracle.read_region((0, 0), level, (stored.width_px, stored.height_px))
        shown = np.asarray(region.convert("RGB"))
        # OpenSlide believes a tag that says RGB over a stream that is YCbCr.
        return ycbcr_to_rgb(shown) if stored.compression.tag == "rgb" else shown


def places(width: int, height: int) -> list[tuple[int, int, int, int]]:
    rng = np.random.default_rng(0)
    w, h = min(SIDE_PX, width), min(SIDE_PX, height)
    corners = [
        (int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1)))
        for _ in range(PLACES - 1)
    ]
    return [(x, y, w, h) for x, y in (*corners, (width - w, height - h))]


def compare(slide: Slide, level: int, stored: UInt8Array | None) -> str:
    return judge(lambda x, y, w, h: slide.read_level(level, x, y, w, h), stored)


def naive(path: Path, backend: str, size: tuple[int, int], stored: UInt8Array | None) -> str:
    import openslide
    import tiffslide

    try:
        if backend == "openslide":
            handle = openslide.OpenSlide(series_of(path)[0] if path.is_dir() else path)
        else:
            handle = tiffslide.TiffSlide(path)
        level = list(handle.level_dimensions).index(size)
    except Exception:
        return "–"
    downsample = handle.level_downsamples[level]

    def read(x: int, y: int, w: int, h: int) -> UInt8Array:
        origin = (round(x * downsample), round(y * downsample))
        return np.asarray(handle.read_region(origin, level, (w, h)).convert("RGB"))

    with handle:
        return judge(read, stored)


def judge(read: Callable[[int, int, int, int], UInt8Array], stored: UInt8Array | None) -> str:
    if stored is None:
        return "–"
    largest, total, count = 0, 0.0, 0
    for x, y, w, h in places(stored.shape[1], stored.shape[0]):
        difference = np.abs(read(x, y, w, h).astype(int) - stored[y : y + h, x : x + w])
        largest = max(largest, int(difference.max()))
        total, count = total + float(difference.mean()), count + 1
    return "exact" if largest == 0 else f"max {largest}, mean {total / count:.2f}"


if __name__ == "__main__":
    sys.exit(main())
