"""Places of levels: planted offsets, drifts and conventions are measured and named."""

import json

import numpy as np
import pytest
import tifffile
from slides_samples import box_level

from wsisr.magnification import MppSource, make_mpp
from wsisr.registration import LevelTransform, calibrate_levels, register_pair
from wsisr.registration.fitting import robust_line
from wsisr.slides import open_slide
from wsisr.slides.protocol import Level, SlideInfo
from wsisr.testing.pair_scenes import synthetic_tissue
from wsisr.testing.rendering import to_uint8


class ArraySlide:
    """Levels in memory; `distort` moves the x of a read, as a drifting reader does."""

    def __init__(self, levels, distort=None):
        self.pixels = levels
        base = levels[0]
        self.distort = distort
        self.info = SlideInfo(
            path="memory",
            vendor="none",
            backend="memory",
            mpp=make_mpp(0.25, 0.25, MppSource.OVERRIDE),
            levels=tuple(
                Level(
                    index=index,
                    width_px=image.shape[1],
                    height_px=image.shape[0],
                    factor=round(base.shape[1] / image.shape[1]),
                    tile_width_px=256,
                    tile_height_px=256,
                )
                for index, image in enumerate(levels)
            ),
            bytes=0,
            fingerprint="",
        )

    def read_level(self, level, x, y, width, height):
        if self.distort and level:
            x = self.distort(x)
        image = self.pixels[level]
        out = np.full((height, width, 3), 255, np.uint8)
        top, left = max(y, 0), max(x, 0)
        bottom, right = min(y + height, image.shape[0]), min(x + width, image.shape[1])
        if bottom > top and right > left:
            out[top - y : bottom - y, left - x : right - x] = image[top:bottom, left:right]
        return out


@pytest.fixture(scope="module")
def base():
    return to_uint8(synthetic_tissue(1280, 1792, seed=8))


def test_levels_made_by_box_means_are_aligned(base):
    slide = ArraySlide([base, box_level(base, 2), box_level(base, 4), box_level(base, 8)])
    found = calibrate_levels(slide, seed=1, wanted=16)
    assert [(t.level, t.factor, t.measured) for t in found] == [
        (1, 2, True),
        (2, 4, True),
        (3, 8, True),
    ]
    for transform in found:
        for x, y in ((0, 0), (1792, 1280)):
            assert max(map(abs, transform.shift_px(x, y))) < 0.03
        assert transform.diagnosis == "aligned"
        assert not transform.notable
        assert transform.ncc_band > 0.99


def test_a_planted_offset_is_measured_and_other_levels_keep_theirs(base):
    # Level 1 shows what lies 3 px to the right and 1 px up of where it should.
    moved = np.roll(base, (1, -3), axis=(0, 1))
    slide = ArraySlide([base, box_level(moved, 4), box_level(base, 8)])
    first, second = calibrate_levels(slide, seed=1, wanted=16)
    assert first.offset_x_px == pytest.approx(3.0, abs=0.05)
    assert first.offset_y_px == pytest.approx(-1.0, abs=0.05)
    assert "offset of +3.0" in first.diagnosis
    assert max(map(abs, second.shift_px(900, 600))) < 0.08
    assert first.slope_x == 0.0


def test_corner_for_centre_is_named(base):
    # Plain decimation takes the corner pixel of each block: (4 - 1) / 2 px off its middle.
    corner = box_level(np.roll(base, (2, 2), axis=(0, 1)), 4)
    shifted = box_level(np.roll(base, (1, 1), axis=(0, 1)), 4)
    between = to_uint8((corner.astype(float) + shifted) / 2)
    (found,) = calibrate_levels(ArraySlide([base, between]), seed=1, wanted=16)
    assert found.offset_x_px == pytest.approx(-1.5, abs=0.05)
    assert "corners" in found.diagnosis
    assert "centres" in found.diagnosis


def test_a_drifting_reader_is_named(base):
    slide = ArraySlide([base, box_level(base, 2)], distort=lambda x: x - round(0.004 * x))
    (found,) = calibrate_levels(slide, seed=1, wanted=24)
    assert found.slope_x == pytest.approx(-0.004, rel=0.15)
    assert found.slope_y == 0.0
    assert "drift in x" in found.diagnosis


def test_tiles_that_were_decimated_one_by_one_are_named(base):
    # Nearest-neighbour reduction whose phase alternates between tiles, as one converter does it.
    rows, columns = np.mgrid[0 : 1280 // 2, 0 : 1792 // 2]
    odd_row, odd_column = (rows // 160) % 2, (columns // 160) % 2
    level = base[2 * rows + odd_row, 2 * columns + odd_column]
    (found,) = calibrate_levels(ArraySlide([base, level]), seed=1, wanted=40)
    assert found.measured
    assert found.shift_px(900, 600) == (0.0, 0.0)
    assert found.scatter_px > 0.2
    assert found.notable
    assert "no one shift fits" in found.diagnosis
    assert "decimated without averaging" in found.diagnosis


def test_blank_slides_are_not_measured_and_say_so():
    blank = np.full((600, 600, 3), 244, np.uint8)
    (found,) = calibrate_levels(ArraySlide([blank, box_level(blank, 4)]))
    assert not found.measured
    assert found.shift_px(300, 300) == (0.0, 0.0)
    assert found.diagnosis.startswith("not measured")
    assert calibrate_levels(ArraySlide([blank])) == ()


def test_a_level_of_a_dozen_px_is_not_measured_and_says_so(base):
    narrow = np.ascontiguousarray(base[:208])
    levels = [narrow, box_level(narrow, 4), box_level(narrow, 16)]
    middle, last = calibrate_levels(ArraySlide(levels), seed=1, wanted=8)
    assert middle.measured
    assert not last.measured and not last.place_unknown
    assert last.diagnosis == "not measured: 13 px of a side are too few to be matched"


def test_same_seed_same_answer_and_json_round_trip(base):
    slide = ArraySlide([base, box_level(base, 4)])
    places = np.random.default_rng(0).integers(200, 1000, (40, 2))
    once = calibrate_levels(slide, seed=3, wanted=8, places=places)
    again = calibrate_levels(slide, seed=3, wanted=8, places=places)
    assert once == again
    stored = json.loads(json.dumps(once[0].to_json()))
    assert LevelTransform.from_json(stored) == once[0]


def test_lines_ignore_outliers_and_insignificant_slopes():
    rng = np.random.default_rng(0)
    positions = np.linspace(0, 10_000, 40)
    values = 1.5 + 2e-4 * positions + rng.normal(0, 0.02, 40)
    values[::6] += 5.0
    line = robust_line(positions, values)
    assert line.slope == pytest.approx(2e-4, abs=5e-6)
    assert line.at(5000) == pytest.approx(2.5, abs=0.02)
    assert not line.used[::6].any()
    level = robust_line(positions, rng.normal(0, 0.02, 40))
    assert level.slope == 0.0
    assert robust_line(np.zeros(5), np.arange(5.0)).offset == pytest.approx(2.0)


def test_odd_two_level_tiff_reads_exactly_and_registers_at_both_ends(tmp_path):
    # 1443 -> 721: the reported downsample is 2.0014, which readers divide by.
    base = to_uint8(synthetic_tissue(700, 1443, seed=5))
    level = box_level(base, 2)
    path = tmp_path / "odd.tif"
    with tifffile.TiffWriter(path) as writer:
        options = {"tile": (128, 128), "photometric": "rgb", "resolutionunit": "CENTIMETER"}
        writer.write(base, resolution=(20000, 20000), subifds=0, **options)
        writer.write(level, resolution=(10000, 10000), subfiletype=1, **options)
    with open_slide(path) as slide:
        assert [la.factor for la in slide.info.levels] == [1, 2]
        for x in (0, 721 - 200):
            read = slide.read_level(1, x, 60, 200, 200)
            np.testing.assert_array_equal(read, level[60:260, x : x + 200])
            region = slide.read_level(0, 2 * x - 8, 112, 416, 416)
            found = register_pair(read, region, 2)
            assert found.accepted
            assert abs(found.dx - 8) < 0.02
            assert abs(found.dy - 8) < 0.02


def test_a_real_converter_that_decimates_tile_by_tile_is_caught(shared_data):
    with open_slide(shared_data / "slides" / "cmu-1-small-region_dicom") as slide:
        found = calibrate_levels(slide, wanted=30)
    assert "no one shift fits" in found[0].diagnosis
    assert "decimated without averaging" in found[0].diagnosis


@pytest.mark.parametrize("name", ["test3-DAPI.ndpi", "derived_cmu_generic_3level.tif"])
def test_real_pyramids_are_aligned(shared_data, name):
    with open_slide(shared_data / "slides" / name) as slide:
        found = calibrate_levels(slide, wanted=14)
    assert all(transform.measured for transform in found)
    for transform in found:
        shift = transform.shift_px(transform.width_px / 2, transform.height_px / 2)
        assert max(map(abs, shift)) < 0.05 * transform.factor
