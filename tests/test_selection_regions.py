"""Masks become polygons along their pixel edges, and come back unchanged."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from shapely.geometry import LineString, Polygon, box
from shapely.ops import unary_union

from wsisr.selection.regions import mask_to_polygons, polygons_to_mask

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14)))


@settings(max_examples=120, deadline=None)
@given(MASKS, st.sampled_from([1.0, 16.032, 0.25]))
def test_any_mask_survives_the_round_trip_with_its_area(mask, scale):
    polygons = mask_to_polygons(mask, scale)
    assert all(polygon.is_valid and polygon.area > 0 for polygon in polygons)
    assert np.array_equal(polygons_to_mask(polygons, mask.shape, scale), mask)
    assert sum(p.area for p in polygons) == pytest.approx(mask.sum() * scale**2)
    squares = [box(x, y, x + 1, y + 1) for y, x in np.argwhere(mask)]
    union = unary_union([p.buffer(0) for p in mask_to_polygons(mask)])
    assert union.symmetric_difference(unary_union(squares)).area < 1e-9


def test_components_that_touch_at_a_corner_stay_two():
    mask = np.array([[1, 0], [0, 1]], np.bool_)
    assert [p.area for p in mask_to_polygons(mask)] == [1, 1]


def test_straight_edges_have_no_inner_vertices():
    mask = np.zeros((60, 80), np.bool_)
    mask[10:50, 20:70] = True
    mask[20:30, 30:40] = False
    (polygon,) = mask_to_polygons(mask, 2.0)
    assert len(polygon.exterior.coords) == 5
    assert len(polygon.interiors) == 1
    assert polygon.bounds == (40, 20, 140, 100)
    assert mask_to_polygons(np.zeros((3, 3), np.bool_)) == ()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_rasterising_takes_pixels_whose_centre_is_inside(seed):
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 12))
    radius = rng.uniform(3, 14, 12)
    ring = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1) + rng.uniform(5, 20)
    polygon = Polygon(ring)
    if not polygon.is_valid:
        return
    mask = polygons_to_mask([polygon], (26, 30))
    from shapely import contains_xy

    x, y = np.meshgrid(np.arange(30) + 0.5, np.arange(26) + 0.5)
    assert np.array_equal(mask, contains_xy(polygon, x, y))


def test_lines_and_outside_areas_leave_no_trace():
    geometries = [LineString([(0, 0), (5, 5)]), box(-9, -9, -1, -1), box(50, 50, 60, 60)]
    assert not polygons_to_mask(geometries, (10, 10)).any()
    assert polygons_to_mask([box(-5, -5, 100, 100)], (10, 10)).all()
