"""Vendors' layouts that OpenSlide alone reads, written by the tests: every pixel is known."""

from pathlib import Path

import numpy as np
import pytest
from slides_samples import picture
from vendor_files import write_mirax

from wsisr.slides import open_slide


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
