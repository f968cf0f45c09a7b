"""Protocols fix every convention and say so."""

import numpy as np
import pytest

from wsisr.metrics import PROTOCOLS, MetricError, get_protocol, psnr, ssim

_RNG = np.random.default_rng(0)
HR = _RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
SR = np.clip(HR / 255 + _RNG.normal(0, 0.03, HR.shape), 0, 1)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_scores_and_describes_itself(name: str) -> None:
    protocol = get_protocol(name)
    values, words = protocol(SR, HR, 3.3), protocol.describe(3.3)
    assert values.keys() == words.keys() and len(values) == len(protocol.scores)
    assert all(v.shape == (1,) and np.isfinite(v).all() for v in values.values())
    assert all("crop=" in text for text in words.values())


def test_conventions_are_those_of_the_sources() -> None:
    assert get_protocol("hat-y")(SR, HR, 4)["psnr_y"][0] == psnr(SR, HR, "y", 4)
    assert get_protocol("liif-rgb")(SR, HR, 2)["psnr_rgb"][0] == psnr(SR, HR, "rgb", 8, False)
    assert get_protocol("pirm")(SR, HR, 4)["ssim_y_rounded"][0] == ssim(SR, HR, "y-rounded", 4)
    iste = get_protocol("iste")(SR, HR, 6)
    assert iste["psnr_rgb"][0] == psnr(SR, HR, crop=8)
    assert iste["ssim_rgb"][0] == ssim(SR, HR, window="uniform7")
    assert get_protocol("swdnet")(SR, HR, 2)["psnr_each"][0] == psnr(SR, HR, "each", 8)


def test_real_scales_crop_whole_pixels_upwards() -> None:
    assert get_protocol("wsisr").describe(3.3)["psnr_rgb"] == "psnr_rgb[crop=4,uint8]"
    assert get_protocol("wsisr").describe(3.0)["ssim_y"] == "ssim_y[crop=3,uint8,gaussian11]"


def test_unknown_protocols_are_named() -> None:
    with pytest.raises(MetricError, match="did you mean 'hat-y'"):
        get_protocol("haty")
