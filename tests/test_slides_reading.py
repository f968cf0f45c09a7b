"""The layers of one patch: stored where a level has them, reduced with real context where not."""

from pathlib import Path

import numpy as np
import pytest
from slides_samples import box_level, picture, write_pyramid

from wsisr.errors import GeometryError
from wsisr.geometry import Layer, patch_geometry
from wsisr.slides import open_slide, read_layer, read_layer_validity, reduce_image
from wsisr.slides.reading import source_origin_px, source_size_px

NATIVE = Layer(name="40x", factor=1.0, size_px=128, level=0, reduction=1.0)
STORED = Layer(name="10x", factor=4.0, size_px=32, level=1, reduction=1.0)
MADE = Layer(name="20x", factor=2.0, size_px=64, level=0, reduction=2.0)
FROM_LEVEL = Layer(name="5x", factor=8.0, size_px=16, level=1, reduction=2.0)
GEOMETRY = patch_geometry((NATIVE, MADE, STORED, FROM_LEVEL), (1, 4))


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    image = picture(1027, 771)
    path: Path = write_pyramid(
        tmp_path_factory.mktemp("r") / "a.tif",
        [image, box_level(image, 4)],
        compression="deflate",
        missing={2},
    )
    with open_slide(path) as slide:
        yield slide


def test_native_layers_are_stored_pixels(slide) -> None:
    image = picture(1027, 771)
    np.testing.assert_array_equal(
        read_layer(slide, GEOMETRY, NATIVE, 120, 64), image[64:192, 120:248]
    )
    np.testing.assert_array_equal(
        read_layer(slide, GEOMETRY, STORED, 120, 64), box_level(image, 4)[16:48, 30:62]
    )


def test_made_layers_are_crops_of_the_whole_reduction(slide) -> None:
    image = picture(1027, 771)
    whole = reduce_image(image[:, :512], 2)
    np.testing.assert_array_equal(read_layer(slide, GEOMETRY, MADE, 120, 64), whole[32:96, 60:124])
    level = reduce_image(box_level(image, 4), 2)
    np.testing.assert_array_equal(
        read_layer(slide, GEOMETRY, FROM_LEVEL, 120, 64), level[8:24, 15:31]
    )


def test_validity_follows_the_level_that_is_read(slide) -> None:
    # Tile 2 of level 0 (x 512-767, y 0-255) is missing; level 1 is whole.
    for layer, valid in ((NATIVE, False), (MADE, False), (STORED, True), (FROM_LEVEL, True)):
        assert read_layer_validity(slide, GEOMETRY, layer, 480, 64) is valid
    for layer in GEOMETRY.layers:
        assert read_layer_validity(slide, GEOMETRY, layer, 128, 256)
        assert not read_layer_validity(slide, GEOMETRY, layer, 1024, 0)
        assert not read_layer_validity(slide, GEOMETRY, layer, -8, 0)


def test_origins_off_the_grid_are_refused(slide) -> None:
    assert GEOMETRY.step_px == 8
    for x, y in ((1, 0), (0, 4)):
        with pytest.raises(GeometryError, match="off the patch grid of 8"):
            read_layer(slide, GEOMETRY, NATIVE, x, y)


def test_source_regions() -> None:
    assert source_origin_px(GEOMETRY, FROM_LEVEL, 80, 160) == (20, 40)
    assert source_size_px(FROM_LEVEL) == 32
    physical = Layer(name="x", factor=1.03, size_px=100, level=0, reduction=1.03)
    assert source_size_px(physical) == 103
    odd = Layer(name="x", factor=8.0, size_px=16, level=1, reduction=2.5, margin_px=1)
    with pytest.raises(GeometryError, match="not a whole number"):
        source_origin_px(GEOMETRY, odd, 0, 0)
