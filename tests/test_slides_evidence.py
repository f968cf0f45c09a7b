"""What stored levels are made of."""

from pathlib import Path

import numpy as np
import pytest
from slides_samples import box_level, picture, write_pyramid

from wsisr import runners
from wsisr.slides import level_evidence, open_slide, reduce_image
from wsisr.slides.tiles import TiledSlide


@pytest.mark.parametrize(("make", "kernel"), [(box_level, "area"), (reduce_image, "bicubic")])
def test_a_lossless_software_level_is_recognised_with_its_kernel(
    tmp_path: Path, make, kernel: str
) -> None:
    image = picture(1024, 768)
    path = write_pyramid(tmp_path / "a.tif", [image, make(image, 4)], compression="deflate")
    with open_slide(path) as slide:
        (evidence,) = level_evidence(slide)
    assert (evidence.level, evidence.factor, evidence.kernel) == (1, 4, kernel)
    assert evidence.psnr_db > 60 and not evidence.warning
    assert evidence.detail_ratio == pytest.approx(1.0, abs=0.3)
    assert "in software" in evidence.verdict


def test_recompressed_blurred_and_decimated_levels_are_warned_of(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = np.clip(picture(1024, 768) + rng.normal(0, 40, (768, 1024, 3)), 0, 255)
    image = image.astype(np.uint8)
    half = box_level(image, 2)
    blurred = np.stack([np.roll(half, shift, axis=1) for shift in (-1, 0, 1)]).mean(axis=0)
    sharp = np.clip(2.0 * half.astype(float) - np.roll(half, 1, axis=0), 0, 255)
    cases = {
        "blurred": blurred.astype(np.uint8),
        "own processing": sharp.astype(np.uint8),
        "without antialiasing": image[::2, ::2].copy(),
    }
    for words, level in cases.items():
        path = write_pyramid(tmp_path / f"{words}.tif", [image, level], compression="deflate")
        with open_slide(path) as slide:
            (evidence,) = level_evidence(slide)
        assert evidence.warning and words in evidence.verdict, evidence


def test_real_levels(shared_data: Path) -> None:
    # Made by box reduction and compressed again at Q90.
    with open_slide(shared_data / "slides" / "derived_cmu_generic_3level.tif") as slide:
        found = level_evidence(slide)
    assert [evidence.factor for evidence in found] == [2, 4]
    assert all(evidence.kernel == "area" and evidence.places == 8 for evidence in found)
    assert all(28 < evidence.psnr_db < 40 for evidence in found)


def test_the_real_dicom_levels_were_made_by_leaving_pixels_out(shared_data: Path) -> None:
    with open_slide(shared_data / "slides" / "cmu-1-small-region_dicom") as slide:
        found = level_evidence(slide)
    assert [evidence.kernel for evidence in found[:2]] == ["decimated", "decimated"]
    assert all(evidence.warning and evidence.detail_ratio > 1.3 for evidence in found[:2])


def test_levels_that_pairs_cannot_use_are_left_out(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "slides" / "derived_cmu_generic_3level.tif"
    with open_slide(path, backend="openslide") as slide:
        assert level_evidence(slide) == ()
    blank = np.full((512, 512, 3), 240, np.uint8)
    flat = write_pyramid(tmp_path / "b.tif", [blank, blank[::2, ::2]], compression="deflate")
    with open_slide(flat) as slide:
        (evidence,) = level_evidence(slide)
    assert evidence.places == 0 and np.isnan(evidence.psnr_db) and not evidence.warning


def test_all_levels_are_held_against_one_set_of_places_by_any_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(2048, 2048)
    levels = [image, *(box_level(image, factor) for factor in (2, 4, 8))]
    path = write_pyramid(tmp_path / "a.tif", levels, compression="deflate")
    decoded: list[tuple[int, int, int]] = []
    honest = TiledSlide.decode_tile

    def decode_tile(self, *key):
        decoded.append(key)
        return honest(self, *key)

    monkeypatch.setattr(TiledSlide, "decode_tile", decode_tile)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(runners, "_threads", threads)
        with open_slide(path, check=False) as slide:
            found.append(level_evidence(slide))
        if threads == 1:
            assert len(decoded) == len(set(decoded)), "a tile was decoded twice"
    assert found[0] == found[1]
    assert [one.places for one in found[0]] == [8, 8, 8]
