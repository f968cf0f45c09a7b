"""A second scan of the same glass."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from wsisr.testing import RescanSpec, RescanTruth, SlideSpec, SlideTruth, write_rescan
from wsisr.testing.rescan import plan_rescan
from wsisr.testing.spec import plan_truth
from wsisr.testing.stored import StoredSlide


@pytest.fixture(scope="module")
def first() -> SlideTruth:
    return plan_truth(SlideSpec(layout="generic", seed=9, width_px=1500, height_px=1300), "a.tif")


@pytest.mark.parametrize(
    "spec",
    [
        RescanSpec(rotation_deg=0.0, noise=0.0),
        RescanSpec(rotation_deg=90.0, um_per_px=0.486, noise=0.0),
        RescanSpec(rotation_deg=180.0, mirrored=True),
    ],
)
def test_affine_is_exact(first: SlideTruth, spec: RescanSpec) -> None:
    """Where the map is a turn by a right angle, the first scan itself predicts the second."""
    truth, picture = plan_rescan(first, spec, "b.tif")
    scale = round(spec.um_per_px / first.um_per_px)
    # A region of the second scan whose source is whole first pixels, in the first's order.
    size = 112
    x, y = truth.slide.width_px // 2 - 70, truth.slide.height_px // 2 - 60
    corners = truth.to_first([[x, y], [x + size, y + size]])
    left, top = np.floor(corners.min(0)).astype(int)
    second = picture.render(x, y, size, size).mean(-1)
    source = first.scene.render(left, top, size * scale, size * scale).mean(-1)
    boxed = source.reshape(size, scale, size, scale).mean((1, 3))
    turns = {0.0: 0, 90.0: 1, 180.0: 2}[spec.rotation_deg]
    if spec.mirrored:
        second = second[:, ::-1]
    second = np.rot90(second, -turns)
    window = np.outer(np.hanning(size), np.hanning(size))
    found, _, _ = phase_cross_correlation(
        ndimage.gaussian_laplace(boxed, 1.0) * window,
        ndimage.gaussian_laplace(second, 1.0) * window,
        normalization=None,
        upsample_factor=200,
    )
    expected = corners.min(0) - (left, top)
    np.testing.assert_allclose(found[::-1] * scale, expected, atol=0.1)


def test_outlines_follow_the_map(first: SlideTruth) -> None:
    spec = RescanSpec(rotation_deg=30.0, mirrored=True, stretch=(1.01, 0.99))
    truth, picture = plan_rescan(first, spec, "b.tif")
    for ours, theirs in zip(truth.slide.scene.tumour, first.scene.tumour, strict=True):
        np.testing.assert_allclose(truth.to_first(ours), theirs, atol=0.5)
    mask = truth.slide.tissue_mask(spec.um_per_px)
    rgb = picture.render(0, 0, truth.slide.width_px, truth.slide.height_px)
    assert np.mean((rgb[..., 1] < 228) == mask) > 0.97
    inside = truth.to_first([[0, 0], [truth.slide.width_px, truth.slide.height_px]])
    assert np.isfinite(inside).all()


def test_file_and_record(first: SlideTruth, tmp_path: Path) -> None:
    truth = write_rescan(tmp_path / "b.tif", first, RescanSpec(factors=(1, 2), quality=95))
    truth.save(tmp_path / "b.json")
    assert RescanTruth.load(tmp_path / "b.json") == truth
    stored = StoredSlide(tmp_path / "b.tif", truth.slide)
    _, picture = plan_rescan(first, RescanSpec(factors=(1, 2), quality=95), "b.tif")
    rendered = picture.render(110, 90, 200, 200)
    rgb, valid = stored.read(0, 110, 90, 200, 200)
    assert valid.all() and np.abs(rgb.astype(int) - rendered).mean() < 6
    assert (stored.read(0, 0, 0, 10, 10)[0] > 235).all()


def test_noise_is_the_stated_one_and_not_on_glass(first: SlideTruth) -> None:
    box = (130, 110, 160, 160)
    quiet, noisy = (
        plan_rescan(first, RescanSpec(noise=n), "b.tif")[1].render(*box).astype(float)
        for n in (0.0, 3.0)
    )
    dense = quiet[..., 1] < 180
    assert np.std((noisy - quiet)[..., 1][dense]) == pytest.approx(3.0, rel=0.1)
    corner = plan_rescan(first, RescanSpec(noise=3.0), "b.tif")[1].render(0, 0, 20, 20)
    assert (corner == first.scene.background_rgb).all()
