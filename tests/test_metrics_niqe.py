"""NIQE: reference scores, refusal of small images, and models of one's own images."""

import logging
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from wsisr.metrics import MetricError
from wsisr.metrics.niqe import BLOCK_PX, fit_niqe, niqe, niqe_features, perceptual_index, read_niqe

PHOTO = skimage.data.immunohistochemistry()


@pytest.mark.parametrize(("crop", "value"), [(4, 3.269296), (0, 3.259312)])
def test_reference_scores(crop: int, value: float) -> None:
    assert niqe(PHOTO, crop) == pytest.approx(value, rel=5e-3)


def test_rounded_luma_is_the_score_of_basicsr() -> None:
    assert niqe(PHOTO, 4, luma="y-rounded") == pytest.approx(3.296738, rel=5e-4)


def test_damage_raises_the_score() -> None:
    noise = np.random.default_rng(0).normal(0, 25, PHOTO.shape)
    noisy = np.clip(PHOTO + noise, 0, 255).astype(np.uint8)
    assert niqe(noisy) > 1.5 * niqe(PHOTO)


def test_small_images_are_refused_and_middling_ones_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(MetricError, match="4 blocks"):
        niqe(PHOTO[:256, :256])
    with pytest.raises(MetricError, match="blocks of 96"):
        niqe_features(np.zeros((50, 200)))
    with caplog.at_level(logging.WARNING):
        assert niqe(PHOTO[:384, :384]) > 0
    assert "16 blocks" in caplog.text


def test_blank_images_have_no_score() -> None:
    with pytest.raises(MetricError, match="structure"):
        niqe(np.full((300, 300, 3), 230, np.uint8))


def test_a_model_of_own_tissue_scores_it_best(tmp_path: Path) -> None:
    tissue = [PHOTO, PHOTO[::-1], PHOTO[:, ::-1]]
    model = fit_niqe(tissue, "tissue")
    path = tmp_path / "tissue.safetensors"
    model.write(path)
    again = read_niqe(path)
    assert again.name == "tissue" and np.array_equal(again.covariance, model.covariance)
    assert niqe(PHOTO, model=again) < niqe(PHOTO)
    with pytest.raises(MetricError, match="37 sharp blocks"):
        fit_niqe([PHOTO[: 2 * BLOCK_PX, : 2 * BLOCK_PX]], "few")


def test_broken_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    for content in (None, b"no tensors"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(MetricError, match=r"none\.safetensors"):
            read_niqe(path)


def test_perceptual_index_needs_the_users_nrqm() -> None:
    assert perceptual_index(4.0, 8.0) == 3.0
    with pytest.raises(MetricError, match="NRQM"):
        perceptual_index(4.0)
