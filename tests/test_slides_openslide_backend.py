"""OpenSlide: the oracle at level 0, and honest about where it interpolates."""

from pathlib import Path

import numpy as np
import pytest
from slides_samples import box_level, picture, write_pyramid

from wsisr.errors import SlideError
from wsisr.slides import open_slide


def test_levels_are_exact_only_with_whole_downsamples(tmp_path: Path) -> None:
    whole, odd = picture(1024, 768), picture(1027, 771)
    exact = write_pyramid(tmp_path / "e.tif", [whole, box_level(whole, 2)], compression="deflate")
    inexact = write_pyramid(tmp_path / "i.tif", [odd, box_level(odd, 2)], compression="deflate")
    with open_slide(exact, backend="openslide") as slide:
        assert [level.exact for level in slide.info.levels] == [True, True]
        expected = box_level(whole, 2)[100:300, 201:450]
        np.testing.assert_array_equal(slide.read_level(1, 201, 100, 249, 200), expected)
    with open_slide(inexact, backend="openslide") as slide:
        assert [level.exact for level in slide.info.levels] == [True, False]


def test_facts_of_a_real_slide(shared_data: Path) -> None:
    path = shared_data / "slides" / "CMU-1-Small-Region.svs"
    with open_slide(path, backend="openslide") as slide, open_slide(path) as direct:
        assert slide.info.vendor == direct.info.vendor == "aperio"
        assert slide.info.mpp == direct.info.mpp
        assert slide.info.objective_power == direct.info.objective_power == 20.0
        assert slide.info.fingerprint == direct.info.fingerprint


def test_unknown_format_is_a_slide_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mrxs"
    path.write_bytes(b"not a slide")
    with pytest.raises(SlideError, match=r"a\.mrxs.*OpenSlide cannot open it"):
        open_slide(path, backend="openslide")
