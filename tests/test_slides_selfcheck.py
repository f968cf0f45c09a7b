"""The second opinion: agreement on real files, and the fall-back when a reader lies."""

import logging
from pathlib import Path

import numpy as np
import pytest
from slides_samples import box_level, picture, write_pyramid

import wsisr.slides.direct as direct
from wsisr.slides import find_slides, open_checked_slide, open_slide, self_check
from wsisr.slides.tiles import Tile


def test_every_real_slide_agrees_with_its_second_reader(shared_data: Path) -> None:
    seconds = {}
    for source in find_slides(shared_data / "slides"):
        if source.slide_id == "broken":
            continue
        with open_slide(source.path) as slide:
            check = self_check(slide, seed=3, tiles=3)
        assert check.agrees, check.detail
        assert check.regions >= 3 and check.max_difference == 0
        seconds[source.slide_id] = check.second_backend
    # OpenSlide does not open flat TIFFs.
    assert seconds.pop("kidney-48-5_ihc_flat") == "tiffslide"
    assert set(seconds.values()) == {"openslide"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    image = picture(600, 500)
    return write_pyramid(
        tmp_path / "a.tif", [image, box_level(image, 2)], compression="jpeg", um_per_px=0.25
    )


def test_a_reader_that_lies_is_replaced_and_the_reason_logged(path, monkeypatch, caplog) -> None:
    honest = direct.DirectStore.fetch

    def off_by_one(self, level, row, column):
        tile = honest(self, level, row, column)
        return Tile(np.roll(tile.pixels, 1, axis=1), tile.valid)

    monkeypatch.setattr(direct.DirectStore, "fetch", off_by_one)
    with caplog.at_level(logging.WARNING, logger="wsisr.slides.selfcheck"):
        slide, check = open_checked_slide(path, mpp=0.3)
    with slide:
        assert not check.agrees and check.second_backend == "openslide"
        assert check.max_difference > 0
        assert slide.info.backend == "openslide"
        assert slide.info.mpp is not None and slide.info.mpp.value == 0.3
    assert "direct and openslide differ" in caplog.text
    assert "with openslide instead" in caplog.text


def test_an_honest_reader_is_kept(path) -> None:
    slide, check = open_checked_slide(path, seed=1)
    with slide:
        assert check.agrees and slide.info.backend == "direct"


def test_the_same_seed_looks_at_the_same_places(path, monkeypatch) -> None:
    seen: list[tuple[int, ...]] = []
    read = direct.TiffLevel.chunks_of

    def spy(self, row, column):
        seen.append((row, column))
        return read(self, row, column)

    runs = []
    for seed in (5, 5, 6):
        seen.clear()
        with open_slide(path) as slide:
            monkeypatch.setattr(direct.TiffLevel, "chunks_of", spy)
            self_check(slide, seed, tiles=4)
            monkeypatch.setattr(direct.TiffLevel, "chunks_of", read)
        runs.append(list(seen))
    assert runs[0] == runs[1] != runs[2]


def test_a_plain_image_has_no_second_reader(shared_data: Path) -> None:
    path = shared_data / "patches" / "nct_crc_224_0.5mpp" / "ADI-AAQEFMRI.tif"
    with open_slide(path, backend="image") as slide:
        check = self_check(slide)
    assert check.agrees and check.second_backend is None and "not cross-checked" in check.detail
