"""Blurs: Pillow bit for bit, SciPy, and mirrored edges for any size."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image, ImageFilter

from wsisr.degradation.blur import convolve, gaussian_blur, pad_mirror, pillow_gaussian, sample_axis
from wsisr.errors import DegradationError


@pytest.mark.parametrize(
    "radius", [0.05, 0.25, 0.5, 0.7, 1.0, 1.15, 1.5, 2.5, 3.5, 7.3, 13.0, 25.0]
)
def test_pillow_gaussian_bit_for_bit(radius: float) -> None:
    rng = np.random.default_rng(int(radius * 100))
    for height, width in ((40, 57), (9, 3), (1, 1)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        wanted = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))
        got = pillow_gaussian(torch.as_tensor(image).permute(2, 0, 1), radius)
        assert np.array_equal(got.permute(1, 2, 0).numpy(), wanted)


def test_pillow_gaussian_refuses_bad_input() -> None:
    grey = torch.zeros(3, 4, 4, dtype=torch.uint8)
    assert torch.equal(pillow_gaussian(grey, 0.0), grey)
    for image, radius in ((grey, -1.0), (grey.float(), 1.0), (grey, float("nan"))):
        with pytest.raises(DegradationError):
            pillow_gaussian(image, radius)


def test_gaussian_equals_scipy_per_sample() -> None:
    x = torch.rand(2, 3, 31, 24, dtype=torch.float64) * 255
    got = gaussian_blur(x, torch.tensor([0.6, 1.9]))
    for i, sigma in enumerate((0.6, 1.9)):
        sigma = float(torch.tensor(sigma, dtype=torch.float32))
        for c in range(3):
            wanted = scipy.ndimage.gaussian_filter(x[i, c].numpy(), sigma, radius=8, mode="reflect")
            assert np.abs(got[i, c].numpy() - wanted).max() < 1e-5
    assert torch.equal(gaussian_blur(x, 0.0), x)


def test_convolve_equals_scipy() -> None:
    x, kernel = torch.rand(2, 3, 17, 23).double(), torch.rand(2, 1, 5, 5).double()
    got = convolve(x, kernel)
    for i in range(2):
        wanted = scipy.ndimage.convolve(x[i, 1].numpy(), kernel[i, 0].numpy(), mode="reflect")
        assert np.abs(got[i, 1].numpy() - wanted).max() < 1e-9


def test_mirrored_padding_reaches_beyond_the_image() -> None:
    row = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    padded = pad_mirror(row, 0, 0, 4, 5)[0, 0, 0].tolist()
    assert padded == [3.0, 3.0, 2.0, 1.0, 1.0, 2.0, 3.0, 3.0, 2.0, 1.0, 1.0, 2.0]
    assert pad_mirror(row[..., :1], 1, 2, 3, 3).shape == (1, 1, 4, 7)


def test_cubic_sampling_is_exact_on_the_grid_and_on_ramps() -> None:
    ramp = torch.arange(20.0).expand(1, 2, 6, 20)
    place = torch.tensor([[[2.0, 3.25, 10.5, 16.75]]])
    assert torch.allclose(sample_axis(ramp, place, -1)[0, 1, 3], place[0, 0], atol=1e-5)
    assert torch.allclose(sample_axis(ramp.mT, place, -2)[0, 0, :, 2], place[0, 0], atol=1e-5)
    image = torch.rand(1, 1, 4, 9)
    assert torch.equal(sample_axis(image, torch.arange(9.0)[None, None], -1), image)
