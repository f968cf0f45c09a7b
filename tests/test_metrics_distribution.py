"""FID and KID against their definitions."""

import logging

import numpy as np
import pytest
import scipy.linalg
import torch

from wsisr.metrics import MetricError
from wsisr.metrics.distribution import extract, fid, kid

RNG = np.random.default_rng(0)


def _by_matrix_root(a: np.ndarray, b: np.ndarray) -> float:
    ca, cb = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(ca @ cb)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * root.real))


@pytest.mark.parametrize(("n", "m"), [(300, 200), (60, 500)])
def test_fid_equals_the_matrix_root(n: int, m: int) -> None:
    a = RNG.normal(size=(n, 12)) @ RNG.normal(size=(12, 12))
    b = RNG.normal(size=(m, 12)) + 0.5
    assert fid(a, b) == pytest.approx(_by_matrix_root(a, b), rel=1e-6)


def test_fid_is_real_and_exact_with_fewer_images_than_dimensions() -> None:
    a, b = RNG.normal(size=(10, 64)), RNG.normal(size=(15, 64))
    assert fid(a, a) == pytest.approx(0.0, abs=1e-9)
    assert fid(a, b) == pytest.approx(fid(b, a), rel=1e-9)
    assert fid(a, a + 2.0) == pytest.approx(4.0 * 64, rel=1e-9)


def test_fid_of_few_images_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fid(RNG.normal(size=(10, 4)), RNG.normal(size=(10, 4)))
    assert "biased" in caplog.text


def test_kid_is_unbiased_and_sees_a_shift() -> None:
    a, b = RNG.normal(size=(400, 16)), RNG.normal(size=(400, 16))
    same, other = (kid(a, x, subsets=30, subset_size=100) for x in (b, b + 1.0))
    assert abs(same.mean) < 3 * same.deviation / np.sqrt(30) + 0.02
    assert other.mean > 1.0 and other.deviation > 0
    assert kid(a, b, subsets=3, subset_size=50) == kid(a, b, subsets=3, subset_size=50)


def test_kid_of_fewer_images_than_a_subset_is_refused() -> None:
    a, b = RNG.normal(size=(200, 16)), RNG.normal(size=(900, 16))
    with pytest.raises(MetricError, match=r"smaller set has 200.*subset_size=100"):
        kid(a, b)
    with pytest.raises(MetricError, match="2 or more"):
        kid(a, b, subsets=1, subset_size=50)
    # Every subset is the whole set: a mean, and no deviation that would say 0.
    whole = kid(a, b[:200], subsets=2, subset_size=200)
    assert np.isfinite(whole.mean) and np.isnan(whole.deviation)
    assert kid(a, b, subsets=2, subset_size=200).deviation > 0


def test_any_extractor_serves() -> None:
    images = [torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8) for _ in range(3)]
    features = extract(images, lambda x: x.float().mean((2, 3)))
    assert features.shape == (6, 3) and features.dtype == np.float64
    with pytest.raises(MetricError):
        extract(images, lambda x: x.float())
    with pytest.raises(MetricError):
        extract([], lambda x: x)


def test_unusable_features_are_refused() -> None:
    good = RNG.normal(size=(5, 3))
    for bad in (good[:1], good[:, :2], np.full((5, 3), np.nan)):
        with pytest.raises(MetricError):
            fid(good, bad)
