"""Outlines and their signed distance."""

import numpy as np
import pytest
import shapely

from wsisr.testing.shapes import (
    CLIP_PX,
    LATTICE_PX,
    RingSet,
    blob,
    lattice_axis,
    polygon_of,
    stroke,
    upsample,
)

SQUARE = np.array([[100.0, 100.0], [300.0, 100.0], [300.0, 260.0], [100.0, 260.0]])


def test_distance_agrees_with_shapely() -> None:
    rng = np.random.default_rng(3)
    rings = [blob(rng, (400, 300), (220, 160)), blob(rng, (640, 420), (120, 90))]
    xs, ys = np.arange(0, 900, 8.0), np.arange(0, 640, 8.0)
    found = RingSet(rings).distance(xs, ys)
    each = []
    for ring in rings:
        polygon = shapely.Polygon(ring)
        points = shapely.points(*np.meshgrid(xs, ys))
        away = shapely.distance(polygon.exterior, points)
        each.append(np.where(shapely.contains(polygon, points), away, -away))
    expected = np.clip(np.maximum(*each), -CLIP_PX, CLIP_PX)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_distance_does_not_depend_on_the_window() -> None:
    rings = RingSet([blob(np.random.default_rng(1), (300, 300), (200, 150)), SQUARE])
    xs, ys = np.arange(0, 640, 8.0), np.arange(0, 640, 8.0)
    whole = rings.distance(xs, ys)
    for r, c in ((0, 0), (13, 22), (40, 5)):
        part = rings.distance(xs[c : c + 17], ys[r : r + 30])
        np.testing.assert_array_equal(part, whole[r : r + 30, c : c + 17])


def test_far_inside_and_far_outside_are_clipped() -> None:
    rings = RingSet([SQUARE])
    assert rings.distance(np.array([200.0, 208.0]), np.array([180.0]))[0, 0] == CLIP_PX
    assert (rings.distance(np.array([600.0, 608.0]), np.array([180.0])) == -CLIP_PX).all()
    assert len(RingSet([]).touching((0, 0, 1, 1))) == 0


def test_upsample_is_linear_at_pixel_centres_and_seamless() -> None:
    def plane(x: int, y: int, w: int, h: int) -> np.ndarray:
        xs, ys = lattice_axis(x, w), lattice_axis(y, h)
        return upsample((xs[None, :] * 2 + ys[:, None] * 3).astype(np.float32), x, y, w, h)

    for x, y in ((0, 0), (-13, 5), (37, -LATTICE_PX)):
        cols, rows = np.arange(x, x + 41) + 0.5, np.arange(y, y + 23) + 0.5
        expected = cols[None, :] * 2 + rows[:, None] * 3
        np.testing.assert_allclose(plane(x, y, 41, 23), expected, atol=1e-3)


def test_blob_has_the_size_asked_for() -> None:
    for power, share in ((2.0, np.pi / 4), (4.0, 0.927)):
        ring = blob(np.random.default_rng(0), (0, 0), (100, 50), 0.0, 400, power=power)
        assert shapely.Polygon(ring).area == pytest.approx(share * 200 * 100, rel=0.01)
        assert shapely.Polygon(blob(np.random.default_rng(5), (9, 9), (80, 60))).is_valid


def test_stroke_and_polygon_of() -> None:
    line = stroke([(0.0, 0.0), (100.0, 0.0)], 20.0)
    assert shapely.Polygon(line).area == pytest.approx(100 * 20 + np.pi * 100, rel=0.01)
    area = polygon_of([SQUARE], [SQUARE * 0.5 + 100])
    assert area.area == pytest.approx(200 * 160 * 0.75)
    assert polygon_of([]).is_empty
