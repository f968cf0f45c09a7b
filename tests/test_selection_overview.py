"""Overviews are exact area means at a stated resolution, in bounded memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_scenes import ArraySlide

from wsisr.errors import SlideError
from wsisr.selection import overview
from wsisr.selection.overview import plan_overview, read_overview
from wsisr.slides import open_slide
from wsisr.slides.tiles import Tile
from wsisr.testing import SlideSpec, write_slide


def _exact(picture: np.ndarray, reduction: float, shape: tuple[int, int]) -> np.ndarray:
    """Area means by integrating the piecewise constant picture."""

    def matrix(size: int, count: int) -> np.ndarray:
        start = np.arange(count)[:, None] * reduction
        source = np.arange(size)[None]
        share = np.minimum(start + reduction, source + 1) - np.maximum(start, source)
        share = np.clip(share, 0, None)
        return share / share.sum(axis=1, keepdims=True)

    rows, columns = matrix(picture.shape[0], shape[0]), matrix(picture.shape[1], shape[1])
    return np.einsum("ry,yxc,kx->rkc", rows, picture.astype(float), columns)


@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(40, 110),
    width=st.integers(40, 110),
    mpp=st.floats(0.21, 3.9),
    block=st.sampled_from([32, 64, 4096]),
)
def test_overview_is_the_exact_area_mean_for_any_factor_and_block(height, width, mpp, block):
    picture = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    slide = ArraySlide([picture], mpp, tile_px=32)
    before = overview.BLOCK_PX
    overview.BLOCK_PX = block
    try:
        view = read_overview(slide, 4.0)
    finally:
        overview.BLOCK_PX = before
    plan = plan_overview(slide.info, 4.0)
    expected = _exact(picture, plan.reduction, view.rgb.shape[:2])
    assert np.abs(view.rgb - expected).max() <= 0.51
    assert view.valid.all()
    assert view.factor == pytest.approx(4.0 / mpp)


def test_blocks_bound_what_is_read_at_once(monkeypatch):
    monkeypatch.setattr(overview, "BLOCK_PX", 128)
    slide = ArraySlide([np.full((700, 900, 3), 200, np.uint8)], 1.0, tile_px=48)
    read_overview(slide, 8.0)
    assert max(width for _, width, _ in slide.reads) <= 128
    assert max(height for _, _, height in slide.reads) <= 128
    assert sum(w * h for _, w, h in slide.reads) == 700 * 900


def test_bands_of_wide_slides_are_low_and_change_no_pixel(monkeypatch):
    picture = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)
    slide = ArraySlide([picture], 1.0, tile_px=48)
    whole = read_overview(slide, 4.0)
    monkeypatch.setattr(overview, "BAND_BYTES", 16 * 225 * 20)  # 20 rows of sums
    slide.reads.clear()
    low = read_overview(slide, 4.0)
    assert max(height for _, _, height in slide.reads) <= 4 * 20
    assert np.array_equal(low.rgb, whole.rgb) and np.array_equal(low.valid, whole.valid)


def test_never_scanned_pixels_take_no_part():
    picture = np.full((64, 64, 3), 100, np.uint8)
    valid = np.ones((64, 64), np.bool_)
    picture[:, :36] = 0
    valid[:, :36] = False
    view = read_overview(ArraySlide([picture], 1.0, [valid]), 8.0)
    assert not view.valid[:, :4].any()
    assert view.valid[:, 4:].all()
    assert (view.rgb[:, :4] == 255).all()
    assert (view.rgb[:, 4:] == 100).all()


def test_levels_without_an_exact_factor_are_not_used():
    levels = [np.zeros((300, 300, 3), np.uint8), np.zeros((100, 140, 3), np.uint8)]
    assert plan_overview(ArraySlide(levels, 1.0).info, 8.0).level == 0


def test_absurd_resolution_is_refused_before_reading():
    huge = np.broadcast_to(np.uint8(0), (200_000, 200_000, 3))
    with pytest.raises(SlideError, match="resolution is probably wrong"):
        plan_overview(ArraySlide([huge], 8.0).info, 8.0)


def test_decoded_tiles_are_not_kept_when_all_has_been_read(tmp_path):
    path = tmp_path / "slide.tif"
    write_slide(path, SlideSpec(seed=0, width_px=900, height_px=700))
    with open_slide(path) as slide:
        level = plan_overview(slide.info).level
        read_overview(slide)
        decoded = []
        slide.store.fetch = lambda *place: decoded.append(place) or Tile(None)
        slide.read_level(level, 0, 0, 8, 8)
        assert decoded == [(level, 0, 0)]
