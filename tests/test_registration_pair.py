"""One LR patch against an HR region: accuracy on exact truth, conventions, refusals."""

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.registration import phase_cross_correlation
from slides_samples import box_level

from wsisr.errors import RegistrationError
from wsisr.registration import D4, Gate, PairCertificate, find_orientation, register_pair
from wsisr.registration import correlation as corr
from wsisr.registration.certificate import Reason, Verdict
from wsisr.testing.pair_scenes import synthetic_tissue
from wsisr.testing.pairs import make_pair
from wsisr.testing.registration_suite import (
    RegistrationTests,
    orientations_right,
    run_suite,
    wsisr_registrar,
)
from wsisr.testing.rendering import to_uint8


class TestRegisterPairConforms(RegistrationTests):
    count = 5
    small_px = 96


@pytest.fixture(scope="module")
def tissue():
    return to_uint8(synthetic_tissue(620, 620, seed=21))


@pytest.mark.parametrize("scale", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("kernel", ["area", "bicubic"])
def test_half_pixel_convention_of_reductions(tissue, scale, kernel):
    size = 576 // scale
    crop = tissue[11 : 11 + scale * size, 7 : 7 + scale * size]
    if kernel == "area":
        lr = box_level(crop, scale)
    else:
        lr = np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.BICUBIC))
    found = register_pair(lr, tissue, scale)
    assert found.accepted, found.reason
    assert abs(found.dx - 7) < 0.02
    assert abs(found.dy - 11) < 0.02


def test_transposed_images_give_the_transposed_answer():
    case = make_pair("B1", 3, lr_px=96)
    there = register_pair(case.lr, case.hr_region)
    back = register_pair(
        np.ascontiguousarray(case.lr.swapaxes(0, 1)),
        np.ascontiguousarray(case.hr_region.swapaxes(0, 1)),
    )
    assert back.dx == pytest.approx(there.dy, abs=5e-3)
    assert back.dy == pytest.approx(there.dx, abs=5e-3)
    assert back.ncc_band == pytest.approx(there.ncc_band, abs=1e-3)


def test_regions_of_any_size_and_patches_of_any_shape(tissue):
    lr = box_level(tissue[200:360, 130:410], 4)  # 40 x 70 px
    found = register_pair(lr, tissue, 4)
    assert found.accepted, found.reason
    assert (found.offset_x, found.offset_y) == (130, 200)
    one_more = tissue[200 : 200 + 161, 130 : 130 + 281]
    assert register_pair(lr, one_more, 4).offset_x == 0


def test_paper_method_is_the_argmax_of_its_surface():
    case = make_pair("A1", 2, lr_px=96)
    grey_lr, grey_hr = corr.grey(case.lr), corr.grey(case.hr_region)
    big = cv2.resize(grey_lr, (384, 384), interpolation=cv2.INTER_CUBIC)
    best = (-2.0, 0, 0)
    for y in range(27):
        for x in range(27):
            best = max(best, (corr.ncc(big, grey_hr[y : y + 384, x : x + 384]), x, y))
    found = register_pair(case.lr, case.hr_region, 4, "ncc-integer")
    assert (found.offset_x, found.offset_y) == best[1:]
    assert found.ncc == pytest.approx(best[0], abs=1e-4)
    assert abs(found.dx - case.dx) < 0.05
    assert found.residual_x == pytest.approx(found.dx - found.offset_x)


def test_planted_whole_shifts_are_found_to_the_integer():
    for seed in range(4):
        case = make_pair("A0", seed, lr_px=64)
        for method in ("subpixel", "ncc-integer"):
            found = register_pair(case.lr, case.hr_region, 4, method)
            assert (found.offset_x, found.offset_y) == (case.dx, case.dy)


def test_correlation_peak_agrees_with_scikit_image():
    case = make_pair("B1", 4, lr_px=128)
    lr = corr.grey(case.lr)
    reduced = corr.box_reduce_at(corr.grey(case.hr_region), 10, 12, 128, 128, 4)
    window = corr.hann(128, 128)
    a = corr.laplacian_of_gaussian(lr) * window
    b = corr.laplacian_of_gaussian(reduced) * window
    shift, _, _ = phase_cross_correlation(b, a, normalization=None, upsample_factor=400)
    ours = corr.correlation_peak(a, b)
    # Same peak; the likelihood weights move it by less than the method's own error.
    assert abs(ours[0] - shift[1]) < 0.03
    assert abs(ours[1] - shift[0]) < 0.03


def test_orientation_is_found_for_all_eight():
    assert all(orientations_right(8, lr_px=64))
    case = make_pair("B1", 9, lr_px=64)
    for op in D4:
        lr = np.ascontiguousarray(op.inverse().apply(case.lr))
        assert find_orientation(lr, case.hr_region)[0] == op


def flat(size, value):
    return np.full((size, size, 3), value, np.uint8)


def stripes(size):
    wave = 128 + 60 * np.sin(np.arange(size) / 3)
    return to_uint8(np.repeat(np.tile(wave, (size, 1))[..., None], 3, axis=2))


def ramp(size):
    return to_uint8(np.repeat(np.tile(np.linspace(0, 255, size), (size, 1))[..., None], 3, axis=2))


@pytest.mark.parametrize("method", ["subpixel", "ncc-integer", "affine"])
def test_nothing_to_match_is_a_reject_with_finite_values(method):
    noise = np.random.default_rng(0).integers(0, 256, (282, 282, 3), dtype=np.uint8)
    cases = [
        (flat(64, 255), flat(282, 255)),
        (flat(64, 0), noise),
        (noise[:64, :64], flat(282, 240)),
        (noise[:64, :64], noise),
        (stripes(64), stripes(282)),
        (ramp(64), ramp(282)),
    ]
    for lr, hr in cases:
        found = register_pair(np.ascontiguousarray(lr), hr, 4, method)
        assert found.verdict is Verdict.REJECT
        assert found.reason in set(Reason)
        assert 0 <= found.offset_x <= 26
        assert 0 <= found.offset_y <= 26


def odd_image(rng, height, width):
    """Flat, noise, half empty, one dot, stripes, a cross, or soft noise."""
    kind = rng.integers(7)
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == 0:
        return np.full_like(noise, rng.integers(256))
    if kind == 1:
        return noise
    image = np.full_like(noise, 128)
    if kind == 2:
        image[: height // 2] = noise[: height // 2]
    elif kind == 3:
        image[height // 2, width // 2] = 255
    elif kind == 4:
        image[:] = (np.arange(width) % rng.integers(2, 9) * 30).astype(np.uint8)[None, :, None]
    elif kind == 5:
        image[rng.integers(height), :], image[:, rng.integers(width)] = 0, 255
    else:
        image = cv2.GaussianBlur(noise, (0, 0), float(rng.uniform(0.5, 6)))
    return image


@pytest.mark.parametrize("method", ["subpixel", "ncc-integer", "affine"])
def test_whatever_the_pixels_are_there_is_a_finite_certificate(method):
    rng = np.random.default_rng(17)
    for _ in range(80):
        scale = int(rng.integers(2, 10))
        height, width = (int(n) for n in rng.integers(16, 40, 2))
        room = rng.integers(1, 20, 2)
        region = (scale * height + int(room[0]), scale * width + int(room[1]))
        hr = odd_image(rng, *region)
        lr = odd_image(rng, height, width)
        if rng.random() < 0.3:
            crop = hr[: scale * height, : scale * width]
            lr = np.asarray(Image.fromarray(crop).resize((width, height), Image.Resampling.BOX))
        initial = None
        if method == "affine" and rng.random() < 0.5:
            guess = rng.normal(0, 1, (2, 3)) * [scale, scale, 40]
            initial = tuple(tuple(row) for row in guess.tolist())
        found = register_pair(lr, hr, scale, method, initial=initial)
        assert found.accepted == (found.reason == "")
        assert 0 <= found.offset_x <= region[1] - scale * width
        assert 0 <= found.offset_y <= region[0] - scale * height


def test_certificates_refuse_nan_and_speak_the_stores_names():
    case = make_pair("A1", 0, lr_px=64)
    found = register_pair(case.lr, case.hr_region)
    row = found.columns()
    for name in ("offset_x", "residual_y", "ncc_band", "spread", "affine", "verdict", "reason"):
        assert name in row
    with pytest.raises(ValueError, match="finite"):
        PairCertificate(**{**vars(found), "ncc": float("nan")})


def test_the_gate_decides():
    case = make_pair("B1", 0, lr_px=96)
    strict = register_pair(case.lr, case.hr_region, gate=Gate(min_ncc_band=0.999))
    assert not strict.accepted
    assert strict.reason == Reason.PLACE
    narrow = register_pair(case.lr, case.hr_region, gate=Gate(max_spread_px=0.0))
    assert narrow.reason == Reason.SPREAD


def test_bare_glass_beside_tissue_has_no_say_in_the_spread():
    case = make_pair("B1", 5, lr_px=128)
    rng = np.random.default_rng(1)
    lr, hr = case.lr.copy(), case.hr_region.copy()
    x = round(case.dx) + 4 * 64
    for image, edge in ((lr, 64), (hr, x)):
        glass = rng.normal(238, 1.5, image[:, edge:].shape)
        image[:, edge:] = to_uint8(glass)
    found = register_pair(lr, hr)
    assert found.accepted, found.reason
    assert found.spread < 0.5


def test_tissue_at_one_edge_is_too_little_for_an_affine_pair():
    case = make_pair("B1", 5, lr_px=128)
    lr, hr = case.lr.copy(), case.hr_region.copy()
    for image, edge in ((lr, 40), (hr, round(case.dx) + 4 * 40)):
        image[:, edge:] = 238
    found = register_pair(lr, hr, method="affine")
    assert found.reason == Reason.TEXTURE
    assert found.ncc_band > 0.8  # it matches where it shows something
    assert found.error == 1000


def test_places_outside_are_named_so():
    reasons = set()
    for seed in range(4):
        case = make_pair("P", seed, lr_px=96)
        reasons.add(register_pair(case.lr, case.hr_region).reason)
    assert Reason.OUTSIDE in reasons


def test_a_first_guess_with_any_turn_is_refined():
    case = make_pair("B2", 0, lr_px=128)
    (a, b, tx), (c, d, ty) = case.true_map
    guess = ((a, b, tx + 9.0), (c, d, ty - 7.0))
    found = register_pair(case.lr, case.hr_region, 4, "affine", initial=guess)
    assert found.accepted, found.reason
    assert np.hypot(found.dx - case.dx, found.dy - case.dy) < 0.3


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"lr": np.zeros((32, 32), np.uint8)}, "uint8 RGB"),
        ({"lr": np.zeros((32, 32, 3), np.float32)}, "uint8 RGB"),
        ({"hr_region": np.zeros((128, 128, 3), np.uint8)}, "nothing to search"),
        ({"lr": np.zeros((8, 8, 3), np.uint8)}, "too small"),
        ({"scale": 0.5}, "1 or more"),
        ({"scale": 2.5}, "whole number"),
        ({"method": "subpixle"}, "no registration method"),
        ({"initial": ((4.0, 0.0, 0.0), (0.0, 4.0, 0.0))}, "affine method only"),
        ({"method": "affine", "initial": ((np.nan, 0, 0), (0, 4, 0))}, "finite"),
    ],
)
def test_wrong_input_is_refused_in_words(change, text):
    arguments = {
        "lr": np.zeros((32, 32, 3), np.uint8),
        "hr_region": np.zeros((150, 150, 3), np.uint8),
        "scale": 4,
    }
    with pytest.raises(RegistrationError, match=text):
        register_pair(**{**arguments, **change})


def test_no_unrelated_pair_is_accepted_by_the_papers_method_either():
    for suite in ("W", "N", "P"):
        result = run_suite(wsisr_registrar("ncc-integer"), suite, range(3), lr_px=64)
        assert not result.accepted.any()


def test_real_tissue(shared_data):
    folder = shared_data / "patches" / "he_1024_40x"
    for index, path in enumerate(sorted(folder.glob("*.png"))[:3]):
        scene = np.asarray(Image.open(path).convert("RGB"), dtype=np.float64)
        for suite, limit in (("A1", 0.05), ("B1", 0.1)):
            result = run_suite(wsisr_registrar(), suite, [10 * index], scene=scene, lr_px=208)
            assert result.accepted.all()
            assert result.errors_px.max() < limit
