"""Ceilings and figures: what misalignment costs, in dB and in pictures."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from wsisr_cli.register import app

from wsisr.drawing.overlays import checkerboard, red_cyan
from wsisr.errors import RegistrationError
from wsisr.registration import luma_power, psnr_ceiling, register_pair
from wsisr.registration.presentation import pair_figure, read_image, register_images
from wsisr.testing.pair_scenes import synthetic_tissue
from wsisr.testing.pairs import make_pair
from wsisr.testing.rendering import to_uint8


@pytest.fixture(scope="module")
def power():
    tissue = to_uint8(synthetic_tissue(300, 300, seed=2))
    return luma_power(tissue[None])


def test_ceiling_of_a_whole_shift_is_the_psnr_of_the_shifted_image():
    tissue = to_uint8(synthetic_tissue(400, 400, seed=2))
    luma = tissue @ (np.array([65.481, 128.553, 24.966]) / 255)
    window = np.outer(np.hanning(400), np.hanning(398)) ** 2
    error = np.average((luma[:, 2:] - luma[:, :-2]) ** 2, weights=window)
    found = psnr_ceiling(luma_power(tissue[None]), np.array([[2.0, 0.0]]))
    assert found.perfect_db == pytest.approx(10 * np.log10(255**2 / error), abs=0.2)


def test_known_shifts_cost_nothing_and_random_ones_do(power):
    rng = np.random.default_rng(0)
    same = psnr_ceiling(power, np.tile([[0.4, -0.2]], (10, 1)))
    assert same.best_db > 100
    assert same.perfect_db < 45
    assert "no limit" in str(same)
    values = [psnr_ceiling(power, rng.uniform(-r, r, (500, 2))) for r in (0.05, 0.5, 2.0)]
    assert values[0].best_db > values[1].best_db > values[2].best_db
    assert all(v.best_db > v.perfect_db for v in values)
    assert psnr_ceiling(power, np.zeros((3, 2))).perfect_db == np.inf
    many = psnr_ceiling(power, rng.uniform(-0.5, 0.5, (9000, 2)))
    assert many.pairs == 9000
    assert many.best_db == pytest.approx(values[1].best_db, abs=0.3)


def test_spec_table_of_a_real_tile(shared_data):
    path = shared_data / "patches" / "he_1024_40x" / "tiatoolbox_target.png"
    tile = np.asarray(Image.open(path).convert("RGB"))
    power = luma_power(tile[None])
    for shift, expected in ((0.1, 48.6), (0.25, 40.6), (0.5, 34.7), (1.0, 28.95), (2.0, 23.9)):
        assert psnr_ceiling(power, np.array([[shift, 0.0]])).perfect_db == pytest.approx(
            expected, abs=0.15
        )


def test_ceilings_need_patches_and_residuals(power):
    with pytest.raises(RegistrationError, match="HR patches"):
        luma_power(np.zeros((8, 8, 3), np.uint8))
    for bad in (np.zeros((0, 2)), np.array([[np.nan, 0.0]])):
        with pytest.raises(RegistrationError, match="residual"):
            psnr_ceiling(power, bad)


def test_overlays_are_grey_where_aligned_and_coloured_where_not():
    case = make_pair("A0", 0, lr_px=64)
    found = register_pair(case.lr, case.hr_region)
    x, y = found.offset_x, found.offset_y

    def colour(left, top):
        overlay = red_cyan(case.lr, case.hr_region[top : top + 256, left : left + 256])
        return float(np.mean(np.abs(overlay[..., 0].astype(float) - overlay[..., 1])))

    assert colour(x, y) < 0.7 * colour(max(0, x - 4), y)
    board = checkerboard(case.lr, case.hr_region[y : y + 256, x : x + 256], squares=4)
    np.testing.assert_array_equal(board[:64, :64], case.hr_region[y : y + 64, x : x + 64])
    before_after = pair_figure(case.lr, case.hr_region, found)
    assert before_after.shape == (256 + 18 + 12, 3 * (256 + 6) + 6, 3)


def test_register_pair_command(tmp_path):
    case = make_pair("A0", 2, lr_px=64)
    Image.fromarray(np.ascontiguousarray(np.rot90(case.lr))).save(tmp_path / "lr.png")
    Image.fromarray(case.hr_region).save(tmp_path / "hr.png")
    arguments = ["pair", str(tmp_path / "lr.png"), str(tmp_path / "hr.png")]
    result = CliRunner().invoke(
        app, [*arguments, "--any-orientation", "-o", str(tmp_path / "overlay.png")]
    )
    assert result.exit_code == 0, result.output
    answer = json.loads(result.output)
    assert answer["orientation"] == "turn_270"
    assert (answer["offset_x"], answer["offset_y"]) == (case.dx, case.dy)
    assert answer["verdict"] == "accept"
    assert Image.open(tmp_path / "overlay.png").size[1] == 256 + 18 + 12
    rejected = CliRunner().invoke(app, arguments)
    assert rejected.exit_code == 1
    assert json.loads(rejected.output)["verdict"] == "reject"


def test_unreadable_images_are_named(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(RegistrationError, match=r"broken\.png"):
        read_image(broken)
    case = make_pair("A0", 2, lr_px=64)
    plain = register_images(case.lr, case.hr_region, 4)
    assert plain.certificate.accepted
