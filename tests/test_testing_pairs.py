"""The truth of generated pairs is exact: shown against plain means, shifts and a known blob."""

import numpy as np
import pytest

from wsisr.errors import ConfigError
from wsisr.testing.pair_scenes import synthetic_tissue
from wsisr.testing.pairs import SUITES, make_pair, scene_px
from wsisr.testing.rendering import Displacement, FieldOfView, Objective, render

SCALE = 4
UPRIGHT = SCALE * np.eye(2)


@pytest.fixture(scope="module")
def scene():
    return synthetic_tissue(240, 240, seed=3)


def view_of(
    x: float, y: float, side_px: int, displacement: Displacement | None = None
) -> FieldOfView:
    """An upright view whose corner lies at (x, y) of the scene."""
    middle = SCALE * side_px / 2
    return FieldOfView(
        linear=UPRIGHT,
        centre=(x + middle, y + middle),
        side_px=side_px,
        displacement=displacement,
    )


def test_whole_pixel_place_is_the_plain_mean_of_blocks(scene):
    seen = render(scene, view_of(21, 34, 40))
    crop = scene[34 : 34 + 160, 21 : 21 + 160]
    means = crop.reshape(40, 4, 40, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(seen, means, atol=1e-9)


def test_a_blob_lands_where_the_geometry_says():
    # A Gaussian at a known place (pixel edges), seen at a sub-pixel offset.
    y, x = np.mgrid[0:240, 0:240] + 0.5
    blob = 100 * np.exp(-((x - 120.3) ** 2 + (y - 111.9) ** 2) / (2 * 6.0**2))
    scene = np.repeat(blob[..., None], 3, axis=2)
    seen = render(scene, view_of(37.26, 21.81, 40))[..., 0]
    rows, columns = np.mgrid[0:40, 0:40] + 0.5
    found_x = 37.26 + SCALE * np.sum(columns * seen) / np.sum(seen)
    found_y = 21.81 + SCALE * np.sum(rows * seen) / np.sum(seen)
    assert abs(found_x - 120.3) < 1e-3
    assert abs(found_y - 111.9) < 1e-3


def test_both_ways_of_rendering_agree(scene):
    exact = render(scene, view_of(21.37, 34.71, 32))

    def nothing(u, v):
        return np.zeros_like(u), np.zeros_like(v)

    splines = render(scene, view_of(21.37, 34.71, 32, nothing))
    assert np.abs(exact - splines).max() < 0.02


def test_optics_blur_and_do_not_shift(scene):
    view = view_of(40, 40, 32)
    sharp = render(scene, view)
    blurred = render(scene, view, Objective(na=0.25, defocus_um=5.0, sigma_px=1.0))
    assert np.std(np.diff(blurred, axis=1)) < 0.8 * np.std(np.diff(sharp, axis=1))
    assert abs(blurred.mean() - sharp.mean()) < 2.0


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_every_suite_is_reproducible_and_of_the_promised_shape(suite):
    first = make_pair(suite, 5, lr_px=48)
    again = make_pair(suite, 5, lr_px=48)
    other = make_pair(suite, 6, lr_px=48)
    assert first.lr.shape == (48, 48, 3)
    assert first.hr_region.shape == (48 * 4 + 26, 48 * 4 + 26, 3)
    np.testing.assert_array_equal(first.lr, again.lr)
    np.testing.assert_array_equal(first.hr_region, again.hr_region)
    assert first.true_map == again.true_map
    assert not np.array_equal(first.lr, other.lr)


def test_truth_of_a_turned_pair_is_its_map():
    case = make_pair("B2", 1, lr_px=48)
    (a, b, tx), (c, d, ty) = case.true_map
    assert a * 24 + b * 24 + tx == pytest.approx(case.centre_x)
    assert c * 24 + d * 24 + ty == pytest.approx(case.centre_y)


def test_places_outside_are_outside():
    for seed in range(8):
        case = make_pair("P", seed, lr_px=32)
        assert max(-case.dx, -case.dy, case.dx - 26, case.dy - 26) > 1.0
        assert case.accept is False


def test_a_users_own_scene_is_used():
    size = scene_px(32)
    mine = synthetic_tissue(size + 10, size + 4, seed=11)
    case = make_pair("A0", 0, scene=mine, lr_px=32)
    flat = make_pair("A0", 0, scene=np.full_like(mine, 200.0), lr_px=32)
    assert case.lr.std() > 5
    assert flat.lr.std() == 0


def test_wrong_requests_are_refused():
    with pytest.raises(ConfigError, match="no suite"):
        make_pair("Z9", 0)
    with pytest.raises(ConfigError, match="too small"):
        make_pair("A0", 0, scene=np.zeros((64, 64, 3)))
