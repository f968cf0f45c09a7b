"""Plans of windows: nothing missed, nothing twice, no rounding of a tile's own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsisr.errors import ConfigError
from wsisr.geometry import Box
from wsisr.upscaling.tiling import (
    TilePlan,
    axis_weights,
    blocks_of,
    plan_frame,
    split_evenly,
    split_window,
    window_of,
    window_rows,
)


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    scale=st.floats(1.0, 8.0),
    core=st.integers(16, 300),
    halo=st.integers(0, 40),
    multiple=st.sampled_from([1, 2, 8, 16]),
)
def test_cores_cover_the_output_once_and_windows_hold_their_footprint(
    width: int, height: int, scale: float, core: int, halo: int, multiple: int
) -> None:
    frame = plan_frame(width, height, scale)
    plan = TilePlan(core_px=core, blend_px=core // 4, halo_px=halo, multiple_px=multiple)
    seen = 0
    for block in blocks_of(frame, 1024):
        for row in window_rows(frame, block, plan):
            for w in row:
                seen += w.core.width * w.core.height
                assert max(w.core.width, w.core.height) <= core
                assert w.lr.x % multiple == 0 and w.lr.y % multiple == 0
                assert w.lr.x >= 0 and w.lr.right <= width and w.lr.bottom <= height
                first, last = (
                    (w.reach.x + 0.5) / frame.scale_x,
                    (w.reach.right - 0.5) / frame.scale_x,
                )
                assert w.lr.x <= max(0, first - halo) and w.lr.right >= min(width, last + halo)
                assert w.lr.right == width or (w.lr.right - w.lr.x) % multiple == 0
    assert seen == frame.width_px * frame.height_px


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 2000),
    core=st.integers(8, 400),
    share=st.integers(0, 2),
    start=st.integers(0, 500),
)
def test_weights_of_all_cores_sum_to_one_everywhere(
    length: int, core: int, share: int, start: int
) -> None:
    blend = core * share // 8
    total = np.zeros(length)
    for left, right in split_evenly(start, length, core):
        weights = axis_weights((left, right), (start, start + length), blend)
        total[left - start : left - start + len(weights)] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_output_sizes_are_rounded_once_for_the_whole_plane() -> None:
    frame = plan_frame(101, 57, 2.4)
    assert (frame.width_px, frame.height_px) == (242, 137)
    whole = [w.lr for row in window_rows(frame, blocks_of(frame)[0], _plan(100)) for w in row]
    assert whole[-1].right == 101 and whole[-1].bottom == 57


def test_a_region_has_the_windows_of_the_whole_output() -> None:
    whole, part = (
        plan_frame(400, 400, 2.4),
        plan_frame(400, 400, 2.4, Box(x=50, y=0, width=99, height=9)),
    )
    assert part.region == Box(x=120, y=0, width=238, height=22)
    core = Box(x=200, y=0, width=20, height=10)
    assert window_of(whole, _plan(64), core).lr == window_of(part, _plan(64), core).lr


def test_a_split_window_covers_the_same_reach_with_smaller_inputs() -> None:
    frame = plan_frame(500, 500, 4)
    window = window_of(frame, _plan(400, blend=20), Box(x=400, y=400, width=400, height=400))
    parts = split_window(frame, _plan(400), window, 128)
    assert sum(p.reach.width * p.reach.height for p in parts) == window.reach.width**2
    assert max(p.lr.width for p in parts) < window.lr.width


@pytest.mark.parametrize("scale", [0.5, 65, float("nan")])
def test_scales_that_make_no_sense_are_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="--scale"):
        plan_frame(10, 10, scale)


def test_a_region_outside_the_plane_is_refused() -> None:
    with pytest.raises(ConfigError, match="not inside"):
        plan_frame(10, 10, 2, Box(x=5, y=5, width=6, height=1))


def _plan(core: int, blend: int = 0) -> TilePlan:
    return TilePlan(core_px=core, blend_px=blend, halo_px=8, multiple_px=8)
