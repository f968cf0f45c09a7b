"""The whole matrix of coloured files through the checked door, and what other readers make of it.

Run by ``make interop``, with libvips among the writers. Prints how many files are read right,
refused or (a failure) shown wrong, and a table of the files that the readers disagree about.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import pyvips
import tifffile
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from colour_files import SIDE, ColourFile, all_files

from wsisr.errors import SlideError
from wsisr.slides import open_slide

U8 = np.ndarray
NEEDLESS = 0.05
"""Share of the files that two readers show right and wsisr may refuse."""


def by_wsisr(path: Path) -> U8:
    with open_slide(path) as slide:
        return slide.read_level(0, 0, 0, SIDE, SIDE)


def by_openslide(path: Path) -> U8:
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, (SIDE, SIDE)).convert("RGB"))


def by_tifffile(path: Path) -> U8:
    image = tifffile.imread(path, key=0)
    if image.ndim == 3 and image.shape[0] == 3:
        image = np.moveaxis(image, 0, 2)
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


def by_pillow(path: Path) -> U8:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def by_opencv(path: Path) -> U8:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ValueError("not read")
    return np.asarray(image)


def by_libvips(path: Path) -> U8:
    image = pyvips.Image.new_from_file(str(path), fail_on="error").colourspace("srgb")
    image = image.flatten(background=255) if image.hasalpha() else image
    return np.asarray(image.numpy()[:, :, :3])


READERS: dict[str, Callable[[Path], U8]] = {
    "wsisr": by_wsisr,
    "OpenSlide": by_openslide,
    "tifffile": by_tifffile,
    "libvips": by_libvips,
    "Pillow": by_pillow,
    "OpenCV": by_opencv,
}


def verdict(read: Callable[[Path], U8], path: Path, file: ColourFile) -> str:
    """``"right"``, ``"refused"``, or by how many grey levels it is off."""
    try:
        shown = read(path)
        if shown.shape != (SIDE, SIDE, 3):
            return "refused"
    except Exception:
        return "refused"
    off = float(np.abs(shown.astype(int) - file.truth()).mean())
    return "right" if off <= file.loss else f"{off:.0f} off"


def kind_of(file: ColourFile) -> str:
    """The file's name without what never changes what a reader makes of it."""
    drop = {"tables", "whole", "plain", "predictor", "q75", "q95", "flat", "pyramid"}
    return "-".join(part for part in Path(file.name).stem.split("-") if part not in drop)


def test_every_file_is_shown_right_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    counts: Counter[str] = Counter()
    needless, wrong = [], []
    for file in all_files():
        path = tmp_path / file.name
        file.write(path)
        found = {name: verdict(read, path, file) for name, read in READERS.items()}
        ours, others = found["wsisr"], [found[name] for name in READERS if name != "wsisr"]
        counts[ours if ours in ("right", "refused") else "wrong"] += 1
        if ours not in ("right", "refused"):
            wrong.append((file.name, ours))
        if ours == "refused" and others.count("right") >= 2:
            needless.append(file.name)
        if any("off" in value for value in found.values()):
            table[kind_of(file)][tuple(found.values())] += 1
    with capsys.disabled():
        print(f"\n{sum(counts.values())} files: {dict(counts)}; needlessly refused {needless}")
        print(f"\n| file | {' | '.join(READERS)} |\n|---|{'---|' * len(READERS)}")
        for kind, rows in sorted(table.items()):
            for values in rows:
                print(f"| {kind} | {' | '.join(values)} |")
    assert not wrong
    assert len(needless) <= NEEDLESS * sum(counts.values())


def test_what_is_refused_has_a_reason(tmp_path: Path) -> None:
    for file in all_files():
        if file.refused:
            path = tmp_path / file.name
            file.write(path)
            with pytest.raises(SlideError, match="single channel"):
                open_slide(path)
