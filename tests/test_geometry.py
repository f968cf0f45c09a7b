"""Properties of the geometry that makes pairs true."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from wsisr.errors import GeometryError
from wsisr.geometry import Box, Layer, level_factor, patch_geometry

SIDES = st.integers(1, 300_000)
FACTORS = st.sampled_from([1, 2, 3, 4, 8, 16, 32, 64])


@given(SIDES, SIDES, FACTORS, st.booleans(), st.booleans())
def test_truncated_and_rounded_up_levels_have_their_factor(w, h, factor, up_w, up_h) -> None:
    assume(min(w, h) >= 4 * factor)
    # The longer side must leave room to tell the factor from its neighbours.
    assume(max(w, h) >= 4 * factor * factor)
    level_w = -(-w // factor) if up_w else w // factor
    level_h = -(-h // factor) if up_h else h // factor
    assert level_factor(w, h, level_w, level_h) == factor


def test_real_sizes() -> None:
    assert level_factor(4443, 3567, 2221, 1783) == 2
    assert level_factor(46000, 32914, 11500, 8228) == 4
    assert level_factor(46000, 32914, 2875, 2057) == 16
    assert level_factor(2220, 2967, 138, 185) == 16
    # A thumbnail of another shape, a label, and a level at 2.5 have none.
    assert level_factor(2220, 2967, 574, 768) is None
    assert level_factor(2220, 2967, 387, 463) is None
    assert level_factor(10_000, 10_000, 4000, 4000) is None
    with pytest.raises(GeometryError):
        level_factor(0, 5, 1, 1)


@given(SIDES, SIDES, SIDES, SIDES)
def test_a_factor_describes_both_axes(w, h, level_w, level_h) -> None:
    factor = level_factor(w, h, level_w, level_h)
    if factor is not None:
        for base, side in ((w, level_w), (h, level_h)):
            assert abs(base / factor - side) <= max(1.0, 0.005 * base / factor)


BOXES = st.builds(
    Box,
    x=st.integers(-50, 50),
    y=st.integers(-50, 50),
    width=st.integers(1, 60),
    height=st.integers(1, 60),
)


def pixels(box: Box) -> set[tuple[int, int]]:
    return {(x, y) for x in range(box.x, box.right) for y in range(box.y, box.bottom)}


@given(BOXES, BOXES)
def test_a_box_contains_another_where_it_holds_all_of_its_pixels(a: Box, b: Box) -> None:
    assert a.contains(b) == (pixels(b) <= pixels(a))
    assert a.contains(a)


@given(BOXES, st.integers(1, 70))
def test_blocks_hold_every_pixel_of_a_box_once(box: Box, side: int) -> None:
    blocks = box.blocks(side)
    assert sum(block.width * block.height for block in blocks) == box.width * box.height
    assert set().union(*map(pixels, blocks)) == pixels(box)
    assert all(max(block.width, block.height) <= side for block in blocks)
    assert blocks == sorted(blocks, key=lambda block: (block.y, block.x))


@given(BOXES, BOXES, st.integers(0, 9))
def test_boxes_are_moved_grown_and_cut_by_their_pixels(a: Box, b: Box, margin: int) -> None:
    assert pixels(a.within(b)) == pixels(a) & pixels(b)
    assert a.relative_to(b).moved(b.x, b.y) == a
    grown = a.grown(margin)
    assert grown.contains(a) and grown.width == a.width + 2 * margin
    assert np.zeros((200, 200))[a.moved(60, 60).slices].shape == (a.height, a.width)


@st.composite
def geometries(draw):
    level_factors = draw(
        st.sampled_from([(1,), (1, 4, 16), (1, 2, 4, 8), (1, 2, None, 8), (1, 3, 6)])
    )
    field = 48 * draw(st.integers(1, 10))
    wanted = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6, 8]), min_size=1, unique=True))
    layers = []
    for factor in sorted(wanted):
        usable = [
            (level, f) for level, f in enumerate(level_factors) if f is not None and f <= factor
        ]
        level, f = draw(st.sampled_from(usable))
        layers.append(
            Layer(
                name=f"1/{factor}",
                factor=float(factor),
                size_px=field // factor,
                level=level,
                reduction=factor / f,
            )
        )
    return patch_geometry(tuple(layers), level_factors), level_factors, field


@given(geometries(), st.integers(-1000, 1000))
def test_every_origin_is_a_whole_pixel_on_every_layer_and_level(case, k: int) -> None:
    geometry, level_factors, field = case
    assert geometry.field_px == field and geometry.hr is geometry.layers[0]
    origin = k * geometry.step_px
    for layer in geometry.layers:
        assert geometry.origin_px(layer, origin) * layer.factor == origin
        assert origin % level_factors[layer.level] == 0
        assert layer.native == (level_factors[layer.level] == layer.factor)


@given(geometries(), st.integers(-1000, 1000))
def test_off_grid_origins_are_refused(case, origin: int) -> None:
    geometry, _, _ = case
    assume(origin % geometry.step_px)
    with pytest.raises(GeometryError, match="off the patch grid"):
        geometry.origin_px(geometry.layers[0], origin)


def test_layers_that_do_not_fit_are_refused() -> None:
    fine = Layer(name="40x", factor=1.0, size_px=256, level=0, reduction=1.0)
    half = Layer(name="20x", factor=2.0, size_px=128, level=1, reduction=1.0)
    small = Layer(name="20x", factor=2.0, size_px=127, level=1, reduction=1.0)
    with pytest.raises(GeometryError, match="different fields"):
        patch_geometry((fine, small), (1, 2))
    with pytest.raises(GeometryError, match="no exact downsample"):
        patch_geometry((fine, half), (1, None))
    with pytest.raises(GeometryError, match="is not 1/2"):
        patch_geometry((fine, half), (1, 4))
    with pytest.raises(GeometryError, match="at least one"):
        patch_geometry((), (1,))


def test_a_physical_resolution_keeps_origins_whole_on_the_read_level() -> None:
    layer = Layer(name="x", factor=2.06, size_px=100, level=1, reduction=1.03)
    geometry = patch_geometry((layer,), (1, 2))
    assert (geometry.step_px, geometry.field_px) == (2, 206)
    assert geometry.origin_px(layer, 206) == 100


@given(st.integers(1, 500), st.integers(0, 40))
def test_search_margins_widen_what_is_read(size: int, margin: int) -> None:
    layer = Layer(name="40x", factor=1.0, size_px=size, level=0, reduction=1.0, margin_px=margin)
    assert layer.read_size_px == size + 2 * margin
