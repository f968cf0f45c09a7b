"""Displaced levels: the exact relation to level 0."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from wsisr.testing.levels import LevelShift, reduce_shifted


def _noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@settings(max_examples=40, deadline=None)
@given(
    factor=st.sampled_from([1, 2, 3, 4, 8, 16, 32]),
    dx=st.integers(-13, 13),
    dy=st.integers(-13, 13),
    x=st.integers(0, 6),
    y=st.integers(0, 6),
)
def test_whole_shift_is_the_exact_box_mean(factor: int, dx: int, dy: int, x: int, y: int) -> None:
    shift = LevelShift(factor=factor, x_px=dx, y_px=dy)
    x0, x1 = shift.source_span("x", x, 5)
    y0, y1 = shift.source_span("y", y, 4)
    source = _noise(y1 - y0, x1 - x0)
    level = reduce_shifted(source, (x0, y0), shift, (x, y, 5, 4))
    boxes = source.reshape(4, factor, 5, factor, 3).astype(np.int64).sum((1, 3))
    np.testing.assert_array_equal(level, (boxes + factor**2 // 2) // factor**2)
    assert (x0, y0) == (factor * x + dx, factor * y + dy)


def test_bright_boxes_do_not_overflow() -> None:
    for factor in (8, 16, 64):
        shift = LevelShift(factor=factor)
        source = np.full((2 * factor, 3 * factor, 3), 255, np.uint8)
        assert (reduce_shifted(source, (0, 0), shift, (0, 0, 3, 2)) == 255).all()


def test_fractional_shift_moves_a_wave_by_exactly_that_much() -> None:
    """A band-limited wave has a known value everywhere, so its displaced box mean has too."""
    factor, period, dx, slope = 4, 37.0, 2.37, 3e-4
    shift = LevelShift(factor=factor, x_px=dx, y_px=-1.5, slope_x=slope)
    x0, x1 = shift.source_span("x", 10, 60)
    y0, y1 = shift.source_span("y", 3, 5)
    centres = np.arange(x0, x1) + 0.5
    wave = 128 + 100 * np.sin(2 * np.pi * centres / period)
    source = np.rint(np.broadcast_to(wave[None, :, None], (y1 - y0, x1 - x0, 3))).astype(np.uint8)
    level = reduce_shifted(source, (x0, y0), shift, (10, 3, 60, 5))

    starts = factor * np.arange(10, 70) * (1 + slope) + dx
    inside = starts[:, None] + np.arange(factor) + 0.5
    expected = (128 + 100 * np.sin(2 * np.pi * inside / period)).mean(1)
    assert np.abs(level[2, :, 0] - expected).max() < 1.01  # two roundings to grey levels


def test_fractional_code_agrees_with_whole_code() -> None:
    source = _noise(80, 90)
    whole = LevelShift(factor=4, x_px=3.0, y_px=-2.0)
    nearly = LevelShift(factor=4, x_px=3.0 + 1e-9, y_px=-2.0)
    args = (4, 5, 8, 6)
    a = reduce_shifted(source, (-4, -4), whole, args)
    b = reduce_shifted(source, (-4, -4), nearly, args)
    assert np.abs(a.astype(int) - b).max() <= 1
    assert np.mean(a != b) < 0.1  # only ties round differently
