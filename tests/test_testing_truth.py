"""What the truth says, against what is drawn."""

import json
from pathlib import Path

import numpy as np
import pytest

from wsisr.testing import Pen, SlideSpec, SlideTruth
from wsisr.testing.spec import plan_truth

SPEC = SlideSpec(
    seed=8,
    layout="aperio",
    width_px=2000,
    height_px=1600,
    missing_tiles=((0, 1, 1), (1, 0, 0)),
    pens=(Pen(colour="red", outline=((10.0, 10.0), (60.0, 10.0), (60.0, 60.0))),),
)


@pytest.fixture(scope="module")
def truth() -> SlideTruth:
    return plan_truth(SPEC, "a.svs")


def test_json_round_trip(truth: SlideTruth, tmp_path: Path) -> None:
    truth.save(tmp_path / "truth.json")
    again = SlideTruth.load(tmp_path / "truth.json")
    assert again == truth
    assert json.loads((tmp_path / "truth.json").read_text())["file"] == "a.svs"
    np.testing.assert_array_equal(
        again.scene.render(700, 500, 50, 40), truth.scene.render(700, 500, 50, 40)
    )
    assert again.levels[0].missing == ((1, 1),) and again.levels[1].missing == ((0, 0),)


def test_mask_agrees_with_pixels(truth: SlideTruth) -> None:
    rgb = truth.scene.render(0, 0, 2000, 1600)
    stained = rgb[..., 1] < 232
    stained[:70, :70] = False  # the pen
    mask = truth.tissue_mask(truth.um_per_px)
    assert mask.shape == stained.shape
    assert np.mean(mask == stained) > 0.995
    coarse = truth.tissue_mask(8.0)
    assert coarse.shape == (round(1600 * 0.243 / 8), round(2000 * 0.243 / 8))
    assert abs(coarse.mean() - mask.mean()) < 0.02
    assert truth.tissue_mask(8.0, fill_holes=True).sum() > coarse.sum()


def test_fractions_are_exact_areas(truth: SlideTruth) -> None:
    rng = np.random.default_rng(0)
    boxes = [(*rng.integers(0, 1400, 2), *rng.integers(60, 300, 2)) for _ in range(40)]
    mask = truth.tissue_mask(truth.um_per_px)
    counted = [mask[y : y + h, x : x + w].mean() for x, y, w, h in boxes]
    assert np.abs(truth.tissue_fraction(boxes) - counted).max() < 0.01
    assert 0 < truth.tissue_fraction([(0, 0, 2000, 1600)])[0] < 1
    assert truth.tissue_fraction([(-500, -500, 100, 100)])[0] == 0

    ring = np.array(truth.scene.tumour[0])
    x, y = ring.mean(0)
    assert truth.tumour_fraction([(x - 50, y - 50, 100, 100)])[0] == 1
    left, right = ring[:, 0].min(), ring[:, 0].max()
    whole = truth.tumour_fraction([(left, 0, right - left, 1600)])[0] * (right - left) * 1600
    assert whole == pytest.approx(truth.tumour_area.area)


def test_exclusions_and_frame_are_cut_out() -> None:
    square = ((100.0, 100.0), (900.0, 100.0), (900.0, 900.0), (100.0, 900.0))
    inner = ((300.0, 300.0), (500.0, 300.0), (500.0, 500.0), (300.0, 500.0))
    spec = SlideSpec(
        layout="generic",
        width_px=1000,
        height_px=1000,
        tissue=(square,),
        tumour=(square,),
        exclusions=(inner,),
        holes=(inner,),
        frame_px=200,
    )
    truth = plan_truth(spec, "a.tif")
    assert truth.tumour_area.area == pytest.approx(800**2 - 200**2)
    assert truth.tissue_area.area == pytest.approx(600**2 - 200**2)
    assert truth.tumour_fraction([(300, 300, 200, 200), (200, 300, 200, 200)]).tolist() == [0, 0.5]
    assert len(truth.nuclei(320, 320, 160, 160)) == 0
    assert len(truth.nuclei(520, 320, 160, 160)) > 0


def test_blank_slide_has_nothing() -> None:
    truth = plan_truth(SlideSpec(blank=True, glass_rgb=(225, 222, 210)), "a.tif")
    assert not truth.tissue_mask(8.0).any()
    assert (truth.scene.render(500, 500, 50, 50) == (225, 222, 210)).all()
    assert truth.tissue_fraction([(0, 0, 500, 500)])[0] == 0
