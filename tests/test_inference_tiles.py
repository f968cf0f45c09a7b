"""Plans of windows: nothing missed, nothing twice, no rounding of a tile's own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsisr.errors import ConfigError
from wsisr.geometry import Box
from wsisr.inference.tiles import (
    BLOCK_PX,
    Frame,
    NetworkWindow,
    Tiling,
    TilingNeeds,
    axis_weights,
    blocks_of,
    plan_frame,
    plan_tiles,
    spans,
    split_window,
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
    plan = Tiling(core_px=core, blend_px=core // 4, halo_px=halo, multiple_px=multiple)
    seen = 0
    for block in blocks_of(frame, 1024):
        for row in window_rows(frame, block, plan):
            for w in row:
                seen += (w.across.last - w.across.first) * (w.down.last - w.down.first)
                assert max(w.core.width, w.core.height) <= core
                assert w.core.x % core == w.core.y % core == 0
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
    share=st.integers(0, 4),
    cut=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    block=st.integers(100, 2000),
)
def test_weights_of_all_cores_sum_to_one_everywhere(
    length: int, core: int, share: int, cut: tuple[float, float], block: int
) -> None:
    """In any region, whatever the blocks."""
    plan = Tiling(core_px=core, blend_px=core * share // 8, halo_px=8, multiple_px=1)
    first, last = sorted(round(c * length) for c in cut)
    total = np.zeros(length)
    for at in range(first, last, block):
        for span in spans(length, (first, last), (at, min(at + block, last)), plan):
            end = min(span.stop + plan.blend_px, last) if span.last >= span.stop else span.last
            total[span.first : end] += axis_weights(span, (span.first, end), plan.blend_px)
    np.testing.assert_allclose(total[first:last], 1, atol=1e-6)
    assert not total[:first].any() and not total[last:].any()


def test_output_sizes_are_rounded_once_for_the_whole_plane() -> None:
    frame = plan_frame(101, 57, 2.4)
    assert (frame.width_px, frame.height_px) == (242, 137)
    whole = [w.lr for row in window_rows(frame, blocks_of(frame)[0], _plan(100)) for w in row]
    assert whole[-1].right == 101 and whole[-1].bottom == 57


def _windows(frame: Frame, block: Box, plan: Tiling) -> dict[Box, NetworkWindow]:
    return {w.core: w for row in window_rows(frame, block, plan) for w in row}


def test_a_region_and_any_block_have_the_windows_of_the_whole_output() -> None:
    whole, part = (
        plan_frame(400, 400, 2.4),
        plan_frame(400, 400, 2.4, Box(x=50, y=0, width=99, height=9)),
    )
    assert part.region == Box(x=120, y=0, width=238, height=22)
    every = _windows(whole, whole.region, _plan(64, blend=16))
    for block in blocks_of(part, 100):
        cut = _windows(part, block, _plan(64, blend=16))
        assert cut and all(window.lr == every[core].lr for core, window in cut.items())


def test_a_split_window_covers_the_same_reach_with_smaller_inputs() -> None:
    frame = plan_frame(500, 500, 4)
    window = _windows(frame, frame.region, _plan(400, blend=20))[
        Box(x=400, y=400, width=400, height=400)
    ]
    parts = split_window(frame, _plan(400), window, 128)
    assert sum(p.reach.width * p.reach.height for p in parts) == window.reach.width**2
    assert max(p.lr.width for p in parts) < window.lr.width


def test_the_tiling_hangs_on_model_and_scale_and_fills_stored_tiles() -> None:
    needs = TilingNeeds(halo_px=8, halo_exact=False, tile_px=64, multiple_px=4)
    plan = plan_tiles(needs, 4.0)
    assert plan == Tiling(core_px=256, blend_px=8, halo_px=8, multiple_px=4)
    assert [BLOCK_PX % plan_tiles(needs, s).core_px for s in (1.0, 2.4, 3.3, 8.0, 64.0)] == [0] * 5
    assert plan_tiles(needs, 3.0, 20).core_px == 60
    with pytest.raises(ConfigError, match="--tile 4 is too small"):
        plan_tiles(needs, 4.0, 4)
    with pytest.raises(ConfigError, match="--halo"):
        plan_tiles(needs, 4.0, None, -1)


def test_cores_fade_even_where_the_halo_is_exact_since_background_is_bicubic() -> None:
    exact = TilingNeeds(halo_px=6, halo_exact=True, tile_px=256, multiple_px=1)
    assert plan_tiles(exact, 2.0).blend_px == 16 and plan_tiles(exact, 2.0).exact
    cut = plan_tiles(exact, 2.0, None, 2)
    assert (cut.halo_px, cut.blend_px, cut.exact) == (2, 4, False)
    everywhere = TilingNeeds(halo_px=3, halo_exact=True, tile_px=256, multiple_px=1, seamless=True)
    assert plan_tiles(everywhere, 2.0).blend_px == 0


@pytest.mark.parametrize("scale", [0.5, 65, float("nan")])
def test_scales_that_make_no_sense_are_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="--scale"):
        plan_frame(10, 10, scale)


def test_a_region_outside_the_plane_is_refused() -> None:
    with pytest.raises(ConfigError, match="not inside"):
        plan_frame(10, 10, 2, Box(x=5, y=5, width=6, height=1))


def _plan(core: int, blend: int = 0) -> Tiling:
    return Tiling(core_px=core, blend_px=blend, halo_px=8, multiple_px=8)
