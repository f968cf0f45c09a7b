"""Antialiased reduction: the kernel, its phase, its edges, and reads with real context."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slides_samples import picture, write_pyramid

from wsisr.errors import GeometryError
from wsisr.slides import open_slide, read_resampled, reduce_image


def reference(rgb: np.ndarray, factor: float) -> np.ndarray:
    """The definition, one output pixel after the other, in float64."""

    def axis(data: np.ndarray, count: int) -> np.ndarray:
        out = np.empty((count, *data.shape[1:]))
        size = len(data)
        for k in range(count):
            centre = (k + 0.5) * factor - 0.5
            index = np.arange(np.floor(centre - 2 * factor) - 1, np.ceil(centre + 2 * factor) + 2)
            d = np.abs(centre - index) / factor
            weight = np.where(
                d <= 1,
                1.5 * d**3 - 2.5 * d**2 + 1,
                np.where(d <= 2, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2, 0),
            )
            mirrored = np.mod(index.astype(int), 2 * size)
            mirrored = np.where(mirrored >= size, 2 * size - 1 - mirrored, mirrored)
            out[k] = np.tensordot(weight / weight.sum(), data[mirrored], 1)
        return out

    height, width = (int(np.ceil(side / factor - 1e-9)) for side in rgb.shape[:2])
    rows = axis(rgb.astype(np.float64), height)
    both = axis(np.moveaxis(rows, 1, 0), width)
    return np.clip(np.moveaxis(both, 0, 1), 0, 255)


@pytest.mark.parametrize("factor", [1.0, 2, 2.5, 3, 4, 8])
def test_equals_the_definition(factor: float) -> None:
    image = picture(61, 47)
    got = reduce_image(image, factor)
    assert np.abs(got - reference(image, factor)).max() <= 0.5 + 1e-3


def test_a_constant_stays_constant_and_a_ramp_keeps_its_phase() -> None:
    flat = np.full((40, 40, 3), 137, np.uint8)
    assert (reduce_image(flat, 4) == 137).all()
    # Half-pixel centres: output k sits between inputs 4k + 1 and 4k + 2.
    ramp = np.repeat(np.repeat(np.arange(160, dtype=np.uint8)[None, :, None], 20, 0), 3, 2)
    got = reduce_image(ramp, 4)[2, 4:-4, 0].astype(float)
    np.testing.assert_allclose(got, 4 * np.arange(4, 36) + 1.5, atol=0.51)


def test_size_instead_of_a_factor() -> None:
    image = picture(101, 60)
    assert reduce_image(image, size=(50, 30)).shape == (30, 50, 3)
    for bad in ({}, {"factor": 2, "size": (5, 5)}, {"factor": 0.5}, {"size": (102, 60)}):
        with pytest.raises(GeometryError):
            reduce_image(image, **bad)


@pytest.fixture(scope="module")
def slide_and_image(tmp_path_factory):
    image = picture(640, 480)
    path = write_pyramid(
        tmp_path_factory.mktemp("r") / "a.tif", [image], tile=128, compression="deflate"
    )
    with open_slide(path) as slide:
        yield slide, image


@settings(max_examples=25, deadline=None)
@given(
    factor=st.sampled_from([2, 4, 8]),
    column=st.integers(0, 50),
    row=st.integers(0, 40),
)
def test_a_read_equals_a_crop_of_the_whole_reduction(slide_and_image, factor, column, row) -> None:
    slide, image = slide_and_image
    whole = reduce_image(image, factor)
    height, width = whole.shape[:2]
    x, y = column % (width - 15), row % (height - 15)
    got = read_resampled(slide, 0, (float(x * factor), float(y * factor)), factor, (16, 16))
    np.testing.assert_array_equal(got, whole[y : y + 16, x : x + 16])


def test_fractional_positions_and_factors(slide_and_image) -> None:
    slide, _ = slide_and_image
    got = read_resampled(slide, 0, (100.25, 60.0), 2.0, (64, 64)).astype(float)
    left = read_resampled(slide, 0, (100.0, 60.0), 2.0, (64, 64)).astype(float)
    right = read_resampled(slide, 0, (100.5, 60.0), 2.0, (64, 64)).astype(float)
    between = (left + right) / 2
    assert np.abs(got - between).mean() < np.abs(left - right).mean() / 4
    assert read_resampled(slide, 0, (3.3, 4.4), 2.7, (50, 40)).shape == (40, 50, 3)


def test_stored_pixels_at_factor_1_and_white_far_outside(slide_and_image) -> None:
    slide, image = slide_and_image
    np.testing.assert_array_equal(
        read_resampled(slide, 0, (7.0, 9.0), 1.0, (33, 21)), image[9:30, 7:40]
    )
    assert (read_resampled(slide, 0, (9e4, 9e4), 2.0, (8, 8)) == 255).all()
    with pytest.raises(GeometryError, match="at least 1"):
        read_resampled(slide, 0, (0.0, 0.0), 0.5, (8, 8))


def test_missing_tiles_do_not_leak_far(tmp_path: Path) -> None:
    image = picture(512, 256)
    path = write_pyramid(tmp_path / "m.tif", [image], compression="deflate", missing={1})
    with open_slide(path) as slide:
        got = read_resampled(slide, 0, (0.0, 0.0), 4.0, (128, 64))
        np.testing.assert_array_equal(got[:, :62], reduce_image(image, 4)[:, :62])
        assert (got[:, 67:] == 255).all()
