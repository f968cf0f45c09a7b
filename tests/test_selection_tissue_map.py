"""Area fractions are exact, and a map goes to QuPath and back."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from selection_scenes import disk, glass, paint_tissue
from shapely.affinity import scale
from shapely.geometry import box
from shapely.ops import unary_union

from wsisr.errors import AnnotationError
from wsisr.geometry import Box
from wsisr.selection.mask_files import import_tissue, read_mask_file, write_tissue_files
from wsisr.selection.regions import mask_to_polygons
from wsisr.selection.tissue import segment
from wsisr.selection.tissue_map import BAND_ROWS, box_means, integral_of, integral_share

SHAPE = (150, 170)


@pytest.fixture(scope="module")
def tissue():
    picture = glass(SHAPE)
    paint_tissue(picture, disk(SHAPE, 80, 70, 45))
    picture[140:] = 0
    return segment(picture, 8.0, factor=16.032)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    factor=st.sampled_from([1.0, 16.0, 16.032, 32.92]),
    side=st.floats(0.3, 300),
)
def test_fractions_equal_polygon_areas_for_any_factor_and_place(seed, factor, side):
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 11)) < 0.5
    boxes = np.concatenate(
        [rng.uniform(-3 * factor, 12 * factor, (8, 2)), np.full((8, 2), side)], axis=1
    )
    pixels = [box(x, y, x + 1, y + 1) for y, x in np.argwhere(mask)]
    area = scale(unary_union(pixels), factor, factor, origin=(0, 0))
    expected = [area.intersection(box(x, y, x + w, y + h)).area / side**2 for x, y, w, h in boxes]
    assert np.abs(integral_share(integral_of(mask), boxes, factor) - expected).max() < 1e-6


def test_one_box_and_many_boxes_agree(tissue):
    boxes = np.array([[0, 0, 512, 512], [1000, 900, 512, 512], [10**6, 0, 512, 512]])
    many = tissue.fraction(boxes)
    assert many.shape == (3,)
    assert many[1] == tissue.fraction(Box(x=1000, y=900, width=512, height=512)) == 1.0
    assert many[0] == many[2] == 0.0
    assert tissue.mean_of(tissue.invalid, [[0, 2300, 64, 64]]) == 1.0
    assert tissue.mean_of(tissue.pen, boxes).tolist() == [0, 0, 0]


def test_files_round_trip_to_the_same_mask(tissue, tmp_path):
    mask_path, overlay, geojson, health = write_tissue_files(tissue, tmp_path, "slide")
    for path in (mask_path, geojson):
        again = import_tissue(tissue, path)
        assert np.array_equal(again.mask, tissue.mask)
        assert again.health.tissue_mm2 == pytest.approx(tissue.health.tissue_mm2)
        assert again.health.flags == (f"imported from {path.name}",)
    stated = read_mask_file(mask_path)
    assert (stated.um_per_px, stated.factor) == (8.0, 16.032)
    assert Image.open(overlay).size == (170, 150)
    record = json.loads(health.read_text())
    assert record["kind"] == "brightfield"
    assert record["thresholds"]["hue"]["verdict"] == "otsu"
    document = json.loads(geojson.read_text())
    assert document["features"][0]["properties"]["classification"]["name"] == "Tissue"
    assert document["features"][0]["properties"]["objectType"] == "annotation"


def test_mask_of_another_tool_and_size_is_imported_without_never_scanned_area(tissue, tmp_path):
    large = np.repeat(np.repeat(tissue.mask | tissue.invalid, 3, axis=0), 3, axis=1)
    Image.fromarray(large.astype(np.uint8)).save(tmp_path / "other.png")
    again = import_tissue(tissue, tmp_path / "other.png")
    assert np.array_equal(again.mask, tissue.mask)
    read = read_mask_file(tmp_path / "other.png", factor=5.0)
    assert (read.um_per_px, read.factor, read.origin_px) == (None, 5.0, (0, 0))


def test_outlines_alone_have_no_grid(tissue, tmp_path):
    paths = write_tissue_files(tissue, tmp_path, "slide")
    with pytest.raises(AnnotationError, match="no pixels of their own"):
        read_mask_file(paths[2])


def test_geojson_area_is_the_tissue_area(tissue):
    area = sum(p.area for p in mask_to_polygons(tissue.mask, tissue.factor))
    assert area * (8.0 / 16.032 / 1000) ** 2 == pytest.approx(tissue.health.tissue_mm2)


def test_boxes_are_measured_band_by_band_as_over_the_whole_map():
    rng = np.random.default_rng(0)
    boxes = rng.uniform([-300, -300, 1, 1], [3500, 16 * 3.4 * BAND_ROWS, 900, 900], (300, 4))
    for values in (
        rng.random((3 * BAND_ROWS + 7, 200)) < 0.3,
        rng.integers(0, 256, (3 * BAND_ROWS + 7, 200)).astype(np.uint8),
    ):
        whole = integral_share(integral_of(values), boxes, 16.03)
        assert whole.max() > 0 == whole.min()  # some lie outside
        assert np.allclose(box_means(values, boxes, 16.03), whole, rtol=0, atol=1e-8)
