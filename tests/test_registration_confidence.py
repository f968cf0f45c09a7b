"""What a certificate says of its own error holds on truth; planes of a stack have one too."""

import numpy as np
import pytest
from scipy import ndimage

from wsisr.errors import RegistrationError
from wsisr.registration import register_pair
from wsisr.registration.parts import error_bound, leverage
from wsisr.registration.planes import register_planes
from wsisr.registration.steps import find_step, largest_step
from wsisr.testing.pair_scenes import synthetic_tissue
from wsisr.testing.pairs import make_pair
from wsisr.testing.rendering import to_uint8


@pytest.fixture(scope="module")
def tissue():
    return synthetic_tissue(560, 560, seed=77)


def test_pairs_lie_within_the_bound_that_their_certificate_states(tissue):
    bounds, errors = [], []
    for suite, method in (("A1", "subpixel"), ("B1", "affine"), ("L", "subpixel")):
        for seed in range(300, 310):
            case = make_pair(suite, seed, scene=tissue, lr_px=64)
            found = register_pair(case.lr, case.hr_region, 4, method)
            if found.accepted:
                bounds.append(found.error)
                errors.append(np.hypot(found.dx - case.dx, found.dy - case.dy))
    within = np.array(errors) <= bounds
    assert len(within) >= 25
    assert within.mean() >= 0.85  # 95 % stated; 30 pairs have a standard error of 4 %
    assert np.median(np.array(errors) / bounds) > 0.1  # and the bound is no empty one


def test_the_bound_grows_with_spread_and_shrinks_with_size():
    assert error_bound(0.1, 64) < error_bound(0.2, 64)
    assert error_bound(0.2, 256) < error_bound(0.2, 64)
    assert error_bound(0.2, 512) == error_bound(0.2, 160)  # larger ones were no surer
    assert error_bound(0.0, 64) == pytest.approx(0.0184, abs=1e-3)
    assert error_bound(0.9, 256) > 0.9
    other = make_pair("W", 3, lr_px=64)
    assert register_pair(other.lr, other.hr_region).error == 1000


def test_affine_pairs_seen_from_one_side_are_called_less_sure(tissue):
    grey = tissue[:160, :160, 1].astype(np.float32)
    half = grey.copy()
    half[:, 60:] = 238
    assert leverage(grey) < 0.5
    assert leverage(half) > 1
    assert leverage(np.ascontiguousarray(half.T)) == pytest.approx(leverage(half), rel=1e-6)
    assert leverage(np.zeros_like(grey)) == 0
    assert error_bound(0.1, 128, leverage(half)) > 2 * error_bound(0.1, 128)


def test_planes_are_placed_against_the_sharpest(tissue):
    size, shift = 400, (2.3, -1.6)
    sharp = tissue[60 : 60 + size, 60 : 60 + size]
    moved = np.stack(
        [ndimage.shift(tissue[..., c], (shift[1], shift[0]), order=5) for c in range(3)], axis=-1
    )[60 : 60 + size, 60 : 60 + size]
    soft = ndimage.gaussian_filter(moved, (1.5, 1.5, 0))
    found = register_planes([to_uint8(soft), to_uint8(sharp), to_uint8(np.zeros_like(sharp))])
    assert found[1].sharpest
    assert found[1].certificate is None
    first = found[0]
    assert first.certificate is not None
    assert first.certificate.accepted
    off = np.hypot(first.shift_x + shift[0], first.shift_y + shift[1])
    assert off <= max(first.certificate.error, 0.05)
    assert first.focus_share < 0.8
    assert found[2].row()["verdict"] == "reject"
    with pytest.raises(RegistrationError, match="one size"):
        register_planes([to_uint8(sharp), to_uint8(sharp[:100])])


def test_steps_are_told_from_drift(tissue):
    grey = tissue[..., 1].astype(np.float32)
    lr = grey[100:356, 100:356]
    rows = np.arange(256)[:, None] + 100.0
    columns = np.arange(256)[None, :] + 100.0

    def seen(dx, dy):
        places = [rows + dy, columns + dx]
        return ndimage.map_coordinates(grey, np.broadcast_arrays(*places), order=3)

    jump = np.where(np.arange(256)[:, None] < 120, 0.0, 0.8)
    found = largest_step(lr, seen(jump, 0.0), 4.0)
    assert found is not None
    assert found.axis == 1
    assert found.at_px == pytest.approx(120, abs=20)
    assert found.jump_px == pytest.approx(3.2, abs=0.8)
    drift = 0.8 * np.sin(np.arange(256) / 160)[:, None]
    assert largest_step(lr, seen(drift, 0.0), 4.0) is None
    assert find_step(np.arange(3.0), np.zeros((3, 2)), 0) is None
