"""Resizing against an independent oracle of MATLAB's imresize, golden values and Pillow."""

import math

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from wsisr.arrays import Float64Array
from wsisr.errors import DegradationError
from wsisr.resize import KERNELS, crop_to_scale, hr_size, lr_size, resize, to_grey


def _matlab_line(line: Float64Array, size: int, ratio: float) -> Float64Array:
    """One line through imresize, pixel by pixel as its documentation describes it."""
    width = 4.0 / min(ratio, 1.0)
    result = np.zeros((size, *line.shape[1:]))
    for i in range(size):
        centre = (i + 1) / ratio + 0.5 * (1 - 1 / ratio)
        left = math.floor(centre - width / 2)
        total = 0.0
        for tap in range(left, left + math.ceil(width) + 2):
            d = abs(centre - tap) * min(ratio, 1.0)
            if d <= 1:
                weight = 1.5 * d**3 - 2.5 * d**2 + 1
            elif d <= 2:
                weight = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
            else:
                continue
            place = (tap - 1) % (2 * len(line))
            place = place if place < len(line) else 2 * len(line) - 1 - place
            result[i] += weight * line[place]
            total += weight
        result[i] /= total
    return result


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((24, 32), (12, 8)),
        ((23, 17), (7, 17)),
        ((9, 11), (20, 33)),
        ((3, 2), (1, 1)),
        ((1, 1), (4, 3)),
    ],
)
def test_matlab_kernel_equals_its_definition(shape, size) -> None:
    image = np.random.default_rng(0).uniform(0, 255, shape)
    rows = _matlab_line(image, size[0], size[0] / shape[0])
    wanted = _matlab_line(rows.T, size[1], size[1] / shape[1]).T
    got = resize(torch.as_tensor(image), size)
    assert np.abs(got.numpy() - wanted).max() < 1e-10
    single = resize(torch.as_tensor(image).float(), size)
    assert np.abs(single.numpy() - wanted).max() < 1e-4


def test_matlab_kernel_takes_the_scale_as_given() -> None:
    image = np.random.default_rng(1).uniform(0, 255, (25, 31))
    rows = _matlab_line(image, math.ceil(25 / 2.4), 1 / 2.4)
    wanted = _matlab_line(rows.T, math.ceil(31 / 2.4), 1 / 2.4).T
    got = resize(torch.as_tensor(image), scale=1 / 2.4)
    assert np.abs(got.numpy() - wanted).max() < 1e-10


@pytest.mark.parametrize(
    ("scale", "inside", "corner"),
    [
        (2, (174.6082, 137.2865, 96.2288), (151.0961, 113.8589, 77.3874)),
        (3, (107.9883, 72.5675, 47.7165), (142.8325, 106.3307, 71.4108)),
        (4, (119.8470, 87.9426, 58.8141), (142.3319, 106.8021, 73.4728)),
        (8, (142.7579, 120.3464, 101.8154), (147.5705, 111.3079, 83.5173)),
    ],
)
def test_matlab_golden_values(scale, inside, corner) -> None:
    image = torch.as_tensor(skimage.data.immunohistochemistry().copy()).permute(2, 0, 1).float()
    lr = resize(crop_to_scale(image, scale), scale=1 / scale)
    assert lr[:, 20, 30].numpy() == pytest.approx(inside, abs=1.5e-4)
    assert lr[:, 0, 0].numpy() == pytest.approx(corner, abs=1.5e-4)


@pytest.mark.parametrize("scale", [1.5, 2, 2.4, 3, 3.3, 4, 5.1, 8])
def test_pil_kernel_is_pillow_bit_for_bit(scale) -> None:
    rng = np.random.default_rng(int(scale * 10))
    for _ in range(3):
        lr = rng.integers(1, 25, 2)
        lr[0] = min(lr[0], lr[1])
        size = (int(lr[0]), int(lr[1]))
        image = rng.integers(
            0, 256, (hr_size(size[0], scale), hr_size(size[1], scale), 3), np.uint8
        )
        for source, (height, width) in (
            (image, size),
            (image[: size[0], : size[1]], image.shape[:2]),
        ):
            wanted = np.asarray(Image.fromarray(source).resize((width, height), Image.BICUBIC))
            got = resize(
                torch.as_tensor(source.copy()).permute(2, 0, 1), (height, width), kernel="pil"
            )
            assert np.array_equal(got.permute(1, 2, 0).numpy(), wanted)


def test_area_is_the_mean_over_the_footprint() -> None:
    image = torch.arange(48.0, dtype=torch.float64).reshape(6, 8)
    blocks = image.reshape(3, 2, 4, 2).mean((1, 3))
    assert torch.allclose(resize(image, (3, 4), kernel="area"), blocks)
    row = torch.tensor([[10.0, 20.0, 40.0]], dtype=torch.float64)
    wanted = torch.tensor([[(10 + 0.5 * 20) / 1.5, (0.5 * 20 + 40) / 1.5]], dtype=torch.float64)
    assert torch.allclose(resize(row, (1, 2), kernel="area"), wanted)


def test_nearest_takes_the_pixel_at_the_centre() -> None:
    assert resize(torch.arange(9.0)[None], (1, 3), kernel="nearest").tolist() == [[1.0, 4.0, 7.0]]


@pytest.mark.parametrize("kernel", KERNELS)
def test_constants_stay_and_transposition_commutes(kernel) -> None:
    flat = torch.full((1, 13, 9), 77, dtype=torch.uint8)
    assert bool((resize(flat, (5, 4), kernel=kernel) == 77).all())
    image = torch.rand(2, 19, 14, dtype=torch.float64)
    turned = resize(image.mT, (7, 30), kernel=kernel)
    assert torch.allclose(resize(image, (30, 7), kernel=kernel), turned.mT, atol=1e-12)


def test_resize_is_differentiable_even_after_inference_mode() -> None:
    x = torch.rand(1, 21, 21)
    with torch.inference_mode():
        resize(x, (7, 7))
    x.requires_grad_(True)
    resize(x, (7, 7)).sum().backward()
    assert x.grad is not None and float(x.grad.sum()) == pytest.approx(49.0, abs=1e-3)


def test_halves_round_up() -> None:
    grey = to_grey(torch.tensor([0.5, 1.5, 2.49, -3.0, 300.0, 254.5]))
    assert grey.tolist() == [1, 2, 2, 0, 255, 255]


@pytest.mark.parametrize(
    ("side", "sizes"),
    [
        (
            768,
            {1.5: (512, 768), 2.4: (320, 768), 3.3: (232, 766), 4.2: (182, 764), 5.1: (150, 765)},
        ),
        (192, {1.5: (128, 192), 2.4: (80, 192), 3.3: (58, 191), 4.2: (45, 189), 5.1: (37, 189)}),
        (3072, {3.3: (930, 3069), 4.2: (731, 3070), 5.1: (602, 3070), 8: (384, 3072)}),
    ],
)
def test_size_rule_of_real_scales(side, sizes) -> None:
    for scale, (low, high) in sizes.items():
        assert (lr_size(side, scale), hr_size(lr_size(side, scale), scale)) == (low, high)
        assert crop_to_scale(torch.zeros(1, side, side), scale).shape[-1] == high


@pytest.mark.parametrize(
    "call",
    [
        lambda x: resize(x, (4, 4), kernel="cubic"),
        lambda x: resize(x),
        lambda x: resize(x, (4, 4), scale=2),
        lambda x: resize(x, (0, 4)),
        lambda x: resize(x, scale=-1.0),
        lambda x: resize(x.to(torch.int64), (4, 4)),
        lambda x: resize(x[0, 0], (4, 4)),
        lambda x: lr_size(100, 0.9),
        lambda x: lr_size(3, 4),
        lambda x: lr_size(3, float("nan")),
    ],
)
def test_wrong_arguments_are_refused(call) -> None:
    with pytest.raises(DegradationError):
        call(torch.zeros(1, 8, 8))
