"""Damaged bytes: no tile that OpenSlide refuses becomes pixels, nothing hangs or crashes.

A short seeded form of `benchmarks/mutations.py`.
"""

from pathlib import Path

import numpy as np
import openslide
import pytest
from mutated_slides import Findings, flip_in_scan, look, mutated, sources
from skimage.data import immunohistochemistry

from wsisr.errors import SlideError
from wsisr.slides import open_slide

TILE = {"aperio": 256, "jpeg2000": 256}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    tissue = np.ascontiguousarray(immunohistochemistry()[:512, :512])
    return sources(tmp_path_factory.mktemp("mutations"), tissue)


def test_no_tile_that_openslide_refuses_is_shown(tmp_path: Path, slides) -> None:
    rng = np.random.default_rng(5)
    findings = Findings()
    for number in range(24):
        name, path = list(slides.items())[number % len(slides)]
        data, kind = mutated(path.read_bytes(), rng)
        damaged = tmp_path / f"damaged{path.suffix}"
        damaged.write_bytes(data)
        look(damaged, f"{number} {name} {kind}", findings, TILE.get(name, 128))
    assert findings.pixels_of_refused_tiles == []
    assert findings.refused_by_openslide >= 1 and findings.tiles >= 100, findings.line()


def test_single_flipped_bits(tmp_path: Path, slides) -> None:
    rng = np.random.default_rng(2)
    ours = theirs = 0
    for _ in range(40):
        data, tile = flip_in_scan(slides["aperio"], rng)
        path = tmp_path / "flipped.svs"
        path.write_bytes(data)
        place = (tile % 2 * 256, tile // 2 * 256)
        with openslide.OpenSlide(path) as oracle:
            try:
                oracle.read_region(place, 0, (256, 256))
                refused = False
            except openslide.OpenSlideError:
                refused = True
        with open_slide(path, backend="direct") as slide:
            try:
                slide.read_level(0, *place, 256, 256)
                assert not refused
            except SlideError as error:
                assert f"row {tile // 2}, column {tile % 2} of level 0" in str(error)
                ours += 1
        theirs += refused
    assert ours >= theirs >= 2 and ours >= 5
