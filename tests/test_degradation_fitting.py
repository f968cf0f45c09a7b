"""Fitting a scanner: JPEG settings from pixels, kernels, noise, and held-out prediction."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

from wsisr.degradation import degrade, parse_degradation
from wsisr.degradation.fitted import apply_tone, fit_tone
from wsisr.degradation.fitting import fit_degradation
from wsisr.degradation.jpeg import SUBSAMPLINGS, jpeg
from wsisr.degradation.profile import FittedProfile
from wsisr.degradation.scanner_jpeg import (
    JpegSettings,
    compress_luma,
    estimate_jpeg,
    expected_before_jpeg,
    find_grid,
    luma_of,
)
from wsisr.degradation.scanner_kernel import gaussian_taps, kernel_shape, optics_taps
from wsisr.degradation.scanner_noise import Noise, fit_noise, with_noise
from wsisr.degradation.scanner_pairs import FitSettings, RealPair, align, moved
from wsisr.errors import DegradationError
from wsisr.testing.degradations import ScannerTruth, make_scanner, scan

SMALL = FitSettings(half_px=14, crop_px=48, evaluations=60)


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    image = torch.as_tensor(skimage.data.immunohistochemistry().copy()).permute(2, 0, 1)[None]
    return degrade(image, "optics:na=0.3+sensor", 2)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("quality", [30, 60, 80, 95])
def test_jpeg_settings_are_read_off_pixels(photo, quality, subsampling) -> None:
    found = estimate_jpeg(jpeg(photo, quality, subsampling))
    assert found == JpegSettings(quality=quality, subsampling=subsampling)


def test_no_jpeg_is_seen_where_there_is_none(photo) -> None:
    assert estimate_jpeg(photo) is None
    assert estimate_jpeg(jpeg(photo, 80)[..., 3:, 5:]) is None
    assert estimate_jpeg(photo[..., :12, :12]) is None


def test_the_jpeg_grid_is_found(photo) -> None:
    coded = jpeg(photo, 75, "4:2:0")[0].permute(1, 2, 0).numpy()
    assert find_grid(coded[14:174, 11:171]) == (11, 14)
    assert find_grid(photo[0].permute(1, 2, 0).numpy()[:160, :160]) == (0, 0)


def test_expectation_before_jpeg_undoes_part_of_the_quantisation(photo) -> None:
    luma = luma_of(photo.double())
    real = compress_luma(luma, 60)
    guess = luma + torch.randn(luma.shape, generator=torch.Generator().manual_seed(0)) * 2.0
    expected = expected_before_jpeg(guess, real, 60, 2.0)
    errors = [float((x - luma).square().mean()) for x in (expected, guess, real)]
    assert errors[0] < 0.95 * errors[1] and errors[0] < 0.5 * errors[2]


def test_kernel_families_are_centred_and_sum_to_one() -> None:
    for scale in (3, 4):
        for taps in (
            gaussian_taps(1.3, 2.0, 0.4, scale, 8),
            optics_taps(0.3, 2.0, 0.5, scale, 12, 0.25),
        ):
            shape = kernel_shape(taps)
            assert taps.shape[-1] == 2 * (8 if len(taps) == 1 else 12) + scale
            assert np.allclose(taps.sum((-1, -2)), 1.0)
            assert abs(shape.centroid_x_px) < 1e-9 and abs(shape.centroid_y_px) < 1e-9
    wide = kernel_shape(gaussian_taps(2.0, 2.0, 0.0, 4, 12)).width_px
    assert wide == pytest.approx(np.sqrt(4 + (16 - 1) / 12), rel=2e-3)


def test_our_lens_is_the_generators_lens() -> None:
    truth = make_scanner(1, clean=True)
    optics = truth.optics
    ours = optics_taps(optics.na, optics.defocus_um, optics.sigma_px, 4, 13, 0.25)
    true = truth.kernel(13)
    assert np.linalg.norm(ours - true) / np.linalg.norm(true) < 0.05


def test_moving_by_a_whole_pixel_is_exact() -> None:
    image = torch.rand(1, 3, 40, 37) * 255
    shifted = moved(image, (1.0, -2.0))
    assert torch.allclose(shifted[..., 8:-8, 8:-8], image[..., 6:-10, 9:-7], atol=1e-3)


def test_tone_is_found_exactly_where_it_is_quadratic() -> None:
    x = torch.rand(2, 3, 20, 20) * 200 + 20
    true = np.zeros((3, 10))
    true[:, 0] = (5, -3, 2)
    true[:, 1:4] = 255 * np.array(((0.9, 0.05, 0), (0, 1.1, -0.05), (0.02, 0, 0.95)))
    true[:, 4:7] = 20 * np.eye(3)
    real = apply_tone(x, true)
    assert torch.allclose(apply_tone(x, fit_tone(x, real)), real, atol=0.05)


def test_noise_is_found_before_jpeg() -> None:
    flat = torch.linspace(40, 230, 96)[None, None, None, :].expand(6, 3, 96, 96)
    true = Noise(shot=0.04, read_variance=2.0)
    noisy = with_noise(flat, true, seed=5)
    grey = noisy.add(0.5).floor().clamp(0, 255).to(torch.uint8)
    for settings in (None, JpegSettings(quality=85, subsampling="4:4:4")):
        real = grey if settings is None else jpeg(grey, settings.quality, settings.subsampling)
        found = fit_noise(flat, real, settings)
        for level in (60.0, 200.0):
            assert found.deviation(level) == pytest.approx(true.deviation(level), rel=0.2)


@pytest.fixture(scope="module")
def clean_fit() -> tuple[ScannerTruth, list[RealPair], FittedProfile]:
    truth = make_scanner(0, clean=True)
    pairs = scan(truth, 6, seed=3, lr_px=96)
    return truth, pairs, fit_degradation(pairs, SMALL, name="clean")


def test_a_clean_scanner_is_recovered(clean_fit) -> None:
    truth, _, profile = clean_fit
    true, taps = truth.kernel(SMALL.half_px)[1], profile.kernel()[-2]
    assert np.linalg.norm(taps - true) / np.linalg.norm(true) < 0.08
    assert abs(profile.report.centroid_x_px) < 0.05 and abs(profile.report.centroid_y_px) < 0.05
    assert profile.report.quality is None
    assert profile.report.gain_db > 10.0
    assert profile.report.psnr_db["fitted"] >= profile.report.psnr_db["best gaussian"]


def test_a_profile_works_wherever_a_name_does(clean_fit, tmp_path: Path) -> None:
    _, pairs, profile = clean_fit
    path = tmp_path / "scanner.json"
    profile.write(path)
    profile.write_picture(tmp_path / "kernel.png")
    assert (tmp_path / "kernel.png").stat().st_size > 100
    degradation = parse_degradation(path)
    assert degradation.digest == profile.degradation.digest
    hr = torch.as_tensor(pairs[1].hr.copy()).permute(2, 0, 1)
    lr = degrade(hr, str(path), 4)
    assert lr.shape == (3, 96, 96)
    both = degrade(hr, f"{path}+stain:light", 4)
    assert not torch.equal(both, lr)
    with pytest.raises(DegradationError, match="fitted at scale 4"):
        degrade(hr, path, 2)


def test_a_noisy_compressed_scanner_is_predicted() -> None:
    truth = make_scanner(1)
    profile = fit_degradation(scan(truth, 6, seed=4, lr_px=96), SMALL, name="noisy")
    report = profile.report
    assert report.quality == truth.quality
    assert report.subsampling == ("4:4:4" if truth.full_chroma else "4:2:0")
    assert report.gain_db > 5.0
    assert report.spectrum_error["rendered"] < 0.5 * report.spectrum_error["bicubic"]
    true_noise = np.sqrt(200 * 255 / truth.full_well_e + truth.read_levels**2)
    assert report.noise_at_200 == pytest.approx(true_noise, rel=0.35)
    assert "held-out" in report.lines()[0]


def test_alignment_keeps_the_lr_and_cuts_to_the_grid() -> None:
    pairs = scan(make_scanner(0, clean=True), 2, seed=1, lr_px=96)
    placed = [RealPair(lr=p.lr, hr=p.hr, grid_px=(5, 11)) for p in pairs]
    aligned = align(placed, SMALL)
    margin = aligned.margin_lr_px
    left, top = margin + (-5 - margin) % 16, margin + (-11 - margin) % 16
    wanted = placed[0].lr[top : top + aligned.lr.shape[2], left : left + aligned.lr.shape[3]]
    assert np.array_equal(aligned.lr[0].permute(1, 2, 0).numpy(), wanted)
    assert (5 + left) % 16 == 0 and (11 + top) % 16 == 0
    assert aligned.hr.shape[-1] == 4 * (aligned.lr.shape[-1] + 2 * margin)


def test_unusable_pairs_are_refused() -> None:
    lr, hr = np.zeros((96, 96, 3), np.uint8), np.zeros((384, 384, 3), np.uint8)
    pair = RealPair(lr=lr, hr=hr, grid_px=(0, 0))
    other = RealPair(lr=lr, hr=hr[:192, :192], grid_px=(0, 0))
    tiny = RealPair(lr=lr[:24, :24], hr=hr[:96, :96], grid_px=(0, 0))
    odd = RealPair(lr=lr, hr=hr[:, :380], grid_px=(0, 0))
    for pairs, says in (
        ([pair], "at least 2"),
        ([pair, other, pair, pair], "one scale"),
        ([tiny, tiny], "too small"),
        ([odd, odd], "is not"),
        ([pair, pair], "no structure"),
    ):
        with pytest.raises(DegradationError, match=says):
            fit_degradation(pairs, SMALL)
