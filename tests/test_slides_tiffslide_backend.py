"""tiffslide as a second exact reader of the same stored pixels."""

from pathlib import Path

import numpy as np
import pytest
from slides_samples import box_level, picture, write_aperio, write_pyramid

from wsisr.errors import SlideError
from wsisr.slides import open_slide


@pytest.mark.parametrize("name", ["derived_cmu_generic_3level.tif", "test3-DAPI.ndpi"])
def test_every_real_level_equals_the_direct_reader(shared_data: Path, name: str) -> None:
    path = shared_data / "slides" / name
    with open_slide(path) as ours, open_slide(path, backend="tiffslide") as theirs:
        for level in ours.info.levels:
            other = theirs.info.levels[level.index]
            assert (level.factor, level.compression) == (other.factor, other.compression)
            x, y = level.width_px - 320, level.height_px - 310
            np.testing.assert_array_equal(
                ours.read_level(level.index, x, y, 320, 310),
                theirs.read_level(level.index, x, y, 320, 310),
            )
        assert ours.info.mpp == theirs.info.mpp


def test_levels_with_truncated_sizes_are_exact_to_the_far_edge(tmp_path: Path) -> None:
    image = picture(2999, 401)
    levels = [image, box_level(image, 2), box_level(image, 4), box_level(image, 8)]
    path = write_pyramid(tmp_path / "a.tif", levels, tile=128, compression="deflate")
    with open_slide(path, backend="tiffslide") as slide:
        for index, expected in enumerate(levels):
            height, width = expected.shape[:2]
            got = slide.read_level(index, 0, 0, width, height)
            np.testing.assert_array_equal(got, expected)


def test_missing_tiles_are_white_and_invalid_not_black(tmp_path: Path) -> None:
    image = picture(700, 600)
    path = write_pyramid(tmp_path / "m.tif", [image], compression="deflate", missing={1, 5})
    with open_slide(path) as ours, open_slide(path, backend="tiffslide") as theirs:
        box = (0, -5, -5, 720, 620)
        np.testing.assert_array_equal(ours.read_level(*box), theirs.read_level(*box))
        np.testing.assert_array_equal(ours.read_validity(*box), theirs.read_validity(*box))


def test_ycbcr_jpeg2000_is_left_to_others(tmp_path: Path) -> None:
    path = write_aperio(tmp_path / "a.svs", [picture(300, 300)], "APERIO_JP2000_YCBC")
    with pytest.raises(SlideError, match="does not convert"):
        open_slide(path, backend="tiffslide")
