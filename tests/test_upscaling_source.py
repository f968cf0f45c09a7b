"""Which level is read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from upscaling_samples import repeated, slide_file

from wsisr.errors import ConfigError, MagnificationError, MppError
from wsisr.geometry import Box
from wsisr.slides import open_slide, reduce_image
from wsisr.upscaling.source import plan_plane, plane_region, read_plane, read_plane_validity


def test_stored_levels_are_preferred_within_one_per_cent(tmp_path: Path) -> None:
    with open_slide(slide_file(tmp_path / "s.tiff", 801, 602)) as slide:
        info = slide.info
        assert plan_plane(info).factor == 1
        for plane in (plan_plane(info, magnification=5), plan_plane(info, level_um_per_px=1.99)):
            assert (plane.level, plane.reduction) == (1, 1.0)
            assert plane.um_per_px == pytest.approx((2.0, 2.0))
        plane = plan_plane(info, level_um_per_px=3.0)
        assert (plane.level, plane.reduction, plane.width_px) == (1, 1.5, 133)
        with pytest.raises(MagnificationError, match="coarser"):
            plan_plane(info, magnification=40)
        with pytest.raises(ConfigError, match="not both"):
            plan_plane(info, magnification=5, level_um_per_px=1)
        with pytest.raises(MppError, match="--mpp"):
            plan_plane(replace(info, mpp=None), magnification=5)


def test_reduced_planes_are_one_picture_wherever_they_are_read(tmp_path: Path) -> None:
    with open_slide(slide_file(tmp_path / "s.tiff", 800, 600)) as slide:
        plane = plan_plane(slide.info, magnification=10)
        whole = reduce_image(repeated(800, 600), 2.0)
        box = Box(x=37, y=11, width=100, height=50)
        np.testing.assert_array_equal(read_plane(slide, plane, box), whole[11:61, 37:137])
        assert read_plane_validity(slide, plane, box).shape == (50, 100)


def test_regions_are_level_0_and_cut_at_the_edge(tmp_path: Path) -> None:
    with open_slide(slide_file(tmp_path / "s.tiff", 800, 600)) as slide:
        plane = plan_plane(slide.info, magnification=5)
        found = plane_region(plane, Box(x=402, y=100, width=9999, height=40))
        assert found == Box(x=100, y=25, width=100, height=10)
        with pytest.raises(ConfigError, match="outside the slide"):
            plane_region(plane, Box(x=800, y=0, width=10, height=10))
