"""Vendors' layouts that OpenSlide alone reads, written by the tests: every pixel is known."""

from pathlib import Path

import numpy as np
import pytest
from slides_samples import picture
from vendor_files import write_mirax, write_ndpi, write_scn

from wsisr.slides import judge_slide, open_slide
from wsisr.slides.readers import BACKENDS


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSISR_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return picture(700, 620)


@pytest.mark.parametrize("overlap", [0, 32])
def test_mirax_joins_its_camera_images(tmp_path: Path, image: np.ndarray, overlap: int) -> None:
    """Their overlap is laid over each other, what was not scanned is no pixel."""
    path = write_mirax(tmp_path / "a.mrxs", image, overlap=overlap, levels=2, missing=((1, 2),))
    with open_slide(path) as slide:
        info = slide.info
        assert (info.backend, info.vendor) == ("openslide", "mirax")
        assert info.verdict is not None and info.verdict.status == "unchecked"
        assert info.mpp is not None and info.mpp.value == pytest.approx(0.25)
        base, half = info.levels
        assert half.factor == 2 and half.exact
        size = (base.width_px, base.height_px)
        shown, valid = slide.read_level(0, 0, 0, *size), slide.read_validity(0, 0, 0, *size)
        assert 0.9 < valid.mean() < 1.0 and (shown[~valid] == 255).all()
        np.testing.assert_array_equal(shown[valid], image[: size[1], : size[0]][valid])
        left = 128 - overlap  # the image that is missing, without what its neighbours show of it
        assert not valid[left + overlap : 2 * left, 2 * left + overlap : 3 * left].any()


def test_leica_areas_lie_where_the_file_says(tmp_path: Path, image: np.ndarray) -> None:
    """Two areas on one plane: others would show the macro, or one area as the slide."""
    first, second = image[:300, :400], image[300:600, 100:400]
    path = write_scn(tmp_path / "a.scn", [(first, 100, 50), (second, 700, 500)], (1200, 1000))
    with open_slide(path) as slide:
        info = slide.info
        assert (info.backend, info.vendor, info.origin_px) == ("openslide", "leica", (100, 50))
        assert info.verdict is not None and info.verdict.status == "unchecked"
        assert [(v.width_px, v.factor, v.exact) for v in info.levels] == [
            (1200, 1, True),
            (600, 2, True),
        ]
        shown, valid = (
            slide.read_level(0, 0, 0, 1200, 1000),
            slide.read_validity(0, 0, 0, 1200, 1000),
        )
    np.testing.assert_array_equal(shown[50:350, 100:500], first)
    np.testing.assert_array_equal(shown[500:800, 700:1000], second)
    assert valid.sum() == first[..., 0].size + second[..., 0].size
    assert valid[50:350, 100:500].all() and (shown[~valid] == 255).all()


def test_hamamatsu_focal_planes_are_told_apart(tmp_path: Path) -> None:
    """The middle plane by its height, not the first page; the planes lie in no order."""
    planes = [picture(320, 256, seed) for seed in (5, 0, 6)]
    path = write_ndpi(tmp_path / "a.ndpi", planes, [2000, -2000, 0])
    for asked, wanted in ((None, 2), (1, 1), (3, 0)):
        with open_slide(path, focal_plane=asked) as slide:
            shown = slide.read_level(0, 0, 0, 320, 256).astype(int)
            assert slide.info.backend == "direct" and "3 focal planes" in slide.info.quirks[0]
            assert slide.info.verdict is not None and slide.info.verdict.status == "agree"
        off = [np.abs(shown - plane).mean() for plane in planes]
        assert off[wanted] < 5 and int(np.argmin(off)) == wanted, off


REAL = {
    "direct": "slides/CMU-1-Small-Region.svs",
    "tiffslide": "slides/derived_cmu_generic_3level.tif",
    "openslide": "slides/test3-DAPI.ndpi",
    "dicom": "slides/cmu-1-small-region_dicom",
    "image": "patches/lowpower/prostate_2500.jpeg",
}


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_every_reader_is_the_first_of_a_real_file(shared_data: Path, backend: str) -> None:
    path = shared_data / REAL[backend]
    with open_slide(path, backend=backend) as slide, open_slide(path) as believed:
        assert slide.info.backend == backend
        level = slide.info.levels[0]
        box = (level.width_px // 3, level.height_px // 3, 128, 128)
        np.testing.assert_array_equal(slide.read_level(0, *box), believed.read_level(0, *box))
    verdict = judge_slide(path, backend)
    assert (verdict.status, verdict.reader) == ("agree", backend) and verdict.regions
