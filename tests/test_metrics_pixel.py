"""PSNR, SSIM and MS-SSIM against golden values, scikit-image and their own definitions."""

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from PIL import ImageFilter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from wsisr.arrays import UInt8Array
from wsisr.metrics import (
    MetricError,
    colour_error,
    get_protocol,
    ms_ssim,
    psnr,
    sharpness_error,
    ssim,
)
from wsisr.metrics.images import as_batch, to_channel


@pytest.fixture(scope="module")
def golden_pair() -> tuple[UInt8Array, UInt8Array]:
    y, x = np.mgrid[:96, :120]
    checks = ((x // 8 + y // 8) % 2) * 160 + 40
    hr = np.stack(((2 * x + y) % 256, (3 * x + 5 * y) % 256, checks), -1).astype(np.uint8)
    noise = np.random.default_rng(7).integers(-20, 21, hr.shape)
    sr = np.clip(hr.astype(int) + noise, 0, 255).astype(np.uint8)
    digests = [hashlib.sha256(im.tobytes()).hexdigest()[:16] for im in (hr, sr)]
    assert digests == ["7be34e1d873138f6", "4fc36a4b799377fb"]
    return sr, hr


@pytest.mark.parametrize(
    ("channel", "crop", "value"),
    [
        ("rgb", 0, 26.78184833),
        ("rgb", 4, 26.78039183),
        ("y", 0, 31.70143715),
        ("y", 4, 31.69819672),
        ("y-rounded", 0, 31.67994273),
    ],
)
def test_psnr_golden_values(golden_pair, channel, crop, value) -> None:
    assert psnr(*golden_pair, channel=channel, crop=crop) == pytest.approx(value, abs=1e-7)


@pytest.mark.parametrize(
    ("channel", "crop", "value"),
    [("rgb", 0, 0.69057588), ("rgb", 4, 0.68914351), ("y", 0, 0.83675269), ("y", 4, 0.83387481)],
)
def test_ssim_golden_values(golden_pair, channel, crop, value) -> None:
    assert ssim(*golden_pair, channel=channel, crop=crop) == pytest.approx(value, abs=1e-7)


def _random_pairs() -> list[tuple[UInt8Array, UInt8Array]]:
    rng = np.random.default_rng(3)
    pairs = []
    for height, width in ((11, 11), (11, 40), (17, 23), (64, 48), (128, 96)):
        smooth = np.cumsum(rng.normal(size=(height, width, 3)), axis=1) * 8 + 128
        hr = np.clip(smooth, 0, 255).astype(np.uint8)
        sr = np.clip(hr + rng.normal(0, 9, hr.shape), 0, 255).astype(np.uint8)
        pairs.append((sr, hr))
    return pairs


@pytest.mark.parametrize("pair", _random_pairs(), ids=lambda p: "x".join(map(str, p[0].shape)))
def test_equal_scikit_image(pair: tuple[UInt8Array, UInt8Array]) -> None:
    sr, hr = pair
    assert psnr(sr, hr) == pytest.approx(peak_signal_noise_ratio(hr, sr), abs=1e-9)
    gaussian = structural_similarity(
        hr,
        sr,
        channel_axis=-1,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(sr, hr) == pytest.approx(gaussian, abs=1e-8)
    default = structural_similarity(hr, sr, channel_axis=-1, data_range=255)
    assert ssim(sr, hr, window="uniform7") == pytest.approx(default, abs=1e-8)


def test_real_tissue_equals_scikit_image(shared_data: Path) -> None:
    files = sorted((shared_data / "patches/he_1024_40x").glob("*.png"))[:2]
    assert files
    for file in files:
        with PilImage.open(file) as opened:
            hr = np.asarray(opened.convert("RGB"))[200:501, 100:470]  # several strips, odd sizes
        sr = np.asarray(PilImage.fromarray(hr).filter(ImageFilter.GaussianBlur(1.2)))
        assert psnr(sr, hr) == pytest.approx(peak_signal_noise_ratio(hr, sr), abs=1e-9)
        theirs = structural_similarity(
            hr,
            sr,
            channel_axis=-1,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert ssim(sr, hr) == pytest.approx(theirs, abs=1e-8)


def test_layouts_types_and_batches_agree(golden_pair) -> None:
    sr, hr = golden_pair
    wanted = psnr(sr, hr)
    planes = [torch.as_tensor(im).permute(2, 0, 1) for im in (sr, hr)]
    assert psnr(planes[0], planes[1]) == wanted
    assert psnr(planes[0].float() / 255, planes[1].float() / 255) == pytest.approx(wanted, abs=1e-9)
    batch = psnr(torch.stack([planes[0], planes[1]]), torch.stack([planes[1], planes[1]]))
    assert batch.shape == (2,)
    assert batch[0] == wanted and math.isinf(batch[1])


def test_rounding_is_a_choice(golden_pair) -> None:
    _, hr = golden_pair
    almost = np.clip(hr / 255 + 0.4 / 255, 0, 1)
    assert math.isinf(psnr(almost, hr))
    assert psnr(almost, hr, rounding=False) == pytest.approx(20 * math.log10(255 / 0.4), abs=0.05)


def test_luma_of_the_primaries() -> None:
    pure = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    luma = to_channel(as_batch(pure)[0], "y").flatten().tolist()
    assert luma == pytest.approx([16, 235, 81.481, 144.553, 40.966], abs=1e-9)


def test_identical_constant_and_nan_images_have_defined_answers() -> None:
    flat = np.full((32, 32, 3), 200, np.uint8)
    assert math.isinf(psnr(flat, flat)) and ssim(flat, flat) == 1.0
    assert ssim(flat, flat - 50) < 1.0
    broken = flat / 255.0
    broken[3, 4, 1] = np.nan
    assert math.isnan(psnr(broken, flat)) and math.isnan(ssim(broken, flat))


def test_ms_ssim_orders_damage_and_is_one_for_equal_images() -> None:
    rng = np.random.default_rng(0)
    hr = np.clip(np.cumsum(rng.normal(size=(180, 177, 3)), 1) * 8 + 128, 0, 255).astype(np.uint8)
    mild, strong = (
        np.clip(hr + rng.normal(0, sigma, hr.shape), 0, 255).astype(np.uint8) for sigma in (5, 40)
    )
    assert ms_ssim(hr, hr) == pytest.approx(1.0, abs=1e-12)
    assert 1.0 > ms_ssim(mild, hr) > ms_ssim(strong, hr) > 0.0


@pytest.mark.parametrize(
    "call",
    [
        lambda a: psnr(a, a[:20]),
        lambda a: psnr(a, a, crop=16),
        lambda a: psnr(a.astype(int), a),
        lambda a: psnr(a[..., 0], a[..., 0]),
        lambda a: ssim(a[:10], a[:10]),
        lambda a: ms_ssim(a, a),
        lambda a: psnr(a, a, channel="v"),
        lambda a: ssim(a, a, window="box"),
    ],
)
def test_wrong_input_is_refused(call) -> None:
    with pytest.raises(MetricError):
        call(np.zeros((32, 32, 3), np.uint8))


def _protocol(sr: object, hr: object) -> object:
    return get_protocol("wsisr")(sr, hr, 4.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("score", [psnr, ssim, _protocol, sharpness_error, colour_error])
@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda a: a.astype(np.float32), "divide by 255"),
        (lambda a: torch.from_numpy(a).double(), "divide by 255"),
        (lambda a: np.full(a.shape, 1.01), "divide by 255"),
        (lambda a: np.where(a > 250, np.inf, a / 255.0), "divide by 255"),
        (lambda a: np.where(a > 250, np.nan, a.astype(float)), "divide by 255"),
        (lambda a: [a, a], r"builtins\.list.*np\.stack"),
        (lambda a: PilImage.fromarray(a), r"PIL.*np\.asarray"),
        (lambda a: a.astype(np.uint16), "not uint16"),
        (lambda a: np.ma.masked_less(a, 9), "masked"),
        (lambda a: a.astype(object), "not object"),
        (lambda a: a[:0], "empty"),
    ],
)
def test_images_that_could_mean_something_else_are_refused(golden_pair, score, made, words) -> None:
    sr, hr = golden_pair
    with pytest.raises(MetricError, match=words):
        score(made(sr), hr)
    with pytest.raises(MetricError, match=words):
        score(hr, made(sr))


def test_floats_that_round_to_the_range_and_foreign_byte_orders_are_taken(golden_pair) -> None:
    sr, hr = golden_pair
    wanted = psnr(sr, hr)
    assert psnr((sr / 255.0).astype(">f4"), hr) == pytest.approx(wanted, abs=1e-9)
    white, beyond = np.ones((16, 16, 3)), np.full((16, 16, 3), 1.0 + 0.4 / 255)
    assert math.isinf(psnr(beyond, white)) and math.isinf(psnr(beyond, white, rounding=False))


@pytest.mark.parametrize("crop", [2.5, 2.0, "2", None])
def test_a_crop_is_a_whole_number(golden_pair, crop) -> None:
    with pytest.raises(MetricError, match=r"whole number.*ceil\(scale\)"):
        psnr(*golden_pair, crop=crop)
    assert psnr(*golden_pair, crop=np.int64(4)) == psnr(*golden_pair, crop=4)
