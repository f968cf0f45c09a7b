"""Candidates lie on the patch grid, inside every level, and depend on nothing but the seed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_scenes import geometry_of, info_of

from wsisr.errors import GeometryError
from wsisr.selection.candidates import (
    boxes_of,
    greedy_non_overlapping,
    grid_candidates,
    origin_ranges,
    point_candidates,
    random_candidates,
    rank_keys,
    ranked_order,
    snap_to_tiles,
    weighted_points,
)
from wsisr.selection.hashing import hash_draws, hash_key, unit_interval

SIZES = st.integers(1_030, 9_000)


def _check(origins, geometry, info, margin=0):
    assert origins.dtype == np.int64
    assert (origins % geometry.step_px == 0).all()
    assert (origins >= margin).all()
    for layer in geometry.layers:
        level = info.levels[layer.level]
        end = origins / layer.factor + layer.size_px
        limit = np.array([level.width_px, level.height_px]) * level.factor / layer.factor
        assert (end <= limit - margin / layer.factor + 1e-9).all()


@settings(max_examples=60, deadline=None)
@given(
    width=SIZES,
    height=SIZES,
    factor=st.sampled_from([2, 4]),
    native=st.booleans(),
    margin=st.integers(0, 300),
    seed=st.integers(0, 2**31),
)
def test_all_kinds_stay_on_the_grid_and_inside_truncated_levels(
    width, height, factor, native, margin, seed
):
    geometry = geometry_of(1024, factor, level=1 if native else 0)
    info = info_of(width, height, factors=(1, factor))
    rng = np.random.default_rng(seed)
    points = rng.uniform(-500, 9_500, (60, 2))
    drawn = weighted_points(rng.random((9, 9)), width / 9, count=40, seed=seed, slide_id="s")
    for origins in (
        grid_candidates(geometry, info, 300, margin_px=margin),
        random_candidates(geometry, info, count=40, seed=seed, slide_id="s", margin_px=margin),
        point_candidates(geometry, info, points, margin_px=margin),
        point_candidates(geometry, info, points, margin_px=margin, outside="shift"),
        point_candidates(geometry, info, drawn, margin_px=margin),
    ):
        _check(origins, geometry, info, margin)
        assert len(np.unique(origins, axis=0)) == len(origins)


def test_patch_that_fits_level_0_but_not_the_truncated_level_is_left_out():
    geometry = geometry_of(1024, 4, level=1)
    info = info_of(2051, 1024, factors=(1, 4))  # level 1 is 512 px wide: 2048 level-0 px
    assert origin_ranges(geometry, info)[0][-1] == 1024
    assert grid_candidates(geometry, info)[:, 0].tolist() == [0, 1024]


def test_grid_touches_by_default_and_follows_stride_and_offset():
    geometry, info = geometry_of(1000, 4), info_of(4_100, 2_100)
    assert grid_candidates(geometry, info).tolist() == [
        [x, y] for y in (0, 1000) for x in (0, 1000, 2000, 3000)
    ]
    shifted = grid_candidates(geometry, info, 1500, offset_px=(50, 30))
    assert np.unique(shifted[:, 0]).tolist() == [52, 1552, 3052]
    assert np.unique(shifted[:, 1]).tolist() == [32]
    assert grid_candidates(geometry_of(5000, 4), info).shape == (0, 2)
    with pytest.raises(GeometryError, match="stride"):
        grid_candidates(geometry, info, 0)
    with pytest.raises(GeometryError, match="margin"):
        grid_candidates(geometry, info, margin_px=-1)


@pytest.mark.parametrize("moved", [0, 4, 5])
@pytest.mark.parametrize(("size", "tile"), [(256, 256), (256, 512), (512, 256), (256, 240)])
def test_a_snapped_grid_shares_edges_with_tiles_or_says_why_not(
    size: int, tile: int, moved: int
) -> None:
    info = info_of(4_100, 3_100, factors=(1, 4))
    levels = tuple(replace(la, tile_width_px=tile, tile_height_px=tile) for la in info.levels)
    info, geometry = replace(info, levels=levels), geometry_of(size, 4)
    hr = replace(geometry.hr, shift_x_px=moved, shift_y_px=-moved)
    geometry = replace(geometry, layers=(hr, *geometry.layers[1:]))
    if tile == 240 or moved == 5:
        with pytest.raises(GeometryError, match=r"divide each other|to meet LR"):
            snap_to_tiles(geometry, info)
        return
    snap = snap_to_tiles(geometry, info)
    stride = snap.stride_px(round(1.1 * size))
    origins = grid_candidates(geometry, info, stride, offset_px=snap.offset_px)
    read = origins + np.array([moved, -moved])
    assert len(origins) > 9 and stride % min(size, tile) == 0
    across = (read + size - 1) // tile - read // tile + 1
    assert (across == max(1, size // tile)).all()


def test_random_draws_are_a_function_of_seed_slide_and_index():
    geometry, info = geometry_of(), info_of(50_000, 40_000)

    def draw(count, seed=1, slide="a"):
        return random_candidates(geometry, info, count=count, seed=seed, slide_id=slide)

    assert np.array_equal(draw(50), draw(50))
    assert np.array_equal(draw(50), draw(400)[:50])
    assert not np.array_equal(draw(50), draw(50, seed=2))
    assert not np.array_equal(draw(50), draw(50, slide="b"))


def test_random_draws_cover_the_slide_evenly():
    geometry, info = geometry_of(1024), info_of(40_000, 40_000)
    origins = random_candidates(geometry, info, count=20_000, seed=3, slide_id="s")
    counts, _, _ = np.histogram2d(*origins.T, bins=4, range=[[0, 38_980]] * 2)
    assert np.abs(counts / counts.mean() - 1).max() < 0.12


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 60),
    limit=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.99]),
    seed=st.integers(0, 10_000),
)
def test_greedy_overlap_equals_the_plain_definition(count, limit, seed):
    origins = np.random.default_rng(seed).integers(0, 400, (count, 2))
    kept: list[int] = []
    for i, (x, y) in enumerate(origins):
        shared = [
            max(0, 100 - abs(x - origins[j][0])) * max(0, 100 - abs(y - origins[j][1]))
            for j in kept
        ]
        if all(area <= limit * 100**2 for area in shared):
            kept.append(i)
    assert greedy_non_overlapping(origins, 100, limit).tolist() == kept
    assert len(greedy_non_overlapping(origins, 100, 1.0)) == count


def test_points_are_centres():
    geometry, info = geometry_of(1024, 4), info_of(10_000, 10_000)
    origins = point_candidates(geometry, info, [(5_000, 6_002), (5_001, 6_002), (100, 100)])
    assert origins.tolist() == [[4488, 5488]]
    moved = point_candidates(geometry, info, [(100, 100)], outside="shift")
    assert moved.tolist() == [[0, 0]]
    with pytest.raises(GeometryError, match="'drop' or 'shift'"):
        point_candidates(geometry, info, [(1, 1)], outside="wrap")
    with pytest.raises(GeometryError, match="no number"):
        point_candidates(geometry, info, [(np.nan, 1)])


def test_weighted_draws_follow_the_map():
    geometry, info = geometry_of(64, 4), info_of(8_000, 8_000)
    weights = np.zeros((80, 80))
    weights[10:20, 10:20], weights[50:60, 50:60] = 1.0, 3.0
    drawn = weighted_points(weights, 100.0, count=4_000, seed=1, slide_id="s")
    origins = point_candidates(geometry, info, drawn)
    centres = (origins + 32) / 100
    high = ((centres > 49.9) & (centres < 60.1)).all(axis=1)
    low = ((centres > 9.9) & (centres < 20.1)).all(axis=1)
    assert (high | low).all()
    assert high.mean() == pytest.approx(0.75, abs=0.03)
    nothing = weighted_points(np.zeros((80, 80)), 100.0, count=5, seed=1, slide_id="s")
    assert nothing.shape == (0, 2)
    with pytest.raises(GeometryError, match="weight map"):
        weighted_points(-weights, 100.0, count=5, seed=1, slide_id="s")


def test_rank_depends_on_the_place_not_on_the_order():
    origins = np.random.default_rng(0).integers(0, 10**6, (500, 2))
    shuffled = np.random.default_rng(1).permutation(500)
    first = origins[ranked_order(7, "s", origins)]
    second = origins[shuffled][ranked_order(7, "s", origins[shuffled])]
    assert np.array_equal(first, second)
    assert not np.array_equal(first, origins[ranked_order(8, "s", origins)])
    assert len(np.unique(rank_keys(7, "s", origins))) == 500


def test_hashes_are_fixed_for_ever():
    """A change here would change every published selection."""
    assert hash_key("rank", 1, "slide") == 2655620466176107758
    assert hash_draws(hash_key("x"), [0, 1, -1]).tolist() == [
        12270003599094121547,
        5657451817548557826,
        1264662717217948604,
    ]
    values = unit_interval(hash_draws(hash_key("x"), np.arange(10_000)))
    assert 0 <= values.min() < values.max() < 1
    assert abs(values.mean() - 0.5) < 0.02


def test_boxes():
    assert boxes_of(np.array([[1, 2]]), 5).tolist() == [[1, 2, 5, 5]]
