"""Sharpness, spectrum and colour errors."""

import numpy as np
import pytest
import skimage.color
import skimage.data
import torch

from wsisr.metrics import MetricError, colour_error, sharpness, sharpness_error, spectrum_error
from wsisr.metrics.texture import lab, radial_spectrum

PHOTO = skimage.data.immunohistochemistry()[:128, :160]


def _blurred() -> np.ndarray:
    padded = np.pad(PHOTO.astype(float), ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows, columns = PHOTO.shape[:2]
    views = [padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return np.mean(views, axis=0).astype(np.uint8)


def test_blur_lowers_sharpness_and_moves_the_spectrum() -> None:
    assert sharpness(_blurred()) < 0.5 * sharpness(PHOTO)
    assert sharpness_error(_blurred(), PHOTO) < -1.0
    back = sharpness_error(PHOTO, _blurred())
    assert back == pytest.approx(-sharpness_error(_blurred(), PHOTO), abs=1e-9)
    assert spectrum_error(_blurred(), PHOTO) > 0.3
    for metric in (sharpness_error, spectrum_error, colour_error):
        assert metric(PHOTO, PHOTO) == 0.0


def test_spectrum_of_white_noise_is_flat_at_its_variance() -> None:
    noise = torch.randn(4, 1, 128, 128, generator=torch.Generator().manual_seed(0)).double() * 3.0
    spectrum = radial_spectrum(noise).mean(0)
    assert spectrum[1:].numpy() == pytest.approx(np.full(31, 9.0), rel=0.25)
    assert float(spectrum[4:].mean()) == pytest.approx(9.0, rel=0.03)


def test_spectrum_finds_a_wave_in_its_ring() -> None:
    wave = torch.cos(2 * torch.pi * 0.25 * torch.arange(128.0)).expand(1, 1, 128, 128).double()
    assert int(radial_spectrum(wave).argmax()) in (15, 16)
    assert torch.allclose(radial_spectrum(wave), radial_spectrum(wave.mT), rtol=1e-6, atol=1e-9)


def test_lab_equals_scikit_image() -> None:
    ours = lab(torch.as_tensor(PHOTO.copy()).permute(2, 0, 1)[None].double())[0]
    wanted = skimage.color.rgb2lab(PHOTO)
    assert np.abs(ours.permute(1, 2, 0).numpy() - wanted).max() < 0.02


def test_colour_error_sees_stain_and_not_noise() -> None:
    stained = np.clip(PHOTO * np.array((0.95, 1.0, 1.05)), 0, 255).astype(np.uint8)
    noise = np.random.default_rng(0).normal(0, 4, PHOTO.shape)
    noisy = np.clip(PHOTO + noise, 0, 255).astype(np.uint8)
    assert colour_error(stained, PHOTO) > 2.0 * colour_error(noisy, PHOTO)


def test_tiny_images_are_refused() -> None:
    with pytest.raises(MetricError):
        sharpness(PHOTO[:2, :2])
    with pytest.raises(MetricError):
        spectrum_error(PHOTO[:6, :6], PHOTO[:6, :6])
